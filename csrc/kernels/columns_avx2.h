/* The end of AVX2 tiles that end in codes: a row of 32 bytes, of which some are stored. */
#ifndef NDQ_COLUMNS_AVX2_H
#define NDQ_COLUMNS_AVX2_H

#include "../common.h"

#include <immintrin.h>

typedef uint64_t __attribute__((may_alias, aligned(1))) ndq_eight_columns;
typedef uint32_t __attribute__((may_alias, aligned(1))) ndq_four_columns;

/* Numbers of columns between powers of two are two stores that overlap: copying `columns` bytes would be a call. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void
ndq_store_columns_avx2(__m256i codes, size_t columns, uint8_t *out)
{
    if (columns == 32) {
        _mm256_storeu_si256((__m256i *)out, codes);
        return;
    }
    const __m128i first = _mm256_castsi256_si128(codes);
    if (columns >= 16)
        _mm_storeu_si128((__m128i *)out, first);
    else if (columns >= 8)
        _mm_storel_epi64((__m128i *)out, first);
    if (columns == 16 || columns == 8)
        return;
    _Alignas(32) uint8_t bytes[32];
    _mm256_store_si256((__m256i *)bytes, codes);
    const uint8_t *last = bytes + columns;
    uint8_t *end = out + columns;
    if (columns > 16)
        _mm_storeu_si128((__m128i *)(end - 16), _mm_loadu_si128((const __m128i *)(last - 16)));
    else if (columns > 8)
        *(ndq_eight_columns *)(end - 8) = *(const ndq_eight_columns *)(last - 8);
    else if (columns >= 4) {
        *(ndq_four_columns *)out = *(const ndq_four_columns *)bytes;
        *(ndq_four_columns *)(end - 4) = *(const ndq_four_columns *)(last - 4);
    } else {
        out[0] = bytes[0];
        out[columns / 2] = bytes[columns / 2];
        end[-1] = last[-1];
    }
}

#endif
