/* The largest code or the mean of windows. */
#include "../plan.h"

ndq_status ndq_step_pool(const ndq_step *step, uint8_t *const *values)
{
    ndq_pool call = step->work.pool;
    call.kernels = ndq_kernels_in_use();
    call.in = values[step->in[0]];
    call.out = values[step->out];
    return ndq_pool_codes(&call);
}
