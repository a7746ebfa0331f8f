/* Products of signs: arguments in, kernel called, results out. */
#include "geometry.h"
#include "module.h"

#include "../kernels/binary.h"

/* Bytes of at least `least` axes, C-contiguous, whose last axis holds `length` bits. */
static PyArrayObject *take_bits(PyObject *object, const char *name, int least, Py_ssize_t length)
{
    const ndq_params codes = {.codes = NDQ_U8};
    PyArrayObject *given = ndq_codes_of(object, name, &codes), *bits = NULL;
    if (!given)
        return NULL;
    const int ndim = PyArray_NDIM(given);
    const Py_ssize_t bytes = length < 0 ? -1 : length / 8 + (length % 8 != 0);
    if (ndim < least || PyArray_DIM(given, ndim - 1) != bytes)
        PyErr_Format(PyExc_ValueError, "%s: expected at least %d dimensions, the last of %zd bytes for %zd bits, got %d%s",
                     name, least, bytes, length, ndim, ndim ? " or another length" : "");
    else
        bits = ndq_contiguous(given, NPY_UBYTE);
    ndq_release(given);
    return bits;
}

static int compute(const ndq_binary_call *call)
{
    ndq_status status;
    const double bits = (double)call->y.taps * (double)call->x.taps * (double)call->channels;
    if (bits > INT32_MAX) {
        PyErr_Format(PyExc_OverflowError, "w: %lld inputs of an output pass the range of int32", (long long)bits);
        return -1;
    }
    Py_BEGIN_ALLOW_THREADS
    status = ndq_binary_multiply(call);
    Py_END_ALLOW_THREADS
    return ndq_check_status(status);
}

static PyArrayObject *take_output(PyObject *out, int ndim, const npy_intp *shape, PyArrayObject *a, PyArrayObject *w)
{
    PyArrayObject *output = ndq_output(out, "out", ndim, shape, NPY_INT32);
    if (!output || (ndq_check_disjoint(output, "out", a, "a") == 0 && ndq_check_disjoint(output, "out", w, "w") == 0))
        return output;
    ndq_release(output);
    return NULL;
}

/* matmul_binary(a, w, length, out) */
static PyObject *py_matmul_binary(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    static const ndq_conv_axis one = {.in = 1, .out = 1, .taps = 1, .stride = 1, .dilation = 1};
    PyArrayObject *a = NULL, *w = NULL, *out = NULL;
    PyObject *result = NULL;
    if (ndq_check_count("matmul_binary", count, 4) < 0)
        return NULL;
    const Py_ssize_t length = PyLong_AsSsize_t(args[2]);
    if (PyErr_Occurred() || !(a = take_bits(args[0], "a", 1, length)) || !(w = take_bits(args[1], "w", 2, length)) ||
        ndq_check_ndim(w, "w", 2) < 0)
        goto exit;
    npy_intp shape[NPY_MAXDIMS];
    const int last = PyArray_NDIM(a) - 1;
    memcpy(shape, PyArray_DIMS(a), (size_t)last * sizeof(shape[0]));
    shape[last] = PyArray_DIM(w, 0);
    if (!(out = take_output(args[3], last + 1, shape, a, w)))
        goto exit;
    const ndq_binary_call call = {.kernel = ndq_kernels_in_use()->binary, .images = (size_t)PyArray_MultiplyList(shape, last),
                                  .N = (size_t)shape[last], .channels = (size_t)length, .y = one, .x = one,
                                  .a = PyArray_DATA(a), .w = PyArray_DATA(w), .out = PyArray_DATA(out)};
    if (compute(&call) == 0)
        result = (PyObject *)ndq_retain(out);
exit:
    ndq_release(a);
    ndq_release(w);
    ndq_release(out);
    return result;
}

/* conv2d_binary(x, w, channels, geometry, out) */
static PyObject *py_conv2d_binary(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    PyArrayObject *x = NULL, *w = NULL, *out = NULL;
    PyObject *result = NULL;
    ndq_conv_geometry geometry;
    ndq_binary_call call = {.kernel = ndq_kernels_in_use()->binary};
    if (ndq_check_count("conv2d_binary", count, 5) < 0)
        return NULL;
    const Py_ssize_t channels = PyLong_AsSsize_t(args[2]);
    if (PyErr_Occurred() || ndq_take_geometry(args[3], &geometry) < 0 || !(x = take_bits(args[0], "x", 4, channels)) ||
        !(w = take_bits(args[1], "w", 4, channels)) || ndq_check_ndim(x, "x", 4) < 0 || ndq_check_ndim(w, "w", 4) < 0 ||
        ndq_make_axis(&geometry, 0, PyArray_DIM(x, 1), PyArray_DIM(w, 1), &call.y) < 0 ||
        ndq_make_axis(&geometry, 1, PyArray_DIM(x, 2), PyArray_DIM(w, 2), &call.x) < 0)
        goto exit;
    const npy_intp shape[4] = {PyArray_DIM(x, 0), (npy_intp)call.y.out, (npy_intp)call.x.out, PyArray_DIM(w, 0)};
    if (!(out = take_output(args[4], 4, shape, x, w)))
        goto exit;
    call.images = (size_t)shape[0];
    call.N = (size_t)shape[3];
    call.channels = (size_t)channels;
    call.a = PyArray_DATA(x);
    call.w = PyArray_DATA(w);
    call.out = PyArray_DATA(out);
    if (compute(&call) == 0)
        result = (PyObject *)ndq_retain(out);
exit:
    ndq_release(x);
    ndq_release(w);
    ndq_release(out);
    return result;
}

#define METHOD(name, signature, doc) \
    {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, #name signature "\n--\n\n" doc}

PyMethodDef ndq_binary_methods[] = {
    METHOD(matmul_binary, "(a, w, length, out, /)", "Product of rows of signs, as bits, by rows of signs."),
    METHOD(conv2d_binary, "(x, w, channels, geometry, out, /)", "Convolution of images of signs, channels last."),
    {NULL, NULL, 0, NULL},
};
