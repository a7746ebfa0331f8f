/* The extremes of float32 values for the template of observe.inc.h, as in extremes_avx2.h. */
#ifndef NDQ_EXTREMES_AVX512_H
#define NDQ_EXTREMES_AVX512_H

#include "../common.h"

#include <immintrin.h>

/* So far, by lane. `check` is finite only if all values were. */
typedef struct {
    __m512 low, high, check;
} ndq_extremes_avx512;

static inline __attribute__((always_inline)) NDQ_TARGET_AVX512 ndq_extremes_avx512
ndq_with_avx512(ndq_extremes_avx512 e, ndq_extremes_avx512 f)
{
    return (ndq_extremes_avx512){_mm512_min_ps(f.low, e.low), _mm512_max_ps(f.high, e.high),
                                 _mm512_add_ps(f.check, e.check)};
}

static inline __attribute__((always_inline)) NDQ_TARGET_AVX512 ndq_extremes_avx512
ndq_with_values_avx512(ndq_extremes_avx512 e, __m512 values)
{
    return ndq_with_avx512(e, (ndq_extremes_avx512){values, values, values});
}

enum { NDQ_EXTREMES_LEAST = 1 };

/* At least so many values: their extremes, and what is finite only if all of them are. Values may count several times. */
static inline NDQ_TARGET_AVX512 float ndq_find_extremes_avx512(size_t n, const float *x, float *low, float *high)
{
    const __m512 any = _mm512_set1_ps(*x);
    ndq_extremes_avx512 e = {any, any, any}, f = e, g = e, h = e;
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        e = ndq_with_values_avx512(e, _mm512_loadu_ps(x + i));
        f = ndq_with_values_avx512(f, _mm512_loadu_ps(x + i + 16));
        g = ndq_with_values_avx512(g, _mm512_loadu_ps(x + i + 32));
        h = ndq_with_values_avx512(h, _mm512_loadu_ps(x + i + 48));
    }
    for (; i + 16 <= n; i += 16)
        f = ndq_with_values_avx512(f, _mm512_loadu_ps(x + i));
    if (i < n)
        g = ndq_with_values_avx512(g, _mm512_mask_loadu_ps(any, (__mmask16)((1u << (n - i)) - 1), x + i));
    e = ndq_with_avx512(ndq_with_avx512(e, f), ndq_with_avx512(g, h));
    *low = _mm512_reduce_min_ps(e.low);
    *high = _mm512_reduce_max_ps(e.high);
    return _mm512_reduce_add_ps(e.check);
}

#endif
