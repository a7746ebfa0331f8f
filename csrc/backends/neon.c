/* NEON belongs to every ARM processor of 64 bits: compilers use it for plain C, so portable's loops are NEON already. */
#include "../backend.h"

#ifdef NDQ_ARM64
static bool available(void)
{
    return true;
}

const ndq_backend ndq_backend_neon = {
    .name = "neon",
    .available = available,
    .kernels = {.gemm = &ndq_gemm_neon, .grouped = &ndq_grouped_neon, .binary = &ndq_binary_neon},
};
#endif
