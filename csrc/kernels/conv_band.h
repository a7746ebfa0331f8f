/* What the drivers of convolutions share: blocks of outputs, the band of the image that a block reads, and the way of
 * pixels between the layout of an image and channels next to each other. */
#ifndef NDQ_CONV_BAND_H
#define NDQ_CONV_BAND_H

#include "conv.h"

/* A band takes at most this much if it can, which leaves half of a 256 KB L2 for a panel. */
enum { NDQ_BAND_BYTES = 96 * 1024 };

/* How a band is read along y or x: pixels of the band per output and per tap, and those of one window. From one
 * pixel of the band to the next it is `step` pixels of the image, as no others are read. */
typedef struct {
    size_t step, jump, tap, reach;
} ndq_conv_walk;

/* Blocks of rows x cols outputs, and their bands. Where taps are far apart the band holds, for each tap, the rows
 * of all outputs, instead of all rows from the first to the last. */
typedef struct {
    ndq_conv_walk y, x;
    bool apart;
    size_t rows, cols, band_rows, band_cols;
    size_t row_blocks, col_blocks;
} ndq_conv_blocks;

/* The largest blocks, of whole rows if possible, whose bands have at most `pixels`. Parts of rows are of about equal size,
 * in tiles of so many columns, at least two. */
ndq_conv_blocks ndq_conv_cut(const ndq_conv_axis *y, const ndq_conv_axis *x, size_t pixels, size_t tile_cols);

/* Makes blocks of at most `rows` rows. */
void ndq_conv_cut_rows(ndq_conv_blocks *b, const ndq_conv_axis *y, size_t rows);

/* The rows of the band that `rows` rows of outputs read. */
size_t ndq_conv_rows_read(const ndq_conv_blocks *b, const ndq_conv_axis *y, size_t rows);

/* The row of the image, perhaps outside, of row `row` of the band of a block that begins at output `first`. */
ptrdiff_t ndq_conv_row_at(const ndq_conv_blocks *b, const ndq_conv_axis *y, size_t first, size_t row);

/* Pixels [*begin, *end) of a row of the band are pixels of the image from *at on, `step` apart; all others lie
 * outside. */
void ndq_conv_inside(const ndq_conv_blocks *b, const ndq_conv_axis *x, size_t first, size_t *begin, size_t *end,
                     ptrdiff_t *at);

/* out[x * out_x + c] = in[c * in_c + x * in_x] for `count` pixels. */
void ndq_conv_gather(const uint8_t *in, ptrdiff_t in_c, ptrdiff_t in_x, size_t channels, size_t count, uint8_t *out,
                     size_t out_x);

/* out[c * out_c + x * out_x] = in[x * stride + c] for `count` pixels, elements of `size` bytes, 1 or 4; the strides of
 * `out` are in bytes. */
void ndq_conv_scatter(const void *in, size_t stride, size_t channels, size_t count, size_t size, uint8_t *out,
                      size_t out_c, size_t out_x);

#endif
