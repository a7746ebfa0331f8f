/* _core.Params: what kernels need of a QParams, computed once. */
#include "args.h"
#include "module.h"

#include <float.h>

enum { ZERO_POINT_BITS = 53 }; /* so that float64 holds it */

/* Copies 1-D (or 0-d) `values` into float64; they stay alive in the returned array. */
static PyArrayObject *as_doubles(PyObject *values)
{
    return (PyArrayObject *)PyArray_FROM_OTF(values, NPY_DOUBLE, NPY_ARRAY_CARRAY_RO | NPY_ARRAY_FORCECAST);
}

/* The kernels convert lo .. hi to integers, so these must be small whatever Python passes. */
static int check_zero_points(PyArrayObject *zero_points, int64_t qmin, int64_t qmax, ndq_rule rule)
{
    const double *zp = PyArray_DATA(zero_points);
    const double limit = (double)((int64_t)1 << ZERO_POINT_BITS);
    const bool codes = rule == NDQ_MULTIPLY || rule == NDQ_DIVIDE, floats = rule == NDQ_OFFSET || rule == NDQ_OFFSET_F64;
    const double low = codes ? (double)qmin : floats ? -DBL_MAX : -limit;
    const double high = codes ? (double)qmax : floats ? DBL_MAX : limit;
    for (npy_intp i = 0; i < PyArray_SIZE(zero_points); i++)
        if (!(zp[i] >= low && zp[i] <= high)) {
            PyErr_SetString(PyExc_ValueError, "zero_point: out of range");
            return -1;
        }
    return 0;
}

static int check_codes(long long qmin, long long qmax, int rule)
{
    const bool fit = qmin < 0 ? qmin >= INT32_MIN && qmax <= INT32_MAX : qmax <= UINT32_MAX;
    if (fit && qmin < qmax && rule >= 0 && rule < NDQ_RULES)
        return 0;
    PyErr_Format(PyExc_ValueError, "codes %lld..%lld (rule %d) are not supported", qmin, qmax, rule);
    return -1;
}

/* One scale, one per channel, or one per group: an array of any dimensions that has the axis. */
static int check_scales(PyArrayObject *scale, PyObject *axis_arg, long axis, Py_ssize_t group_size)
{
    const int ndim = PyArray_NDIM(scale);
    if (group_size == 0)
        return ndq_check_ndim(scale, "scale", axis_arg == Py_None ? 0 : 1);
    if (group_size > 0 && axis_arg != Py_None && axis >= -ndim && axis < ndim)
        return 0;
    PyErr_Format(PyExc_ValueError, "group_size: %zd on axis %R of %d dimensions is not supported", group_size, axis_arg,
                 ndim);
    return -1;
}

PyObject *ndq_params_make(PyTypeObject *type, const ndq_params_source *s)
{
    ndq_params_object *self = (ndq_params_object *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->per_channel = s->per_channel;
    self->axis = s->axis;
    self->group_size = s->group_size;
    self->groups = s->group_size ? ndq_retain(s->groups) : NULL;
    self->scale_type = s->scale_type;
    if (ndq_check_status(ndq_params_init(&self->params, s->channels, s->scale, s->zero_point, s->qmin, s->qmax,
                                         s->rule)) < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static PyObject *params_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *scale_arg, *zero_arg, *axis_arg;
    long long qmin, qmax;
    Py_ssize_t group_size;
    int rule;
    PyArrayObject *scale = NULL, *zero = NULL;
    PyObject *self = NULL;
    if (kwargs && PyDict_Size(kwargs)) {
        PyErr_SetString(PyExc_TypeError, "Params takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OOLLOni:Params", &scale_arg, &zero_arg, &qmin, &qmax, &axis_arg, &group_size, &rule))
        return NULL;
    const long axis = axis_arg == Py_None ? 0 : PyLong_AsLong(axis_arg);
    if (axis == -1 && PyErr_Occurred())
        return NULL;
    scale = as_doubles(scale_arg);
    zero = as_doubles(zero_arg);
    if (!scale || !zero || check_codes(qmin, qmax, rule) < 0 || check_zero_points(zero, qmin, qmax, rule) < 0 ||
        ndq_check_same_shape(zero, "zero_point", scale, "scale") < 0 ||
        check_scales(scale, axis_arg, axis, group_size) < 0)
        goto exit;
    const bool narrow = PyArray_Check(scale_arg) && PyArray_TYPE((PyArrayObject *)scale_arg) == NPY_FLOAT;
    self = ndq_params_make(type, &(ndq_params_source){.channels = (size_t)PyArray_SIZE(scale),
                                                      .scale = PyArray_DATA(scale),
                                                      .zero_point = PyArray_DATA(zero),
                                                      .qmin = qmin,
                                                      .qmax = qmax,
                                                      .rule = (ndq_rule)rule,
                                                      .per_channel = axis_arg != Py_None,
                                                      .axis = (int)axis,
                                                      .group_size = group_size,
                                                      .groups = scale,
                                                      .scale_type = narrow ? NPY_FLOAT : NPY_DOUBLE});
exit:
    ndq_release(scale);
    ndq_release(zero);
    return self;
}

static void params_dealloc(PyObject *object)
{
    ndq_params_free(&((ndq_params_object *)object)->params);
    ndq_release(((ndq_params_object *)object)->groups);
    ndq_free_object(object);
}

static PyType_Slot params_slots[] = {
    {Py_tp_doc,
     "Params(scale, zero_point, qmin, qmax, axis, group_size, rule, /)\n--\n\nCoefficients of one QParams for the kernels."},
    {Py_tp_new, params_new},
    {Py_tp_dealloc, params_dealloc},
    {0, NULL},
};

static PyType_Spec params_spec = {
    .name = "ndquant._core.Params",
    .basicsize = sizeof(ndq_params_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = params_slots,
};

static const char *const rule_names[NDQ_RULES] = {"MULTIPLY", "DIVIDE", "TEXTBOOK", "OFFSET", "OFFSET_F64"};

int ndq_params_exec(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &params_spec, NULL);
    ndq_state_of(module)->params_type = (PyTypeObject *)type;
    ndq_state_of(module)->params_name = PyUnicode_InternFromString("_params");
    if (!type || !ndq_state_of(module)->params_name)
        return -1;
    for (int rule = 0; rule < NDQ_RULES; rule++)
        if (PyModule_AddIntConstant(module, rule_names[rule], rule) < 0)
            return -1;
    return PyModule_AddObjectRef(module, "Params", type);
}
