/* Products of two values of codes. */
#include "../plan.h"

ndq_status ndq_step_matmul(const ndq_step *step, uint8_t *const *values)
{
    ndq_matmul call = step->work.matmul;
    call.kernel = ndq_kernels_in_use()->gemm;
    call.a = values[step->in[0]];
    call.b = values[step->in[1]];
    call.out = values[step->out];
    return ndq_matmul_codes(&call);
}
