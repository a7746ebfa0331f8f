/* Depthwise convolution: each output sees one channel. Its kernel takes nr channels at a time and a word of taps of a
 * column of the window, two or four of them, at once, so the band of one panel holds words of codes: of a row of the
 * image, and of the rows `dilation` below one another. With two, a window is then half as many taps, twice as far apart,
 * as the axis below says.
 *
 * A window whose rows do not fill its words has room for one more in them. Where rows are next to each other, the window
 * of the row of outputs below sees the same words, its weights moved down by one row: so two rows of outputs, `lines` of
 * them, begin at each row of the band, which has one for every two rows of the image. */
#include "conv_band.h"

#include "../threads.h"

enum { CHUNKS_PER_THREAD = 4, MOST_IN_WORD = 4, MOST_PANELS = 2, DIRECT_ROWS = 4 };

/* Of rows of the image that a block without a band reads: they stay in L2 for the next panel, which often reads the same
 * cache lines. */
enum { IMAGE_BYTES = 192 * 1024 };

typedef struct {
    const ndq_conv_call *call;
    const ndq_gemm_kernel *kernel;
    const ndq_packed *w;
    ndq_gemm_stage stage;
    ndq_conv_axis y; /* of words of rows, and of as many outputs as begin at different ones */
    size_t lines;    /* rows of outputs that begin at each row of the band */
    ndq_conv_blocks blocks;
    size_t in_word;     /* rows of the image in a word, */
    size_t used;        /* and those that meet weights; the others need not be read */
    size_t pixel, size; /* bytes of a pixel of the band, and of an output */
    size_t repeat;      /* outputs for each channel of the image */
    bool in_place;      /* the channels of an output are next to each other */
    bool is_direct;     /* there is no band */
    size_t width, widths; /* channels of a chunk, and how often they make all */
    int no_memory; /* set by any thread */
} job;

/* One chunk: outputs [y, y + rows) x [x, x + cols) of image n, `channels` of them from `channel` on; and its memory. y
 * and rows count rows of the band at which outputs begin. */
typedef struct {
    const job *j;
    size_t n, y, x, rows, cols, channel, channels;
    uint8_t *band, *staging;   /* staging: of the rows of a word, or the pixel outside where there is no band */
    uint8_t *outputs;          /* that are not written in place: of one row, or of all where there is no band */
    ndq_depthwise_pixels *row; /* of the image, where there is no band */
    ndq_gemm_runs taps;
} chunk;

/* Each channel of the image as often as it has outputs. */
static void repeat_channels(const chunk *c, const uint8_t *in, ptrdiff_t in_x, size_t count, uint8_t *out)
{
    const size_t repeat = c->j->repeat, phase = c->channel % repeat;
    for (size_t x = 0; x < count; x++, in += in_x, out += c->j->width)
        for (size_t i = 0; i < c->channels; i++)
            out[i] = in[(ptrdiff_t)((phase + i) / repeat) * c->j->call->in_c];
}

/* Whether a whole panel may be read at each pixel of row y: one that has fewer channels is followed by the next pixel, or
 * by the next row. */
static bool is_readable(const chunk *c, ptrdiff_t y)
{
    const ndq_conv_call *call = c->j->call;
    const ptrdiff_t nr = (ptrdiff_t)c->j->kernel->nr, row = call->in_x * (ptrdiff_t)call->x.in;
    return c->channels >= (size_t)nr || (c->j->is_direct && c->j->kernel->windows_panels > 1) ||
           (y + 1 < (ptrdiff_t)call->y.in && call->in_x >= (ptrdiff_t)call->w->groups &&
                                         call->in_y >= row && row >= nr);
}

/* `count` pixels of row y of the image from pixel x on, in place if there is a whole panel of channels to read, and
 * else in `staging`, where they may be already. Rows outside the image are one pixel of zero points, again and again. */
static ndq_depthwise_pixels row_of(const chunk *c, ptrdiff_t y, ptrdiff_t x, size_t count, bool is_there,
                                   uint8_t *staging)
{
    const job *j = c->j;
    const ndq_conv_call *call = j->call;
    if (y < 0 || y >= (ptrdiff_t)call->y.in) {
        memset(staging, call->product.za, j->width);
        return (ndq_depthwise_pixels){staging, 0};
    }
    const uint8_t *in = call->in + (ptrdiff_t)c->n * call->in_n + y * call->in_y + x * call->in_x +
                        (ptrdiff_t)(c->channel / j->repeat) * call->in_c;
    const ptrdiff_t in_x = call->in_x * (ptrdiff_t)j->blocks.x.step;
    if (call->in_c == 1 && j->repeat == 1 && is_readable(c, y))
        return (ndq_depthwise_pixels){in, in_x};
    if (!is_there && j->repeat == 1)
        ndq_conv_gather(in, call->in_c, in_x, c->channels, count, staging, j->width);
    else if (!is_there)
        repeat_channels(c, in, in_x, count, staging);
    return (ndq_depthwise_pixels){staging, (ptrdiff_t)j->width};
}

/* Rows of the image in the words of row `row` of the band. The last of a row are the first of the next, and stay where
 * they are. */
static void find_rows(const chunk *c, size_t row, ptrdiff_t x, size_t count, ndq_depthwise_pixels *rows)
{
    const job *j = c->j;
    const ndq_conv_blocks *b = &j->blocks;
    const size_t step = b->apart || j->call->y.dilation > 1 ? j->in_word : b->y.step;
    ptrdiff_t y = ndq_conv_row_at(b, &j->y, c->y, row);
    for (size_t i = 0; i < j->in_word; i++, y += (ptrdiff_t)j->call->y.dilation) {
        uint8_t *staging = c->staging + ((row * step + i) & (j->in_word - 1)) * b->band_cols * j->width; /* 2 or 4 */
        rows[i] = i < j->used ? row_of(c, y, x, count, row > 0 && i + step < j->used, staging) : rows[0];
    }
}

/* Codes that add nothing to the sums, as the kernel reads them. */
static int zero_of(const job *j)
{
    const ndq_gemm_call *product = &j->call->product;
    return j->kernel->a_centred ? 0 : product->za + ndq_gemm_shift_of_a(j->kernel, product->a_signed);
}

/* Rows [first, last) of the band. */
static void make_band(const chunk *c, size_t first, size_t last)
{
    const job *j = c->j;
    const ndq_conv_blocks *b = &j->blocks;
    const ndq_gemm_call *product = &j->call->product;
    size_t begin, end;
    ptrdiff_t x;
    ndq_conv_inside(b, &j->call->x, c->x, &begin, &end, &x);
    uint8_t *out = c->band + first * b->band_cols * j->pixel;
    const int zero = zero_of(j);
    for (size_t row = first; row < last; row++, out += b->band_cols * j->pixel) {
        ndq_depthwise_pixels rows[MOST_IN_WORD];
        find_rows(c, row, x, end - begin, rows);
        memset(out, zero, begin * j->pixel);
        j->kernel->expand_rows(end - begin, rows, product->a_signed, product->za, out + begin * j->pixel);
        memset(out + end * j->pixel, zero, (b->band_cols - end) * j->pixel);
    }
}

static void make_taps(const job *j, ptrdiff_t *offset, ndq_gemm_runs *taps)
{
    const ndq_conv_blocks *b = &j->blocks;
    const size_t across = j->call->x.taps, count = j->y.taps * across;
    for (size_t i = 0; i < count; i++)
        offset[i] = (ptrdiff_t)((i / across * b->y.tap * b->band_cols + i % across * b->x.tap) * j->pixel);
    *taps = (ndq_gemm_runs){.runs = count, .words = 1, .offset = offset};
}

/* What the outputs of a chunk have in common. */
typedef struct {
    const chunk *c;
    const void *weights[2]; /* of the first and of the second row of outputs that begin at one row of the band */
    ndq_gemm_columns columns;
    bool at_once;
    size_t stride, out_x;   /* from one output to the next: of the band, and of what is written */
} panel_of;

static void make_panel(const chunk *c, panel_of *p)
{
    const job *j = c->j;
    const size_t nr = j->kernel->nr;
    ndq_gemm_call product = j->call->product;
    product.w = j->w;
    p->c = c;
    p->weights[0] = ndq_gemm_panel(j->w, c->channel / nr, 0);
    p->weights[1] = j->lines > 1 ? ndq_gemm_panel(j->call->w->lower, c->channel / nr, 0) : NULL;
    ndq_gemm_make_columns(&product, c->channel, &p->columns);
    p->at_once = ndq_gemm_row_at_once(j->w, &p->columns, product.output);
    p->stride = j->blocks.x.jump * j->pixel;
    p->out_x = j->in_place ? j->call->out_x : nr * j->size;
}

/* One row of outputs, in tiles of about equal size. */
static void run_line(const panel_of *p, const uint8_t *a, const void *weights, uint8_t *out)
{
    const chunk *c = p->c;
    const job *j = c->j;
    const ndq_gemm_kernel *kernel = j->kernel;
    ndq_gemm_store *store = kernel->store[j->call->product.output];
    _Alignas(NDQ_ALIGN) int32_t acc[NDQ_GEMM_MAX_MR * NDQ_GEMM_MAX_NR];
    if (p->at_once) {
        kernel->row[j->call->product.output](c->cols, &c->taps, a, p->stride, weights, c->channels, &p->columns, &j->stage,
                                             out, p->out_x);
        return;
    }
    for (size_t cols = c->cols, tiles = ndq_ceil_div(cols, kernel->mr); tiles > 0; tiles--) {
        const size_t rows = ndq_ceil_div(cols, tiles);
        kernel->tile[rows - 1](&c->taps, a, p->stride, weights, acc);
        store(rows, c->channels, acc, &p->columns, &j->stage, out, p->out_x);
        cols -= rows;
        a += rows * p->stride;
        out += rows * p->out_x;
    }
}

/* The first output of a chunk, whose row this is. */
static uint8_t *output_of(const chunk *c, size_t y)
{
    const ndq_conv_call *call = c->j->call;
    return (uint8_t *)call->out + c->n * call->out_n + c->channel * call->out_c + y * call->out_y + c->x * call->out_x;
}

/* All rows of a chunk. Each row of the band is made when it is first read, as it then still is in L1. */
static void run_rows(const chunk *c, const panel_of *p)
{
    const job *j = c->j;
    const ndq_conv_call *call = j->call;
    uint8_t *out = output_of(c, c->y * j->lines);
    size_t made = 0, left = call->y.out - c->y * j->lines;
    for (size_t y = 0; y < c->rows; y++) {
        const uint8_t *a = c->band + y * j->blocks.y.jump * j->blocks.band_cols * j->pixel;
        const size_t needed = ndq_conv_rows_read(&j->blocks, &j->y, j->blocks.apart ? c->rows : y + 1);
        make_band(c, made, needed);
        made = needed;
        for (size_t line = 0; line < j->lines && left > 0; line++, left--, out += call->out_y) {
            run_line(p, a, p->weights[line], j->in_place ? out : c->outputs);
            if (!j->in_place)
                ndq_conv_scatter(c->outputs, j->kernel->nr, c->channels, c->cols, j->size, out, call->out_c,
                                 call->out_x);
        }
    }
}

/* Whether the kernel makes the outputs of a panel without a band. */
static bool is_direct(const job *j, const ndq_gemm_call *product)
{
    const ndq_conv_axis *y = &j->call->y, *x = &j->call->x;
    return j->kernel->windows && y->taps == 3 && x->taps == 3 && y->dilation == 1 && x->dilation == 1 &&
           y->stride <= x->stride && x->stride <= 2 && x->stride >= j->kernel->windows_across &&
           product->output == NDQ_GEMM_CODES && ndq_gemm_shrinks(product);
}

/* Constants of the channels of a chunk that are multiplied as u8. */
static void make_direct_columns(const chunk *c, ndq_gemm_columns *columns)
{
    const job *j = c->j;
    const size_t nr = j->kernel->nr;
    ndq_gemm_call product = j->call->product;
    const uint32_t za = j->kernel->a_centred ? (uint32_t)(product.za + (product.a_signed ? 128 : 0)) : 0;
    product.w = j->w;
    for (size_t channel = c->channel; channel < c->channel + c->channels; channel += nr, columns++) {
        ndq_gemm_make_columns(&product, channel, columns);
        for (size_t i = 0; za && i < nr; i++)
            columns->add[i] = (int32_t)((uint32_t)columns->add[i] - za * (uint32_t)j->w->column_sum[channel + i]);
    }
}

/* The windows of a chunk. Rows that cannot be read in place are gathered where the band would be. */
static ndq_depthwise_windows windows_of(const chunk *c)
{
    const job *j = c->j;
    const ndq_conv_call *call = j->call;
    const size_t down = call->y.stride, panel = c->channel / j->kernel->nr;
    const ndq_packed *lower = down == 1 ? call->w->lower : NULL;
    ndq_depthwise_windows windows = {
        .row = c->row,
        .outside = c->staging,
        .panel = {ndq_gemm_panel(j->w, panel, 0), lower ? ndq_gemm_panel(lower, panel, 0) : NULL},
        .rows = c->rows,
        .cols = c->cols,
        .down = down,
        .across = call->x.stride,
        .is_signed = call->product.a_signed,
    };
    ptrdiff_t x;
    ndq_conv_inside(&j->blocks, &call->x, c->x, &windows.begin, &windows.end, &x);
    memset(c->staging, call->product.za, j->width);
    for (size_t i = 0; i < (c->rows - 1) * down + 3; i++)
        c->row[i] = row_of(c, (ptrdiff_t)(c->y * down + i) - call->y.pad, x, windows.end - windows.begin, false,
                           c->band + i * j->blocks.band_cols * j->width);
    return windows;
}

/* The outputs of run_rows. */
static void run_direct(const chunk *c)
{
    const job *j = c->j;
    const ndq_conv_call *call = j->call;
    const ndq_depthwise_windows windows = windows_of(c);
    const size_t width = j->width;
    ndq_gemm_columns columns[MOST_PANELS];
    make_direct_columns(c, columns);
    uint8_t *out = output_of(c, c->y);
    if (j->in_place) {
        j->kernel->windows(&windows, c->channels, columns, &j->stage, out, call->out_x, call->out_y);
        return;
    }
    j->kernel->windows(&windows, c->channels, columns, &j->stage, c->outputs, width, c->cols * width);
    const size_t at_once = call->out_y == c->cols * call->out_x ? c->rows : 1; /* rows that follow each other */
    for (size_t y = 0; y < c->rows; y += at_once)
        ndq_conv_scatter(c->outputs + y * c->cols * width, width, c->channels, at_once * c->cols, 1,
                         out + y * call->out_y, call->out_c, call->out_x);
}

static chunk find_chunk(const job *j, size_t index)
{
    const ndq_conv_call *call = j->call;
    const ndq_conv_blocks *b = &j->blocks;
    const size_t channel = index % j->widths * j->width, block = index / j->widths;
    const size_t x = block % b->col_blocks * b->cols, y = block / b->col_blocks % b->row_blocks * b->rows;
    return (chunk){
        .j = j,
        .n = block / b->col_blocks / b->row_blocks,
        .y = y,
        .x = x,
        .rows = ndq_min_size(b->rows, j->y.out - y),
        .cols = ndq_min_size(b->cols, call->x.out - x),
        .channel = channel,
        .channels = ndq_min_size(j->width, j->w->N - channel),
    };
}

/* Lays out the memory of a chunk from `base` on; its bytes. */
static size_t lay_out(const job *j, uint8_t *base, chunk *c)
{
    const ndq_conv_blocks *b = &j->blocks;
    const size_t row_out = b->cols * j->width * j->size;
    size_t used = ndq_round_up(j->y.taps * j->call->x.taps * sizeof(ptrdiff_t), NDQ_ALIGN);
    c->staging = base + used;
    used += ndq_round_up(j->in_word * b->band_cols * j->width, NDQ_ALIGN);
    c->row = (ndq_depthwise_pixels *)(void *)(base + used);
    used += ndq_round_up(b->band_rows * sizeof(*c->row), NDQ_ALIGN);
    c->band = base + used;
    used += ndq_round_up(b->band_rows * b->band_cols * j->pixel, NDQ_ALIGN);
    c->outputs = base + used;
    return used + (j->in_place ? 0 : j->is_direct ? b->rows * row_out : row_out);
}

static void run_chunk(void *ctx, size_t index)
{
    job *j = ctx;
    chunk c = find_chunk(j, index);
    uint8_t *scratch = ndq_scratch(lay_out(j, NULL, &c));
    if (!scratch) {
        __atomic_store_n(&j->no_memory, 1, __ATOMIC_RELAXED);
        return;
    }
    lay_out(j, scratch, &c);
    if (j->is_direct) {
        run_direct(&c);
        return;
    }
    panel_of p;
    make_panel(&c, &p);
    make_taps(j, (ptrdiff_t *)scratch, &c.taps);
    run_rows(&c, &p);
}

static void join_rows(job *j)
{
    const ndq_conv_axis *y = &j->call->y;
    const bool is_shared = j->call->w->lower && y->stride == 1 && y->dilation == 1;
    j->lines = is_shared ? 2 : 1;
    j->y.out = ndq_ceil_div(y->out, j->lines);
    j->y.stride *= j->lines;
    j->used = ndq_min_size(y->taps + j->lines - 1, j->in_word);
    j->y.taps = ndq_ceil_div(y->taps, j->in_word);
    j->y.dilation *= j->in_word;
}

/* Rows of a chunk without a band: kernels make several at once. */
static size_t whole_groups(size_t rows)
{
    return rows < DIRECT_ROWS ? rows : rows / DIRECT_ROWS * DIRECT_ROWS;
}

/* Cuts into chunks; into more if there are threads to feed. */
static void cut(job *j)
{
    const ndq_conv_call *call = j->call;
    ndq_conv_blocks *b = &j->blocks;
    *b = ndq_conv_cut(&j->y, &call->x, (j->is_direct ? IMAGE_BYTES : NDQ_BAND_BYTES) / j->pixel, j->kernel->mr);
    size_t rows = b->rows;
    if (j->is_direct && j->widths > 1)
        rows = ndq_min_size(rows, ndq_ceil_div(IMAGE_BYTES, j->y.stride * call->x.in * call->w->groups));
    const size_t threads = ndq_gemm_threads(ndq_conv_macs(call), j->kernel->parallel_macs);
    if (threads > 1)
        rows = ndq_min_size(rows, ndq_ceil_div(call->N * j->y.out * b->col_blocks * j->widths,
                                               CHUNKS_PER_THREAD * threads));
    if (rows < b->rows || b->row_blocks > 1)
        ndq_conv_cut_rows(b, &j->y, j->is_direct ? whole_groups(rows) : rows);
}

ndq_status ndq_conv_depthwise(const ndq_conv_call *call)
{
    ndq_gemm_call product = call->product;
    product.w = call->w->part[0];
    job j = {.call = call,
             .kernel = product.w->kernel,
             .w = product.w,
             .stage = ndq_gemm_make_stage(&product),
             .size = ndq_gemm_output_bytes(product.output),
             .repeat = call->w->O / call->w->groups};
    j.in_word = j.kernel->codes_per_word;
    j.y = call->y;
    j.in_place = call->out_c == j.size;
    j.is_direct = is_direct(&j, &product);
    j.width = j.kernel->nr * (j.is_direct ? j.kernel->windows_panels : 1);
    j.widths = ndq_ceil_div(j.w->N, j.width);
    j.pixel = j.is_direct ? j.width : j.width * sizeof(ndq_gemm_word);
    if (!j.is_direct)
        join_rows(&j);
    cut(&j);
    size_t band;
    if (__builtin_mul_overflow(j.blocks.band_rows, j.blocks.band_cols, &band) || band > SIZE_MAX / 4 / j.pixel)
        return NDQ_NO_MEMORY;
    const size_t chunks = call->N * j.blocks.row_blocks * j.blocks.col_blocks * j.widths;
    if (chunks > 1)
        ndq_parallel_for(chunks, run_chunk, &j);
    else
        run_chunk(&j, 0);
    return j.no_memory ? NDQ_NO_MEMORY : NDQ_OK;
}
