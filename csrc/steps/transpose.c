/* From channels last to channels first, and back: images are matrices of pixels and channels. */
#include "../plan.h"

#include "../kernels/conv_band.h"

ndq_status ndq_step_transpose(const ndq_step *step, uint8_t *const *values)
{
    const ndq_transposition *t = &step->work.transposition;
    const uint8_t *in = values[step->in[0]];
    uint8_t *out = values[step->out];
    const size_t bytes = t->rows * t->columns * t->size;
    for (size_t i = 0; bytes && i < t->count; i++, in += bytes, out += bytes)
        ndq_conv_scatter(in, t->columns, t->columns, t->rows, t->size, out, t->rows * t->size, t->size);
    return NDQ_OK;
}
