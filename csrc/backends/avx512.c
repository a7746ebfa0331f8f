#include "../backend.h"
#include "../cpu.h"

#ifdef NDQ_X86
#define NDQ_ISA avx512
#define NDQ_TARGET NDQ_TARGET_AVX512
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
