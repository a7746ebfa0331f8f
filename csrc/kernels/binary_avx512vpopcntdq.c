/* Differing bits for AVX-512 with VPOPCNTDQ, which counts the bits of each word of 64: a lane is a column. The tile is 4 rows
 * by 16 columns: 8 sums, 2 registers of columns. */
#include "binary.h"

#ifdef NDQ_X86
#include <immintrin.h>

#define TARGET NDQ_TARGET_AVX512VPOPCNTDQ

enum { NR = 16, LANES = 8 };

typedef int64_t __attribute__((may_alias, aligned(1))) word_anywhere;

#define ADD(sum, w, x) (sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(_mm512_xor_si512(w, x))))

#define ROW(r, s0, s1)                                                                                       \
    if (rows > r) {                                                                                          \
        const __m512i x = _mm512_set1_epi64(*(const word_anywhere *)(a + r * stride));                       \
        ADD(s0, w0, x);                                                                                      \
        ADD(s1, w1, x);                                                                                      \
    }

#define SAVE(r, s0, s1)                                                                                      \
    if (rows > r) {                                                                                          \
        _mm256_store_si256((__m256i *)(distance + r * NR), _mm512_cvtepi64_epi32(s0));                       \
        _mm256_store_si256((__m256i *)(distance + r * NR + LANES), _mm512_cvtepi64_epi32(s1));               \
    }

static inline __attribute__((always_inline)) TARGET void tile(const size_t rows, size_t words, const uint8_t *a,
                                                              size_t stride, const uint8_t *panel, int32_t *distance)
{
    const __m512i zero = _mm512_setzero_si512();
    __m512i s00 = zero, s01 = zero, s10 = zero, s11 = zero, s20 = zero, s21 = zero, s30 = zero, s31 = zero;
    for (size_t i = 0; i < words; i++, a += sizeof(int64_t), panel += 2 * sizeof(__m512i)) {
        const __m512i w0 = _mm512_loadu_si512(panel), w1 = _mm512_loadu_si512(panel + sizeof(__m512i));
        ROW(0, s00, s01)
        ROW(1, s10, s11)
        ROW(2, s20, s21)
        ROW(3, s30, s31)
    }
    SAVE(0, s00, s01)
    SAVE(1, s10, s11)
    SAVE(2, s20, s21)
    SAVE(3, s30, s31)
}

NDQ_BINARY_TILES(TARGET)

const ndq_binary_kernel ndq_binary_avx512vpopcntdq = {
    .name = "avx512vpopcntdq",
    .mr = 4,
    .nr = NR,
    .word = sizeof(int64_t),
    .row_factor = 1,
    .parallel_macs = 5e7,
    .tile = {tile_1, tile_2, tile_3, tile_4},
    .expand = ndq_binary_copy,
};
#endif
