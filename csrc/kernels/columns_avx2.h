/* The end of AVX2 tiles that end in codes: a row of 32 bytes, of which some are stored. */
#ifndef NDQ_COLUMNS_AVX2_H
#define NDQ_COLUMNS_AVX2_H

#include "../common.h"

#include <immintrin.h>

static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void
ndq_store_columns_avx2(__m256i codes, size_t columns, uint8_t *out)
{
    if (columns == 32) {
        _mm256_storeu_si256((__m256i *)out, codes);
        return;
    }
    __m128i rest = _mm256_castsi256_si128(codes);
    if (columns & 16) {
        _mm_storeu_si128((__m128i *)out, rest);
        rest = _mm256_extracti128_si256(codes, 1);
        out += 16;
    }
    if (columns & 8) {
        _mm_storel_epi64((__m128i *)out, rest);
        rest = _mm_unpackhi_epi64(rest, rest);
        out += 8;
    }
    if (columns & 7) {
        uint8_t bytes[16];
        _mm_storeu_si128((__m128i *)bytes, rest);
        memcpy(out, bytes, columns & 7);
    }
}

#endif
