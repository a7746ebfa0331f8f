#include "conv_band.h"

#include "transpose.h"

/* ---- Blocks ---- */

static size_t common_divisor(size_t a, size_t b)
{
    while (b) {
        const size_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static ndq_conv_walk walk_of(const ndq_conv_axis *a)
{
    const size_t step = a->taps == 1 ? a->stride : common_divisor(a->stride, a->dilation), tap = a->dilation / step;
    return (ndq_conv_walk){.step = step, .jump = a->stride / step, .tap = tap, .reach = (a->taps - 1) * tap + 1};
}

static size_t band_cols(const ndq_conv_walk *x, size_t cols)
{
    return (cols - 1) * x->jump + x->reach;
}

size_t ndq_conv_rows_read(const ndq_conv_blocks *b, const ndq_conv_axis *y, size_t rows)
{
    return b->apart ? b->rows * (y->taps - 1) + rows : (rows - 1) * b->y.jump + b->y.reach;
}

void ndq_conv_cut_rows(ndq_conv_blocks *b, const ndq_conv_axis *y, size_t rows)
{
    b->rows = ndq_min_size(b->rows, rows);
    b->band_rows = ndq_conv_rows_read(b, y, b->rows);
    b->row_blocks = ndq_ceil_div(y->out, b->rows);
    if (b->apart)
        b->y.tap = b->rows;
}

/* The most outputs of a row that read at most so many pixels of the band. */
static size_t most_cols(const ndq_conv_walk *x, size_t pixels)
{
    return pixels < x->reach ? 0 : (pixels - x->reach) / x->jump + 1;
}

/* Outputs of each of the parts of about equal size, whole tiles, into which a row is cut: at most `most` or two tiles. */
static size_t even_cols(size_t out, size_t most, size_t tile)
{
    const size_t tiles = most / tile, limit = (tiles > 2 ? tiles : 2) * tile;
    return out <= limit ? out : ndq_round_up(ndq_ceil_div(out, ndq_ceil_div(out, limit)), tile);
}

ndq_conv_blocks ndq_conv_cut(const ndq_conv_axis *y, const ndq_conv_axis *x, size_t pixels, size_t tile_cols)
{
    ndq_conv_blocks b = {.y = walk_of(y), .x = walk_of(x), .cols = x->out};
    const size_t for_one_row = ndq_min_size(y->taps, b.y.reach);
    b.cols = even_cols(x->out, most_cols(&b.x, pixels / for_one_row), tile_cols);
    b.band_cols = band_cols(&b.x, b.cols);
    b.col_blocks = ndq_ceil_div(x->out, b.cols);

    const size_t rows = pixels / b.band_cols, apart = rows / y->taps;
    const size_t together = rows < b.y.reach ? 0 : (rows - b.y.reach) / b.y.jump + 1;
    b.apart = apart > together || (!together && y->taps < b.y.reach);
    b.rows = b.apart ? apart : together;
    b.rows = ndq_min_size(b.rows ? b.rows : 1, y->out);
    if (b.apart)
        b.y.jump = 1;
    ndq_conv_cut_rows(&b, y, b.rows);
    return b;
}

ptrdiff_t ndq_conv_row_at(const ndq_conv_blocks *b, const ndq_conv_axis *y, size_t first, size_t row)
{
    const size_t down = b->apart ? row % b->rows * y->stride + row / b->rows * y->dilation : row * b->y.step;
    return (ptrdiff_t)(first * y->stride + down) - y->pad;
}

void ndq_conv_inside(const ndq_conv_blocks *b, const ndq_conv_axis *x, size_t first, size_t *begin, size_t *end,
                     ptrdiff_t *at)
{
    const ptrdiff_t step = (ptrdiff_t)b->x.step, left = (ptrdiff_t)(first * x->stride) - x->pad;
    const ptrdiff_t right = (ptrdiff_t)x->in - left;
    *end = right > 0 ? ndq_min_size((size_t)((right + step - 1) / step), b->band_cols) : 0;
    *begin = left < 0 ? ndq_min_size((size_t)((step - 1 - left) / step), *end) : 0;
    *at = left + (ptrdiff_t)*begin * step;
}

/* ---- Layouts ---- */

void ndq_conv_gather(const uint8_t *in, ptrdiff_t in_c, ptrdiff_t in_x, size_t channels, size_t count, uint8_t *out,
                     size_t out_x)
{
    if (in_x == 1) {
        ndq_transpose_bytes(in, in_c, channels, count, out, out_x);
        return;
    }
    for (size_t x = 0; x < count; x++, in += in_x, out += out_x)
        if (in_c == 1)
            memcpy(out, in, channels);
        else
            for (size_t c = 0; c < channels; c++)
                out[c] = in[(ptrdiff_t)c * in_c];
}

void ndq_conv_scatter(const void *in, size_t stride, size_t channels, size_t count, size_t size, uint8_t *out,
                      size_t out_c, size_t out_x)
{
    if (out_x == size) {
        (size == 1 ? ndq_transpose_bytes : ndq_transpose_words)(in, (ptrdiff_t)(stride * size), count, channels, out, out_c);
        return;
    }
    const uint8_t *bytes = in;
    if (out_c == size) {
        for (size_t x = 0; x < count; x++)
            memcpy(out + x * out_x, bytes + x * stride * size, channels * size);
        return;
    }
    for (size_t c = 0; c < channels; c++)
        for (size_t x = 0; x < count; x++) {
            uint8_t *at = out + c * out_c + x * out_x;
            if (size == 1)
                *at = bytes[x * stride + c];
            else
                memcpy(at, bytes + (x * stride + c) * 4, 4);
        }
}
