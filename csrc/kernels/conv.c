#include "conv.h"

#include "../threads.h"

/* ---- Packed weights ---- */

/* Codes in the order in which a kernel reads them: (O, KH, KW, C). */
static uint8_t *channels_last(const ndq_conv_source *s)
{
    size_t bytes;
    if (__builtin_mul_overflow(s->O * s->KH, s->KW * s->C, &bytes))
        return NULL;
    uint8_t *codes = ndq_alloc(bytes), *out = codes;
    const size_t part = s->O / s->groups;
    for (size_t o = 0; codes && o < s->O; o++) {
        const uint8_t *in = s->codes + (ptrdiff_t)(o / part) * s->stride_g + (ptrdiff_t)(o % part) * s->stride_o;
        for (size_t ky = 0; ky < s->KH; ky++)
            for (size_t kx = 0; kx < s->KW; kx++)
                for (size_t c = 0; c < s->C; c++)
                    *out++ = in[(ptrdiff_t)c * s->stride_c + (ptrdiff_t)ky * s->stride_y + (ptrdiff_t)kx * s->stride_x];
    }
    return codes;
}

static bool pack_parts(ndq_conv_weights *w, const ndq_gemm_kernel *kernel, const ndq_conv_source *s,
                       const uint8_t *codes, int32_t largest, bool with_float_bias)
{
    const size_t N = s->O / w->parts, K = s->KH * s->KW * s->C;
    for (size_t part = 0; part < w->parts; part++) {
        const ndq_weights matrix = {
            .N = N,
            .K = K,
            .runs = w->depthwise ? 1 : w->merged ? s->KH : s->KH * s->KW,
            .codes = codes + part * N * K,
            .stride_n = (ptrdiff_t)K,
            .stride_k = 1,
            .is_signed = s->is_signed,
            .zero_point = s->zero_point ? s->zero_point + part * N : NULL,
            .largest = largest,
        };
        ndq_gemm_free(w->part[part]);
        if (!(w->part[part] = ndq_gemm_pack(kernel, &matrix, with_float_bias)))
            return false;
    }
    return true;
}

static bool have_one_kernel(const ndq_conv_weights *w)
{
    size_t part = 1;
    while (part < w->parts && w->part[part]->kernel == w->part[0]->kernel)
        part++;
    return part == w->parts;
}

/* All parts read the same band, so they need the same kernel: the one for any weights if some are not small. */
static bool pack_alike(ndq_conv_weights *w, const ndq_gemm_kernel *kernel, const ndq_conv_source *s,
                       const uint8_t *codes, bool with_float_bias)
{
    enum { UNKNOWN = 0, LARGEST = 255 };
    return pack_parts(w, kernel, s, codes, UNKNOWN, with_float_bias) &&
           (have_one_kernel(w) || pack_parts(w, kernel, s, codes, LARGEST, with_float_bias));
}

ndq_conv_weights *ndq_conv_pack(const ndq_gemm_kernel *gemm, const ndq_gemm_kernel *depthwise,
                                const ndq_conv_source *s, bool with_float_bias)
{
    const bool is_depthwise = s->C == 1 && s->groups > 1;
    const size_t parts = is_depthwise ? 1 : s->groups;
    ndq_conv_weights *w = ndq_alloc(sizeof(*w) + parts * sizeof(w->part[0]));
    uint8_t *codes = w ? channels_last(s) : NULL;
    if (w)
        *w = (ndq_conv_weights){.O = s->O, .C = s->C, .KH = s->KH, .KW = s->KW, .groups = s->groups,
                                .merged = s->merged && s->groups == 1, .depthwise = is_depthwise, .parts = parts};
    for (size_t part = 0; w && part < parts; part++)
        w->part[part] = NULL;
    if (!codes || !pack_alike(w, is_depthwise ? depthwise : gemm, s, codes, with_float_bias)) {
        ndq_conv_free(w);
        w = NULL;
    }
    ndq_free(codes);
    return w;
}

void ndq_conv_free(ndq_conv_weights *w)
{
    for (size_t part = 0; w && part < w->parts; part++)
        ndq_gemm_free(w->part[part]);
    ndq_free(w);
}

/* ---- The convolution ---- */

/* A band takes at most this much if it can, which leaves half of a 256 KB L2 for a panel. */
enum { BAND_BYTES = 96 * 1024 };

/* With threads to feed, a block keeps enough outputs to be worth the reading of all weights, and there are several chunks
 * for each thread, as cores that are shared with others differ in speed. */
enum { LEAST_PIXELS = 48, CHUNKS_PER_THREAD = 4 };

enum { SLACK = 2 * NDQ_ALIGN }; /* after a band: runs and panels are padded, with weights of 0 */

typedef struct {
    const ndq_conv_call *call;
    const ndq_gemm_kernel *kernel;
    ndq_gemm_stage stage;
    size_t size;             /* bytes of an output */
    size_t channels, repeat; /* of a pixel of the band; how often it has each channel of the image */
    size_t pixel;            /* bytes */
    size_t step_x, jump_x;   /* pixels of the image per pixel of the band, and of the band per output */
    size_t jump_y, tap_y;    /* rows of the band per output, and per tap */
    bool apart;              /* the band holds each row of outputs apart for each tap, instead of all rows once */
    size_t block_rows, block_cols; /* outputs of one chunk */
    size_t band_rows, band_cols;   /* what these read */
    size_t part_panels, panels, block_panels;
    size_t row_blocks, col_blocks, panel_blocks;
    int no_memory; /* set by any thread */
} job;

/* One chunk: outputs [y, y + rows) x [x, x + cols) of image n, panels [panel, end_panel). */
typedef struct {
    const job *j;
    size_t n, y, x, rows, cols, panel, end_panel;
    const uint8_t *band;
    ndq_gemm_runs runs;
} chunk;

/* One panel of the weights and where it reads and writes. */
typedef struct {
    const ndq_packed *w;
    const ndq_gemm_word *weights;
    size_t columns, channel;  /* of the output, the first being `channel` */
    size_t offset;            /* bytes into a pixel of the band */
    ndq_gemm_tile *const *tile;
    ndq_gemm_columns constants;
} panel_of;

/* ---- The band ---- */

/* `count` pixels from `in` on, contiguous and with their channels repeated. */
static void gather(const job *j, const uint8_t *in, size_t count, uint8_t *out)
{
    const ndq_conv_call *call = j->call;
    const ptrdiff_t in_x = call->in_x * (ptrdiff_t)j->step_x;
    for (size_t c = 0; c < j->channels; c += j->repeat, in += call->in_c)
        for (size_t x = 0; x < count; x++)
            for (size_t r = 0; r < j->repeat; r++)
                out[x * j->channels + c + r] = in[(ptrdiff_t)x * in_x];
}

/* Pixels of one row that lie inside the image. */
static void expand(const job *j, const uint8_t *in, size_t count, uint8_t *out, uint8_t *staging)
{
    const ndq_conv_call *call = j->call;
    const ndq_gemm_call *product = &call->product;
    const ptrdiff_t in_x = call->in_x * (ptrdiff_t)j->step_x;
    if (call->in_c == 1 && j->repeat == 1 && in_x != (ptrdiff_t)j->channels) {
        for (size_t x = 0; x < count; x++)
            j->kernel->expand_a(j->channels, in + (ptrdiff_t)x * in_x, product->a_signed, product->za,
                                out + x * j->pixel);
        return;
    }
    if (call->in_c != 1 || j->repeat != 1) {
        gather(j, in, count, staging);
        in = staging;
    }
    j->kernel->expand_a(count * j->channels, in, product->a_signed, product->za, out);
}

/* One row of the band from row y of the image, from pixel x on; either may lie outside, where the code is the zero. */
static void band_row(const chunk *c, ptrdiff_t y, ptrdiff_t x, uint8_t *row, uint8_t *staging)
{
    const job *j = c->j;
    const ndq_conv_call *call = j->call;
    const ptrdiff_t step = (ptrdiff_t)j->step_x, W = (ptrdiff_t)call->x.in, cols = (ptrdiff_t)j->band_cols;
    const int32_t shift = ndq_gemm_shift_of_a(j->kernel, call->product.a_signed);
    const int zero = j->kernel->a_centred ? 0 : (uint8_t)(call->product.za + shift);
    ptrdiff_t first = x < 0 ? (-x + step - 1) / step : 0, end = x < W ? (W - x + step - 1) / step : 0;
    if (y < 0 || y >= (ptrdiff_t)call->y.in || first >= end || first >= cols) {
        memset(row, zero, j->band_cols * j->pixel);
        return;
    }
    end = end < cols ? end : cols;
    const uint8_t *in = call->in + (ptrdiff_t)c->n * call->in_n + y * call->in_y + (x + first * step) * call->in_x;
    memset(row, zero, (size_t)first * j->pixel);
    expand(j, in, (size_t)(end - first), row + (size_t)first * j->pixel, staging);
    memset(row + (size_t)end * j->pixel, zero, (size_t)(cols - end) * j->pixel);
}

static void make_band(const chunk *c, uint8_t *band, uint8_t *staging)
{
    const job *j = c->j;
    const ndq_conv_axis *ay = &j->call->y, *ax = &j->call->x;
    const ptrdiff_t x = (ptrdiff_t)(c->x * ax->stride) - ax->pad, y = (ptrdiff_t)(c->y * ay->stride) - ay->pad;
    const size_t bytes = j->band_cols * j->pixel, used = (c->rows - 1) * j->jump_y + (ay->taps - 1) * j->tap_y + 1;
    for (size_t row = 0; row < used; row++) {
        const size_t tap = row / j->block_rows, output = row % j->block_rows;
        const size_t down = j->apart ? output * ay->stride + tap * ay->dilation : row;
        band_row(c, y + (ptrdiff_t)down, x, band + row * bytes, staging);
    }
    memset(band + used * bytes, 0, SLACK);
}

/* Where the runs of a window begin, seen from its first pixel. */
static void make_runs(const job *j, ptrdiff_t *offset, ndq_gemm_runs *runs)
{
    const ndq_conv_weights *w = j->call->w;
    const size_t across = w->merged ? 1 : w->KW, count = w->KH * across;
    for (size_t i = 0; i < count; i++)
        offset[i] = (ptrdiff_t)((i / across * j->tap_y * j->band_cols + i % across * j->call->x.dilation) * j->pixel);
    if (w->depthwise) /* its kernel takes taps by two: the weight of one more is 0 */
        offset[count] = offset[count - 1];
    *runs = (ndq_gemm_runs){count, w->depthwise ? w->part[0]->words : w->part[0]->run_words, offset};
}

/* ---- Tiles ---- */

static panel_of make_panel(const job *j, size_t panel)
{
    const ndq_conv_weights *w = j->call->w;
    const size_t nr = j->kernel->nr, part = panel / j->part_panels, first = panel % j->part_panels * nr;
    ndq_gemm_call product = j->call->product;
    product.w = w->part[part];
    panel_of p = {
        .w = product.w,
        .weights = product.w->panels + first * product.w->words,
        .columns = ndq_min_size(nr, product.w->N - first),
        .channel = part * product.w->N + first,
        .offset = (w->depthwise ? first : part * w->C) * ndq_gemm_code_bytes(j->kernel),
    };
    p.tile = ndq_gemm_tiles(j->kernel, p.columns);
    ndq_gemm_make_columns(&product, first, &p.constants);
    return p;
}

/* Sums of the codes under each window, which the zero points of the weights multiply. */
static void window_sums(const chunk *c, const panel_of *p, const uint8_t *a, size_t stride, size_t rows, int32_t *sums)
{
    const ndq_gemm_kernel *kernel = c->j->kernel;
    for (size_t row = 0; row < rows; row++, a += stride) {
        int64_t sum[2] = {0, 0};
        for (size_t run = 0; run < c->runs.runs; run++)
            kernel->sums(p->w->K / p->w->runs, a + c->runs.offset[run], kernel->a_signed, 0, sum);
        sums[row] = (int32_t)(uint32_t)(uint64_t)sum[0];
    }
}

/* A tile to where its outputs are, when the channels of a pixel are not next to each other. */
static void scatter(const ndq_conv_call *call, size_t rows, size_t columns, size_t nr, const void *tile, uint8_t *out)
{
    for (size_t o = 0; o < columns; o++)
        for (size_t row = 0; row < rows; row++) {
            uint8_t *at = out + o * call->out_c + row * call->out_x;
            if (call->product.output == NDQ_GEMM_CODES)
                *at = ((const uint8_t *)tile)[row * nr + o];
            else
                memcpy(at, (const uint32_t *)tile + row * nr + o, sizeof(uint32_t));
        }
}

/* `rows` outputs next to each other, whose windows begin at a. */
static inline void run_tile(const chunk *c, const panel_of *p, size_t rows, const uint8_t *a, uint8_t *out)
{
    const job *j = c->j;
    const ndq_conv_call *call = j->call;
    const size_t stride = j->jump_x * j->pixel, nr = j->kernel->nr;
    ndq_gemm_store *store = j->kernel->store[call->product.output];
    _Alignas(NDQ_ALIGN) int32_t acc[NDQ_GEMM_MAX_MR * NDQ_GEMM_MAX_NR];
    p->tile[rows - 1](&c->runs, a, stride, p->weights, acc);
    if (p->w->any_zero_point) {
        int32_t sums[NDQ_GEMM_MAX_MR];
        window_sums(c, p, a, stride, rows, sums);
        j->kernel->subtract_row_terms(rows, acc, sums, &p->constants);
    }
    if (call->out_c == j->size) {
        store(rows, p->columns, acc, &p->constants, &j->stage, out, call->out_x);
        return;
    }
    uint32_t tile[NDQ_GEMM_MAX_MR * NDQ_GEMM_MAX_NR];
    store(rows, p->columns, acc, &p->constants, &j->stage, (uint8_t *)tile, nr * j->size);
    scatter(call, rows, p->columns, nr, tile, out);
}

/* Row y of a chunk for one panel, in tiles of about equal size: one of few rows is slow. */
static void run_row(const chunk *c, const panel_of *p, size_t y)
{
    const job *j = c->j;
    const ndq_conv_call *call = j->call;
    const size_t tiles = ndq_ceil_div(c->cols, j->kernel->mr), least = c->cols / tiles, more = c->cols % tiles;
    const uint8_t *a = c->band + y * j->jump_y * j->band_cols * j->pixel + p->offset;
    uint8_t *out = (uint8_t *)call->out + c->n * call->out_n + p->channel * call->out_c + (c->y + y) * call->out_y +
                   c->x * call->out_x;
    for (size_t t = 0; t < tiles; t++) {
        const size_t rows = least + (t < more);
        run_tile(c, p, rows, a, out);
        a += rows * j->jump_x * j->pixel;
        out += rows * call->out_x;
    }
}

/* All panels on each row of outputs if depthwise, as panels share no weights and the row stays in the cache; otherwise
 * all rows under each panel. */
static void run_panels(const chunk *c, panel_of *panels)
{
    const size_t count = c->end_panel - c->panel, strip = c->j->call->w->depthwise ? 1 : c->rows;
    for (size_t i = 0; i < count; i++)
        panels[i] = make_panel(c->j, c->panel + i);
    for (size_t first = 0; first < c->rows; first += strip)
        for (size_t i = 0; i < count; i++)
            for (size_t y = first; y < first + strip; y++)
                run_row(c, &panels[i], y);
}

static chunk find_chunk(const job *j, size_t index)
{
    const ndq_conv_call *call = j->call;
    const size_t panel = index % j->panel_blocks * j->block_panels, block = index / j->panel_blocks;
    const size_t x = block % j->col_blocks * j->block_cols;
    const size_t y = block / j->col_blocks % j->row_blocks * j->block_rows;
    return (chunk){
        .j = j,
        .n = block / j->col_blocks / j->row_blocks,
        .y = y,
        .x = x,
        .rows = ndq_min_size(j->block_rows, call->y.out - y),
        .cols = ndq_min_size(j->block_cols, call->x.out - x),
        .panel = panel,
        .end_panel = ndq_min_size(panel + j->block_panels, j->panels),
    };
}

/* The memory of a chunk: runs, panels, staging, band. */
static void run_chunk(void *ctx, size_t index)
{
    job *j = ctx;
    chunk c = find_chunk(j, index);
    const size_t runs = ndq_round_up((j->call->w->KH * j->call->w->KW + 1) * sizeof(ptrdiff_t), NDQ_ALIGN);
    const size_t panels = ndq_round_up(j->block_panels * sizeof(panel_of), NDQ_ALIGN);
    const size_t staging = ndq_round_up(j->band_cols * j->channels, NDQ_ALIGN);
    const size_t band = j->band_rows * j->band_cols * j->pixel;
    uint8_t *scratch = ndq_scratch(runs + panels + staging + band + SLACK);
    if (!scratch) {
        __atomic_store_n(&j->no_memory, 1, __ATOMIC_RELAXED);
        return;
    }
    make_runs(j, (ptrdiff_t *)scratch, &c.runs);
    c.band = scratch + runs + panels + staging;
    make_band(&c, scratch + runs + panels + staging, scratch + runs + panels);
    run_panels(&c, (panel_of *)(scratch + runs));
}

/* ---- Cutting into chunks ---- */

static size_t reach(const ndq_conv_axis *a)
{
    return (a->taps - 1) * a->dilation + 1;
}

static size_t band_cols(const job *j, size_t cols)
{
    return (cols - 1) * j->jump_x + reach(&j->call->x);
}

/* How many rows of outputs have a band of at most `rows` rows, with all rows once or those of each tap apart. */
static size_t rows_within(const ndq_conv_axis *y, size_t rows, bool apart)
{
    if (apart)
        return rows / y->taps;
    return rows < reach(y) ? 0 : (rows - reach(y)) / y->stride + 1;
}

/* Blocks whose band stays in the cache: of whole rows if one of them fits. */
static void cut_blocks(job *j)
{
    const ndq_conv_axis *y = &j->call->y;
    const size_t one_output = ndq_min_size(y->taps, reach(y));
    j->block_cols = j->call->x.out;
    while (j->block_cols > 2 * j->kernel->mr &&
           one_output * band_cols(j, j->block_cols) > BAND_BYTES / (j->pixel ? j->pixel : 1))
        j->block_cols = ndq_ceil_div(j->block_cols, 2);
    j->band_cols = band_cols(j, j->block_cols);
    const size_t row_bytes = j->band_cols * j->pixel;
    const size_t rows = BAND_BYTES / (row_bytes ? row_bytes : 1);
    const size_t together = rows_within(y, rows, false), apart = rows_within(y, rows, true);
    const size_t most = together > apart ? together : apart;
    j->apart = together < apart || (!most && one_output < reach(y));
    j->block_rows = ndq_min_size(most ? most : 1, y->out);
}

/* More and smaller blocks if there are threads to feed, and groups of panels if that is not enough. */
static void cut(job *j, size_t threads)
{
    const ndq_conv_call *call = j->call;
    const bool depthwise = call->w->depthwise;
    const size_t wanted = threads > 1 ? CHUNKS_PER_THREAD * threads : 1;
    cut_blocks(j);
    j->col_blocks = ndq_ceil_div(call->x.out, j->block_cols);
    const size_t even = ndq_ceil_div(call->N * call->y.out * j->col_blocks, wanted);
    const size_t least = depthwise ? 1 : ndq_ceil_div(LEAST_PIXELS, j->block_cols);
    j->block_rows = ndq_min_size(j->block_rows, even > least ? even : least);
    j->row_blocks = ndq_ceil_div(call->y.out, j->block_rows);
    const size_t blocks = call->N * j->row_blocks * j->col_blocks;
    const size_t groups = depthwise || blocks >= wanted ? 1 : ndq_ceil_div(wanted, blocks);
    j->block_panels = ndq_ceil_div(j->panels, ndq_min_size(groups, j->panels));
    j->panel_blocks = ndq_ceil_div(j->panels, j->block_panels);

    const ndq_conv_axis *y = &call->y;
    j->jump_y = j->apart ? 1 : y->stride;
    j->tap_y = j->apart ? j->block_rows : y->dilation;
    j->band_rows = (j->block_rows - 1) * j->jump_y + (y->taps - 1) * j->tap_y + 1;
}

/* Far dilations can make a band that has more bytes than memory. */
static bool too_large(const job *j)
{
    size_t row, band;
    return __builtin_mul_overflow(j->band_cols, j->pixel, &row) || __builtin_mul_overflow(row, j->band_rows, &band) ||
           band > SIZE_MAX / 4;
}

static job make_job(const ndq_conv_call *call)
{
    const ndq_conv_weights *w = call->w;
    const ndq_gemm_kernel *kernel = w->part[0]->kernel;
    ndq_gemm_call product = call->product;
    product.w = w->part[0];
    job j = {
        .call = call,
        .kernel = kernel,
        .stage = ndq_gemm_make_stage(&product),
        .size = ndq_gemm_output_bytes(product.output),
        .channels = w->depthwise ? w->O : w->C * w->groups,
        .repeat = w->depthwise ? w->O / w->groups : 1,
        .step_x = w->KW == 1 ? call->x.stride : 1,
        .jump_x = w->KW == 1 ? 1 : call->x.stride,
        .part_panels = ndq_ceil_div(w->part[0]->N, kernel->nr),
    };
    j.pixel = j.channels * ndq_gemm_code_bytes(kernel);
    j.panels = j.part_panels * w->parts;
    return j;
}

/* ---- 1 x 1 ---- */

/* The axis has one tap and an output for each pixel. */
static bool is_pointwise(const ndq_conv_axis *a)
{
    return a->taps == 1 && a->stride == 1 && a->pad == 0 && a->in == a->out;
}

/* Whether the pixels of images are rows of one matrix, all the same distance apart. */
static bool are_rows(const size_t *sizes, const ptrdiff_t *strides, ptrdiff_t *distance)
{
    ptrdiff_t next = 0;
    *distance = 0;
    for (int d = 0; d < 3; d++) {
        if (sizes[d] == 1)
            continue;
        if (!next)
            *distance = next = strides[d];
        else if (strides[d] != next)
            return false;
        next *= (ptrdiff_t)sizes[d];
    }
    return true;
}

/* A 1 x 1 convolution as a product: false if it is none, or its pixels are not rows of matrices that ndq_gemm takes. */
static bool make_product(const ndq_conv_call *call, ndq_gemm_call *product)
{
    const ndq_conv_weights *w = call->w;
    const size_t sizes[] = {call->x.in, call->y.in, call->N}, size = ndq_gemm_output_bytes(call->product.output);
    const ptrdiff_t in[] = {call->in_x, call->in_y, call->in_n};
    const ptrdiff_t out[] = {(ptrdiff_t)call->out_x, (ptrdiff_t)call->out_y, (ptrdiff_t)call->out_n};
    ptrdiff_t in_row, out_row;
    *product = call->product;
    product->M = call->N * call->y.out * call->x.out;
    if (w->groups > 1 || !is_pointwise(&call->y) || !is_pointwise(&call->x) || call->in_c != 1 ||
        call->out_c != size || !are_rows(sizes, in, &in_row) || !are_rows(sizes, out, &out_row) ||
        (product->M > 1 && (in_row < (ptrdiff_t)w->C || out_row != (ptrdiff_t)(w->O * size))))
        return false;
    product->w = w->part[0];
    product->a = call->in;
    product->a_stride = in_row;
    product->out = call->out;
    return true;
}

ndq_status ndq_conv(const ndq_conv_call *call)
{
    const ndq_conv_weights *w = call->w;
    if (!call->N || !w->O || !call->y.out || !call->x.out)
        return NDQ_OK;
    ndq_gemm_call product;
    if (make_product(call, &product))
        return ndq_gemm(&product);
    job j = make_job(call);
    const double macs = (double)call->N * (double)call->y.out * (double)call->x.out * (double)w->O *
                        (double)w->part[0]->K;
    cut(&j, ndq_gemm_threads(macs, j.kernel->parallel_macs));
    if (too_large(&j))
        return NDQ_NO_MEMORY;
    const size_t chunks = call->N * j.row_blocks * j.col_blocks * j.panel_blocks;
    if (chunks > 1)
        ndq_parallel_for(chunks, run_chunk, &j);
    else
        run_chunk(&j, 0);
    return j.no_memory ? NDQ_NO_MEMORY : NDQ_OK;
}
