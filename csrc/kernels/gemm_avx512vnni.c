/* GEMM tile for AVX-512 VNNI: vpdpbusd adds four products of u8 activations by s8 weights to an int32, and wraps, so
 * that the sum is exact modulo 2^32 whatever the order. The tile is 12 rows by 32 columns: 24 accumulators, 2 registers
 * of weights, 1 for a row. */
#include "gemm.h"

#ifdef NDQ_X86
#include <immintrin.h>

#define NAME(x) avx512vnni_##x
#define TARGET NDQ_TARGET_AVX512VNNI
#define NR 32
#include "gemm_plain.inc.h"

/* One asm statement for the reason given in gemm_avx2.c. */
#define WIDE_ROW(word, c0, c1)                                                                               \
    do {                                                                                                     \
        __m512i x_;                                                                                          \
        __asm__ volatile("vpbroadcastd %[a], %[x]\n\t"                                                       \
                         "vpdpbusd %[b0], %[x], %[s0]\n\t"                                                   \
                         "vpdpbusd %[b1], %[x], %[s1]"                                                       \
                         : [s0] "+v"(c0), [s1] "+v"(c1), [x] "=&v"(x_)                                       \
                         : [a] "m"(*(const ndq_gemm_word_anywhere *)(word)), [b0] "v"(w0), [b1] "v"(w1));             \
    } while (0)

#define NARROW_ROW(word, c0)                                                                                 \
    do {                                                                                                     \
        __m512i x_;                                                                                          \
        __asm__ volatile("vpbroadcastd %[a], %[x]\n\t"                                                       \
                         "vpdpbusd %[b0], %[x], %[s0]"                                                       \
                         : [s0] "+v"(c0), [x] "=&v"(x_)                                                      \
                         : [a] "m"(*(const ndq_gemm_word_anywhere *)(word)), [b0] "v"(w0));                           \
    } while (0)

#define ROW(word, c0, c1)                                                                                    \
    do {                                                                                                     \
        if (wide)                                                                                            \
            WIDE_ROW(word, c0, c1);                                                                          \
        else                                                                                                 \
            NARROW_ROW(word, c0);                                                                            \
    } while (0)

#define SAVE(row, c0, c1)                                                                                    \
    (_mm512_store_si512(acc + 32 * (row), c0), _mm512_store_si512(acc + 32 * (row) + 16, c1))

/* The accumulators are named one by one: gcc keeps an array of them in memory. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX512VNNI void
tile(const int rows, const bool wide, const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, const void *panel,
     int32_t *acc)
{
    const __m512i *b = panel;
    __m512i c00 = _mm512_setzero_si512(), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00;
    __m512i c30 = c00, c31 = c00, c40 = c00, c41 = c00, c50 = c00, c51 = c00;
    __m512i c60 = c00, c61 = c00, c70 = c00, c71 = c00, c80 = c00, c81 = c00;
    __m512i c90 = c00, c91 = c00, ca0 = c00, ca1 = c00, cb0 = c00, cb1 = c00;
    for (size_t run = 0; run < runs->runs; run++) {
        const uint8_t *a0 = a + runs->offset[run], *a3 = rows > 3 ? a0 + 3 * stride : a0;
        const uint8_t *a6 = rows > 6 ? a3 + 3 * stride : a0, *a9 = rows > 9 ? a6 + 3 * stride : a0;
        for (size_t k = 0; k < runs->words; k++, b += 2, a0 += 4, a3 += 4, a6 += 4, a9 += 4) {
            const __m512i w0 = _mm512_load_si512(b), w1 = _mm512_load_si512(b + 1);
            ROW(a0, c00, c01);
            if (rows > 1) ROW(a0 + stride, c10, c11);
            if (rows > 2) ROW(a0 + 2 * stride, c20, c21);
            if (rows > 3) ROW(a3, c30, c31);
            if (rows > 4) ROW(a3 + stride, c40, c41);
            if (rows > 5) ROW(a3 + 2 * stride, c50, c51);
            if (rows > 6) ROW(a6, c60, c61);
            if (rows > 7) ROW(a6 + stride, c70, c71);
            if (rows > 8) ROW(a6 + 2 * stride, c80, c81);
            if (rows > 9) ROW(a9, c90, c91);
            if (rows > 10) ROW(a9 + stride, ca0, ca1);
            if (rows > 11) ROW(a9 + 2 * stride, cb0, cb1);
        }
    }
    SAVE(0, c00, c01);
    if (rows > 1) SAVE(1, c10, c11);
    if (rows > 2) SAVE(2, c20, c21);
    if (rows > 3) SAVE(3, c30, c31);
    if (rows > 4) SAVE(4, c40, c41);
    if (rows > 5) SAVE(5, c50, c51);
    if (rows > 6) SAVE(6, c60, c61);
    if (rows > 7) SAVE(7, c70, c71);
    if (rows > 8) SAVE(8, c80, c81);
    if (rows > 9) SAVE(9, c90, c91);
    if (rows > 10) SAVE(10, ca0, ca1);
    if (rows > 11) SAVE(11, cb0, cb1);
}

#define TILE(name, rows, wide)                                                                               \
    static NDQ_TARGET_AVX512VNNI void name##_##rows(const ndq_gemm_runs *runs, const uint8_t *a,             \
                                                    size_t stride, const void *panel, int32_t *acc)          \
    {                                                                                                        \
        tile(rows, wide, runs, a, stride, panel, acc);                                                      \
    }
#define TILES(rows) TILE(wide, rows, true) TILE(narrow, rows, false)
TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILES(5)
TILES(6)
TILES(7)
TILES(8)
TILES(9)
TILES(10)
TILES(11)
TILES(12)

const ndq_gemm_kernel ndq_gemm_avx512vnni = {
    .name = "avx512vnni",
    .mr = 12,
    .nr = NR,
    .codes_per_word = 4,
    .k_step = 4,
    .parallel_macs = 1e7,
    .expand_a = avx512vnni_expand_u8,
    .expand_w = avx512vnni_expand_s8,
    .sums = avx512vnni_sums,
    .pack = avx512vnni_pack_words,
    .tile = {wide_1, wide_2, wide_3, wide_4, wide_5, wide_6, wide_7, wide_8, wide_9, wide_10, wide_11, wide_12},
    .narrow = {narrow_1, narrow_2, narrow_3, narrow_4, narrow_5, narrow_6, narrow_7, narrow_8, narrow_9, narrow_10,
               narrow_11, narrow_12},
    .subtract_row_terms = avx512vnni_subtract_row_terms,
    .store = {avx512vnni_store_s32, avx512vnni_store_f32, avx512vnni_store_codes},
};
#endif
