/* Codes as bits side by side: arguments in, kernel called, results out. */
#include "args.h"
#include "module.h"

#include "../kernels/bits.h"

/* bits, qmin and qmax of codes of 8 bits at most. */
static int take_grid(PyObject *const *args, ndq_bits *call, int *type)
{
    const long bits = PyLong_AsLong(args[0]), qmin = PyLong_AsLong(args[1]), qmax = PyLong_AsLong(args[2]);
    if (PyErr_Occurred())
        return -1;
    const long lowest = qmin < 0 ? -128 : 0, most = qmax - qmin;
    if (bits < 1 || bits > 8 || qmin < lowest || qmax > lowest + 255 || most < 0 || most >= 1L << bits) {
        PyErr_Format(PyExc_ValueError, "bits: codes %ld to %ld are not of 1 to 8 bits, or not of %ld", qmin, qmax, bits);
        return -1;
    }
    *call = (ndq_bits){.kernels = ndq_kernels_in_use(), .bits = (int)bits, .lowest = (uint8_t)qmin, .most = (uint8_t)most};
    *type = qmin < 0 ? NPY_BYTE : NPY_UBYTE;
    return 0;
}

/* The shape of `array` with another length of the last axis. */
static PyArrayObject *take_output(PyObject *out, PyArrayObject *array, const char *name, npy_intp length, int type)
{
    npy_intp shape[NPY_MAXDIMS];
    const int last = PyArray_NDIM(array) - 1;
    memcpy(shape, PyArray_DIMS(array), (size_t)(last + 1) * sizeof(shape[0]));
    shape[last] = length;
    PyArrayObject *output = ndq_output(out, "out", last + 1, shape, type);
    if (!output || ndq_check_disjoint(output, "out", array, name) == 0)
        return output;
    ndq_release(output);
    return NULL;
}

/* Bytes with at least one axis, C-contiguous; `codes` says which sign. */
static PyArrayObject *take_bytes(PyObject *object, const char *name, int type)
{
    const ndq_params codes = {.codes = type == NPY_BYTE ? NDQ_S8 : NDQ_U8};
    PyArrayObject *given = ndq_codes_of(object, name, &codes), *array = NULL;
    if (given && PyArray_NDIM(given) == 0)
        PyErr_Format(PyExc_ValueError, "%s: expected at least 1 dimension, got 0", name);
    else if (given)
        array = ndq_contiguous(given, type);
    ndq_release(given);
    return array;
}

static bool compute(const ndq_bits *call, bool (*function)(const ndq_bits *))
{
    bool good;
    if (call->rows * call->length < NDQ_GIL_FROM)
        return function(call);
    Py_BEGIN_ALLOW_THREADS
    good = function(call);
    Py_END_ALLOW_THREADS
    return good;
}

static size_t rows_of(PyArrayObject *array)
{
    return (size_t)PyArray_MultiplyList(PyArray_DIMS(array), PyArray_NDIM(array) - 1);
}

/* ValueError that shows the first of the codes that is none. */
static void refuse_code(PyArrayObject *codes, const ndq_bits *call)
{
    const uint8_t *q = PyArray_DATA(codes);
    size_t i = 0;
    while (i + 1 < (size_t)PyArray_SIZE(codes) && (uint8_t)(q[i] - call->lowest) <= call->most)
        i++;
    const bool is_signed = PyArray_TYPE(codes) == NPY_BYTE;
    const int lowest = is_signed ? (int8_t)call->lowest : call->lowest;
    PyErr_Format(PyExc_ValueError, "codes: must be %d to %d, got %d", lowest, lowest + call->most,
                 is_signed ? (int8_t)q[i] : q[i]);
}

/* pack_codes(codes, bits, qmin, qmax, out) */
static PyObject *py_pack_codes(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    PyArrayObject *codes = NULL, *out = NULL;
    PyObject *result = NULL;
    ndq_bits call;
    int type;
    if (ndq_check_count("pack_codes", count, 5) < 0 || take_grid(args + 1, &call, &type) < 0 ||
        !(codes = take_bytes(args[0], "codes", type)))
        goto exit;
    call.rows = rows_of(codes);
    call.length = (size_t)PyArray_DIM(codes, PyArray_NDIM(codes) - 1);
    if (!(out = take_output(args[4], codes, "codes", (npy_intp)ndq_packed_bytes(call.length, call.bits), NPY_UBYTE)))
        goto exit;
    call.codes = PyArray_DATA(codes);
    call.packed = PyArray_DATA(out);
    if (compute(&call, ndq_pack_bits))
        result = (PyObject *)ndq_retain(out);
    else
        refuse_code(codes, &call);
exit:
    ndq_release(codes);
    ndq_release(out);
    return result;
}

/* unpack_codes(packed, length, bits, qmin, qmax, out) */
static PyObject *py_unpack_codes(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    PyArrayObject *packed = NULL, *out = NULL;
    PyObject *result = NULL;
    ndq_bits call;
    int type;
    if (ndq_check_count("unpack_codes", count, 6) < 0 || take_grid(args + 2, &call, &type) < 0 ||
        !(packed = take_bytes(args[0], "packed", NPY_UBYTE)))
        goto exit;
    const Py_ssize_t length = PyLong_AsSsize_t(args[1]), bytes = PyArray_DIM(packed, PyArray_NDIM(packed) - 1);
    if (PyErr_Occurred())
        goto exit;
    if (length < 0 || ndq_packed_bytes((size_t)length, call.bits) != (size_t)bytes) {
        PyErr_Format(PyExc_ValueError, "packed: %zd bytes do not hold %zd codes of %d bits", bytes, length, call.bits);
        goto exit;
    }
    call.rows = rows_of(packed);
    call.length = (size_t)length;
    if (!(out = take_output(args[5], packed, "packed", length, type)))
        goto exit;
    call.codes = PyArray_DATA(out);
    call.packed = PyArray_DATA(packed);
    if (compute(&call, ndq_unpack_bits))
        result = (PyObject *)ndq_retain(out);
    else
        PyErr_Format(PyExc_ValueError, "packed: a code is above %ld", PyLong_AsLong(args[4]));
exit:
    ndq_release(packed);
    ndq_release(out);
    return result;
}

#define METHOD(name, signature, doc) \
    {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, #name signature "\n--\n\n" doc}

PyMethodDef ndq_bits_methods[] = {
    METHOD(pack_codes, "(codes, bits, qmin, qmax, out, /)", "Codes as bits side by side, along the last axis."),
    METHOD(unpack_codes, "(packed, length, bits, qmin, qmax, out, /)", "The codes that pack_codes has packed."),
    {NULL, NULL, 0, NULL},
};
