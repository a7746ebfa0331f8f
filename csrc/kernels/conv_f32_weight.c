#include "band_f32.h"

/* Images are split into so many parts, whose sums are added in their order: they do not depend on threads. */
enum { PARTS = 8 };

/* So many outputs are multiplied at a time that what they read stays in L1. */
enum { BLOCK_OUTPUTS = 128 };

/* A product of pixels: for each tap and channel (rows) and output (columns), over all outputs of all images. */
typedef struct {
    const ndq_conv_f32_call *call;
    ndq_band_f32 band;
    size_t depth, width, columns; /* columns: width in whole panels */
    size_t rows, merged;          /* taps times depth; taps next to each other in the band */
    bool flat;                    /* the packed dy has gaps in which its lines are as long as those of the band, */
    size_t line;                  /* so many pixels */
    size_t parts;
    float *sums; /* [parts][groups][rows][columns] */
    int no_memory;
} gradient;

/* Lays `lines` lines of dy into a panel, with zeros in the gaps. */
static void pack_lines(const gradient *g, size_t n, size_t y, size_t lines, size_t channel, size_t columns,
                       float *panel)
{
    const ndq_gemm_f32_kernel *kernel = g->call->kernel;
    const ndq_images_f32 *dy = &g->call->dy;
    const size_t pixels = g->call->x.out, gap = g->line - pixels;
    for (size_t i = 0; i < lines; i++, panel += g->line * kernel->nr) {
        const ndq_terms terms = {.data = dy->data + (ptrdiff_t)n * dy->n + (ptrdiff_t)(y + i) * dy->y +
                                         (ptrdiff_t)channel * dy->c,
                                 .stride_k = dy->x, .stride_n = dy->c};
        kernel->pack(&terms, 0, pixels, 0, columns, panel);
        memset(panel + pixels * kernel->nr, 0, gap * kernel->nr * sizeof(*panel));
    }
}

/* Adds a block of lines to `rows` rows of the sums. If flat that is one product, as each pixel of dy meets a pixel
 * further in the band than the one before; otherwise a product for each line. */
static void add_lines(const gradient *g, size_t lines, size_t rows, const float *in, const float *panel, float *sums,
                      bool continued)
{
    const ndq_conv_f32_call *call = g->call;
    ndq_gemm_f32_tile *tile = call->kernel->tile[rows - 1];
    const ptrdiff_t stride_k = (ptrdiff_t)(call->x.stride * g->band.pixel * sizeof(float));
    const size_t products = g->flat ? 1 : lines, K = ((g->flat ? lines : 1) - 1) * g->line + call->x.out;
    for (size_t i = 0; i < products; i++) {
        const ndq_rows_f32 a = {(const char *)(in + i * call->y.stride * g->band.size_x * g->band.pixel),
                                sizeof(float), stride_k};
        tile(K, a, panel + i * g->line * call->kernel->nr, sums, g->columns, continued || i);
    }
}

/* All rows of one panel of the sums of one group. */
static void add_block(const gradient *g, size_t lines, const float *in, const float *panel, float *sums, bool continued)
{
    const ndq_conv_f32_call *call = g->call;
    const size_t mr = call->kernel->mr, run_rows = g->merged * g->depth;
    for (size_t row = 0; row < g->rows; row += run_rows) {
        const size_t tap = row / g->depth, ty = tap / call->x.taps, tx = tap % call->x.taps;
        const float *from = in + (ty * call->y.dilation * g->band.size_x + tx * call->x.dilation) * g->band.pixel;
        for (size_t m = 0; m < run_rows; m += mr)
            add_lines(g, lines, ndq_min_size(mr, run_rows - m), from + m, panel, sums + (row + m) * g->columns,
                      continued);
    }
}

static void add_image(const gradient *g, size_t n, const float *in, float *panel, float *sums, bool continued)
{
    const ndq_conv_f32_call *call = g->call;
    const size_t nr = call->kernel->nr, panels = g->columns / nr;
    const size_t most = ndq_min_size(call->y.out, ndq_ceil_div(BLOCK_OUTPUTS, g->line));
    for (size_t y = 0; y < call->y.out; y += most)
        for (size_t i = 0; i < call->groups * panels; i++) {
            const size_t lines = ndq_min_size(most, call->y.out - y), group = i / panels, column = i % panels * nr;
            const float *from = in + y * call->y.stride * g->band.size_x * g->band.pixel + group * g->depth;
            pack_lines(g, n, y, lines, group * g->width + column, ndq_min_size(nr, g->width - column), panel);
            add_block(g, lines, from, panel, sums + group * g->rows * g->columns + column, continued || y);
        }
}

static void add_part(void *ctx, size_t part)
{
    gradient *g = ctx;
    const ndq_conv_f32_call *call = g->call;
    const size_t first = call->N * part / g->parts, end = call->N * (part + 1) / g->parts;
    const size_t floats = ndq_round_up(g->band.size_y * g->band.size_x * g->band.pixel, NDQ_ALIGN);
    const size_t lines = ndq_min_size(call->y.out, ndq_ceil_div(BLOCK_OUTPUTS, g->line));
    float *in = ndq_scratch((floats + lines * g->line * call->kernel->nr) * sizeof(*in));
    if (!in) {
        __atomic_store_n(&g->no_memory, 1, __ATOMIC_RELAXED);
        return;
    }
    float *sums = g->sums + part * call->groups * g->rows * g->columns;
    for (size_t n = first; n < end; n++) {
        ndq_fill_band_f32(&g->band, &call->in, n, call->y.in, call->x.in, in);
        add_image(g, n, in, in + floats, sums, n > first);
    }
}

/* Adds the parts to the first one in their order, and brings that into (O, C / groups, KH, KW). */
static void finish(const gradient *g)
{
    const ndq_conv_f32_call *call = g->call;
    const size_t all = call->groups * g->rows * g->columns, window = call->y.taps * call->x.taps;
    for (size_t part = 1; part < g->parts; part++)
        for (size_t i = 0; i < all; i++)
            g->sums[i] += g->sums[part * all + i];
    float *out = call->out;
    for (size_t o = 0; o < call->O; o++)
        for (size_t c = 0; c < g->depth; c++)
            for (size_t tap = 0; tap < window; tap++) {
                const size_t row = o / g->width * g->rows + tap * g->depth + c;
                *out++ = g->sums[row * g->columns + o % g->width];
            }
}

ndq_status ndq_conv_f32_weight_grad(const ndq_conv_f32_call *call)
{
    const ndq_conv_axis *y = &call->y, *x = &call->x;
    gradient g = {.call = call, .depth = call->C / call->groups, .width = call->O / call->groups,
                  .merged = call->groups == 1 && x->dilation == 1 ? x->taps : 1,
                  .parts = ndq_min_size(call->N, PARTS)};
    g.band = (ndq_band_f32){.size_y = (y->out - 1) * y->stride + (y->taps - 1) * y->dilation + 1,
                            .size_x = (x->out - 1) * x->stride + (x->taps - 1) * x->dilation + 1,
                            .pixel = call->C, .before_y = y->pad, .before_x = x->pad};
    g.columns = ndq_round_up(g.width, call->kernel->nr);
    g.rows = y->taps * x->taps * g.depth;
    g.flat = y->stride == 1 && x->stride == 1 && 2 * (g.band.size_x - x->out) <= x->out;
    g.line = g.flat ? g.band.size_x : x->out;
    if (!call->N) {
        memset(call->out, 0, call->O * g.rows * sizeof(*call->out));
        return NDQ_OK;
    }
    g.sums = ndq_alloc(g.parts * call->groups * g.rows * g.columns * sizeof(*g.sums));
    if (!g.sums)
        return NDQ_NO_MEMORY;
    ndq_conv_f32_share(call, g.parts, add_part, &g);
    if (!g.no_memory)
        finish(&g);
    ndq_free(g.sums);
    return g.no_memory ? NDQ_NO_MEMORY : NDQ_OK;
}
