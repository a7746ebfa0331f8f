/* Plain C for any machine: the row that is always there and complete. */
#include "../backend.h"

#define NDQ_ISA portable
#define NDQ_TARGET
#include "../kernels/elementwise_all.inc.h"

static bool available(void)
{
    return true;
}

const ndq_backend ndq_backend_portable = {
    .name = "portable",
    .available = available,
    .kernels = {NDQ_ELEMENTWISE_ROW .gemm = &ndq_gemm_portable, .depthwise = &ndq_depthwise_portable,
                .gemm_f32 = &ndq_gemm_f32_portable, .grouped = &ndq_grouped_portable, .binary = &ndq_binary_portable},
};
