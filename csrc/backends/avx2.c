#include "../backend.h"
#include "../cpu.h"

#ifdef NDQ_X86
#define NDQ_ISA avx2
#define NDQ_TARGET NDQ_TARGET_AVX2
#define NDQ_BYTES(name) ndq_##name##_avx2
#include "../kernels/bytes_avx2.h"
#include "../kernels/extremes_avx2.h"
#define NDQ_EXTREMES ndq_find_extremes_avx2
#define NDQ_HALVES 8
#define NDQ_WIDEN_VECTOR(from, to) _mm256_storeu_ps(to, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from))))
#define NDQ_NARROW_VECTOR(from, to)                                                                           \
    _mm_storeu_si128((__m128i *)(to), _mm256_cvtps_ph(_mm256_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT))
#include "../kernels/elementwise_all.inc.h"

static bool available(void)
{
    return ndq_cpu_features()->avx2;
}

const ndq_backend ndq_backend_avx2 = {
    .name = "avx2",
    .available = available,
    .kernels = {NDQ_ELEMENTWISE_ROW .gemm = &ndq_gemm_avx2, .depthwise = &ndq_depthwise_avx2,
                .gemm_f32 = &ndq_gemm_f32_avx2, .grouped = &ndq_grouped_avx2,
                .binary = &ndq_binary_avx2},
};
#endif
