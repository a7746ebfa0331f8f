/* VNNI multiplies bytes: it adds the kernels of products and inherits the rest from avx512. */
#include "../backend.h"
#include "../cpu.h"

#ifdef NDQ_X86
static bool available(void)
{
    return ndq_cpu_features()->avx512vnni;
}

const ndq_backend ndq_backend_avx512vnni = {
    .name = "avx512vnni",
    .available = available,
    .kernels = {.gemm = &ndq_gemm_avx512vnni, .depthwise = &ndq_depthwise_avx512vnni,
                .grouped = &ndq_grouped_avx512vnni},
};
#endif
