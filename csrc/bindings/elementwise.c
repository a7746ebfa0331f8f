/* quantize, fake_quantize and their gradients, dequantize: arrays in, kernels called, arrays out. */
#include "args.h"
#include "module.h"
#include "../kernels/reduce.h"

/* One call, from arguments to results. Everything is released by clear(). */
typedef struct {
    ndq_params_object *params;
    PyArrayObject *x, *dy;           /* as given */
    PyArrayObject *x_work, *dy_work; /* as the core reads them */
    PyArrayObject *out[2];           /* as the caller wants them */
    PyArrayObject *out_work[2];      /* as the core writes them: the same unless NumPy must cast */
    ndq_strides *strides[2];
    bool staged;      /* the core converts types where it can */
    bool keeps_order; /* x is not C-contiguous but without gaps, and outputs lie in memory like it */
    ndq_elementwise job;
} call_state;

static void clear(call_state *call)
{
    Py_XDECREF((PyObject *)call->params);
    ndq_release(call->x);
    ndq_release(call->dy);
    ndq_release(call->x_work);
    ndq_release(call->dy_work);
    for (int i = 0; i < 2; i++) {
        ndq_release(call->out[i]);
        ndq_release(call->out_work[i]);
        if (call->strides[i])
            ndq_free(call->strides[i]);
    }
}

/* The type that computes: float16 goes through float32, long double through float64. */
static int work_type(const ndq_elementwise *job)
{
    return ndq_is_f32(job->arithmetic) ? NPY_FLOAT : NPY_DOUBLE;
}

static int choose_arithmetic(ndq_elementwise *job, int type)
{
    job->arithmetic = ndq_arithmetic_of(job->params, type == NPY_FLOAT || type == NPY_HALF);
    if (!ndq_is_f32(job->arithmetic) || job->params->fits_f32)
        return 0;
    PyErr_SetString(PyExc_ValueError, "qparams: a scale is outside the range of float32, in which this is computed");
    return -1;
}

/* Whether the core converts between that type in memory and the type that computes, and how it calls it. */
static bool core_converts(int type, int work, ndq_data_type *is)
{
    *is = type == NPY_HALF ? NDQ_IS_F16 : type != work ? NDQ_IS_F32 : NDQ_AS_COMPUTED;
    return type == work || (type == NPY_HALF && work == NPY_FLOAT) || (type == NPY_FLOAT && work == NPY_DOUBLE);
}

static int take_params(call_state *call, PyObject *module, PyObject *qparams)
{
    call->params = ndq_params_of(module, qparams);
    if (!call->params)
        return -1;
    ndq_elementwise *job = &call->job;
    job->kernels = ndq_kernels_in_use();
    job->params = &call->params->params;
    job->n = (size_t)PyArray_SIZE(call->x);
    if (choose_arithmetic(job, PyArray_TYPE(call->x)) < 0 ||
        ndq_geometry_of(call->x, "x", call->params, &job->geometry) < 0 ||
        (call->dy && ndq_check_same_shape(call->dy, "dy", call->x, "x") < 0))
        return -1;
    return 0;
}

/* Codes, or inputs of the type that computes, as contiguous arrays. x must be set; dy may be NULL. */
static int take_contiguous(call_state *call)
{
    const int work = PyArray_ISINTEGER(call->x) ? PyArray_TYPE(call->x) : work_type(&call->job);
    if (!(call->x_work = ndq_contiguous(call->x, work)) ||
        (call->dy && !(call->dy_work = ndq_contiguous(call->dy, work))))
        return -1;
    call->job.x = PyArray_DATA(call->x_work);
    call->job.dy = call->dy ? PyArray_DATA(call->dy_work) : NULL;
    return 0;
}

/* Lets the core read `array` as it is, if it can: otherwise as a contiguous copy of type `work`. `k` tells which input. */
static PyArrayObject *as_read(call_state *call, int k, PyArrayObject *array, int work, ndq_data_type *is)
{
    if (!core_converts(PyArray_TYPE(array), work, is) || !PyArray_ISNOTSWAPPED(array)) {
        *is = NDQ_AS_COMPUTED;
        return ndq_contiguous(array, work);
    }
    if (!PyArray_ISCARRAY_RO(array) && PyArray_SIZE(array) && !(call->strides[k] = ndq_strides_of(array))) {
        PyErr_NoMemory();
        return NULL;
    }
    return ndq_retain(array);
}

/* An empty array whose axes lie in memory in the order of those of x. */
static PyArrayObject *like_x(const call_state *call, int type)
{
    return (PyArrayObject *)PyArray_NewLikeArray(call->x, NPY_KEEPORDER, PyArray_DescrFromType(type), 0);
}

/* Inputs that lie in memory in one order other than C's: the core may take them for C-contiguous. */
static int take_in_order(call_state *call, int work)
{
    ndq_elementwise *job = &call->job;
    call->x_work = ndq_retain(call->x);
    if (call->dy && PyArray_TYPE(call->dy) == PyArray_TYPE(call->x) && ndq_have_same_layout(call->x, call->dy)) {
        call->dy_work = ndq_retain(call->dy);
        job->dy_is = job->x_is;
    } else if (call->dy && (!(call->dy_work = like_x(call, work)) || PyArray_CopyInto(call->dy_work, call->dy) < 0))
        return -1;
    return 0;
}

/* Inputs of any strides, and of all types that the core converts. With `fresh` outputs are arrays of our own making, and
 * may have the order of x. x must be set; dy may be NULL. */
static int take_inputs(call_state *call, bool fresh)
{
    ndq_elementwise *job = &call->job;
    const bool codes = PyArray_ISINTEGER(call->x);
    const int work = codes ? PyArray_TYPE(call->x) : work_type(job);
    call->staged = true;
    call->keeps_order = fresh && core_converts(PyArray_TYPE(call->x), work, &job->x_is) &&
                        ndq_reorder(call->x, call->params, &job->geometry);
    if (call->keeps_order ? take_in_order(call, work) < 0
                          : !(call->x_work = as_read(call, 0, call->x, work, &job->x_is)) ||
                                (call->dy && !(call->dy_work = as_read(call, 1, call->dy, work, &job->dy_is))))
        return -1;
    job->x = PyArray_DATA(call->x_work);
    job->dy = call->dy ? PyArray_DATA(call->dy_work) : NULL;
    job->x_strides = call->strides[0];
    job->dy_strides = call->strides[1];
    return 0;
}

/* Output number i with the dtype `type`, which the core fills. */
static int take_output(call_state *call, int i, PyObject *out, const char *name, int type)
{
    ndq_elementwise *job = &call->job;
    PyArrayObject *array = call->keeps_order ? like_x(call, type)
                                             : ndq_output(out, name, PyArray_NDIM(call->x), PyArray_DIMS(call->x), type);
    call->out[i] = array;
    if (!array || ndq_check_overlap(array, name, call->x, PyArray_ISINTEGER(call->x) ? "q" : "x") < 0 ||
        (call->dy && ndq_check_overlap(array, name, call->dy, "dy") < 0))
        return -1;
    const int work = work_type(job);
    const bool as_is = PyTypeNum_ISINTEGER(type) || type == work;
    if (as_is || (call->staged && core_converts(type, work, &job->y_is))) {
        call->out_work[i] = ndq_retain(array);
        return 0;
    }
    job->y_is = NDQ_AS_COMPUTED;
    call->out_work[i] = (PyArrayObject *)PyArray_SimpleNew(PyArray_NDIM(array), PyArray_DIMS(array), work);
    return call->out_work[i] ? 0 : -1;
}

static void compute(const ndq_elementwise *job, void (*function)(const ndq_elementwise *))
{
    if (job->n < NDQ_GIL_FROM) {
        function(job);
        return;
    }
    Py_BEGIN_ALLOW_THREADS
    function(job);
    Py_END_ALLOW_THREADS
}

/* Output i as a new reference: cast if need be; 0-d arrays that the caller did not give become scalars. */
static PyObject *give_output(call_state *call, int i, PyObject *out)
{
    PyArrayObject *array = call->out[i];
    if (array != call->out_work[i] && PyArray_CopyInto(array, call->out_work[i]) < 0)
        return NULL;
    ndq_retain(array);
    return out && out != Py_None ? (PyObject *)array : PyArray_Return(array);
}

/* Element i of the argument `out` of a function with several outputs; the tuple's length is checked before. */
static PyObject *out_item(PyObject *out, Py_ssize_t i)
{
    return out == Py_None ? Py_None : PyTuple_GetItem(out, i);
}

static int check_out_tuple(PyObject *out, Py_ssize_t length)
{
    if (out == Py_None || (PyTuple_Check(out) && PyTuple_Size(out) == length))
        return 0;
    PyErr_Format(PyExc_TypeError, "out: expected a tuple of %zd arrays, got %R", length, (PyObject *)Py_TYPE(out));
    return -1;
}

static PyObject *py_quantize(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    call_state call = {0};
    PyObject *result = NULL;
    if (ndq_check_count("quantize", count, 3) < 0 || !(call.x = ndq_float_array(args[0], "x")) ||
        take_params(&call, module, args[1]) < 0 || take_inputs(&call, args[2] == Py_None) < 0)
        goto exit;
    call.job.codes = call.job.params->codes;
    if (take_output(&call, 0, args[2], "out", ndq_type_of_codes(call.job.codes)) < 0)
        goto exit;
    call.job.q = PyArray_DATA(call.out_work[0]);
    compute(&call.job, ndq_quantize);
    result = give_output(&call, 0, args[2]);
exit:
    clear(&call);
    return result;
}

/* The float type to compute and return: the argument `dtype`, or the scale's if it is None; -1 on error. */
static int output_type(PyObject *dtype, const ndq_params_object *params)
{
    PyArray_Descr *descr = NULL;
    if (dtype == Py_None)
        return params->scale_type;
    if (!PyArray_DescrConverter(dtype, &descr))
        return -1;
    int type = descr->type_num;
    if (!PyTypeNum_ISFLOAT(type)) {
        PyErr_Format(PyExc_TypeError, "dtype: expected a floating-point dtype, got %S", (PyObject *)descr);
        type = -1;
    }
    Py_DECREF((PyObject *)descr);
    return type;
}

/* Takes codes and their Params into a job that dequantizes them to the type `dtype`, None for the scale's; returns that
 * type, or -1. */
static int take_codes(call_state *call, PyObject *module, PyObject *q, PyObject *qparams, PyObject *dtype)
{
    ndq_elementwise *job = &call->job;
    if (!(call->params = ndq_params_of(module, qparams)) ||
        !(call->x = ndq_codes_array(q, "q", call->params->params.codes, &job->codes)))
        return -1;
    job->kernels = ndq_kernels_in_use();
    job->params = &call->params->params;
    job->n = (size_t)PyArray_SIZE(call->x);
    const int type = output_type(dtype, call->params);
    const bool bad = type < 0 || choose_arithmetic(job, type) < 0 ||
                     ndq_geometry_of(call->x, "q", call->params, &job->geometry) < 0;
    return bad ? -1 : type;
}

static PyObject *py_dequantize(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    call_state call = {0};
    PyObject *result = NULL;
    int type;
    if (ndq_check_count("dequantize", count, 4) < 0 ||
        (type = take_codes(&call, module, args[0], args[1], args[2])) < 0 ||
        take_inputs(&call, args[3] == Py_None) < 0 || take_output(&call, 0, args[3], "out", type) < 0)
        goto exit;
    call.job.y = PyArray_DATA(call.out_work[0]);
    compute(&call.job, ndq_dequantize);
    result = give_output(&call, 0, args[3]);
exit:
    clear(&call);
    return result;
}

static PyObject *py_requantize(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    call_state call = {0};
    ndq_params_object *to_params = NULL;
    PyObject *result = NULL;
    int type;
    if (ndq_check_count("requantize", count, 4) < 0 ||
        (type = take_codes(&call, module, args[0], args[1], Py_None)) < 0 || take_contiguous(&call) < 0 ||
        !(to_params = ndq_params_of(module, args[2])))
        goto exit;
    ndq_elementwise to = {.kernels = call.job.kernels, .params = &to_params->params, .n = call.job.n,
                          .codes = to_params->params.codes};
    const int out_type = ndq_type_of_codes(to.codes);
    if (choose_arithmetic(&to, type) < 0 || ndq_geometry_of(call.x, "q", to_params, &to.geometry) < 0 ||
        take_output(&call, 0, args[3], "out", out_type) < 0)
        goto exit;
    to.q = PyArray_DATA(call.out_work[0]);
    Py_BEGIN_ALLOW_THREADS
    ndq_requantize(&call.job, &to, type == NPY_FLOAT);
    Py_END_ALLOW_THREADS
    result = give_output(&call, 0, args[3]);
exit:
    Py_XDECREF((PyObject *)to_params);
    clear(&call);
    return result;
}

static PyObject *py_fake_quantize(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    call_state call = {0};
    PyObject *result = NULL;
    if (ndq_check_count("fake_quantize", count, 3) < 0 || !(call.x = ndq_float_array(args[0], "x")) ||
        take_params(&call, module, args[1]) < 0 || take_inputs(&call, args[2] == Py_None) < 0 ||
        take_output(&call, 0, args[2], "out", PyArray_TYPE(call.x)) < 0)
        goto exit;
    call.job.y = PyArray_DATA(call.out_work[0]);
    compute(&call.job, ndq_fake_quantize);
    result = give_output(&call, 0, args[2]);
exit:
    clear(&call);
    return result;
}

static PyObject *py_fake_quantize_backward(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    call_state call = {0};
    PyObject *result = NULL;
    if (ndq_check_count("fake_quantize_backward", count, 4) < 0 || !(call.dy = ndq_float_array(args[0], "dy")) ||
        !(call.x = ndq_float_array(args[1], "x")) || take_params(&call, module, args[2]) < 0 ||
        take_inputs(&call, args[3] == Py_None) < 0 ||
        take_output(&call, 0, args[3], "out", PyArray_TYPE(call.x)) < 0)
        goto exit;
    call.job.dx = PyArray_DATA(call.out_work[0]);
    compute(&call.job, ndq_fake_quantize_backward);
    result = give_output(&call, 0, args[3]);
exit:
    clear(&call);
    return result;
}

static PyObject *py_fake_quantize_with_grad(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    call_state call = {0};
    PyObject *y = NULL, *dx = NULL, *result = NULL;
    if (ndq_check_count("fake_quantize_with_grad", count, 4) < 0 || check_out_tuple(args[3], 2) < 0 ||
        !(call.x = ndq_float_array(args[0], "x")) || !(call.dy = ndq_float_array(args[1], "dy")) ||
        take_params(&call, module, args[2]) < 0 || take_inputs(&call, args[3] == Py_None) < 0)
        goto exit;
    const int type = PyArray_TYPE(call.x);
    if (take_output(&call, 0, out_item(args[3], 0), "out[0]", type) < 0 ||
        take_output(&call, 1, out_item(args[3], 1), "out[1]", type) < 0 ||
        ndq_check_disjoint(call.out[0], "out[0]", call.out[1], "out[1]") < 0)
        goto exit;
    call.job.y = PyArray_DATA(call.out_work[0]);
    call.job.dx = PyArray_DATA(call.out_work[1]);
    compute(&call.job, ndq_fake_quantize_with_grad);
    y = give_output(&call, 0, out_item(args[3], 0));
    dx = y ? give_output(&call, 1, out_item(args[3], 1)) : NULL;
    result = dx ? PyTuple_Pack(2, y, dx) : NULL;
exit:
    Py_XDECREF(y);
    Py_XDECREF(dx);
    clear(&call);
    return result;
}

/* 1 / sqrt(elements of a channel * qmax), or the number given. */
static double grad_factor_of(PyObject *object, const ndq_elementwise *job)
{
    if (object != Py_None)
        return PyFloat_AsDouble(object);
    const double numel = (double)job->n / (double)(job->params->channels ? job->params->channels : 1);
    const double levels = job->params->qmax > 0 ? (double)job->params->qmax : 1;
    return numel > 0 ? 1.0 / sqrt(numel * levels) : 1.0;
}

/* Outputs of the learnable backward besides dx: one number per channel or group, computed in float64. */
static PyArrayObject *channel_sums(const ndq_params_object *params)
{
    const npy_intp channels = (npy_intp)params->params.channels;
    if (params->groups)
        return (PyArrayObject *)PyArray_SimpleNew(PyArray_NDIM(params->groups), PyArray_DIMS(params->groups), NPY_DOUBLE);
    return (PyArrayObject *)PyArray_SimpleNew(params->per_channel ? 1 : 0, &channels, NPY_DOUBLE);
}

/* A gradient in the dtype of what it belongs to. */
static PyObject *as_scale_type(PyArrayObject *sums, const ndq_params_object *params)
{
    if (params->scale_type == NPY_DOUBLE)
        return PyArray_Return(ndq_retain(sums));
    PyArrayObject *narrow = (PyArrayObject *)PyArray_SimpleNew(PyArray_NDIM(sums), PyArray_DIMS(sums), NPY_FLOAT);
    for (npy_intp c = 0; narrow && c < PyArray_SIZE(sums); c++)
        ((float *)PyArray_DATA(narrow))[c] = (float)((double *)PyArray_DATA(sums))[c];
    return narrow ? PyArray_Return(narrow) : NULL;
}

static PyObject *py_fake_quantize_learnable_backward(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    call_state call = {0};
    PyArrayObject *sums[2] = {NULL, NULL};
    PyObject *dx = NULL, *dscale = NULL, *dzp = NULL, *result = NULL;
    if (ndq_check_count("fake_quantize_learnable_backward", count, 5) < 0 ||
        !(call.dy = ndq_float_array(args[0], "dy")) || !(call.x = ndq_float_array(args[1], "x")) ||
        take_params(&call, module, args[2]) < 0 || take_contiguous(&call) < 0 ||
        take_output(&call, 0, args[4], "out", PyArray_TYPE(call.x)) < 0)
        goto exit;
    const double factor = grad_factor_of(args[3], &call.job);
    if ((factor == -1.0 && PyErr_Occurred()) || !(sums[0] = channel_sums(call.params)) ||
        !(sums[1] = channel_sums(call.params)))
        goto exit;
    call.job.dx = PyArray_DATA(call.out_work[0]);
    ndq_status status;
    Py_BEGIN_ALLOW_THREADS
    status = ndq_fake_quantize_learnable(&call.job, factor, PyArray_DATA(sums[0]), PyArray_DATA(sums[1]));
    Py_END_ALLOW_THREADS
    if (ndq_check_status(status) == 0 && (dx = give_output(&call, 0, args[4])) &&
        (dscale = as_scale_type(sums[0], call.params)) && (dzp = as_scale_type(sums[1], call.params)))
        result = PyTuple_Pack(3, dx, dscale, dzp);
exit:
    Py_XDECREF(dx);
    Py_XDECREF(dscale);
    Py_XDECREF(dzp);
    ndq_release(sums[0]);
    ndq_release(sums[1]);
    clear(&call);
    return result;
}

/* quantization_error(x, qparams): the sums of ndq_errors. */
static PyObject *py_quantization_error(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    call_state call = {0};
    PyObject *result = NULL;
    double sums[NDQ_ERRORS];
    if (ndq_check_count("quantization_error", count, 2) < 0 || !(call.x = ndq_float_array(args[0], "x")) ||
        take_params(&call, module, args[1]) < 0 || take_contiguous(&call) < 0)
        goto exit;
    ndq_status status;
    Py_BEGIN_ALLOW_THREADS
    status = ndq_errors(&call.job, sums);
    Py_END_ALLOW_THREADS
    if (ndq_check_status(status) == 0)
        result = Py_BuildValue("dddd", sums[0], sums[1], sums[2], sums[3]);
exit:
    clear(&call);
    return result;
}

/* square_sums(x, y): the sums of ndq_squares, in float64. */
static PyObject *py_square_sums(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    call_state call = {0};
    PyObject *result = NULL;
    double sums[2];
    if (ndq_check_count("square_sums", count, 2) < 0 || !(call.x = ndq_float_array(args[0], "x")) ||
        !(call.dy = ndq_float_array(args[1], "y")) || ndq_check_same_shape(call.dy, "y", call.x, "x") < 0)
        goto exit;
    const bool narrow = PyArray_TYPE(call.x) == NPY_FLOAT && PyArray_TYPE(call.dy) == NPY_FLOAT;
    const size_t n = (size_t)PyArray_SIZE(call.x);
    call.job = (ndq_elementwise){.kernels = ndq_kernels_in_use(), .arithmetic = narrow ? NDQ_F32 : NDQ_F64, .n = n,
                                 .geometry = {.channels = 1, .inner = n}};
    if (!(call.x_work = ndq_contiguous(call.x, work_type(&call.job))) ||
        !(call.dy_work = ndq_contiguous(call.dy, work_type(&call.job))))
        goto exit;
    call.job.x = PyArray_DATA(call.x_work);
    call.job.y = PyArray_DATA(call.dy_work);
    ndq_status status;
    Py_BEGIN_ALLOW_THREADS
    status = ndq_squares(&call.job, sums);
    Py_END_ALLOW_THREADS
    if (ndq_check_status(status) == 0)
        result = Py_BuildValue("dd", sums[0], sums[1]);
exit:
    clear(&call);
    return result;
}

#define METHOD(name, signature, doc) \
    {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, #name signature "\n--\n\n" doc}

PyMethodDef ndq_elementwise_methods[] = {
    METHOD(quantize, "(x, qparams, out, /)", "Codes of x."),
    METHOD(dequantize, "(q, qparams, dtype, out, /)", "Values that the codes q stand for."),
    METHOD(requantize, "(q, from_qparams, to_qparams, out, /)", "Codes of the values that the codes q stand for."),
    METHOD(fake_quantize, "(x, qparams, out, /)", "x rounded to what its codes stand for."),
    METHOD(fake_quantize_backward, "(dy, x, qparams, out, /)", "The straight-through gradient."),
    METHOD(fake_quantize_with_grad, "(x, dy, qparams, out, /)", "fake_quantize and its gradient in one pass."),
    METHOD(fake_quantize_learnable_backward, "(dy, x, qparams, grad_factor, out, /)",
           "Gradients with respect to x, scale and zero point."),
    METHOD(quantization_error, "(x, qparams, /)",
           "Squared errors outside and inside the range, the sum of squares, and how many values are outside."),
    METHOD(square_sums, "(x, y, /)", "Sums of (x - y)^2 and of x^2."),
    {NULL, NULL, 0, NULL},
};
