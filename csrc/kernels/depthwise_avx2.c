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
#define WIDEN(v) (is_signed ? _mm256_cvtepi8_epi16(v) : _mm256_cvtepu8_epi16(v))
#define PAIRS(a, b, low, high)                                                                               \
    do {                                                                                                     \
        const __m128i a_ = _mm_loadu_si128((const __m128i *)(a)), b_ = _mm_loadu_si128((const __m128i *)(b)); \
        low = WIDEN(_mm_unpacklo_epi8(a_, b_));                                                              \
        high = WIDEN(_mm_unpackhi_epi8(a_, b_));                                                             \
    } while (0)
#include "depthwise_x86.inc.h"

const ndq_gemm_kernel ndq_depthwise_avx2 = KERNEL(avx2, 7e5, avx2_store_codes_by_hand);
#endif
