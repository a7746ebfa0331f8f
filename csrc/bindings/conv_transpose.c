/* Transposed convolutions: packed weights as an object, and the functions that convolve. */
#include "conv.h"
#include "module.h"

/* _core.PackedTransposed: weights for one stride, padding and dilation, with their scales and bias. */
typedef struct {
    PyObject_HEAD
    ndq_transposed_weights *weights;
    ndq_conv_geometry g;
} packed_object;

static int check_overflow(const ndq_transposed_weights *w, bool is_signed, int32_t za)
{
    for (size_t i = 0; i <= w->count; i++) {
        const ndq_conv_weights *part = ndq_transposed_part(w, i);
        if (part && ndq_check_conv_overflow(part, is_signed, za) < 0)
            return -1;
    }
    return 0;
}

/* ---- Packed weights ---- */

static ndq_transposed_weights *pack(const ndq_conv_source *source, const ndq_conv_axis *y, const ndq_conv_axis *x,
                                    bool float_bias)
{
    const ndq_kernels *kernels = ndq_kernels_in_use();
    ndq_transposed_weights *weights;
    Py_BEGIN_ALLOW_THREADS
    weights = ndq_transposed_pack(kernels->gemm, kernels->depthwise, source, y, x, float_bias);
    Py_END_ALLOW_THREADS
    if (!weights)
        PyErr_NoMemory();
    return weights;
}

static void fill(ndq_conv_weights *w, const ndq_params *params, PyArrayObject *bias)
{
    for (size_t part = 0; w && part < w->parts; part++)
        ndq_fill_packed(w->part[part], part * w->part[part]->N, params, bias);
}

/* What does not depend on the size of images; `sized` is the axis of an image that gives an output. */
static int make_axis(const ndq_conv_geometry *g, int i, Py_ssize_t taps, ndq_conv_axis *sized)
{
    const Py_ssize_t enough = 2 * g->padding[i] / g->stride[i] + 2;
    return ndq_make_transposed_axis(g, i, enough, taps, sized);
}

/* pack_conv_transpose(w, qparams, bias, groups, geometry) */
static PyObject *py_pack_conv_transpose(PyObject *module, PyObject *args)
{
    PyObject *w_arg, *qparams, *bias_arg, *sizes;
    packed_object *self = NULL;
    Py_ssize_t groups;
    PyArrayObject *w = NULL, *bias = NULL, *zero = NULL;
    ndq_params_object *params = NULL;
    ndq_conv_geometry g;
    ndq_conv_axis y, x;
    if (!PyArg_ParseTuple(args, "OOOnO:pack_conv_transpose", &w_arg, &qparams, &bias_arg, &groups, &sizes))
        return NULL;
    if (!(params = ndq_params_of(module, qparams)) || !(w = ndq_codes_of(w_arg, "w", &params->params)) ||
        ndq_check_weight_params(w, params, 4) < 0 || ndq_check_groups(groups, PyArray_DIM(w, 0), "outputs") < 0 ||
        ndq_take_geometry(sizes, &g) < 0 || make_axis(&g, 0, PyArray_DIM(w, 2), &y) < 0 ||
        make_axis(&g, 1, PyArray_DIM(w, 3), &x) < 0 ||
        ndq_take_bias(bias_arg, (size_t)PyArray_DIM(w, 0), &bias) < 0 ||
        ndq_take_zero_points(&params->params, (size_t)PyArray_DIM(w, 0), &zero) < 0)
        goto exit;
    const ndq_conv_source source = ndq_conv_source_of(w, (size_t)groups, false, zero);
    ndq_transposed_weights *weights = pack(&source, &y, &x, bias && PyArray_TYPE(bias) == NPY_FLOAT);
    if (!weights)
        goto exit;
    self = (packed_object *)PyType_GenericAlloc(ndq_state_of(module)->packed_transposed_type, 0);
    if (!self) {
        ndq_transposed_free(weights);
        goto exit;
    }
    self->weights = weights;
    self->g = g;
    for (size_t i = 0; i <= weights->count; i++)
        fill(ndq_transposed_part(weights, i), &params->params, bias);
    if (check_overflow(weights, true, 0) < 0)
        Py_CLEAR(self);
exit:
    Py_XDECREF((PyObject *)params);
    ndq_release(w);
    ndq_release(bias);
    ndq_release(zero);
    return (PyObject *)self;
}

static void packed_dealloc(PyObject *object)
{
    ndq_transposed_free(((packed_object *)object)->weights);
    ndq_free_object(object);
}

static PyType_Slot packed_slots[] = {
    {Py_tp_doc, "Weights of a transposed convolution in the format of one kernel; made by pack_conv_transpose."},
    {Py_tp_dealloc, packed_dealloc},
    {0, NULL},
};

static PyType_Spec packed_spec = {
    .name = "ndquant._core.PackedTransposed",
    .basicsize = sizeof(packed_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = packed_slots,
};

int ndq_conv_transpose_exec(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &packed_spec, NULL);
    ndq_state_of(module)->packed_transposed_type = (PyTypeObject *)type;
    return type ? PyModule_AddObjectRef(module, "PackedTransposed", type) : -1;
}

/* ---- The functions ---- */

static int compute(const ndq_conv_call *call, const ndq_transposed_weights *w)
{
    ndq_status status;
    if (ndq_transposed_macs(call, w) < NDQ_GIL_FROM_MACS) {
        status = ndq_transposed_conv(call, w);
    } else {
        Py_BEGIN_ALLOW_THREADS
        status = ndq_transposed_conv(call, w);
        Py_END_ALLOW_THREADS
    }
    return ndq_check_status(status);
}

int ndq_transposed_constants(PyObject *module, const ndq_linear_arguments *given, Py_ssize_t H, Py_ssize_t W,
                             ndq_conv_call *call, const ndq_transposed_weights **weights)
{
    if (!Py_IS_TYPE(given->packed, ndq_state_of(module)->packed_transposed_type)) {
        PyErr_Format(PyExc_TypeError, "packed: expected a PackedTransposed, got %R",
                     (PyObject *)Py_TYPE(given->packed));
        return -1;
    }
    const packed_object *packed = (const packed_object *)given->packed;
    const ndq_transposed_weights *w = *weights = packed->weights;
    *call = (ndq_conv_call){.w = NULL};
    if (ndq_product_constants(module, given, &call->product) < 0 ||
        ndq_make_transposed_axis(&packed->g, 0, H, (Py_ssize_t)w->y.taps, &call->y) < 0 ||
        ndq_make_transposed_axis(&packed->g, 1, W, (Py_ssize_t)w->x.taps, &call->x) < 0)
        return -1;
    return check_overflow(w, call->product.a_signed, call->product.za);
}

/* conv_transpose2d_requantized(xq, x_qparams, packed, out_qparams, requantization, activation, out) */
static PyObject *py_conv_transpose2d_requantized(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    PyArrayObject *x = NULL, *out = NULL;
    PyObject *result = NULL;
    ndq_conv_call call;
    const ndq_transposed_weights *w;
    if (ndq_check_count("conv_transpose2d_requantized", count, 7) < 0)
        return NULL;
    const ndq_linear_arguments arguments = {.x_qparams = args[1], .packed = args[2], .out_qparams = args[3],
                                            .requantization = args[4], .activation = args[5]};
    if (!(x = ndq_take_codes(module, args[0], args[1])) || ndq_check_ndim(x, "xq", 4) < 0 ||
        ndq_transposed_constants(module, &arguments, PyArray_DIM(x, 2), PyArray_DIM(x, 3), &call, &w) < 0 ||
        ndq_check_channels(x, "xq", w->C * w->groups) < 0)
        goto exit;
    const ndq_gemm_call *product = &call.product;
    const int type = product->output == NDQ_GEMM_F32 ? NPY_FLOAT : product->qmin < 0 ? NPY_BYTE : NPY_UBYTE;
    if (!(out = ndq_take_images(x, "xq", w->O, args[6], type, &call)))
        goto exit;
    if (compute(&call, w) == 0)
        result = (PyObject *)ndq_retain(out);
exit:
    ndq_release(x);
    ndq_release(out);
    return result;
}

static PyObject *py_conv_transpose2d_integer(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    ndq_integer_conv c = {.x = NULL};
    PyObject *result = NULL;
    ndq_transposed_weights *weights = NULL;
    if (ndq_check_count("conv_transpose2d_integer", count, 7) < 0 || ndq_take_integer_conv(args, true, &c) < 0 ||
        !(weights = pack(&c.source, &c.call.y, &c.call.x, false)))
        goto exit;
    if (check_overflow(weights, c.call.product.a_signed, c.call.product.za) == 0 && compute(&c.call, weights) == 0)
        result = (PyObject *)ndq_retain(c.out);
exit:
    ndq_transposed_free(weights);
    ndq_release_integer_conv(&c);
    return result;
}

#define FAST(name, signature, doc) \
    {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, #name signature "\n--\n\n" doc}

PyMethodDef ndq_conv_transpose_methods[] = {
    {"pack_conv_transpose", py_pack_conv_transpose, METH_VARARGS,
     "pack_conv_transpose(w, qparams, bias, groups, geometry, /)\n--\n\n"
     "Weights (outputs, channels of a group, rows, columns) in the format of the kernel in use, for one geometry."},
    FAST(conv_transpose2d_requantized, "(xq, x_qparams, packed, out_qparams, requantization, activation, out, /)",
         "Integer transposed convolution, bias, activation and requantization (or float32) in one pass."),
    FAST(conv_transpose2d_integer, "(x, w, x_zero_point, w_zero_point, groups, geometry, out, /)",
         "Exact int32 transposed convolution of 8-bit images."),
    {NULL, NULL, 0, NULL},
};
