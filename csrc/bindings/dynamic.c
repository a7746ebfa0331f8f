/* Layers that quantize their input as it comes: floats in, packed weights, floats out. */
#include "args.h"
#include "dynamic.h"
#include "module.h"

#include "../kernels/dynamic.h"

const ndq_packed *ndq_take_row_weight(PyObject *module, PyObject *object)
{
    const ndq_packed *packed = ndq_packed_of(module, object);
    if (packed && !packed->float_bias) {
        PyErr_SetString(PyExc_ValueError, "packed: expected weights with a float bias");
        return NULL;
    }
    return packed && ndq_check_overflow(packed, "w", 0, false, 0) == 0 ? packed : NULL;
}

/* Floats (..., length) as C-contiguous float32; two axes at least. */
static PyArrayObject *take_floats(PyObject *object, const char *name, size_t length)
{
    PyArrayObject *given = ndq_float_array(object, name), *array = given ? ndq_contiguous(given, NPY_FLOAT) : NULL;
    ndq_release(given);
    if (!array)
        return NULL;
    const int ndim = PyArray_NDIM(array);
    if (ndim >= 1 && (size_t)PyArray_DIM(array, ndim - 1) == length)
        return array;
    PyErr_Format(PyExc_ValueError, "%s: its last axis must have length %zu", name, length);
    ndq_release(array);
    return NULL;
}

static int check_finite(ndq_status status, const char *name, size_t row)
{
    if (status != NDQ_NOT_FINITE)
        return ndq_check_status(status);
    PyErr_Format(PyExc_ValueError, "%s %zu holds NaN or infinity", name, row);
    return -1;
}

/* linear_rows(x, packed, activation, out) */
static PyObject *py_linear_rows(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    PyArrayObject *x = NULL, *out = NULL;
    PyObject *result = NULL;
    const ndq_packed *w;
    ndq_activation activation;
    if (ndq_check_count("linear_rows", count, 4) < 0 || ndq_take_activation(args[2], &activation) < 0 || !(w = ndq_take_row_weight(module, args[1])) ||
        !(x = take_floats(args[0], "x", w->K)))
        goto exit;
    npy_intp shape[NPY_MAXDIMS];
    const int last = PyArray_NDIM(x) - 1;
    memcpy(shape, PyArray_DIMS(x), (size_t)last * sizeof(shape[0]));
    shape[last] = (npy_intp)w->N;
    if (!(out = ndq_output(args[3], "out", last + 1, shape, NPY_FLOAT)) || ndq_check_disjoint(out, "out", x, "x") < 0)
        goto exit;
    const ndq_rows_call call = {.kernels = ndq_kernels_in_use(), .w = w, .activation = activation,
                                .M = (size_t)PyArray_MultiplyList(shape, last), .x = PyArray_DATA(x), .y = PyArray_DATA(out)};
    size_t bad_row = 0;
    ndq_status status;
    Py_BEGIN_ALLOW_THREADS
    status = ndq_linear_rows(&call, &bad_row);
    Py_END_ALLOW_THREADS
    if (check_finite(status, "x: row", bad_row) == 0)
        result = (PyObject *)ndq_retain(out);
exit:
    ndq_release(x);
    ndq_release(out);
    return result;
}

/* gx (T, N, G) of a call whose weights are (G, H), G a multiple of H that says which cell it is. */
static int check_gates(PyArrayObject *gx, const ndq_packed *w, bool is_lstm)
{
    const size_t gates = is_lstm ? 4 : 3;
    if (PyArray_NDIM(gx) == 3 && w->N == gates * w->K)
        return 0;
    PyErr_Format(PyExc_ValueError, "gx: expected 3 axes, and weights of %zu times as many outputs as inputs, not %zu x %zu",
                 gates, w->N, w->K);
    return -1;
}

/* States (N, H), which the call changes. */
static PyArrayObject *take_states(PyObject *object, const char *name, PyArrayObject *gx, const ndq_packed *w)
{
    const npy_intp shape[2] = {PyArray_DIM(gx, 1), (npy_intp)w->K};
    PyArrayObject *array = ndq_changed_array(object, name, NULL);
    if (array && PyArray_TYPE(array) == NPY_FLOAT && ndq_check_shape(array, name, 2, shape) == 0 &&
        ndq_check_disjoint(array, name, gx, "gx") == 0)
        return array;
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_TypeError, "%s: expected float32", name);
    ndq_release(array);
    return NULL;
}

/* Lengths of N sequences as int64; NULL with no exception for None. */
static int take_lengths(PyObject *object, npy_intp n, PyArrayObject **lengths)
{
    *lengths = NULL;
    if (object == Py_None)
        return 0;
    PyArrayObject *given = ndq_integer_array(object, "lengths");
    if (given && ndq_check_shape(given, "lengths", 1, &n) == 0)
        *lengths = ndq_contiguous(given, NPY_INT64);
    ndq_release(given);
    return *lengths ? 0 : -1;
}

static int run(const ndq_recurrence *call)
{
    size_t bad_row = 0;
    ndq_status status;
    Py_BEGIN_ALLOW_THREADS
    status = ndq_run_recurrence(call, &bad_row);
    Py_END_ALLOW_THREADS
    return check_finite(status, "h: sequence", bad_row);
}

/* recurrence(gx, packed, h, c, lengths, reverse) */
static PyObject *py_recurrence(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    PyArrayObject *gx = NULL, *h = NULL, *c = NULL, *lengths = NULL, *y = NULL;
    PyObject *result = NULL;
    const ndq_packed *w;
    int reverse;
    if (ndq_check_count("recurrence", count, 6) < 0 || !(w = ndq_take_row_weight(module, args[1])) ||
        (reverse = PyObject_IsTrue(args[5])) < 0 || !(gx = take_floats(args[0], "gx", w->N)) ||
        check_gates(gx, w, args[3] != Py_None) < 0 || !(h = take_states(args[2], "h", gx, w)) ||
        (args[3] != Py_None && !(c = take_states(args[3], "c", gx, w))) ||
        (c && ndq_check_disjoint(c, "c", h, "h") < 0) || take_lengths(args[4], PyArray_DIM(gx, 1), &lengths) < 0)
        goto exit;
    const npy_intp shape[3] = {PyArray_DIM(gx, 0), PyArray_DIM(gx, 1), (npy_intp)w->K};
    if (!(y = ndq_output(NULL, "out", 3, shape, NPY_FLOAT)))
        goto exit;
    const ndq_recurrence call = {.kernels = ndq_kernels_in_use(), .w = w, .T = (size_t)shape[0], .N = (size_t)shape[1],
                                 .reverse = reverse != 0, .gx = PyArray_DATA(gx),
                                 .lengths = lengths ? PyArray_DATA(lengths) : NULL, .y = PyArray_DATA(y),
                                 .h = PyArray_DATA(h), .c = c ? PyArray_DATA(c) : NULL};
    if (run(&call) == 0)
        result = (PyObject *)ndq_retain(y);
exit:
    ndq_release(gx);
    ndq_release(h);
    ndq_release(c);
    ndq_release(lengths);
    ndq_release(y);
    return result;
}

#define METHOD(name, signature, doc) \
    {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, #name signature "\n--\n\n" doc}

PyMethodDef ndq_dynamic_methods[] = {
    METHOD(linear_rows, "(x, packed, activation, out, /)", "Product and float bias of rows of floats, each quantized by its range."),
    METHOD(recurrence, "(gx, packed, h, c, lengths, reverse, /)",
           "The steps of an LSTM layer, or of a GRU layer if c is None; h and c are changed."),
    {NULL, NULL, 0, NULL},
};
