/* Weights of 4 bits for AVX2: u8 weights by s8 activations, exact. A sum of two products is at most 2 * 15 * 128 in size,
 * so that eight of them fit 16 bits before one vpmaddwd by ones widens them. */
#include "grouped.h"

#ifdef NDQ_X86
#include <immintrin.h>

#define NAME(x) avx2_##x
#define TARGET NDQ_TARGET_AVX2
#define NR 16
#include "grouped_plain.inc.h"

enum { BLOCK = 8, BYTES = 32 }; /* words that are added in 16 bits; bytes of a word of 16 columns */
_Static_assert(BLOCK * 2 * (NDQ_GROUPED_LEVELS - 1) * 128 <= INT16_MAX, "sums of a block fit 16 bits");

typedef int32_t __attribute__((may_alias, aligned(1))) word_anywhere;

/* asm for the reason given in gemm_avx2.c. */
#define ADD(sum, w, x)                                                                                       \
    do {                                                                                                     \
        __m256i y_;                                                                                          \
        __asm__ volatile("vpmaddubsw %[b], %[a], %[y]\n\tvpaddw %[y], %[s], %[s]"                            \
                         : [s] "+x"(sum), [y] "=&x"(y_)                                                      \
                         : [a] "x"(w), [b] "x"(x));                                                          \
    } while (0)

#define CELL(c, s0, s1)                                                                                      \
    if (cells > c) {                                                                                         \
        const __m256i both = _mm256_load_si256((const __m256i *)(b + c * b_step + BYTES * i));               \
        const __m256i x = _mm256_set1_epi32(*(const word_anywhere *)(a0 + c * a_step + 4 * i));              \
        ADD(s0, _mm256_and_si256(both, mask), x);                                                            \
        ADD(s1, _mm256_and_si256(_mm256_srli_epi16(both, 4), mask), x);                                      \
    }

#define WIDEN(c, s0, s1)                                                                                     \
    if (cells > c) {                                                                                         \
        sum[2 * c] = _mm256_add_epi32(sum[2 * c], _mm256_madd_epi16(s0, ones));                              \
        sum[2 * c + 1] = _mm256_add_epi32(sum[2 * c + 1], _mm256_madd_epi16(s1, ones));                      \
    }

/* Some rows, `a_step` apart, by one panel, or a single row by some panels, `b_step` apart. The 16-bit sums are named one by
 * one: gcc keeps an array of them in memory, where those of 32 bits may be. */
static inline __attribute__((always_inline)) TARGET void tile(const size_t cells,
                                                              const ndq_grouped_run *run, const int8_t *a, size_t a_step,
                                                              const uint8_t *panel, size_t b_step, int32_t *acc)
{
    const __m256i mask = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1), zero = _mm256_setzero_si256();
    for (size_t group = 0; group < run->groups; group++, a += 4 * run->words, panel += run->bytes) {
        __m256i *sum = (__m256i *)acc + group * cells * 2;
        for (size_t i = 0; i < 2 * cells; i++)
            sum[i] = zero;
        for (size_t word = 0; word < run->words; word += BLOCK) {
            const int8_t *a0 = a + 4 * word;
            const uint8_t *b = panel + BYTES * word;
            __m256i s00 = zero, s01 = zero, s10 = zero, s11 = zero, s20 = zero, s21 = zero, s30 = zero, s31 = zero;
            for (size_t i = 0; i < BLOCK; i++) {
                CELL(0, s00, s01)
                CELL(1, s10, s11)
                CELL(2, s20, s21)
                CELL(3, s30, s31)
            }
            WIDEN(0, s00, s01)
            WIDEN(1, s10, s11)
            WIDEN(2, s20, s21)
            WIDEN(3, s30, s31)
        }
    }
}

#define TILE(rows)                                                                                           \
    static TARGET void tile_##rows(const ndq_grouped_run *run, const int8_t *a, size_t stride,               \
                                   const uint8_t *panel, int32_t *acc)                                       \
    {                                                                                                        \
        tile(rows, run, a, stride, panel, 0, acc);                                                \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)

static TARGET void streams(const ndq_grouped_run *run, const int8_t *a, const uint8_t *panels, size_t panel_bytes,
                           int32_t *acc)
{
    tile(NDQ_GROUPED_STREAMS, run, a, 0, panels, panel_bytes, acc);
}

const ndq_grouped_kernel ndq_grouped_avx2 = {
    .name = "avx2",
    .mr = 4,
    .nr = NR,
    .k_step = NDQ_GROUPED_WORD * BLOCK,
    .parallel_macs = 2e6,
    .tile = {tile_1, tile_2, tile_3, tile_4},
    .streams = streams,
    .expand = avx2_expand,
    .combine = avx2_combine,
    .store = avx2_store,
};
#endif
