/* Probabilities of rows of codes. */
#include "../plan.h"

ndq_status ndq_step_softmax(const ndq_step *step, uint8_t *const *values)
{
    ndq_softmax call = step->work.softmax;
    call.kernels = ndq_kernels_in_use();
    call.x = values[step->in[0]];
    call.out = values[step->out];
    return ndq_softmax_codes(&call);
}
