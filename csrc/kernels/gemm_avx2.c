/* GEMM tile for AVX2: int16 by int16 to int32, exact.
 *
 * vpmaddubsw would read bytes, but it saturates at 16 bits: 2 * 255 * 127 does not fit. So both operands are widened to
 * int16 and vpmaddwd adds two products into an int32 without loss. The tile is 6 rows by 16 columns: 12 accumulators,
 * 2 registers of weights, 2 for a row. */
#include "gemm.h"

#ifdef NDQ_X86
#include <immintrin.h>

#define NAME(x) avx2_##x
#define TARGET NDQ_TARGET_AVX2
#define NR 16
#include "gemm_plain.inc.h"

/* One word of K of one row: broadcast it, multiply it by the two vectors of weights, add. As one asm statement because
 * gcc moves the six broadcasts of a step together and then spills half of the accumulators. */
#define ROW(word, w0, w1, c0, c1)                                                                            \
    do {                                                                                                     \
        __m256i x_, y_;                                                                                      \
        __asm__ volatile("vpbroadcastd %[a], %[x]\n\t"                                                       \
                         "vpmaddwd %[b0], %[x], %[y]\n\t"                                                    \
                         "vpmaddwd %[b1], %[x], %[x]\n\t"                                                    \
                         "vpaddd %[y], %[s0], %[s0]\n\t"                                                     \
                         "vpaddd %[x], %[s1], %[s1]"                                                         \
                         : [s0] "+x"(c0), [s1] "+x"(c1), [x] "=&x"(x_), [y] "=&x"(y_)                        \
                         : [a] "m"(*(const uint32_t *)(word)), [b0] "x"(w0), [b1] "x"(w1));                  \
    } while (0)

#define STEP(rows, i)                                                                                        \
    do {                                                                                                     \
        const __m256i w0 = _mm256_load_si256(b + 2 * (i)), w1 = _mm256_load_si256(b + 2 * (i) + 1);          \
        ROW(a0 + 4 * (i), w0, w1, c00, c01);                                                                 \
        if (rows > 1) ROW(a0 + stride + 4 * (i), w0, w1, c10, c11);                                          \
        if (rows > 2) ROW(a0 + 2 * stride + 4 * (i), w0, w1, c20, c21);                                      \
        if (rows > 3) ROW(a3 + 4 * (i), w0, w1, c30, c31);                                                   \
        if (rows > 4) ROW(a3 + stride + 4 * (i), w0, w1, c40, c41);                                          \
        if (rows > 5) ROW(a3 + 2 * stride + 4 * (i), w0, w1, c50, c51);                                      \
    } while (0)

#define SAVE(row, c0, c1)                                                                                    \
    (_mm256_store_si256((__m256i *)(acc + 16 * (row)), c0), _mm256_store_si256((__m256i *)(acc + 16 * (row) + 8), c1))

/* The accumulators are named one by one: gcc keeps an array of them in memory. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void tile(const int rows, size_t words, const uint8_t *a0,
                                                                       size_t stride, const void *panel, int32_t *acc)
{
    const __m256i *b = panel;
    const uint8_t *a3 = rows > 3 ? a0 + 3 * stride : a0;
    __m256i c00 = _mm256_setzero_si256(), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00;
    __m256i c30 = c00, c31 = c00, c40 = c00, c41 = c00, c50 = c00, c51 = c00;
    for (size_t k = 0; k < words; k += 2) {
        STEP(rows, 0);
        STEP(rows, 1);
        a0 += 8;
        a3 += 8;
        b += 4;
    }
    SAVE(0, c00, c01);
    if (rows > 1) SAVE(1, c10, c11);
    if (rows > 2) SAVE(2, c20, c21);
    if (rows > 3) SAVE(3, c30, c31);
    if (rows > 4) SAVE(4, c40, c41);
    if (rows > 5) SAVE(5, c50, c51);
}

#define TILE(rows)                                                                                           \
    static NDQ_TARGET_AVX2 void tile_##rows(size_t words, const uint8_t *a, size_t stride, const void *panel, \
                                            int32_t *acc)                                                    \
    {                                                                                                        \
        tile(rows, words, a, stride, panel, acc);                                                            \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)

const ndq_gemm_kernel ndq_gemm_avx2 = {
    .name = "avx2",
    .mr = 6,
    .nr = NR,
    .codes_per_word = 2,
    .k_step = 4,
    .parallel_macs = 2.4e6,
    .expand_a = avx2_expand_s16,
    .expand_w = avx2_expand_s16,
    .sums = avx2_sums,
    .pack = avx2_pack_words,
    .tile = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6},
    .store = {avx2_store_s32, avx2_store_f32, avx2_store_codes},
};
#endif
