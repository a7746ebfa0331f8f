/* Layers whose inputs are floats and whose weights are codes: each row is quantized by its own range when it comes, so that
 * what it gives does not depend on the rows beside it. */
#ifndef NDQ_DYNAMIC_H
#define NDQ_DYNAMIC_H

#include "../backend.h"
#include "activation.h"

/* y[m, n] = float(sum over k of (q[m, k] - z[m]) * w[n, k]) * (s[m] * scale[n]) + bias[n], in which q are the codes u8 of
 * row m, by the rule `default`, of the range of that row and 0. The weights have a float bias. Then the activation. */
typedef struct {
    const ndq_kernels *kernels;
    const ndq_packed *w;
    ndq_activation activation;
    size_t M;
    const float *x; /* (M, K) */
    float *y;       /* (M, N) */
} ndq_rows_call;

/* NDQ_OK, NDQ_NO_MEMORY, or NDQ_NOT_FINITE: then *bad_row is a row of x that holds NaN or infinity. */
ndq_status ndq_linear_rows(const ndq_rows_call *call, size_t *bad_row);

/* Its two halves, for rows that several layers read: quantized into `memory` of that size, aligned to NDQ_ALIGN, and
 * multiplied from there. SIZE_MAX if the size passes the range of size_t. */
size_t ndq_quantized_rows_bytes(size_t M, size_t K);
ndq_status ndq_quantize_rows(const ndq_kernels *kernels, size_t M, size_t K, const float *x, void *memory, size_t *bad_row);
ndq_status ndq_multiply_rows(const ndq_rows_call *call, const void *memory);

/* The same layer with weights of 4 bits that have a scale per group of inputs, see grouped.h: y (M, N). */
typedef struct {
    const ndq_grouped *w;
    size_t M;
    ndq_activation activation;
    float *y;
} ndq_grouped_rows;

ndq_status ndq_linear_groups(const ndq_kernels *kernels, const ndq_grouped_rows *call, const float *x, size_t *bad_row);

/* Of rows that ndq_quantize_rows has quantized. */
ndq_status ndq_multiply_groups(const ndq_grouped_rows *call, const void *memory);

/* A layer of LSTM or GRU over T steps of N sequences, of which the product with the input is made: gx (T, N, G) with its
 * bias. h and c (N, H) are the states before, and then after; c is NULL for GRU. y is (T, N, H). Sequence n has
 * lengths[n] steps, from the first on; outputs behind these are 0. */
typedef struct {
    const ndq_kernels *kernels;
    const ndq_packed *w; /* (G, H) */
    size_t T, N;
    bool reverse;
    const float *gx;
    const int64_t *lengths; /* NULL: all T */
    float *y, *h, *c;
} ndq_recurrence;

/* As ndq_linear_rows; *bad_row is the sequence. */
ndq_status ndq_run_recurrence(const ndq_recurrence *call, size_t *bad_row);

#endif
