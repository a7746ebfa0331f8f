/* Dot products multiply bytes: they add a GEMM kernel, and the rest is inherited. */
#include "../backend.h"
#include "../cpu.h"

#ifdef NDQ_ARM64
static bool available(void)
{
    return ndq_cpu_features()->neondot;
}

const ndq_backend ndq_backend_neondot = {
    .name = "neondot",
    .available = available,
    .kernels = {.gemm = &ndq_gemm_neondot, .grouped = &ndq_grouped_neondot},
};
#endif
