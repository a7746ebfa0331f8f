/* Rows of codes, normalized. */
#include "../plan.h"

ndq_status ndq_step_layer_norm(const ndq_step *step, uint8_t *const *values)
{
    ndq_layer_norm call = step->work.layer_norm;
    call.kernels = ndq_kernels_in_use();
    call.x = values[step->in[0]];
    call.out = values[step->out];
    ndq_layer_norm_codes(&call);
    return NDQ_OK;
}
