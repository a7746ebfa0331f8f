/* Codes of 8 bits from float32 and back, for the templates of elementwise.inc.h. Intrinsics, as gcc 12 narrows and widens
 * by way of 16 bits with a permutation after each step: these take 0.65 and 0.6 of the time while data are in the caches.
 *
 * Codes are counted from qmin. So saturation to an unsigned byte is the lower bound, also for NaN and for what no int32
 * holds, which the conversion turns into INT32_MIN; only the upper bound takes an instruction. */
#ifndef NDQ_BYTES_AVX2_H
#define NDQ_BYTES_AVX2_H

#include "../backend.h"

#include <immintrin.h>

/* min returns its second operand, the value, if that is NaN. */
NDQ_TARGET_AVX2 static inline __m256i ndq_rounded_avx2(const float *x, __m256 inv, __m256 hi)
{
    return _mm256_cvtps_epi32(_mm256_min_ps(hi, _mm256_mul_ps(_mm256_loadu_ps(x), inv)));
}

/* Bounds, exact in 16 bits, in the order in which packing leaves the values that they are subtracted from. */
NDQ_TARGET_AVX2 static inline __m256i ndq_packed_bounds_avx2(__m256 a, __m256 b)
{
    return _mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
}

NDQ_TARGET_AVX2 static inline __m256i ndq_qmin_avx2(const ndq_affine_f32 *p)
{
    return _mm256_set1_epi8((int8_t)(int)(p->lo[0] + p->zp[0]));
}

/* The codes of four vectors of rounded values. */
NDQ_TARGET_AVX2 static inline __m256i ndq_codes_avx2(__m256i a, __m256i b, __m256i c, __m256i d, __m256i lo_ab,
                                                     __m256i lo_cd, __m256i qmin)
{
    const __m256i ab = _mm256_subs_epi16(_mm256_packs_epi32(a, b), lo_ab);
    const __m256i cd = _mm256_subs_epi16(_mm256_packs_epi32(c, d), lo_cd);
    const __m256i codes = _mm256_add_epi8(_mm256_packus_epi16(ab, cd), qmin);
    return _mm256_permutevar8x32_epi32(codes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* The functions below do elements of one channel (`run`), or whole rows where channels are the last axis, and return how
 * many of n elements they did. The last vector of a run or row may overlap the one before: input and output are never the
 * same array, as their elements differ in size. */
NDQ_TARGET_AVX2 static inline size_t ndq_quantize_run_avx2(const ndq_affine_f32 *p, size_t c, size_t n, const float *x,
                                                           uint8_t *q)
{
    const __m256 inv = _mm256_set1_ps(p->inv[c]), lo = _mm256_set1_ps(p->lo[c]), hi = _mm256_set1_ps(p->hi[c]);
    const __m256i bounds = ndq_packed_bounds_avx2(lo, lo), qmin = ndq_qmin_avx2(p);
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        const __m256i v0 = ndq_rounded_avx2(x + i, inv, hi), v1 = ndq_rounded_avx2(x + i + 8, inv, hi);
        const __m256i v2 = ndq_rounded_avx2(x + i + 16, inv, hi), v3 = ndq_rounded_avx2(x + i + 24, inv, hi);
        _mm256_storeu_si256((__m256i *)(q + i), ndq_codes_avx2(v0, v1, v2, v3, bounds, bounds, qmin));
    }
    for (; i < n && n >= 8; i += 8) {
        i = ndq_min_size(i, n - 8);
        const __m256i v = ndq_rounded_avx2(x + i, inv, hi);
        _mm_storel_epi64((__m128i *)(q + i), _mm256_castsi256_si128(ndq_codes_avx2(v, v, v, v, bounds, bounds, qmin)));
    }
    return i;
}

/* 32 columns of some rows, so that coefficients stay in registers. */
NDQ_TARGET_AVX2 static inline void ndq_quantize_columns_avx2(const ndq_affine_f32 *p, size_t j, size_t rows,
                                                             size_t channels, const float *x, uint8_t *q)
{
#define COEF(a, k) _mm256_loadu_ps(p->a + j + (k))
    const __m256 inv0 = COEF(inv, 0), inv1 = COEF(inv, 8), inv2 = COEF(inv, 16), inv3 = COEF(inv, 24);
    const __m256 hi0 = COEF(hi, 0), hi1 = COEF(hi, 8), hi2 = COEF(hi, 16), hi3 = COEF(hi, 24);
    const __m256i lo01 = ndq_packed_bounds_avx2(COEF(lo, 0), COEF(lo, 8));
    const __m256i lo23 = ndq_packed_bounds_avx2(COEF(lo, 16), COEF(lo, 24)), qmin = ndq_qmin_avx2(p);
#undef COEF
    for (size_t r = 0, at = j; r < rows; r++, at += channels) {
        const __m256i v0 = ndq_rounded_avx2(x + at, inv0, hi0), v1 = ndq_rounded_avx2(x + at + 8, inv1, hi1);
        const __m256i v2 = ndq_rounded_avx2(x + at + 16, inv2, hi2), v3 = ndq_rounded_avx2(x + at + 24, inv3, hi3);
        _mm256_storeu_si256((__m256i *)(q + at), ndq_codes_avx2(v0, v1, v2, v3, lo01, lo23, qmin));
    }
}

/* A few rows at a time, of which each cache line is still there when the columns beside are done. */
NDQ_TARGET_AVX2 static inline size_t ndq_quantize_rows_avx2(const ndq_affine_f32 *p, size_t channels, size_t n,
                                                            const float *x, uint8_t *q)
{
    enum { ROWS = 8 };
    const size_t end = channels < 32 ? 0 : n - n % channels;
    for (size_t i = 0; i < end; i += ROWS * channels)
        for (size_t j = 0; j < channels; j += 32)
            ndq_quantize_columns_avx2(p, ndq_min_size(j, channels - 32), ndq_min_size(ROWS, (end - i) / channels),
                                      channels, x + i, q + i);
    return end;
}

NDQ_TARGET_AVX2 static inline __m256 ndq_reals_avx2(const uint8_t *q, bool is_signed, __m256 zp, __m256 scale)
{
    const __m128i codes = _mm_loadl_epi64((const __m128i *)q);
    const __m256i wide = is_signed ? _mm256_cvtepi8_epi32(codes) : _mm256_cvtepu8_epi32(codes);
    return _mm256_mul_ps(_mm256_sub_ps(_mm256_cvtepi32_ps(wide), zp), scale);
}

NDQ_TARGET_AVX2 static inline size_t ndq_dequantize_run_avx2(const ndq_affine_f32 *p, size_t c, size_t n,
                                                             const void *codes, bool is_signed, float *y)
{
    const uint8_t *q = codes;
    const __m256 zp = _mm256_set1_ps(p->zp[c]), scale = _mm256_set1_ps(p->scale[c]);
    size_t i = 0;
    for (; i + 32 <= n; i += 32)
        for (size_t k = i; k < i + 32; k += 8)
            _mm256_storeu_ps(y + k, ndq_reals_avx2(q + k, is_signed, zp, scale));
    for (; i < n && n >= 8; i += 8) {
        i = ndq_min_size(i, n - 8);
        _mm256_storeu_ps(y + i, ndq_reals_avx2(q + i, is_signed, zp, scale));
    }
    return i;
}

NDQ_TARGET_AVX2 static inline size_t ndq_dequantize_rows_avx2(const ndq_affine_f32 *p, size_t channels, size_t n,
                                                              const void *codes, bool is_signed, float *y)
{
    const float *zp = p->zp, *scale = p->scale;
    const size_t end = channels < 8 ? 0 : n - n % channels;
    for (size_t i = 0; i < end; i += channels) {
        const uint8_t *q = (const uint8_t *)codes + i;
        for (size_t j = 0, at; j < channels; j += 8) {
            at = ndq_min_size(j, channels - 8);
            _mm256_storeu_ps(y + i + at, ndq_reals_avx2(q + at, is_signed, _mm256_loadu_ps(zp + at),
                                                        _mm256_loadu_ps(scale + at)));
        }
    }
    return end;
}

#endif
