/* Float32 matrix product c = a @ b for what training multiplies: gradients by activations and weights.
 *
 * Each c[m, n] is one chain over ascending k from 0: c = fma(a[m, k], b[k, n], c), rounded once a step. Blocks, threads
 * and instruction sets change the order of elements, never that of a chain, so they change no bit.
 *
 * M rows, N columns, K terms. a is read where it is, or packed where a tile would touch a page for each k; b is packed
 * at every call into panels of nr columns, and codes are dequantized on the way, so that they need no pass of their own.
 * The driver is gemm_f32.c; a kernel is one instruction set's tile of mr rows by nr columns. */
#ifndef NDQ_GEMM_F32_H
#define NDQ_GEMM_F32_H

#include "../common.h"

enum { NDQ_GEMM_F32_MAX_MR = 12, NDQ_GEMM_F32_MAX_NR = 32 };

typedef enum { NDQ_TERMS_F32, NDQ_TERMS_U8, NDQ_TERMS_S8 } ndq_terms_type;

/* b as it comes; strides in bytes. Codes stand for scale * (q - zero_point). */
typedef struct {
    const char *data;
    ptrdiff_t stride_k, stride_n;
    ndq_terms_type type;
    const float *scale, *zero_point; /* of codes: one each, or one for each k if per_row */
    bool per_row;
} ndq_terms;

/* Where a tile finds its rows of a; strides in bytes. */
typedef struct {
    const char *data;
    ptrdiff_t stride_m, stride_k;
} ndq_rows_f32;

/* Continues the chains of ROWS rows by nr columns over K terms: c rows are `stride` floats apart, and read only if
 * `continued`, else the chains begin. */
typedef void ndq_gemm_f32_tile(size_t K, ndq_rows_f32 a, const float *panel, float *c, size_t stride, bool continued);

/* The same for mr rows and a panel that is not packed yet: nr floats of each row of b, rows being `stride_k` bytes
 * apart, are packed while they are used. */
typedef void ndq_gemm_f32_packing_tile(size_t K, ndq_rows_f32 a, const char *b, ptrdiff_t stride_k, float *panel,
                                       float *c, size_t stride, bool continued);

typedef struct {
    size_t mr, nr;
    double parallel_macs; /* multiply-adds done in about 30 us */
    ndq_gemm_f32_tile *tile[NDQ_GEMM_F32_MAX_MR];   /* by number of rows less one */
    ndq_gemm_f32_tile *narrow[NDQ_GEMM_F32_MAX_MR]; /* the same for the first nr / 2 columns of a panel, or NULL */
    ndq_gemm_f32_packing_tile *packing_tile;        /* or NULL */
    /* Rows [k, k + count) of columns [n, n + columns) of b as [count][nr], padded with zeros. */
    void (*pack)(const ndq_terms *b, size_t k, size_t count, size_t n, size_t columns, float *panel);
    /* K terms of up to mr rows as [K][mr]; what belongs to missing rows is not written. */
    void (*pack_rows)(size_t K, size_t rows, ndq_rows_f32 a, float *packed);
} ndq_gemm_f32_kernel;

extern const ndq_gemm_f32_kernel ndq_gemm_f32_portable;
#ifdef NDQ_X86
extern const ndq_gemm_f32_kernel ndq_gemm_f32_avx2, ndq_gemm_f32_avx512;
#endif

typedef struct {
    const ndq_gemm_f32_kernel *kernel;
    size_t M, N, K;
    ndq_rows_f32 a;
    ndq_terms b;
    float *c; /* (M, N), C-contiguous */
} ndq_gemm_f32_call;

/* Up to 32 floats of each row. */
static inline void ndq_copy_columns_f32(size_t rows, size_t columns, const void *from, ptrdiff_t from_stride, void *to,
                                        ptrdiff_t to_stride)
{
    ndq_copy_columns(rows, columns, sizeof(float), from, from_stride, to, to_stride);
}

/* NDQ_OK or NDQ_NO_MEMORY. */
ndq_status ndq_gemm_f32(const ndq_gemm_f32_call *call);

#endif
