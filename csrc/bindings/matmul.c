/* Products of two arrays of codes. */
#include "matmul.h"

#include "module.h"

static int take_b(PyObject *module, PyObject *qparams, double factor, ndq_matmul *call)
{
    ndq_params_object *params = ndq_params_of(module, qparams);
    const int status = params ? ndq_check_per_tensor(params, "b_qparams") : -1;
    if (status == 0) {
        call->b_signed = params->params.qmin < 0;
        call->b_zero = (int32_t)params->params.f64.zp[0];
        call->b_scale = params->params.f32.scale[0] * (float)factor;
    }
    Py_XDECREF((PyObject *)params);
    return status;
}

int ndq_matmul_constants(PyObject *module, const ndq_matmul_arguments *given, ndq_matmul *call)
{
    PyObject *zero = PyLong_FromLong(0); /* requantized by dequantizing; no activation */
    if (!zero)
        return -1;
    const ndq_linear_arguments product = {.x_qparams = given->a_qparams, .out_qparams = given->out_qparams,
                                          .requantization = zero, .activation = zero};
    const int status = ndq_product_constants(module, &product, &call->product);
    Py_DECREF(zero);
    return status < 0 ? -1 : take_b(module, given->b_qparams, given->factor, call);
}

int ndq_check_matmul_length(size_t K)
{
    if (K <= NDQ_MATMUL_LONGEST)
        return 0;
    PyErr_Format(PyExc_ValueError, "a sum of %zu products could pass the range of int32; at most %d", K,
                 (int)NDQ_MATMUL_LONGEST);
    return -1;
}

/* Codes of 8 bits, C-contiguous, two axes at least. */
static PyArrayObject *take_matrices(PyObject *object, const char *name, bool is_signed)
{
    const ndq_params codes = {.codes = is_signed ? NDQ_S8 : NDQ_U8};
    PyArrayObject *given = ndq_codes_of(object, name, &codes);
    PyArrayObject *array = given ? ndq_contiguous(given, is_signed ? NPY_BYTE : NPY_UBYTE) : NULL;
    ndq_release(given);
    if (array && PyArray_NDIM(array) < 2) {
        PyErr_Format(PyExc_ValueError, "%s: expected 2 dimensions or more, got %d", name, PyArray_NDIM(array));
        ndq_release(array);
        return NULL;
    }
    return array;
}

/* a (..., M, K) and b (..., K, N) of the same leading axes; `shape` becomes that of the result. */
static int take_sizes(PyArrayObject *a, PyArrayObject *b, npy_intp *shape, ndq_matmul *call)
{
    const int ndim = PyArray_NDIM(a);
    const npy_intp K = PyArray_DIM(a, ndim - 1);
    memcpy(shape, PyArray_DIMS(a), (size_t)ndim * sizeof(*shape));
    shape[ndim - 2] = K;
    shape[ndim - 1] = PyArray_DIM(b, PyArray_NDIM(b) - 1);
    if (ndq_check_shape(b, "b", ndim, shape) < 0 || ndq_check_matmul_length((size_t)K) < 0)
        return -1;
    shape[ndim - 2] = PyArray_DIM(a, ndim - 2);
    call->matrices = (size_t)PyArray_MultiplyList(shape, ndim - 2);
    call->M = (size_t)shape[ndim - 2];
    call->N = (size_t)shape[ndim - 1];
    call->K = (size_t)K;
    return 0;
}

/* matmul_codes(a, a_qparams, b, b_qparams, factor, out_qparams, out) */
static PyObject *py_matmul_codes(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    PyArrayObject *a = NULL, *b = NULL, *out = NULL;
    PyObject *result = NULL;
    npy_intp shape[NPY_MAXDIMS];
    ndq_matmul call = {.kernel = ndq_kernels_in_use()->gemm};
    ndq_matmul_arguments arguments;
    if (ndq_check_count("matmul_codes", count, 7) < 0 || ndq_number(args[4], "factor", &arguments.factor) < 0)
        return NULL;
    arguments.a_qparams = args[1];
    arguments.b_qparams = args[3];
    arguments.out_qparams = args[5];
    if (ndq_matmul_constants(module, &arguments, &call) < 0 || !(a = take_matrices(args[0], "a", call.product.a_signed)) ||
        !(b = take_matrices(args[2], "b", call.b_signed)) || take_sizes(a, b, shape, &call) < 0)
        goto exit;
    const int type = call.product.output == NDQ_GEMM_F32 ? NPY_FLOAT : call.product.qmin < 0 ? NPY_BYTE : NPY_UBYTE;
    if (!(out = ndq_output(args[6], "out", PyArray_NDIM(a), shape, type)) || ndq_check_disjoint(out, "out", a, "a") < 0 ||
        ndq_check_disjoint(out, "out", b, "b") < 0)
        goto exit;
    call.a = PyArray_DATA(a);
    call.b = PyArray_DATA(b);
    call.out = PyArray_DATA(out);
    ndq_status status;
    Py_BEGIN_ALLOW_THREADS
    status = ndq_matmul_codes(&call);
    Py_END_ALLOW_THREADS
    if (ndq_check_status(status) == 0)
        result = (PyObject *)ndq_retain(out);
exit:
    ndq_release(a);
    ndq_release(b);
    ndq_release(out);
    return result;
}

PyMethodDef ndq_matmul_methods[] = {
    {"matmul_codes", (PyCFunction)(void (*)(void))py_matmul_codes, METH_FASTCALL,
     "matmul_codes(a, a_qparams, b, b_qparams, factor, out_qparams, out, /)\n--\n\n"
     "Products of matrices of codes, as codes of out_qparams or, if that is None, float32."},
    {NULL, NULL, 0, NULL},
};
