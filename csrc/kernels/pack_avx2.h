/* Codes of weights to panels of int16 for AVX2, in one walk: what expand_w, sums and pack do one after another. */
#ifndef NDQ_PACK_AVX2_H
#define NDQ_PACK_AVX2_H

#include "gemm.h"

#include <immintrin.h>

/* Eight words of eight rows become eight words of eight columns. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void ndq_transpose_avx2(__m256i *r)
{
    __m256i s[8];
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
        s[i] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x20);
        s[i + 4] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x31);
    }
    for (int i = 0; i < 8; i++)
        r[i] = s[i];
}

/* Eight columns of a panel, of which some exist, and their sums: of w - zw, and of its size. */
typedef struct {
    size_t columns;
    const uint8_t *codes;
    ptrdiff_t stride;
    bool is_signed;
    int16_t zero[8];
    __m256i values, sizes;
} ndq_octet_avx2;

/* 16 codes of each column from `at` on. Of the rest of the columns the first `skip` have been packed already, and zeros
 * follow. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void
ndq_pack_16_avx2(const bool is_signed, const bool rest, ndq_octet_avx2 *o, size_t at, size_t skip, ndq_gemm_word *out)
{
    const __m128i ascending = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m128i move = _mm_add_epi8(ascending, _mm_set1_epi8((char)(0x70 + skip))); /* from 0x80 on: a zero */
    const __m256i kept = _mm256_cvtepi8_epi16(_mm_cmpgt_epi8(move, _mm_setzero_si128()));
    const size_t words = rest ? ndq_round_up(16 - skip, 4) / 2 : 8;
    __m256i r[8], sum = _mm256_setzero_si256(), size = sum;
    for (size_t i = 0; i < 8; i++) {
        r[i] = _mm256_setzero_si256();
        if (i >= o->columns)
            continue;
        const __m128i loaded = _mm_loadu_si128((const __m128i *)(o->codes + (ptrdiff_t)i * o->stride + (ptrdiff_t)at));
        const __m128i codes = rest ? _mm_shuffle_epi8(loaded, move) : loaded;
        const __m256i wide = is_signed ? _mm256_cvtepi8_epi16(codes) : _mm256_cvtepu8_epi16(codes);
        const __m256i zero = _mm256_set1_epi16(o->zero[i]);
        r[i] = _mm256_sub_epi16(wide, rest ? _mm256_and_si256(zero, kept) : zero);
    }
    ndq_transpose_avx2(r);
    for (size_t i = 0; i < 8; i++) { /* sums of eight differences of bytes fit int16 */
        sum = _mm256_add_epi16(sum, r[i]);
        size = _mm256_add_epi16(size, _mm256_abs_epi16(r[i]));
        if (i < words)
            _mm256_store_si256((__m256i *)(out + 16 * i), r[i]);
    }
    const __m256i ones = _mm256_set1_epi16(1);
    o->values = _mm256_add_epi32(o->values, _mm256_madd_epi16(sum, ones));
    o->sizes = _mm256_add_epi32(o->sizes, _mm256_madd_epi16(size, ones));
}

static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void
ndq_pack_octet_avx2(const bool is_signed, ndq_octet_avx2 *o, size_t K, ndq_gemm_word *out)
{
    uint8_t ends[8][16] = {{0}};
    size_t k = 0;
    for (; k + 16 <= K; k += 16)
        ndq_pack_16_avx2(is_signed, false, o, k, 0, out + 8 * k);
    if (k == K)
        return;
    if (K >= 16) {
        ndq_pack_16_avx2(is_signed, true, o, K - 16, 16 - (K - k), out + 8 * k);
        return;
    }
    for (size_t i = 0; i < o->columns; i++)
        memcpy(ends[i] + 16 - K, o->codes + (ptrdiff_t)i * o->stride, K);
    o->codes = ends[0];
    o->stride = 16;
    ndq_pack_16_avx2(is_signed, true, o, 0, 16 - K, out);
}

static inline NDQ_TARGET_AVX2 void ndq_pack_rows_avx2(size_t columns, size_t K, const uint8_t *codes, ptrdiff_t stride,
                                                      bool is_signed, const int32_t *zero_point, ndq_gemm_word *panel,
                                                      int64_t (*sums)[2])
{
    for (size_t first = 0; first < 16; first += 8, panel += 8) {
        ndq_octet_avx2 o = {.codes = codes + (ptrdiff_t)first * stride, .stride = stride};
        o.columns = columns > first ? ndq_min_size(columns - first, 8) : 0;
        for (size_t i = 0; zero_point && i < o.columns; i++)
            o.zero[i] = (int16_t)zero_point[first + i];
        o.values = o.sizes = _mm256_setzero_si256();
        if (is_signed)
            ndq_pack_octet_avx2(true, &o, K, panel);
        else
            ndq_pack_octet_avx2(false, &o, K, panel);
        int32_t values[8], sizes[8];
        _mm256_storeu_si256((__m256i *)values, o.values);
        _mm256_storeu_si256((__m256i *)sizes, o.sizes);
        for (size_t i = 0; i < o.columns; i++) {
            sums[first + i][0] += values[i];
            sums[first + i][1] += sizes[i];
        }
    }
}

#endif
