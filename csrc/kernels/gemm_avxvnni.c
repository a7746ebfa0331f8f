/* GEMM tile for AVX-VNNI, which processors without AVX-512 have: 6 rows by 16 columns in ymm registers. */
#include "gemm.h"

#ifdef NDQ_X86
#include <immintrin.h>

/* The instruction stands in asm alone, so that compilers need not know its set. */
#define NAME(x) avxvnni_##x
#define TARGET NDQ_TARGET_AVX2
#define NR 16
#include "gemm_avx2.inc.h"

#ifdef NDQ_EMULATE
/* vpdpbusd for builds that test on processors without it. Products of a u8 by an s8 fit 16 bits. */
static inline TARGET __m256i dot(__m256i c, __m256i u8, __m256i s8)
{
    const __m256i low = _mm256_set1_epi16(0xff), one = _mm256_set1_epi16(1);
    const __m256i even = _mm256_mullo_epi16(_mm256_and_si256(u8, low), _mm256_srai_epi16(_mm256_slli_epi16(s8, 8), 8));
    const __m256i odd = _mm256_mullo_epi16(_mm256_srli_epi16(u8, 8), _mm256_srai_epi16(s8, 8));
    return _mm256_add_epi32(c, _mm256_add_epi32(_mm256_madd_epi16(even, one), _mm256_madd_epi16(odd, one)));
}

#define ADD_DOT(word, c0, c1)                                                                                \
    do {                                                                                                     \
        const __m256i x_ = _mm256_set1_epi32((int32_t)*(const ndq_gemm_word_anywhere *)(word));              \
        c0 = dot(c0, x_, w0);                                                                                \
        if (width == WIDE)                                                                                            \
            c1 = dot(c1, x_, w1);                                                                            \
    } while (0)
#else
/* One asm statement for the reason given in gemm_avx2.c. */
#define ADD_DOT(word, c0, c1)                                                                                \
    do {                                                                                                     \
        __m256i x_;                                                                                          \
        if (width == WIDE)                                                                                            \
            __asm__ volatile("vpbroadcastd %[a], %[x]\n\t"                                                   \
                             "%{vex%} vpdpbusd %[b0], %[x], %[s0]\n\t"                                         \
                             "%{vex%} vpdpbusd %[b1], %[x], %[s1]"                                             \
                             : [s0] "+x"(c0), [s1] "+x"(c1), [x] "=&x"(x_)                                   \
                             : [a] "m"(*(const ndq_gemm_word_anywhere *)(word)), [b0] "x"(w0), [b1] "x"(w1)); \
        else                                                                                                 \
            __asm__ volatile("vpbroadcastd %[a], %[x]\n\t"                                                   \
                             "%{vex%} vpdpbusd %[b0], %[x], %[s0]"                                             \
                             : [s0] "+x"(c0), [x] "=&x"(x_)                                                  \
                             : [a] "m"(*(const ndq_gemm_word_anywhere *)(word)), [b0] "x"(w0));              \
    } while (0)
#endif

#define END_ROWS(row, count, c00, c01, c10, c11, c20, c21, c30, c31) (void)0
#define VECTOR __m256i
#define LANES 8
#define LOAD(p) _mm256_load_si256((const __m256i *)(p))
#define STORE(p, v) _mm256_store_si256((__m256i *)(p), v)
#define ZERO _mm256_setzero_si256()
#include "gemm_vnni.inc.h"

TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILES(5)
TILES(6)

const ndq_gemm_kernel ndq_gemm_avxvnni = {
    .name = "avxvnni",
    .mr = 6,
    .nr = NR,
    .codes_per_word = 4,
    .k_step = 4,
    .block_words = 512,
    .parallel_macs = 5e6,
    .expand_a = NAME(expand_u8),
    .expand_w = NAME(expand_s8),
    .sums = NAME(sums_both),
    .pack = NAME(pack_transposed),
    .tile = {NAME(wide_1), NAME(wide_2), NAME(wide_3), NAME(wide_4), NAME(wide_5), NAME(wide_6)},
    .narrow = {NAME(narrow_1), NAME(narrow_2), NAME(narrow_3), NAME(narrow_4), NAME(narrow_5), NAME(narrow_6)},
    .vector_tile = {NAME(vector_1), NAME(vector_2), NAME(vector_3), NAME(vector_4)},
    .narrow_vector_tile = {NAME(narrow_vector_1), NAME(narrow_vector_2), NAME(narrow_vector_3), NAME(narrow_vector_4)},
    .expand_vector = NAME(expand_vector),
    .vector_bytes = 1,
    .subtract_row_terms = NAME(subtract_row_terms),
    .store = {NAME(store_s32), NAME(store_f32), NAME(store_codes)},
};
#endif
