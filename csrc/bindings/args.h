/* The only place where an array is checked for dtype, layout, alignment and size.
 *
 * Functions that return a pointer give a new reference, or NULL with an exception set; those that return int give 0, or
 * -1 with an exception set. `name` is the argument's name for the message. */
#ifndef NDQ_ARGS_H
#define NDQ_ARGS_H

#include "pyarray.h"

#include "../kernels/elementwise.h"
#include "../kernels/conv.h"

/* What the module keeps: the types that the core adds. */
typedef struct {
    PyTypeObject *params_type;
    PyTypeObject *packed_type; /* packed weights, added by gemm.c */
    PyTypeObject *packed_conv_type; /* the same of convolutions, added by conv.c */
    PyTypeObject *packed_transposed_type; /* of transposed ones, added by conv_transpose.c */
    PyTypeObject *groups_type; /* weights of 4 bits in groups, added by grouped.c */
    PyTypeObject *plan_type;   /* added by plan.c */
    PyObject *params_name;     /* the interned string "_params" */
} ndq_state;

static inline ndq_state *ndq_state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

/* _core.Params: the coefficients of one QParams, made once and shared by all calls that use it. */
typedef struct {
    PyObject_HEAD
    ndq_params params;
    bool per_channel; /* or per group */
    int axis;         /* as given: may count from the end; meaningless per tensor */
    npy_intp group_size; /* 0 unless per group */
    PyArrayObject *groups; /* NULL unless per group: an array with the shape of the scales */
    int scale_type; /* NPY_FLOAT or NPY_DOUBLE */
} ndq_params_object;

typedef struct {
    size_t channels;
    const double *scale, *zero_point;
    int64_t qmin, qmax;
    ndq_rule rule;
    bool per_channel;
    int axis, scale_type;
    npy_intp group_size;
    PyArrayObject *groups;
} ndq_params_source;

/* A Params of values that are known to be good. */
PyObject *ndq_params_make(PyTypeObject *type, const ndq_params_source *source);

/* The Params of a QParams, which makes it when it is first asked for; a Params itself will do too. */
ndq_params_object *ndq_params_of(PyObject *module, PyObject *qparams);

/* Exactly as many positional arguments as the function has. */
int ndq_check_count(const char *function, Py_ssize_t given, Py_ssize_t wanted);

/* Any array, scalar or nested sequence of floats, in whatever layout it has. Other dtypes and masked arrays are a
 * TypeError. */
PyArrayObject *ndq_float_array(PyObject *object, const char *name);

/* The same for integers; bool is not one. */
PyArrayObject *ndq_integer_array(PyObject *object, const char *name);

/* Codes of the size of `wanted`, signed or not as they come, in whatever layout; `found` says which. Integers of other
 * sizes are converted if all values fit, else ValueError. */
PyArrayObject *ndq_codes_array(PyObject *object, const char *name, ndq_code_type wanted, ndq_code_type *found);

/* NumPy's number of the type of codes. */
int ndq_type_of_codes(ndq_code_type codes);

/* C-contiguous, aligned, native, of that type; the array itself if it is so already. */
PyArrayObject *ndq_contiguous(PyArrayObject *array, int type);

/* Floats of `ndim` dimensions as float32: the array itself, in whatever layout, if it is aligned and native. */
PyArrayObject *ndq_floats_in_place(PyObject *object, const char *name, int ndim);

/* `ndim` dimensions exactly. */
int ndq_check_ndim(PyArrayObject *array, const char *name, int ndim);

int ndq_check_same_shape(PyArrayObject *a, const char *a_name, PyArrayObject *b, const char *b_name);

/* A new array if `out` is None or NULL, else `out` itself if it has exactly this dtype and shape, is C-contiguous,
 * aligned and writeable. */
PyArrayObject *ndq_output(PyObject *out, const char *name, int ndim, const npy_intp *shape, int type);

/* Whether the elements of (N, C, H, W) lie side by side with the channels innermost, and not in C order. */
bool ndq_is_channels_last(PyArrayObject *array);

/* The array itself if its elements lie side by side in that order, else a copy. */
PyArrayObject *ndq_in_layout(PyArrayObject *array, bool channels_last);

/* The same for images (N, C, H, W): `out` may also be channels-last, and a new array is so if asked. */
PyArrayObject *ndq_image_output(PyObject *out, const char *name, const npy_intp *shape, int type, bool channels_last);

/* An array that the call changes in place: float32 or float64, or the dtype and shape of `like` where that is not NULL;
 * C-contiguous, aligned and writeable. */
PyArrayObject *ndq_changed_array(PyObject *object, const char *name, PyArrayObject *like);

/* A float64 from any real number. */
int ndq_number(PyObject *object, const char *name, double *value);

/* An output may be an input itself if their itemsizes agree; any other overlap is a ValueError. */
int ndq_check_overlap(PyArrayObject *out, const char *out_name, PyArrayObject *in, const char *in_name);

/* No overlap at all. */
int ndq_check_disjoint(PyArrayObject *a, const char *a_name, PyArrayObject *b, const char *b_name);

/* The axis of `array` that the caller calls `axis`, or -1 with an exception set. */
int ndq_axis_of(PyArrayObject *array, const char *name, int axis);

/* One channel for each index along an axis, or, if group_size is not 0, for each group: it must divide the axis. */
int ndq_divide(PyArrayObject *array, const char *name, int axis, npy_intp group_size, ndq_geometry *geometry);

/* How `params` divides an array: its axis must exist and have one element per channel, or one group per scale. */
int ndq_geometry_of(PyArrayObject *array, const char *name, const ndq_params_object *params, ndq_geometry *geometry);

/* Whether the elements of `array`, native and aligned, fill their memory without gaps in an order of axes that is not C's,
 * as those of a transposed array do; then `geometry`, which must divide the array, is made to fit that order. Not for
 * groups. */
bool ndq_reorder(PyArrayObject *array, const ndq_params_object *params, ndq_geometry *geometry);

/* Whether each element of b, native and aligned, lies where that of a does; both have one shape and size of elements. */
bool ndq_have_same_layout(PyArrayObject *a, PyArrayObject *b);

/* The strides of an array that has elements, for ndq_free; NULL without memory. */
ndq_strides *ndq_strides_of(PyArrayObject *array);

/* ---- Operands of integer products ---- */

/* int8 or uint8 exactly. */
PyArrayObject *ndq_byte_array(PyObject *object, const char *name);

/* The one of int8 and uint8 in which `params` stores codes, exactly. */
PyArrayObject *ndq_codes_of(PyObject *object, const char *name, const ndq_params *params);

/* One-dimensional data as contiguous int32 (integers, ValueError if they do not fit) or float32 (floats). */
PyArrayObject *ndq_bias_array(PyObject *object, const char *name);

int ndq_check_shape(PyArrayObject *array, const char *name, int ndim, const npy_intp *shape);

/* Scales must be representable in float32 and zero points be codes of the dtype, as the kernels assume. */
int ndq_check_product_params(const ndq_params_object *params, const char *name);

/* An integer that is a code of `type`. */
int ndq_zero_point(PyObject *object, const char *name, int type, int32_t *value);

/* The same for one integer or n of them: always n int32. */
PyArrayObject *ndq_zero_points(PyObject *object, const char *name, int type, npy_intp n);

/* Zero points of N columns as int32; NULL with no exception if params say 0 for all. */
int ndq_take_zero_points(const ndq_params *params, size_t N, PyArrayObject **zero);

/* Bias of N channels: int32 (any integers that fit) or float32, by its kind. NULL with no exception for None. */
int ndq_take_bias(PyObject *object, size_t N, PyArrayObject **bias);

/* Weights of `ndim` dimensions whose first is the outputs, and the Params of their codes. */
int ndq_check_weight_params(PyArrayObject *w, const ndq_params_object *params, int ndim);

/* The scales and the bias of channels from `first` on. */
void ndq_fill_packed(ndq_packed *packed, size_t first, const ndq_params *params, PyArrayObject *bias);

/* OverflowError if a sum could pass int32. The message names the channel: the packed ones are `first` and on. */
int ndq_check_overflow(const ndq_packed *w, const char *name, size_t first, bool a_signed, int32_t za);

/* A PackedMatrix that takes over `packed`, or MemoryError if that is NULL, with the scales of `params` and an int32 or
 * float32 bias, or NULL; bindings/gemm.c. */
PyObject *ndq_packed_object(PyObject *module, ndq_packed *packed, const ndq_params_object *params, PyArrayObject *bias);

/* What a PackedMatrix holds, which lives as long as that; NULL with an exception for anything else. */
const ndq_packed *ndq_packed_of(PyObject *module, PyObject *object);

/* Scales must be one number. */
int ndq_check_per_tensor(const ndq_params_object *params, const char *name);

/* What linear_integer takes besides arrays. */
typedef struct {
    PyObject *x_qparams, *packed, *out_qparams; /* out_qparams: None for float32 */
    PyObject *requantization; /* the number of one */
    PyObject *activation;     /* likewise */
} ndq_linear_arguments;

/* The one of that number. */
int ndq_take_activation(PyObject *number, ndq_activation *activation);

/* The scales, signs and output stage of a call; `packed` is not looked at. */
int ndq_product_constants(PyObject *module, const ndq_linear_arguments *given, ndq_gemm_call *call);

/* Codes of the input of a layer, "xq", in the dtype that its QParams ask for. */
PyArrayObject *ndq_take_codes(PyObject *module, PyObject *codes, PyObject *qparams);

/* A call without its arrays. It points into `packed` and holds no reference to it. */
int ndq_linear_constants(PyObject *module, const ndq_linear_arguments *given, ndq_gemm_call *call);

/* A convolution of H x W images without its arrays, their number and strides; sizes: (stride, padding, dilation). It points
 * into `packed` and holds no reference to it. */
int ndq_conv_constants(PyObject *module, const ndq_linear_arguments *given, PyObject *sizes, Py_ssize_t H, Py_ssize_t W,
                       ndq_conv_call *call);

/* The exception for what the core answered; returns -1, or 0 for NDQ_OK. */
int ndq_check_status(ndq_status status);

/* Calls below this many elements keep the GIL: releasing it costs more than they take. */
enum { NDQ_GIL_FROM = 4096 };

/* Likewise products of fewer multiply-adds. */
#define NDQ_GIL_FROM_MACS 5e4

#endif
