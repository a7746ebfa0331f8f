/* Depthwise tile for AVX2, 16 channels wide. */
#include "gemm.h"

#ifdef NDQ_X86
#include <immintrin.h>

#define NAME(x) avx2_##x
#define TARGET NDQ_TARGET_AVX2
#define NR 16
#include "gemm_avx2.inc.h"

#define VECTOR __m256i
#define ZERO _mm256_setzero_si256()
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define STORE(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define SET_S16 _mm256_set1_epi16
#define MADD _mm256_madd_epi16
#define ADD _mm256_add_epi32
#define SUBTRACT _mm256_sub_epi16
/* Both halves of a register get all bytes, and a shuffle in each leaves every other one: as it stays within 128 bits it takes
 * less than half of the time of a conversion. Signed bytes are moved by 128 and back. */
#define WIDEN(pairs) _mm256_sub_epi16(_mm256_shuffle_epi8(pairs, apart_), _mm256_set1_epi16(is_signed ? 128 : 0))
#define BYTES(p)                                                                                             \
    _mm256_xor_si256(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(p))),                     \
                     _mm256_set1_epi8(is_signed ? -128 : 0))
#define PAIRS(a, b, low, high)                                                                               \
    do {                                                                                                     \
        const __m256i apart_ = _mm256_setr_epi8(0, -1, 1, -1, 2, -1, 3, -1, 4, -1, 5, -1, 6, -1, 7, -1, 8, -1, 9, -1, \
                                                10, -1, 11, -1, 12, -1, 13, -1, 14, -1, 15, -1);             \
        const __m256i a_ = BYTES(a), b_ = BYTES(b);                                                          \
        low = WIDEN(_mm256_unpacklo_epi8(a_, b_));                                                           \
        high = WIDEN(_mm256_unpackhi_epi8(a_, b_));                                                          \
    } while (0)
/* asm as in gemm_avx2.c: gcc would keep some of the accumulators in memory. */
#define ROW(row, low, high)                                                                                  \
    do {                                                                                                     \
        const VECTOR *x_ = (const VECTOR *)(x + (row) * stride);                                             \
        VECTOR y_;                                                                                           \
        __asm__ volatile("vpmaddwd %[a], %[b0], %[y]\n\tvpaddd %[y], %[s0], %[s0]\n\t"                       \
                         "vpmaddwd %[b], %[b1], %[y]\n\tvpaddd %[y], %[s1], %[s1]"                           \
                         : [s0] "+x"(low), [s1] "+x"(high), [y] "=&x"(y_)                                    \
                         : [a] "m"(x_[0]), [b] "m"(x_[1]), [b0] "x"(w0), [b1] "x"(w1));                      \
    } while (0)
#include "depthwise_x86.inc.h"

const ndq_gemm_kernel ndq_depthwise_avx2 = KERNEL(avx2, 7e5, avx2_store_codes_by_hand);
#endif
