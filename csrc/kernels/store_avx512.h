/* Output stages of tiles of 32 columns for AVX-512. */
#ifndef NDQ_STORE_AVX512_H
#define NDQ_STORE_AVX512_H

#include "gemm.h"

#include <immintrin.h>

#define BY_HAND static inline __attribute__((always_inline)) NDQ_TARGET_AVX512

/* A bit for each of so many columns. */
static inline uint32_t ndq_kept_avx512(size_t columns)
{
    return ~(uint32_t)0 >> (32 - columns);
}

/* What a stage needs of each output, in registers. */
typedef struct {
    __m512 scale[2], inv, lo, hi;
    __m512i add[2], zero, lowest, highest, flip;
    bool is_bounded; /* by more than the range of a byte */
} ndq_stage_avx512;

BY_HAND ndq_stage_avx512 ndq_make_stage_avx512(const ndq_gemm_columns *c, const ndq_gemm_stage *stage)
{
    return (ndq_stage_avx512){
        .scale = {_mm512_loadu_ps(c->scale), _mm512_loadu_ps(c->scale + 16)},
        .inv = _mm512_set1_ps(stage->inv),
        .lo = _mm512_set1_ps(stage->lo),
        .hi = _mm512_set1_ps(stage->hi),
        .add = {_mm512_loadu_si512(c->add), _mm512_loadu_si512(c->add + 16)},
        .zero = _mm512_set1_epi16(stage->moved_zero),
        .lowest = _mm512_set1_epi8((char)stage->lowest),
        .highest = _mm512_set1_epi8((char)stage->highest),
        .flip = _mm512_set1_epi8((char)stage->flip),
        .is_bounded = stage->lowest > 0 || stage->highest < UINT8_MAX || stage->flip,
    };
}

/* Steps from the zero point, as int32, of one half of the columns. In max and min a NaN gives the bound. */
BY_HAND __m512i ndq_steps_avx512(const bool float_bias, const bool shrinks, __m512i sums, int half,
                                 const ndq_gemm_columns *c, const ndq_stage_avx512 *k)
{
    __m512 y = _mm512_cvtepi32_ps(sums);
    if (float_bias)
        y = _mm512_add_ps(y, _mm512_loadu_ps(c->before + 16 * half));
    y = _mm512_mul_ps(y, k->scale[half]);
    if (float_bias)
        y = _mm512_add_ps(y, _mm512_loadu_ps(c->after + 16 * half));
    y = _mm512_mul_ps(y, k->inv);
    return _mm512_cvtps_epi32(shrinks ? y : _mm512_min_ps(_mm512_max_ps(y, k->lo), k->hi));
}

/* Two vectors of steps as codes of 16 bits. What does not fit saturates, and stays on its side of the bounds. */
BY_HAND __m512i ndq_halves_avx512(__m512i first, __m512i second, const ndq_stage_avx512 *k)
{
    return _mm512_adds_epi16(_mm512_packs_epi32(first, second), k->zero);
}

/* Four such vectors, side by side: packing works on 128 bits. */
BY_HAND __m512i ndq_bytes_avx512(__m512i first, __m512i second, const ndq_stage_avx512 *k)
{
    const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i codes = _mm512_permutexvar_epi32(in_order, _mm512_packus_epi16(first, second));
    if (!k->is_bounded)
        return codes;
    return _mm512_xor_si512(_mm512_min_epu8(_mm512_max_epu8(codes, k->lowest), k->highest), k->flip);
}

/* One row of 32 columns, whose sums are in memory. */
BY_HAND __m512i ndq_row_of_codes_avx512(const bool float_bias, const bool shrinks, const int32_t *acc,
                                        const ndq_gemm_columns *c, const ndq_stage_avx512 *k)
{
    const __m512i left = _mm512_add_epi32(_mm512_load_si512(acc), k->add[0]);
    const __m512i right = _mm512_add_epi32(_mm512_load_si512(acc + 16), k->add[1]);
    return ndq_halves_avx512(ndq_steps_avx512(float_bias, shrinks, left, 0, c, k),
                             ndq_steps_avx512(float_bias, shrinks, right, 1, c, k), k);
}

BY_HAND void ndq_code_rows_avx512(const bool float_bias, const bool shrinks, const bool whole, size_t rows,
                                  size_t columns, const int32_t *acc, const ndq_gemm_columns *c,
                                  const ndq_gemm_stage *stage, uint8_t *out, size_t stride)
{
    enum { COLUMNS = 32 };
    const ndq_stage_avx512 k = ndq_make_stage_avx512(c, stage);
    const uint32_t kept = ndq_kept_avx512(columns);
    for (size_t row = 0; row < rows; row += 2, acc += 2 * COLUMNS, out += 2 * stride) {
        const bool both = row + 1 < rows;
        const __m512i first = ndq_row_of_codes_avx512(float_bias, shrinks, acc, c, &k);
        const __m512i second = both ? ndq_row_of_codes_avx512(float_bias, shrinks, acc + COLUMNS, c, &k) : first;
        const __m512i codes = ndq_bytes_avx512(first, second, &k);
        const __m256i upper = _mm512_castsi512_si256(codes), lower = _mm512_extracti64x4_epi64(codes, 1);
        if (whole)
            _mm256_storeu_si256((__m256i *)out, upper);
        else
            _mm256_mask_storeu_epi8(out, kept, upper);
        if (both && whole)
            _mm256_storeu_si256((__m256i *)(out + stride), lower);
        else if (both)
            _mm256_mask_storeu_epi8(out + stride, kept, lower);
    }
}

/* As `store` of a kernel. */
static NDQ_TARGET_AVX512 void ndq_store_codes_avx512(size_t rows, size_t columns, const int32_t *acc,
                                                     const ndq_gemm_columns *c, const ndq_gemm_stage *stage,
                                                     uint8_t *out, size_t stride)
{
    if (stage->float_bias)
        ndq_code_rows_avx512(true, false, false, rows, columns, acc, c, stage, out, stride);
    else if (!c->shrinks)
        ndq_code_rows_avx512(false, false, false, rows, columns, acc, c, stage, out, stride);
    else if (columns == 32)
        ndq_code_rows_avx512(false, true, true, rows, columns, acc, c, stage, out, stride);
    else
        ndq_code_rows_avx512(false, true, false, rows, columns, acc, c, stage, out, stride);
}

#undef BY_HAND

#endif
