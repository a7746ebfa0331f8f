/* What the bindings that choose ranges share. */
#ifndef NDQ_BINDINGS_RANGE_H
#define NDQ_BINDINGS_RANGE_H

#include "args.h"
#include "../kernels/range.h"

int ndq_check_grid(const ndq_grid *grid);

/* A bias of shape (N,) as float64, all finite; for None, no elements. */
PyArrayObject *ndq_bias_values(PyObject *object);

#endif
