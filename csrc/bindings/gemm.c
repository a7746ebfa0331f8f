/* Integer matrix products: packed weights as an object, and the two functions that multiply. */
#include "args.h"
#include "module.h"

#include "../kernels/gemm.h"

/* _core.PackedMatrix: weights in the format of one kernel, with their scales and bias. */
typedef struct {
    PyObject_HEAD
    ndq_packed *packed;
} packed_object;

/* ---- What both functions do ---- */

/* Rows of activations in place if each is contiguous, else a copy. */
static PyArrayObject *take_rows(PyArrayObject *a)
{
    const int last = PyArray_NDIM(a) - 1;
    const bool in_place = last == 1 && PyArray_STRIDE(a, 1) == 1 && PyArray_STRIDE(a, 0) >= PyArray_DIM(a, 1);
    return in_place ? ndq_retain(a) : ndq_contiguous(a, PyArray_TYPE(a));
}

static void set_rows(ndq_gemm_call *call, PyArrayObject *rows)
{
    const int last = PyArray_NDIM(rows) - 1;
    const size_t K = (size_t)PyArray_DIM(rows, last);
    call->M = 1;
    for (int d = 0; d < last; d++)
        call->M *= (size_t)PyArray_DIM(rows, d);
    call->a = PyArray_DATA(rows);
    call->a_stride = last == 1 ? PyArray_STRIDE(rows, 0) : (ptrdiff_t)K;
    call->a_signed = PyArray_TYPE(rows) == NPY_BYTE;
}

/* a (..., K) against K of w. */
static int check_inner(PyArrayObject *a, const char *a_name, const char *w_name, size_t K)
{
    const int ndim = PyArray_NDIM(a);
    if (ndim >= 1 && (size_t)PyArray_DIM(a, ndim - 1) == K)
        return 0;
    PyObject *shape = PyArray_IntTupleFromIntp(ndim, PyArray_DIMS(a));
    if (shape)
        PyErr_Format(PyExc_ValueError, "%s: its last axis must have the %zu inputs of %s, got shape %R", a_name, K,
                     w_name, shape);
    Py_XDECREF(shape);
    return -1;
}

/* The shape of a with its last axis replaced by N. */
static PyArrayObject *take_output(PyObject *out, PyArrayObject *a, const char *a_name, size_t N, int type)
{
    npy_intp shape[NPY_MAXDIMS];
    const int ndim = PyArray_NDIM(a);
    memcpy(shape, PyArray_DIMS(a), (size_t)ndim * sizeof(shape[0]));
    shape[ndim - 1] = (npy_intp)N;
    PyArrayObject *array = ndq_output(out, "out", ndim, shape, type);
    if (array && ndq_check_disjoint(array, "out", a, a_name) < 0) {
        ndq_release(array);
        return NULL;
    }
    return array;
}

int ndq_check_overflow(const ndq_packed *w, const char *name, size_t first, bool a_signed, int32_t za)
{
    const size_t n = ndq_gemm_overflow(w, a_signed, za);
    if (n == w->N)
        return 0;
    PyErr_Format(PyExc_OverflowError,
                 "%s: channel %zu could pass the range of int32: its weights less their zero point add up to %lld in "
                 "size, its bias is %d, and inputs with zero point %d reach %d; use fewer inputs, fewer bits or a "
                 "smaller bias",
                 name, first + n, (long long)w->magnitude[n], (int)w->bias[n], (int)za,
                 (int)(a_signed ? (za < 0 ? 127 - za : 128 + za) : (za < 128 ? 255 - za : za)));
    return -1;
}

static int compute(const ndq_gemm_call *call)
{
    ndq_status status;
    if ((double)call->M * (double)call->w->N * (double)call->w->K < NDQ_GIL_FROM_MACS) {
        status = ndq_gemm(call);
    } else {
        Py_BEGIN_ALLOW_THREADS
        status = ndq_gemm(call);
        Py_END_ALLOW_THREADS
    }
    return ndq_check_status(status);
}

/* ---- Packed weights ---- */

static packed_object *as_packed(PyObject *module, PyObject *object)
{
    if (Py_IS_TYPE(object, ndq_state_of(module)->packed_type))
        return (packed_object *)object;
    PyErr_Format(PyExc_TypeError, "packed: expected a PackedMatrix, got %R", (PyObject *)Py_TYPE(object));
    return NULL;
}

const ndq_packed *ndq_packed_of(PyObject *module, PyObject *object)
{
    packed_object *packed = as_packed(module, object);
    return packed ? packed->packed : NULL;
}

int ndq_take_zero_points(const ndq_params *params, size_t N, PyArrayObject **zero)
{
    const npy_intp n = (npy_intp)N;
    bool any = false;
    *zero = NULL;
    for (size_t c = 0; c < params->channels; c++)
        any = any || params->f64.zp[c] != 0;
    if (!any)
        return 0;
    *zero = (PyArrayObject *)PyArray_SimpleNew(1, &n, NPY_INT32);
    if (!*zero)
        return -1;
    int32_t *values = PyArray_DATA(*zero);
    for (size_t c = 0; c < N; c++)
        values[c] = (int32_t)params->f64.zp[params->channels == 1 ? 0 : c];
    return 0;
}

int ndq_check_weight_params(PyArrayObject *w, const ndq_params_object *params, int ndim)
{
    ndq_geometry geometry;
    if (ndq_check_ndim(w, "w", ndim) < 0 || ndq_check_product_params(params, "w_qparams") < 0 ||
        ndq_geometry_of(w, "w", params, &geometry) < 0)
        return -1;
    if (!params->per_channel || params->axis == 0 || params->axis == -ndim)
        return 0;
    PyErr_Format(PyExc_ValueError, "w_qparams: axis must be None or 0, the outputs, got %d", params->axis);
    return -1;
}

int ndq_take_bias(PyObject *object, size_t N, PyArrayObject **bias)
{
    *bias = NULL;
    if (object == Py_None)
        return 0;
    const npy_intp n = (npy_intp)N;
    PyArrayObject *array = ndq_bias_array(object, "bias");
    if (!array || ndq_check_shape(array, "bias", 1, &n) < 0) {
        ndq_release(array);
        return -1;
    }
    *bias = array;
    return 0;
}

void ndq_fill_packed(ndq_packed *packed, size_t first, const ndq_params *params, PyArrayObject *bias)
{
    const bool one = params->channels == 1;
    ndq_gemm_set_scales(packed, 0, packed->N, params->f32.scale + (one ? 0 : first), one ? 0 : 1);
    if (!bias)
        return;
    if (PyArray_TYPE(bias) == NPY_FLOAT) {
        memcpy(packed->float_bias, (const float *)PyArray_DATA(bias) + first, packed->N * sizeof(float));
        return;
    }
    memcpy(packed->bias, (const int32_t *)PyArray_DATA(bias) + first, packed->N * sizeof(int32_t));
    for (size_t n = 0; n < packed->N; n++) {
        const int64_t size = packed->bias[n] < 0 ? -(int64_t)packed->bias[n] : packed->bias[n];
        packed->max_bias = size > packed->max_bias ? size : packed->max_bias;
    }
}

static ndq_weights weights_of(PyArrayObject *w, int axis_n, PyArrayObject *zero)
{
    return (ndq_weights){
        .N = (size_t)PyArray_DIM(w, axis_n),
        .K = (size_t)PyArray_DIM(w, 1 - axis_n),
        .runs = 1,
        .codes = PyArray_DATA(w),
        .stride_n = PyArray_STRIDE(w, axis_n),
        .stride_k = PyArray_STRIDE(w, 1 - axis_n),
        .is_signed = PyArray_TYPE(w) == NPY_BYTE,
        .zero_point = zero ? PyArray_DATA(zero) : NULL,
    };
}

/* No zero point brings activations of 8 bits nearer to 0 than 128 at most, so this much can be refused at once. */
static int check_no_hope(const ndq_packed *packed)
{
    return ndq_check_overflow(packed, "w", 0, true, 0);
}

static PyObject *wrap(PyTypeObject *type, ndq_packed *packed)
{
    if (!packed)
        return PyErr_NoMemory();
    packed_object *self = (packed_object *)PyType_GenericAlloc(type, 0);
    if (self)
        self->packed = packed;
    else
        ndq_gemm_free(packed);
    return (PyObject *)self;
}

PyObject *ndq_packed_object(PyObject *module, ndq_packed *packed, const ndq_params_object *params, PyArrayObject *bias)
{
    PyObject *self = wrap(ndq_state_of(module)->packed_type, packed);
    if (!self)
        return NULL;
    ndq_fill_packed(packed, 0, &params->params, bias);
    if (check_no_hope(packed) < 0)
        Py_CLEAR(self);
    return self;
}

static PyObject *py_pack_matrix(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    PyArrayObject *w = NULL, *bias = NULL, *zero = NULL;
    PyObject *self = NULL;
    ndq_params_object *params = NULL;
    if (ndq_check_count("pack_matrix", count, 3) < 0)
        return NULL;
    if (!(params = ndq_params_of(module, args[1])) || !(w = ndq_codes_of(args[0], "w", &params->params)) ||
        ndq_check_weight_params(w, params, 2) < 0 || ndq_take_bias(args[2], (size_t)PyArray_DIM(w, 0), &bias) < 0 ||
        ndq_take_zero_points(&params->params, (size_t)PyArray_DIM(w, 0), &zero) < 0)
        goto exit;
    const ndq_weights weights = weights_of(w, 0, zero);
    const bool float_bias = bias && PyArray_TYPE(bias) == NPY_FLOAT;
    ndq_packed *packed;
    Py_BEGIN_ALLOW_THREADS
    packed = ndq_gemm_pack(ndq_kernels_in_use()->gemm, &weights, float_bias);
    Py_END_ALLOW_THREADS
    self = ndq_packed_object(module, packed, params, bias);
exit:
    ndq_release(zero);
    Py_XDECREF((PyObject *)params);
    ndq_release(w);
    ndq_release(bias);
    return self;
}

static void packed_dealloc(PyObject *object)
{
    ndq_gemm_free(((packed_object *)object)->packed);
    ndq_free_object(object);
}

static PyObject *packed_shape(PyObject *self, void *unused)
{
    (void)unused;
    const ndq_packed *packed = ((packed_object *)self)->packed;
    return Py_BuildValue("(nn)", (Py_ssize_t)packed->N, (Py_ssize_t)packed->K);
}

static PyObject *packed_kernel(PyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(((packed_object *)self)->packed->kernel->name);
}

static PyObject *packed_nbytes(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(((packed_object *)self)->packed->bytes);
}

static PyGetSetDef packed_getset[] = {
    {"shape", packed_shape, NULL, "Outputs and inputs.", NULL},
    {"kernel", packed_kernel, NULL, "Name of the kernel whose format this is.", NULL},
    {"nbytes", packed_nbytes, NULL, "Memory that it takes.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot packed_slots[] = {
    {Py_tp_doc, "Weights in the format of one kernel, with scales and bias; made by pack_matrix."},
    {Py_tp_dealloc, packed_dealloc},
    {Py_tp_getset, packed_getset},
    {0, NULL},
};

static PyType_Spec packed_spec = {
    .name = "ndquant._core.PackedMatrix",
    .basicsize = sizeof(packed_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = packed_slots,
};

static int add_numbers(PyObject *module, const char *const *names, int count)
{
    for (int number = 0; number < count; number++)
        if (PyModule_AddIntConstant(module, names[number], number) < 0)
            return -1;
    return 0;
}

int ndq_gemm_exec(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &packed_spec, NULL);
    ndq_state_of(module)->packed_type = (PyTypeObject *)type;
    static const char *const requantizations[NDQ_REQUANTIZATIONS] = {"DEQUANTIZE", "FBGEMM", "ONNX"};
    static const char *const activations[NDQ_ACTIVATIONS] = {"NO_ACTIVATION", "RELU", "RELU6"};
    if (add_numbers(module, requantizations, NDQ_REQUANTIZATIONS) < 0 ||
        add_numbers(module, activations, NDQ_ACTIVATIONS) < 0)
        return -1;
    return type ? PyModule_AddObjectRef(module, "PackedMatrix", type) : -1;
}

/* ---- The two functions ---- */

static void set_output(ndq_gemm_call *call, const ndq_params *x, const ndq_params *out)
{
    call->za = (int32_t)x->f64.zp[0];
    call->a_scale = x->f32.scale[0];
    call->output = out ? NDQ_GEMM_CODES : NDQ_GEMM_F32;
    if (!out)
        return;
    call->out_scale = out->f32.scale[0];
    call->out_inv = out->f32.inv[0];
    call->out_zero = (int32_t)out->f64.zp[0];
    call->qmin = out->qmin;
    call->qmax = out->qmax;
}

int ndq_check_per_tensor(const ndq_params_object *params, const char *name)
{
    if (!params->per_channel)
        return ndq_check_product_params(params, name);
    PyErr_Format(PyExc_ValueError, "%s: must be per tensor, got one scale per channel on axis %d", name, params->axis);
    return -1;
}

/* The number of one of `count` things. */
static int take_number(PyObject *object, const char *name, long count, long *number)
{
    *number = PyLong_AsLong(object);
    if (*number >= 0 && *number < count)
        return 0;
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_ValueError, "%s: must be 0 to %ld, got %ld", name, count - 1, *number);
    return -1;
}

int ndq_take_activation(PyObject *number, ndq_activation *activation)
{
    long value;
    const int status = take_number(number, "activation", NDQ_ACTIVATIONS, &value);
    *activation = (ndq_activation)value;
    return status;
}

int ndq_product_constants(PyObject *module, const ndq_linear_arguments *given, ndq_gemm_call *call)
{
    ndq_params_object *x_params = NULL, *out_params = NULL;
    const bool to_codes = given->out_qparams != Py_None;
    int result = -1;
    long requantization;
    *call = (ndq_gemm_call){.out = NULL};
    if (take_number(given->requantization, "requantization", NDQ_REQUANTIZATIONS, &requantization) < 0 ||
        ndq_take_activation(given->activation, &call->activation) < 0 || !(x_params = ndq_params_of(module, given->x_qparams)) ||
        ndq_check_per_tensor(x_params, "x_qparams") < 0 ||
        (to_codes && !(out_params = ndq_params_of(module, given->out_qparams))) ||
        (to_codes && ndq_check_per_tensor(out_params, "out_qparams") < 0))
        goto exit;
    set_output(call, &x_params->params, to_codes ? &out_params->params : NULL);
    call->requantization = (ndq_requantization)requantization;
    call->a_signed = x_params->params.qmin < 0;
    result = 0;
exit:
    Py_XDECREF((PyObject *)x_params);
    Py_XDECREF((PyObject *)out_params);
    return result;
}

int ndq_linear_constants(PyObject *module, const ndq_linear_arguments *given, ndq_gemm_call *call)
{
    packed_object *packed = as_packed(module, given->packed);
    if (!packed || ndq_product_constants(module, given, call) < 0)
        return -1;
    call->w = packed->packed;
    return ndq_check_overflow(call->w, "w", 0, call->a_signed, call->za);
}

PyArrayObject *ndq_take_codes(PyObject *module, PyObject *codes, PyObject *qparams)
{
    ndq_params_object *params = ndq_params_of(module, qparams);
    PyArrayObject *array = params ? ndq_codes_of(codes, "xq", &params->params) : NULL;
    Py_XDECREF((PyObject *)params);
    return array;
}

/* linear_integer(xq, x_qparams, packed, out_qparams, requantization, activation, out) */
static PyObject *py_linear_integer(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    PyArrayObject *x = NULL, *rows = NULL, *out = NULL;
    PyObject *result = NULL;
    ndq_gemm_call call;
    if (ndq_check_count("linear_integer", count, 7) < 0)
        return NULL;
    const ndq_linear_arguments arguments = {.x_qparams = args[1], .packed = args[2], .out_qparams = args[3],
                                            .requantization = args[4], .activation = args[5]};
    if (ndq_linear_constants(module, &arguments, &call) < 0)
        return NULL;
    const int type = call.output == NDQ_GEMM_F32 ? NPY_FLOAT : call.qmin < 0 ? NPY_BYTE : NPY_UBYTE;
    const ndq_params codes = {.codes = call.a_signed ? NDQ_S8 : NDQ_U8};
    if (!(x = ndq_codes_of(args[0], "xq", &codes)) || check_inner(x, "xq", "the weight", call.w->K) < 0 ||
        !(rows = take_rows(x)) || !(out = take_output(args[6], x, "xq", call.w->N, type)))
        goto exit;
    set_rows(&call, rows);
    call.out = PyArray_DATA(out);
    if (compute(&call) == 0)
        result = (PyObject *)ndq_retain(out);
exit:
    ndq_release(x);
    ndq_release(rows);
    ndq_release(out);
    return result;
}

/* matmul_integer(a, b, a_zero_point, b_zero_point, out) */
static PyObject *py_matmul_integer(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    PyArrayObject *a = NULL, *b = NULL, *rows = NULL, *zero = NULL, *out = NULL;
    PyObject *result = NULL;
    ndq_packed *packed = NULL;
    ndq_gemm_call call = {.output = NDQ_GEMM_S32};
    if (ndq_check_count("matmul_integer", count, 5) < 0 || !(a = ndq_byte_array(args[0], "a")) ||
        !(b = ndq_byte_array(args[1], "b")) || ndq_check_ndim(b, "b", 2) < 0 ||
        check_inner(a, "a", "b", (size_t)PyArray_DIM(b, 0)) < 0 ||
        ndq_zero_point(args[2], "a_zero_point", PyArray_TYPE(a), &call.za) < 0 ||
        !(zero = ndq_zero_points(args[3], "b_zero_point", PyArray_TYPE(b), PyArray_DIM(b, 1))) ||
        !(rows = take_rows(a)) || !(out = take_output(args[4], a, "a", (size_t)PyArray_DIM(b, 1), NPY_INT32)) ||
        ndq_check_disjoint(out, "out", b, "b") < 0)
        goto exit;
    const ndq_weights weights = weights_of(b, 1, zero);
    Py_BEGIN_ALLOW_THREADS
    packed = ndq_gemm_pack(ndq_kernels_in_use()->gemm, &weights, false);
    Py_END_ALLOW_THREADS
    if (!packed) {
        PyErr_NoMemory();
        goto exit;
    }
    call.w = packed;
    call.out = PyArray_DATA(out);
    set_rows(&call, rows);
    if (ndq_check_overflow(packed, "b", 0, call.a_signed, call.za) == 0 && compute(&call) == 0)
        result = (PyObject *)ndq_retain(out);
exit:
    ndq_gemm_free(packed);
    ndq_release(a);
    ndq_release(b);
    ndq_release(rows);
    ndq_release(zero);
    ndq_release(out);
    return result;
}

#define METHOD(name, signature, doc) \
    {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, #name signature "\n--\n\n" doc}

PyMethodDef ndq_gemm_methods[] = {
    METHOD(pack_matrix, "(w, qparams, bias, /)", "Weights (outputs, inputs) in the format of the kernel in use."),
    METHOD(linear_integer, "(xq, x_qparams, packed, out_qparams, requantization, activation, out, /)",
           "Integer product, bias, ReLU and requantization (or float32 if out_qparams is None) in one pass."),
    METHOD(matmul_integer, "(a, b, a_zero_point, b_zero_point, out, /)", "Exact int32 product of 8-bit matrices."),
    {NULL, NULL, 0, NULL},
};
