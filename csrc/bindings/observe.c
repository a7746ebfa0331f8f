/* What observers need to know of an array: extremes and histogram. */
#include "args.h"
#include "module.h"
#include "../kernels/reduce.h"

/* A float array as the reductions want it, in float32 if it is that or narrower. */
static PyArrayObject *observed(PyObject *object, ndq_elementwise *job)
{
    PyArrayObject *given = ndq_float_array(object, "x");
    if (!given)
        return NULL;
    const int type = PyArray_TYPE(given);
    job->arithmetic = type == NPY_FLOAT || type == NPY_HALF ? NDQ_F32 : NDQ_F64;
    PyArrayObject *x = ndq_contiguous(given, job->arithmetic == NDQ_F32 ? NPY_FLOAT : NPY_DOUBLE);
    ndq_release(given);
    if (!x)
        return NULL;
    job->kernels = ndq_kernels_in_use();
    job->n = (size_t)PyArray_SIZE(x);
    job->geometry = (ndq_geometry){.channels = 1, .inner = job->n};
    job->x = PyArray_DATA(x);
    return x;
}

/* Divides the job's array along `axis_arg`, unless that is None. */
static int divide(PyObject *axis_arg, PyArrayObject *x, ndq_geometry *geometry)
{
    if (axis_arg == Py_None)
        return 0;
    const long given = PyLong_AsLong(axis_arg);
    if (given == -1 && PyErr_Occurred())
        return -1;
    const int ndim = PyArray_NDIM(x);
    const long axis = given < 0 ? given + ndim : given;
    if (axis < 0 || axis >= ndim) {
        PyErr_Format(PyExc_ValueError, "x: has %d dimensions, so axis %ld does not exist", ndim, given);
        return -1;
    }
    *geometry = (ndq_geometry){.channels = (size_t)PyArray_DIM(x, (int)axis), .inner = 1};
    for (int d = (int)axis + 1; d < ndim; d++)
        geometry->inner *= (size_t)PyArray_DIM(x, d);
    return 0;
}

/* (low, high, nans, infs), the first two float64: an array with one element per channel, or a scalar. */
static PyObject *extremes_as_python(const ndq_extremes *extremes, npy_intp channels, bool per_channel)
{
    PyArrayObject *low = (PyArrayObject *)PyArray_SimpleNew(per_channel, &channels, NPY_DOUBLE);
    PyArrayObject *high = (PyArrayObject *)PyArray_SimpleNew(per_channel, &channels, NPY_DOUBLE);
    size_t nans = 0, infs = 0;
    if (!low || !high) {
        ndq_release(low);
        ndq_release(high);
        return NULL;
    }
    for (npy_intp c = 0; c < channels; c++) {
        ((double *)PyArray_DATA(low))[c] = extremes[c].min;
        ((double *)PyArray_DATA(high))[c] = extremes[c].max;
        nans += extremes[c].nans;
        infs += extremes[c].infs;
    }
    /* "N" takes the references over, also when one of them is NULL. */
    return Py_BuildValue("NNnn", PyArray_Return(low), PyArray_Return(high), (Py_ssize_t)nans, (Py_ssize_t)infs);
}

static PyObject *py_minmax(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    ndq_elementwise job = {0};
    ndq_extremes *extremes = NULL;
    PyObject *result = NULL;
    PyArrayObject *x = NULL;
    ndq_status status;
    if (ndq_check_count("minmax", count, 2) < 0 || !(x = observed(args[0], &job)) ||
        divide(args[1], x, &job.geometry) < 0)
        goto exit;
    const size_t channels = job.geometry.channels;
    extremes = ndq_alloc(channels * sizeof *extremes);
    if (ndq_check_status(extremes ? NDQ_OK : NDQ_NO_MEMORY) < 0)
        goto exit;
    Py_BEGIN_ALLOW_THREADS
    status = ndq_minmax(&job, extremes);
    Py_END_ALLOW_THREADS
    if (ndq_check_status(status) == 0)
        result = extremes_as_python(extremes, (npy_intp)channels, args[1] != Py_None);
exit:
    ndq_free(extremes);
    ndq_release(x);
    return result;
}

/* Numbers the binades that were seen and returns their keys, in ascending order, as an int64 array. */
static PyArrayObject *number_rows(const uint8_t *seen, int32_t *row)
{
    npy_intp rows = 0;
    for (int key = 0; key < NDQ_BINADES; key++)
        row[key] = seen[key] ? (int32_t)rows++ : 0;
    PyArrayObject *keys = (PyArrayObject *)PyArray_SimpleNew(1, &rows, NPY_INT64);
    if (!keys)
        return NULL;
    for (int key = 0; key < NDQ_BINADES; key++)
        if (seen[key])
            ((npy_int64 *)PyArray_DATA(keys))[row[key]] = key;
    return keys;
}

static PyObject *py_histogram(PyObject *module, PyObject *object)
{
    (void)module;
    ndq_elementwise job = {0};
    /* Zero always has a row, so that there is a place to count even if another thread changes x meanwhile. */
    uint8_t seen[NDQ_BINADES] = {1};
    int32_t row[NDQ_BINADES];
    PyObject *result = NULL;
    PyArrayObject *counts = NULL, *keys = NULL, *x = observed(object, &job);
    if (!x)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    ndq_binades(&job, seen);
    Py_END_ALLOW_THREADS
    if (!(keys = number_rows(seen, row)))
        goto exit;
    const npy_intp shape[2] = {PyArray_DIM(keys, 0), NDQ_BINS_PER_BINADE};
    counts = (PyArrayObject *)PyArray_ZEROS(2, shape, NPY_INT64, 0);
    if (!counts)
        goto exit;
    Py_BEGIN_ALLOW_THREADS
    ndq_histogram(&job, row, PyArray_DATA(counts));
    Py_END_ALLOW_THREADS
    result = PyTuple_Pack(2, (PyObject *)keys, (PyObject *)counts);
exit:
    ndq_release(keys);
    ndq_release(counts);
    ndq_release(x);
    return result;
}

PyMethodDef ndq_observe_methods[] = {
    {"minmax", (PyCFunction)(void (*)(void))py_minmax, METH_FASTCALL,
     "minmax(x, axis, /)\n--\n\nSmallest and largest finite value, number of NaNs, number of infinities."},
    {"histogram", py_histogram, METH_O, "histogram(x, /)\n--\n\nBinades that occur, and the counts of their 512 bins."},
    {NULL, NULL, 0, NULL},
};
