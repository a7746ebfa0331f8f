/* Float32 matrix products. */
#include "args.h"
#include "module.h"

#include "../kernels/gemm_f32.h"

/* Products of fewer multiply-adds keep the GIL: releasing it costs more than they take. */
#define NDQ_GIL_FROM_MACS 5e4

/* A matrix of codes, and where their scales and zero points are; those belong to `params`. */
static PyArrayObject *take_codes(PyObject *object, const ndq_params_object *params, ndq_terms *terms)
{
    ndq_geometry geometry;
    PyArrayObject *codes = ndq_codes_of(object, "b", &params->params);
    if (!codes || ndq_check_ndim(codes, "b", 2) < 0 || ndq_check_product_params(params, "b_qparams") < 0 ||
        ndq_geometry_of(codes, "b", params, &geometry) < 0)
        goto fail;
    if (params->per_channel && params->axis != 0 && params->axis != -2) {
        PyErr_Format(PyExc_ValueError, "b_qparams: axis must be None or 0, got %d", params->axis);
        goto fail;
    }
    terms->type = PyArray_TYPE(codes) == NPY_BYTE ? NDQ_TERMS_S8 : NDQ_TERMS_U8;
    terms->scale = params->params.f32.scale;
    terms->zero_point = params->params.f32.zp;
    terms->per_row = params->per_channel;
    return codes;
fail:
    ndq_release(codes);
    return NULL;
}

static int check_inner(PyArrayObject *a, PyArrayObject *b)
{
    if (PyArray_DIM(a, 1) == PyArray_DIM(b, 0))
        return 0;
    PyErr_Format(PyExc_ValueError, "a: has %zd columns, b has %zd rows", (Py_ssize_t)PyArray_DIM(a, 1),
                 (Py_ssize_t)PyArray_DIM(b, 0));
    return -1;
}

static int compute(const ndq_gemm_f32_call *call)
{
    ndq_status status;
    if ((double)call->M * (double)call->N * (double)call->K < NDQ_GIL_FROM_MACS) {
        status = ndq_gemm_f32(call);
    } else {
        Py_BEGIN_ALLOW_THREADS
        status = ndq_gemm_f32(call);
        Py_END_ALLOW_THREADS
    }
    return ndq_check_status(status);
}

/* matmul_f32(a, b, b_qparams, out) */
static PyObject *py_matmul_f32(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    PyArrayObject *a = NULL, *b = NULL, *out = NULL;
    PyObject *result = NULL;
    ndq_params_object *params = NULL;
    ndq_gemm_f32_call call = {.kernel = ndq_kernels_in_use()->gemm_f32};
    if (ndq_check_count("matmul_f32", count, 4) < 0 ||
        (args[2] != Py_None && !(params = ndq_params_of(module, args[2]))) || !(a = ndq_floats_in_place(args[0], "a", 2)) ||
        !(b = params ? take_codes(args[1], params, &call.b) : ndq_floats_in_place(args[1], "b", 2)) || check_inner(a, b) < 0)
        goto exit;
    const npy_intp shape[] = {PyArray_DIM(a, 0), PyArray_DIM(b, 1)};
    if (!(out = ndq_output(args[3], "out", 2, shape, NPY_FLOAT)) || ndq_check_disjoint(out, "out", a, "a") < 0 ||
        ndq_check_disjoint(out, "out", b, "b") < 0)
        goto exit;
    call.M = (size_t)shape[0];
    call.N = (size_t)shape[1];
    call.K = (size_t)PyArray_DIM(a, 1);
    call.a = (ndq_rows_f32){PyArray_BYTES(a), PyArray_STRIDE(a, 0), PyArray_STRIDE(a, 1)};
    call.b.data = PyArray_BYTES(b);
    call.b.stride_k = PyArray_STRIDE(b, 0);
    call.b.stride_n = PyArray_STRIDE(b, 1);
    call.c = PyArray_DATA(out);
    if (compute(&call) == 0)
        result = (PyObject *)ndq_retain(out);
exit:
    Py_XDECREF((PyObject *)params);
    ndq_release(a);
    ndq_release(b);
    ndq_release(out);
    return result;
}

PyMethodDef ndq_gemm_f32_methods[] = {
    {"matmul_f32", (PyCFunction)(void (*)(void))py_matmul_f32, METH_FASTCALL,
     "matmul_f32(a, b, b_qparams, out, /)\n--\n\n"
     "a @ b in float32, each sum a chain of fused multiply-adds; with b_qparams b holds codes."},
    {NULL, NULL, 0, NULL},
};
