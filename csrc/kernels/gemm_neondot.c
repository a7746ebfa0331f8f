/* GEMM tile for NEON with dot products: sdot adds four products of s8 by s8 to an int32, and wraps, so that the sum is
 * exact modulo 2^32 whatever the order. A vector of weights is one word of 4 columns, a lane of a row its word. The tile
 * is 5 rows by 16 columns: 20 accumulators, 5 registers of rows, 1 of weights. Four words of K are 80 sdot and 26 other
 * instructions; with a sixth row gcc 12 adds 15 moves. */
#include "gemm.h"

#ifdef NDQ_ARM64
#include <arm_neon.h>

#define NAME(x) neondot_##x
#define TARGET NDQ_TARGET_NEONDOT
#define NR 16
#include "gemm_plain.inc.h"

enum { ROWS = 5, VECTORS = NR / 4, STEP = 16 };

/* One word of each row by the first `vectors` vectors of a word of the panel. */
#define WORD(lane)                                                                                           \
    for (int j = 0; j < vectors; j++) {                                                                      \
        int8x16_t w = vld1q_s8(b + 16 * (VECTORS * (lane) + j));                                             \
        NDQ_KEEP_ORDER(w);                                                                                   \
        for (int i = 0; i < rows; i++)                                                                       \
            c[i][j] = vdotq_laneq_s32(c[i][j], w, row[i], lane);                                             \
    }

static inline __attribute__((always_inline)) NDQ_TARGET_NEONDOT void
tile(const int rows, const int vectors, const ndq_gemm_runs *runs, const uint8_t *a0, size_t stride, const int8_t *b,
     int32_t *acc)
{
    int32x4_t c[ROWS][VECTORS];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++)
            c[i][j] = vdupq_n_s32(0);
    for (size_t run = 0; run < runs->runs; run++) {
        const int8_t *a = (const int8_t *)(a0 + runs->offset[run]);
        for (size_t k = 0; k < runs->words; k += STEP / 4, a += STEP, b += STEP * NR) {
            int8x16_t row[ROWS];
            for (int i = 0; i < rows; i++)
                row[i] = vld1q_s8(a + (size_t)i * stride);
            WORD(0)
            WORD(1)
            WORD(2)
            WORD(3)
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++)
            vst1q_s32(acc + i * NR + 4 * j, c[i][j]);
}

#define TILE(name, rows, vectors)                                                                            \
    static NDQ_TARGET_NEONDOT void name##_##rows(const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, \
                                                 const void *panel, int32_t *acc)                            \
    {                                                                                                        \
        tile(rows, vectors, runs, a, stride, panel, acc);                                                    \
    }
#define TILES(rows) TILE(wide, rows, VECTORS) TILE(narrow, rows, VECTORS / 2)
TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILES(5)

const ndq_gemm_kernel ndq_gemm_neondot = {
    .name = "neondot",
    .mr = ROWS,
    .nr = NR,
    .codes_per_word = 4,
    .a_signed = true,
    .k_step = STEP,
    .parallel_macs = 2e6,
    .expand_a = neondot_expand_s8,
    .expand_w = neondot_expand_s8,
    .sums = neondot_sums,
    .pack = neondot_pack_words,
    .tile = {wide_1, wide_2, wide_3, wide_4, wide_5},
    .narrow = {narrow_1, narrow_2, narrow_3, narrow_4, narrow_5},
    .subtract_row_terms = neondot_subtract_row_terms,
    .store = {neondot_store_s32, neondot_store_f32, neondot_store_codes},
};
#endif
