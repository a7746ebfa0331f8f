/* Large integer products in fewer multiplications, exact: Strassen's algorithm in Winograd's form, one or two levels
 * (Strassen, "Gaussian elimination is not optimal", 1969; Huss-Lederman et al., "Implementation of Strassen's algorithm for
 * matrix multiplication", 1996). The rows of a block and K are cut into halves, a few panels of weights into even and odd:
 *
 *   P0 = A11 * B11      P2 = (A21 + A22 - A11) * (B22 + B11 - B12)      P5 = (A12 + A11 - A21 - A22) * B22
 *   P1 = A12 * B21      P3 = (A11 - A21) * (B22 - B12)                  P6 = A22 * (B21 + B12 - B22 - B11)
 *                       P4 = (A21 + A22) * (B12 - B11)
 *
 *   C11 = P0 + P1       C12 = P0 + P2 + P4 + P5       C21 = P0 + P2 + P3 + P6       C22 = P0 + P2 + P3 + P4
 *
 * Seven products of half of the rows, columns and K: 7/8 of the work; with each of them made of seven again, 49/64.
 * Operands are centred codes, between -255 and 255. Those of a level are sums of four of the level before at most, so that
 * they fit int16, and two of their products int32; all else is exact modulo 2^32, and the results fit. */
#ifndef NDQ_GEMM_STRASSEN_H
#define NDQ_GEMM_STRASSEN_H

#include "gemm.h"

enum { NDQ_STRASSEN_PRODUCTS = 7, NDQ_STRASSEN_QUARTERS = 4, NDQ_STRASSEN_LEVELS = 2 };
enum { NDQ_STRASSEN_LARGEST = 255 << 2 * NDQ_STRASSEN_LEVELS }; /* operand */
_Static_assert(NDQ_STRASSEN_LARGEST <= INT16_MAX, "operands fit int16");
_Static_assert(2LL * NDQ_STRASSEN_LARGEST * NDQ_STRASSEN_LARGEST <= INT32_MAX, "two products fit int32");

/* What an instruction set adds. Its products are of int16, both operands centred. Quarters are in the order 11, 12, 21,
 * 22; counts of codes are at least 16, and of weights multiples of 16. */
typedef struct ndq_strassen {
    const ndq_gemm_kernel *products;
    /* Left operands of P2 to P5 from a row of each quarter, `set` codes apart. */
    void (*sum_rows)(size_t count, const int16_t *const *quarter, int16_t *out, size_t set);
    /* Right operands of P2, P3, P4 and P6 from int16, or from s8 as bytes, likewise. */
    void (*sum_words)(size_t count, const uint8_t *const *quarter, int16_t *out, size_t set);
    void (*sum_bytes)(size_t count, const uint8_t *const *quarter, int16_t *out, size_t set);
    /* P, `set` sums apart, to C, which may be in place of the first four, or added to it: `count` sums, a multiple of 16. */
    void (*outputs)(size_t count, const int32_t *sums, size_t set, bool add, int32_t *const *quarter);
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
    size_t levels;
    size_t stride;
    uint8_t *rows;
    uint8_t *scratch; /* ndq_strassen_scratch_bytes */
} ndq_strassen_block;

/* How many levels pay for so many rows and panels at a time; 0: none. */
size_t ndq_strassen_levels(const ndq_packed *w, size_t rows, size_t panels);

/* Rows that are best multiplied at a time, of M on some threads. */
size_t ndq_strassen_rows(const ndq_packed *w, size_t M, size_t threads);

/* Rows of memory for so many rows of a block, which each level cuts into halves. */
static inline size_t ndq_strassen_padded_rows(size_t rows, size_t levels)
{
    return ndq_round_up(rows, (size_t)1 << levels);
}

size_t ndq_strassen_scratch_bytes(const ndq_packed *w, size_t rows, size_t levels);

/* Before the panels of a block. */
void ndq_strassen_prepare(const ndq_strassen_block *block);

/* Outputs of panels from the first on; how many panels. */
size_t ndq_strassen_run(const ndq_strassen_block *block, size_t first_panel, size_t end_panel);

#endif
