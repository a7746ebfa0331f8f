/* Entering the integers, and leaving them. */
#include "../plan.h"

ndq_status ndq_step_quantize(const ndq_step *step, uint8_t *const *values)
{
    ndq_elementwise job = step->work.elementwise;
    job.kernels = ndq_kernels_in_use();
    job.x = values[step->in[0]];
    job.q = values[step->out];
    ndq_quantize(&job);
    return NDQ_OK;
}

ndq_status ndq_step_dequantize(const ndq_step *step, uint8_t *const *values)
{
    ndq_elementwise job = step->work.elementwise;
    job.kernels = ndq_kernels_in_use();
    job.x = values[step->in[0]];
    job.y = values[step->out];
    ndq_dequantize(&job);
    return NDQ_OK;
}
