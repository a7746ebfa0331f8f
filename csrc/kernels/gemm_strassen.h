/* Large integer products in fewer multiplications, exact: Strassen's algorithm in Winograd's form, one level (Strassen,
 * "Gaussian elimination is not optimal", 1969; Huss-Lederman et al., "Implementation of Strassen's algorithm for matrix
 * multiplication", 1996). The rows of a block, two adjacent panels of weights and K are cut into halves:
 *
 *   P0 = A11 * B11      P2 = (A21 + A22 - A11) * (B22 + B11 - B12)      P5 = (A12 + A11 - A21 - A22) * B22
 *   P1 = A12 * B21      P3 = (A11 - A21) * (B22 - B12)                  P6 = A22 * (B21 + B12 - B22 - B11)
 *                       P4 = (A21 + A22) * (B12 - B11)
 *
 *   C11 = P0 + P1       C12 = P0 + P2 + P4 + P5       C21 = P0 + P2 + P3 + P6       C22 = P0 + P2 + P3 + P4
 *
 * Seven products of half of the rows, columns and K: 7/8 of the work. Operands are centred codes, so that sums of four
 * fit int16 (4 * 255), and pairs of products int32; all else is exact modulo 2^32, and the results fit. */
#ifndef NDQ_GEMM_STRASSEN_H
#define NDQ_GEMM_STRASSEN_H

#include "gemm.h"

enum { NDQ_STRASSEN_PRODUCTS = 7, NDQ_STRASSEN_QUARTERS = 4 };

/* What an instruction set adds. Its products are of int16, both operands centred. Quarters are in the order 11, 12, 21,
 * 22; counts of codes are at least 16, and of weights multiples of 16. */
typedef struct ndq_strassen {
    const ndq_gemm_kernel *products;
    /* Left operands of P2 to P5 from a row of each quarter, `set` codes apart. */
    void (*sum_rows)(size_t count, const int16_t *const *quarter, int16_t *out, size_t set);
    /* Right operands of P2, P3, P4 and P6 from int16, or from s8 as bytes, likewise. */
    void (*sum_words)(size_t count, const uint8_t *const *quarter, int16_t *out, size_t set);
    void (*sum_bytes)(size_t count, const uint8_t *const *quarter, int16_t *out, size_t set);
    /* P, `set` sums apart, to C in place of the first four: `count` sums, a multiple of 16. */
    void (*outputs)(size_t count, int32_t *sums, size_t set);
    /* The same to codes, for all columns of both panels, if both columns->shrinks: `rows` of the upper and of the lower
     * half. */
    void (*codes)(size_t rows, const int32_t *sums, size_t set, const ndq_gemm_columns *columns,
                  const ndq_gemm_stage *stage, uint8_t *upper, uint8_t *lower, size_t stride);
} ndq_strassen;

#ifdef NDQ_X86
extern const ndq_strassen ndq_strassen_avx2;
#endif

/* Rows of a block in the format of the kernel, `stride` bytes apart, and what is made of them. */
typedef struct {
    const ndq_gemm_call *call;
    const ndq_gemm_stage *stage;
    size_t first, count; /* rows of the product */
    size_t stride;
    uint8_t *rows;
    uint8_t *scratch; /* ndq_strassen_scratch_bytes */
} ndq_strassen_block;

/* Whether it is worth it for so many rows at a time. */
bool ndq_strassen_pays(const ndq_packed *w, size_t rows);

/* Rows that are best multiplied at a time, of M on some threads. */
size_t ndq_strassen_rows(const ndq_packed *w, size_t M, size_t threads);

/* Rows of memory for so many rows of a block: as many in either half. */
static inline size_t ndq_strassen_padded_rows(size_t rows)
{
    return ndq_round_up(rows, 2);
}

size_t ndq_strassen_scratch_bytes(const ndq_packed *w, size_t rows);

/* Before the panels of a block. */
void ndq_strassen_prepare(const ndq_strassen_block *block);

/* Outputs of `panel` and the next. */
void ndq_strassen_run(const ndq_strassen_block *block, size_t panel);

#endif
