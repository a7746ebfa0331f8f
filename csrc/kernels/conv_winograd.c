#include "conv_winograd.h"

#include "conv_band.h"

/* Tiles that are transformed before all weights are multiplied by them: few, so that they stay in L1, but enough to be
 * worth the reading of the weights. */
enum { ELEMENTS_BYTES = 16 * 1024, LEAST_TILES = 24 };

/* K of the products: channels, and zeros. */
static size_t depth(const ndq_conv_weights *w)
{
    return ndq_round_up(w->C, w->part[0]->kernel->winograd->products->k_step);
}

static size_t tiles_at_once(const ndq_conv_weights *w)
{
    const size_t few = ELEMENTS_BYTES / (NDQ_WINOGRAD_ELEMENTS * sizeof(int16_t) * depth(w));
    const size_t mr = w->part[0]->kernel->winograd->products->mr;
    return (few > LEAST_TILES ? few : LEAST_TILES) / mr * mr;
}

/* Codes from one element of so many tiles to the next. A power of two would put all elements of a tile into the same
 * few sets of the L1 cache. */
static size_t element_of_pixels(size_t tiles, size_t codes)
{
    const size_t line = NDQ_ALIGN / sizeof(int16_t);
    return (ndq_ceil_div(tiles * codes, line) | 1) * line;
}

static size_t element_bytes(const ndq_conv_weights *w)
{
    return depth(w) * w->part[0]->kernel->winograd->products->nr * sizeof(int16_t);
}

static size_t panels_of(const ndq_conv_weights *w)
{
    return ndq_ceil_div(w->O, w->part[0]->kernel->winograd->products->nr);
}

bool ndq_winograd_suits(const ndq_conv_weights *w)
{
    const ndq_gemm_kernel *kernel = w->part[0]->kernel;
    return kernel->winograd && w->merged && w->KH == 3 && w->KW == 3 && w->C >= NDQ_WINOGRAD_LEAST_CHANNELS &&
           w->part[0]->max_magnitude <= INT32_MAX / 4 / 255;
}

/* Row i of G g, or of G (G g)^T. */
static inline int32_t times_g(size_t i, int32_t first, int32_t second, int32_t third)
{
    return i == 0 ? 2 * first : i == 3 ? 2 * third : i == 1 ? first + second + third : first - second + third;
}

/* G g G^T for the channels of one output, elements `element` apart. */
static void transform_weights(size_t channels, const uint8_t *codes, bool is_signed, int32_t zero, int16_t *out,
                              size_t element)
{
    for (size_t c = 0; c < channels; c++) {
        int32_t g[3][3];
        for (size_t tap = 0; tap < 9; tap++) {
            const uint8_t code = codes[tap * channels + c];
            g[tap / 3][tap % 3] = (is_signed ? (int8_t)code : code) - zero;
        }
        for (size_t i = 0; i < 4; i++) {
            int32_t row[3];
            for (size_t x = 0; x < 3; x++)
                row[x] = times_g(i, g[0][x], g[1][x], g[2][x]);
            for (size_t j = 0; j < 4; j++)
                out[(4 * i + j) * element + c] = (int16_t)times_g(j, row[0], row[1], row[2]);
        }
    }
}

ndq_status ndq_winograd_pack(ndq_conv_weights *w, const uint8_t *codes, bool is_signed, const int32_t *zero_point)
{
    const ndq_gemm_kernel *kernel = w->part[0]->kernel->winograd->products;
    const size_t nr = kernel->nr, bytes = element_bytes(w), codes_of_row = depth(w), element = nr * codes_of_row;
    const size_t words = codes_of_row / kernel->codes_per_word;
    int16_t *rows = ndq_alloc(NDQ_WINOGRAD_ELEMENTS * bytes);
    w->winograd_bytes = panels_of(w) * NDQ_WINOGRAD_ELEMENTS * bytes;
    uint8_t *panel = w->winograd = ndq_alloc(w->winograd_bytes);
    for (size_t first = 0; rows && panel && first < w->O; first += nr) {
        memset(rows, 0, NDQ_WINOGRAD_ELEMENTS * bytes);
        for (size_t o = first; o < first + nr && o < w->O; o++)
            transform_weights(w->C, codes + o * 9 * w->C, is_signed, zero_point ? zero_point[o] : 0,
                              rows + (o - first) * codes_of_row, element);
        for (size_t e = 0; e < NDQ_WINOGRAD_ELEMENTS; e++, panel += bytes)
            kernel->pack(0, words, (const ndq_gemm_word *)(rows + e * element), words, words, (ndq_gemm_word *)panel);
    }
    ndq_free(rows);
    return rows && w->winograd ? NDQ_OK : NDQ_NO_MEMORY;
}

bool ndq_winograd_pays(const ndq_conv_call *call)
{
    const ndq_conv_axis *y = &call->y, *x = &call->x;
    const double tiles = (double)ndq_ceil_div(y->out, 2) * (double)ndq_ceil_div(x->out, 2);
    return call->w->winograd && y->stride == 1 && x->stride == 1 && y->dilation == 1 && x->dilation == 1 &&
           NDQ_WINOGRAD_ELEMENTS * tiles < 0.75 * 9 * (double)y->out * (double)x->out;
}

static ndq_conv_axis axis_of_tiles(const ndq_conv_axis *a)
{
    return (ndq_conv_axis){.in = a->in, .out = ndq_ceil_div(a->out, 2), .taps = 4, .stride = 2, .dilation = 1,
                           .pad = a->pad};
}

ndq_conv_call ndq_winograd_tiles(const ndq_conv_call *call)
{
    ndq_conv_call tiles = *call;
    tiles.y = axis_of_tiles(&call->y);
    tiles.x = axis_of_tiles(&call->x);
    return tiles;
}

/* Tiles [first, first + count) of a block, row after row, and memory for them. */
typedef struct {
    const ndq_winograd_block *block;
    size_t first, count;
    size_t element;          /* of pixels */
    int16_t *pixels;         /* [element][count][depth] */
    int32_t *sums, *outputs; /* [element][mr][nr], [output][mr][nr] */
    uint8_t *staging;        /* outputs of a row of a panel */
} group;

/* Tiles of a group from `tile` on that are in one row of the block, at most `most` of them. */
static size_t in_one_row(const group *g, size_t tile, size_t most, size_t *row, size_t *col)
{
    *row = (g->first + tile) / g->block->cols;
    *col = (g->first + tile) % g->block->cols;
    return ndq_min_size(most, g->block->cols - *col);
}

static void transform_pixels(const group *g)
{
    const ndq_winograd_block *b = g->block;
    const ndq_conv_weights *w = b->call->w;
    size_t row, col, count;
    for (size_t tile = 0; tile < g->count; tile += count) {
        count = in_one_row(g, tile, g->count - tile, &row, &col);
        w->part[0]->kernel->winograd->pixels(count, w->C, b->band + 2 * row * b->band_row + 2 * col * w->C, b->band_row,
                                             g->pixels + tile * depth(w), depth(w), g->element);
    }
}

/* Tiles side by side, from (row, col) of the block on, and their sums. */
typedef struct {
    size_t row, col, count;
    const int32_t *sums;
    uint8_t *out; /* of the first output of the first tile */
} tiles;

/* Outputs (y, x) of tiles, which have gone through g->outputs; those that the image has. */
static void store(const group *g, const ndq_gemm_columns *c, size_t columns, const tiles *t, size_t y, size_t x)
{
    const ndq_winograd_block *b = g->block;
    const ndq_conv_call *call = b->call;
    const ndq_gemm_kernel *kernel = call->w->part[0]->kernel;
    const size_t size = ndq_gemm_output_bytes(call->product.output), first = 2 * t->col + x;
    if (2 * t->row + y >= b->out_rows || first >= b->out_cols)
        return;
    ndq_gemm_store *const to = kernel->store[call->product.output];
    const size_t count = ndq_min_size(t->count, (b->out_cols - first + 1) / 2);
    const int32_t *sums = g->outputs + (2 * y + x) * kernel->mr * kernel->nr;
    uint8_t *out = t->out + y * call->out_y + x * call->out_x;
    if (call->out_c == size) {
        to(count, columns, sums, c, b->stage, out, 2 * call->out_x);
        return;
    }
    to(count, columns, sums, c, b->stage, g->staging, kernel->nr * size);
    ndq_conv_scatter(g->staging, kernel->nr, columns, count, size, out, call->out_c, 2 * call->out_x);
}

static void finish_tiles(const group *g, const ndq_gemm_columns *c, size_t columns, const tiles *t)
{
    const ndq_winograd_block *b = g->block;
    const ndq_gemm_kernel *kernel = b->call->w->part[0]->kernel;
    const size_t element = kernel->mr * kernel->nr;
    const bool are_inside = 2 * t->row + 1 < b->out_rows && 2 * (t->col + t->count) <= b->out_cols;
    if (are_inside && columns == kernel->nr && c->shrinks && b->call->product.output == NDQ_GEMM_CODES &&
        b->call->out_c == 1) {
        kernel->winograd->codes(t->count, t->sums, element, c, b->stage, t->out, b->call->out_y, b->call->out_x);
        return;
    }
    kernel->winograd->outputs(t->count, t->sums, g->outputs, element);
    for (size_t output = 0; output < NDQ_WINOGRAD_OUTPUTS; output++)
        store(g, c, columns, t, output / 2, output % 2);
}

/* Outputs of tiles [tile, tile + count) of a group. */
static void finish(const group *g, const ndq_gemm_columns *c, size_t panel, size_t tile, size_t count)
{
    const ndq_conv_call *call = g->block->call;
    const size_t nr = call->w->part[0]->kernel->nr, columns = ndq_min_size(nr, call->w->O - panel * nr);
    tiles t;
    for (size_t i = 0; i < count; i += t.count) {
        t.count = in_one_row(g, tile + i, count - i, &t.row, &t.col);
        t.sums = g->sums + i * nr;
        t.out = g->block->out + panel * nr * call->out_c + 2 * t.row * call->out_y + 2 * t.col * call->out_x;
        finish_tiles(g, c, columns, &t);
    }
}

static void multiply(const group *g, size_t panel)
{
    const ndq_conv_weights *w = g->block->call->w;
    const ndq_gemm_kernel *kernel = w->part[0]->kernel->winograd->products;
    const size_t bytes = element_bytes(w), element = kernel->mr * kernel->nr;
    const uint8_t *weights = w->winograd + panel * NDQ_WINOGRAD_ELEMENTS * bytes;
    const ptrdiff_t offset = 0;
    const ndq_gemm_runs k = {.runs = 1, .words = depth(w) / kernel->codes_per_word, .offset = &offset};
    const bool is_narrow = w->O - panel * kernel->nr <= kernel->nr / 2;
    ndq_gemm_call product = g->block->call->product;
    ndq_gemm_columns columns;
    product.w = w->part[0];
    ndq_gemm_make_columns(&product, panel * kernel->nr, &columns);
    for (size_t i = 0, rows, left = ndq_ceil_div(g->count, kernel->mr); left > 0; left--, i += rows) {
        rows = ndq_ceil_div(g->count - i, left);
        const uint8_t *pixels = (const uint8_t *)(g->pixels + i * depth(w));
        const size_t stride = depth(w) * sizeof(int16_t), step = g->element * sizeof(int16_t);
        if (is_narrow)
            for (size_t e = 0; e < NDQ_WINOGRAD_ELEMENTS; e++)
                kernel->narrow[rows - 1](&k, pixels + e * step, stride, weights + e * bytes, g->sums + e * element);
        else
            kernel->many[rows - 1](NDQ_WINOGRAD_ELEMENTS, &k, pixels, step, stride, weights, g->sums);
        finish(g, &columns, panel, i, rows);
    }
}

/* Lays out the memory of a group from `base` on; its bytes. */
static size_t lay_out(const ndq_conv_weights *w, uint8_t *base, group *g)
{
    const ndq_gemm_kernel *kernel = w->part[0]->kernel->winograd->products;
    const size_t sums = kernel->mr * kernel->nr * sizeof(int32_t);
    size_t used = NDQ_WINOGRAD_ELEMENTS * element_of_pixels(tiles_at_once(w), depth(w)) * sizeof(int16_t);
    g->pixels = (int16_t *)(void *)base;
    g->sums = (int32_t *)(void *)(base + used);
    used += NDQ_WINOGRAD_ELEMENTS * sums;
    g->outputs = (int32_t *)(void *)(base + used);
    used += NDQ_WINOGRAD_OUTPUTS * sums;
    g->staging = base + used;
    return used + sums;
}

size_t ndq_winograd_scratch_bytes(const ndq_conv_weights *w)
{
    group g;
    return lay_out(w, NULL, &g);
}

void ndq_winograd_run(const ndq_winograd_block *block, uint8_t *scratch)
{
    const ndq_conv_weights *w = block->call->w;
    const size_t count = block->rows * block->cols, most = tiles_at_once(w);
    group g = {.block = block};
    lay_out(w, scratch, &g);
    if (depth(w) > w->C) /* what zeros are multiplied by */
        memset(g.pixels, 0, (size_t)((uint8_t *)g.sums - scratch));
    for (; g.first < count; g.first += g.count) {
        g.count = ndq_min_size(most, count - g.first);
        g.element = element_of_pixels(g.count, depth(w));
        transform_pixels(&g);
        for (size_t panel = block->panel; panel < block->end_panel; panel++)
            multiply(&g, panel);
    }
}
