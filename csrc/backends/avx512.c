#include "../backend.h"
#include "../cpu.h"

#ifdef NDQ_X86
#define NDQ_ISA avx512
#define NDQ_TARGET NDQ_TARGET_AVX512
#define NDQ_BYTES(name) ndq_##name##_avx512
#include "../kernels/bytes_avx512.h"
#include "../kernels/extremes_avx512.h"
#define NDQ_EXTREMES ndq_find_extremes_avx512
#define NDQ_COLUMNS 16
#define NDQ_HALVES 16
#define NDQ_WIDEN_VECTOR(from, to) _mm512_storeu_ps(to, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(from))))
#define NDQ_NARROW_VECTOR(from, to)                                                                           \
    _mm256_storeu_si256((__m256i *)(to), _mm512_cvtps_ph(_mm512_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT))
#include "../kernels/elementwise_all.inc.h"

static bool available(void)
{
    return ndq_cpu_features()->avx512;
}

const ndq_backend ndq_backend_avx512 = {
    .name = "avx512",
    .available = available,
    .kernels = {NDQ_ELEMENTWISE_ROW .depthwise = &ndq_depthwise_avx512, .gemm_f32 = &ndq_gemm_f32_avx512},
};
#endif
