/* AVX-VNNI multiplies bytes: it adds a GEMM kernel to avx2 and inherits the rest. */
#include "../backend.h"
#include "../cpu.h"

#ifdef NDQ_X86
static bool available(void)
{
    return ndq_cpu_features()->avxvnni;
}

const ndq_backend ndq_backend_avxvnni = {
    .name = "avxvnni",
    .available = available,
    .kernels = {.gemm = &ndq_gemm_avxvnni},
};
#endif
