/* What observers need to know of an array: extremes and histogram. */
#include "args.h"
#include "module.h"
#include "../kernels/reduce.h"

/* A float array as the reductions want it, in float32 if it is that or narrower. */
static PyArrayObject *observed(PyObject *object, ndq_elementwise *job)
{
    PyArrayObject *given = ndq_float_array(object, "x");
    if (!given)
        return NULL;
    const int type = PyArray_TYPE(given);
    job->arithmetic = type == NPY_FLOAT || type == NPY_HALF ? NDQ_F32 : NDQ_F64;
    PyArrayObject *x = ndq_contiguous(given, ndq_is_f32(job->arithmetic) ? NPY_FLOAT : NPY_DOUBLE);
    ndq_release(given);
    if (!x)
        return NULL;
    job->kernels = ndq_kernels_in_use();
    job->n = (size_t)PyArray_SIZE(x);
    job->geometry = (ndq_geometry){.channels = 1, .inner = job->n};
    job->x = PyArray_DATA(x);
    return x;
}

/* Divides the job's array along an axis, in groups or not, unless the axis is None; and the shape of one number for each
 * channel, of which it returns the dimensions. */
static int divide(PyObject *axis_arg, PyObject *group_arg, PyArrayObject *x, ndq_geometry *geometry, npy_intp *shape)
{
    if (axis_arg == Py_None)
        return 0;
    const long axis = PyLong_AsLong(axis_arg);
    const Py_ssize_t group_size = group_arg == Py_None ? 0 : PyLong_AsSsize_t(group_arg);
    if ((axis == -1 || group_size == -1) && PyErr_Occurred())
        return -1;
    if (axis != (int)axis || group_size < 0) {
        PyErr_SetString(PyExc_ValueError, "axis, group_size: out of range");
        return -1;
    }
    if (ndq_divide(x, "x", (int)axis, group_size, geometry) < 0)
        return -1;
    const int from_start = ndq_axis_of(x, "x", (int)axis);
    shape[0] = PyArray_DIM(x, from_start);
    if (!group_size)
        return 1;
    for (int d = 0; d < PyArray_NDIM(x); d++)
        shape[d] = PyArray_DIM(x, d) / (d == from_start ? group_size : 1);
    return PyArray_NDIM(x);
}

/* (low, high, nans, infs), the first two float64: an array with one element per channel or group, or a scalar. */
static PyObject *extremes_as_python(const ndq_extremes *extremes, int ndim, const npy_intp *shape)
{
    PyArrayObject *low = (PyArrayObject *)PyArray_SimpleNew(ndim, shape, NPY_DOUBLE);
    PyArrayObject *high = (PyArrayObject *)PyArray_SimpleNew(ndim, shape, NPY_DOUBLE);
    size_t nans = 0, infs = 0;
    if (!low || !high) {
        ndq_release(low);
        ndq_release(high);
        return NULL;
    }
    for (npy_intp c = 0; c < PyArray_SIZE(low); c++) {
        ((double *)PyArray_DATA(low))[c] = extremes[c].min;
        ((double *)PyArray_DATA(high))[c] = extremes[c].max;
        nans += extremes[c].nans;
        infs += extremes[c].infs;
    }
    /* "N" takes the references over, also when one of them is NULL. */
    return Py_BuildValue("NNnn", PyArray_Return(low), PyArray_Return(high), (Py_ssize_t)nans, (Py_ssize_t)infs);
}

static PyObject *py_minmax(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    ndq_elementwise job = {0};
    ndq_extremes *extremes = NULL;
    PyObject *result = NULL;
    PyArrayObject *x = NULL;
    npy_intp shape[NPY_MAXDIMS];
    int ndim;
    ndq_status status;
    if ((count != 2 && ndq_check_count("minmax", count, 3) < 0) || !(x = observed(args[0], &job)) ||
        (ndim = divide(args[1], count == 3 ? args[2] : Py_None, x, &job.geometry, shape)) < 0)
        goto exit;
    extremes = ndq_alloc((size_t)PyArray_MultiplyList(shape, ndim) * sizeof *extremes);
    if (ndq_check_status(extremes ? NDQ_OK : NDQ_NO_MEMORY) < 0)
        goto exit;
    Py_BEGIN_ALLOW_THREADS
    status = ndq_minmax(&job, extremes);
    Py_END_ALLOW_THREADS
    if (ndq_check_status(status) == 0)
        result = extremes_as_python(extremes, ndim, shape);
exit:
    ndq_free(extremes);
    ndq_release(x);
    return result;
}

/* Numbers the binades that were seen and returns their keys, in ascending order, as an int64 array. */
static PyArrayObject *number_rows(const uint8_t *seen, int32_t *row)
{
    npy_intp rows = 0;
    for (int key = 0; key < NDQ_BINADES; key++)
        row[key] = seen[key] ? (int32_t)rows++ : 0;
    PyArrayObject *keys = (PyArrayObject *)PyArray_SimpleNew(1, &rows, NPY_INT64);
    if (!keys)
        return NULL;
    for (int key = 0; key < NDQ_BINADES; key++)
        if (seen[key])
            ((npy_int64 *)PyArray_DATA(keys))[row[key]] = key;
    return keys;
}

static PyObject *py_histogram(PyObject *module, PyObject *object)
{
    (void)module;
    ndq_elementwise job = {0};
    /* Zero always has a row, so that there is a place to count even if another thread changes x meanwhile. */
    uint8_t seen[NDQ_BINADES] = {1};
    int32_t row[NDQ_BINADES];
    PyObject *result = NULL;
    PyArrayObject *counts = NULL, *keys = NULL, *x = observed(object, &job);
    if (!x)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    ndq_binades(&job, seen);
    Py_END_ALLOW_THREADS
    if (!(keys = number_rows(seen, row)))
        goto exit;
    const npy_intp shape[2] = {PyArray_DIM(keys, 0), NDQ_BINS_PER_BINADE};
    counts = (PyArrayObject *)PyArray_ZEROS(2, shape, NPY_INT64, 0);
    if (!counts)
        goto exit;
    Py_BEGIN_ALLOW_THREADS
    ndq_histogram(&job, row, PyArray_DATA(counts));
    Py_END_ALLOW_THREADS
    result = PyTuple_Pack(2, (PyObject *)keys, (PyObject *)counts);
exit:
    ndq_release(keys);
    ndq_release(counts);
    ndq_release(x);
    return result;
}

PyMethodDef ndq_observe_methods[] = {
    {"minmax", (PyCFunction)(void (*)(void))py_minmax, METH_FASTCALL,
     "minmax(x, axis, group_size=None, /)\n--\n\nSmallest and largest finite value, number of NaNs, number of infinities."},
    {"histogram", py_histogram, METH_O, "histogram(x, /)\n--\n\nBinades that occur, and the counts of their 512 bins."},
    {NULL, NULL, 0, NULL},
};
