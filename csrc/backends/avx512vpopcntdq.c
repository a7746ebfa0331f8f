/* VPOPCNTDQ counts bits: it adds a kernel of products of signs and inherits the rest from avx512vnni. */
#include "../backend.h"
#include "../cpu.h"

#ifdef NDQ_X86
static bool available(void)
{
    return ndq_cpu_features()->avx512vpopcntdq;
}

const ndq_backend ndq_backend_avx512vpopcntdq = {
    .name = "avx512vpopcntdq",
    .available = available,
    .kernels = {.binary = &ndq_binary_avx512vpopcntdq},
};
#endif
