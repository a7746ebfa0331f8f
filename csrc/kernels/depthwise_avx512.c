/* Depthwise tile for AVX-512, 32 channels of up to 6 outputs in registers, and twice as many outputs in a tile, so that
 * the output stage has long ones. */
#include "gemm.h"

#ifdef NDQ_X86
#include <immintrin.h>

#define NAME(x) avx512_##x
#define TARGET NDQ_TARGET_AVX512
#define NR 32
#include "gemm_plain.inc.h"

#define WIDEN(v) (is_signed ? _mm512_cvtepi8_epi16(v) : _mm512_cvtepu8_epi16(v))
/* Unpacking works on 128 bits: the quarters 0 2 1 3 become 0 1 below and 2 3 above. */
#define QUARTERS(p) _mm256_permute4x64_epi64(_mm256_loadu_si256((const __m256i *)(p)), 0xd8)

static NDQ_TARGET_AVX512 void expand_pairs(size_t count, const ndq_depthwise_pixels *rows, bool is_signed,
                                           int32_t zero, void *pixels)
{
    const uint8_t *a = rows[0].codes, *b = rows[1].codes;
    const ptrdiff_t a_x = rows[0].stride, b_x = rows[1].stride;
    const __m512i z = _mm512_set1_epi16((int16_t)zero);
    __m512i *out = pixels;
    for (size_t i = 0; i < count; i++, a += a_x, b += b_x, out += 2) {
        const __m256i upper = QUARTERS(a), lower = QUARTERS(b);
        _mm512_storeu_si512(out, _mm512_sub_epi16(WIDEN(_mm256_unpacklo_epi8(upper, lower)), z));
        _mm512_storeu_si512(out + 1, _mm512_sub_epi16(WIDEN(_mm256_unpackhi_epi8(upper, lower)), z));
    }
}

#define ROW(row, low, high)                                                                                  \
    do {                                                                                                     \
        const uint8_t *x_ = x + (row) * stride;                                                              \
        low = _mm512_add_epi32(low, _mm512_madd_epi16(_mm512_loadu_si512(x_), w0));                          \
        high = _mm512_add_epi32(high, _mm512_madd_epi16(_mm512_loadu_si512(x_ + sizeof(__m512i)), w1));      \
    } while (0)
#define SAVE(row, low, high)                                                                                 \
    (_mm512_storeu_si512(acc + NR * (row), low), _mm512_storeu_si512(acc + NR * (row) + NR / 2, high))

/* The accumulators are named one by one: gcc keeps an array of them in memory. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX512 void
outputs(const int rows, const ndq_gemm_runs *taps, const uint8_t *a, size_t stride, const void *panel, int32_t *acc)
{
    const __m512i *w = panel;
    __m512i l0 = _mm512_setzero_si512(), h0 = l0, l1 = l0, h1 = l0, l2 = l0, h2 = l0;
    __m512i l3 = l0, h3 = l0, l4 = l0, h4 = l0, l5 = l0, h5 = l0;
    for (size_t tap = 0; tap < taps->runs; tap++, w += 2) {
        const uint8_t *x = a + taps->offset[tap];
        const __m512i w0 = _mm512_loadu_si512(w), w1 = _mm512_loadu_si512(w + 1);
        ROW(0, l0, h0);
        if (rows > 1) ROW(1, l1, h1);
        if (rows > 2) ROW(2, l2, h2);
        if (rows > 3) ROW(3, l3, h3);
        if (rows > 4) ROW(4, l4, h4);
        if (rows > 5) ROW(5, l5, h5);
    }
    SAVE(0, l0, h0);
    if (rows > 1) SAVE(1, l1, h1);
    if (rows > 2) SAVE(2, l2, h2);
    if (rows > 3) SAVE(3, l3, h3);
    if (rows > 4) SAVE(4, l4, h4);
    if (rows > 5) SAVE(5, l5, h5);
}

#define TILE(rows)                                                                                           \
    static NDQ_TARGET_AVX512 void tile_##rows(const ndq_gemm_runs *taps, const uint8_t *a, size_t stride,    \
                                              const void *panel, int32_t *acc)                               \
    {                                                                                                        \
        outputs(rows, taps, a, stride, panel, acc);                                                          \
    }
#define TWO_TILES(rows, first, second)                                                                       \
    static NDQ_TARGET_AVX512 void tile_##rows(const ndq_gemm_runs *taps, const uint8_t *a, size_t stride,    \
                                              const void *panel, int32_t *acc)                               \
    {                                                                                                        \
        tile_##first(taps, a, stride, panel, acc);                                                           \
        tile_##second(taps, a + (first) * stride, stride, panel, acc + (first) * NR);                        \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)
TWO_TILES(7, 4, 3)
TWO_TILES(8, 4, 4)
TWO_TILES(9, 5, 4)
TWO_TILES(10, 5, 5)
TWO_TILES(11, 6, 5)
TWO_TILES(12, 6, 6)

const ndq_gemm_kernel ndq_depthwise_avx512 = {
    .name = "avx512_depthwise",
    .mr = 12,
    .nr = NR,
    .codes_per_word = 2,
    .a_centred = true,
    .w_centred = true,
    .k_step = 2,
    .parallel_macs = 2e6,
    .expand_rows = expand_pairs,
    .expand_w = avx512_expand_s16,
    .sums = avx512_sums,
    .pack = avx512_pack_words,
    .tile = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6, tile_7, tile_8, tile_9, tile_10, tile_11, tile_12},
    .store = {avx512_store_s32, avx512_store_f32, avx512_store_codes},
};
#endif
