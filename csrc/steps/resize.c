/* Images of another size, by repeating or leaving out pixels. */
#include "../plan.h"

ndq_status ndq_step_resize(const ndq_step *step, uint8_t *const *values)
{
    const ndq_resizing *work = &step->work.resizing;
    ndq_pool images = work->images;
    images.in = values[step->in[0]];
    images.out = values[step->out];
    ndq_resize_codes(&images, work->row, work->column);
    return NDQ_OK;
}
