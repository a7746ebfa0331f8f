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
#define LOW _mm512_unpacklo_epi16
#define HIGH _mm512_unpackhi_epi16
#define MADD _mm512_madd_epi16
#define ADD _mm512_add_epi32
#define LANES(low, i, j, high)                                                                               \
    _mm512_permutex2var_epi64(low, _mm512_setr_epi64(2 * (i), 2 * (i) + 1, 8 + 2 * (i), 9 + 2 * (i), 2 * (j), \
                                                     2 * (j) + 1, 8 + 2 * (j), 9 + 2 * (j)), high)
#define SAVE(row, low, high)                                                                                 \
    (_mm512_store_si512(acc + NR * (row), LANES(low, 0, 1, high)),                                           \
     _mm512_store_si512(acc + NR * (row) + 16, LANES(low, 2, 3, high)))
#include "depthwise_x86.inc.h"

const ndq_gemm_kernel ndq_depthwise_avx512 = KERNEL(avx512, 2e6, avx512_store_codes);
#endif
