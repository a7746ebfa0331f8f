/* The extremes of float32 values for the template of observe.inc.h: compilers keep its lanes in memory, which costs a row
 * of a hundred values as much as the values do. */
#ifndef NDQ_EXTREMES_AVX2_H
#define NDQ_EXTREMES_AVX2_H

#include "../common.h"

#include <immintrin.h>

/* So far, by lane. `check` is finite only if all values were. */
typedef struct {
    __m256 low, high, check;
} ndq_extremes_avx2;

static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 ndq_extremes_avx2
ndq_with_avx2(ndq_extremes_avx2 e, __m256 low, __m256 high, __m256 check)
{
    return (ndq_extremes_avx2){_mm256_min_ps(low, e.low), _mm256_max_ps(high, e.high), _mm256_add_ps(check, e.check)};
}

static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 ndq_extremes_avx2
ndq_with_values_avx2(ndq_extremes_avx2 e, const float *x)
{
    const __m256 v = _mm256_loadu_ps(x);
    return ndq_with_avx2(e, v, v, v);
}

static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 ndq_extremes_avx2
ndq_swapped_avx2(ndq_extremes_avx2 e, const int halves)
{
#define SWAPPED(v) (halves ? _mm256_permute2f128_ps(v, v, 1) : _mm256_castpd_ps(_mm256_permute_pd(_mm256_castps_pd(v), 5)))
    return ndq_with_avx2(e, SWAPPED(e.low), SWAPPED(e.high), SWAPPED(e.check));
#undef SWAPPED
}

enum { NDQ_EXTREMES_LEAST = 8 };

/* At least so many values: their extremes, and what is finite only if all of them are. The last vector may overlap another. */
static inline NDQ_TARGET_AVX2 float ndq_find_extremes_avx2(size_t n, const float *x, float *low, float *high)
{
    const __m256 first = _mm256_loadu_ps(x);
    ndq_extremes_avx2 e = {first, first, first}, f = e, g = e, h = e;
    size_t i = 8;
    for (; i + 32 <= n; i += 32) {
        e = ndq_with_values_avx2(e, x + i);
        f = ndq_with_values_avx2(f, x + i + 8);
        g = ndq_with_values_avx2(g, x + i + 16);
        h = ndq_with_values_avx2(h, x + i + 24);
    }
    for (; i + 8 <= n; i += 8)
        f = ndq_with_values_avx2(f, x + i);
    e = ndq_with_values_avx2(e, x + n - 8);
    f = ndq_with_avx2(f, h.low, h.high, h.check);
    e = ndq_with_avx2(e, g.low, g.high, g.check);
    e = ndq_with_avx2(e, f.low, f.high, f.check);
    e = ndq_swapped_avx2(ndq_swapped_avx2(e, true), false);
    const __m256 low_0 = _mm256_movehdup_ps(e.low), high_0 = _mm256_movehdup_ps(e.high);
    e = ndq_with_avx2(e, low_0, high_0, _mm256_movehdup_ps(e.check));
    *low = _mm256_cvtss_f32(e.low);
    *high = _mm256_cvtss_f32(e.high);
    return _mm256_cvtss_f32(e.check);
}

#endif
