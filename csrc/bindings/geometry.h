/* Sizes of convolutions, as Python passes them. As in args.h, a function gives -1 with an exception set, or 0. */
#ifndef NDQ_GEOMETRY_H
#define NDQ_GEOMETRY_H

#include "args.h"

#include "../kernels/conv.h"

/* (stride, padding, dilation) or (stride, padding, dilation, output_padding), each (along y, along x). */
typedef struct {
    Py_ssize_t stride[2], padding[2], dilation[2], output_padding[2];
} ndq_conv_geometry;

int ndq_take_size(PyObject *object, Py_ssize_t *rows, Py_ssize_t *columns);
int ndq_take_geometry(PyObject *object, ndq_conv_geometry *g);

/* One axis (0: y, 1: x) of a convolution of images of `in` pixels with windows of `taps`, or of a transposed one. */
int ndq_make_axis(const ndq_conv_geometry *g, int i, Py_ssize_t in, Py_ssize_t taps, ndq_conv_axis *axis);
int ndq_make_transposed_axis(const ndq_conv_geometry *g, int i, Py_ssize_t in, Py_ssize_t taps, ndq_conv_axis *axis);

/* groups must divide `divided`, the number of `what`. */
int ndq_check_groups(Py_ssize_t groups, Py_ssize_t divided, const char *what);

#endif
