/* Weights of 4 bits with a scale per group of inputs: packed as an object, and the two functions that multiply by them. */
#include "dynamic.h"
#include "module.h"

/* _core.PackedGroups: weights in the format of one kernel, with their scales and float bias. */
typedef struct {
    PyObject_HEAD
    ndq_grouped *packed;
} groups_object;

const ndq_grouped *ndq_take_grouped(PyObject *module, PyObject *object)
{
    if (Py_IS_TYPE(object, ndq_state_of(module)->groups_type))
        return ((groups_object *)object)->packed;
    PyErr_Format(PyExc_TypeError, "packed: expected a PackedGroups, got %R", (PyObject *)Py_TYPE(object));
    return NULL;
}

/* ---- Packing ---- */

/* Codes (N, K) that the kernel holds, and their Params: 4 bits at most, a scale per output or per group of inputs. */
static int check_weight(PyArrayObject *w, const ndq_params_object *object, size_t *group_size)
{
    const ndq_params *params = &object->params;
    ndq_geometry geometry;
    if (ndq_check_ndim(w, "w", 2) < 0 || ndq_geometry_of(w, "w", object, &geometry) < 0)
        return -1;
    const int axis = object->axis < 0 ? object->axis + 2 : object->axis;
    if (params->qmax - params->qmin >= NDQ_GROUPED_LEVELS || !object->per_channel ||
        axis != (object->group_size != 0)) {
        PyErr_SetString(PyExc_ValueError, "w_qparams: expected codes of at most 4 bits with one scale per output (axis 0), "
                                          "or per group of inputs (axis 1)");
        return -1;
    }
    const npy_intp K = PyArray_DIM(w, 1);
    *group_size = (size_t)(object->group_size ? object->group_size : K ? K : 1);
    if (!params->fits_f32 || *group_size > NDQ_GROUPED_LONGEST) {
        PyErr_Format(PyExc_ValueError, "w_qparams: scales must fit float32, and groups have at most %d inputs, got %zu",
                     (int)NDQ_GROUPED_LONGEST, *group_size);
        return -1;
    }
    for (size_t c = 0; !params->float_offset && c < params->channels; c++)
        if (params->f64.zp[c] < (double)params->qmin || params->f64.zp[c] > (double)params->qmax) {
            PyErr_Format(PyExc_ValueError, "w_qparams: the zero point of group %zu is no code: no integer product", c);
            return -1;
        }
    return 0;
}

static int check_codes(PyArrayObject *w, const ndq_params *params)
{
    const uint8_t *codes = PyArray_DATA(w), lowest = (uint8_t)params->qmin;
    const uint8_t most = (uint8_t)(params->qmax - params->qmin);
    for (npy_intp i = 0; i < PyArray_SIZE(w); i++)
        if ((uint8_t)(codes[i] - lowest) > most) {
            PyErr_Format(PyExc_ValueError, "w: codes must be %d to %d", (int)params->qmin, (int)params->qmax);
            return -1;
        }
    return 0;
}

/* Floats of N outputs, contiguous; NULL with no exception for None. */
static int take_bias(PyObject *object, npy_intp n, PyArrayObject **bias)
{
    *bias = NULL;
    if (object == Py_None)
        return 0;
    PyArrayObject *given = ndq_float_array(object, "bias");
    if (given && ndq_check_shape(given, "bias", 1, &n) == 0)
        *bias = ndq_contiguous(given, NPY_FLOAT);
    ndq_release(given);
    return *bias ? 0 : -1;
}

static PyObject *wrap(PyObject *module, ndq_grouped *packed)
{
    if (!packed)
        return PyErr_NoMemory();
    groups_object *self = (groups_object *)PyType_GenericAlloc(ndq_state_of(module)->groups_type, 0);
    if (self)
        self->packed = packed;
    else
        ndq_grouped_free(packed);
    return (PyObject *)self;
}

/* pack_groups(w, qparams, bias) */
static PyObject *py_pack_groups(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    PyArrayObject *given = NULL, *w = NULL, *bias = NULL;
    PyObject *self = NULL;
    ndq_params_object *params = NULL;
    size_t group_size;
    if (ndq_check_count("pack_groups", count, 3) < 0)
        return NULL;
    if (!(params = ndq_params_of(module, args[1])) || !(given = ndq_codes_of(args[0], "w", &params->params)) ||
        check_weight(given, params, &group_size) < 0 || !(w = ndq_contiguous(given, PyArray_TYPE(given))) ||
        check_codes(w, &params->params) < 0 || take_bias(args[2], PyArray_DIM(w, 0), &bias) < 0)
        goto exit;
    const ndq_params *p = &params->params;
    const ndq_grouped_weights weights = {
        .N = (size_t)PyArray_DIM(w, 0),
        .K = (size_t)PyArray_DIM(w, 1),
        .group_size = group_size,
        .codes = PyArray_DATA(w),
        .lowest = (uint8_t)p->qmin,
        .scale = p->f32.scale,
        .zero_point = p->f64.zp,
        .offset = p->float_offset ? p->f32.offset : NULL,
        .bias = bias ? PyArray_DATA(bias) : NULL,
    };
    ndq_grouped *packed;
    Py_BEGIN_ALLOW_THREADS
    packed = ndq_grouped_pack(ndq_kernels_in_use()->grouped, &weights);
    Py_END_ALLOW_THREADS
    self = wrap(module, packed);
exit:
    Py_XDECREF((PyObject *)params);
    ndq_release(given);
    ndq_release(w);
    ndq_release(bias);
    return self;
}

static void groups_dealloc(PyObject *object)
{
    ndq_grouped_free(((groups_object *)object)->packed);
    ndq_free_object(object);
}

static PyObject *groups_shape(PyObject *self, void *unused)
{
    (void)unused;
    const ndq_grouped *packed = ((groups_object *)self)->packed;
    return Py_BuildValue("(nn)", (Py_ssize_t)packed->N, (Py_ssize_t)packed->K);
}

static PyObject *groups_kernel(PyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(((groups_object *)self)->packed->kernel->name);
}

static PyObject *groups_nbytes(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(((groups_object *)self)->packed->bytes);
}

static PyGetSetDef groups_getset[] = {
    {"shape", groups_shape, NULL, "Outputs and inputs.", NULL},
    {"kernel", groups_kernel, NULL, "Name of the kernel whose format this is.", NULL},
    {"nbytes", groups_nbytes, NULL, "Memory that it takes.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot groups_slots[] = {
    {Py_tp_doc, "Weights of 4 bits in the format of one kernel, with scales per group; made by pack_groups."},
    {Py_tp_dealloc, groups_dealloc},
    {Py_tp_getset, groups_getset},
    {0, NULL},
};

static PyType_Spec groups_spec = {
    .name = "ndquant._core.PackedGroups",
    .basicsize = sizeof(groups_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = groups_slots,
};

int ndq_grouped_exec(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &groups_spec, NULL);
    ndq_state_of(module)->groups_type = (PyTypeObject *)type;
    return type ? PyModule_AddObjectRef(module, "PackedGroups", type) : -1;
}

/* ---- Products ---- */

/* x (..., K), its C-contiguous copy of that type if it is none, and the output (..., N). */
static int take_rows(PyArrayObject *x, const ndq_grouped *w, int type, PyObject *out_arg, PyArrayObject **rows,
                     PyArrayObject **out)
{
    npy_intp shape[NPY_MAXDIMS];
    const int last = PyArray_NDIM(x) - 1;
    if (last < 0 || (size_t)PyArray_DIM(x, last) != w->K) {
        PyErr_Format(PyExc_ValueError, "x: its last axis must have the %zu inputs of the weight", w->K);
        return -1;
    }
    memcpy(shape, PyArray_DIMS(x), (size_t)last * sizeof(shape[0]));
    shape[last] = (npy_intp)w->N;
    if (!(*rows = ndq_contiguous(x, type)) || !(*out = ndq_output(out_arg, "out", last + 1, shape, NPY_FLOAT)))
        return -1;
    return ndq_check_disjoint(*out, "out", x, "x");
}

static size_t count_rows(PyArrayObject *rows)
{
    return (size_t)PyArray_MultiplyList(PyArray_DIMS(rows), PyArray_NDIM(rows) - 1);
}

/* linear_groups(x, packed, activation, out) */
static PyObject *py_linear_groups(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    PyArrayObject *x = NULL, *rows = NULL, *out = NULL;
    PyObject *result = NULL;
    ndq_grouped_rows call;
    if (ndq_check_count("linear_groups", count, 4) < 0 || ndq_take_activation(args[2], &call.activation) < 0 ||
        !(call.w = ndq_take_grouped(module, args[1])) || !(x = ndq_float_array(args[0], "x")) ||
        take_rows(x, call.w, NPY_FLOAT, args[3], &rows, &out) < 0)
        goto exit;
    call.M = count_rows(rows);
    call.y = PyArray_DATA(out);
    size_t bad_row = 0;
    ndq_status status;
    Py_BEGIN_ALLOW_THREADS
    status = ndq_linear_groups(ndq_kernels_in_use(), &call, PyArray_DATA(rows), &bad_row);
    Py_END_ALLOW_THREADS
    if (status == NDQ_NOT_FINITE)
        PyErr_Format(PyExc_ValueError, "x: row %zu holds NaN or infinity", bad_row);
    else if (ndq_check_status(status) == 0)
        result = (PyObject *)ndq_retain(out);
exit:
    ndq_release(x);
    ndq_release(rows);
    ndq_release(out);
    return result;
}

/* linear_groups_codes(xq, x_qparams, packed, out) */
static PyObject *py_linear_groups_codes(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    PyArrayObject *x = NULL, *rows = NULL, *out = NULL;
    PyObject *result = NULL;
    ndq_params_object *params = NULL;
    const ndq_grouped *w;
    if (ndq_check_count("linear_groups_codes", count, 4) < 0 || !(w = ndq_take_grouped(module, args[2])) ||
        !(params = ndq_params_of(module, args[1])) || ndq_check_per_tensor(params, "x_qparams") < 0 ||
        !(x = ndq_codes_of(args[0], "x", &params->params)) ||
        take_rows(x, w, PyArray_TYPE(x), args[3], &rows, &out) < 0)
        goto exit;
    const int32_t zero = (int32_t)params->params.f64.zp[0];
    const ndq_grouped_call call = {.w = w, .M = count_rows(rows), .a = PyArray_DATA(rows),
                                   .a_signed = PyArray_TYPE(x) == NPY_BYTE, .a_scale = params->params.f32.scale,
                                   .a_zero = &zero, .y = PyArray_DATA(out)};
    ndq_status status;
    Py_BEGIN_ALLOW_THREADS
    status = ndq_grouped_multiply(&call);
    Py_END_ALLOW_THREADS
    if (ndq_check_status(status) == 0)
        result = (PyObject *)ndq_retain(out);
exit:
    Py_XDECREF((PyObject *)params);
    ndq_release(x);
    ndq_release(rows);
    ndq_release(out);
    return result;
}

#define METHOD(name, signature, doc) \
    {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, #name signature "\n--\n\n" doc}

PyMethodDef ndq_grouped_methods[] = {
    METHOD(pack_groups, "(w, qparams, bias, /)", "Pack weights (N, K) of 4 bits, with their scales per group and float bias."),
    METHOD(linear_groups, "(x, packed, activation, out, /)", "Product and bias of rows of floats, each quantized by its range."),
    METHOD(linear_groups_codes, "(xq, x_qparams, packed, out, /)", "Product and bias of rows of codes."),
    {NULL, NULL, 0, NULL},
};
