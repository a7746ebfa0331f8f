/* A ReLU that follows its quantizer: no code below that of zero. */
#include "../plan.h"

ndq_status ndq_step_floor_codes(const ndq_step *step, uint8_t *const *values)
{
    const ndq_floor_codes *work = &step->work.floor_codes;
    const uint8_t *q = values[step->in[0]];
    uint8_t *y = values[step->out];
    const int8_t low = (int8_t)work->lowest;
    const uint8_t floor = (uint8_t)work->lowest;
    if (work->is_signed)
        for (size_t i = 0; i < work->n; i++)
            y[i] = (int8_t)q[i] > low ? q[i] : (uint8_t)low;
    else
        for (size_t i = 0; i < work->n; i++)
            y[i] = q[i] > floor ? q[i] : floor;
    return NDQ_OK;
}
