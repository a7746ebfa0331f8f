/* Rows of floats: probabilities, layer normalization, GELU, attention. */
#include "codes.h"
#include "dynamic.h"
#include "module.h"

/* Any floats as C-contiguous float32. */
static PyArrayObject *take_array(PyObject *object, const char *name)
{
    PyArrayObject *given = ndq_float_array(object, name), *array = given ? ndq_contiguous(given, NPY_FLOAT) : NULL;
    ndq_release(given);
    return array;
}

/* The same with rows along the last axis, which is not empty. */
static PyArrayObject *take_rows(PyObject *object, size_t *rows, size_t *length)
{
    PyArrayObject *array = take_array(object, "x");
    const int last = array ? PyArray_NDIM(array) - 1 : 0;
    if (array && (last < 0 || PyArray_DIM(array, last) < 1)) {
        PyErr_SetString(PyExc_ValueError, "x: expected rows of one element or more along the last axis");
        ndq_release(array);
        return NULL;
    }
    if (array) {
        *length = (size_t)PyArray_DIM(array, last);
        *rows = (size_t)PyArray_MultiplyList(PyArray_DIMS(array), last);
    }
    return array;
}

static PyArrayObject *output_like(PyObject *out, PyArrayObject *x)
{
    return ndq_output(out, "out", PyArray_NDIM(x), PyArray_DIMS(x), NPY_FLOAT);
}

/* softmax_f32(x, out) */
static PyObject *py_softmax_f32(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    PyArrayObject *x = NULL, *out = NULL;
    PyObject *result = NULL;
    ndq_softmax_rows call = {.kernels = ndq_kernels_in_use()};
    if (ndq_check_count("softmax_f32", count, 2) < 0 || !(x = take_rows(args[0], &call.rows, &call.length)) ||
        !(out = output_like(args[1], x)) || ndq_check_disjoint(out, "out", x, "x") < 0)
        goto exit;
    call.x = PyArray_DATA(x);
    call.y = PyArray_DATA(out);
    Py_BEGIN_ALLOW_THREADS
    ndq_softmax_f32(&call);
    Py_END_ALLOW_THREADS
    result = (PyObject *)ndq_retain(out);
exit:
    ndq_release(x);
    ndq_release(out);
    return result;
}

/* layer_norm_f32(x, gain, offset, eps, out) */
static PyObject *py_layer_norm_f32(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    PyArrayObject *x = NULL, *gain = NULL, *offset = NULL, *out = NULL, *stats = NULL;
    PyObject *result = NULL;
    double eps;
    ndq_normalized_rows call = {.kernels = ndq_kernels_in_use()};
    if (ndq_check_count("layer_norm_f32", count, 5) < 0 || ndq_number(args[3], "eps", &eps) < 0 ||
        !(x = take_rows(args[0], &call.rows, &call.length)) || !(gain = ndq_take_floats(args[1], "gain", call.length)) ||
        !(offset = ndq_take_floats(args[2], "offset", call.length)) || !(out = output_like(args[4], x)) ||
        ndq_check_disjoint(out, "out", x, "x") < 0 || ndq_check_disjoint(out, "out", gain, "gain") < 0 ||
        ndq_check_disjoint(out, "out", offset, "offset") < 0)
        goto exit;
    const npy_intp shape[2] = {(npy_intp)call.rows, 2};
    if (!(stats = ndq_output(NULL, "stats", 2, shape, NPY_FLOAT)))
        goto exit;
    call.norm = (ndq_norm_f32){PyArray_DATA(gain), PyArray_DATA(offset), (float)eps};
    call.x = PyArray_DATA(x);
    call.y = PyArray_DATA(out);
    call.stats = PyArray_DATA(stats);
    Py_BEGIN_ALLOW_THREADS
    ndq_layer_norm_f32(&call);
    Py_END_ALLOW_THREADS
    result = PyTuple_Pack(2, (PyObject *)out, (PyObject *)stats);
exit:
    ndq_release(x);
    ndq_release(gain);
    ndq_release(offset);
    ndq_release(out);
    ndq_release(stats);
    return result;
}

/* gelu_f32(x, tanh, out) */
static PyObject *py_gelu_f32(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    PyArrayObject *x = NULL, *out = NULL;
    PyObject *result = NULL;
    int tanh;
    if (ndq_check_count("gelu_f32", count, 3) < 0 || (tanh = PyObject_IsTrue(args[1])) < 0 ||
        !(x = take_array(args[0], "x")) || !(out = output_like(args[2], x)) ||
        ndq_check_disjoint(out, "out", x, "x") < 0)
        goto exit;
    const ndq_gelu call = {.kernels = ndq_kernels_in_use(), .tanh = tanh != 0, .n = (size_t)PyArray_SIZE(x),
                           .x = PyArray_DATA(x), .y = PyArray_DATA(out)};
    Py_BEGIN_ALLOW_THREADS
    ndq_gelu_f32(&call);
    Py_END_ALLOW_THREADS
    result = (PyObject *)ndq_retain(out);
exit:
    ndq_release(x);
    ndq_release(out);
    return result;
}

static ndq_heads heads_of(PyArrayObject *x)
{
    return (ndq_heads){PyArray_BYTES(x), PyArray_STRIDE(x, 0), PyArray_STRIDE(x, 1), PyArray_STRIDE(x, 2)};
}

/* q (N, L, E), k and v (N, S, E), and E a multiple of the heads. */
static int take_sizes(PyArrayObject *q, PyArrayObject *k, PyArrayObject *v, Py_ssize_t heads, ndq_attention *call)
{
    const npy_intp keys[3] = {PyArray_DIM(q, 0), PyArray_DIM(k, 1), PyArray_DIM(q, 2)};
    if (heads < 1 || keys[2] % heads) {
        PyErr_Format(PyExc_ValueError, "heads: %zd do not divide %zd features", heads, (Py_ssize_t)keys[2]);
        return -1;
    }
    if (ndq_check_shape(k, "k", 3, keys) < 0 || ndq_check_shape(v, "v", 3, keys) < 0)
        return -1;
    call->N = (size_t)keys[0];
    call->L = (size_t)PyArray_DIM(q, 1);
    call->S = (size_t)keys[1];
    call->heads = (size_t)heads;
    call->D = (size_t)(keys[2] / heads);
    call->factor = (float)(1 / sqrt(call->D ? (double)call->D : 1.0));
    call->q = heads_of(q);
    call->k = heads_of(k);
    call->v = heads_of(v);
    return 0;
}

PyArrayObject *ndq_take_mask(PyObject *object, ndq_attention *call)
{
    PyArrayObject *mask = take_array(object, "mask");
    if (!mask)
        return NULL;
    const bool each = PyArray_NDIM(mask) == 3 && (size_t)PyArray_DIM(mask, 0) == call->N;
    const npy_intp shape[3] = {each ? (npy_intp)call->N : 1, (npy_intp)call->L, (npy_intp)call->S};
    if (ndq_check_shape(mask, "mask", 3, shape) < 0) {
        ndq_release(mask);
        return NULL;
    }
    call->mask = PyArray_DATA(mask);
    call->masks = (size_t)shape[0];
    return mask;
}

/* attention_f32(q, k, v, heads, mask, out) */
static PyObject *py_attention_f32(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    PyArrayObject *in[3] = {NULL, NULL, NULL}, *mask = NULL, *out = NULL, *weights = NULL;
    static const char *const names[3] = {"q", "k", "v"};
    PyObject *result = NULL;
    Py_ssize_t heads;
    ndq_attention call = {.kernels = ndq_kernels_in_use()};
    if (ndq_check_count("attention_f32", count, 6) < 0)
        return NULL;
    for (int i = 0; i < 3; i++)
        if (!(in[i] = ndq_floats_in_place(args[i], names[i], 3)))
            goto exit;
    heads = PyLong_AsSsize_t(args[3]);
    if ((heads == -1 && PyErr_Occurred()) || take_sizes(in[0], in[1], in[2], heads, &call) < 0 ||
        (args[4] != Py_None && !(mask = ndq_take_mask(args[4], &call))) || !(out = output_like(args[5], in[0])))
        goto exit;
    for (int i = 0; i < 3; i++)
        if (ndq_check_disjoint(out, "out", in[i], names[i]) < 0)
            goto exit;
    const npy_intp shape[4] = {(npy_intp)call.N, (npy_intp)heads, (npy_intp)call.L, (npy_intp)call.S};
    if ((mask && ndq_check_disjoint(out, "out", mask, "mask") < 0) ||
        !(weights = ndq_output(NULL, "weights", 4, shape, NPY_FLOAT)))
        goto exit;
    call.y = PyArray_DATA(out);
    call.weights = PyArray_DATA(weights);
    ndq_status status;
    Py_BEGIN_ALLOW_THREADS
    status = ndq_attention_f32(&call);
    Py_END_ALLOW_THREADS
    if (ndq_check_status(status) == 0)
        result = PyTuple_Pack(2, (PyObject *)out, (PyObject *)weights);
exit:
    for (int i = 0; i < 3; i++)
        ndq_release(in[i]);
    ndq_release(mask);
    ndq_release(out);
    ndq_release(weights);
    return result;
}

#define METHOD(name, signature, doc) \
    {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, #name signature "\n--\n\n" doc}

PyMethodDef ndq_rows_methods[] = {
    METHOD(softmax_f32, "(x, out, /)", "Softmax of rows of floats."),
    METHOD(layer_norm_f32, "(x, gain, offset, eps, out, /)",
           "Layer normalization of rows of floats; and mean and inverse deviation of each."),
    METHOD(gelu_f32, "(x, tanh, out, /)", "x * P(X <= x) of the normal distribution, or of its approximation by tanh."),
    METHOD(attention_f32, "(q, k, v, heads, mask, out, /)", "Attention, and its weights."),
    {NULL, NULL, 0, NULL},
};
