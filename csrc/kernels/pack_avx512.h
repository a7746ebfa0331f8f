/* Codes of weights to panels of words of four bytes for AVX-512, in one walk: what expand_w, sums and pack do one after
 * another. The words of 16 columns are a vector, in which their sums are dot products with ones. */
#ifndef NDQ_PACK_AVX512_H
#define NDQ_PACK_AVX512_H

#include "gemm.h"

#include <immintrin.h>

#define NDQ_INLINE_AVX512 static inline __attribute__((always_inline)) NDQ_TARGET_AVX512VNNI

enum { NDQ_HALF_AVX512 = 16, NDQ_BLOCK_WORDS_AVX512 = 16, NDQ_BLOCK_CODES_AVX512 = 64 };

/* `sums` of a kernel. Bytes beyond the end of a row are zeros, and so are what they are flipped by and their zero points. */
static NDQ_TARGET_AVX512VNNI void ndq_sums_avx512(size_t K, const uint8_t *codes, bool is_signed, int32_t zero, int64_t *sums)
{
    const __m512i none = _mm512_setzero_si512();
    const __m512i to_u8 = _mm512_set1_epi8(is_signed ? -128 : 0), from = _mm512_xor_si512(_mm512_set1_epi8((char)zero), to_u8);
    __m512i values = none, sizes = none;
    for (size_t k = 0; k < K; k += NDQ_BLOCK_CODES_AVX512) {
        const size_t left = ndq_min_size(K - k, NDQ_BLOCK_CODES_AVX512);
        const __mmask64 present = ~0ull >> (NDQ_BLOCK_CODES_AVX512 - left);
        const __m512i s = _mm512_maskz_loadu_epi8(present, codes + k);
        const __m512i u8 = _mm512_xor_si512(s, _mm512_maskz_mov_epi8(present, to_u8));
        values = _mm512_add_epi64(values, _mm512_sad_epu8(u8, none));
        sizes = _mm512_add_epi64(sizes, _mm512_sad_epu8(u8, _mm512_maskz_mov_epi8(present, from)));
    }
    sums[0] += _mm512_reduce_add_epi64(values) - (int64_t)K * (zero + (is_signed ? 128 : 0));
    sums[1] += _mm512_reduce_add_epi64(sizes);
}

/* 16 columns of a panel, of which some exist: the others become zeros. */
typedef struct {
    __mmask16 present;
    __m512i flip, to_u8, from; /* codes to s8, and to u8; zero points as u8, four times each */
    __m512i values, sizes;     /* sums of codes as u8, and of their distances from the zero points */
} ndq_columns_avx512;

NDQ_INLINE_AVX512 ndq_columns_avx512 ndq_columns_of_avx512(size_t columns, bool is_signed, const int32_t *zero_point)
{
    ndq_columns_avx512 c = {.present = (__mmask16)((1u << columns) - 1)};
    c.flip = _mm512_set1_epi8(is_signed ? 0 : -128);
    c.to_u8 = _mm512_set1_epi8(is_signed ? -128 : 0);
    c.from = c.to_u8;
    if (zero_point) {
        const __m512i zero = _mm512_maskz_loadu_epi32(c.present, zero_point);
        const __m512i byte = _mm512_and_si512(zero, _mm512_set1_epi32(0xff));
        c.from = _mm512_xor_si512(_mm512_mullo_epi32(byte, _mm512_set1_epi32(0x01010101)), c.to_u8);
    }
    c.values = c.sizes = _mm512_setzero_si512();
    return c;
}

/* The first `codes` <= 4 bytes of each word. */
NDQ_INLINE_AVX512 __mmask64 ndq_bytes_of_words_avx512(size_t codes)
{
    return 0x1111111111111111ull * (0xfu >> (4 - codes));
}

/* A word of each column. Bytes that do not exist are zeros in `codes`; they add their zero point to the sum of values. */
NDQ_INLINE_AVX512 void ndq_pack_word_avx512(const bool whole, ndq_columns_avx512 *c, __m512i codes, __mmask64 bytes,
                                            ndq_gemm_word *out)
{
    const __m512i ones = _mm512_set1_epi8(1), flip = whole ? c->flip : _mm512_maskz_mov_epi8(bytes, c->flip);
    __m512i u8 = _mm512_xor_si512(codes, c->to_u8);
    _mm512_store_si512(out, _mm512_maskz_xor_epi32(c->present, codes, flip));
    u8 = whole ? u8 : _mm512_mask_mov_epi8(c->from, bytes, u8);
    const __m512i size = _mm512_sub_epi8(_mm512_max_epu8(u8, c->from), _mm512_min_epu8(u8, c->from));
    c->values = _mm512_dpbusd_epi32(c->values, u8, ones);
    c->sizes = _mm512_dpbusd_epi32(c->sizes, size, ones);
}

/* Adds the sums of K codes of each column to those of the panel. */
NDQ_INLINE_AVX512 void ndq_add_sums_avx512(const ndq_columns_avx512 *c, size_t columns, size_t K, int64_t (*sums)[2])
{
    const __m512i from = _mm512_and_si512(c->from, _mm512_set1_epi32(0xff));
    const __m512i less = _mm512_mullo_epi32(from, _mm512_set1_epi32((int)ndq_round_up(K, 4)));
    int32_t values[NDQ_HALF_AVX512], sizes[NDQ_HALF_AVX512];
    _mm512_storeu_si512(values, _mm512_sub_epi32(c->values, less));
    _mm512_storeu_si512(sizes, c->sizes);
    for (size_t i = 0; i < columns; i++) {
        sums[i][0] += values[i];
        sums[i][1] += sizes[i];
    }
}

/* 16 words of 16 rows become 16 words of 16 columns. */
NDQ_INLINE_AVX512 void ndq_transpose_avx512(__m512i *r)
{
    __m512i s[16];
    for (int i = 0; i < 16; i += 2) {
        s[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        s[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) { /* r[i + j] has word j of each four of rows i to i + 3 */
        r[i] = _mm512_unpacklo_epi64(s[i], s[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(s[i], s[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(s[i + 1], s[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(s[i + 1], s[i + 3]);
    }
    for (int j = 0; j < 4; j++) { /* even and odd fours of rows 0 to 7, and of rows 8 to 15 */
        s[j] = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x88);
        s[4 + j] = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xdd);
        s[8 + j] = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x88);
        s[12 + j] = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xdd);
    }
    for (int j = 0; j < 4; j++) {
        r[j] = _mm512_shuffle_i32x4(s[j], s[8 + j], 0x88);
        r[4 + j] = _mm512_shuffle_i32x4(s[4 + j], s[12 + j], 0x88);
        r[8 + j] = _mm512_shuffle_i32x4(s[j], s[8 + j], 0xdd);
        r[12 + j] = _mm512_shuffle_i32x4(s[4 + j], s[12 + j], 0xdd);
    }
}

/* Up to 64 codes of each column, which are rows of codes at `row`. */
NDQ_INLINE_AVX512 void ndq_pack_block_avx512(const bool whole, ndq_columns_avx512 *c, const uint8_t *const *row, size_t k,
                                             size_t codes, ndq_gemm_word *out)
{
    const __mmask64 present = whole ? ~0ull : ~0ull >> (NDQ_BLOCK_CODES_AVX512 - codes);
    const size_t words = whole ? NDQ_BLOCK_WORDS_AVX512 : ndq_ceil_div(codes, 4);
    const __mmask64 last = ndq_bytes_of_words_avx512(codes - 4 * (words - 1));
    __m512i r[NDQ_BLOCK_WORDS_AVX512];
    for (int i = 0; i < NDQ_HALF_AVX512; i++)
        r[i] = whole ? _mm512_loadu_si512(row[i] + k) : _mm512_maskz_loadu_epi8(present, row[i] + k);
    ndq_transpose_avx512(r);
    for (size_t i = 0; i < NDQ_BLOCK_WORDS_AVX512; i++)
        if (whole || i < words)
            ndq_pack_word_avx512(whole, c, r[i], i + 1 < words ? ~0ull : last, out + i * 2 * NDQ_HALF_AVX512);
}

/* Zeros in place of 16 columns. */
NDQ_INLINE_AVX512 void ndq_pack_nothing_avx512(size_t K, ndq_gemm_word *out)
{
    for (size_t k = 0; k < K; k += 4, out += 2 * NDQ_HALF_AVX512)
        _mm512_store_si512(out, _mm512_setzero_si512());
}

NDQ_INLINE_AVX512 void ndq_pack_half_rows_avx512(ndq_columns_avx512 *c, size_t columns, size_t K, const uint8_t *codes,
                                                 ptrdiff_t stride, ndq_gemm_word *out)
{
    enum { BLOCK = NDQ_BLOCK_CODES_AVX512 };
    const uint8_t *row[NDQ_HALF_AVX512];
    for (size_t i = 0; i < NDQ_HALF_AVX512; i++)
        row[i] = codes + (ptrdiff_t)(i < columns ? i : 0) * stride;
    size_t k = 0;
    for (; k + BLOCK <= K; k += BLOCK, out += 2 * NDQ_HALF_AVX512 * NDQ_BLOCK_WORDS_AVX512)
        ndq_pack_block_avx512(true, c, row, k, BLOCK, out);
    if (k < K)
        ndq_pack_block_avx512(false, c, row, k, K - k, out);
}

/* The words of four rows of codes of 16 columns, of which the first `rows` exist. */
NDQ_INLINE_AVX512 __m512i ndq_interleave_avx512(const bool whole, __mmask16 columns, const uint8_t *codes, ptrdiff_t stride,
                                                size_t rows)
{
    const __m512i fours = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i in_four = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
#define ROW(i)                                                                                               \
    (whole ? _mm_loadu_si128((const __m128i *)(codes + (i) * stride))                                        \
           : _mm_maskz_loadu_epi8((i) < rows ? columns : 0, codes + ((i) < rows ? (i) : 0) * stride))
    const __m512i all = _mm512_inserti32x4(_mm512_inserti32x4(_mm512_inserti32x4(
        _mm512_castsi128_si512(ROW(0)), ROW(1), 1), ROW(2), 2), ROW(3), 3);
#undef ROW
    return _mm512_shuffle_epi8(_mm512_permutexvar_epi32(fours, all), in_four);
}

NDQ_INLINE_AVX512 void ndq_pack_half_columns_avx512(const bool whole, ndq_columns_avx512 *c, size_t K, const uint8_t *codes,
                                                    ptrdiff_t stride, ndq_gemm_word *out)
{
    size_t k = 0;
    for (; k + 4 <= K; k += 4, codes += 4 * stride, out += 2 * NDQ_HALF_AVX512)
        ndq_pack_word_avx512(true, c, ndq_interleave_avx512(whole, c->present, codes, stride, 4), ~0ull, out);
    if (k < K)
        ndq_pack_word_avx512(false, c, ndq_interleave_avx512(false, c->present, codes, stride, K - k),
                             ndq_bytes_of_words_avx512(K - k), out);
}

/* A panel, 16 columns at a time. */
NDQ_INLINE_AVX512 void ndq_pack_avx512(const bool in_rows, size_t columns, size_t K, const uint8_t *codes, ptrdiff_t stride,
                                       bool is_signed, const int32_t *zero_point, ndq_gemm_word *panel,
                                       int64_t (*sums)[2])
{
    enum { HALF = NDQ_HALF_AVX512 };
    for (size_t first = 0; first < 2 * HALF; first += HALF, panel += HALF) {
        if (columns <= first) {
            ndq_pack_nothing_avx512(K, panel);
            continue;
        }
        const size_t count = ndq_min_size(columns - first, HALF);
        const uint8_t *at = codes + (ptrdiff_t)first * (in_rows ? stride : 1);
        ndq_columns_avx512 c = ndq_columns_of_avx512(count, is_signed, zero_point ? zero_point + first : NULL);
        if (in_rows)
            ndq_pack_half_rows_avx512(&c, count, K, at, stride, panel);
        else if (count == HALF)
            ndq_pack_half_columns_avx512(true, &c, K, at, stride, panel);
        else
            ndq_pack_half_columns_avx512(false, &c, K, at, stride, panel);
        ndq_add_sums_avx512(&c, count, K, sums + first);
    }
}

static NDQ_TARGET_AVX512VNNI void ndq_pack_rows_avx512(size_t columns, size_t K, const uint8_t *codes, ptrdiff_t stride,
                                                       bool is_signed, const int32_t *zero_point, ndq_gemm_word *panel,
                                                       int64_t (*sums)[2])
{
    ndq_pack_avx512(true, columns, K, codes, stride, is_signed, zero_point, panel, sums);
}

static NDQ_TARGET_AVX512VNNI void ndq_pack_columns_avx512(size_t columns, size_t K, const uint8_t *codes, ptrdiff_t stride,
                                                          bool is_signed, const int32_t *zero_point,
                                                          ndq_gemm_word *panel, int64_t (*sums)[2])
{
    ndq_pack_avx512(false, columns, K, codes, stride, is_signed, zero_point, panel, sums);
}

#undef NDQ_INLINE_AVX512

#endif
