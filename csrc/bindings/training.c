/* What quantization-aware training does with every edge and every weight at every step, each in one call: the kernels of
 * the functions that do these things apart, in the same order, so that both give the same bits. float32 only. */
#include "module.h"
#include "range.h"
#include "../kernels/reduce.h"

#include <math.h>

/* An array on its way from floats to codes. */
typedef struct {
    PyArrayObject *x, *scale, *zero_point, *codes;
    PyObject *params;
    ndq_elementwise job;
    ndq_grid grid;
    ndq_extremes *extremes; /* one per channel */
    float *low, *high;      /* the same, in the type of the data */
} edge;

static void clear(edge *e)
{
    ndq_release(e->x);
    ndq_release(e->scale);
    ndq_release(e->zero_point);
    ndq_release(e->codes);
    Py_XDECREF(e->params);
    ndq_free(e->extremes);
    ndq_free(e->low);
}

/* Takes `object` with `channels` equal parts in C order, 0 for as many as its first axis has. */
static int take(edge *e, PyObject *object, const char *name, size_t channels)
{
    PyArrayObject *given = ndq_float_array(object, name);
    if (!given)
        return -1;
    if (PyArray_TYPE(given) != NPY_FLOAT)
        PyErr_Format(PyExc_TypeError, "%s: expected float32, got %R", name, (PyObject *)PyArray_DESCR(given));
    else if (!PyArray_SIZE(given) || PyArray_NDIM(given) < 1)
        PyErr_Format(PyExc_ValueError, "%s: is empty or has no axis", name);
    else
        e->x = ndq_contiguous(given, NPY_FLOAT);
    ndq_release(given);
    if (!e->x)
        return -1;
    const size_t n = (size_t)PyArray_SIZE(e->x);
    channels = channels ? channels : (size_t)PyArray_DIM(e->x, 0);
    e->job = (ndq_elementwise){.kernels = ndq_kernels_in_use(), .arithmetic = NDQ_F32, .n = n,
                               .geometry = {.channels = channels, .inner = n / channels},
                               .x = PyArray_DATA(e->x)};
    e->extremes = ndq_alloc(channels * sizeof(*e->extremes));
    e->low = ndq_alloc(2 * channels * sizeof(*e->low));
    e->high = e->low + channels;
    return ndq_check_status(e->extremes && e->low ? NDQ_OK : NDQ_NO_MEMORY);
}

static int find_extremes(edge *e, const char *name)
{
    ndq_status status;
    Py_BEGIN_ALLOW_THREADS
    status = ndq_minmax(&e->job, e->extremes);
    Py_END_ALLOW_THREADS
    size_t nans = 0, infs = 0;
    for (size_t c = 0; c < e->job.geometry.channels; c++) {
        nans += e->extremes[c].nans;
        infs += e->extremes[c].infs;
        e->low[c] = (float)e->extremes[c].min;
        e->high[c] = (float)e->extremes[c].max;
    }
    if (ndq_check_status(status) < 0)
        return -1;
    if (!nans && !infs)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: has %zu NaN and %zu infinite of %zu values", name, nans, infs, e->job.n);
    return -1;
}

/* Scale and zero point of low and high. */
static int choose(edge *e, bool per_channel)
{
    const size_t channels = e->job.geometry.channels;
    const npy_intp shape = (npy_intp)channels;
    e->scale = (PyArrayObject *)PyArray_SimpleNew(per_channel, &shape, NPY_FLOAT);
    e->zero_point = (PyArrayObject *)PyArray_SimpleNew(per_channel, &shape, NPY_INT32);
    int64_t *zero = ndq_alloc(channels * sizeof(*zero));
    if (e->scale && e->zero_point && ndq_check_status(zero ? NDQ_OK : NDQ_NO_MEMORY) == 0) {
        ndq_scale_zero_point_f32(&e->grid, channels, e->low, e->high, PyArray_DATA(e->scale), zero);
        for (size_t c = 0; c < channels; c++)
            ((int32_t *)PyArray_DATA(e->zero_point))[c] = (int32_t)zero[c];
    }
    ndq_free(zero);
    return zero && e->scale && e->zero_point ? 0 : -1;
}

/* The coefficients of scale and zero point, which are final now. */
static int make_params(edge *e, PyObject *module, bool per_channel)
{
    const size_t channels = e->job.geometry.channels;
    double *values = ndq_alloc(2 * channels * sizeof(*values));
    if (ndq_check_status(values ? NDQ_OK : NDQ_NO_MEMORY) < 0)
        return -1;
    bool finite = true;
    for (size_t c = 0; c < channels; c++) {
        values[c] = ((float *)PyArray_DATA(e->scale))[c];
        values[channels + c] = ((int32_t *)PyArray_DATA(e->zero_point))[c];
        finite &= values[c] < HUGE_VALF;
    }
    if (!finite)
        PyErr_SetString(PyExc_ValueError, "scale: passes the range of float32");
    else
        e->params = ndq_params_make(ndq_state_of(module)->params_type,
                                    &(ndq_params_source){.channels = channels,
                                                         .scale = values,
                                                         .zero_point = values + channels,
                                                         .qmin = e->grid.qmin,
                                                         .qmax = e->grid.qmax,
                                                         .rule = NDQ_MULTIPLY,
                                                         .per_channel = per_channel,
                                                         .scale_type = NPY_FLOAT});
    ndq_free(values);
    PyArray_CLEARFLAGS(e->scale, NPY_ARRAY_WRITEABLE);
    PyArray_CLEARFLAGS(e->zero_point, NPY_ARRAY_WRITEABLE);
    return e->params ? 0 : -1;
}

static int quantize(edge *e)
{
    const int type = e->grid.qmin < 0 ? NPY_BYTE : NPY_UBYTE;
    e->codes = (PyArrayObject *)PyArray_SimpleNew(PyArray_NDIM(e->x), PyArray_DIMS(e->x), type);
    if (!e->codes)
        return -1;
    e->job.params = &((ndq_params_object *)e->params)->params;
    e->job.q = PyArray_DATA(e->codes);
    Py_BEGIN_ALLOW_THREADS
    ndq_quantize(&e->job);
    Py_END_ALLOW_THREADS
    return 0;
}

/* The grid in the last arguments of both functions; the textbook rule rounds in another way than these. */
static int check_grid(const ndq_grid *grid)
{
    if (ndq_check_grid(grid) < 0)
        return -1;
    if (grid->rule != NDQ_RANGE_TEXTBOOK && grid->qmin >= -128 && grid->qmax <= (grid->qmin < 0 ? 127 : 255))
        return 0;
    PyErr_SetString(PyExc_ValueError, "rule, qmin, qmax: must be of a profile that multiplies, and codes of 8 bits");
    return -1;
}

/* Moves a running average, if there is one, by `weight` of its distance from what was seen. */
static int average(PyObject *running, double weight, float *value)
{
    if (running == Py_None)
        return 0;
    const double before = PyFloat_AsDouble(running);
    if (before == -1 && PyErr_Occurred())
        return -1;
    *value = (float)before + (float)weight * (*value - (float)before);
    return 0;
}

/* observe_quantize(x, low, high, weight, qmin, qmax, bits, symmetric, rule) */
static PyObject *py_observe_quantize(PyObject *module, PyObject *args)
{
    edge e = {0};
    PyObject *x, *low, *high, *result = NULL;
    double weight;
    int symmetric, rule;
    if (!PyArg_ParseTuple(args, "OOOdiiipi:observe_quantize", &x, &low, &high, &weight, &e.grid.qmin, &e.grid.qmax,
                          &e.grid.bits, &symmetric, &rule))
        return NULL;
    e.grid.symmetric = symmetric;
    e.grid.rule = (ndq_range_rule)rule;
    if (check_grid(&e.grid) < 0 || take(&e, x, "x", 1) < 0 || find_extremes(&e, "x") < 0)
        goto exit;
    const float seen_low = *e.low, seen_high = *e.high;
    if (average(low, weight, e.low) < 0 || average(high, weight, e.high) < 0 || choose(&e, false) < 0 ||
        make_params(&e, module, false) < 0 || quantize(&e) < 0)
        goto exit;
    result = Py_BuildValue("ffffNNOO", seen_low, seen_high, *e.low, *e.high, PyArray_Return(ndq_retain(e.scale)),
                           PyArray_Return(ndq_retain(e.zero_point)), e.params, (PyObject *)e.codes);
exit:
    clear(&e);
    return result;
}

/* Raises scales that are too small for their bias; int32 codes of the bias, or NULL without an exception for None. */
static int take_bias(edge *e, PyObject *object, double x_scale, PyArrayObject **codes)
{
    PyArrayObject *bias = ndq_bias_values(object);
    int result = -1;
    if (!bias)
        return -1;
    const npy_intp outputs = PyArray_DIM(e->x, 0);
    if (object != Py_None && ndq_check_shape(bias, "bias", 1, &outputs) < 0)
        goto exit;
    if (!(x_scale > 0 && x_scale < HUGE_VAL)) {
        PyErr_SetString(PyExc_ValueError, "x_scale: must be positive and finite");
        goto exit;
    }
    *codes = (PyArrayObject *)PyArray_SimpleNew(1, PyArray_DIMS(bias), NPY_INT32);
    if (!*codes)
        goto exit;
    const ndq_bias job = {.x_scale = x_scale, .scales = e->job.geometry.channels,
                          .biases = (size_t)PyArray_SIZE(bias), .bias = PyArray_DATA(bias), .codes = PyArray_DATA(*codes)};
    ndq_quantize_bias_f32(&job, PyArray_DATA(e->scale), PyArray_DATA(e->scale));
    if (object == Py_None) {
        ndq_release(*codes);
        *codes = NULL;
    }
    result = 0;
exit:
    ndq_release(bias);
    return result;
}

/* quantize_weight(w, bias, x_scale, qmin, qmax, bits, symmetric, rule, per_channel) */
static PyObject *py_quantize_weight(PyObject *module, PyObject *args)
{
    edge e = {0};
    PyObject *w, *bias_arg, *packed = NULL, *result = NULL;
    PyArrayObject *bias = NULL;
    double x_scale;
    int symmetric, rule, per_channel;
    if (!PyArg_ParseTuple(args, "OOdiiipip:quantize_weight", &w, &bias_arg, &x_scale, &e.grid.qmin, &e.grid.qmax,
                          &e.grid.bits, &symmetric, &rule, &per_channel))
        return NULL;
    e.grid.symmetric = symmetric;
    e.grid.rule = (ndq_range_rule)rule;
    if (check_grid(&e.grid) < 0 || take(&e, w, "w", per_channel ? 0 : 1) < 0 || ndq_check_ndim(e.x, "w", 2) < 0 ||
        find_extremes(&e, "w") < 0 || choose(&e, per_channel) < 0 || take_bias(&e, bias_arg, x_scale, &bias) < 0 ||
        make_params(&e, module, per_channel) < 0 || quantize(&e) < 0)
        goto exit;
    packed = ndq_pack_weights(module, e.codes, (ndq_params_object *)e.params, bias);
    if (packed)
        result = Py_BuildValue("ONNOOO", (PyObject *)e.codes, PyArray_Return(ndq_retain(e.scale)),
                               PyArray_Return(ndq_retain(e.zero_point)), e.params,
                               bias ? (PyObject *)bias : Py_None, packed);
exit:
    Py_XDECREF(packed);
    ndq_release(bias);
    clear(&e);
    return result;
}

PyMethodDef ndq_training_methods[] = {
    {"observe_quantize", py_observe_quantize, METH_VARARGS,
     "observe_quantize(x, low, high, weight, qmin, qmax, bits, symmetric, rule, /)\n--\n\n"
     "Extremes of x, their running average, its scale, zero point and Params, and the codes of x."},
    {"quantize_weight", py_quantize_weight, METH_VARARGS,
     "quantize_weight(w, bias, x_scale, qmin, qmax, bits, symmetric, rule, per_channel, /)\n--\n\n"
     "Codes of a weight by its extremes, scale, zero point, Params, codes of the bias, and all of it packed."},
    {NULL, NULL, 0, NULL},
};
