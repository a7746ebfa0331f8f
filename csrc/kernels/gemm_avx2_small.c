/* GEMM tile for AVX2 and small weights, |w - zw| <= 16 (5 bits and fewer): u8 by s8, exact.
 *
 * vpmaddubsw adds two products into 16 bits and would saturate in general. With weights this small a sum of two
 * products is at most 255 * 32 = 8160, so that four of them still fit: four instructions of 32 products each are added
 * in 16 bits before one vpmaddwd by ones widens them. The tile is 3 rows by 16 columns: 6 accumulators of each
 * width. */
#include "gemm.h"

#ifdef NDQ_X86
#include <immintrin.h>

#define NAME(x) avx2_small_##x
#define TARGET NDQ_TARGET_AVX2
#define NR 16
#include "gemm_avx2.inc.h"

enum { LARGEST = 16, GROUP = 4 }; /* words that are added in 16 bits */
_Static_assert(GROUP * 2 * LARGEST * 255 <= INT16_MAX, "sums of a group fit 16 bits");

static const int16_t ones[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

/* asm for the reason given in gemm_avx2.c. */
#define MULTIPLY(word, w, t)                                                                                 \
    __asm__ volatile("vpmaddubsw %[b], %[x], %[s]" : [s] "=&x"(t) : [x] "x"(word), [b] "x"(w))

#define MULTIPLY_ADD(word, w, t)                                                                             \
    do {                                                                                                     \
        __m256i y_;                                                                                          \
        __asm__ volatile("vpmaddubsw %[b], %[x], %[y]\n\tvpaddw %[y], %[s], %[s]"                            \
                         : [s] "+x"(t), [y] "=&x"(y_)                                                        \
                         : [x] "x"(word), [b] "x"(w));                                                       \
    } while (0)

#define WIDEN(t, c)                                                                                          \
    __asm__ volatile("vpmaddwd %[one], %[s], %[s]\n\tvpaddd %[s], %[r], %[r]"                                \
                     : [s] "+x"(t), [r] "+x"(c)                                                              \
                     : [one] "m"(ones))

#define ROW(OPERATION, word, t0, t1)                                                                         \
    do {                                                                                                     \
        const __m256i x_ = _mm256_set1_epi32((int32_t)*(const ndq_gemm_word_anywhere *)(word));              \
        OPERATION(x_, w0, t0);                                                                               \
        if (wide)                                                                                            \
            OPERATION(x_, w1, t1);                                                                           \
    } while (0)

#define STEP(OPERATION, i)                                                                                   \
    do {                                                                                                     \
        const __m256i w0 = _mm256_load_si256(b + 2 * (i)), w1 = _mm256_load_si256(b + 2 * (i) + 1);          \
        ROW(OPERATION, a0 + 4 * (i), t00, t01);                                                              \
        if (rows > 1) ROW(OPERATION, a0 + stride + 4 * (i), t10, t11);                                       \
        if (rows > 2) ROW(OPERATION, a0 + 2 * stride + 4 * (i), t20, t21);                                   \
    } while (0)

#define WIDEN_ROW(t0, t1, c0, c1)                                                                            \
    do {                                                                                                     \
        WIDEN(t0, c0);                                                                                       \
        if (wide)                                                                                            \
            WIDEN(t1, c1);                                                                                   \
    } while (0)

#define FETCH(row, c0, c1)                                                                                   \
    (c0 = _mm256_load_si256((const __m256i *)(acc + 16 * (row))),                                            \
     c1 = _mm256_load_si256((const __m256i *)(acc + 16 * (row) + 8)))
#define SAVE(row, c0, c1)                                                                                    \
    (_mm256_store_si256((__m256i *)(acc + 16 * (row)), c0), _mm256_store_si256((__m256i *)(acc + 16 * (row) + 8), c1))

/* The accumulators are named one by one: gcc keeps an array of them in memory. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void
tile(const int rows, const bool wide, const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, const void *panel,
     int32_t *acc)
{
    const __m256i *b = panel;
    __m256i c00 = _mm256_setzero_si256(), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00;
    if (runs->continued) {
        FETCH(0, c00, c01);
        if (rows > 1) FETCH(1, c10, c11);
        if (rows > 2) FETCH(2, c20, c21);
    }
    for (size_t run = 0; run < runs->runs; run++) {
        const uint8_t *a0 = a + runs->offset[run];
        for (size_t k = 0; k < runs->words; k += GROUP, a0 += 4 * GROUP, b += 2 * GROUP) {
            __m256i t00, t01 = c00, t10 = c00, t11 = c00, t20 = c00, t21 = c00;
            STEP(MULTIPLY, 0);
            STEP(MULTIPLY_ADD, 1);
            STEP(MULTIPLY_ADD, 2);
            STEP(MULTIPLY_ADD, 3);
            WIDEN_ROW(t00, t01, c00, c01);
            if (rows > 1) WIDEN_ROW(t10, t11, c10, c11);
            if (rows > 2) WIDEN_ROW(t20, t21, c20, c21);
        }
    }
    SAVE(0, c00, c01);
    if (rows > 1) SAVE(1, c10, c11);
    if (rows > 2) SAVE(2, c20, c21);
}

#define TILE(name, rows, wide)                                                                               \
    static NDQ_TARGET_AVX2 void name##_##rows(const ndq_gemm_runs *runs, const uint8_t *a, size_t stride,    \
                                              const void *panel, int32_t *acc)                               \
    {                                                                                                        \
        tile(rows, wide, runs, a, stride, panel, acc);                                                      \
    }
#define TILES(rows) TILE(wide, rows, true) TILE(narrow, rows, false)
TILES(1)
TILES(2)
TILES(3)

const ndq_gemm_kernel ndq_gemm_avx2_small = {
    .name = "avx2_small",
    .mr = 3,
    .nr = NR,
    .codes_per_word = 4,
    .k_step = 4 * GROUP,
    .block_words = 512,
    .w_centred = true,
    .special = &ndq_gemm_avx2_bytes,
    .lowest_weight = -LARGEST,
    .largest_weight = LARGEST,
    .parallel_macs = 4e6,
    .expand_a = avx2_small_expand_u8,
    .expand_w = avx2_small_expand_centred_s8,
    .sums = avx2_small_sums_both,
    .extremes = avx2_small_extremes,
    .pack = avx2_small_pack_transposed,
    .tile = {wide_1, wide_2, wide_3},
    .narrow = {narrow_1, narrow_2, narrow_3},
    .store = {avx2_small_store_s32, avx2_small_store_f32, avx2_small_store_codes_by_hand},
};
#endif
