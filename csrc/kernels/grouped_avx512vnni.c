/* Weights of 4 bits for AVX-512 VNNI, which multiplies u8 weights by s8 activations as they are. */
#include "grouped.h"

#ifdef NDQ_X86
#include <immintrin.h>

#define NAME(x) avx512vnni_##x
#define TARGET NDQ_TARGET_AVX512VNNI
#define NR 32
#include "grouped_plain.inc.h"

enum { BYTES = 64 }; /* of a word of 32 columns */

typedef int32_t __attribute__((may_alias, aligned(1))) word_anywhere;

#define ROW(r, s0, s1)                                                                                       \
    if (rows > r) {                                                                                          \
        const __m512i x = _mm512_set1_epi32(*(const word_anywhere *)(a + r * stride));                       \
        s0 = _mm512_dpbusd_epi32(s0, low, x);                                                                \
        s1 = _mm512_dpbusd_epi32(s1, high, x);                                                               \
    }

#define SAVE(r, s0, s1)                                                                                      \
    if (rows > r) {                                                                                          \
        _mm512_store_si512(acc + NR * r, s0);                                                                \
        _mm512_store_si512(acc + NR * r + NR / 2, s1);                                                       \
    }

/* The sums are named one by one: gcc keeps an array of them in memory. */
static inline __attribute__((always_inline)) TARGET void tile(const size_t rows, const ndq_grouped_run *run,
                                                              const int8_t *a, size_t stride, const uint8_t *panel,
                                                              int32_t *acc)
{
    const __m512i mask = _mm512_set1_epi8(15), zero = _mm512_setzero_si512();
    for (size_t group = 0; group < run->groups; group++, panel += run->bytes, acc += rows * NR) {
        __m512i s00 = zero, s01 = zero, s10 = zero, s11 = zero, s20 = zero, s21 = zero, s30 = zero, s31 = zero;
        for (size_t word = 0; word < run->words; word++, a += NDQ_GROUPED_WORD) {
            const __m512i both = _mm512_load_si512(panel + BYTES * word);
            const __m512i low = _mm512_and_si512(both, mask);
            const __m512i high = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
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
}

#define TILE(rows)                                                                                           \
    static TARGET void tile_##rows(const ndq_grouped_run *run, const int8_t *a, size_t stride,               \
                                   const uint8_t *panel, int32_t *acc)                                       \
    {                                                                                                        \
        tile(rows, run, a, stride, panel, acc);                                                              \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)

const ndq_grouped_kernel ndq_grouped_avx512vnni = {
    .name = "avx512vnni",
    .mr = 4,
    .nr = NR,
    .k_step = NDQ_GROUPED_WORD,
    .parallel_macs = 6e6,
    .tile = {tile_1, tile_2, tile_3, tile_4},
    .expand = avx512vnni_expand,
    .combine = avx512vnni_combine,
    .store = avx512vnni_store,
};
#endif
