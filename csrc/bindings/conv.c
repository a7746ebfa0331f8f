/* Integer convolutions: packed weights as an object, and the functions that convolve. */
#include "conv.h"
#include "module.h"

/* _core.PackedConv: weights of a convolution in the format of one kernel, with their scales and bias. */
typedef struct {
    PyObject_HEAD
    ndq_conv_weights *weights;
} packed_object;

int ndq_check_channels(PyArrayObject *x, const char *name, size_t channels)
{
    if (ndq_check_ndim(x, name, 4) < 0)
        return -1;
    if ((size_t)PyArray_DIM(x, 1) == channels)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: axis 1 must have the %zu channels of the weight, got %zd", name, channels,
                 (Py_ssize_t)PyArray_DIM(x, 1));
    return -1;
}

/* ---- Operands of a call ---- */

/* A view with the channels of a pixel next to each other. With one channel that is how its strides read. */
static bool is_channels_last(PyArrayObject *x)
{
    return PyArray_STRIDE(x, 1) == 1 && PyArray_STRIDE(x, 3) >= PyArray_DIM(x, 1) &&
           PyArray_DIM(x, 1) * PyArray_DIM(x, 2) * PyArray_DIM(x, 3) > 1;
}

PyArrayObject *ndq_take_images(PyArrayObject *x, const char *name, size_t O, PyObject *out, int type,
                               ndq_conv_call *call)
{
    const npy_intp shape[] = {PyArray_DIM(x, 0), (npy_intp)O, (npy_intp)call->y.out, (npy_intp)call->x.out};
    PyArrayObject *y = ndq_image_output(out, "out", shape, type, is_channels_last(x));
    if (!y || ndq_check_disjoint(y, "out", x, name) < 0) {
        ndq_release(y);
        return NULL;
    }
    call->N = (size_t)PyArray_DIM(x, 0);
    call->in = PyArray_DATA(x);
    call->in_n = PyArray_STRIDE(x, 0);
    call->in_c = PyArray_DIM(x, 1) == 1 ? 1 : PyArray_STRIDE(x, 1);
    call->in_y = PyArray_STRIDE(x, 2);
    call->in_x = PyArray_STRIDE(x, 3);
    call->out = PyArray_DATA(y);
    call->out_n = (size_t)PyArray_STRIDE(y, 0);
    call->out_c = O == 1 ? (size_t)PyArray_ITEMSIZE(y) : (size_t)PyArray_STRIDE(y, 1);
    call->out_y = (size_t)PyArray_STRIDE(y, 2);
    call->out_x = (size_t)PyArray_STRIDE(y, 3);
    return y;
}

int ndq_check_conv_overflow(const ndq_conv_weights *w, bool is_signed, int32_t za)
{
    for (size_t part = 0; part < w->parts; part++)
        if (ndq_check_overflow(w->part[part], "w", part * w->part[part]->N, is_signed, za) < 0)
            return -1;
    return 0;
}

ndq_conv_source ndq_conv_source_of(PyArrayObject *w, size_t groups, bool transposed, PyArrayObject *zero)
{
    const int axis_o = transposed ? 1 : 0, axis_c = 1 - axis_o;
    const size_t all = (size_t)PyArray_DIM(w, 0), part = (size_t)PyArray_DIM(w, 1);
    return (ndq_conv_source){
        .O = transposed ? part * groups : all,
        .C = transposed ? all / groups : part,
        .KH = (size_t)PyArray_DIM(w, 2),
        .KW = (size_t)PyArray_DIM(w, 3),
        .groups = groups,
        .codes = PyArray_DATA(w),
        .stride_g = (ptrdiff_t)(all / groups) * PyArray_STRIDE(w, 0),
        .stride_o = PyArray_STRIDE(w, axis_o),
        .stride_c = PyArray_STRIDE(w, axis_c),
        .stride_y = PyArray_STRIDE(w, 2),
        .stride_x = PyArray_STRIDE(w, 3),
        .is_signed = PyArray_TYPE(w) == NPY_BYTE,
        .zero_point = zero ? PyArray_DATA(zero) : NULL,
    };
}

/* ---- Packed weights ---- */

static ndq_conv_weights *pack(const ndq_conv_source *source, bool float_bias)
{
    const ndq_kernels *kernels = ndq_kernels_in_use();
    ndq_conv_weights *weights;
    Py_BEGIN_ALLOW_THREADS
    weights = ndq_conv_pack(kernels->gemm, kernels->depthwise, source, float_bias);
    Py_END_ALLOW_THREADS
    if (!weights)
        PyErr_NoMemory();
    return weights;
}

static PyObject *wrap(PyTypeObject *type, ndq_conv_weights *weights)
{
    packed_object *self = (packed_object *)PyType_GenericAlloc(type, 0);
    if (self)
        self->weights = weights;
    else
        ndq_conv_free(weights);
    return (PyObject *)self;
}

/* pack_conv(w, qparams, bias, groups, merged) */
static PyObject *py_pack_conv(PyObject *module, PyObject *args)
{
    PyObject *w_arg, *qparams, *bias_arg, *self = NULL;
    Py_ssize_t groups;
    int merged;
    PyArrayObject *w = NULL, *bias = NULL, *zero = NULL;
    ndq_params_object *params = NULL;
    if (!PyArg_ParseTuple(args, "OOOnp:pack_conv", &w_arg, &qparams, &bias_arg, &groups, &merged))
        return NULL;
    if (!(params = ndq_params_of(module, qparams)) || !(w = ndq_codes_of(w_arg, "w", &params->params)) ||
        ndq_check_weight_params(w, params, 4) < 0 || ndq_check_groups(groups, PyArray_DIM(w, 0), "outputs") < 0 ||
        ndq_take_bias(bias_arg, (size_t)PyArray_DIM(w, 0), &bias) < 0 ||
        ndq_take_zero_points(&params->params, (size_t)PyArray_DIM(w, 0), &zero) < 0)
        goto exit;
    ndq_conv_source source = ndq_conv_source_of(w, (size_t)groups, false, zero);
    source.merged = merged;
    ndq_conv_weights *weights = pack(&source, bias && PyArray_TYPE(bias) == NPY_FLOAT);
    if (!weights || !(self = wrap(ndq_state_of(module)->packed_conv_type, weights)))
        goto exit;
    for (size_t part = 0; part < weights->parts; part++)
        ndq_fill_packed(weights->part[part], part * weights->part[part]->N, &params->params, bias);
    /* No zero point brings activations of 8 bits nearer to 0 than 128 at most, so this much can be refused at once. */
    if (ndq_check_conv_overflow(weights, true, 0) < 0)
        Py_CLEAR(self);
exit:
    Py_XDECREF((PyObject *)params);
    ndq_release(w);
    ndq_release(bias);
    ndq_release(zero);
    return self;
}

static void packed_dealloc(PyObject *object)
{
    ndq_conv_free(((packed_object *)object)->weights);
    ndq_free_object(object);
}

static PyObject *packed_kernel(PyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(((packed_object *)self)->weights->part[0]->kernel->name);
}

static PyObject *packed_nbytes(PyObject *self, void *unused)
{
    (void)unused;
    const ndq_conv_weights *w = ((packed_object *)self)->weights;
    size_t bytes = 0;
    for (size_t part = 0; part < w->parts; part++)
        bytes += w->part[part]->bytes;
    bytes += w->winograd_bytes + (w->lower ? w->lower->bytes : 0);
    return PyLong_FromSize_t(bytes);
}

static PyGetSetDef packed_getset[] = {
    {"kernel", packed_kernel, NULL, "Name of the kernel whose format this is.", NULL},
    {"nbytes", packed_nbytes, NULL, "Memory that it takes.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot packed_slots[] = {
    {Py_tp_doc, "Weights of a convolution in the format of one kernel, with scales and bias; made by pack_conv."},
    {Py_tp_dealloc, packed_dealloc},
    {Py_tp_getset, packed_getset},
    {0, NULL},
};

static PyType_Spec packed_spec = {
    .name = "ndquant._core.PackedConv",
    .basicsize = sizeof(packed_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = packed_slots,
};

int ndq_conv_exec(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &packed_spec, NULL);
    ndq_state_of(module)->packed_conv_type = (PyTypeObject *)type;
    return type ? PyModule_AddObjectRef(module, "PackedConv", type) : -1;
}

static const ndq_conv_weights *weights_of(PyObject *module, PyObject *object)
{
    if (Py_IS_TYPE(object, ndq_state_of(module)->packed_conv_type))
        return ((packed_object *)object)->weights;
    PyErr_Format(PyExc_TypeError, "packed: expected a PackedConv, got %R", (PyObject *)Py_TYPE(object));
    return NULL;
}

/* ---- The functions ---- */

static int compute(const ndq_conv_call *call)
{
    ndq_status status;
    if (ndq_conv_macs(call) < NDQ_GIL_FROM_MACS) {
        status = ndq_conv(call);
    } else {
        Py_BEGIN_ALLOW_THREADS
        status = ndq_conv(call);
        Py_END_ALLOW_THREADS
    }
    return ndq_check_status(status);
}

int ndq_conv_constants(PyObject *module, const ndq_linear_arguments *given, PyObject *sizes, Py_ssize_t H, Py_ssize_t W,
                       ndq_conv_call *call)
{
    ndq_conv_geometry g;
    const ndq_conv_weights *w = weights_of(module, given->packed);
    *call = (ndq_conv_call){.w = w};
    if (!w || ndq_take_geometry(sizes, &g) < 0 || ndq_product_constants(module, given, &call->product) < 0 ||
        ndq_make_axis(&g, 0, H, (Py_ssize_t)w->KH, &call->y) < 0 ||
        ndq_make_axis(&g, 1, W, (Py_ssize_t)w->KW, &call->x) < 0)
        return -1;
    if (w->merged && w->KW > 1 && g.dilation[1] > 1) {
        PyErr_SetString(PyExc_ValueError, "packed: was packed for dilation 1 along x");
        return -1;
    }
    return ndq_check_conv_overflow(w, call->product.a_signed, call->product.za);
}

/* conv2d_requantized(xq, x_qparams, packed, out_qparams, geometry, requantization, activation, out) */
static PyObject *py_conv2d_requantized(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    PyArrayObject *x = NULL, *out = NULL;
    PyObject *result = NULL;
    ndq_conv_call call;
    if (ndq_check_count("conv2d_requantized", count, 8) < 0)
        return NULL;
    const ndq_linear_arguments arguments = {.x_qparams = args[1], .packed = args[2], .out_qparams = args[3],
                                            .requantization = args[5], .activation = args[6]};
    if (!(x = ndq_take_codes(module, args[0], args[1])) || ndq_check_ndim(x, "xq", 4) < 0 ||
        ndq_conv_constants(module, &arguments, args[4], PyArray_DIM(x, 2), PyArray_DIM(x, 3), &call) < 0 ||
        ndq_check_channels(x, "xq", call.w->C * call.w->groups) < 0)
        goto exit;
    const ndq_conv_weights *w = call.w;
    const ndq_gemm_call *product = &call.product;
    const int type = product->output == NDQ_GEMM_F32 ? NPY_FLOAT : product->qmin < 0 ? NPY_BYTE : NPY_UBYTE;
    if (!(out = ndq_take_images(x, "xq", w->O, args[7], type, &call)))
        goto exit;
    if (compute(&call) == 0)
        result = (PyObject *)ndq_retain(out);
exit:
    ndq_release(x);
    ndq_release(out);
    return result;
}

void ndq_release_integer_conv(ndq_integer_conv *c)
{
    ndq_release(c->x);
    ndq_release(c->w);
    ndq_release(c->zero);
    ndq_release(c->out);
}

int ndq_take_integer_conv(PyObject *const *args, bool transposed, ndq_integer_conv *c)
{
    ndq_conv_call *call = &c->call;
    call->product.output = NDQ_GEMM_S32;
    if (!(c->x = ndq_byte_array(args[0], "x")) || !(c->w = ndq_byte_array(args[1], "w")) ||
        ndq_check_ndim(c->w, "w", 4) < 0 ||
        ndq_zero_point(args[2], "x_zero_point", PyArray_TYPE(c->x), &call->product.za) < 0)
        return -1;
    const Py_ssize_t groups = PyLong_AsSsize_t(args[4]);
    if ((groups == -1 && PyErr_Occurred()) || ndq_take_geometry(args[5], &c->g) < 0 ||
        ndq_check_groups(groups, PyArray_DIM(c->w, 0), transposed ? "channels" : "outputs") < 0)
        return -1;
    c->source = ndq_conv_source_of(c->w, (size_t)groups, transposed, NULL);
    int (*const axis)(const ndq_conv_geometry *, int, Py_ssize_t, Py_ssize_t, ndq_conv_axis *) =
        transposed ? ndq_make_transposed_axis : ndq_make_axis;
    const ndq_conv_source *s = &c->source;
    if (ndq_check_channels(c->x, "x", s->C * s->groups) < 0 ||
        !(c->zero = ndq_zero_points(args[3], "w_zero_point", PyArray_TYPE(c->w), (npy_intp)s->O)) ||
        axis(&c->g, 0, PyArray_DIM(c->x, 2), PyArray_DIM(c->w, 2), &call->y) < 0 ||
        axis(&c->g, 1, PyArray_DIM(c->x, 3), PyArray_DIM(c->w, 3), &call->x) < 0 ||
        !(c->out = ndq_take_images(c->x, "x", s->O, args[6], NPY_INT32, call)) ||
        ndq_check_disjoint(c->out, "out", c->w, "w") < 0)
        return -1;
    c->source.zero_point = PyArray_DATA(c->zero);
    c->source.merged = c->g.dilation[1] == 1 || PyArray_DIM(c->w, 3) == 1;
    call->product.a_signed = PyArray_TYPE(c->x) == NPY_BYTE;
    return 0;
}

static PyObject *py_conv2d_integer(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    ndq_integer_conv c = {.x = NULL};
    PyObject *result = NULL;
    ndq_conv_weights *weights = NULL;
    if (ndq_check_count("conv2d_integer", count, 7) < 0 || ndq_take_integer_conv(args, false, &c) < 0 ||
        !(weights = pack(&c.source, false)))
        goto exit;
    c.call.w = weights;
    if (ndq_check_conv_overflow(weights, c.call.product.a_signed, c.call.product.za) == 0 && compute(&c.call) == 0)
        result = (PyObject *)ndq_retain(c.out);
exit:
    ndq_conv_free(weights);
    ndq_release_integer_conv(&c);
    return result;
}

#define FAST(name, signature, doc) \
    {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, #name signature "\n--\n\n" doc}

PyMethodDef ndq_conv_methods[] = {
    {"pack_conv", py_pack_conv, METH_VARARGS,
     "pack_conv(w, qparams, bias, groups, merged, /)\n--\n\n"
     "Weights (outputs, channels of a group, rows, columns) in the format of the kernel in use."},
    FAST(conv2d_requantized, "(xq, x_qparams, packed, out_qparams, geometry, requantization, activation, out, /)",
         "Integer convolution, bias, activation and requantization (or float32 if out_qparams is None) in one pass."),
    FAST(conv2d_integer, "(x, w, x_zero_point, w_zero_point, groups, geometry, out, /)",
         "Exact int32 convolution of 8-bit images."),
    {NULL, NULL, 0, NULL},
};
