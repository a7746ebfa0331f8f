/* The sum or the product of two values, with an activation. */
#include "../plan.h"

ndq_status ndq_step_combine(const ndq_step *step, uint8_t *const *values)
{
    ndq_two_codes call = step->work.two_codes;
    call.kernels = ndq_kernels_in_use();
    call.a = values[step->in[0]];
    call.b = values[step->in[1]];
    call.out = values[step->out];
    ndq_combine_codes(&call);
    return NDQ_OK;
}
