#include "args.h"

ndq_params_object *ndq_as_params(PyObject *module, PyObject *object)
{
    if (Py_IS_TYPE(object, ndq_state_of(module)->params_type))
        return (ndq_params_object *)object;
    PyErr_Format(PyExc_TypeError, "params: expected a Params, got %R", (PyObject *)Py_TYPE(object));
    return NULL;
}

int ndq_check_count(const char *function, Py_ssize_t given, Py_ssize_t wanted)
{
    if (given == wanted)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s takes %zd positional arguments, got %zd", function, wanted, given);
    return -1;
}

int ndq_check_status(ndq_status status)
{
    switch (status) {
    case NDQ_OK:
        return 0;
    case NDQ_NO_MEMORY:
        PyErr_NoMemory();
        return -1;
    case NDQ_OVERFLOW:
        PyErr_SetString(PyExc_OverflowError, "a sum could pass the range of int32");
        return -1;
    }
    PyErr_SetString(PyExc_SystemError, "unknown status of the core");
    return -1;
}

/* A plain array of whatever dtype `object` has; masks would be dropped silently, so they are refused. */
static PyArrayObject *any_array(PyObject *object, const char *name)
{
    if (PyArray_CheckExact(object))
        return ndq_retain((PyArrayObject *)object);
    if (PyArray_Check(object) && PyObject_HasAttrString(object, "_mask")) {
        PyErr_Format(PyExc_TypeError, "%s: masked arrays are not supported; fill or compress it first", name);
        return NULL;
    }
    return (PyArrayObject *)PyArray_FromAny(object, NULL, 0, 0, NPY_ARRAY_ENSUREARRAY, NULL);
}

static PyArrayObject *refuse_dtype(PyArrayObject *array, const char *name, const char *expected)
{
    PyErr_Format(PyExc_TypeError, "%s: expected %s, got dtype %S", name, expected, (PyObject *)PyArray_DESCR(array));
    ndq_release(array);
    return NULL;
}

PyArrayObject *ndq_float_array(PyObject *object, const char *name)
{
    PyArrayObject *array = any_array(object, name);
    if (array && !PyArray_ISFLOAT(array))
        return refuse_dtype(array, name, "floating-point data (for example x.astype(np.float32))");
    return array;
}

PyArrayObject *ndq_integer_array(PyObject *object, const char *name)
{
    PyArrayObject *array = any_array(object, name);
    if (array && !PyArray_ISINTEGER(array))
        return refuse_dtype(array, name, "integers");
    return array;
}

PyArrayObject *ndq_contiguous(PyArrayObject *array, int type)
{
    if (PyArray_TYPE(array) == type && PyArray_ISCARRAY_RO(array))
        return ndq_retain(array);
    return (PyArrayObject *)PyArray_FromArray(array, PyArray_DescrFromType(type),
                                              NPY_ARRAY_CARRAY_RO | NPY_ARRAY_FORCECAST);
}

/* NPY_BYTE or NPY_UBYTE, whichever holds all values, else -1 and the range seen. */
static int narrowest_type(PyArrayObject *wide, npy_int64 *low, npy_int64 *high)
{
    const npy_int64 *v = PyArray_DATA(wide);
    *low = *high = 0;
    for (npy_intp i = 0; i < PyArray_SIZE(wide); i++) {
        *low = v[i] < *low ? v[i] : *low;
        *high = v[i] > *high ? v[i] : *high;
    }
    if (*low >= -128 && *high <= 127)
        return NPY_BYTE;
    return *low >= 0 && *high <= 255 ? NPY_UBYTE : -1;
}

PyArrayObject *ndq_codes_array(PyObject *object, const char *name)
{
    PyArrayObject *array = ndq_integer_array(object, name);
    if (!array || PyArray_TYPE(array) == NPY_BYTE || PyArray_TYPE(array) == NPY_UBYTE)
        return array;
    PyArrayObject *codes = NULL;
    PyArrayObject *wide = ndq_contiguous(array, NPY_INT64);
    if (wide) {
        npy_int64 low, high;
        int type = narrowest_type(wide, &low, &high);
        if (type < 0)
            PyErr_Format(PyExc_ValueError, "%s: codes must fit int8 or uint8, got values from %lld to %lld", name,
                         (long long)low, (long long)high);
        else
            codes = ndq_contiguous(wide, type);
        ndq_release(wide);
    }
    ndq_release(array);
    return codes;
}

int ndq_check_ndim(PyArrayObject *array, const char *name, int ndim)
{
    if (PyArray_NDIM(array) == ndim)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: expected %d dimensions, got %d", name, ndim, PyArray_NDIM(array));
    return -1;
}

/* Raises ValueError "<name>: <what> must be <wanted>, got <shape of array>". */
static int refuse_shape(PyArrayObject *array, const char *name, int ndim, const npy_intp *shape)
{
    PyObject *wanted = PyArray_IntTupleFromIntp(ndim, shape);
    PyObject *got = PyArray_IntTupleFromIntp(PyArray_NDIM(array), PyArray_DIMS(array));
    if (wanted && got)
        PyErr_Format(PyExc_ValueError, "%s: shape must be %R, got %R", name, wanted, got);
    Py_XDECREF(wanted);
    Py_XDECREF(got);
    return -1;
}

static bool has_shape(PyArrayObject *array, int ndim, const npy_intp *shape)
{
    return PyArray_NDIM(array) == ndim && PyArray_CompareLists(PyArray_DIMS(array), shape, ndim);
}

int ndq_check_same_shape(PyArrayObject *a, const char *a_name, PyArrayObject *b, const char *b_name)
{
    if (has_shape(a, PyArray_NDIM(b), PyArray_DIMS(b)))
        return 0;
    (void)b_name;
    return refuse_shape(a, a_name, PyArray_NDIM(b), PyArray_DIMS(b));
}

/* Everything that can be wrong with an output. */
static int check_output(PyArrayObject *out, const char *name, int ndim, const npy_intp *shape, int type)
{
    if (PyArray_TYPE(out) != type || !PyArray_ISNOTSWAPPED(out)) {
        PyArray_Descr *wanted = PyArray_DescrFromType(type);
        PyErr_Format(PyExc_ValueError, "%s: dtype must be %S, got %S", name, (PyObject *)wanted,
                     (PyObject *)PyArray_DESCR(out));
        Py_DECREF((PyObject *)wanted);
        return -1;
    }
    if (!has_shape(out, ndim, shape))
        return refuse_shape(out, name, ndim, shape);
    const char *wrong = !PyArray_ISWRITEABLE(out)             ? "writeable"
                        : !PyArray_IS_C_CONTIGUOUS(out)       ? "C-contiguous"
                        : !PyArray_CHKFLAGS(out, NPY_ARRAY_ALIGNED) ? "aligned"
                                                              : NULL;
    if (!wrong)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: must be %s", name, wrong);
    return -1;
}

PyArrayObject *ndq_output(PyObject *out, const char *name, int ndim, const npy_intp *shape, int type)
{
    if (!out || out == Py_None)
        return (PyArrayObject *)PyArray_SimpleNew(ndim, shape, type);
    if (!PyArray_Check(out) || PyObject_HasAttrString(out, "_mask")) {
        PyErr_Format(PyExc_TypeError, "%s: expected an ndarray, got %R", name, (PyObject *)Py_TYPE(out));
        return NULL;
    }
    if (check_output((PyArrayObject *)out, name, ndim, shape, type) < 0)
        return NULL;
    return ndq_retain((PyArrayObject *)out);
}

/* First and one-past-last byte that an array touches; equal if it has no elements. */
static void extent(PyArrayObject *array, const char **first, const char **last)
{
    const char *low = PyArray_BYTES(array), *high = low + PyArray_ITEMSIZE(array);
    for (int d = 0; d < PyArray_NDIM(array); d++) {
        const npy_intp reach = (PyArray_DIM(array, d) - 1) * PyArray_STRIDE(array, d);
        if (PyArray_DIM(array, d) == 0)
            high = low;
        else if (reach < 0)
            low += reach;
        else
            high += reach;
    }
    *first = low;
    *last = PyArray_SIZE(array) ? high : low;
}

static bool overlaps(PyArrayObject *a, PyArrayObject *b)
{
    const char *a_first, *a_last, *b_first, *b_last;
    extent(a, &a_first, &a_last);
    extent(b, &b_first, &b_last);
    return a_first < b_last && b_first < a_last && a_first < a_last && b_first < b_last;
}

int ndq_check_disjoint(PyArrayObject *a, const char *a_name, PyArrayObject *b, const char *b_name)
{
    if (!overlaps(a, b))
        return 0;
    PyErr_Format(PyExc_ValueError, "%s overlaps %s", a_name, b_name);
    return -1;
}

int ndq_check_overlap(PyArrayObject *out, const char *out_name, PyArrayObject *in, const char *in_name)
{
    const bool same = PyArray_DATA(out) == PyArray_DATA(in) && PyArray_ITEMSIZE(out) == PyArray_ITEMSIZE(in) &&
                      PyArray_IS_C_CONTIGUOUS(in) && PyArray_SIZE(out) == PyArray_SIZE(in);
    if (same || !overlaps(out, in))
        return 0;
    PyErr_Format(PyExc_ValueError, "%s overlaps %s: it may be %s itself if the itemsizes agree, or a separate array",
                 out_name, in_name, in_name);
    return -1;
}

int ndq_geometry_of(PyArrayObject *array, const char *name, const ndq_params_object *params, ndq_geometry *geometry)
{
    const int ndim = PyArray_NDIM(array);
    *geometry = (ndq_geometry){.channels = 1, .inner = (size_t)PyArray_SIZE(array)};
    if (!params->per_channel)
        return 0;
    const int axis = params->axis < 0 ? params->axis + ndim : params->axis;
    if (axis < 0 || axis >= ndim) {
        PyErr_Format(PyExc_ValueError, "%s: has %d dimensions, so axis %d of the QParams does not exist", name, ndim,
                     params->axis);
        return -1;
    }
    if ((size_t)PyArray_DIM(array, axis) != params->params.channels) {
        PyErr_Format(PyExc_ValueError, "%s: axis %d must have %zu elements, one per channel of the QParams, got %zd",
                     name, params->axis, params->params.channels, (Py_ssize_t)PyArray_DIM(array, axis));
        return -1;
    }
    geometry->channels = params->params.channels;
    geometry->inner = 1;
    for (int d = axis + 1; d < ndim; d++)
        geometry->inner *= (size_t)PyArray_DIM(array, d);
    return 0;
}
