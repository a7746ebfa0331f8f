/* quantize, fake_quantize and their gradients, dequantize: arrays in, kernels called, arrays out. */
#include "args.h"
#include "module.h"

/* One call, from arguments to results. Everything is released by clear(). */
typedef struct {
    PyArrayObject *x, *dy;           /* as given */
    PyArrayObject *x_work, *dy_work; /* as the kernels want them */
    PyArrayObject *out[2];           /* as the caller wants them */
    PyArrayObject *out_work[2];      /* as the kernels write them: the same unless a type must be cast */
    ndq_elementwise job;
} call_state;

static void clear(call_state *call)
{
    ndq_release(call->x);
    ndq_release(call->dy);
    ndq_release(call->x_work);
    ndq_release(call->dy_work);
    for (int i = 0; i < 2; i++) {
        ndq_release(call->out[i]);
        ndq_release(call->out_work[i]);
    }
}

/* The type that computes: float16 goes through float32, long double through float64. */
static int work_type(const ndq_elementwise *job)
{
    return job->arithmetic == NDQ_F32 ? NPY_FLOAT : NPY_DOUBLE;
}

static int choose_arithmetic(ndq_elementwise *job, int type)
{
    const bool narrow = type == NPY_FLOAT || type == NPY_HALF;
    job->arithmetic = job->params->rule == NDQ_TEXTBOOK_RULE ? NDQ_TEXTBOOK_F64 : narrow ? NDQ_F32 : NDQ_F64;
    if (job->arithmetic != NDQ_F32 || job->params->fits_f32)
        return 0;
    PyErr_SetString(PyExc_ValueError, "qparams: a scale is outside the range of float32, in which this is computed");
    return -1;
}

/* Inputs as the kernels want them. x must be set; dy may be NULL. */
static int take_inputs(call_state *call, PyObject *module, PyObject *params_arg)
{
    ndq_params_object *params = ndq_as_params(module, params_arg);
    if (!params)
        return -1;
    ndq_elementwise *job = &call->job;
    job->kernels = ndq_kernels_in_use();
    job->params = &params->params;
    job->n = (size_t)PyArray_SIZE(call->x);
    if (choose_arithmetic(job, PyArray_TYPE(call->x)) < 0 ||
        ndq_geometry_of(call->x, "x", params, &job->geometry) < 0 ||
        (call->dy && ndq_check_same_shape(call->dy, "dy", call->x, "x") < 0))
        return -1;
    call->x_work = ndq_contiguous(call->x, work_type(job));
    if (!call->x_work)
        return -1;
    job->x = PyArray_DATA(call->x_work);
    if (!call->dy)
        return 0;
    call->dy_work = ndq_contiguous(call->dy, work_type(job));
    if (!call->dy_work)
        return -1;
    job->dy = PyArray_DATA(call->dy_work);
    return 0;
}

/* Output number i with the dtype `type`, which the kernel fills as `work`. */
static int take_output(call_state *call, int i, PyObject *out, const char *name, int type, int work)
{
    PyArrayObject *array = ndq_output(out, name, PyArray_NDIM(call->x), PyArray_DIMS(call->x), type);
    call->out[i] = array;
    if (!array || ndq_check_overlap(array, name, call->x, "x") < 0 ||
        (call->dy && ndq_check_overlap(array, name, call->dy, "dy") < 0))
        return -1;
    if (type == work) {
        call->out_work[i] = ndq_retain(array);
        return 0;
    }
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

static PyObject *py_quantize(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    call_state call = {0};
    PyObject *result = NULL;
    if (ndq_check_count("quantize", count, 3) < 0 || !(call.x = ndq_float_array(args[0], "x")) ||
        take_inputs(&call, module, args[1]) < 0)
        goto exit;
    const int type = call.job.params->qmin < 0 ? NPY_BYTE : NPY_UBYTE;
    if (take_output(&call, 0, args[2], "out", type, type) < 0)
        goto exit;
    call.job.q = PyArray_DATA(call.out_work[0]);
    compute(&call.job, ndq_quantize);
    result = give_output(&call, 0, args[2]);
exit:
    clear(&call);
    return result;
}

#define METHOD(name, signature, doc) \
    {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, #name signature "\n--\n\n" doc}

PyMethodDef ndq_elementwise_methods[] = {
    METHOD(quantize, "(x, params, out, /)", "Codes of x."),
    {NULL, NULL, 0, NULL},
};
