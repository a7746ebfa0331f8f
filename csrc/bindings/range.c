/* scale_zero_point: a range, or one per channel, to scale and zero point. */
#include "args.h"
#include "module.h"
#include "../kernels/range.h"

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

static int check_grid(const ndq_grid *grid)
{
    if (grid->bits >= 1 && grid->bits <= 8 && grid->qmin < grid->qmax && (int)grid->rule >= 0 &&
        grid->rule <= NDQ_RANGE_TEXTBOOK && !(grid->symmetric && grid->bits == 1))
        return 0;
    PyErr_Format(PyExc_ValueError, "codes %d..%d of %d bits (rule %d) are not supported", grid->qmin, grid->qmax,
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
    if (!PyArg_ParseTuple(args, "OOiiipi:scale_zero_point", &low_arg, &high_arg, &grid.qmin, &grid.qmax, &grid.bits,
                          &symmetric, &rule))
        return NULL;
    grid.symmetric = symmetric;
    grid.rule = (ndq_range_rule)rule;
    if (check_grid(&grid) < 0 || !(low = range_end(low_arg, "low")) || !(high = range_end(high_arg, "high")) ||
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

int ndq_range_exec(PyObject *module)
{
    if (PyModule_AddIntConstant(module, "RANGE_DEFAULT", NDQ_RANGE_DEFAULT) < 0 ||
        PyModule_AddIntConstant(module, "RANGE_TORCH", NDQ_RANGE_TORCH) < 0)
        return -1;
    return PyModule_AddIntConstant(module, "RANGE_TEXTBOOK", NDQ_RANGE_TEXTBOOK);
}

PyMethodDef ndq_range_methods[] = {
    {"scale_zero_point", py_scale_zero_point, METH_VARARGS,
     "scale_zero_point(low, high, qmin, qmax, bits, symmetric, rule, /)\n--\n\nScale and zero point of ranges."},
    {NULL, NULL, 0, NULL},
};
