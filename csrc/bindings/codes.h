/* Constants of integer forms on codes of 8 bits, as Python passes them. As in args.h, a function gives -1 with an exception
 * set, or 0. */
#ifndef NDQ_BINDINGS_CODES_H
#define NDQ_BINDINGS_CODES_H

#include "args.h"

#include "../kernels/codes.h"
#include "../kernels/pool.h"

/* How codes of a QParams, which must be per tensor and of a multiplying profile, are read; *type: their NumPy type. */
int ndq_take_operand(PyObject *module, PyObject *qparams, const char *name, ndq_byte_operand *operand, int *type);

/* How codes of the "out_qparams" are made, likewise. */
int ndq_take_result(PyObject *module, PyObject *qparams, ndq_activation activation, ndq_byte_result *result, int *type);

/* `rows` rows of contiguous int32: begin, end and count of windows, or indices alone. */
PyArrayObject *ndq_take_indices(PyObject *object, const char *name, npy_intp rows);

/* Windows along an axis of `size` pixels from such rows; the longest goes to *longest. It points to their memory. */
int ndq_take_windows(PyArrayObject *windows, const char *name, npy_intp size, Py_ssize_t step, ndq_pool_axis *axis,
                     npy_intp *longest);

/* ValueError unless each index is one of `size` pixels. */
int ndq_check_indices(PyArrayObject *indices, const char *name, npy_intp size);

/* `length` floats as contiguous float32. */
PyArrayObject *ndq_take_floats(PyObject *object, const char *name, size_t length);

/* Rows of a mask, bytes of either sign, for a call whose rows and their length are set. It points to their memory. */
int ndq_take_softmax_mask(PyArrayObject *mask, ndq_softmax *call);

/* OverflowError if sums over windows of that size could pass int32. */
int ndq_check_window_sum(npy_intp rows, npy_intp columns);

#endif
