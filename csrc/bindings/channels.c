/* Sums over channels, and channels scaled: arrays of (outer, channels, inner) in, kernels called. */
#include "args.h"
#include "module.h"

#include "../kernels/channels.h"

/* Up to two arrays of data, and constants of their channels, all of one type. */
enum { ARRAYS = 2, CONSTANTS = 4 };

typedef struct {
    PyArrayObject *data[ARRAYS], *constant[CONSTANTS];
    ndq_channels job;
} operands;

static void release(operands *o)
{
    for (int i = 0; i < ARRAYS; i++)
        ndq_release(o->data[i]);
    for (int i = 0; i < CONSTANTS; i++)
        ndq_release(o->constant[i]);
}

/* float64 if any of them is, else float32. */
static int type_of(PyArrayObject *const *arrays, int count)
{
    for (int i = 0; i < count; i++)
        if (PyArray_TYPE(arrays[i]) != NPY_FLOAT && PyArray_TYPE(arrays[i]) != NPY_HALF)
            return NPY_DOUBLE;
    return NPY_FLOAT;
}

static int make_contiguous(PyArrayObject **array, int type)
{
    PyArrayObject *made = ndq_contiguous(*array, type);
    ndq_release(*array);
    *array = made;
    return made ? 0 : -1;
}

/* Takes `count` arrays of one shape (outer, channels, inner). */
static int take_data(operands *o, PyObject *const *args, int count, const char *const *names)
{
    for (int i = 0; i < count; i++)
        if (!(o->data[i] = ndq_float_array(args[i], names[i])) || ndq_check_ndim(o->data[i], names[i], 3) < 0 ||
            ndq_check_same_shape(o->data[i], names[i], o->data[0], names[0]) < 0)
            return -1;
    const int type = type_of(o->data, count);
    for (int i = 0; i < count; i++)
        if (make_contiguous(&o->data[i], type) < 0)
            return -1;
    const npy_intp *shape = PyArray_DIMS(o->data[0]);
    o->job = (ndq_channels){.kernels = ndq_kernels_in_use(), .is_double = type == NPY_DOUBLE,
                            .outer = (size_t)shape[0], .geometry = {(size_t)shape[1], (size_t)shape[2]},
                            .u = PyArray_DATA(o->data[0]), .v = PyArray_DATA(o->data[count - 1])};
    return 0;
}

/* Takes centre, scale, slope and shift, of which None stands for zeros. */
static int take_constants(operands *o, PyObject *const *args)
{
    static const char *const names[] = {"centre", "scale", "slope", "shift"};
    const void **const places[] = {&o->job.centre, &o->job.scale, &o->job.slope, &o->job.shift};
    const npy_intp channels = (npy_intp)o->job.geometry.channels;
    const int type = o->job.is_double ? NPY_DOUBLE : NPY_FLOAT;
    for (int i = 0; i < CONSTANTS; i++) {
        if (args[i] == Py_None)
            o->constant[i] = (PyArrayObject *)PyArray_ZEROS(1, &channels, type, 0);
        else
            o->constant[i] = ndq_float_array(args[i], names[i]);
        if (!o->constant[i] || ndq_check_shape(o->constant[i], names[i], 1, &channels) < 0 ||
            make_contiguous(&o->constant[i], type) < 0)
            return -1;
        *places[i] = PyArray_DATA(o->constant[i]);
    }
    return 0;
}

static int compute(const ndq_channels *job, ndq_status (*function)(const ndq_channels *))
{
    ndq_status status;
    Py_BEGIN_ALLOW_THREADS
    status = function(job);
    Py_END_ALLOW_THREADS
    return ndq_check_status(status);
}

/* channel_sums(u, v) */
static PyObject *py_channel_sums(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    static const char *const names[] = {"u", "v"};
    (void)module;
    operands o = {{0}, {0}, {0}};
    PyArrayObject *sums = NULL;
    PyObject *result = NULL;
    if (ndq_check_count("channel_sums", count, 2) < 0 || take_data(&o, args, 2, names) < 0)
        goto exit;
    const npy_intp shape[] = {2, (npy_intp)o.job.geometry.channels};
    if (!(sums = ndq_output(Py_None, "sums", 2, shape, NPY_DOUBLE)))
        goto exit;
    ndq_status status;
    Py_BEGIN_ALLOW_THREADS
    status = ndq_channel_sums(&o.job, PyArray_DATA(sums));
    Py_END_ALLOW_THREADS
    if (ndq_check_status(status) == 0)
        result = (PyObject *)ndq_retain(sums);
exit:
    release(&o);
    ndq_release(sums);
    return result;
}

/* What both functions do that give an array of the shape of their data. */
static PyObject *transform(PyObject *const *args, int arrays, const char *const *names,
                           ndq_status (*function)(const ndq_channels *))
{
    operands o = {{0}, {0}, {0}};
    PyArrayObject *out = NULL;
    PyObject *result = NULL;
    if (take_data(&o, args, arrays, names) < 0 || take_constants(&o, args + arrays) < 0 ||
        !(out = ndq_output(Py_None, "out", 3, PyArray_DIMS(o.data[0]), o.job.is_double ? NPY_DOUBLE : NPY_FLOAT)))
        goto exit;
    o.job.out = PyArray_DATA(out);
    if (compute(&o.job, function) == 0)
        result = (PyObject *)ndq_retain(out);
exit:
    release(&o);
    ndq_release(out);
    return result;
}

/* scale_channels(x, centre, scale, slope, shift): slope is not used. */
static PyObject *py_scale_channels(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    static const char *const names[] = {"x"};
    (void)module;
    return ndq_check_count("scale_channels", count, 5) < 0 ? NULL : transform(args, 1, names, ndq_scale_channels);
}

/* mix_channels(dy, x, centre, scale, slope, shift) */
static PyObject *py_mix_channels(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    static const char *const names[] = {"dy", "x"};
    (void)module;
    return ndq_check_count("mix_channels", count, 6) < 0 ? NULL : transform(args, 2, names, ndq_mix_channels);
}

#define METHOD(name, signature, doc) \
    {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, #name signature "\n--\n\n" doc}

PyMethodDef ndq_channels_methods[] = {
    METHOD(channel_sums, "(u, v, /)", "Sums of u and of u * v over axes 0 and 2, float64."),
    METHOD(scale_channels, "(x, centre, scale, slope, shift, /)", "(x - centre) * scale + shift."),
    METHOD(mix_channels, "(dy, x, centre, scale, slope, shift, /)",
           "(dy * scale + (x - centre) * slope) + shift."),
    {NULL, NULL, 0, NULL},
};
