/* A fully connected layer: product, bias, activation and requantization. */
#include "../plan.h"

ndq_status ndq_step_linear(const ndq_step *step, uint8_t *const *values)
{
    ndq_gemm_call call = step->work.gemm;
    call.a = values[step->in[0]];
    call.out = values[step->out];
    return ndq_gemm(&call);
}
