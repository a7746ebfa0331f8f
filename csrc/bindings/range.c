/* scale_zero_point: a range, or one per channel, to scale and zero point. */
#include "args.h"
#include "module.h"
#include "range.h"

#include <math.h>

/* A float32 or float64 array of ranges, contiguous. */
static PyArrayObject *range_end(PyObject *object, const char *name)
{
    PyArrayObject *given = ndq_float_array(object, name);
    if (!given)
        return NULL;
    PyArrayObject *end = ndq_contiguous(given, PyArray_TYPE(given) == NPY_FLOAT ? NPY_FLOAT : NPY_DOUBLE);
    ndq_release(given);
    return end;
}

int ndq_check_grid(const ndq_grid *grid)
{
    const bool codes = grid->bits >= 1 && grid->bits <= 32 && grid->qmin < grid->qmax && grid->qmin >= INT32_MIN &&
                       grid->qmax <= UINT32_MAX;
    if (codes && (int)grid->rule >= 0 && grid->rule < NDQ_RANGE_RULES && !(grid->symmetric && grid->bits == 1))
        return 0;
    PyErr_Format(PyExc_ValueError, "codes %lld..%lld of %d bits (rule %d) are not supported", grid->qmin, grid->qmax,
                 grid->bits, (int)grid->rule);
    return -1;
}

static PyObject *py_scale_zero_point(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *low_arg, *high_arg, *result = NULL;
    PyArrayObject *low = NULL, *high = NULL, *scale = NULL, *zero = NULL;
    ndq_grid grid;
    int symmetric, rule;
    if (!PyArg_ParseTuple(args, "OOLLipi:scale_zero_point", &low_arg, &high_arg, &grid.qmin, &grid.qmax, &grid.bits,
                          &symmetric, &rule))
        return NULL;
    grid.symmetric = symmetric;
    grid.rule = (ndq_range_rule)rule;
    if (ndq_check_grid(&grid) < 0 || !(low = range_end(low_arg, "low")) || !(high = range_end(high_arg, "high")) ||
        ndq_check_same_shape(high, "high", low, "low") < 0)
        goto exit;
    const int type = PyArray_TYPE(low);
    if (PyArray_TYPE(high) != type) {
        PyErr_SetString(PyExc_TypeError, "low, high: must have one dtype");
        goto exit;
    }
    scale = (PyArrayObject *)PyArray_SimpleNew(PyArray_NDIM(low), PyArray_DIMS(low), type);
    zero = (PyArrayObject *)PyArray_SimpleNew(PyArray_NDIM(low), PyArray_DIMS(low), NPY_INT64);
    if (!scale || !zero)
        goto exit;
    const size_t n = (size_t)PyArray_SIZE(low);
    if (type == NPY_FLOAT)
        ndq_scale_zero_point_f32(&grid, n, PyArray_DATA(low), PyArray_DATA(high), PyArray_DATA(scale), PyArray_DATA(zero));
    else
        ndq_scale_zero_point_f64(&grid, n, PyArray_DATA(low), PyArray_DATA(high), PyArray_DATA(scale), PyArray_DATA(zero));
    result = PyTuple_Pack(2, (PyObject *)scale, (PyObject *)zero);
exit:
    ndq_release(low);
    ndq_release(high);
    ndq_release(scale);
    ndq_release(zero);
    return result;
}

static int check_biases(PyArrayObject *bias)
{
    const double *b = PyArray_DATA(bias);
    for (npy_intp i = 0; i < PyArray_SIZE(bias); i++)
        if (!isfinite(b[i])) {
            PyErr_Format(PyExc_ValueError, "bias: element %zd is not finite", (Py_ssize_t)i);
            return -1;
        }
    return 0;
}

/* A bias of shape (N,) as float64, or, for None, no elements. */
PyArrayObject *ndq_bias_values(PyObject *object)
{
    npy_intp none = 0;
    if (object == Py_None)
        return (PyArrayObject *)PyArray_SimpleNew(1, &none, NPY_DOUBLE);
    PyArrayObject *given = ndq_float_array(object, "bias");
    if (!given)
        return NULL;
    PyArrayObject *bias = ndq_contiguous(given, NPY_DOUBLE);
    ndq_release(given);
    if (bias && ndq_check_ndim(bias, "bias", 1) == 0 && check_biases(bias) == 0)
        return bias;
    ndq_release(bias);
    return NULL;
}

/* Scales must be positive: codes would not be numbers otherwise. */
static int check_scales(double x_scale, PyArrayObject *w_scale)
{
    bool good = x_scale > 0 && isfinite(x_scale);
    for (npy_intp i = 0; i < PyArray_SIZE(w_scale); i++) {
        const double s = PyArray_TYPE(w_scale) == NPY_FLOAT ? (double)((float *)PyArray_DATA(w_scale))[i]
                                                            : ((double *)PyArray_DATA(w_scale))[i];
        good &= s > 0 && isfinite(s);
    }
    if (!good)
        PyErr_SetString(PyExc_ValueError, "x_scale, w_scale: must be positive and finite");
    return good ? 0 : -1;
}

static PyObject *py_quantize_bias(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *bias_arg, *scale_arg, *result = NULL;
    PyArrayObject *bias = NULL, *scale = NULL, *raised = NULL, *codes = NULL;
    ndq_bias job = {0};
    if (!PyArg_ParseTuple(args, "OdO:quantize_bias", &bias_arg, &job.x_scale, &scale_arg))
        return NULL;
    if (!(bias = ndq_bias_values(bias_arg)) || !(scale = range_end(scale_arg, "w_scale")) ||
        check_scales(job.x_scale, scale) < 0)
        goto exit;
    job.bias = PyArray_DATA(bias);
    job.biases = (size_t)PyArray_SIZE(bias);
    job.scales = (size_t)PyArray_SIZE(scale);
    if (PyArray_NDIM(scale) && job.biases && job.scales != job.biases) {
        PyErr_Format(PyExc_ValueError, "bias: must have one element for each of %zu scales, got %zu", job.scales,
                     job.biases);
        goto exit;
    }
    codes = (PyArrayObject *)PyArray_SimpleNew(1, PyArray_DIMS(bias), NPY_INT32);
    raised = (PyArrayObject *)PyArray_SimpleNew(PyArray_NDIM(scale), PyArray_DIMS(scale), PyArray_TYPE(scale));
    if (!codes || !raised)
        goto exit;
    job.codes = PyArray_DATA(codes);
    const bool any = PyArray_TYPE(scale) == NPY_FLOAT
                         ? ndq_quantize_bias_f32(&job, PyArray_DATA(scale), PyArray_DATA(raised))
                         : ndq_quantize_bias_f64(&job, PyArray_DATA(scale), PyArray_DATA(raised));
    result = PyTuple_Pack(2, bias_arg == Py_None ? Py_None : (PyObject *)codes, any ? (PyObject *)raised : Py_None);
exit:
    ndq_release(bias);
    ndq_release(scale);
    ndq_release(raised);
    ndq_release(codes);
    return result;
}

int ndq_range_exec(PyObject *module)
{
    static const char *const names[NDQ_RANGE_RULES] = {"RANGE_DEFAULT", "RANGE_TORCH", "RANGE_TEXTBOOK", "RANGE_ONNX"};
    for (int rule = 0; rule < NDQ_RANGE_RULES; rule++)
        if (PyModule_AddIntConstant(module, names[rule], rule) < 0)
            return -1;
    return 0;
}

PyMethodDef ndq_range_methods[] = {
    {"scale_zero_point", py_scale_zero_point, METH_VARARGS,
     "scale_zero_point(low, high, qmin, qmax, bits, symmetric, rule, /)\n--\n\nScale and zero point of ranges."},
    {"quantize_bias", py_quantize_bias, METH_VARARGS,
     "quantize_bias(bias, x_scale, w_scale, /)\n--\n\nint32 bias, and the raised scales or None if none was too small."},
    {NULL, NULL, 0, NULL},
};
