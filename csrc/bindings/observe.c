/* What observers need to know of an array, extremes and histogram, and the error of the ranges they try. */
#include "args.h"
#include "module.h"
#include "../kernels/clip_error.h"
#include "../kernels/cross_entropy.h"
#include "../kernels/entropy.h"
#include "../kernels/histogram.h"
#include "../kernels/reduce.h"

/* A float array as the reductions want it, in float32 if it is that or narrower. */
static PyArrayObject *observed(PyObject *object, ndq_elementwise *job)
{
    PyArrayObject *given = ndq_float_array(object, "x");
    if (!given)
        return NULL;
    const int type = PyArray_TYPE(given);
    job->arithmetic = type == NPY_FLOAT || type == NPY_HALF ? NDQ_F32 : NDQ_F64;
    PyArrayObject *x = ndq_contiguous(given, ndq_is_f32(job->arithmetic) ? NPY_FLOAT : NPY_DOUBLE);
    ndq_release(given);
    if (!x)
        return NULL;
    job->kernels = ndq_kernels_in_use();
    job->n = (size_t)PyArray_SIZE(x);
    job->geometry = (ndq_geometry){.channels = 1, .inner = job->n};
    job->x = PyArray_DATA(x);
    return x;
}

/* Divides the job's array along an axis, in groups or not, unless the axis is None; and the shape of one number for each
 * channel, of which it returns the dimensions. */
static int divide(PyObject *axis_arg, PyObject *group_arg, PyArrayObject *x, ndq_geometry *geometry, npy_intp *shape)
{
    if (axis_arg == Py_None)
        return 0;
    const long axis = PyLong_AsLong(axis_arg);
    const Py_ssize_t group_size = group_arg == Py_None ? 0 : PyLong_AsSsize_t(group_arg);
    if ((axis == -1 || group_size == -1) && PyErr_Occurred())
        return -1;
    if (axis != (int)axis || group_size < 0) {
        PyErr_SetString(PyExc_ValueError, "axis, group_size: out of range");
        return -1;
    }
    if (ndq_divide(x, "x", (int)axis, group_size, geometry) < 0)
        return -1;
    const int from_start = ndq_axis_of(x, "x", (int)axis);
    shape[0] = PyArray_DIM(x, from_start);
    if (!group_size)
        return 1;
    for (int d = 0; d < PyArray_NDIM(x); d++)
        shape[d] = PyArray_DIM(x, d) / (d == from_start ? group_size : 1);
    return PyArray_NDIM(x);
}

/* (low, high, nans, infs), the first two float64: an array with one element per channel or group, or a scalar. */
static PyObject *extremes_as_python(const ndq_extremes *extremes, int ndim, const npy_intp *shape)
{
    PyArrayObject *low = (PyArrayObject *)PyArray_SimpleNew(ndim, shape, NPY_DOUBLE);
    PyArrayObject *high = (PyArrayObject *)PyArray_SimpleNew(ndim, shape, NPY_DOUBLE);
    size_t nans = 0, infs = 0;
    if (!low || !high) {
        ndq_release(low);
        ndq_release(high);
        return NULL;
    }
    for (npy_intp c = 0; c < PyArray_SIZE(low); c++) {
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
    npy_intp shape[NPY_MAXDIMS];
    int ndim;
    ndq_status status;
    if ((count != 2 && ndq_check_count("minmax", count, 3) < 0) || !(x = observed(args[0], &job)) ||
        (ndim = divide(args[1], count == 3 ? args[2] : Py_None, x, &job.geometry, shape)) < 0)
        goto exit;
    extremes = ndq_alloc((size_t)PyArray_MultiplyList(shape, ndim) * sizeof *extremes);
    if (ndq_check_status(extremes ? NDQ_OK : NDQ_NO_MEMORY) < 0)
        goto exit;
    Py_BEGIN_ALLOW_THREADS
    status = ndq_minmax(&job, extremes);
    Py_END_ALLOW_THREADS
    if (ndq_check_status(status) == 0)
        result = extremes_as_python(extremes, ndim, shape);
exit:
    ndq_free(extremes);
    ndq_release(x);
    return result;
}

/* A new array of n elements that are copied from `data`, which may be NULL if n is 0. */
static PyArrayObject *array_of(const void *data, size_t n, int type)
{
    const npy_intp shape = (npy_intp)n;
    PyArrayObject *array = (PyArrayObject *)PyArray_SimpleNew(1, &shape, type);
    if (array && n)
        memcpy(PyArray_DATA(array), data, n * (size_t)PyArray_ITEMSIZE(array));
    return array;
}

/* (start, bins, counts), and frees the histogram. */
static PyObject *histogram_as_python(ndq_histogram *h)
{
    PyObject *result = NULL;
    PyArrayObject *start = NULL, *bins = NULL, *counts = NULL;
    if ((start = array_of(h->start, h->channels + 1, NPY_INT64)) && (bins = array_of(h->bin, h->used, NPY_INT32)) &&
        (counts = array_of(h->count, h->used, NPY_INT64)))
        result = PyTuple_Pack(3, (PyObject *)start, (PyObject *)bins, (PyObject *)counts);
    ndq_release(start);
    ndq_release(bins);
    ndq_release(counts);
    ndq_histogram_free(h);
    return result;
}

static PyObject *py_histogram(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    ndq_elementwise job = {0};
    ndq_histogram h;
    PyObject *result = NULL;
    PyArrayObject *x = NULL;
    npy_intp shape[NPY_MAXDIMS];
    ndq_status status;
    if ((count != 2 && ndq_check_count("histogram", count, 3) < 0) || !(x = observed(args[0], &job)) ||
        divide(args[1], count == 3 ? args[2] : Py_None, x, &job.geometry, shape) < 0)
        goto exit;
    Py_BEGIN_ALLOW_THREADS
    status = ndq_histogram_of(&job, &h);
    Py_END_ALLOW_THREADS
    if (ndq_check_status(status) == 0)
        result = histogram_as_python(&h);
exit:
    ndq_release(x);
    return result;
}

/* An array of exactly this type, contiguous. */
static PyArrayObject *exactly(PyObject *object, const char *name, int type, int ndim)
{
    if (!PyArray_Check(object) || PyArray_TYPE((PyArrayObject *)object) != type) {
        PyErr_Format(PyExc_TypeError, "%s: must be an array of %s", name,
                     type == NPY_DOUBLE  ? "float64"
                     : type == NPY_INT64 ? "int64"
                                         : "int32");
        return NULL;
    }
    PyArrayObject *array = ndq_contiguous((PyArrayObject *)object, type);
    if (array && ndq_check_ndim(array, name, ndim) < 0) {
        ndq_release(array);
        return NULL;
    }
    return array;
}

/* Where the values of each channel begin, copied so that nobody can change them any more. */
static int64_t *checked_starts(PyArrayObject *start, npy_intp values)
{
    const npy_intp n = PyArray_DIM(start, 0);
    int64_t *copy = ndq_alloc((size_t)n * sizeof *copy);
    if (ndq_check_status(copy ? NDQ_OK : NDQ_NO_MEMORY) < 0)
        return NULL;
    if (n)
        memcpy(copy, PyArray_DATA(start), (size_t)n * sizeof *copy);
    bool good = n > 0 && copy[0] == 0 && copy[n - 1] == values;
    for (npy_intp c = 1; good && c < n; c++)
        good = copy[c - 1] <= copy[c];
    if (good)
        return copy;
    PyErr_Format(PyExc_ValueError, "start: must ascend from 0 to %zd", (Py_ssize_t)values);
    ndq_free(copy);
    return NULL;
}

/* A histogram as the functions above give it: arrays that it borrows from `arrays`, and its own copy of the starts. */
static int histogram_of_python(PyObject *const *args, PyArrayObject **arrays, ndq_histogram *h)
{
    if (!(arrays[0] = exactly(args[0], "start", NPY_INT64, 1)) ||
        !(arrays[1] = exactly(args[1], "bins", NPY_INT32, 1)) ||
        !(arrays[2] = exactly(args[2], "counts", NPY_INT64, 1)) ||
        ndq_check_same_shape(arrays[2], "counts", arrays[1], "bins") < 0 ||
        !(h->start = checked_starts(arrays[0], PyArray_DIM(arrays[1], 0))))
        return -1;
    h->channels = (size_t)PyArray_DIM(arrays[0], 0) - 1;
    h->used = (size_t)PyArray_DIM(arrays[1], 0);
    h->bin = PyArray_DATA(arrays[1]);
    h->count = PyArray_DATA(arrays[2]);
    return 0;
}

static PyObject *py_add_histograms(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    PyArrayObject *arrays[6] = {NULL};
    ndq_histogram a = {0}, b = {0}, sum;
    PyObject *result = NULL;
    ndq_status status;
    if (ndq_check_count("add_histograms", count, 6) < 0)
        return NULL;
    if (histogram_of_python(args, arrays, &a) < 0 || histogram_of_python(args + 3, arrays + 3, &b) < 0)
        goto exit;
    if (a.channels != b.channels) {
        PyErr_Format(PyExc_ValueError, "start: histograms of %zu and of %zu channels cannot be added", a.channels,
                     b.channels);
        goto exit;
    }
    Py_BEGIN_ALLOW_THREADS
    status = ndq_histogram_sum(&a, &b, &sum);
    Py_END_ALLOW_THREADS
    if (ndq_check_status(status) == 0)
        result = histogram_as_python(&sum);
exit:
    ndq_free(a.start);
    ndq_free(b.start);
    for (int i = 0; i < 6; i++)
        ndq_release(arrays[i]);
    return result;
}

static PyObject *py_clip_errors(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    static const char *const names[] = {"start", "values", "weights", "base", "scale"};
    PyArrayObject *in[5] = {NULL}, *errors = NULL;
    ndq_clip_errors job = {.kernels = ndq_kernels_in_use()};
    int64_t *start = NULL;
    if (ndq_check_count("clip_errors", count, 7) < 0 || ndq_number(args[5], "levels", &job.levels) < 0 ||
        ndq_number(args[6], "p", &job.p) < 0)
        return NULL;
    for (int i = 0; i < 5; i++)
        if (!(in[i] = exactly(args[i], names[i], i ? NPY_DOUBLE : NPY_INT64, i < 3 ? 1 : 2)))
            goto exit;
    job.channels = (size_t)PyArray_DIM(in[3], 0);
    job.tries = (size_t)PyArray_DIM(in[3], 1);
    if (ndq_check_same_shape(in[2], names[2], in[1], names[1]) < 0 ||
        ndq_check_same_shape(in[4], names[4], in[3], names[3]) < 0 ||
        !(start = checked_starts(in[0], PyArray_DIM(in[1], 0))))
        goto exit;
    if (PyArray_DIM(in[0], 0) != PyArray_DIM(in[3], 0) + 1) {
        PyErr_Format(PyExc_ValueError, "start: must have %zu elements, got %zd", job.channels + 1,
                     (Py_ssize_t)PyArray_DIM(in[0], 0));
        goto exit;
    }
    if (!(errors = (PyArrayObject *)PyArray_SimpleNew(2, PyArray_DIMS(in[3]), NPY_DOUBLE)))
        goto exit;
    job.start = start;
    job.value = PyArray_DATA(in[1]);
    job.weight = PyArray_DATA(in[2]);
    job.base = PyArray_DATA(in[3]);
    job.scale = PyArray_DATA(in[4]);
    job.error = PyArray_DATA(errors);
    Py_BEGIN_ALLOW_THREADS
    ndq_find_clip_errors(&job);
    Py_END_ALLOW_THREADS
exit:
    ndq_free(start);
    for (int i = 0; i < 5; i++)
        ndq_release(in[i]);
    return (PyObject *)errors;
}

static PyObject *py_cross_entropies(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    static const char *const names[] = {"x", "p", "largest", "base", "scale"};
    PyArrayObject *in[5] = {NULL}, *sums = NULL;
    ndq_cross_entropies job = {0};
    ndq_status status;
    if (ndq_check_count("cross_entropies", count, 6) < 0 || ndq_number(args[5], "levels", &job.levels) < 0)
        return NULL;
    for (int i = 0; i < 5; i++)
        if (!(in[i] = exactly(args[i], names[i], NPY_DOUBLE, i < 2 ? 2 : 1)))
            goto exit;
    const npy_intp *shape = PyArray_DIMS(in[0]);
    if (ndq_check_same_shape(in[1], names[1], in[0], names[0]) < 0 ||
        ndq_check_shape(in[2], names[2], 1, shape) < 0 ||
        ndq_check_same_shape(in[4], names[4], in[3], names[3]) < 0 ||
        !(sums = (PyArrayObject *)PyArray_SimpleNew(1, PyArray_DIMS(in[3]), NPY_DOUBLE)))
        goto exit;
    job.N = (size_t)shape[0];
    job.C = (size_t)shape[1];
    job.tries = (size_t)PyArray_DIM(in[3], 0);
    job.x = PyArray_DATA(in[0]);
    job.p = PyArray_DATA(in[1]);
    job.largest = PyArray_DATA(in[2]);
    job.base = PyArray_DATA(in[3]);
    job.scale = PyArray_DATA(in[4]);
    job.sum = PyArray_DATA(sums);
    Py_BEGIN_ALLOW_THREADS
    status = ndq_find_cross_entropies(&job);
    Py_END_ALLOW_THREADS
    if (ndq_check_status(status) < 0) {
        ndq_release(sums);
        sums = NULL;
    }
exit:
    for (int i = 0; i < 5; i++)
        ndq_release(in[i]);
    return (PyObject *)sums;
}

/* Windows of bins, a copy of their first bins and then one of their ends, so that nobody can change them any more. */
static int64_t *checked_windows(PyArrayObject *first, PyArrayObject *end, npy_intp bins, size_t levels)
{
    const size_t n = (size_t)PyArray_SIZE(first);
    int64_t *copy = ndq_alloc(2 * n * sizeof *copy);
    if (ndq_check_status(copy ? NDQ_OK : NDQ_NO_MEMORY) < 0)
        return NULL;
    memcpy(copy, PyArray_DATA(first), n * sizeof *copy);
    memcpy(copy + n, PyArray_DATA(end), n * sizeof *copy);
    for (size_t i = 0; i < n; i++)
        if (copy[i] < 0 || copy[n + i] < copy[i] || copy[n + i] > bins || (size_t)(copy[n + i] - copy[i]) < levels) {
            PyErr_Format(PyExc_ValueError, "first, end: windows must lie within %zd bins and have %zu at least",
                         (Py_ssize_t)bins, levels);
            ndq_free(copy);
            return NULL;
        }
    return copy;
}

static PyObject *py_entropies(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    static const char *const names[] = {"counts", "filled", "first", "end"};
    PyArrayObject *in[4] = {NULL}, *sums = NULL;
    int64_t *windows = NULL;
    if (ndq_check_count("entropies", count, 5) < 0)
        return NULL;
    const Py_ssize_t levels = PyLong_AsSsize_t(args[4]);
    if (levels < 1) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_ValueError, "levels: must be at least 1, got %zd", levels);
        return NULL;
    }
    for (int i = 0; i < 4; i++)
        if (!(in[i] = exactly(args[i], names[i], i < 2 ? NPY_DOUBLE : NPY_INT64, 1)))
            goto exit;
    const npy_intp bins = PyArray_SIZE(in[0]) - 1;
    if (bins < 0) {
        PyErr_SetString(PyExc_ValueError, "counts: is empty");
        goto exit;
    }
    if (ndq_check_same_shape(in[1], names[1], in[0], names[0]) < 0 ||
        ndq_check_same_shape(in[3], names[3], in[2], names[2]) < 0 ||
        !(windows = checked_windows(in[2], in[3], bins, (size_t)levels)) ||
        !(sums = (PyArrayObject *)PyArray_SimpleNew(1, PyArray_DIMS(in[2]), NPY_DOUBLE)))
        goto exit;
    const size_t n = (size_t)PyArray_SIZE(in[2]);
    const ndq_entropies job = {.bins = (size_t)bins, .windows = n, .levels = (size_t)levels,
                               .counts = PyArray_DATA(in[0]), .filled = PyArray_DATA(in[1]), .first = windows,
                               .end = windows + n, .sum = PyArray_DATA(sums)};
    Py_BEGIN_ALLOW_THREADS
    ndq_find_entropies(&job);
    Py_END_ALLOW_THREADS
exit:
    ndq_free(windows);
    for (int i = 0; i < 4; i++)
        ndq_release(in[i]);
    return (PyObject *)sums;
}

PyMethodDef ndq_observe_methods[] = {
    {"minmax", (PyCFunction)(void (*)(void))py_minmax, METH_FASTCALL,
     "minmax(x, axis, group_size=None, /)\n--\n\nSmallest and largest finite value, number of NaNs, number of infinities."},
    {"histogram", (PyCFunction)(void (*)(void))py_histogram, METH_FASTCALL,
     "histogram(x, axis, group_size=None, /)\n--\n\nWhere channels begin, the bins that are not empty, their counts."},
    {"add_histograms", (PyCFunction)(void (*)(void))py_add_histograms, METH_FASTCALL,
     "add_histograms(start_a, bins_a, counts_a, start_b, bins_b, counts_b, /)\n--\n\nThe sum of two histograms."},
    {"clip_errors", (PyCFunction)(void (*)(void))py_clip_errors, METH_FASTCALL,
     "clip_errors(start, values, weights, base, scale, levels, p, /)\n--\n\nThe error of each range of each channel."},
    {"cross_entropies", (PyCFunction)(void (*)(void))py_cross_entropies, METH_FASTCALL,
     "cross_entropies(x, p, largest, base, scale, levels, /)\n--\n\nSums over rows, for each way to quantize the logits x."},
    {"entropies", (PyCFunction)(void (*)(void))py_entropies, METH_FASTCALL,
     "entropies(counts, filled, first, end, levels, /)\n--\n\nSums over codes of p log(q), for windows of bins."},
    {NULL, NULL, 0, NULL},
};
