/* GEMM tiles for NEON without dot products: s8 by s8 to int32, exact.
 *
 * smull multiplies eight pairs of bytes to int16, which hold any one product, and sadalp adds neighbours of these to
 * int32: four instructions for 16 products. Two products fit int16 unless both factors may be -128, as
 * 2 * 128 * 127 < 2^15: then smlal adds the second to the first, and three instructions do. Weights at most 127 from
 * their zero point are such, once they are centred.
 *
 * An accumulator holds four partial sums along K of one row and one column; they are added when K is done. The tile is
 * 4 rows by 4 columns, and again for the next 4: 16 accumulators, 5 registers of operands, 4 of products. (The scheme of
 * ruy's kernels.) 16 codes of K are 64 or 48 such instructions and 13 others. */
#include "gemm.h"

#ifdef NDQ_ARM64
#include <arm_neon.h>

#define NAME(x) neon_##x
#define TARGET
#define NR 8
#include "gemm_plain.inc.h"

enum { COLUMNS = 4, STEP = 16, STEP_WORDS = STEP / 4, LARGEST = 127 };

static inline __attribute__((always_inline)) int32x4_t
multiply_add(const bool small, int32x4_t sum, int8x16_t a, int8x16_t b)
{
    const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
    if (small)
        return vpadalq_s16(sum, vmlal_high_s8(low, a, b));
    return vpadalq_s16(vpadalq_s16(sum, low), vmull_high_s8(a, b));
}

static inline __attribute__((always_inline)) void
four_columns(const int rows, const bool small, const ndq_gemm_runs *runs, const uint8_t *a0, size_t stride,
             const int8_t *b, int32_t *acc)
{
    int32x4_t c[4][COLUMNS];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < COLUMNS; j++)
            c[i][j] = vdupq_n_s32(0);
    for (size_t run = 0; run < runs->runs; run++) {
        const int8_t *a = (const int8_t *)(a0 + runs->offset[run]);
        for (size_t k = 0; k < runs->words; k += STEP_WORDS, a += STEP, b += COLUMNS * STEP) {
            int8x16_t row[4];
            for (int i = 0; i < rows; i++)
                row[i] = vld1q_s8(a + (size_t)i * stride);
            for (int j = 0; j < COLUMNS; j++) {
                int8x16_t column = vld1q_s8(b + j * STEP);
                NDQ_KEEP_ORDER(column);
                for (int i = 0; i < rows; i++)
                    c[i][j] = multiply_add(small, c[i][j], row[i], column);
                for (int i = 0; i < rows; i++)
                    NDQ_KEEP_ORDER(c[i][j]);
            }
        }
    }
    for (int i = 0; i < rows; i++)
        vst1q_s32(acc + i * NR, vpaddq_s32(vpaddq_s32(c[i][0], c[i][1]), vpaddq_s32(c[i][2], c[i][3])));
}

#define TILE(name, rows, small, columns)                                                                     \
    static void name##_##rows(const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, const void *panel, \
                              int32_t *acc)                                                                  \
    {                                                                                                        \
        const int8_t *b = panel;                                                                             \
        for (size_t n = 0; n < (columns); n += COLUMNS, b += COLUMNS * 4 * runs->runs * runs->words)         \
            four_columns(rows, small, runs, a, stride, b, acc + n);                                          \
    }
#define TILES(rows)                                                                                          \
    TILE(wide, rows, false, NR)                                                                              \
    TILE(narrow, rows, false, COLUMNS)                                                                       \
    TILE(small_wide, rows, true, NR)                                                                         \
    TILE(small_narrow, rows, true, COLUMNS)
TILES(1)
TILES(2)
TILES(3)
TILES(4)

/* [half of the columns][words / 4][4 columns][4 words] */
static void pack(size_t first, size_t count, const ndq_gemm_word *rows, size_t stride, size_t words,
                 ndq_gemm_word *panel)
{
    for (size_t n = 0; n < NR; n++) {
        ndq_gemm_word *out = panel + n / COLUMNS * COLUMNS * words + first * COLUMNS + n % COLUMNS * STEP_WORDS;
        for (size_t i = 0; i < count; i += STEP_WORDS, out += COLUMNS * STEP_WORDS)
            memcpy(out, rows + n * stride + i, STEP);
    }
}

const ndq_gemm_kernel ndq_gemm_neon = {
    .name = "neon",
    .mr = 4,
    .nr = NR,
    .codes_per_word = 4,
    .a_signed = true,
    .special = &ndq_gemm_neon_small,
    .k_step = STEP,
    .parallel_macs = 3e5,
    .expand_a = neon_expand_s8,
    .expand_w = neon_expand_s8,
    .sums = neon_sums,
    .pack = pack,
    .tile = {wide_1, wide_2, wide_3, wide_4},
    .narrow = {narrow_1, narrow_2, narrow_3, narrow_4},
    .subtract_row_terms = neon_subtract_row_terms,
    .store = {neon_store_s32, neon_store_f32, neon_store_codes},
};

const ndq_gemm_kernel ndq_gemm_neon_small = {
    .name = "neon_small",
    .mr = 4,
    .nr = NR,
    .codes_per_word = 4,
    .a_signed = true,
    .w_centred = true,
    .lowest_weight = -LARGEST,
    .largest_weight = LARGEST,
    .k_step = STEP,
    .parallel_macs = 3e5,
    .expand_a = neon_expand_s8,
    .expand_w = neon_expand_centred_s8,
    .sums = neon_sums,
    .extremes = neon_extremes,
    .pack = pack,
    .tile = {small_wide_1, small_wide_2, small_wide_3, small_wide_4},
    .narrow = {small_narrow_1, small_narrow_2, small_narrow_3, small_narrow_4},
    .store = {neon_store_s32, neon_store_f32, neon_store_codes},
};
#endif
