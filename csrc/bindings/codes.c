/* Integer forms of what lies between products: arguments in, kernel called, results out. All on codes of 8 bits. */
#include "codes.h"
#include "module.h"

/* ---- Codes and how they are read and written ---- */

/* Per tensor, and rounded by multiplication in float32. */
static ndq_params_object *take_params(PyObject *module, PyObject *qparams, const char *name)
{
    ndq_params_object *params = ndq_params_of(module, qparams);
    if (!params)
        return NULL;
    if (ndq_check_per_tensor(params, name) == 0) {
        if (params->params.rule == NDQ_MULTIPLY)
            return params;
        PyErr_Format(PyExc_ValueError, "%s: there is no integer form for the rounding of its profile", name);
    }
    Py_DECREF((PyObject *)params);
    return NULL;
}

int ndq_take_operand(PyObject *module, PyObject *qparams, const char *name, ndq_byte_operand *operand, int *type)
{
    ndq_params_object *params = take_params(module, qparams, name);
    if (!params)
        return -1;
    *operand = ndq_byte_operand_of(&params->params);
    *type = params->params.qmin < 0 ? NPY_BYTE : NPY_UBYTE;
    Py_DECREF((PyObject *)params);
    return 0;
}

int ndq_take_result(PyObject *module, PyObject *qparams, ndq_activation activation, ndq_byte_result *result, int *type)
{
    ndq_params_object *params = take_params(module, qparams, "out_qparams");
    if (!params)
        return -1;
    *result = ndq_byte_result_of(&params->params, activation);
    *type = params->params.qmin < 0 ? NPY_BYTE : NPY_UBYTE;
    Py_DECREF((PyObject *)params);
    return 0;
}

static PyArrayObject *take_bytes(PyObject *object, const char *name, int type)
{
    PyArrayObject *array = ndq_byte_array(object, name);
    if (!array || PyArray_TYPE(array) == type)
        return array;
    PyErr_Format(PyExc_TypeError, "%s: expected codes of its QParams, %s, got dtype %S", name,
                 type == NPY_BYTE ? "int8" : "uint8", (PyObject *)PyArray_DESCR(array));
    ndq_release(array);
    return NULL;
}

/* An output like `x`, in C order or channels-last. */
static PyArrayObject *take_like(PyObject *out, PyArrayObject *x, int type, bool channels_last)
{
    const int ndim = PyArray_NDIM(x);
    return ndim == 4 ? ndq_image_output(out, "out", PyArray_DIMS(x), type, channels_last)
                     : ndq_output(out, "out", ndim, PyArray_DIMS(x), type);
}

/* An output may be an input of the same layout itself; any other overlap is an error. */
static int check_same_or_apart(PyArrayObject *out, PyArrayObject *in, const char *name)
{
    return PyArray_DATA(out) == PyArray_DATA(in) && PyArray_SIZE(out) == PyArray_SIZE(in)
               ? 0
               : ndq_check_disjoint(out, "out", in, name);
}

static uint8_t flip_of(PyArrayObject *codes)
{
    return PyArray_TYPE(codes) == NPY_BYTE ? 0x80 : 0;
}

/* ---- Elementwise ---- */

/* combine_codes(a, a_qparams, b, b_qparams, out_qparams, multiply, activation, out) */
static PyObject *py_combine_codes(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    PyArrayObject *a = NULL, *b = NULL, *first = NULL, *second = NULL, *out = NULL;
    PyObject *result = NULL;
    int a_type, b_type, type;
    ndq_activation activation;
    ndq_two_codes call = {.kernels = ndq_kernels_in_use()};
    if (ndq_check_count("combine_codes", count, 8) < 0 ||
        ndq_take_operand(module, args[1], "a_qparams", &call.operands.a, &a_type) < 0 ||
        ndq_take_operand(module, args[3], "b_qparams", &call.operands.b, &b_type) < 0 ||
        ndq_take_activation(args[6], &activation) < 0 ||
        ndq_take_result(module, args[4], activation, &call.result, &type) < 0 ||
        !(a = take_bytes(args[0], "a", a_type)) || !(b = take_bytes(args[2], "b", b_type)) ||
        ndq_check_same_shape(b, "b", a, "a") < 0 ||
        !(out = take_like(args[7], a, type, ndq_is_channels_last(a))))
        goto exit;
    const bool channels_last = ndq_is_channels_last(out);
    if (!(first = ndq_in_layout(a, channels_last)) || !(second = ndq_in_layout(b, channels_last)) ||
        check_same_or_apart(out, first, "a") < 0 || check_same_or_apart(out, second, "b") < 0)
        goto exit;
    call.multiply = args[5] == Py_True;
    call.n = (size_t)PyArray_SIZE(a);
    call.a = PyArray_DATA(first);
    call.b = PyArray_DATA(second);
    call.out = PyArray_DATA(out);
    Py_BEGIN_ALLOW_THREADS
    ndq_combine_codes(&call);
    Py_END_ALLOW_THREADS
    result = (PyObject *)ndq_retain(out);
exit:
    ndq_release(a);
    ndq_release(b);
    ndq_release(first);
    ndq_release(second);
    ndq_release(out);
    return result;
}

/* lookup_codes(q, table, out) */
static PyObject *py_lookup_codes(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    const npy_intp entries = 256;
    PyArrayObject *q = NULL, *table = NULL, *entry = NULL, *in = NULL, *out = NULL;
    PyObject *result = NULL;
    if (ndq_check_count("lookup_codes", count, 3) < 0 || !(q = ndq_byte_array(args[0], "q")) ||
        !(table = ndq_byte_array(args[1], "table")) || ndq_check_shape(table, "table", 1, &entries) < 0 ||
        !(entry = ndq_contiguous(table, PyArray_TYPE(table))) ||
        !(out = take_like(args[2], q, PyArray_TYPE(table), ndq_is_channels_last(q))) ||
        !(in = ndq_in_layout(q, ndq_is_channels_last(out))) || check_same_or_apart(out, in, "q") < 0 ||
        ndq_check_disjoint(out, "out", entry, "table") < 0)
        goto exit;
    const ndq_lookup call = {.n = (size_t)PyArray_SIZE(in),
                             .q = PyArray_DATA(in),
                             .table = PyArray_DATA(entry),
                             .q_signed = PyArray_TYPE(q) == NPY_BYTE,
                             .out = PyArray_DATA(out)};
    Py_BEGIN_ALLOW_THREADS
    ndq_lookup_codes(&call);
    Py_END_ALLOW_THREADS
    result = (PyObject *)ndq_retain(out);
exit:
    ndq_release(q);
    ndq_release(table);
    ndq_release(entry);
    ndq_release(in);
    ndq_release(out);
    return result;
}

/* ---- Images ---- */

/* Fills the fields of `call` that say where the image and the output are. */
static PyArrayObject *take_images(PyArrayObject *x, npy_intp rows, npy_intp columns, int type, PyObject *out,
                                  ndq_pool *call)
{
    const npy_intp shape[] = {PyArray_DIM(x, 0), PyArray_DIM(x, 1), rows, columns};
    PyArrayObject *y = ndq_image_output(out, "out", shape, type, ndq_is_channels_last(x));
    if (!y || ndq_check_disjoint(y, "out", x, "q") < 0) {
        ndq_release(y);
        return NULL;
    }
    call->N = (size_t)shape[0];
    call->C = (size_t)shape[1];
    call->in = PyArray_DATA(x);
    call->in_n = PyArray_STRIDE(x, 0);
    call->in_c = shape[1] == 1 ? 1 : PyArray_STRIDE(x, 1);
    call->in_y = PyArray_STRIDE(x, 2);
    call->in_x = PyArray_STRIDE(x, 3);
    call->out = PyArray_DATA(y);
    call->out_n = (size_t)PyArray_STRIDE(y, 0);
    call->out_c = shape[1] == 1 ? 1 : (size_t)PyArray_STRIDE(y, 1);
    call->out_y = (size_t)PyArray_STRIDE(y, 2);
    call->out_x = (size_t)PyArray_STRIDE(y, 3);
    return y;
}

/* `rows` rows of contiguous int32: begin, end and count of windows, or indices alone. */
PyArrayObject *ndq_take_indices(PyObject *object, const char *name, npy_intp rows)
{
    PyArrayObject *given = ndq_integer_array(object, name);
    PyArrayObject *indices = given ? ndq_contiguous(given, NPY_INT32) : NULL;
    ndq_release(given);
    const npy_intp shape[] = {rows, indices && PyArray_NDIM(indices) == 2 ? PyArray_DIM(indices, 1) : 0};
    if (indices && ndq_check_shape(indices, name, 2, shape) < 0) {
        ndq_release(indices);
        return NULL;
    }
    return indices;
}

static int refuse_window(const char *name, npy_intp i, int32_t begin, int32_t end, int32_t count, npy_intp size)
{
    PyErr_Format(PyExc_ValueError, "%s: window %zd from %d to %d of %d must lie in 0 to %zd and not be empty", name,
                 (Py_ssize_t)i, (int)begin, (int)end, (int)count, (Py_ssize_t)size);
    return -1;
}

/* Windows of one axis from a (3, outputs) array: begin, end, count. The longest goes to *longest. */
int ndq_take_windows(PyArrayObject *windows, const char *name, npy_intp size, Py_ssize_t step, ndq_pool_axis *axis,
                        npy_intp *longest)
{
    const npy_intp n = PyArray_DIM(windows, 1);
    const int32_t *begin = PyArray_DATA(windows), *end = begin + n, *count = end + n;
    *longest = 0;
    for (npy_intp i = 0; i < n; i++) {
        if (begin[i] < 0 || end[i] > size || begin[i] >= end[i] || count[i] < 1)
            return refuse_window(name, i, begin[i], end[i], count[i], size);
        *longest = end[i] - begin[i] > *longest ? end[i] - begin[i] : *longest;
    }
    if (step < 1) {
        PyErr_Format(PyExc_ValueError, "step: must be at least 1, got %zd", step);
        return -1;
    }
    *axis = (ndq_pool_axis){(size_t)size, (size_t)n, (size_t)step, begin, end, count};
    return 0;
}

/* Sums of 255 for each pixel, and the zero points taken from them, must fit int32. */
int ndq_check_window_sum(npy_intp rows, npy_intp columns)
{
    if (!columns || rows <= INT32_MAX / 256 / columns)
        return 0;
    PyErr_Format(PyExc_OverflowError, "windows of %zd x %zd pixels could pass the range of int32", (Py_ssize_t)rows,
                 (Py_ssize_t)columns);
    return -1;
}

/* pool_codes(q, rows, columns, steps, qparams, out_qparams, out): the largest if out_qparams is None, else the mean */
static PyObject *py_pool_codes(PyObject *module, PyObject *args)
{
    PyObject *q_arg, *rows_arg, *columns_arg, *qparams, *out_qparams, *out_arg, *result = NULL;
    PyArrayObject *q = NULL, *rows = NULL, *columns = NULL, *out = NULL;
    Py_ssize_t step_y, step_x;
    npy_intp height, width;
    int type;
    if (!PyArg_ParseTuple(args, "OOO(nn)OOO:pool_codes", &q_arg, &rows_arg, &columns_arg, &step_y, &step_x, &qparams,
                          &out_qparams, &out_arg))
        return NULL;
    ndq_pool call = {.kernels = ndq_kernels_in_use(), .average = out_qparams != Py_None};
    if (call.average && ndq_take_operand(module, qparams, "qparams", &call.operand, &type) < 0)
        goto exit;
    q = call.average ? take_bytes(q_arg, "q", type) : ndq_byte_array(q_arg, "q");
    if (!q || ndq_check_ndim(q, "q", 4) < 0)
        goto exit;
    type = PyArray_TYPE(q);
    call.operand.flip = flip_of(q);
    if (call.average && ndq_take_result(module, out_qparams, NDQ_NO_ACTIVATION, &call.result, &type) < 0)
        goto exit;
    if (!(rows = ndq_take_indices(rows_arg, "rows", 3)) || !(columns = ndq_take_indices(columns_arg, "columns", 3)) ||
        ndq_take_windows(rows, "rows", PyArray_DIM(q, 2), step_y, &call.y, &height) < 0 ||
        ndq_take_windows(columns, "columns", PyArray_DIM(q, 3), step_x, &call.x, &width) < 0 ||
        ndq_check_window_sum(height, width) < 0 ||
        !(out = take_images(q, (npy_intp)call.y.out, (npy_intp)call.x.out, type, out_arg, &call)))
        goto exit;
    ndq_status status;
    Py_BEGIN_ALLOW_THREADS
    status = ndq_pool_codes(&call);
    Py_END_ALLOW_THREADS
    if (ndq_check_status(status) == 0)
        result = (PyObject *)ndq_retain(out);
exit:
    ndq_release(q);
    ndq_release(rows);
    ndq_release(columns);
    ndq_release(out);
    return result;
}

int ndq_check_indices(PyArrayObject *indices, const char *name, npy_intp size)
{
    const int32_t *index = PyArray_DATA(indices);
    for (npy_intp i = 0; i < PyArray_SIZE(indices); i++)
        if (index[i] < 0 || index[i] >= size) {
            PyErr_Format(PyExc_ValueError, "%s: must be 0 or more and less than %zd, got %d", name, (Py_ssize_t)size,
                         (int)index[i]);
            return -1;
        }
    return 0;
}

/* resize_codes(q, rows, columns, out) */
static PyObject *py_resize_codes(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    PyArrayObject *q = NULL, *rows = NULL, *columns = NULL, *out = NULL;
    PyObject *result = NULL;
    ndq_pool call = {.kernels = NULL};
    if (ndq_check_count("resize_codes", count, 4) < 0 || !(q = ndq_byte_array(args[0], "q")) ||
        ndq_check_ndim(q, "q", 4) < 0 || !(rows = ndq_take_indices(args[1], "rows", 1)) ||
        !(columns = ndq_take_indices(args[2], "columns", 1)) || ndq_check_indices(rows, "rows", PyArray_DIM(q, 2)) < 0 ||
        ndq_check_indices(columns, "columns", PyArray_DIM(q, 3)) < 0 ||
        !(out = take_images(q, PyArray_DIM(rows, 1), PyArray_DIM(columns, 1), PyArray_TYPE(q), args[3], &call)))
        goto exit;
    call.y.out = (size_t)PyArray_DIM(rows, 1);
    call.x.out = (size_t)PyArray_DIM(columns, 1);
    Py_BEGIN_ALLOW_THREADS
    ndq_resize_codes(&call, PyArray_DATA(rows), PyArray_DATA(columns));
    Py_END_ALLOW_THREADS
    result = (PyObject *)ndq_retain(out);
exit:
    ndq_release(q);
    ndq_release(rows);
    ndq_release(columns);
    ndq_release(out);
    return result;
}

/* ---- Rows ---- */

/* Codes (..., length) in C order. */
static PyArrayObject *take_rows(PyObject *object, size_t *rows, size_t *length)
{
    PyArrayObject *given = ndq_byte_array(object, "q");
    PyArrayObject *q = given ? ndq_contiguous(given, PyArray_TYPE(given)) : NULL;
    ndq_release(given);
    if (q && PyArray_NDIM(q) == 0) {
        PyErr_SetString(PyExc_ValueError, "q: expected rows, got a single code");
        Py_CLEAR(q);
    }
    if (!q)
        return NULL;
    *length = (size_t)PyArray_DIM(q, PyArray_NDIM(q) - 1);
    *rows = *length ? (size_t)PyArray_SIZE(q) / *length : 0;
    return q;
}

static PyArrayObject *take_rows_output(PyObject *out, PyArrayObject *q, int type)
{
    PyArrayObject *y = ndq_output(out, "out", PyArray_NDIM(q), PyArray_DIMS(q), type);
    if (y && check_same_or_apart(y, q, "q") == 0)
        return y;
    ndq_release(y);
    return NULL;
}

int ndq_take_softmax_mask(PyArrayObject *mask, ndq_softmax *call)
{
    const npy_intp rows = PyArray_NDIM(mask) == 2 ? PyArray_DIM(mask, 0) : 0;
    if (PyArray_NDIM(mask) != 2 || PyArray_DIM(mask, 1) != (npy_intp)call->length ||
        (call->rows ? rows < 1 || call->rows % (size_t)rows : 0)) {
        PyErr_Format(PyExc_ValueError, "mask: expected rows of %zu whose number divides %zu", call->length, call->rows);
        return -1;
    }
    call->mask = PyArray_DATA(mask);
    call->mask_rows = rows ? (size_t)rows : 1;
    return 0;
}

/* softmax_codes(q, exponential, out_qparams, mask, out) */
static PyObject *py_softmax_codes(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    const npy_intp entries = 256;
    PyArrayObject *q = NULL, *given = NULL, *table = NULL, *bytes = NULL, *mask = NULL, *out = NULL;
    PyObject *result = NULL;
    int type;
    ndq_status status;
    ndq_softmax call = {.kernels = ndq_kernels_in_use()};
    if (ndq_check_count("softmax_codes", count, 5) < 0 ||
        ndq_take_result(module, args[2], NDQ_NO_ACTIVATION, &call.result, &type) < 0 ||
        !(q = take_rows(args[0], &call.rows, &call.length)) || !(given = ndq_integer_array(args[1], "exponential")) ||
        !(table = ndq_contiguous(given, NPY_UINT32)) || ndq_check_shape(table, "exponential", 1, &entries) < 0 ||
        !(out = take_rows_output(args[4], q, type)))
        goto exit;
    if (args[3] != Py_None &&
        (!(bytes = ndq_byte_array(args[3], "mask")) || !(mask = ndq_contiguous(bytes, PyArray_TYPE(bytes))) ||
         ndq_take_softmax_mask(mask, &call) < 0 || ndq_check_disjoint(out, "out", mask, "mask") < 0))
        goto exit;
    call.x = PyArray_DATA(q);
    call.flip = flip_of(q);
    call.exponential = PyArray_DATA(table);
    call.out = PyArray_DATA(out);
    Py_BEGIN_ALLOW_THREADS
    status = ndq_softmax_codes(&call);
    Py_END_ALLOW_THREADS
    if (ndq_check_status(status) == 0)
        result = (PyObject *)ndq_retain(out);
exit:
    ndq_release(q);
    ndq_release(given);
    ndq_release(table);
    ndq_release(bytes);
    ndq_release(mask);
    ndq_release(out);
    return result;
}

PyArrayObject *ndq_take_floats(PyObject *object, const char *name, size_t length)
{
    const npy_intp n = (npy_intp)length;
    PyArrayObject *given = ndq_float_array(object, name);
    PyArrayObject *floats = given ? ndq_contiguous(given, NPY_FLOAT) : NULL;
    ndq_release(given);
    if (floats && ndq_check_shape(floats, name, 1, &n) < 0) {
        ndq_release(floats);
        return NULL;
    }
    return floats;
}

/* layer_norm_codes(q, gain, offset, eps, out_qparams, out) */
static PyObject *py_layer_norm_codes(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    PyArrayObject *q = NULL, *gain = NULL, *offset = NULL, *out = NULL;
    PyObject *result = NULL;
    int type;
    double eps;
    ndq_layer_norm call = {.kernels = ndq_kernels_in_use()};
    if (ndq_check_count("layer_norm_codes", count, 6) < 0 || ndq_number(args[3], "eps", &eps) < 0 ||
        ndq_take_result(module, args[4], NDQ_NO_ACTIVATION, &call.result, &type) < 0 ||
        !(q = take_rows(args[0], &call.rows, &call.length)) || !(gain = ndq_take_floats(args[1], "gain", call.length)) ||
        !(offset = ndq_take_floats(args[2], "offset", call.length)) || !(out = take_rows_output(args[5], q, type)))
        goto exit;
    if (call.length > NDQ_LONGEST_ROW) {
        PyErr_Format(PyExc_ValueError, "q: rows of at most %d codes, got %zu", (int)NDQ_LONGEST_ROW, call.length);
        goto exit;
    }
    call.x = PyArray_DATA(q);
    call.flip = flip_of(q);
    call.eps = (float)eps;
    call.gain = PyArray_DATA(gain);
    call.offset = PyArray_DATA(offset);
    call.out = PyArray_DATA(out);
    Py_BEGIN_ALLOW_THREADS
    ndq_layer_norm_codes(&call);
    Py_END_ALLOW_THREADS
    result = (PyObject *)ndq_retain(out);
exit:
    ndq_release(q);
    ndq_release(gain);
    ndq_release(offset);
    ndq_release(out);
    return result;
}

#define FAST(name, signature, doc) \
    {#name, (PyCFunction)(void (*)(void))py_##name, METH_FASTCALL, #name signature "\n--\n\n" doc}

PyMethodDef ndq_codes_methods[] = {
    FAST(combine_codes, "(a, a_qparams, b, b_qparams, out_qparams, multiply, activation, out, /)",
         "Codes of the sum or the product of two arrays of codes."),
    FAST(lookup_codes, "(q, table, out, /)", "table[code - lowest code] for each code."),
    {"pool_codes", py_pool_codes, METH_VARARGS,
     "pool_codes(q, rows, columns, steps, qparams, out_qparams, out, /)\n--\n\n"
     "The largest code of each window, or with out_qparams its mean. rows, columns: begin, end and count of windows."},
    FAST(resize_codes, "(q, rows, columns, out, /)", "q[:, :, rows][..., columns]."),
    FAST(softmax_codes, "(q, exponential, out_qparams, mask, out, /)", "Softmax of rows of codes by a table of exp."),
    FAST(layer_norm_codes, "(q, gain, offset, eps, out_qparams, out, /)",
         "Layer normalization of rows of codes; eps is in squares of their scale."),
    {NULL, NULL, 0, NULL},
};
