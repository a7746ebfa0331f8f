/* Codes of 8 bits from float32 and back for AVX-512, in runs of one channel each: what compilers make of runs that are no
 * whole number of vectors takes four times as long. As in bytes_avx2.h, codes are counted from qmin, which leaves saturation
 * to pack to do, and functions return how many of n elements they did. */
#ifndef NDQ_BYTES_AVX512_H
#define NDQ_BYTES_AVX512_H

#include "../backend.h"

#include <immintrin.h>

#define NDQ_INLINE_AVX512 static inline __attribute__((always_inline)) NDQ_TARGET_AVX512

/* The first n < 16 elements. */
NDQ_INLINE_AVX512 __mmask16 ndq_first_avx512(size_t n)
{
    return (__mmask16)((1u << n) - 1);
}

/* min returns its second operand, the value, if that is NaN; and that becomes INT32_MIN. */
NDQ_INLINE_AVX512 __m512i ndq_rounded_avx512(const float *x, __m512 inv, __m512 hi)
{
    return _mm512_cvtps_epi32(_mm512_min_ps(hi, _mm512_mul_ps(_mm512_loadu_ps(x), inv)));
}

/* The codes of four vectors of rounded values, counted from qmin. */
NDQ_INLINE_AVX512 __m512i ndq_codes_avx512(__m512i a, __m512i b, __m512i c, __m512i d, __m512i lo_ab, __m512i lo_cd)
{
    const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i ab = _mm512_subs_epi16(_mm512_packs_epi32(a, b), lo_ab);
    const __m512i cd = _mm512_subs_epi16(_mm512_packs_epi32(c, d), lo_cd);
    return _mm512_permutexvar_epi32(in_order, _mm512_packus_epi16(ab, cd));
}

NDQ_INLINE_AVX512 __m512i ndq_qmin_avx512(const ndq_affine_f32 *p)
{
    return _mm512_set1_epi8((int8_t)(int)p->qmin);
}

/* 64 elements at a time, the last of which may overlap those before. */
NDQ_INLINE_AVX512 void ndq_quantize_long_avx512(const ndq_affine_f32 *p, size_t c, size_t n, const float *x, uint8_t *q)
{
    const __m512 inv = _mm512_set1_ps(p->inv[c]), hi = _mm512_set1_ps(p->hi[c]);
    const __m512i lo = _mm512_set1_epi16((int16_t)(int)p->lo[c]), qmin = ndq_qmin_avx512(p);
    for (size_t i = 0; i < n; i += 64) {
        i = ndq_min_size(i, n - 64);
        const __m512i v0 = ndq_rounded_avx512(x + i, inv, hi), v1 = ndq_rounded_avx512(x + i + 16, inv, hi);
        const __m512i v2 = ndq_rounded_avx512(x + i + 32, inv, hi), v3 = ndq_rounded_avx512(x + i + 48, inv, hi);
        _mm512_storeu_si512(q + i, _mm512_add_epi8(ndq_codes_avx512(v0, v1, v2, v3, lo, lo), qmin));
    }
}

/* max, too, returns its second operand for NaN. */
NDQ_INLINE_AVX512 __m128i ndq_quantize_16_avx512(__m512 x, __m512 inv, __m512 lo, __m512 hi, __m512i zp)
{
    const __m512 v = _mm512_min_ps(_mm512_max_ps(_mm512_mul_ps(x, inv), lo), hi);
    return _mm512_cvtepi32_epi8(_mm512_add_epi32(_mm512_cvtps_epi32(v), zp));
}

NDQ_INLINE_AVX512 size_t ndq_quantize_run_avx512(const ndq_affine_f32 *p, size_t c, size_t n, const float *x, uint8_t *q)
{
    if (n >= 64) {
        ndq_quantize_long_avx512(p, c, n, x, q);
        return n;
    }
    const __m512 inv = _mm512_set1_ps(p->inv[c]), lo = _mm512_set1_ps(p->lo[c]), hi = _mm512_set1_ps(p->hi[c]);
    const __m512i zp = _mm512_cvtps_epi32(_mm512_set1_ps(p->zp[c]));
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm_storeu_si128((__m128i *)(q + i), ndq_quantize_16_avx512(_mm512_loadu_ps(x + i), inv, lo, hi, zp));
    if (i < n) {
        const __mmask16 left = ndq_first_avx512(n - i);
        const __m512 values = _mm512_maskz_loadu_ps(left, x + i);
        _mm_mask_storeu_epi8(q + i, left, ndq_quantize_16_avx512(values, inv, lo, hi, zp));
    }
    return n;
}

/* 64 elements of runs of 8, 16 or 32, the first of which is of channel c. Upper bounds are those of bytes, so that they take
 * no load; `top` keeps what is rounded within 16 bits. */
NDQ_INLINE_AVX512 void ndq_quantize_several_avx512(const ndq_affine_f32 *p, size_t c, size_t inner, const float *x, uint8_t *q)
{
    const __mmask16 channels = ndq_first_avx512(64 / inner);
    const __m512 inv = _mm512_maskz_loadu_ps(channels, p->inv + c), top = _mm512_set1_ps(INT16_MAX);
    const __m512i lo = _mm512_cvtps_epi32(_mm512_maskz_loadu_ps(channels, p->lo + c));
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const unsigned shift = inner == 8 ? 3 : inner == 16 ? 4 : 5;
#define CHANNEL(k) _mm512_srli_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(k)), shift)
#define V(k) ndq_rounded_avx512(x + (k), _mm512_permutexvar_ps(CHANNEL(k), inv), top)
#define LO(k) _mm512_permutexvar_epi32(CHANNEL(k), lo)
    const __m512i same = _mm512_set1_epi16((int16_t)(int)p->lo[0]);
    const __m512i lo01 = p->same_zero ? same : _mm512_packs_epi32(LO(0), LO(16));
    const __m512i lo23 = p->same_zero ? same : _mm512_packs_epi32(LO(32), LO(48));
    const __m512i codes = ndq_codes_avx512(V(0), V(16), V(32), V(48), lo01, lo23);
#undef LO
#undef V
#undef CHANNEL
    const __m512i levels = _mm512_set1_epi8((int8_t)(int)(p->hi[0] - p->lo[0]));
    _mm512_storeu_si512(q, _mm512_add_epi8(_mm512_min_epu8(codes, levels), ndq_qmin_avx512(p)));
}

NDQ_INLINE_AVX512 __m512 ndq_reals_avx512(__m128i codes, bool is_signed, __m512 zp, __m512 scale)
{
    const __m512i wide = is_signed ? _mm512_cvtepi8_epi32(codes) : _mm512_cvtepu8_epi32(codes);
    return _mm512_mul_ps(_mm512_sub_ps(_mm512_cvtepi32_ps(wide), zp), scale);
}

NDQ_INLINE_AVX512 size_t ndq_dequantize_run_avx512(const ndq_affine_f32 *p, size_t c, size_t n, const void *codes,
                                                   bool is_signed, float *y)
{
    const uint8_t *q = codes;
    const __m512 zp = _mm512_set1_ps(p->zp[c]), scale = _mm512_set1_ps(p->scale[c]);
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(y + i, ndq_reals_avx512(_mm_loadu_si128((const __m128i *)(q + i)), is_signed, zp, scale));
    if (i < n) {
        const __mmask16 left = ndq_first_avx512(n - i);
        const __m128i rest = _mm_maskz_loadu_epi8(left, q + i);
        _mm512_mask_storeu_ps(y + i, left, ndq_reals_avx512(rest, is_signed, zp, scale));
    }
    return n;
}

/* Runs are worth it from so many elements on. */
enum { NDQ_BYTES_LEAST_RUN = 8 };

/* All of some channels, one after the other, the first of which is *c, which moves on: `times` at once, where the channels go
 * on for as many, or one. */
#define NDQ_RUNS(length, times, SEVERAL, RUN)                                                                 \
    for (size_t count; i + (length) <= n; i += count * (length)) {                                            \
        count = at + (times) <= channels && i + (times) * (length) <= n ? (times) : 1;                        \
        if (count == 1)                                                                                       \
            RUN(length);                                                                                      \
        else                                                                                                  \
            SEVERAL(length);                                                                                  \
        at = at + count == channels ? 0 : at + count;                                                         \
    }

NDQ_INLINE_AVX512 size_t ndq_quantize_runs_avx512(const ndq_affine_f32 *p, size_t *c, size_t channels, size_t inner, size_t n,
                                                  const float *x, uint8_t *q)
{
    size_t i = 0, at = *c;
#define RUN(length) ndq_quantize_run_avx512(p, at, length, x + i, q + i)
#define SEVERAL(length) ndq_quantize_several_avx512(p, at, length, x + i, q + i)
    if (inner == 8)
        NDQ_RUNS(8, 8, SEVERAL, RUN)
    else if (inner == 16)
        NDQ_RUNS(16, 4, SEVERAL, RUN)
    else if (inner == 32)
        NDQ_RUNS(32, 2, SEVERAL, RUN)
    else
        NDQ_RUNS(inner, 1, RUN, RUN)
#undef SEVERAL
#undef RUN
    *c = at;
    return i;
}

/* Two runs of 8. */
NDQ_INLINE_AVX512 void ndq_dequantize_two_avx512(const ndq_affine_f32 *p, size_t c, const uint8_t *q, bool is_signed, float *y)
{
#define TWO(array) _mm512_mask_broadcastss_ps(_mm512_set1_ps(p->array[c]), 0xff00, _mm_load_ss(p->array + c + 1))
    _mm512_storeu_ps(y, ndq_reals_avx512(_mm_loadu_si128((const __m128i *)q), is_signed, TWO(zp), TWO(scale)));
#undef TWO
}

NDQ_INLINE_AVX512 size_t ndq_dequantize_runs_avx512(const ndq_affine_f32 *p, size_t *c, size_t channels, size_t inner,
                                                    size_t n, const void *codes, bool is_signed, float *y)
{
    const uint8_t *q = codes;
    size_t i = 0, at = *c;
#define RUN(length) ndq_dequantize_run_avx512(p, at, length, q + i, is_signed, y + i)
#define TWO(length) ndq_dequantize_two_avx512(p, at, q + i, is_signed, y + i)
    if (inner == 8)
        NDQ_RUNS(8, 2, TWO, RUN)
    else
        NDQ_RUNS(inner, 1, RUN, RUN)
#undef TWO
#undef RUN
    *c = at;
    return i;
}

#undef NDQ_RUNS
#undef NDQ_INLINE_AVX512

#endif
