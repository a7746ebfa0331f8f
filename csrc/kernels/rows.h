/* Whole arrays of floats, row by row: what lies between the products of layers that quantize their input as it comes. */
#ifndef NDQ_ROWS_H
#define NDQ_ROWS_H

#include "../backend.h"

/* `rows` rows of `length` floats; y may be x. */
typedef struct {
    const ndq_kernels *kernels;
    size_t rows, length;
    const float *x;
    float *y;
} ndq_softmax_rows;

void ndq_softmax_f32(const ndq_softmax_rows *call);

/* Lengths of 1 and more; stats: mean and inverse deviation of each row, or NULL. */
typedef struct {
    const ndq_kernels *kernels;
    ndq_norm_f32 norm;
    size_t rows, length;
    const float *x;
    float *y, *stats;
} ndq_normalized_rows;

void ndq_layer_norm_f32(const ndq_normalized_rows *call);

typedef struct {
    const ndq_kernels *kernels;
    bool tanh;
    size_t n;
    const float *x;
    float *y;
} ndq_gelu;

void ndq_gelu_f32(const ndq_gelu *call);

/* (N, length, heads * D) floats; strides in bytes. */
typedef struct {
    const char *data;
    ptrdiff_t example, row, element;
} ndq_heads;

/* y[n, l, h] = sum over s of p[n, h, l, s] * v[n, s, h], where p is the softmax over s of factor * q[n, l, h] . k[n, s, h]
 * + mask[n, l, s]: N examples, L queries, S keys, heads of D features each. Sums are those of ndq_gemm_f32. */
typedef struct {
    const ndq_kernels *kernels;
    size_t N, L, S, heads, D;
    float factor;
    ndq_heads q, k, v;
    const float *mask; /* (masks, L, S), one for all examples or one for each; or NULL */
    size_t masks;
    float *weights; /* p, or NULL */
    float *y;
} ndq_attention;

/* NDQ_OK or NDQ_NO_MEMORY. */
ndq_status ndq_attention_f32(const ndq_attention *call);

#endif
