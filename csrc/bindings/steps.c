/* A maker for each kind of step: every size is checked here, so that steps need not. */
#include "steps.h"

#include "codes.h"
#include "conv.h"
#include "dynamic.h"
#include "matmul.h"

static size_t bytes_of(const ndq_step_maker *m, size_t value)
{
    return m->value[value].bytes;
}

static int check_bytes(const ndq_step_maker *m, size_t value, size_t bytes)
{
    if (bytes_of(m, value) == bytes)
        return 0;
    PyErr_Format(PyExc_ValueError, "step %zu (%s): value %zu has %zu bytes, expected %zu", m->number, m->kind, value,
                 bytes_of(m, value), bytes);
    return -1;
}

static int check_sizes(const ndq_step_maker *m, const Py_ssize_t *sizes, int count)
{
    for (int i = 0; i < count; i++)
        if (sizes[i] < 0) {
            PyErr_Format(PyExc_ValueError, "step %zu (%s): sizes must not be negative, got %zd", m->number, m->kind,
                         sizes[i]);
            return -1;
        }
    return 0;
}

/* The steps compute in float32 with one scale. */
static int check_params(const ndq_params_object *params)
{
    if (ndq_check_per_tensor(params, "qparams") < 0)
        return -1;
    if (ndq_is_f32(ndq_arithmetic_of(&params->params, true)))
        return 0;
    PyErr_SetString(PyExc_ValueError, "qparams: a plan has no step for the rounding of this profile");
    return -1;
}

/* quantize, dequantize: (qparams). One float32 stands beside each code. */
static int make_elementwise(ndq_step_maker *m, bool to_codes)
{
    PyObject *qparams;
    if (!PyArg_ParseTuple(m->constants, "O", &qparams))
        return -1;
    ndq_params_object *params = ndq_params_of(m->module, qparams);
    if (!params || PyList_Append(m->kept, (PyObject *)params) < 0) {
        Py_XDECREF((PyObject *)params);
        return -1;
    }
    Py_DECREF((PyObject *)params);
    const size_t codes = to_codes ? m->step->out : m->step->in[0], n = bytes_of(m, codes);
    m->step->work.elementwise = (ndq_elementwise){
        .params = &params->params,
        .arithmetic = ndq_arithmetic_of(&params->params, true),
        .geometry = {.channels = 1, .inner = n},
        .n = n,
        .codes = params->params.codes,
    };
    m->step->run = to_codes ? ndq_step_quantize : ndq_step_dequantize;
    return check_params(params) < 0 ? -1 : check_bytes(m, to_codes ? m->step->in[0] : m->step->out, n * sizeof(float));
}

static int make_quantize(ndq_step_maker *m)
{
    return make_elementwise(m, true);
}

static int make_dequantize(ndq_step_maker *m)
{
    return make_elementwise(m, false);
}

/* linear: (rows, x_qparams, packed, out_qparams, requantization, activation), as of linear_integer. */
static int make_linear(ndq_step_maker *m)
{
    ndq_linear_arguments arguments;
    ndq_gemm_call *call = &m->step->work.gemm;
    Py_ssize_t rows;
    if (!PyArg_ParseTuple(m->constants, "nOOOOO", &rows, &arguments.x_qparams, &arguments.packed,
                          &arguments.out_qparams, &arguments.requantization, &arguments.activation))
        return -1;
    if (rows < 0) {
        PyErr_Format(PyExc_ValueError, "step %zu (linear): rows must not be negative, got %zd", m->number, rows);
        return -1;
    }
    if (ndq_linear_constants(m->module, &arguments, call) < 0 ||
        PyList_Append(m->kept, arguments.packed) < 0)
        return -1;
    size_t in, out;
    if (__builtin_mul_overflow((size_t)rows, call->w->K, &in) ||
        __builtin_mul_overflow((size_t)rows, call->w->N * (call->output == NDQ_GEMM_CODES ? 1 : 4), &out)) {
        PyErr_NoMemory();
        return -1;
    }
    call->M = (size_t)rows;
    call->a_stride = (ptrdiff_t)call->w->K;
    m->step->run = ndq_step_linear;
    return check_bytes(m, m->step->in[0], in) < 0 ? -1 : check_bytes(m, m->step->out, out);
}

/* Strides of contiguous images of C channels, with the channels last or first; the size of the array, or SIZE_MAX if it
 * passes the range of size_t. */
typedef struct {
    size_t n, c, y, x;
} image_strides;

static size_t lay_out_images(size_t N, size_t C, size_t H, size_t W, size_t size, bool channels_last, image_strides *s)
{
    size_t pixels, values, image, bytes;
    *s = (image_strides){0, 0, 0, 0};
    if (__builtin_mul_overflow(H, W, &pixels) || __builtin_mul_overflow(pixels, C, &values) ||
        __builtin_mul_overflow(values, size, &image) || __builtin_mul_overflow(image, N, &bytes))
        return SIZE_MAX;
    *s = channels_last ? (image_strides){image, size, W * C * size, C * size}
                       : (image_strides){image, pixels * size, W * size, size};
    return bytes;
}

/* Where the images of a layer with sizes from `call` are: N of C channels and H x W pixels, O of outputs. */
static int place_layer(const ndq_step_maker *m, size_t N, size_t C, size_t H, size_t W, bool last_in, size_t O,
                       bool last_out, ndq_conv_call *call)
{
    const size_t size = call->product.output == NDQ_GEMM_CODES ? 1 : sizeof(float);
    image_strides in, out;
    const size_t in_bytes = lay_out_images(N, C, H, W, 1, last_in, &in);
    const size_t out_bytes = lay_out_images(N, O, call->y.out, call->x.out, size, last_out, &out);
    if (check_bytes(m, m->step->in[0], in_bytes) < 0 || check_bytes(m, m->step->out, out_bytes) < 0)
        return -1;
    call->N = N;
    call->in_n = (ptrdiff_t)in.n;
    call->in_c = (ptrdiff_t)in.c;
    call->in_y = (ptrdiff_t)in.y;
    call->in_x = (ptrdiff_t)in.x;
    call->out_n = out.n;
    call->out_c = out.c;
    call->out_y = out.y;
    call->out_x = out.x;
    return 0;
}

static int check_image_sizes(const ndq_step_maker *m, Py_ssize_t N, Py_ssize_t H, Py_ssize_t W)
{
    if (N >= 0 && H >= 0 && W >= 0)
        return 0;
    PyErr_Format(PyExc_ValueError, "step %zu (%s): sizes must not be negative, got %zd, %zd, %zd", m->number, m->kind, N,
                 H, W);
    return -1;
}

/* conv2d: (images, rows, columns, channels last in, channels last out, x_qparams, packed, out_qparams, sizes, requantization,
 * activation), as of conv2d_requantized. */
static int make_conv2d(ndq_step_maker *m)
{
    ndq_linear_arguments arguments;
    ndq_conv_call *call = &m->step->work.conv;
    PyObject *sizes;
    Py_ssize_t N, H, W;
    int last_in, last_out;
    if (!PyArg_ParseTuple(m->constants, "nnnppOOOOOO", &N, &H, &W, &last_in, &last_out, &arguments.x_qparams,
                          &arguments.packed, &arguments.out_qparams, &sizes, &arguments.requantization, &arguments.activation))
        return -1;
    if (check_image_sizes(m, N, H, W) < 0 || ndq_conv_constants(m->module, &arguments, sizes, H, W, call) < 0 ||
        PyList_Append(m->kept, arguments.packed) < 0)
        return -1;
    const ndq_conv_weights *w = call->w;
    m->step->run = ndq_step_conv2d;
    return place_layer(m, (size_t)N, w->C * w->groups, (size_t)H, (size_t)W, last_in, w->O, last_out, call);
}

/* conv_transpose2d: (images, rows, columns, channels last in, channels last out, x_qparams, packed, out_qparams,
 * requantization, activation), as of conv_transpose2d_requantized. */
static int make_conv_transpose2d(ndq_step_maker *m)
{
    ndq_linear_arguments arguments;
    ndq_transposing *work = &m->step->work.transposed;
    Py_ssize_t N, H, W;
    int last_in, last_out;
    if (!PyArg_ParseTuple(m->constants, "nnnppOOOOO", &N, &H, &W, &last_in, &last_out, &arguments.x_qparams,
                          &arguments.packed, &arguments.out_qparams, &arguments.requantization, &arguments.activation))
        return -1;
    if (check_image_sizes(m, N, H, W) < 0 ||
        ndq_transposed_constants(m->module, &arguments, H, W, &work->call, &work->weights) < 0 ||
        PyList_Append(m->kept, arguments.packed) < 0)
        return -1;
    const ndq_transposed_weights *w = work->weights;
    m->step->run = ndq_step_conv_transpose2d;
    return place_layer(m, (size_t)N, w->C * w->groups, (size_t)H, (size_t)W, last_in, w->O, last_out, &work->call);
}

/* clamp: (lowest code, highest code, signed). */
static int make_clamp(ndq_step_maker *m)
{
    int lowest, highest, is_signed;
    if (!PyArg_ParseTuple(m->constants, "iip", &lowest, &highest, &is_signed))
        return -1;
    const uint8_t flip = is_signed ? 0x80 : 0;
    const size_t n = bytes_of(m, m->step->out);
    m->step->work.clamp = (ndq_clamp_codes){n, flip, (uint8_t)lowest ^ flip, (uint8_t)highest ^ flip};
    m->step->run = ndq_step_clamp;
    return check_bytes(m, m->step->in[0], n);
}

/* add, multiply: (a_qparams, b_qparams, out_qparams, activation). */
static int make_combine(ndq_step_maker *m, bool multiply)
{
    PyObject *a, *b, *out, *number;
    ndq_activation activation;
    int type;
    ndq_two_codes *call = &m->step->work.two_codes;
    if (!PyArg_ParseTuple(m->constants, "OOOO", &a, &b, &out, &number) ||
        ndq_take_activation(number, &activation) < 0 ||
        ndq_take_operand(m->module, a, "a_qparams", &call->operands.a, &type) < 0 ||
        ndq_take_operand(m->module, b, "b_qparams", &call->operands.b, &type) < 0 ||
        ndq_take_result(m->module, out, activation, &call->result, &type) < 0)
        return -1;
    call->multiply = multiply;
    call->n = bytes_of(m, m->step->out);
    m->step->run = ndq_step_combine;
    return check_bytes(m, m->step->in[0], call->n) < 0 ? -1 : check_bytes(m, m->step->in[1], call->n);
}

static int make_add(ndq_step_maker *m)
{
    return make_combine(m, false);
}

static int make_multiply(ndq_step_maker *m)
{
    return make_combine(m, true);
}

/* A copy of `array`, whose reference it takes over, in memory that nobody else can write to; a borrowed reference. */
static PyArrayObject *keep_copy(ndq_step_maker *m, PyArrayObject *array)
{
    PyObject *copy = array ? PyArray_NewCopy(array, NPY_CORDER) : NULL;
    const int status = copy ? PyList_Append(m->kept, copy) : -1;
    ndq_release(array);
    Py_XDECREF(copy);
    return status < 0 ? NULL : (PyArrayObject *)copy;
}

/* int32 numbers in `rows` rows. */
static PyArrayObject *keep_indices(ndq_step_maker *m, PyObject *object, const char *name, npy_intp rows)
{
    return keep_copy(m, ndq_take_indices(object, name, rows));
}

/* The fields that say where images of codes are: (images, channels, rows, columns), channels last in, last out. */
static int place_images(const ndq_step_maker *m, const Py_ssize_t *sizes, bool last_in, bool last_out, ndq_pool *call)
{
    image_strides in, out;
    if (check_sizes(m, sizes, 4) < 0)
        return -1;
    const size_t N = (size_t)sizes[0], C = (size_t)sizes[1];
    if (check_bytes(m, m->step->in[0], lay_out_images(N, C, (size_t)sizes[2], (size_t)sizes[3], 1, last_in, &in)) < 0 ||
        check_bytes(m, m->step->out, lay_out_images(N, C, call->y.out, call->x.out, 1, last_out, &out)) < 0)
        return -1;
    call->N = N;
    call->C = C;
    call->in_n = (ptrdiff_t)in.n;
    call->in_c = (ptrdiff_t)in.c;
    call->in_y = (ptrdiff_t)in.y;
    call->in_x = (ptrdiff_t)in.x;
    call->out_n = out.n;
    call->out_c = out.c;
    call->out_y = out.y;
    call->out_x = out.x;
    return 0;
}

/* pool: ((images, channels, rows, columns), channels last in, channels last out, windows along y, along x, steps,
 * signed, qparams, out_qparams), as of pool_codes. */
static int make_pool(ndq_step_maker *m)
{
    Py_ssize_t sizes[4], step_y, step_x;
    int last_in, last_out, is_signed, type;
    npy_intp height, width;
    PyObject *rows_arg, *columns_arg, *qparams, *out_qparams;
    PyArrayObject *rows, *columns;
    ndq_pool *call = &m->step->work.pool;
    if (!PyArg_ParseTuple(m->constants, "(nnnn)ppOO(nn)pOO", &sizes[0], &sizes[1], &sizes[2], &sizes[3], &last_in,
                          &last_out, &rows_arg, &columns_arg, &step_y, &step_x, &is_signed, &qparams, &out_qparams))
        return -1;
    call->average = out_qparams != Py_None;
    call->operand.flip = is_signed ? 0x80 : 0;
    if ((call->average && (ndq_take_operand(m->module, qparams, "qparams", &call->operand, &type) < 0 ||
                           ndq_take_result(m->module, out_qparams, NDQ_NO_ACTIVATION, &call->result, &type) < 0)) ||
        !(rows = keep_indices(m, rows_arg, "rows", 3)) || !(columns = keep_indices(m, columns_arg, "columns", 3)) ||
        ndq_take_windows(rows, "rows", sizes[2], step_y, &call->y, &height) < 0 ||
        ndq_take_windows(columns, "columns", sizes[3], step_x, &call->x, &width) < 0 ||
        ndq_check_window_sum(height, width) < 0)
        return -1;
    m->step->run = ndq_step_pool;
    return place_images(m, sizes, last_in, last_out, call);
}

/* transpose: (matrices, rows, columns, bytes of an element). */
static int make_transpose(ndq_step_maker *m)
{
    Py_ssize_t count, rows, columns, size;
    size_t bytes;
    if (!PyArg_ParseTuple(m->constants, "nnnn", &count, &rows, &columns, &size))
        return -1;
    if (count < 0 || rows < 0 || columns < 0 || (size != 1 && size != 4)) {
        PyErr_Format(PyExc_ValueError,
                     "step %zu (transpose): expected sizes of 0 or more and elements of 1 or 4 bytes, got %zd x %zd x %zd "
                     "of %zd",
                     m->number, count, rows, columns, size);
        return -1;
    }
    image_strides unused;
    bytes = lay_out_images((size_t)count, (size_t)columns, (size_t)rows, 1, (size_t)size, true, &unused);
    m->step->work.transposition = (ndq_transposition){(size_t)count, (size_t)rows, (size_t)columns, (size_t)size};
    m->step->run = ndq_step_transpose;
    return check_bytes(m, m->step->in[0], bytes) < 0 ? -1 : check_bytes(m, m->step->out, bytes);
}

/* Whether a box that begins at `offset` stays within `bytes`; strides may be negative. */
static bool box_is_inside(const Py_ssize_t *length, const Py_ssize_t *stride, Py_ssize_t offset, size_t bytes)
{
    Py_ssize_t first = offset, last = offset;
    for (int i = 0; i < NDQ_BOX_AXES; i++) {
        Py_ssize_t span;
        if (length[i] == 0)
            return true;
        if (length[i] < 0 || __builtin_mul_overflow(length[i] - 1, stride[i], &span) ||
            __builtin_add_overflow(span < 0 ? first : last, span, span < 0 ? &first : &last))
            return false;
    }
    return first >= 0 && last >= 0 && (size_t)last < bytes;
}

/* place: (lengths, offset in the input, strides there, offset in the output, strides there, byte that fills it first or
 * -1), four axes, all in bytes. */
static int make_place(ndq_step_maker *m)
{
    Py_ssize_t n[NDQ_BOX_AXES], in[NDQ_BOX_AXES], out[NDQ_BOX_AXES], in_offset, out_offset;
    int fill;
    ndq_placement *p = &m->step->work.placement;
    if (!PyArg_ParseTuple(m->constants, "(nnnn)n(nnnn)n(nnnn)i", &n[0], &n[1], &n[2], &n[3], &in_offset, &in[0], &in[1],
                          &in[2], &in[3], &out_offset, &out[0], &out[1], &out[2], &out[3], &fill))
        return -1;
    bool inside = box_is_inside(n, in, in_offset, bytes_of(m, m->step->in[0])) &&
                  box_is_inside(n, out, out_offset, bytes_of(m, m->step->out));
    for (int i = 0; i < NDQ_BOX_AXES; i++) {
        inside = inside && n[i] >= 0 && out[i] >= 0;
        p->length[i] = (size_t)n[i];
        p->in_stride[i] = in[i];
        p->out_stride[i] = (size_t)out[i];
    }
    if (!inside) {
        PyErr_Format(PyExc_ValueError, "step %zu (place): the box leaves an array", m->number);
        return -1;
    }
    const bool is_empty = !n[0] || !n[1] || !n[2] || !n[3];
    p->in_offset = is_empty ? 0 : (size_t)in_offset;
    p->out_offset = is_empty ? 0 : (size_t)out_offset;
    p->out_bytes = bytes_of(m, m->step->out);
    p->fills = fill >= 0;
    p->fill = (uint8_t)fill;
    m->step->run = ndq_step_place;
    return 0;
}

/* lookup: (table of 256 codes, whether the input is signed). */
static int make_lookup(ndq_step_maker *m)
{
    PyObject *object, *copy;
    int is_signed;
    const npy_intp entries = 256;
    if (!PyArg_ParseTuple(m->constants, "Op", &object, &is_signed))
        return -1;
    PyArrayObject *table = ndq_byte_array(object, "table");
    copy = table && ndq_check_shape(table, "table", 1, &entries) == 0 ? PyArray_NewCopy(table, NPY_CORDER) : NULL;
    const int status = copy ? PyList_Append(m->kept, copy) : -1;
    ndq_release(table);
    Py_XDECREF(copy);
    if (status < 0)
        return -1;
    const size_t n = bytes_of(m, m->step->out);
    m->step->work.lookup = (ndq_lookup){.n = n, .table = PyArray_DATA((PyArrayObject *)copy), .q_signed = is_signed};
    m->step->run = ndq_step_lookup;
    return check_bytes(m, m->step->in[0], n);
}

/* resize: ((images, channels, rows, columns), channels last in, channels last out, row of each row, column of each column),
 * as of resize_codes. */
static int make_resize(ndq_step_maker *m)
{
    Py_ssize_t sizes[4];
    int last_in, last_out;
    PyObject *rows_arg, *columns_arg;
    PyArrayObject *rows, *columns;
    ndq_resizing *work = &m->step->work.resizing;
    if (!PyArg_ParseTuple(m->constants, "(nnnn)ppOO", &sizes[0], &sizes[1], &sizes[2], &sizes[3], &last_in, &last_out,
                          &rows_arg, &columns_arg) ||
        !(rows = keep_indices(m, rows_arg, "rows", 1)) || !(columns = keep_indices(m, columns_arg, "columns", 1)) ||
        ndq_check_indices(rows, "rows", sizes[2]) < 0 || ndq_check_indices(columns, "columns", sizes[3]) < 0)
        return -1;
    work->row = PyArray_DATA(rows);
    work->column = PyArray_DATA(columns);
    work->images.y.out = (size_t)PyArray_DIM(rows, 1);
    work->images.x.out = (size_t)PyArray_DIM(columns, 1);
    m->step->run = ndq_step_resize;
    return place_images(m, sizes, last_in, last_out, &work->images);
}

/* Rows of `length` codes in the input, and as many in the output. */
static int take_rows(const ndq_step_maker *m, Py_ssize_t length, size_t *rows)
{
    const size_t bytes = bytes_of(m, m->step->in[0]);
    if (length < 1 || bytes % (size_t)length) {
        PyErr_Format(PyExc_ValueError, "step %zu (%s): %zu bytes are no rows of %zd", m->number, m->kind, bytes, length);
        return -1;
    }
    *rows = bytes / (size_t)length;
    return check_bytes(m, m->step->out, bytes);
}

/* softmax: (length of rows, signed, table of exp, out_qparams, mask or None), as of softmax_codes. */
static int make_softmax(ndq_step_maker *m)
{
    const npy_intp entries = 256;
    Py_ssize_t length;
    int is_signed, type;
    PyObject *table_arg, *out_qparams, *mask_arg;
    PyArrayObject *given, *table, *mask;
    ndq_softmax *call = &m->step->work.softmax;
    if (!PyArg_ParseTuple(m->constants, "npOOO", &length, &is_signed, &table_arg, &out_qparams, &mask_arg) ||
        take_rows(m, length, &call->rows) < 0 ||
        ndq_take_result(m->module, out_qparams, NDQ_NO_ACTIVATION, &call->result, &type) < 0 ||
        !(given = ndq_integer_array(table_arg, "exponential")))
        return -1;
    table = keep_copy(m, ndq_contiguous(given, NPY_UINT32));
    ndq_release(given);
    if (!table || ndq_check_shape(table, "exponential", 1, &entries) < 0)
        return -1;
    call->length = (size_t)length;
    call->flip = is_signed ? 0x80 : 0;
    call->exponential = PyArray_DATA(table);
    m->step->run = ndq_step_softmax;
    if (mask_arg == Py_None)
        return 0;
    return (mask = keep_copy(m, ndq_byte_array(mask_arg, "mask"))) ? ndq_take_softmax_mask(mask, call) : -1;
}

/* layer_norm: (length of rows, signed, gain, offset, eps, out_qparams), as of layer_norm_codes. */
static int make_layer_norm(ndq_step_maker *m)
{
    Py_ssize_t length;
    int is_signed, type;
    double eps;
    PyObject *gain_arg, *offset_arg, *out_qparams;
    PyArrayObject *gain, *offset;
    ndq_layer_norm *call = &m->step->work.layer_norm;
    if (!PyArg_ParseTuple(m->constants, "npOOdO", &length, &is_signed, &gain_arg, &offset_arg, &eps, &out_qparams) ||
        take_rows(m, length, &call->rows) < 0 ||
        ndq_take_result(m->module, out_qparams, NDQ_NO_ACTIVATION, &call->result, &type) < 0 ||
        !(gain = keep_copy(m, ndq_take_floats(gain_arg, "gain", (size_t)length))) ||
        !(offset = keep_copy(m, ndq_take_floats(offset_arg, "offset", (size_t)length))))
        return -1;
    if (length > NDQ_LONGEST_ROW) {
        PyErr_Format(PyExc_ValueError, "step %zu (layer_norm): rows of at most %d codes, got %zd", m->number,
                     (int)NDQ_LONGEST_ROW, length);
        return -1;
    }
    call->length = (size_t)length;
    call->flip = is_signed ? 0x80 : 0;
    call->eps = (float)eps;
    call->gain = PyArray_DATA(gain);
    call->offset = PyArray_DATA(offset);
    m->step->run = ndq_step_layer_norm;
    return 0;
}

/* matmul: (matrices, M, N, K, a_qparams, b_qparams, factor, out_qparams), as of matmul_codes. */
static int make_matmul(ndq_step_maker *m)
{
    Py_ssize_t n[4];
    ndq_matmul_arguments arguments;
    ndq_matmul *call = &m->step->work.matmul;
    if (!PyArg_ParseTuple(m->constants, "nnnnOOdO", &n[0], &n[1], &n[2], &n[3], &arguments.a_qparams, &arguments.b_qparams,
                          &arguments.factor, &arguments.out_qparams) ||
        check_sizes(m, n, 4) < 0 || ndq_matmul_constants(m->module, &arguments, call) < 0 ||
        ndq_check_matmul_length((size_t)n[3]) < 0)
        return -1;
    image_strides unused;
    const size_t size = ndq_gemm_output_bytes(call->product.output);
    call->matrices = (size_t)n[0];
    call->M = (size_t)n[1];
    call->N = (size_t)n[2];
    call->K = (size_t)n[3];
    m->step->run = ndq_step_matmul;
    if (check_bytes(m, m->step->in[0], lay_out_images(call->matrices, call->K, call->M, 1, 1, true, &unused)) < 0 ||
        check_bytes(m, m->step->in[1], lay_out_images(call->matrices, call->K, call->N, 1, 1, true, &unused)) < 0)
        return -1;
    return check_bytes(m, m->step->out, lay_out_images(call->matrices, call->N, call->M, 1, size, true, &unused));
}

/* ---- Floats ---- */

/* `value` must hold a x b floats. */
static int check_floats(const ndq_step_maker *m, size_t value, size_t a, size_t b)
{
    size_t n, bytes;
    const bool overflows = __builtin_mul_overflow(a, b, &n) || __builtin_mul_overflow(n, sizeof(float), &bytes);
    return check_bytes(m, value, overflows ? SIZE_MAX : bytes);
}

/* quantize_rows: (rows, length). */
static int make_quantize_rows(ndq_step_maker *m)
{
    Py_ssize_t sizes[2];
    if (!PyArg_ParseTuple(m->constants, "nn", &sizes[0], &sizes[1]) || check_sizes(m, sizes, 2) < 0)
        return -1;
    const size_t M = (size_t)sizes[0], K = (size_t)sizes[1];
    m->step->work.quantized_rows = (ndq_quantized_rows){M, K};
    m->step->run = ndq_step_quantize_rows;
    return check_floats(m, m->step->in[0], M, K) < 0 ? -1 : check_bytes(m, m->step->out, ndq_quantized_rows_bytes(M, K));
}

/* (rows, packed, activation): a product of what quantize_rows gives. */
static int take_row_product(ndq_step_maker *m, size_t *M, PyObject **packed, ndq_activation *activation)
{
    Py_ssize_t rows;
    PyObject *name;
    if (!PyArg_ParseTuple(m->constants, "nOO", &rows, packed, &name) || check_sizes(m, &rows, 1) < 0 ||
        ndq_take_activation(name, activation) < 0)
        return -1;
    *M = (size_t)rows;
    return PyList_Append(m->kept, *packed);
}

static int check_row_product(const ndq_step_maker *m, size_t M, size_t K, size_t N)
{
    return check_bytes(m, m->step->in[0], ndq_quantized_rows_bytes(M, K)) < 0 ? -1
                                                                              : check_floats(m, m->step->out, M, N);
}

/* linear_rows: see take_row_product. */
static int make_linear_rows(ndq_step_maker *m)
{
    PyObject *packed;
    ndq_rows_call *call = &m->step->work.rows;
    if (take_row_product(m, &call->M, &packed, &call->activation) < 0 ||
        !(call->w = ndq_take_row_weight(m->module, packed)))
        return -1;
    m->step->run = ndq_step_linear_rows;
    return check_row_product(m, call->M, call->w->K, call->w->N);
}

/* linear_groups: likewise, with weights of 4 bits. */
static int make_linear_groups(ndq_step_maker *m)
{
    PyObject *packed;
    ndq_grouped_rows *call = &m->step->work.grouped_rows;
    if (take_row_product(m, &call->M, &packed, &call->activation) < 0 ||
        !(call->w = ndq_take_grouped(m->module, packed)))
        return -1;
    m->step->run = ndq_step_linear_groups;
    return check_row_product(m, call->M, call->w->K, call->w->N);
}

/* add_f32: (). */
static int make_add_f32(ndq_step_maker *m)
{
    const size_t bytes = bytes_of(m, m->step->out);
    m->step->work.elements = bytes / sizeof(float);
    m->step->run = ndq_step_add_f32;
    return check_bytes(m, m->step->in[0], bytes) < 0 ? -1 : check_bytes(m, m->step->in[1], bytes);
}

/* Rows of `length` floats in the input, and as many in the output. */
static int take_float_rows(const ndq_step_maker *m, Py_ssize_t length, size_t *rows)
{
    const size_t bytes = bytes_of(m, m->step->in[0]), row = length < 1 ? 0 : (size_t)length * sizeof(float);
    if (length < 1 || (size_t)length > SIZE_MAX / sizeof(float) || bytes % row) {
        PyErr_Format(PyExc_ValueError, "step %zu (%s): %zu bytes are no rows of %zd floats", m->number, m->kind, bytes,
                     length);
        return -1;
    }
    *rows = bytes / row;
    return check_bytes(m, m->step->out, bytes);
}

/* softmax_f32: (length of rows). */
static int make_softmax_f32(ndq_step_maker *m)
{
    Py_ssize_t length;
    ndq_softmax_rows *call = &m->step->work.softmax_rows;
    if (!PyArg_ParseTuple(m->constants, "n", &length) || take_float_rows(m, length, &call->rows) < 0)
        return -1;
    call->length = (size_t)length;
    m->step->run = ndq_step_softmax_f32;
    return 0;
}

/* layer_norm_f32: (length of rows, gain, offset, eps). */
static int make_layer_norm_f32(ndq_step_maker *m)
{
    Py_ssize_t length;
    double eps;
    PyObject *gain_arg, *offset_arg;
    PyArrayObject *gain, *offset;
    ndq_normalized_rows *call = &m->step->work.normalized_rows;
    if (!PyArg_ParseTuple(m->constants, "nOOd", &length, &gain_arg, &offset_arg, &eps) ||
        take_float_rows(m, length, &call->rows) < 0 ||
        !(gain = keep_copy(m, ndq_take_floats(gain_arg, "gain", (size_t)length))) ||
        !(offset = keep_copy(m, ndq_take_floats(offset_arg, "offset", (size_t)length))))
        return -1;
    call->length = (size_t)length;
    call->norm = (ndq_norm_f32){PyArray_DATA(gain), PyArray_DATA(offset), (float)eps};
    m->step->run = ndq_step_layer_norm_f32;
    return 0;
}

/* gelu_f32: (whether the approximation by tanh). */
static int make_gelu_f32(ndq_step_maker *m)
{
    int tanh;
    if (!PyArg_ParseTuple(m->constants, "p", &tanh))
        return -1;
    const size_t bytes = bytes_of(m, m->step->out);
    m->step->work.gelu = (ndq_gelu){.tanh = tanh != 0, .n = bytes / sizeof(float)};
    m->step->run = ndq_step_gelu_f32;
    return check_bytes(m, m->step->in[0], bytes);
}

static ndq_heads contiguous_heads(size_t length, size_t features)
{
    const ptrdiff_t row = (ptrdiff_t)(features * sizeof(float));
    return (ndq_heads){NULL, (ptrdiff_t)length * row, row, sizeof(float)};
}

/* attention_f32: (examples, queries, keys, heads, features of a head, mask or None). */
static int make_attention_f32(ndq_step_maker *m)
{
    Py_ssize_t n[5];
    PyObject *mask_arg;
    PyArrayObject *mask;
    ndq_attention *a = &m->step->work.attention;
    if (!PyArg_ParseTuple(m->constants, "nnnnnO", &n[0], &n[1], &n[2], &n[3], &n[4], &mask_arg) || check_sizes(m, n, 5) < 0)
        return -1;
    *a = (ndq_attention){.N = (size_t)n[0], .L = (size_t)n[1], .S = (size_t)n[2], .heads = (size_t)n[3], .D = (size_t)n[4]};
    size_t features, queries, keys;
    if (__builtin_mul_overflow(a->heads, a->D, &features) || __builtin_mul_overflow(a->L, features, &queries) ||
        __builtin_mul_overflow(a->S, features, &keys))
        return check_bytes(m, m->step->in[0], SIZE_MAX);
    if (check_floats(m, m->step->in[0], a->N, queries) < 0 || check_floats(m, m->step->in[1], a->N, keys) < 0 ||
        check_floats(m, m->step->in[2], a->N, keys) < 0 || check_floats(m, m->step->out, a->N, queries) < 0)
        return -1;
    if (mask_arg != Py_None) {
        if (!(mask = keep_copy(m, ndq_take_mask(mask_arg, a))))
            return -1;
        a->mask = PyArray_DATA(mask);
    }
    a->factor = (float)(1 / sqrt(a->D ? (double)a->D : 1.0));
    a->q = contiguous_heads(a->L, features);
    a->k = a->v = contiguous_heads(a->S, features);
    m->step->run = ndq_step_attention_f32;
    return 0;
}

static const ndq_step_kind kinds[] = {
    {"quantize", 1, make_quantize}, {"dequantize", 1, make_dequantize}, {"linear", 1, make_linear},
    {"conv2d", 1, make_conv2d},     {"clamp", 1, make_clamp},           {"add", 2, make_add},
    {"multiply", 2, make_multiply}, {"pool", 1, make_pool},             {"transpose", 1, make_transpose},
    {"resize", 1, make_resize},     {"softmax", 1, make_softmax},       {"layer_norm", 1, make_layer_norm},
    {"place", 1, make_place},       {"lookup", 1, make_lookup},
    {"quantize_rows", 1, make_quantize_rows},   {"linear_rows", 1, make_linear_rows},
    {"add_f32", 2, make_add_f32},               {"softmax_f32", 1, make_softmax_f32},
    {"layer_norm_f32", 1, make_layer_norm_f32}, {"gelu_f32", 1, make_gelu_f32},
    {"attention_f32", 3, make_attention_f32},   {"matmul", 2, make_matmul},
    {"conv_transpose2d", 1, make_conv_transpose2d}, {"linear_groups", 1, make_linear_groups},
};

const ndq_step_kind *ndq_find_step_kind(PyObject *name)
{
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
        if (PyUnicode_CompareWithASCIIString(name, kinds[k].name) == 0)
            return &kinds[k];
    return NULL;
}
