/* Codes of 8 bits from float32 and back, as bytes_avx2.h has them, in vectors of 16 values and 64 codes. Masks take the
 * ends, so these functions leave nothing of what they can begin. */
#ifndef NDQ_BYTES_AVX512_H
#define NDQ_BYTES_AVX512_H

#include "bytes_avx2.h"

#include <float.h>
#include <immintrin.h>

#define BY_HAND static inline __attribute__((always_inline)) NDQ_TARGET_AVX512

/* A bit for each of n elements, of 64 at most. */
static inline uint64_t ndq_first_bits(size_t n)
{
    return n < 64 ? ((uint64_t)1 << n) - 1 : ~(uint64_t)0;
}

/* Four vectors of rounded values as bytes, counted from the lower bounds. What is in order within each 128 bits is so
 * afterwards. */
BY_HAND __m512i ndq_packed_avx512(__m512i a, __m512i b, __m512i c, __m512i d, __m512i lo_ab, __m512i lo_cd)
{
    const __m512i ab = _mm512_subs_epi16(_mm512_packs_epi32(a, b), lo_ab);
    const __m512i cd = _mm512_subs_epi16(_mm512_packs_epi32(c, d), lo_cd);
    return _mm512_packus_epi16(ab, cd);
}

/* ---- Which elements belong to which channel ---- */

/* Below, a function of `lanes` does those of 16 elements that are `kept`, and one of a `block` all of 64, in each of some
 * rows.
 *
 * Runs are worth it from so many elements on. */
enum { ndq_least_run_avx512 = 2 };

/* The number of the lane divided by d. */
BY_HAND __m512i ndq_group_avx512(size_t d)
{
    const __m512 middles = _mm512_setr_ps(0.5f, 1.5f, 2.5f, 3.5f, 4.5f, 5.5f, 6.5f, 7.5f, 8.5f, 9.5f, 10.5f, 11.5f,
                                          12.5f, 13.5f, 14.5f, 15.5f);
    return _mm512_cvttps_epi32(_mm512_div_ps(middles, _mm512_set1_ps((float)d)));
}

/* What is left of it. */
BY_HAND __m512i ndq_place_avx512(size_t d)
{
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_sub_epi32(lanes, _mm512_mullo_epi32(ndq_group_avx512(d), _mm512_set1_epi32((int)d)));
}

/* Runs that are as fast with half the width: their coefficients take as long as their elements, and loads of half the width
 * come two at a time. */
static inline bool ndq_is_for_avx2(size_t inner)
{
    return inner == 8 || (inner >= 16 && inner <= 64);
}

/* Whole runs, i and up, of channel `at` and the following ones: SEVERAL(kept, of) where a vector takes more than one, `of` so
 * many channels; RUN for one. */
#define NDQ_EACH_RUN(SEVERAL, RUN)                                                                            \
    const size_t most = inner < 8 ? 16 / inner : 1;                                                           \
    const __mmask16 full = ndq_first_bits(most * inner), of_full = ndq_first_bits(most);                      \
    size_t at = *c, i = 0;                                                                                    \
    for (size_t left = n / inner, end; left > 0; at = end < channels ? end : 0) {                             \
        end = at + ndq_min_size(left, channels - at);                                                         \
        left -= end - at;                                                                                     \
        for (; most == 1 && at < end; at++, i += inner)                                                       \
            RUN;                                                                                              \
        for (; at + most <= end; at += most, i += most * inner) {                                             \
            SEVERAL(full, of_full);                                                                           \
        }                                                                                                     \
        if (at < end) {                                                                                       \
            SEVERAL(ndq_first_bits((end - at) * inner), ndq_first_bits(end - at));                            \
            i += (end - at) * inner;                                                                          \
        }                                                                                                     \
    }                                                                                                         \
    *c = at;                                                                                                  \
    return i;

/* Whole rows, of which x + i is one's column j, with the coefficients of some columns in registers over 8 rows: BLOCK for
 * 64 columns, LANES(kept, of) for others, of so many channels in the order `which`. A vector takes as many rows of few
 * channels as fit. */
#define NDQ_EACH_COLUMNS(BLOCK, LANES)                                                                        \
    const size_t per = channels <= 16 && stride == channels ? 16 / channels : 1;                              \
    const size_t most = channels <= 16 ? all : 8, whole = all / per, step = per * stride;                     \
    const __m512i which = ndq_place_avx512(channels <= 16 ? channels : 16);                                   \
    for (size_t row = 0, rows; row * per < all; row += rows) {                                                \
        const size_t together = row < whole ? per : all - row * per, width = together * channels;             \
        size_t j = 0, i = row * step;                                                                         \
        rows = row < whole ? ndq_min_size(most, whole - row) : 1;                                             \
        for (; j + 64 <= width; j += 64, i += 64) {                                                           \
            BLOCK;                                                                                            \
        }                                                                                                     \
        for (; j < width; j += 16, i += 16) {                                                                 \
            LANES(ndq_first_bits(ndq_min_size(16, width - j)), ndq_first_bits(ndq_min_size(16, channels - j))); \
        }                                                                                                     \
    }

/* ---- float32 to codes ---- */

/* min returns its second operand, the value, if that is NaN. */
BY_HAND __m512i ndq_rounded_avx512(__m512 x, __m512 inv, __m512 hi)
{
    return _mm512_cvtps_epi32(_mm512_min_ps(hi, _mm512_mul_ps(x, inv)));
}

/* Coefficients of 16 lanes. zero: qmin - lo. */
typedef struct {
    __m512 inv, hi;
    __m512i lo, zero;
} ndq_to_lanes_avx512;

BY_HAND ndq_to_lanes_avx512 ndq_to_lanes_of_avx512(__m512 inv, __m512 hi, __m512 lo, float qmin)
{
    const __m512i bound = _mm512_cvtps_epi32(lo);
    return (ndq_to_lanes_avx512){inv, hi, bound, _mm512_sub_epi32(_mm512_set1_epi32((int)qmin), bound)};
}

/* Those of channel c alone. */
BY_HAND ndq_to_lanes_avx512 ndq_to_lanes_of_one_avx512(const ndq_affine_f32 *p, size_t c)
{
    return ndq_to_lanes_of_avx512(_mm512_set1_ps(p->inv[c]), _mm512_set1_ps(p->hi[c]), _mm512_set1_ps(p->lo[c]),
                                  p->qmin);
}

/* How far bounds are apart: of the upper ones only the first is read where a table may leave out the others. */
BY_HAND __m512 ndq_levels_avx512(const ndq_affine_f32 *p)
{
    return _mm512_set1_ps(p->hi[0] - p->lo[0]);
}

/* Those of the `channels` from c on, where `which` puts them. */
BY_HAND ndq_to_lanes_avx512 ndq_to_lanes_of_several_avx512(const ndq_affine_f32 *p, size_t c, __mmask16 channels,
                                                           __m512i which)
{
#define SPREAD(array) _mm512_permutexvar_ps(which, _mm512_maskz_loadu_ps(channels, p->array + c))
    const __m512 lo = p->same_zero ? _mm512_set1_ps(p->lo[0]) : SPREAD(lo);
    return ndq_to_lanes_of_avx512(SPREAD(inv), _mm512_add_ps(lo, ndq_levels_avx512(p)), lo, p->qmin);
#undef SPREAD
}

BY_HAND void ndq_quantize_lanes_avx512(const ndq_to_lanes_avx512 *k, __mmask16 kept, size_t rows, size_t stride,
                                       const float *x, uint8_t *q)
{
    for (; rows > 0; rows--, x += stride, q += stride) {
        const __m512i steps = ndq_rounded_avx512(_mm512_maskz_loadu_ps(kept, x), k->inv, k->hi);
        const __m512i codes = _mm512_add_epi32(_mm512_max_epi32(steps, k->lo), k->zero);
        _mm_mask_storeu_epi8(q, kept, _mm512_cvtepi32_epi8(codes));
    }
}

/* Coefficients of 64 columns; lo in the order in which packing leaves values. */
typedef struct {
    __m512 inv[4], hi[4];
    __m512i lo[2], qmin;
} ndq_to_block_avx512;

/* Of channels c and up, or all of channel c. */
BY_HAND ndq_to_block_avx512 ndq_to_block_of_avx512(const ndq_affine_f32 *p, size_t c, bool one)
{
    const bool same = one || p->same_zero;
    const float *lo = p->lo + (one || !p->same_zero ? c : 0);
#define INV(v) (one ? _mm512_set1_ps(p->inv[c]) : _mm512_loadu_ps(p->inv + c + 16 * (v)))
#define BOUND(v) (same ? _mm512_set1_ps(*lo) : _mm512_loadu_ps(lo + 16 * (v)))
#define HI(v) _mm512_add_ps(BOUND(v), ndq_levels_avx512(p))
#define LO(v) _mm512_cvtps_epi32(BOUND(v))
    return (ndq_to_block_avx512){
        .inv = {INV(0), INV(1), INV(2), INV(3)},
        .hi = {HI(0), HI(1), HI(2), HI(3)},
        .lo = {_mm512_packs_epi32(LO(0), LO(1)), _mm512_packs_epi32(LO(2), LO(3))},
        .qmin = _mm512_set1_epi8((char)(int)p->qmin),
    };
#undef LO
#undef HI
#undef BOUND
#undef INV
}

BY_HAND void ndq_quantize_block_avx512(const ndq_to_block_avx512 *k, size_t rows, size_t stride, const float *x,
                                       uint8_t *q)
{
    const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (; rows > 0; rows--, x += stride, q += stride) {
#define STEPS(v) ndq_rounded_avx512(_mm512_loadu_ps(x + 16 * (v)), k->inv[v], k->hi[v])
        const __m512i codes = ndq_packed_avx512(STEPS(0), STEPS(1), STEPS(2), STEPS(3), k->lo[0], k->lo[1]);
#undef STEPS
        _mm512_storeu_si512(q, _mm512_permutexvar_epi32(in_order, _mm512_add_epi8(codes, k->qmin)));
    }
}

/* The functions below do elements of one channel (`run`), all of some channels one after the other (`runs`, which move
 * c on), or whole rows where channels are the last axis, and return how many of n elements they did. */
NDQ_TARGET_AVX512 static inline size_t ndq_quantize_run_avx512(const ndq_affine_f32 *p, size_t c, size_t n,
                                                               const float *x, uint8_t *q)
{
    const size_t blocks = n / 64;
    size_t i = 64 * blocks;
    if (blocks > 0) {
        const ndq_to_block_avx512 k = ndq_to_block_of_avx512(p, c, true);
        ndq_quantize_block_avx512(&k, blocks, 64, x, q);
    }
    const ndq_to_lanes_avx512 k = ndq_to_lanes_of_one_avx512(p, c);
    for (; i + 16 <= n; i += 16)
        ndq_quantize_lanes_avx512(&k, 0xffff, 1, 0, x + i, q + i);
    if (i < n)
        ndq_quantize_lanes_avx512(&k, ndq_first_bits(n % 16), 1, 0, x + i, q + i);
    return n;
}

NDQ_TARGET_AVX512 static inline size_t ndq_quantize_runs_avx512(const ndq_affine_f32 *p, size_t *c, size_t channels,
                                                                size_t inner, size_t n, const float *x, uint8_t *q)
{
    if (ndq_is_for_avx2(inner))
        return ndq_quantize_runs_avx2(p, c, channels, inner, n, x, q);
    const ndq_affine_f32 a = *p;
    const __m512i which = ndq_group_avx512(inner);
#define SEVERAL(kept, of)                                                                                     \
    const ndq_to_lanes_avx512 k = ndq_to_lanes_of_several_avx512(&a, at, of, which);                          \
    ndq_quantize_lanes_avx512(&k, kept, 1, 0, x + i, q + i)
#define RUN ndq_quantize_run_avx512(&a, at, inner, x + i, q + i)
    NDQ_EACH_RUN(SEVERAL, RUN)
#undef RUN
#undef SEVERAL
}

NDQ_TARGET_AVX512 static inline size_t ndq_quantize_rows_avx512(const ndq_affine_f32 *p, size_t channels,
                                                                size_t stride, size_t n, const float *x, uint8_t *q)
{
    const ndq_affine_f32 a = *p;
    const size_t all = ndq_whole_rows(channels, stride, n);
#define BLOCK                                                                                                 \
    const ndq_to_block_avx512 k = ndq_to_block_of_avx512(&a, j, false);                                     \
    ndq_quantize_block_avx512(&k, rows, step, x + i, q + i)
#define LANES(kept, of)                                                                                       \
    const ndq_to_lanes_avx512 k = ndq_to_lanes_of_several_avx512(&a, j, of, which);                           \
    ndq_quantize_lanes_avx512(&k, kept, rows, step, x + i, q + i)
    NDQ_EACH_COLUMNS(BLOCK, LANES)
#undef LANES
#undef BLOCK
    return all * stride;
}

/* ---- Codes to float32 ---- */

/* What 16 codes stand for, written into the last bits of 2^23 as above. zero: 2^23 plus the zero point, of u8. */
typedef struct {
    __m512 zero, scale;
} ndq_from_lanes_avx512;

BY_HAND __m512i ndq_magic_avx512(bool is_signed)
{
    return _mm512_set1_epi32(0x4b000000 | (is_signed ? 0x80 : 0));
}

BY_HAND ndq_from_lanes_avx512 ndq_from_lanes_of_avx512(__m512 zp, __m512 scale, bool is_signed)
{
    return (ndq_from_lanes_avx512){_mm512_add_ps(zp, _mm512_set1_ps(8388608.0f + (is_signed ? 128 : 0))), scale};
}

BY_HAND ndq_from_lanes_avx512 ndq_from_lanes_of_one_avx512(const ndq_affine_f32 *p, size_t c, bool is_signed)
{
    return ndq_from_lanes_of_avx512(_mm512_set1_ps(p->zp[c]), _mm512_set1_ps(p->scale[c]), is_signed);
}

BY_HAND ndq_from_lanes_avx512 ndq_from_lanes_of_several_avx512(const ndq_affine_f32 *p, size_t c, __mmask16 channels,
                                                               __m512i which, bool is_signed)
{
#define SPREAD(array) _mm512_permutexvar_ps(which, _mm512_maskz_loadu_ps(channels, p->array + c))
    const __m512 zp = p->same_zero ? _mm512_set1_ps(p->zp[0]) : SPREAD(zp);
    return ndq_from_lanes_of_avx512(zp, SPREAD(scale), is_signed);
#undef SPREAD
}

BY_HAND __m512 ndq_reals_avx512(const ndq_from_lanes_avx512 *k, __m512i magic, __m128i codes)
{
    const __m512i code = _mm512_xor_si512(_mm512_cvtepu8_epi32(codes), magic);
    return _mm512_mul_ps(_mm512_sub_ps(_mm512_castsi512_ps(code), k->zero), k->scale);
}

BY_HAND void ndq_dequantize_lanes_avx512(const ndq_from_lanes_avx512 *k, __m512i magic, __mmask16 kept, size_t rows,
                                         size_t stride, const uint8_t *q, float *y)
{
    for (; rows > 0; rows--, q += stride, y += stride)
        _mm512_mask_storeu_ps(y, kept, ndq_reals_avx512(k, magic, _mm_maskz_loadu_epi8(kept, q)));
}

BY_HAND void ndq_dequantize_block_avx512(const ndq_from_lanes_avx512 k[4], __m512i magic, size_t rows, size_t stride,
                                         const uint8_t *q, float *y)
{
    for (; rows > 0; rows--, q += stride, y += stride) {
#define STORE(v)                                                                                              \
    _mm512_storeu_ps(y + 16 * (v), ndq_reals_avx512(&k[v], magic, _mm_loadu_si128((const __m128i *)(q + 16 * (v)))))
        STORE(0);
        STORE(1);
        STORE(2);
        STORE(3);
#undef STORE
    }
}

NDQ_TARGET_AVX512 static inline size_t ndq_dequantize_run_avx512(const ndq_affine_f32 *p, size_t c, size_t n,
                                                                 const void *codes, bool is_signed, float *y)
{
    const uint8_t *q = codes;
    const __m512i magic = ndq_magic_avx512(is_signed);
    const ndq_from_lanes_avx512 one = ndq_from_lanes_of_one_avx512(p, c, is_signed), k[4] = {one, one, one, one};
    const size_t blocks = n / 64;
    size_t i = 64 * blocks;
    ndq_dequantize_block_avx512(k, magic, blocks, 64, q, y);
    for (; i + 16 <= n; i += 16)
        ndq_dequantize_lanes_avx512(&one, magic, 0xffff, 1, 0, q + i, y + i);
    if (i < n)
        ndq_dequantize_lanes_avx512(&one, magic, ndq_first_bits(n % 16), 1, 0, q + i, y + i);
    return n;
}

/* What is inlined into it has its target. */
NDQ_TARGET_AVX2 static size_t ndq_dequantize_avx2_runs(const ndq_affine_f32 *p, size_t *c, size_t channels,
                                                       size_t inner, size_t n, const void *codes, bool is_signed,
                                                       float *y)
{
    return is_signed ? ndq_dequantize_runs_avx2(p, c, channels, inner, n, codes, true, y)
                     : ndq_dequantize_runs_avx2(p, c, channels, inner, n, codes, false, y);
}

NDQ_TARGET_AVX512 static inline size_t ndq_dequantize_runs_avx512(const ndq_affine_f32 *p, size_t *c, size_t channels,
                                                                  size_t inner, size_t n, const void *codes,
                                                                  bool is_signed, float *y)
{
    if (ndq_is_for_avx2(inner))
        return ndq_dequantize_avx2_runs(p, c, channels, inner, n, codes, is_signed, y);
    const ndq_affine_f32 a = *p;
    const uint8_t *q = codes;
    const __m512i which = ndq_group_avx512(inner), magic = ndq_magic_avx512(is_signed);
#define SEVERAL(kept, of)                                                                                     \
    const ndq_from_lanes_avx512 k = ndq_from_lanes_of_several_avx512(&a, at, of, which, is_signed);           \
    ndq_dequantize_lanes_avx512(&k, magic, kept, 1, 0, q + i, y + i)
#define RUN ndq_dequantize_run_avx512(&a, at, inner, q + i, is_signed, y + i)
    NDQ_EACH_RUN(SEVERAL, RUN)
#undef RUN
#undef SEVERAL
}

NDQ_TARGET_AVX512 static inline size_t ndq_dequantize_rows_avx512(const ndq_affine_f32 *p, size_t channels,
                                                                  size_t stride, size_t n, const void *codes,
                                                                  bool is_signed, float *y)
{
    const ndq_affine_f32 a = *p;
    const uint8_t *q = codes;
    const size_t all = ndq_whole_rows(channels, stride, n);
    const __m512i magic = ndq_magic_avx512(is_signed);
#define OF(v) ndq_from_lanes_of_several_avx512(&a, j + 16 * (v), 0xffff, which, is_signed)
#define BLOCK                                                                                                 \
    const ndq_from_lanes_avx512 k[4] = {OF(0), OF(1), OF(2), OF(3)};                                          \
    ndq_dequantize_block_avx512(k, magic, rows, step, q + i, y + i)
#define LANES(kept, of)                                                                                       \
    const ndq_from_lanes_avx512 k = ndq_from_lanes_of_several_avx512(&a, j, of, which, is_signed);            \
    ndq_dequantize_lanes_avx512(&k, magic, kept, rows, step, q + i, y + i)
    NDQ_EACH_COLUMNS(BLOCK, LANES)
#undef LANES
#undef BLOCK
#undef OF
    return all * stride;
}

#undef NDQ_EACH_COLUMNS
#undef NDQ_EACH_RUN

/* ---- Two arrays of codes ---- */

/* Of the codes at even places, and of those at odd ones. */
typedef struct {
    __m512i magic[2];
    __m512 zero[2], scale[2];
} ndq_operand_avx512;

typedef struct {
    ndq_operand_avx512 a, b;
    __m512 inv;
    __m512i lo, room, lowest;
} ndq_combination_avx512;

/* Written into the last bits of 2^23, a code is a float without a conversion; one 8 bits further up counts 256 times as
 * much. The magic number moves codes to u8 in the same step. */
BY_HAND ndq_operand_avx512 ndq_operand_of_avx512(const ndq_byte_operand *k)
{
    const float zero = (float)k->zero, two_23 = 8388608;
    return (ndq_operand_avx512){
        .magic = {_mm512_set1_epi32(0x4b000000 | k->flip), _mm512_set1_epi32(0x4b000000 | k->flip << 8)},
        .zero = {_mm512_set1_ps(two_23 + zero), _mm512_set1_ps(two_23 + 256 * zero)},
        .scale = {_mm512_set1_ps(k->scale), _mm512_set1_ps(k->scale / 256)},
    };
}

/* What the first code of each four stands for, or the second. Shuffling the bytes apart would keep pipes busy that sums and
 * packing need. */
BY_HAND __m512 ndq_values_avx512(__m512i codes, int place, const ndq_operand_avx512 *k)
{
    enum { A = 0xf0, B = 0xcc, C = 0xaa };
    const __m512i mask = _mm512_set1_epi32(0xff << (8 * place));
    const __m512i code = _mm512_ternarylogic_epi32(codes, mask, k->magic[place], (A & B) ^ C);
    return _mm512_mul_ps(_mm512_sub_ps(_mm512_castsi512_ps(code), k->zero[place]), k->scale[place]);
}

BY_HAND __m512i ndq_combined_avx512(bool multiply, const ndq_combination_avx512 *k, __m512i a, __m512i b, int place)
{
    const __m512 x = ndq_values_avx512(a, place, &k->a), y = ndq_values_avx512(b, place, &k->b);
    return _mm512_cvtps_epi32(_mm512_mul_ps(multiply ? _mm512_mul_ps(x, y) : _mm512_add_ps(x, y), k->inv));
}

BY_HAND __m512i ndq_combine_block_avx512(bool multiply, const ndq_combination_avx512 *k, __m512i a, __m512i b)
{
    const __m512i in_order = _mm512_set4_epi32(0x0f0b0703, 0x0e0a0602, 0x0d090501, 0x0c080400);
    const __m512i a2 = _mm512_srli_epi32(a, 16), b2 = _mm512_srli_epi32(b, 16);
    const __m512i v0 = ndq_combined_avx512(multiply, k, a, b, 0), v1 = ndq_combined_avx512(multiply, k, a, b, 1);
    const __m512i v2 = ndq_combined_avx512(multiply, k, a2, b2, 0), v3 = ndq_combined_avx512(multiply, k, a2, b2, 1);
    const __m512i steps = ndq_packed_avx512(v0, v1, v2, v3, k->lo, k->lo);
    return _mm512_shuffle_epi8(_mm512_add_epi8(_mm512_min_epu8(steps, k->room), k->lowest), in_order);
}

/* How many of n codes of sums or products it made: all or none, as where a scale is not to be had a 256th as large. */
NDQ_TARGET_AVX512 static inline size_t ndq_combine_run_avx512(bool multiply, const ndq_byte_operands *p,
                                                              const ndq_byte_result *r, size_t n, const uint8_t *a,
                                                              const uint8_t *b, uint8_t *out)
{
    const float least = 256 * FLT_MIN;
    if (!ndq_steps_are_integers(multiply, p, r) || p->a.scale < least || p->b.scale < least)
        return 0;
    const ndq_combination_avx512 k = {
        .a = ndq_operand_of_avx512(&p->a),
        .b = ndq_operand_of_avx512(&p->b),
        .inv = _mm512_set1_ps(r->inv),
        .lo = _mm512_set1_epi16((int16_t)r->lo),
        .room = _mm512_set1_epi8((char)(uint8_t)(r->hi - r->lo)),
        .lowest = _mm512_set1_epi8((char)(uint8_t)((int)r->lo + r->zero)),
    };
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        const __m512i x = _mm512_loadu_si512(a + i), y = _mm512_loadu_si512(b + i);
        _mm512_storeu_si512(out + i, ndq_combine_block_avx512(multiply, &k, x, y));
    }
    if (i < n) {
        const __mmask64 kept = ndq_first_bits(n - i);
        const __m512i x = _mm512_maskz_loadu_epi8(kept, a + i), y = _mm512_maskz_loadu_epi8(kept, b + i);
        _mm512_mask_storeu_epi8(out + i, kept, ndq_combine_block_avx512(multiply, &k, x, y));
    }
    return n;
}

#undef BY_HAND

#endif
