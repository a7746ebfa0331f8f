#include "../backend.h"
#include "../cpu.h"

#ifdef NDQ_X86
#define NDQ_ISA avx2
#define NDQ_TARGET NDQ_TARGET_AVX2
#define NDQ_BYTES(name) ndq_##name##_avx2
#include "../kernels/bytes_avx2.h"
#include "../kernels/elementwise_all.inc.h"

static bool available(void)
{
    return ndq_cpu_features()->avx2;
}

const ndq_backend ndq_backend_avx2 = {
    .name = "avx2",
    .available = available,
    .kernels = {NDQ_ELEMENTWISE_ROW .gemm = &ndq_gemm_avx2, .depthwise = &ndq_depthwise_avx2,
                .gemm_f32 = &ndq_gemm_f32_avx2},
};
#endif
