#include "args.h"

ndq_params_object *ndq_params_of(PyObject *module, PyObject *qparams)
{
    const ndq_state *state = ndq_state_of(module);
    if (Py_IS_TYPE(qparams, state->params_type)) {
        Py_INCREF(qparams);
        return (ndq_params_object *)qparams;
    }
    PyObject *params = PyObject_GetAttr(qparams, state->params_name);
    if (params && Py_IS_TYPE(params, state->params_type))
        return (ndq_params_object *)params;
    if (params || PyErr_ExceptionMatches(PyExc_AttributeError))
        PyErr_Format(PyExc_TypeError, "qparams: expected a QParams, got %R", (PyObject *)Py_TYPE(qparams));
    Py_XDECREF(params);
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
    case NDQ_NOT_FINITE:
        PyErr_SetString(PyExc_ValueError, "a range was asked of data with NaN or infinity");
        return -1;
    }
    PyErr_SetString(PyExc_SystemError, "unknown status of the core");
    return -1;
}

/* The type in which the values of one of the ml_dtypes package's types are taken, by its name, or -1. */
static int type_instead(const char *name)
{
    static const struct {
        const char *name;
        int type;
    } known[] = {{"bfloat16", NPY_FLOAT}, {"float8_e4m3fn", NPY_FLOAT}, {"float8_e5m2", NPY_FLOAT}, {"int4", NPY_BYTE},
                 {"uint4", NPY_UBYTE},    {"int2", NPY_BYTE},           {"uint2", NPY_UBYTE}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i].name) == 0)
            return known[i].type;
    return -1;
}

/* Arrays of types that NumPy lacks and ml_dtypes has are copied to a NumPy type that holds their values; all others stay. */
static PyArrayObject *of_numpy_type(PyArrayObject *array)
{
    if (!PyTypeNum_ISUSERDEF(PyArray_TYPE(array)))
        return array;
    PyObject *name = PyType_GetName(PyArray_DESCR(array)->typeobj), *bytes = name ? PyUnicode_AsUTF8String(name) : NULL;
    const int type = bytes ? type_instead(PyBytes_AsString(bytes)) : -1;
    PyArrayObject *copy = NULL;
    if (type >= 0)
        copy = (PyArrayObject *)PyArray_FromArray(array, PyArray_DescrFromType(type), NPY_ARRAY_FORCECAST);
    else if (bytes)
        copy = ndq_retain(array);
    Py_XDECREF(name);
    Py_XDECREF(bytes);
    ndq_release(array);
    return copy;
}

/* A plain array of whatever dtype `object` has; masks would be dropped silently, so they are refused. */
static PyArrayObject *any_array(PyObject *object, const char *name)
{
    if (PyArray_CheckExact(object))
        return of_numpy_type(ndq_retain((PyArrayObject *)object));
    if (PyArray_Check(object) && PyObject_HasAttrString(object, "_mask")) {
        PyErr_Format(PyExc_TypeError, "%s: masked arrays are not supported; fill or compress it first", name);
        return NULL;
    }
    PyArrayObject *array = (PyArrayObject *)PyArray_FromAny(object, NULL, 0, 0, NPY_ARRAY_ENSUREARRAY, NULL);
    return array ? of_numpy_type(array) : NULL;
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

/* Extremes of a contiguous array of int64, or of uint64 if its type is unsigned; 0 counts as a value. */
static void integer_range(PyArrayObject *wide, npy_int64 *low, npy_uint64 *high)
{
    *low = 0;
    *high = 0;
    for (npy_intp i = 0; i < PyArray_SIZE(wide); i++) {
        const npy_uint64 bits = ((const npy_uint64 *)PyArray_DATA(wide))[i];
        if (PyArray_ISSIGNED(wide) && (npy_int64)bits < 0)
            *low = (npy_int64)bits < *low ? (npy_int64)bits : *low;
        else
            *high = bits > *high ? bits : *high;
    }
}

static const struct {
    int type;
    npy_int64 low, high;
    const char *expected;
} codes_table[] = {
    [NDQ_U8] = {NPY_UINT8, 0, UINT8_MAX, "codes of its QParams, uint8"},
    [NDQ_S8] = {NPY_INT8, INT8_MIN, INT8_MAX, "codes of its QParams, int8"},
    [NDQ_U16] = {NPY_UINT16, 0, UINT16_MAX, "codes of its QParams, uint16"},
    [NDQ_S16] = {NPY_INT16, INT16_MIN, INT16_MAX, "codes of its QParams, int16"},
    [NDQ_U32] = {NPY_UINT32, 0, UINT32_MAX, "codes of its QParams, uint32"},
    [NDQ_S32] = {NPY_INT32, INT32_MIN, INT32_MAX, "codes of its QParams, int32"},
};

int ndq_type_of_codes(ndq_code_type codes)
{
    return codes_table[codes].type;
}

static bool fits_codes(npy_int64 low, npy_uint64 high, ndq_code_type codes)
{
    return low >= codes_table[codes].low && high <= (npy_uint64)codes_table[codes].high;
}

/* Takes 8-byte integers as codes of another size, signed if they fit both. */
static PyArrayObject *narrow_codes(PyArrayObject *wide, const char *name, ndq_code_type wanted, ndq_code_type *found)
{
    npy_int64 low;
    npy_uint64 high;
    integer_range(wide, &low, &high);
    const ndq_code_type is_signed = wanted | 1, is_unsigned = is_signed - 1;
    if (fits_codes(low, high, is_signed) || fits_codes(low, high, is_unsigned)) {
        *found = fits_codes(low, high, is_signed) ? is_signed : is_unsigned;
        return ndq_contiguous(wide, codes_table[*found].type);
    }
    const int bits = 8 * (int)ndq_code_bytes(wanted);
    PyErr_Format(PyExc_ValueError, "%s: codes must fit int%d or uint%d, got values from %lld to %llu", name, bits, bits,
                 (long long)low, (unsigned long long)high);
    return NULL;
}

PyArrayObject *ndq_codes_array(PyObject *object, const char *name, ndq_code_type wanted, ndq_code_type *found)
{
    PyArrayObject *array = ndq_integer_array(object, name);
    if (!array)
        return NULL;
    if ((size_t)PyArray_ITEMSIZE(array) == ndq_code_bytes(wanted)) {
        *found = PyArray_ISSIGNED(array) ? wanted | 1 : (wanted | 1) - 1;
        return array;
    }
    PyArrayObject *wide = ndq_contiguous(array, PyArray_ISSIGNED(array) ? NPY_INT64 : NPY_UINT64);
    ndq_release(array);
    PyArrayObject *codes = wide ? narrow_codes(wide, name, wanted, found) : NULL;
    ndq_release(wide);
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

PyArrayObject *ndq_floats_in_place(PyObject *object, const char *name, int ndim)
{
    PyArrayObject *given = ndq_float_array(object, name);
    if (!given || ndq_check_ndim(given, name, ndim) < 0) {
        ndq_release(given);
        return NULL;
    }
    if (PyArray_TYPE(given) == NPY_FLOAT && PyArray_ISBEHAVED_RO(given))
        return given;
    PyArrayObject *array = ndq_contiguous(given, NPY_FLOAT);
    ndq_release(given);
    return array;
}

int ndq_check_same_shape(PyArrayObject *a, const char *a_name, PyArrayObject *b, const char *b_name)
{
    if (has_shape(a, PyArray_NDIM(b), PyArray_DIMS(b)))
        return 0;
    (void)b_name;
    return refuse_shape(a, a_name, PyArray_NDIM(b), PyArray_DIMS(b));
}

/* Whether the elements of (N, C, H, W) lie side by side with the channels innermost. */
static bool is_dense_channels_last(PyArrayObject *a)
{
    static const int order[] = {1, 3, 2, 0};
    npy_intp stride = PyArray_ITEMSIZE(a);
    for (int i = 0; i < 4; stride *= PyArray_DIM(a, order[i]), i++)
        if (PyArray_DIM(a, order[i]) > 1 && PyArray_STRIDE(a, order[i]) != stride)
            return false;
    return true;
}

/* Everything that can be wrong with an output. */
static int check_output(PyArrayObject *out, const char *name, int ndim, const npy_intp *shape, int type, bool is_image)
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
                        : is_image && !PyArray_IS_C_CONTIGUOUS(out) && !is_dense_channels_last(out)
                            ? "C-contiguous or channels-last"
                        : !is_image && !PyArray_IS_C_CONTIGUOUS(out) ? "C-contiguous"
                        : !PyArray_CHKFLAGS(out, NPY_ARRAY_ALIGNED) ? "aligned"
                                                              : NULL;
    if (!wrong)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: must be %s", name, wrong);
    return -1;
}

/* What is written to must be an array already; one with a mask is none. */
static int check_is_array(PyObject *object, const char *name)
{
    if (PyArray_CheckExact(object) || (PyArray_Check(object) && !PyObject_HasAttrString(object, "_mask")))
        return 0;
    PyErr_Format(PyExc_TypeError, "%s: expected an ndarray, got %R", name, (PyObject *)Py_TYPE(object));
    return -1;
}

PyArrayObject *ndq_output(PyObject *out, const char *name, int ndim, const npy_intp *shape, int type)
{
    if (!out || out == Py_None)
        return (PyArrayObject *)PyArray_SimpleNew(ndim, shape, type);
    if (check_is_array(out, name) < 0 || check_output((PyArrayObject *)out, name, ndim, shape, type, false) < 0)
        return NULL;
    return ndq_retain((PyArrayObject *)out);
}

static PyArrayObject *new_channels_last(const npy_intp *shape, int type)
{
    npy_intp last[] = {shape[0], shape[2], shape[3], shape[1]}, axes[] = {0, 3, 1, 2};
    PyArrayObject *memory = (PyArrayObject *)PyArray_SimpleNew(4, last, type);
    PyObject *view = memory ? PyArray_Transpose(memory, &(PyArray_Dims){axes, 4}) : NULL;
    ndq_release(memory);
    return (PyArrayObject *)view;
}

bool ndq_is_channels_last(PyArrayObject *array)
{
    return PyArray_NDIM(array) == 4 && !PyArray_IS_C_CONTIGUOUS(array) && is_dense_channels_last(array);
}

PyArrayObject *ndq_in_layout(PyArrayObject *array, bool channels_last)
{
    if (!channels_last)
        return ndq_contiguous(array, PyArray_TYPE(array));
    if (is_dense_channels_last(array))
        return ndq_retain(array);
    PyArrayObject *copy = new_channels_last(PyArray_DIMS(array), PyArray_TYPE(array));
    if (copy && PyArray_CopyInto(copy, array) < 0) {
        ndq_release(copy);
        return NULL;
    }
    return copy;
}

PyArrayObject *ndq_image_output(PyObject *out, const char *name, const npy_intp *shape, int type, bool channels_last)
{
    if (!out || out == Py_None)
        return channels_last ? new_channels_last(shape, type) : (PyArrayObject *)PyArray_SimpleNew(4, shape, type);
    if (check_is_array(out, name) < 0 || check_output((PyArrayObject *)out, name, 4, shape, type, true) < 0)
        return NULL;
    return ndq_retain((PyArrayObject *)out);
}

PyArrayObject *ndq_changed_array(PyObject *object, const char *name, PyArrayObject *like)
{
    if (check_is_array(object, name) < 0)
        return NULL;
    PyArrayObject *array = ndq_retain((PyArrayObject *)object), *model = like ? like : array;
    const int type = PyArray_TYPE(model);
    if (type != NPY_FLOAT && type != NPY_DOUBLE)
        return refuse_dtype(array, name, "float32 or float64");
    if (check_output(array, name, PyArray_NDIM(model), PyArray_DIMS(model), type, false) == 0)
        return array;
    ndq_release(array);
    return NULL;
}

int ndq_number(PyObject *object, const char *name, double *value)
{
    *value = PyFloat_AsDouble(object);
    if (*value != -1.0 || !PyErr_Occurred())
        return 0;
    if (PyErr_ExceptionMatches(PyExc_TypeError))
        PyErr_Format(PyExc_TypeError, "%s: expected a number, got %R", name, (PyObject *)Py_TYPE(object));
    return -1;
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

int ndq_axis_of(PyArrayObject *array, const char *name, int axis)
{
    const int ndim = PyArray_NDIM(array), from_start = axis < 0 ? axis + ndim : axis;
    if (from_start >= 0 && from_start < ndim)
        return from_start;
    PyErr_Format(PyExc_ValueError, "%s: has %d dimensions, so axis %d does not exist", name, ndim, axis);
    return -1;
}

int ndq_divide(PyArrayObject *array, const char *name, int axis, npy_intp group_size, ndq_geometry *geometry)
{
    const int from_start = ndq_axis_of(array, name, axis);
    if (from_start < 0)
        return -1;
    const npy_intp length = PyArray_DIM(array, from_start);
    size_t inner = 1;
    for (int d = from_start + 1; d < PyArray_NDIM(array); d++)
        inner *= (size_t)PyArray_DIM(array, d);
    *geometry = (ndq_geometry){.channels = (size_t)length, .inner = inner};
    if (!group_size)
        return 0;
    if (length % group_size) {
        PyErr_Format(PyExc_ValueError, "group_size: %zd does not divide the %zd elements of axis %d of %s",
                     (Py_ssize_t)group_size, (Py_ssize_t)length, axis, name);
        return -1;
    }
    const size_t groups = (size_t)(PyArray_SIZE(array) / group_size);
    *geometry = inner == 1 || !groups ? (ndq_geometry){.channels = groups, .inner = (size_t)group_size}
                                      : (ndq_geometry){inner, 1, inner * (size_t)group_size, 0};
    return 0;
}

/* Whether each scale has a group of the array: their shapes differ in the length of the axis only. */
static int check_groups(PyArrayObject *array, const char *name, const ndq_params_object *params)
{
    npy_intp wanted[NPY_MAXDIMS];
    const int ndim = PyArray_NDIM(params->groups);
    for (int d = 0; d < ndim; d++)
        wanted[d] = PyArray_DIM(params->groups, d);
    wanted[params->axis < 0 ? params->axis + ndim : params->axis] *= params->group_size;
    return ndq_check_shape(array, name, ndim, wanted);
}

int ndq_geometry_of(PyArrayObject *array, const char *name, const ndq_params_object *params, ndq_geometry *geometry)
{
    *geometry = (ndq_geometry){.channels = 1, .inner = (size_t)PyArray_SIZE(array)};
    if (!params->per_channel)
        return 0;
    if (ndq_divide(array, name, params->axis, params->group_size, geometry) < 0)
        return -1;
    if (params->groups)
        return check_groups(array, name, params);
    if (geometry->channels == params->params.channels)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: axis %d must have %zu elements, one per channel of the QParams, got %zu", name,
                 params->axis, params->params.channels, geometry->channels);
    return -1;
}

/* Axes from the slowest in memory to the fastest; false if there is a gap, or one runs backwards. */
static bool memory_order(PyArrayObject *array, int *order)
{
    const int ndim = PyArray_NDIM(array);
    npy_intp step = PyArray_ITEMSIZE(array);
    for (int i = 0; i < ndim; i++) {
        int place = i;
        for (; place > 0 && PyArray_STRIDE(array, order[place - 1]) < PyArray_STRIDE(array, i); place--)
            order[place] = order[place - 1];
        order[place] = i;
    }
    for (int i = ndim - 1; i >= 0; i--) {
        if (PyArray_DIM(array, order[i]) != 1 && PyArray_STRIDE(array, order[i]) != step)
            return false;
        step *= PyArray_DIM(array, order[i]);
    }
    return true;
}

bool ndq_reorder(PyArrayObject *array, const ndq_params_object *params, ndq_geometry *geometry)
{
    int order[NPY_MAXDIMS];
    const int ndim = PyArray_NDIM(array);
    if (PyArray_IS_C_CONTIGUOUS(array) || !PyArray_ISBEHAVED_RO(array) || !PyArray_SIZE(array) || params->group_size ||
        !memory_order(array, order))
        return false;
    const int axis = params->axis < 0 ? params->axis + ndim : params->axis;
    size_t inner = 1;
    for (int i = ndim - 1; params->per_channel && order[i] != axis; i--)
        inner *= (size_t)PyArray_DIM(array, order[i]);
    if (params->per_channel)
        geometry->inner = inner;
    return true;
}

bool ndq_have_same_layout(PyArrayObject *a, PyArrayObject *b)
{
    for (int d = 0; d < PyArray_NDIM(a); d++)
        if (PyArray_DIM(a, d) != 1 && PyArray_STRIDE(a, d) != PyArray_STRIDE(b, d))
            return false;
    return PyArray_ISBEHAVED_RO(b);
}

ndq_strides *ndq_strides_of(PyArrayObject *array)
{
    ndq_strides *strides = ndq_alloc(sizeof *strides);
    if (!strides)
        return NULL;
    strides->axes = 0;
    for (int d = 0; d < PyArray_NDIM(array); d++)
        if (PyArray_DIM(array, d) != 1)
            ndq_strides_add(strides, (size_t)PyArray_DIM(array, d), PyArray_STRIDE(array, d));
    if (strides->axes == 0)
        ndq_strides_add(strides, 1, 0);
    return strides;
}

/* ---- Operands of integer products ---- */

static int32_t lowest_code(int type)
{
    return type == NPY_BYTE ? -128 : 0;
}

PyArrayObject *ndq_byte_array(PyObject *object, const char *name)
{
    PyArrayObject *array = any_array(object, name);
    if (array && PyArray_TYPE(array) != NPY_BYTE && PyArray_TYPE(array) != NPY_UBYTE)
        return refuse_dtype(array, name, "int8 or uint8");
    return array;
}

PyArrayObject *ndq_codes_of(PyObject *object, const char *name, const ndq_params *params)
{
    PyArrayObject *array = any_array(object, name);
    if (array && PyArray_TYPE(array) != ndq_type_of_codes(params->codes))
        return refuse_dtype(array, name, codes_table[params->codes].expected);
    return array;
}

/* Index of the first of n numbers outside [low, high], or n. */
static npy_intp first_outside(const npy_int64 *values, npy_intp n, npy_int64 low, npy_int64 high)
{
    npy_intp i = 0;
    while (i < n && values[i] >= low && values[i] <= high)
        i++;
    return i;
}

/* int32 from any integers, all within [low, high]; `of` says of what these are the bounds. */
static PyArrayObject *narrow_to_int32(PyArrayObject *array, const char *name, npy_int64 low, npy_int64 high,
                                      const char *of)
{
    PyArrayObject *narrow = NULL;
    PyArrayObject *wide = ndq_contiguous(array, NPY_INT64);
    if (!wide)
        return NULL;
    const npy_intp n = PyArray_SIZE(wide);
    const npy_int64 *values = PyArray_DATA(wide);
    const npy_intp bad = first_outside(values, n, low, high);
    if (bad < n)
        PyErr_Format(PyExc_ValueError, "%s: must be within the range of %s, got %lld at index %zd", name, of,
                     (long long)values[bad], (Py_ssize_t)bad);
    else
        narrow = ndq_contiguous(wide, NPY_INT32);
    ndq_release(wide);
    return narrow;
}

PyArrayObject *ndq_bias_array(PyObject *object, const char *name)
{
    PyArrayObject *bias = NULL;
    PyArrayObject *array = any_array(object, name);
    if (!array)
        return NULL;
    if (PyArray_TYPE(array) == NPY_INT32 && PyArray_ISCARRAY_RO(array))
        return array;
    if (PyArray_ISINTEGER(array))
        bias = narrow_to_int32(array, name, INT32_MIN, INT32_MAX, "int32");
    else if (PyArray_ISFLOAT(array))
        bias = ndq_contiguous(array, NPY_FLOAT);
    else
        return refuse_dtype(array, name, "integers or floats");
    ndq_release(array);
    return bias;
}

int ndq_check_shape(PyArrayObject *array, const char *name, int ndim, const npy_intp *shape)
{
    return has_shape(array, ndim, shape) ? 0 : refuse_shape(array, name, ndim, shape);
}

int ndq_check_product_params(const ndq_params_object *object, const char *name)
{
    const ndq_params *params = &object->params;
    const double low = params->qmin < 0 ? -128 : 0;
    const char *wrong = params->codes > NDQ_S8     ? "has codes of more than 8 bits"
                        : params->float_offset     ? "has a float offset (zero_aligned=False)"
                        : object->group_size       ? "has a scale per group"
                                                   : NULL;
    if (wrong) {
        PyErr_Format(PyExc_ValueError, "%s: %s, so there is no integer product; compute in float with fake_quantize",
                     name, wrong);
        return -1;
    }
    if (!params->fits_f32) {
        PyErr_Format(PyExc_ValueError, "%s: a scale is outside the range of float32, in which this is computed", name);
        return -1;
    }
    for (size_t c = 0; c < params->channels; c++)
        if (params->f64.zp[c] < low || params->f64.zp[c] > low + 255) {
            PyErr_Format(PyExc_ValueError, "%s: zero point %lld of channel %zu is no code of %s: no integer product",
                         name, (long long)params->f64.zp[c], c, params->qmin < 0 ? "int8" : "uint8");
            return -1;
        }
    return 0;
}

int ndq_zero_point(PyObject *object, const char *name, int type, int32_t *value)
{
    PyObject *index = PyBool_Check(object) ? NULL : PyNumber_Index(object);
    if (!index) {
        PyErr_Format(PyExc_TypeError, "%s: expected one integer, got %R", name, (PyObject *)Py_TYPE(object));
        return -1;
    }
    int overflow;
    const long number = PyLong_AsLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    *value = (int32_t)number;
    if (!overflow && number >= lowest_code(type) && number <= lowest_code(type) + 255)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: must be within the range of %s, got %S", name,
                 type == NPY_BYTE ? "int8" : "uint8", object);
    return -1;
}

PyArrayObject *ndq_zero_points(PyObject *object, const char *name, int type, npy_intp n)
{
    PyArrayObject *given = NULL, *zero = (PyArrayObject *)PyArray_SimpleNew(1, &n, NPY_INT32);
    int32_t value;
    if (!zero)
        return NULL;
    if (PyLong_Check(object) || (PyArray_Check(object) ? PyArray_NDIM((PyArrayObject *)object) == 0
                                                       : PyArray_CheckScalar(object))) {
        if (ndq_zero_point(object, name, type, &value) < 0)
            goto error;
        for (npy_intp i = 0; i < n; i++)
            ((int32_t *)PyArray_DATA(zero))[i] = value;
        return zero;
    }
    ndq_release(zero);
    zero = NULL;
    given = ndq_integer_array(object, name);
    if (given && ndq_check_shape(given, name, 1, &n) == 0)
        zero = narrow_to_int32(given, name, lowest_code(type), lowest_code(type) + 255,
                               type == NPY_BYTE ? "int8" : "uint8");
    ndq_release(given);
    return zero;
error:
    ndq_release(zero);
    return NULL;
}
