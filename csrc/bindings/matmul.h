/* Constants of products of two arrays of codes, checked. */
#ifndef NDQ_BINDINGS_MATMUL_H
#define NDQ_BINDINGS_MATMUL_H

#include "args.h"

#include "../kernels/matmul.h"

typedef struct {
    PyObject *a_qparams, *b_qparams, *out_qparams; /* out_qparams: None for float32 */
    double factor;                                 /* of the result */
} ndq_matmul_arguments;

/* A call without its arrays and sizes. */
int ndq_matmul_constants(PyObject *module, const ndq_matmul_arguments *given, ndq_matmul *call);

/* Sums of K products must fit. */
int ndq_check_matmul_length(size_t K);

#endif
