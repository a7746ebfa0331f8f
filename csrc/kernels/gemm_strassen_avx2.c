/* The sums of gemm_strassen.h with AVX2, for the tiles of gemm_avx2.c. */
#include "gemm_strassen.h"

#ifdef NDQ_X86
#include <immintrin.h>

#define NAME(x) strassen_##x
#define TARGET NDQ_TARGET_AVX2
#define NR 16
#include "gemm_avx2.inc.h"

enum { LANES = 16 };

#define INLINE static inline __attribute__((always_inline)) NDQ_TARGET_AVX2

INLINE __m256i codes_at(const int16_t *quarter, size_t i)
{
    return _mm256_loadu_si256((const __m256i *)(quarter + i));
}

INLINE void sum_lanes(const int16_t *const *quarter, size_t i, int16_t *out, size_t set)
{
    const __m256i a11 = codes_at(quarter[0], i), a12 = codes_at(quarter[1], i);
    const __m256i a21 = codes_at(quarter[2], i), a22 = codes_at(quarter[3], i);
    const __m256i lower = _mm256_add_epi16(a21, a22), less = _mm256_sub_epi16(lower, a11);
    _mm256_storeu_si256((__m256i *)(out + i), less);
    _mm256_storeu_si256((__m256i *)(out + set + i), _mm256_sub_epi16(a11, a21));
    _mm256_storeu_si256((__m256i *)(out + 2 * set + i), lower);
    _mm256_storeu_si256((__m256i *)(out + 3 * set + i), _mm256_sub_epi16(a12, less));
}

static NDQ_TARGET_AVX2 void sum_rows(size_t count, const int16_t *const *quarter, int16_t *out, size_t set)
{
    const int16_t *const in[NDQ_STRASSEN_QUARTERS] = {quarter[0], quarter[1], quarter[2], quarter[3]};
    for (size_t i = 0; i + LANES <= count; i += LANES)
        sum_lanes(in, i, out, set);
    if (count % LANES) /* the last 16 once more, some of them again */
        sum_lanes(in, count - LANES, out, set);
}

INLINE __m256i weights_at(const bool bytes, const uint8_t *quarter, size_t i)
{
    return bytes ? _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)(quarter + i)))
                 : _mm256_load_si256((const __m256i *)(quarter + 2 * i));
}

INLINE void sum_weights(const bool bytes, size_t count, const uint8_t *const *quarter, int16_t *out, size_t set)
{
    const uint8_t *const in[NDQ_STRASSEN_QUARTERS] = {quarter[0], quarter[1], quarter[2], quarter[3]};
    for (size_t i = 0; i < count; i += LANES, out += LANES) {
        const __m256i b11 = weights_at(bytes, in[0], i), b12 = weights_at(bytes, in[1], i);
        const __m256i b21 = weights_at(bytes, in[2], i), b22 = weights_at(bytes, in[3], i);
        const __m256i right = _mm256_sub_epi16(b22, b12), both = _mm256_add_epi16(right, b11);
        _mm256_store_si256((__m256i *)out, both);
        _mm256_store_si256((__m256i *)(out + set), right);
        _mm256_store_si256((__m256i *)(out + 2 * set), _mm256_sub_epi16(b12, b11));
        _mm256_store_si256((__m256i *)(out + 3 * set), _mm256_sub_epi16(b21, both));
    }
}

static NDQ_TARGET_AVX2 void sum_words(size_t count, const uint8_t *const *quarter, int16_t *out, size_t set)
{
    sum_weights(false, count, quarter, out, set);
}

static NDQ_TARGET_AVX2 void sum_bytes(size_t count, const uint8_t *const *quarter, int16_t *out, size_t set)
{
    sum_weights(true, count, quarter, out, set);
}

/* C of eight columns, by quarter. */
INLINE void four_outputs(const int32_t *sums, size_t set, __m256i *c)
{
    __m256i p[NDQ_STRASSEN_PRODUCTS];
    for (size_t k = 0; k < NDQ_STRASSEN_PRODUCTS; k++)
        p[k] = _mm256_load_si256((const __m256i *)(sums + k * set));
    const __m256i both = _mm256_add_epi32(p[0], p[2]), lower = _mm256_add_epi32(both, p[3]);
    c[0] = _mm256_add_epi32(p[0], p[1]);
    c[1] = _mm256_add_epi32(_mm256_add_epi32(both, p[4]), p[5]);
    c[2] = _mm256_add_epi32(lower, p[6]);
    c[3] = _mm256_add_epi32(lower, p[4]);
}

static NDQ_TARGET_AVX2 void outputs(size_t count, const int32_t *sums, size_t set, bool add, int32_t *const *quarter)
{
    __m256i c[NDQ_STRASSEN_QUARTERS];
    for (size_t i = 0; i < count; i += 8) {
        four_outputs(sums + i, set, c);
        for (size_t k = 0; k < NDQ_STRASSEN_QUARTERS; k++) {
            __m256i *out = (__m256i *)(quarter[k] + i);
            _mm256_store_si256(out, add ? _mm256_add_epi32(c[k], _mm256_load_si256(out)) : c[k]);
        }
    }
}

static NDQ_TARGET_AVX2 void codes(size_t rows, const int32_t *sums, size_t set, const ndq_gemm_columns *columns,
                                  const ndq_gemm_stage *constants, uint8_t *upper, uint8_t *lower, size_t stride)
{
    const strassen_stage stage = strassen_make_stage(constants);
    for (size_t row = 0; row < rows; row++, sums += NR, upper += stride, lower += stride) {
        __m256i left[NDQ_STRASSEN_QUARTERS], right[NDQ_STRASSEN_QUARTERS], c[NDQ_STRASSEN_QUARTERS];
        four_outputs(sums, set, left);
        four_outputs(sums + 8, set, right);
        for (size_t k = 0; k < NDQ_STRASSEN_QUARTERS; k++)
            c[k] = strassen_row_of_codes(false, true, left[k], right[k], columns + k % 2, &stage);
        _mm256_storeu_si256((__m256i *)upper, strassen_two_rows(c[0], c[1], &stage));
        _mm256_storeu_si256((__m256i *)lower, strassen_two_rows(c[2], c[3], &stage));
    }
}

const ndq_strassen ndq_strassen_avx2 = {
    .products = &ndq_gemm_avx2,
    .sum_rows = sum_rows,
    .sum_words = sum_words,
    .sum_bytes = sum_bytes,
    .outputs = outputs,
    .codes = codes,
};
#endif
