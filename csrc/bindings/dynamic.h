/* What steps of a plan share with the functions on floats. */
#ifndef NDQ_BINDINGS_DYNAMIC_H
#define NDQ_BINDINGS_DYNAMIC_H

#include "args.h"

#include "../kernels/dynamic.h"
#include "../kernels/rows.h"

/* Weights that dynamic layers can use: with a float bias, and sums that fit for all activations u8. */
const ndq_packed *ndq_take_row_weight(PyObject *module, PyObject *object);

/* What a PackedGroups holds, which lives as long as that; NULL with an exception for anything else. */
const ndq_grouped *ndq_take_grouped(PyObject *module, PyObject *object);

/* A mask (1, L, S) or (N, L, S) of float32, C-contiguous, for a call whose sizes are set. */
PyArrayObject *ndq_take_mask(PyObject *object, ndq_attention *call);

#endif
