/* _core.Params: what kernels need of a QParams, computed once. */
#include "args.h"
#include "module.h"

enum { ZERO_POINT_BITS = 53 }; /* so that float64 holds it */

/* Copies 1-D (or 0-d) `values` into float64; they stay alive in the returned array. */
static PyArrayObject *as_doubles(PyObject *values)
{
    return (PyArrayObject *)PyArray_FROM_OTF(values, NPY_DOUBLE, NPY_ARRAY_CARRAY_RO | NPY_ARRAY_FORCECAST);
}

/* The kernels convert lo .. hi to integers, so these must be small whatever Python passes. */
static int check_zero_points(PyArrayObject *zero_points, int qmin, int qmax, ndq_rule rule)
{
    const double *zp = PyArray_DATA(zero_points);
    const double limit = (double)((int64_t)1 << ZERO_POINT_BITS);
    const double low = rule == NDQ_MULTIPLY ? qmin : -limit, high = rule == NDQ_MULTIPLY ? qmax : limit;
    for (npy_intp i = 0; i < PyArray_SIZE(zero_points); i++)
        if (!(zp[i] >= low && zp[i] <= high)) {
            PyErr_SetString(PyExc_ValueError, "zero_point: out of range");
            return -1;
        }
    return 0;
}

static int check_codes(int qmin, int qmax, int rule)
{
    const bool bytes = (qmin >= -128 && qmax <= 127) || (qmin >= 0 && qmax <= 255);
    if (bytes && qmin < qmax && (rule == NDQ_MULTIPLY || rule == NDQ_TEXTBOOK_RULE))
        return 0;
    PyErr_Format(PyExc_ValueError, "codes %d..%d (rule %d) are not supported", qmin, qmax, rule);
    return -1;
}

PyObject *ndq_params_make(PyTypeObject *type, const ndq_params_source *s)
{
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    ndq_params_object *self = (ndq_params_object *)alloc(type, 0);
    if (!self)
        return NULL;
    self->per_channel = s->per_channel;
    self->axis = s->axis;
    self->scale_type = s->scale_type;
    if (ndq_check_status(ndq_params_init(&self->params, s->channels, s->scale, s->zero_point, s->qmin, s->qmax,
                                         s->rule)) < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static PyObject *params_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *scale_arg, *zero_arg, *axis_arg;
    int qmin, qmax, rule;
    PyArrayObject *scale = NULL, *zero = NULL;
    PyObject *self = NULL;
    if (kwargs && PyDict_Size(kwargs)) {
        PyErr_SetString(PyExc_TypeError, "Params takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OOiiOi:Params", &scale_arg, &zero_arg, &qmin, &qmax, &axis_arg, &rule))
        return NULL;
    const long axis = axis_arg == Py_None ? 0 : PyLong_AsLong(axis_arg);
    if (axis == -1 && PyErr_Occurred())
        return NULL;
    scale = as_doubles(scale_arg);
    zero = as_doubles(zero_arg);
    if (!scale || !zero || check_codes(qmin, qmax, rule) < 0 || check_zero_points(zero, qmin, qmax, rule) < 0 ||
        ndq_check_same_shape(zero, "zero_point", scale, "scale") < 0 ||
        ndq_check_ndim(scale, "scale", axis_arg == Py_None ? 0 : 1) < 0)
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
                                                      .scale_type = narrow ? NPY_FLOAT : NPY_DOUBLE});
exit:
    ndq_release(scale);
    ndq_release(zero);
    return self;
}

static void params_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    ndq_params_free(&((ndq_params_object *)object)->params);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyType_Slot params_slots[] = {
    {Py_tp_doc,
     "Params(scale, zero_point, qmin, qmax, axis, rule, /)\n--\n\nCoefficients of one QParams for the kernels."},
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

int ndq_params_exec(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &params_spec, NULL);
    ndq_state_of(module)->params_type = (PyTypeObject *)type;
    ndq_state_of(module)->params_name = PyUnicode_InternFromString("_params");
    if (!type || !ndq_state_of(module)->params_name || PyModule_AddIntConstant(module, "MULTIPLY", NDQ_MULTIPLY) < 0 ||
        PyModule_AddIntConstant(module, "TEXTBOOK", NDQ_TEXTBOOK_RULE) < 0)
        return -1;
    return PyModule_AddObjectRef(module, "Params", type);
}
