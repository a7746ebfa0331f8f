/* What the bindings of convolutions and of transposed ones share. */
#ifndef NDQ_BINDINGS_CONV_H
#define NDQ_BINDINGS_CONV_H

#include "geometry.h"

#include "../kernels/conv_transpose.h"

int ndq_check_channels(PyArrayObject *x, const char *name, size_t channels);

/* An output of O channels for an image that has been checked, and the addresses and strides of both in the call, whose
 * axes are known. */
PyArrayObject *ndq_take_images(PyArrayObject *x, const char *name, size_t O, PyObject *out, int type,
                               ndq_conv_call *call);

int ndq_check_conv_overflow(const ndq_conv_weights *w, bool is_signed, int32_t za);

/* `w` is (O, C / groups, KH, KW), or transposed (C, O / groups, KH, KW). */
ndq_conv_source ndq_conv_source_of(PyArrayObject *w, size_t groups, bool transposed, PyArrayObject *zero);

/* ndq_conv_constants of a transposed convolution, with the sizes that `packed` was packed for; its weights besides. */
int ndq_transposed_constants(PyObject *module, const ndq_linear_arguments *given, Py_ssize_t H, Py_ssize_t W,
                             ndq_conv_call *call, const ndq_transposed_weights **weights);

/* Both integer functions take (x, w, x_zero_point, w_zero_point, groups, geometry, out). */
typedef struct {
    PyArrayObject *x, *w, *zero, *out;
    size_t groups;
    ndq_conv_geometry g;
    ndq_conv_source source;
    ndq_conv_call call;
} ndq_integer_conv;

int ndq_take_integer_conv(PyObject *const *args, bool transposed, ndq_integer_conv *c);
void ndq_release_integer_conv(ndq_integer_conv *c);

#endif
