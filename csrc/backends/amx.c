/* Tiles multiply bytes: they add a GEMM kernel, and the rest is inherited. */
#include "../backend.h"
#include "../cpu.h"

#ifdef NDQ_X86
static bool available(void)
{
    return ndq_cpu_features()->amx;
}

const ndq_backend ndq_backend_amx = {
    .name = "amx",
    .available = available,
    .kernels = {.gemm = &ndq_gemm_amx},
};
#endif
