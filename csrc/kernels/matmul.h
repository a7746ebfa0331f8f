/* Products of two arrays of codes, neither of which is known beforehand: b is packed at each call. */
#ifndef NDQ_MATMUL_H
#define NDQ_MATMUL_H

#include "gemm.h"

/* No sum of so many products of codes of 8 bits passes 2^31 - 1. */
enum { NDQ_MATMUL_LONGEST = INT32_MAX / (255 * 255) };

/* out[i] = a[i] @ b[i] for `matrices` matrices (M, K) and (K, N), C-contiguous; K is at most NDQ_MATMUL_LONGEST. */
typedef struct {
    const ndq_gemm_kernel *kernel;
    size_t matrices, M, N, K;
    const uint8_t *a, *b;
    bool b_signed;
    int32_t b_zero;
    float b_scale;
    ndq_gemm_call product; /* zero point and scale of a, and the output stage; the rest is set here */
    uint8_t *out;
} ndq_matmul;

/* NDQ_OK or NDQ_NO_MEMORY. */
ndq_status ndq_matmul_codes(const ndq_matmul *call);

#endif
