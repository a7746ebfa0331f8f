/* A ReLU or ReLU6 that follows its quantizer: codes between those of the bounds. */
#include "../plan.h"

ndq_status ndq_step_clamp(const ndq_step *step, uint8_t *const *values)
{
    const ndq_clamp_codes *work = &step->work.clamp;
    const uint8_t *q = values[step->in[0]], flip = work->flip, lowest = work->lowest, highest = work->highest;
    uint8_t *y = values[step->out];
    for (size_t i = 0; i < work->n; i++) {
        uint8_t code = q[i] ^ flip;
        code = code > lowest ? code : lowest;
        y[i] = (code < highest ? code : highest) ^ flip;
    }
    return NDQ_OK;
}
