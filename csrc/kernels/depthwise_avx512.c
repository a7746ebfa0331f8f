/* Depthwise tile for AVX-512, 32 channels wide. */
#include "gemm.h"

#ifdef NDQ_X86
#include <immintrin.h>

#define NAME(x) avx512_##x
#define TARGET NDQ_TARGET_AVX512
#define NR 32
#include "gemm_plain.inc.h"

#define VECTOR __m512i
#define ZERO _mm512_setzero_si512()
#define LOAD(p) _mm512_loadu_si512(p)
#define STORE(p, v) _mm512_storeu_si512(p, v)
#define SET_S16 _mm512_set1_epi16
#define MADD _mm512_madd_epi16
#define ADD _mm512_add_epi32
#define SUBTRACT _mm512_sub_epi16
#define WIDEN(v) (is_signed ? _mm512_cvtepi8_epi16(v) : _mm512_cvtepu8_epi16(v))
/* Unpacking works on 128 bits: the quarters 0 2 1 3 become 0 1 below and 2 3 above. */
#define QUARTERS(p) _mm256_permute4x64_epi64(_mm256_loadu_si256((const __m256i *)(p)), 0xd8)
#define PAIRS(a, b, low, high)                                                                               \
    do {                                                                                                     \
        const __m256i a_ = QUARTERS(a), b_ = QUARTERS(b);                                                    \
        low = WIDEN(_mm256_unpacklo_epi8(a_, b_));                                                           \
        high = WIDEN(_mm256_unpackhi_epi8(a_, b_));                                                          \
    } while (0)
#include "depthwise_x86.inc.h"

const ndq_gemm_kernel ndq_depthwise_avx512 = KERNEL(avx512, 2e6, avx512_store_codes);
#endif
