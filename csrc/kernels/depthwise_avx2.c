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
#define LOW _mm256_unpacklo_epi16
#define HIGH _mm256_unpackhi_epi16
#define MADD _mm256_madd_epi16
#define ADD _mm256_add_epi32
#define SAVE(row, low, high)                                                                                 \
    (_mm256_store_si256((__m256i *)(acc + NR * (row)), _mm256_permute2x128_si256(low, high, 0x20)),          \
     _mm256_store_si256((__m256i *)(acc + NR * (row) + 8), _mm256_permute2x128_si256(low, high, 0x31)))
#include "depthwise_x86.inc.h"

const ndq_gemm_kernel ndq_depthwise_avx2 = KERNEL(avx2, 7e5, avx2_store_codes_by_hand);
#endif
