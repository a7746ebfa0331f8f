/* A transposed convolutional layer: sums, bias, activation and requantization. */
#include "../plan.h"

ndq_status ndq_step_conv_transpose2d(const ndq_step *step, uint8_t *const *values)
{
    ndq_conv_call call = step->work.transposed.call;
    call.in = values[step->in[0]];
    call.out = values[step->out];
    return ndq_transposed_conv(&call, step->work.transposed.weights);
}
