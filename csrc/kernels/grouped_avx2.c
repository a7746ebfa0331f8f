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
enum { AHEAD = 1024 };          /* bytes: a single row reads weights as fast as memory gives them */
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

#define ROW(r, s0, s1)                                                                                       \
    if (rows > r) {                                                                                          \
        const __m256i x = _mm256_set1_epi32(*(const word_anywhere *)(a0 + r * stride + 4 * i));              \
        ADD(s0, low, x);                                                                                     \
        ADD(s1, high, x);                                                                                    \
    }

#define WIDEN(r, s0, s1)                                                                                     \
    if (rows > r) {                                                                                          \
        sum[2 * r] = _mm256_add_epi32(sum[2 * r], _mm256_madd_epi16(s0, ones));                              \
        sum[2 * r + 1] = _mm256_add_epi32(sum[2 * r + 1], _mm256_madd_epi16(s1, ones));                      \
    }

/* The 16-bit sums are named one by one: gcc keeps an array of them in memory, where those of 32 bits may be. */
static inline __attribute__((always_inline)) TARGET void tile(const size_t rows, const ndq_grouped_run *run,
                                                              const int8_t *a, size_t stride, const uint8_t *panel,
                                                              int32_t *acc)
{
    const __m256i mask = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1), zero = _mm256_setzero_si256();
    for (size_t group = 0; group < run->groups; group++, a += 4 * run->words, panel += run->bytes) {
        __m256i *sum = (__m256i *)acc + group * rows * 2;
        for (size_t i = 0; i < 2 * rows; i++)
            sum[i] = zero;
        for (size_t word = 0; word < run->words; word += BLOCK) {
            const int8_t *a0 = a + 4 * word;
            const uint8_t *b = panel + BYTES * word;
            __m256i s00 = zero, s01 = zero, s10 = zero, s11 = zero, s20 = zero, s21 = zero, s30 = zero, s31 = zero;
            for (size_t i = 0; i < BLOCK; i++) {
                const __m256i both = _mm256_load_si256((const __m256i *)(b + BYTES * i));
                if (rows == 1 && i % 2 == 0)
                    _mm_prefetch((const char *)(b + BYTES * i + AHEAD), _MM_HINT_T0);
                const __m256i low = _mm256_and_si256(both, mask);
                const __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
                ROW(0, s00, s01)
                ROW(1, s10, s11)
                ROW(2, s20, s21)
                ROW(3, s30, s31)
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
        tile(rows, run, a, stride, panel, acc);                                                              \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)

const ndq_grouped_kernel ndq_grouped_avx2 = {
    .name = "avx2",
    .mr = 4,
    .nr = NR,
    .k_step = NDQ_GROUPED_WORD * BLOCK,
    .parallel_macs = 2e6,
    .tile = {tile_1, tile_2, tile_3, tile_4},
    .expand = avx2_expand,
    .combine = avx2_combine,
    .store = avx2_store,
};
#endif
