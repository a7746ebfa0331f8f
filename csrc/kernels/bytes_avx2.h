/* Codes of 8 bits from float32 and back, for the templates of elementwise.inc.h. Intrinsics, as gcc 12 narrows and widens
 * by way of 16 bits with a permutation after each step: these take 0.65 and 0.6 of the time while data are in the caches.
 *
 * Codes are counted from qmin. So saturation to an unsigned byte is the lower bound, also for NaN and for what no int32
 * holds, which the conversion turns into INT32_MIN; only the upper bound takes an instruction. */
#ifndef NDQ_BYTES_AVX2_H
#define NDQ_BYTES_AVX2_H

#include "bytes.h"

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
    return _mm256_set1_epi8((int8_t)(int)p->qmin);
}

/* The codes of four vectors of rounded values, counted from qmin. */
NDQ_TARGET_AVX2 static inline __m256i ndq_codes_avx2(__m256i a, __m256i b, __m256i c, __m256i d, __m256i lo_ab,
                                                     __m256i lo_cd)
{
    const __m256i ab = _mm256_subs_epi16(_mm256_packs_epi32(a, b), lo_ab);
    const __m256i cd = _mm256_subs_epi16(_mm256_packs_epi32(c, d), lo_cd);
    const __m256i codes = _mm256_packus_epi16(ab, cd);
    return _mm256_permutevar8x32_epi32(codes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* The functions below do elements of one channel (`run`), all of some channels one after the other (`runs`, which move
 * c on), or whole rows where channels are the last axis, and return how many of n elements they did. The last vector of
 * a run or row may overlap the one before: input and output are never the same array, as their elements differ in
 * size. */
NDQ_TARGET_AVX2 static inline size_t ndq_quantize_run_avx2(const ndq_affine_f32 *p, size_t c, size_t n, const float *x,
                                                           uint8_t *q)
{
    const __m256 inv = _mm256_broadcast_ss(p->inv + c), hi = _mm256_broadcast_ss(p->hi + c);
    const __m256i bounds = _mm256_set1_epi16((int16_t)(int)p->lo[c]), qmin = ndq_qmin_avx2(p);
    size_t i = 0;
    for (; i < n && n >= 32; i += 32) {
        i = ndq_min_size(i, n - 32);
        const __m256i v0 = ndq_rounded_avx2(x + i, inv, hi), v1 = ndq_rounded_avx2(x + i + 8, inv, hi);
        const __m256i v2 = ndq_rounded_avx2(x + i + 16, inv, hi), v3 = ndq_rounded_avx2(x + i + 24, inv, hi);
        const __m256i codes = ndq_codes_avx2(v0, v1, v2, v3, bounds, bounds);
        _mm256_storeu_si256((__m256i *)(q + i), _mm256_add_epi8(codes, qmin));
    }
    for (; i < n && n >= 16; i += 16) {
        i = ndq_min_size(i, n - 16);
        const __m256i v0 = ndq_rounded_avx2(x + i, inv, hi), v1 = ndq_rounded_avx2(x + i + 8, inv, hi);
        const __m256i codes = ndq_codes_avx2(v0, v1, v0, v1, bounds, bounds);
        _mm_storeu_si128((__m128i *)(q + i), _mm256_castsi256_si128(_mm256_add_epi8(codes, qmin)));
    }
    for (; i < n && n >= 8; i += 8) {
        i = ndq_min_size(i, n - 8);
        const __m256i v = ndq_rounded_avx2(x + i, inv, hi), codes = ndq_codes_avx2(v, v, v, v, bounds, bounds);
        _mm_storel_epi64((__m128i *)(q + i), _mm256_castsi256_si128(_mm256_add_epi8(codes, qmin)));
    }
    return i;
}

/* 32 elements of runs of 8 or 16, the first of which is of channel c. */
NDQ_TARGET_AVX2 static inline void ndq_quantize_several_avx2(const ndq_affine_f32 *p, size_t c, size_t inner,
                                                             const float *x, uint8_t *q)
{
#define OF(array, k) _mm256_broadcast_ss(p->array + c + (k) / inner)
    const __m256i v0 = ndq_rounded_avx2(x, OF(inv, 0), OF(hi, 0));
    const __m256i v1 = ndq_rounded_avx2(x + 8, OF(inv, 8), OF(hi, 8));
    const __m256i v2 = ndq_rounded_avx2(x + 16, OF(inv, 16), OF(hi, 16));
    const __m256i v3 = ndq_rounded_avx2(x + 24, OF(inv, 24), OF(hi, 24));
    const __m256i lo01 = ndq_packed_bounds_avx2(OF(lo, 0), OF(lo, 8));
    const __m256i lo23 = ndq_packed_bounds_avx2(OF(lo, 16), OF(lo, 24));
#undef OF
    const __m256i codes = ndq_codes_avx2(v0, v1, v2, v3, lo01, lo23);
    _mm256_storeu_si256((__m256i *)q, _mm256_add_epi8(codes, ndq_qmin_avx2(p)));
}

/* Runs are worth it from so many elements on. */
enum { ndq_least_run_avx2 = 8 };

/* Takes `times` runs at once, where the channels go on for as many, or one. */
#define NDQ_RUNS(length, times, SEVERAL, RUN)                                                                 \
    for (size_t count; i + (length) <= n; i += count * (length)) {                                            \
        count = at + (times) <= channels && i + (times) * (length) <= n ? (times) : 1;                        \
        if (count == 1)                                                                                       \
            RUN(length);                                                                                      \
        else                                                                                                  \
            SEVERAL(length);                                                                                  \
        at = at + count == channels ? 0 : at + count;                                                         \
    }
#define NDQ_EACH_RUN(SEVERAL, RUN)                                                                            \
    const ndq_affine_f32 a = *p;                                                                              \
    size_t i = 0, at = *c;                                                                                    \
    if (inner == NDQ_VECTOR)                                                                                  \
        NDQ_RUNS(NDQ_VECTOR, 4, SEVERAL, RUN)                                                                 \
    else if (inner == 2 * NDQ_VECTOR)                                                                         \
        NDQ_RUNS(2 * NDQ_VECTOR, 2, SEVERAL, RUN)                                                             \
    else if (inner == NDQ_COMMON_RUN)                                                                         \
        NDQ_RUNS(NDQ_COMMON_RUN, 1, RUN, RUN)                                                                 \
    else if (inner == NDQ_COMMON_IMAGE)                                                                       \
        NDQ_RUNS(NDQ_COMMON_IMAGE, 1, RUN, RUN)                                                               \
    else                                                                                                      \
        NDQ_RUNS(inner, 1, RUN, RUN)                                                                          \
    *c = at;                                                                                                  \
    return i;

NDQ_TARGET_AVX2 static inline size_t ndq_quantize_runs_avx2(const ndq_affine_f32 *p, size_t *c, size_t channels,
                                                            size_t inner, size_t n, const float *x, uint8_t *q)
{
#define RUN(length) ndq_quantize_run_avx2(&a, at, length, x + i, q + i)
#define SEVERAL(length) ndq_quantize_several_avx2(&a, at, length, x + i, q + i)
    NDQ_EACH_RUN(SEVERAL, RUN)
#undef SEVERAL
#undef RUN
}

/* Runs COLUMNS for 32 columns after the other, j and up, of 4 rows, x + i and up, whose coefficients stay in registers
 * over these. */
#define NDQ_EACH_COLUMNS(begin, end, COLUMNS)                                                                 \
    for (size_t row = 0, rows; row < all; row += rows) {                                                      \
        rows = ndq_min_size(4, all - row);                                                                    \
        for (size_t first = begin; first < (end); first += 32) {                                              \
            const size_t j = ndq_min_size(first, channels - 32), i = row * stride + j;                        \
            COLUMNS;                                                                                          \
        }                                                                                                     \
    }

/* Rows that are shorter than a vector are left to the compiler. */
static inline size_t ndq_wide_rows(size_t channels, size_t stride, size_t n)
{
    return channels < 32 ? 0 : ndq_whole_rows(channels, stride, n);
}

/* Where channels differ in their bounds, the upper ones are those of bytes, so that they take no load: `top` then keeps
 * what is rounded within 16 bits. */
typedef struct {
    __m256 top;
    __m256i qmin, levels;
} ndq_row_avx2;

NDQ_TARGET_AVX2 static inline void ndq_quantize_columns_avx2(const ndq_row_avx2 *k, const float *inv,
                                                             const __m256i *lo, bool capped, size_t rows,
                                                             size_t stride, const float *x, uint8_t *q)
{
#define INV(i) _mm256_loadu_ps(inv + (i))
    const __m256 inv0 = INV(0), inv1 = INV(8), inv2 = INV(16), inv3 = INV(24), top = k->top;
#undef INV
    const __m256i lo01 = lo[0], lo23 = lo[1];
    for (size_t r = 0; r < rows; r++, x += stride, q += stride) {
        const __m256i v0 = ndq_rounded_avx2(x, inv0, top), v1 = ndq_rounded_avx2(x + 8, inv1, top);
        const __m256i v2 = ndq_rounded_avx2(x + 16, inv2, top), v3 = ndq_rounded_avx2(x + 24, inv3, top);
        __m256i codes = ndq_codes_avx2(v0, v1, v2, v3, lo01, lo23);
        codes = capped ? _mm256_min_epu8(codes, k->levels) : codes;
        _mm256_storeu_si256((__m256i *)q, _mm256_add_epi8(codes, k->qmin));
    }
}

/* The lower bounds of channels [begin, end), in the order in which packing leaves values. */
NDQ_TARGET_AVX2 static inline void ndq_row_bounds_avx2(const ndq_affine_f32 *p, size_t channels, size_t begin,
                                                       size_t end, __m256i *lo)
{
#define LO(i) _mm256_loadu_ps(p->lo + j + (i))
    for (size_t first = begin; first < end; first += 32, lo += 2) {
        const size_t j = ndq_min_size(first, channels - 32);
        lo[0] = ndq_packed_bounds_avx2(LO(0), LO(8));
        lo[1] = ndq_packed_bounds_avx2(LO(16), LO(24));
    }
#undef LO
}

NDQ_TARGET_AVX2 static inline size_t ndq_quantize_rows_avx2(const ndq_affine_f32 *p, size_t channels, size_t stride,
                                                            size_t n, const float *x, uint8_t *q)
{
    enum { STRIPE = 1024, LEVELS = UINT8_MAX };
    const size_t all = ndq_wide_rows(channels, stride, n);
    const ndq_affine_f32 a = *p;
    const float levels = a.hi[0] - a.lo[0], top = a.same_zero ? a.hi[0] : INT16_MAX;
    const ndq_row_avx2 k = {_mm256_set1_ps(top), ndq_qmin_avx2(p), _mm256_set1_epi8((int8_t)(int)levels)};
    __m256i lo[2 * STRIPE / 32];
#define COLUMNS(begin, end, bounds, capped)                                                                   \
    NDQ_EACH_COLUMNS(begin, end, ndq_quantize_columns_avx2(&k, a.inv + j, bounds, capped, rows, stride, x + i, q + i))
    if (a.same_zero) {
        lo[0] = lo[1] = _mm256_set1_epi16((int16_t)(int)a.lo[0]);
        COLUMNS(0, channels, lo, false)
        return all * stride;
    }
    for (size_t begin = 0; all > 0 && begin < channels; begin += STRIPE) {
        const size_t end = ndq_min_size(channels, begin + STRIPE);
        ndq_row_bounds_avx2(&a, channels, begin, end, lo);
        if (levels == LEVELS)
            COLUMNS(begin, end, lo + (first - begin) / 16, false)
        else
            COLUMNS(begin, end, lo + (first - begin) / 16, true)
    }
#undef COLUMNS
    return all * stride;
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
    const __m256 zp = _mm256_broadcast_ss(p->zp + c), scale = _mm256_broadcast_ss(p->scale + c);
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

/* Inlined, so that the sign is a constant. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 size_t
ndq_dequantize_runs_avx2(const ndq_affine_f32 *p, size_t *c, size_t channels, size_t inner, size_t n, const void *codes,
                         bool is_signed, float *y)
{
    const uint8_t *q = codes;
#define RUN(length) ndq_dequantize_run_avx2(&a, at, length, q + i, is_signed, y + i)
#define SEVERAL(length)                                                                                       \
    for (size_t k = 0; k < 32; k += length)                                                                   \
    ndq_dequantize_run_avx2(&a, at + k / (length), length, q + i + k, is_signed, y + i + k)
    NDQ_EACH_RUN(SEVERAL, RUN)
#undef SEVERAL
#undef RUN
}

NDQ_TARGET_AVX2 static inline void ndq_dequantize_columns_avx2(const ndq_affine_f32 *p, size_t j, size_t rows,
                                                               size_t stride, const uint8_t *q, bool is_signed,
                                                               float *y)
{
#define LOAD(array, k) _mm256_loadu_ps(p->array + j + (k))
    const __m256 scale0 = LOAD(scale, 0), scale1 = LOAD(scale, 8), scale2 = LOAD(scale, 16), scale3 = LOAD(scale, 24);
#undef LOAD
#define ZP(k) p->same_zero ? _mm256_set1_ps(p->zp[0]) : _mm256_loadu_ps(p->zp + j + (k))
    const __m256 zp0 = ZP(0), zp1 = ZP(8), zp2 = ZP(16), zp3 = ZP(24);
#undef ZP
    for (size_t r = 0; r < rows; r++, q += stride, y += stride) {
        _mm256_storeu_ps(y, ndq_reals_avx2(q, is_signed, zp0, scale0));
        _mm256_storeu_ps(y + 8, ndq_reals_avx2(q + 8, is_signed, zp1, scale1));
        _mm256_storeu_ps(y + 16, ndq_reals_avx2(q + 16, is_signed, zp2, scale2));
        _mm256_storeu_ps(y + 24, ndq_reals_avx2(q + 24, is_signed, zp3, scale3));
    }
}

NDQ_TARGET_AVX2 static inline size_t ndq_dequantize_rows_avx2(const ndq_affine_f32 *p, size_t channels, size_t stride,
                                                              size_t n, const void *codes, bool is_signed, float *y)
{
    const ndq_affine_f32 a = *p;
    const uint8_t *q = codes;
    const size_t all = ndq_wide_rows(channels, stride, n);
    NDQ_EACH_COLUMNS(0, channels, ndq_dequantize_columns_avx2(&a, j, rows, stride, q + i, is_signed, y + i))
    return all * stride;
}

#undef NDQ_EACH_COLUMNS
#undef NDQ_EACH_RUN
#undef NDQ_RUNS

/* ---- Two arrays of codes ---- */

/* zero: 2^23 plus the zero point. */
typedef struct {
    __m256i flip;
    __m256 zero, scale;
} ndq_operand_avx2;

/* What eight codes stand for. Written into the last bits of 2^23, an integer is a float without a conversion; flip moves it
 * to u8 in the same step. */
NDQ_TARGET_AVX2 static inline __m256 ndq_values_avx2(const uint8_t *q, const ndq_operand_avx2 *k)
{
    const __m256i code = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)q));
    return _mm256_mul_ps(_mm256_sub_ps(_mm256_castsi256_ps(_mm256_xor_si256(code, k->flip)), k->zero), k->scale);
}

NDQ_TARGET_AVX2 static inline ndq_operand_avx2 ndq_operand_of_avx2(const ndq_byte_operand *k)
{
    return (ndq_operand_avx2){_mm256_set1_epi32(0x4b000000 | k->flip), _mm256_set1_ps(8388608.0f + (float)k->zero),
                              _mm256_set1_ps(k->scale)};
}

NDQ_TARGET_AVX2 static inline __m256i ndq_combined_avx2(bool multiply, const ndq_operand_avx2 *ka,
                                                        const ndq_operand_avx2 *kb, const uint8_t *a, const uint8_t *b,
                                                        __m256 inv)
{
    const __m256 x = ndq_values_avx2(a, ka), y = ndq_values_avx2(b, kb);
    return _mm256_cvtps_epi32(_mm256_mul_ps(multiply ? _mm256_mul_ps(x, y) : _mm256_add_ps(x, y), inv));
}

/* How many of n codes of sums or products it made. */
NDQ_TARGET_AVX2 static inline size_t ndq_combine_run_avx2(bool multiply, const ndq_byte_operands *p,
                                                          const ndq_byte_result *r, size_t n, const uint8_t *a,
                                                          const uint8_t *b, uint8_t *out)
{
    if (!ndq_steps_are_integers(multiply, p, r))
        return 0;
    const ndq_operand_avx2 ka = ndq_operand_of_avx2(&p->a), kb = ndq_operand_of_avx2(&p->b);
    const __m256 inv = _mm256_set1_ps(r->inv);
    const __m256i lo = _mm256_set1_epi16((int16_t)r->lo);
    const __m256i lowest = _mm256_set1_epi8((char)(uint8_t)((int)r->lo + r->zero));
    const __m256i room = _mm256_set1_epi8((char)(uint8_t)(r->hi - r->lo));
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        const __m256i v0 = ndq_combined_avx2(multiply, &ka, &kb, a + i, b + i, inv);
        const __m256i v1 = ndq_combined_avx2(multiply, &ka, &kb, a + i + 8, b + i + 8, inv);
        const __m256i v2 = ndq_combined_avx2(multiply, &ka, &kb, a + i + 16, b + i + 16, inv);
        const __m256i v3 = ndq_combined_avx2(multiply, &ka, &kb, a + i + 24, b + i + 24, inv);
        const __m256i steps = ndq_codes_avx2(v0, v1, v2, v3, lo, lo);
        _mm256_storeu_si256((__m256i *)(out + i), _mm256_add_epi8(_mm256_min_epu8(steps, room), lowest));
    }
    return i;
}

#endif
