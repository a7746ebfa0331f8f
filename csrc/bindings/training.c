/* What quantization-aware training does with every edge and every weight at every step, each in one call: the kernels of
 * the functions that do these things apart, in the same order, so that both give the same bits. float32 only. */
#include "module.h"
#include "range.h"
#include "../kernels/gemm.h"
#include "../kernels/reduce.h"

#include <math.h>

/* An array on its way from floats to codes. */
typedef struct {
    PyArrayObject *x, *scale, *zero_point, *codes;
    PyObject *params;
    ndq_elementwise job;
    ndq_grid grid;
    bool per_channel;
    ndq_extremes *extremes; /* one per channel */
    float low, high;        /* of the whole array, in the type of the data */
} edge;

static void clear(edge *e)
{
    ndq_release(e->x);
    ndq_release(e->scale);
    ndq_release(e->zero_point);
    ndq_release(e->codes);
    Py_XDECREF(e->params);
    ndq_free(e->extremes);
}

/* Takes `object`: one channel for each element of its first axis, or one for all of it. */
static int take(edge *e, PyObject *object, const char *name)
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
    const size_t channels = e->per_channel ? (size_t)PyArray_DIM(e->x, 0) : 1;
    e->job = (ndq_elementwise){.kernels = ndq_kernels_in_use(), .arithmetic = NDQ_F32, .n = n,
                               .geometry = {.channels = channels, .inner = n / channels},
                               .x = PyArray_DATA(e->x)};
    e->extremes = ndq_alloc(channels * sizeof(*e->extremes));
    return ndq_check_status(e->extremes ? NDQ_OK : NDQ_NO_MEMORY);
}

/* Room for codes and for scales, zero points and coefficients, still to be set. */
static int allocate(edge *e, PyObject *module)
{
    const size_t channels = e->job.geometry.channels;
    const npy_intp shape = (npy_intp)channels;
    const int type = e->grid.qmin < 0 ? NPY_BYTE : NPY_UBYTE;
    e->scale = (PyArrayObject *)PyArray_SimpleNew(e->per_channel, &shape, NPY_FLOAT);
    e->zero_point = (PyArrayObject *)PyArray_SimpleNew(e->per_channel, &shape, NPY_INT32);
    e->codes = (PyArrayObject *)PyArray_SimpleNew(PyArray_NDIM(e->x), PyArray_DIMS(e->x), type);
    e->params = ndq_params_make(ndq_state_of(module)->params_type, &(ndq_params_source){.channels = channels,
                                                                                       .qmin = e->grid.qmin,
                                                                                       .qmax = e->grid.qmax,
                                                                                       .rule = NDQ_MULTIPLY,
                                                                                       .per_channel = e->per_channel,
                                                                                       .scale_type = NPY_FLOAT});
    if (!e->scale || !e->zero_point || !e->codes || !e->params)
        return -1;
    e->job.params = &((ndq_params_object *)e->params)->params;
    e->job.q = PyArray_DATA(e->codes);
    return 0;
}

static int find_extremes(edge *e)
{
    ndq_status status;
    Py_BEGIN_ALLOW_THREADS
    status = ndq_minmax(&e->job, e->extremes);
    Py_END_ALLOW_THREADS
    e->low = (float)e->extremes->min;
    e->high = (float)e->extremes->max;
    return ndq_check_status(status);
}

static int check_finite(const edge *e, const char *name)
{
    size_t nans = 0, infs = 0;
    for (size_t c = 0; c < e->job.geometry.channels; c++) {
        nans += e->extremes[c].nans;
        infs += e->extremes[c].infs;
    }
    if (!nans && !infs)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: has %zu NaN and %zu infinite of %zu values", name, nans, infs, e->job.n);
    return -1;
}

enum { RANGES = 16 }; /* set at once */

/* Scales, raised for `bias` unless that is NULL, zero points and coefficients of channels [first, first + count). */
static void set_channels(edge *e, size_t first, size_t count, const float *low, const float *high, const ndq_bias *bias)
{
    assert(count <= RANGES);
    float *scale = (float *)PyArray_DATA(e->scale) + first;
    int32_t *zero_point = (int32_t *)PyArray_DATA(e->zero_point) + first;
    int64_t zero[RANGES];
    double scales[RANGES], zeros[RANGES];
    ndq_scale_zero_point_f32(&e->grid, count, low, high, scale, zero);
    if (bias)
        ndq_quantize_bias_f32(bias, scale, scale);
    for (size_t c = 0; c < count; c++) {
        zero_point[c] = (int32_t)zero[c];
        zeros[c] = (double)zero[c];
        scales[c] = scale[c];
    }
    ndq_params_set(&((ndq_params_object *)e->params)->params, first, count, scales, zeros);
}

/* Scales are final now. Finite ones are of normal size, so they fit. */
static int check_scales(edge *e)
{
    bool finite = true;
    for (size_t c = 0; c < e->job.geometry.channels; c++)
        finite &= ((float *)PyArray_DATA(e->scale))[c] < HUGE_VALF;
    PyArray_CLEARFLAGS(e->scale, NPY_ARRAY_WRITEABLE);
    PyArray_CLEARFLAGS(e->zero_point, NPY_ARRAY_WRITEABLE);
    if (!finite)
        PyErr_SetString(PyExc_ValueError, "scale: passes the range of float32");
    return finite ? 0 : -1;
}

/* The grid in the last arguments of both functions; the other rules round in another way than these. */
static int check_grid(const ndq_grid *grid)
{
    if (ndq_check_grid(grid) < 0)
        return -1;
    const bool multiplies = grid->rule == NDQ_RANGE_DEFAULT || grid->rule == NDQ_RANGE_TORCH;
    if (multiplies && grid->qmin >= -128 && grid->qmax <= (grid->qmin < 0 ? 127 : 255))
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
    if (!PyArg_ParseTuple(args, "OOOdLLipi:observe_quantize", &x, &low, &high, &weight, &e.grid.qmin, &e.grid.qmax,
                          &e.grid.bits, &symmetric, &rule))
        return NULL;
    e.grid.symmetric = symmetric;
    e.grid.rule = (ndq_range_rule)rule;
    if (check_grid(&e.grid) < 0 || take(&e, x, "x") < 0 || find_extremes(&e) < 0 || check_finite(&e, "x") < 0)
        goto exit;
    const float seen_low = e.low, seen_high = e.high;
    if (average(low, weight, &e.low) < 0 || average(high, weight, &e.high) < 0 || allocate(&e, module) < 0)
        goto exit;
    set_channels(&e, 0, 1, &e.low, &e.high, NULL);
    if (check_scales(&e) < 0)
        goto exit;
    Py_BEGIN_ALLOW_THREADS
    ndq_quantize(&e.job);
    Py_END_ALLOW_THREADS
    result = Py_BuildValue("ffffNNOO", seen_low, seen_high, e.low, e.high, PyArray_Return(ndq_retain(e.scale)),
                           PyArray_Return(ndq_retain(e.zero_point)), e.params, (PyObject *)e.codes);
exit:
    clear(&e);
    return result;
}

/* A weight (N, K) with its bias, on its way to packed codes. */
typedef struct {
    edge e;
    size_t K;
    ndq_bias bias;
    PyArrayObject *values, *codes; /* of the bias */
    const int32_t *zero_points;    /* one for each row, as chosen or in `repeated` */
    int32_t *repeated;
} weight;

static void clear_weight(weight *w)
{
    clear(&w->e);
    ndq_release(w->values);
    ndq_release(w->codes);
    ndq_free(w->repeated);
}

static int take_bias(weight *w, PyObject *object, double x_scale)
{
    const npy_intp outputs = PyArray_DIM(w->e.x, 0);
    if (!(w->values = ndq_bias_values(object)) ||
        (object != Py_None && ndq_check_shape(w->values, "bias", 1, &outputs) < 0))
        return -1;
    if (!(x_scale > 0 && x_scale < HUGE_VAL)) {
        PyErr_SetString(PyExc_ValueError, "x_scale: must be positive and finite");
        return -1;
    }
    if (!(w->codes = (PyArrayObject *)PyArray_SimpleNew(1, PyArray_DIMS(w->values), NPY_INT32)))
        return -1;
    w->bias = (ndq_bias){.x_scale = x_scale, .scales = 1, .biases = (size_t)PyArray_SIZE(w->values),
                         .bias = PyArray_DATA(w->values), .codes = PyArray_DATA(w->codes)};
    return 0;
}

/* A zero point for each row; those of channels are chosen row by row. */
static int take_zero_points(weight *w)
{
    const int32_t *chosen = PyArray_DATA(w->e.zero_point);
    const size_t outputs = (size_t)PyArray_DIM(w->e.x, 0);
    w->zero_points = chosen;
    if (w->e.per_channel)
        return 0;
    w->zero_points = w->repeated = ndq_alloc(outputs * sizeof(*w->repeated));
    for (size_t n = 0; w->repeated && n < outputs; n++)
        w->repeated[n] = *chosen;
    return ndq_check_status(w->repeated ? NDQ_OK : NDQ_NO_MEMORY);
}

/* Ranges, scales and biases of some rows. */
static void set_rows(weight *w, size_t first, size_t count)
{
    float low[RANGES], high[RANGES];
    for (size_t i = 0; i < count; i++) {
        ndq_extremes *seen = &w->e.extremes[first + i];
        *seen = (ndq_extremes){.min = HUGE_VAL, .max = -HUGE_VAL};
        w->e.job.kernels->minmax_f32(w->K, (const float *)w->e.job.x + (first + i) * w->K, seen);
        low[i] = (float)(seen->min + 0.0);
        high[i] = (float)(seen->max + 0.0);
    }
    ndq_bias bias = w->bias;
    bias.scales = count;
    if (bias.biases) {
        bias.biases = count;
        bias.bias += first;
        bias.codes += first;
    }
    set_channels(&w->e, first, count, low, high, &bias);
}

enum { AT_ONCE_BYTES = 16 * 1024 }; /* rows that stay in the L1 cache between the two passes over them */

/* All that happens to rows before they are packed. */
static void make_rows(void *ctx, size_t first, size_t count)
{
    weight *w = ctx;
    const ndq_elementwise *job = &w->e.job;
    const size_t in_cache = AT_ONCE_BYTES / (w->K * sizeof(float) + 1), step = ndq_min_size(in_cache ? in_cache : 1, RANGES);
    for (size_t row = first, rows; row < first + count; row += rows) {
        rows = ndq_min_size(step, first + count - row);
        if (w->e.per_channel)
            set_rows(w, row, rows);
        const size_t begin = row * w->K;
        job->kernels->quantize_f32(&job->params->f32, &job->geometry, begin, rows * w->K, (const float *)job->x + begin,
                                   (uint8_t *)job->q + begin);
    }
}

/* No code of the grid is further from its zero point. */
static int32_t largest_code(const ndq_grid *grid)
{
    const int qmin = (int)grid->qmin, qmax = (int)grid->qmax, zero = qmin < 0 ? 0 : 1 << (grid->bits - 1);
    return !grid->symmetric ? qmax - qmin : qmax - zero > zero - qmin ? qmax - zero : zero - qmin;
}

static ndq_packed *pack(weight *w)
{
    const ndq_weights weights = {.N = (size_t)PyArray_DIM(w->e.x, 0), .K = w->K, .runs = 1, .codes = w->e.job.q,
                                 .stride_n = (ptrdiff_t)w->K, .stride_k = 1, .is_signed = w->e.grid.qmin < 0,
                                 .zero_point = w->zero_points, .largest = largest_code(&w->e.grid),
                                 .make_rows = make_rows, .ctx = w};
    ndq_packed *packed;
    if (w->e.job.n < NDQ_GIL_FROM)
        return ndq_gemm_pack(w->e.job.kernels->gemm, &weights, false);
    Py_BEGIN_ALLOW_THREADS
    packed = ndq_gemm_pack(w->e.job.kernels->gemm, &weights, false);
    Py_END_ALLOW_THREADS
    return packed;
}

/* quantize_weight(w, bias, x_scale, qmin, qmax, bits, symmetric, rule, per_channel) */
static PyObject *py_quantize_weight(PyObject *module, PyObject *args)
{
    weight w = {0};
    edge *e = &w.e;
    PyObject *w_arg, *bias, *packed = NULL, *result = NULL;
    double x_scale;
    int symmetric, rule, per_channel;
    if (!PyArg_ParseTuple(args, "OOdLLipip:quantize_weight", &w_arg, &bias, &x_scale, &e->grid.qmin, &e->grid.qmax,
                          &e->grid.bits, &symmetric, &rule, &per_channel))
        return NULL;
    e->grid.symmetric = symmetric;
    e->grid.rule = (ndq_range_rule)rule;
    e->per_channel = per_channel;
    if (check_grid(&e->grid) < 0 || take(e, w_arg, "w") < 0 || ndq_check_ndim(e->x, "w", 2) < 0 ||
        take_bias(&w, bias, x_scale) < 0 || allocate(e, module) < 0 || (!per_channel && find_extremes(e) < 0))
        goto exit;
    w.K = (size_t)PyArray_DIM(e->x, 1);
    if (!per_channel)
        set_channels(e, 0, 1, &e->low, &e->high, &w.bias);
    if (take_zero_points(&w) < 0)
        goto exit;
    ndq_packed *matrix = pack(&w);
    PyArrayObject *bias_codes = bias == Py_None ? NULL : w.codes;
    if (!matrix || check_finite(e, "w") < 0 || check_scales(e) < 0)
        ndq_gemm_free(matrix);
    else
        packed = ndq_packed_object(module, matrix, (ndq_params_object *)e->params, bias_codes);
    if (packed)
        result = Py_BuildValue("ONNOOO", (PyObject *)e->codes, PyArray_Return(ndq_retain(e->scale)),
                               PyArray_Return(ndq_retain(e->zero_point)), e->params,
                               bias_codes ? (PyObject *)bias_codes : Py_None, packed);
    else if (!matrix)
        PyErr_NoMemory();
exit:
    Py_XDECREF(packed);
    clear_weight(&w);
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
