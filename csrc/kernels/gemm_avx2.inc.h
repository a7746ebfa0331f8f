/* What the AVX2 kernels do by hand. Parameters as in gemm_plain.inc.h, which this includes; NR is a multiple of 8. */
#include "gemm_plain.inc.h"

#define BY_HAND static __attribute__((unused)) NDQ_TARGET_AVX2

/* `sums`, with both sums of absolute differences in one loop, which compilers do not find. */
BY_HAND void NAME(sums_both)(size_t K, const uint8_t *codes, bool is_signed, int32_t zero, int64_t *sums)
{
    const __m256i flip = _mm256_set1_epi8(is_signed ? -128 : 0), none = _mm256_setzero_si256();
    const __m256i from = _mm256_xor_si256(_mm256_set1_epi8((char)zero), flip);
    const size_t whole = K / 32 * 32;
    __m256i values = none, sizes = none;
    for (size_t k = 0; k < whole; k += 32) {
        const __m256i c = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(codes + k)), flip);
        values = _mm256_add_epi64(values, _mm256_sad_epu8(c, none));
        sizes = _mm256_add_epi64(sizes, _mm256_sad_epu8(c, from));
    }
    _Alignas(32) int64_t lanes[8];
    _mm256_store_si256((__m256i *)lanes, values);
    _mm256_store_si256((__m256i *)(lanes + 4), sizes);
    sums[0] += lanes[0] + lanes[1] + lanes[2] + lanes[3] - (int64_t)whole * (zero + (is_signed ? 128 : 0));
    sums[1] += lanes[4] + lanes[5] + lanes[6] + lanes[7];
    for (size_t k = whole; k < K; k++) {
        const int32_t value = (is_signed ? (int8_t)codes[k] : codes[k]) - zero;
        sums[0] += value;
        sums[1] += abs(value);
    }
}

/* Eight words of eight rows to eight columns of eight words. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void
transpose_8x8(const ndq_gemm_word *rows, size_t stride, ndq_gemm_word *out)
{
    __m256i r[8], s[8];
    for (int i = 0; i < 8; i++)
        r[i] = _mm256_loadu_si256((const __m256i *)(rows + (size_t)i * stride));
    for (int i = 0; i < 8; i += 2) {
        s[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        s[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_unpacklo_epi64(s[i], s[i + 2]);
        r[i + 1] = _mm256_unpackhi_epi64(s[i], s[i + 2]);
        r[i + 2] = _mm256_unpacklo_epi64(s[i + 1], s[i + 3]);
        r[i + 3] = _mm256_unpackhi_epi64(s[i + 1], s[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        _mm256_store_si256((__m256i *)(out + NR * i), _mm256_permute2x128_si256(r[i], r[i + 4], 0x20));
        _mm256_store_si256((__m256i *)(out + NR * (i + 4)), _mm256_permute2x128_si256(r[i], r[i + 4], 0x31));
    }
}

/* pack_words, with eight by eight words at a time. */
BY_HAND void NAME(pack_transposed)(size_t first, size_t count, const ndq_gemm_word *rows, size_t stride, size_t words,
                                                  ndq_gemm_word *panel)
{
    const size_t whole = count / 8 * 8;
    for (size_t i = 0; i < whole; i += 8)
        for (size_t n = 0; n < NR; n += 8)
            transpose_8x8(rows + n * stride + i, stride, panel + (first + i) * NR + n);
    NAME(pack_words)(first + whole, count - whole, rows + whole, stride, words, panel);
}

#undef BY_HAND
