/* Slices, padding, joins and other orders of axes: a box of one array goes to a box of another. */
#include "../plan.h"

#include <string.h>

static void copy_row(const uint8_t *in, ptrdiff_t in_stride, uint8_t *out, size_t out_stride, size_t length)
{
    if (in_stride == 1 && out_stride == 1)
        memcpy(out, in, length);
    else
        for (size_t i = 0; i < length; i++)
            out[i * out_stride] = in[(ptrdiff_t)i * in_stride];
}

ndq_status ndq_step_place(const ndq_step *step, uint8_t *const *values)
{
    const ndq_placement *p = &step->work.placement;
    uint8_t *out = values[step->out];
    if (p->fills)
        memset(out, p->fill, p->out_bytes);
    out += p->out_offset;
    const uint8_t *in = values[step->in[0]] + p->in_offset;
    for (size_t a = 0; a < p->length[0]; a++)
        for (size_t b = 0; b < p->length[1]; b++)
            for (size_t c = 0; c < p->length[2]; c++)
                copy_row(in + (ptrdiff_t)a * p->in_stride[0] + (ptrdiff_t)b * p->in_stride[1] +
                             (ptrdiff_t)c * p->in_stride[2],
                         p->in_stride[3],
                         out + a * p->out_stride[0] + b * p->out_stride[1] + c * p->out_stride[2],
                         p->out_stride[3], p->length[3]);
    return NDQ_OK;
}
