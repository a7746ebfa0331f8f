/* Pooling and nearest-neighbour resizing of images of codes, 8 bits of either sign, (N, C, H, W) in any strides. */
#ifndef NDQ_POOL_H
#define NDQ_POOL_H

#include "codes.h"

/* Windows along one axis: output i sees pixels begin[i], begin[i] + step, ... before end[i], all inside the image, and
 * counts as many as count[i], which may include padding. No window is empty. */
typedef struct {
    size_t in, out, step;
    const int32_t *begin, *end, *count;
} ndq_pool_axis;

typedef struct {
    const ndq_kernels *kernels;
    bool average; /* or the largest */
    size_t N, C;
    ndq_pool_axis y, x;
    const uint8_t *in;
    ptrdiff_t in_n, in_c, in_y, in_x; /* strides in bytes */
    uint8_t *out;
    size_t out_n, out_c, out_y, out_x;
    ndq_byte_operand operand; /* its scale for averages only */
    ndq_byte_result result;   /* likewise */
} ndq_pool;

/* average: y = float(sum of (q - zero)) * (scale / float(count)). The pixels of a window times 255 fit int32.
 * NDQ_OK or NDQ_NO_MEMORY. */
ndq_status ndq_pool_codes(const ndq_pool *call);

/* out[n, c, y, x] = in[n, c, row[y], column[x]]; the fields that pooling alone needs are not looked at. */
void ndq_resize_codes(const ndq_pool *call, const int32_t *row, const int32_t *column);

#endif
