#include "conv_band.h"
#include "conv_winograd.h"

#include "../threads.h"

/* With threads to feed, a block keeps enough outputs to be worth the reading of all weights, and there are several
 * chunks for each thread, as cores that are shared with others differ in speed. */
enum { LEAST_PIXELS = 48, CHUNKS_PER_THREAD = 4 };

/* Where a window is a pixel, there may be far more outputs than inputs; those of a block, written piece by piece by all
 * panels, stay in L2 with the band. */
enum { POINTWISE_BYTES = 256 * 1024 };

enum { SLACK = 2 * NDQ_ALIGN }; /* after a band: runs are padded, with weights of 0 */

typedef struct {
    const ndq_conv_call *call;
    const ndq_conv_call *winograd; /* of the outputs, if those of `call` are tiles of them; or NULL */
    const ndq_gemm_kernel *kernel;
    ndq_gemm_stage stage;
    size_t channels, pixel; /* of a pixel of the band; its bytes */
    size_t size;            /* bytes of an output */
    ndq_conv_blocks blocks;
    size_t part_panels, panels, block_panels, panel_blocks;
    int no_memory; /* set by any thread */
} job;

/* One panel of the weights, or two next to each other, and where they read and write. */
typedef struct {
    const ndq_packed *w;
    const void *weights;
    size_t columns, channel; /* of the output, the first being `channel` */
    size_t offset;           /* bytes into a pixel of the band */
    bool at_once;            /* `row` of the kernel makes the outputs */
    ndq_gemm_tile *const *tile;
    ndq_gemm_columns constants[2]; /* of each panel */
} panel_of;

/* One chunk: outputs [y, y + rows) x [x, x + cols) of image n, panels [panel, end_panel); and its memory. */
typedef struct {
    const job *j;
    size_t n, y, x, rows, cols, panel, end_panel;
    uint8_t *band, *staging; /* staging: codes of one row, or outputs of one row of a panel */
    uint8_t *scratch;        /* of ndq_winograd_run */
    ndq_gemm_runs runs;
} chunk;

/* ---- The band ---- */

/* Pixels that are apart are gathered if they have fewer channels than this: a call of the kernel for each takes longer. */
enum { FEW_CHANNELS = 64 };

/* `count` pixels of a row, all inside the image, from `in` on. */
static void expand(const chunk *c, const uint8_t *in, size_t count, uint8_t *out)
{
    const job *j = c->j;
    const ndq_conv_call *call = j->call;
    const ndq_gemm_call *product = &call->product;
    const ptrdiff_t in_x = call->in_x * (ptrdiff_t)j->blocks.x.step;
    const bool apart = in_x != (ptrdiff_t)j->channels;
    if (call->in_c != 1 || (apart && j->channels < FEW_CHANNELS)) {
        if (j->channels == 3 && in_x == 1 && j->kernel->join_3)
            j->kernel->join_3(count, in, call->in_c, c->staging);
        else
            ndq_conv_gather(in, call->in_c, in_x, j->channels, count, c->staging, j->channels);
        in = c->staging;
    } else if (apart) {
        for (size_t x = 0; x < count; x++)
            j->kernel->expand_a(j->channels, in + (ptrdiff_t)x * in_x, product->a_signed, product->za,
                                out + x * j->pixel);
        return;
    }
    j->kernel->expand_a(count * j->channels, in, product->a_signed, product->za, out);
}

/* Brings the band into the kernel's format. Pixels outside the image have the code of the zero point. */
static void make_band(const chunk *c)
{
    const job *j = c->j;
    const ndq_conv_call *call = j->call;
    const ndq_conv_blocks *b = &j->blocks;
    const int32_t shift = ndq_gemm_shift_of_a(j->kernel, call->product.a_signed);
    const int zero = j->kernel->a_centred ? 0 : (uint8_t)(call->product.za + shift);
    const size_t rows = ndq_conv_rows_read(b, &call->y, c->rows);
    size_t begin, end;
    ptrdiff_t x;
    ndq_conv_inside(b, &call->x, c->x, &begin, &end, &x);
    uint8_t *out = c->band;
    for (size_t row = 0; row < rows; row++, out += b->band_cols * j->pixel) {
        const ptrdiff_t y = ndq_conv_row_at(b, &call->y, c->y, row);
        const size_t stop = y < 0 || y >= (ptrdiff_t)call->y.in ? begin : end;
        memset(out, zero, begin * j->pixel);
        if (stop > begin)
            expand(c, call->in + (ptrdiff_t)c->n * call->in_n + y * call->in_y + x * call->in_x, stop - begin,
                   out + begin * j->pixel);
        memset(out + stop * j->pixel, zero, (b->band_cols - stop) * j->pixel);
    }
    memset(out, 0, SLACK);
}

/* Where the runs of a window begin, seen from its first pixel. */
static void make_runs(const job *j, ptrdiff_t *offset, ndq_gemm_runs *runs)
{
    const ndq_conv_weights *w = j->call->w;
    const ndq_conv_blocks *b = &j->blocks;
    const size_t across = w->merged ? 1 : w->KW, count = w->KH * across;
    for (size_t i = 0; i < count; i++)
        offset[i] = (ptrdiff_t)((i / across * b->y.tap * b->band_cols + i % across * b->x.tap) * j->pixel);
    *runs = (ndq_gemm_runs){.runs = count,
                            .words = w->part[0]->run_words,
                            .offset = offset,
                            .a_signed = j->call->product.a_signed,
                            .w_signed = w->part[0]->is_signed};
}

/* ---- Tiles ---- */

/* Panels from `panel` on, if possible two, and returns how many. */
static size_t make_panels(const job *j, size_t panel, size_t end_panel, panel_of *p)
{
    const ndq_conv_weights *w = j->call->w;
    const size_t nr = j->kernel->nr, part = panel / j->part_panels, first = panel % j->part_panels * nr;
    const ndq_gemm_output output = j->call->product.output;
    ndq_gemm_call product = j->call->product;
    product.w = p->w = w->part[part];
    p->weights = ndq_gemm_panel(p->w, panel % j->part_panels, 0);
    p->columns = ndq_min_size(nr, p->w->N - first);
    p->channel = part * p->w->N + first;
    p->offset = part * w->C * ndq_gemm_code_bytes(j->kernel);
    p->tile = ndq_gemm_tiles(j->kernel, p->columns);
    ndq_gemm_make_columns(&product, first, &p->constants[0]);
    p->at_once = ndq_gemm_row_at_once(p->w, &p->constants[0], output);
    if (!p->at_once || j->kernel->row_panels < 2 || j->call->out_c != j->size || panel + 1 == end_panel ||
        first + nr >= p->w->N)
        return 1;
    ndq_gemm_make_columns(&product, first + nr, &p->constants[1]);
    if (!ndq_gemm_row_at_once(p->w, &p->constants[1], output))
        return 1;
    p->columns = ndq_min_size(2 * nr, p->w->N - first);
    return 2;
}

/* Subtracts what the zero points of the weights contribute: their multiples of the sums of the codes under each
 * window. */
static void subtract_row_terms(const chunk *c, const panel_of *p, const uint8_t *a, size_t stride, size_t rows,
                               int32_t *acc)
{
    const ndq_gemm_kernel *kernel = c->j->kernel;
    const bool is_signed = kernel->any_signs ? c->runs.a_signed : kernel->a_signed;
    int32_t sums[NDQ_GEMM_MAX_MR];
    for (size_t row = 0; row < rows; row++, a += stride) {
        int64_t sum[2] = {0, 0};
        for (size_t run = 0; run < c->runs.runs; run++)
            kernel->sums(p->w->K / p->w->runs, a + c->runs.offset[run], is_signed, 0, sum);
        sums[row] = (int32_t)(uint32_t)(uint64_t)sum[0];
    }
    kernel->subtract_row_terms(rows, acc, sums, &p->constants[0]);
}

/* Outputs of a row whose sums go through memory. */
static void run_tiles(const chunk *c, const panel_of *p, const uint8_t *a, size_t stride, uint8_t *out, size_t out_x)
{
    const job *j = c->j;
    ndq_gemm_store *store = j->kernel->store[j->call->product.output];
    _Alignas(NDQ_ALIGN) int32_t acc[NDQ_GEMM_MAX_MR * NDQ_GEMM_MAX_NR];
    for (size_t cols = c->cols, tiles = ndq_ceil_div(cols, j->kernel->mr); tiles > 0; tiles--) {
        const size_t rows = ndq_ceil_div(cols, tiles);
        p->tile[rows - 1](&c->runs, a, stride, p->weights, acc);
        if (p->w->any_zero_point)
            subtract_row_terms(c, p, a, stride, rows, acc);
        store(rows, p->columns, acc, &p->constants[0], &j->stage, out, out_x);
        cols -= rows;
        a += rows * stride;
        out += rows * out_x;
    }
}

/* Row y of a chunk for some panels, in tiles of about equal size: one of few rows is slow. */
static void run_row(const chunk *c, const panel_of *p, size_t y)
{
    const job *j = c->j;
    const ndq_conv_call *call = j->call;
    const size_t stride = j->blocks.x.jump * j->pixel, nr = j->kernel->nr;
    const uint8_t *a = c->band + y * j->blocks.y.jump * j->blocks.band_cols * j->pixel + p->offset;
    uint8_t *const row_out = (uint8_t *)call->out + c->n * call->out_n + p->channel * call->out_c +
                             (c->y + y) * call->out_y + c->x * call->out_x;
    const bool in_place = call->out_c == j->size;
    const size_t out_x = in_place ? call->out_x : nr * j->size;
    uint8_t *out = in_place ? row_out : c->staging;
    if (p->at_once)
        j->kernel->row[call->product.output](c->cols, &c->runs, a, stride, p->weights, p->columns, p->constants, &j->stage,
                                             out, out_x);
    else
        run_tiles(c, p, a, stride, out, out_x);
    if (!in_place)
        ndq_conv_scatter(c->staging, nr, p->columns, c->cols, j->size, row_out, call->out_c, call->out_x);
}

static chunk find_chunk(const job *j, size_t index)
{
    const ndq_conv_call *call = j->call;
    const ndq_conv_blocks *b = &j->blocks;
    const size_t panel = index % j->panel_blocks * j->block_panels, block = index / j->panel_blocks;
    const size_t x = block % b->col_blocks * b->cols, y = block / b->col_blocks % b->row_blocks * b->rows;
    return (chunk){
        .j = j,
        .n = block / b->col_blocks / b->row_blocks,
        .y = y,
        .x = x,
        .rows = ndq_min_size(b->rows, call->y.out - y),
        .cols = ndq_min_size(b->cols, call->x.out - x),
        .panel = panel,
        .end_panel = ndq_min_size(panel + j->block_panels, j->panels),
    };
}

/* Lays out the memory of a chunk from `base` on; its bytes. */
static size_t lay_out(const job *j, uint8_t *base, chunk *c)
{
    const ndq_conv_blocks *b = &j->blocks;
    const size_t row_in = b->band_cols * j->channels, row_out = b->cols * j->kernel->nr * j->size;
    size_t used = ndq_round_up(j->call->w->KH * j->call->w->KW * sizeof(ptrdiff_t), NDQ_ALIGN);
    c->staging = base + used;
    used += ndq_round_up(row_in > row_out ? row_in : row_out, NDQ_ALIGN);
    c->scratch = base + used;
    used += j->winograd ? ndq_round_up(ndq_winograd_scratch_bytes(j->call->w), NDQ_ALIGN) : 0;
    c->band = base + used;
    return used + b->band_rows * b->band_cols * j->pixel + SLACK;
}

static void run_panels(const chunk *c)
{
    panel_of p;
    for (size_t panel = c->panel; panel < c->end_panel;) {
        panel += make_panels(c->j, panel, c->end_panel, &p);
        for (size_t y = 0; y < c->rows; y++)
            run_row(c, &p, y);
    }
}

static void run_winograd(const chunk *c)
{
    const job *j = c->j;
    const ndq_conv_call *call = j->winograd;
    const ndq_winograd_block block = {
        .call = call,
        .stage = &j->stage,
        .rows = c->rows,
        .cols = c->cols,
        .out_rows = ndq_min_size(2 * c->rows, call->y.out - 2 * c->y),
        .out_cols = ndq_min_size(2 * c->cols, call->x.out - 2 * c->x),
        .panel = c->panel,
        .end_panel = c->end_panel,
        .band = (const int16_t *)(const void *)c->band,
        .band_row = j->blocks.band_cols * j->channels,
        .out = (uint8_t *)call->out + c->n * call->out_n + 2 * c->y * call->out_y + 2 * c->x * call->out_x,
    };
    ndq_winograd_run(&block, c->scratch);
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
    make_runs(j, (ptrdiff_t *)scratch, &c.runs);
    make_band(&c);
    ndq_gemm_enter(j->kernel);
    if (j->winograd)
        run_winograd(&c);
    else
        run_panels(&c);
    ndq_gemm_leave(j->kernel);
}

/* The most pixels of a block, if there should be so many blocks. */
static size_t most_pixels(const job *j, size_t wanted)
{
    const ndq_conv_weights *w = j->call->w;
    const size_t pixel = j->pixel ? j->pixel : 1, most = NDQ_BAND_BYTES / pixel;
    if (w->KH * w->KW > 1)
        return most;
    const size_t share = ndq_ceil_div(j->call->N * j->call->y.out * j->call->x.out, wanted);
    const size_t few = ndq_min_size(POINTWISE_BYTES / (pixel + w->O * j->size), share);
    return ndq_min_size(few > LEAST_PIXELS ? few : LEAST_PIXELS, most);
}

/* Cuts into chunks: blocks whose band stays in the cache; more and smaller ones if there are threads to feed, and
 * groups of panels if that is not enough. */
static void cut(job *j, size_t threads)
{
    const ndq_conv_call *call = j->call;
    const size_t wanted = threads > 1 ? CHUNKS_PER_THREAD * threads : 1;
    ndq_conv_blocks *b = &j->blocks;
    *b = ndq_conv_cut(&call->y, &call->x, most_pixels(j, wanted), j->kernel->mr);
    const size_t even = ndq_ceil_div(call->N * call->y.out * b->col_blocks, wanted);
    const size_t least = ndq_ceil_div(LEAST_PIXELS, b->cols);
    ndq_conv_cut_rows(b, &call->y, even > least ? even : least);
    const size_t blocks = call->N * b->row_blocks * b->col_blocks;
    const size_t groups = blocks >= wanted ? 1 : ndq_ceil_div(wanted, blocks);
    j->block_panels = ndq_ceil_div(j->panels, ndq_min_size(groups, j->panels));
    j->panel_blocks = ndq_ceil_div(j->panels, j->block_panels);
}

/* Far dilations can make a band that has more bytes than memory. */
static bool too_large(const job *j)
{
    size_t row, band;
    return __builtin_mul_overflow(j->blocks.band_cols, j->pixel, &row) ||
           __builtin_mul_overflow(row, j->blocks.band_rows, &band) || band > SIZE_MAX / 4;
}

static ndq_status convolve(const ndq_conv_call *call)
{
    const ndq_conv_weights *w = call->w;
    const bool in_tiles = ndq_winograd_pays(call);
    const ndq_conv_call tiles = ndq_winograd_tiles(call);
    ndq_gemm_call product = call->product;
    product.w = w->part[0];
    job j = {.call = in_tiles ? &tiles : call,
             .winograd = in_tiles ? call : NULL,
             .kernel = product.w->kernel,
             .stage = ndq_gemm_make_stage(&product),
             .channels = w->C * w->groups,
             .size = ndq_gemm_output_bytes(product.output)};
    j.pixel = j.channels * ndq_gemm_code_bytes(j.kernel);
    j.part_panels = ndq_ceil_div(product.w->N, j.kernel->nr);
    j.panels = j.part_panels * w->parts;
    const double saved = in_tiles ? 9.0 * NDQ_WINOGRAD_OUTPUTS / NDQ_WINOGRAD_ELEMENTS : 1.0;
    cut(&j, ndq_gemm_threads(ndq_conv_macs(call) / saved, j.kernel->parallel_macs));
    if (too_large(&j))
        return NDQ_NO_MEMORY;
    const size_t chunks = call->N * j.blocks.row_blocks * j.blocks.col_blocks * j.panel_blocks;
    if (chunks > 1)
        ndq_parallel_for(chunks, run_chunk, &j);
    else
        run_chunk(&j, 0);
    return j.no_memory ? NDQ_NO_MEMORY : NDQ_OK;
}

/* ---- Windows of one pixel ---- */

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

/* Whether all outputs, and the pixels that they see, are a single row, which `row` then says: no tile ends at the end of a
 * row of the image. */
static bool make_row(const ndq_conv_call *call, ndq_conv_call *row)
{
    const size_t sizes[] = {call->x.in, call->y.in, call->N};
    const ptrdiff_t in[] = {call->in_x, call->in_y, call->in_n};
    const ptrdiff_t out[] = {(ptrdiff_t)call->out_x, (ptrdiff_t)call->out_y, (ptrdiff_t)call->out_n};
    ptrdiff_t in_x, out_x;
    if (!is_pointwise(&call->y) || !is_pointwise(&call->x) || !are_rows(sizes, in, &in_x) ||
        !are_rows(sizes, out, &out_x))
        return false;
    const size_t pixels = call->N * call->y.out * call->x.out;
    *row = *call;
    row->N = 1;
    row->y.in = row->y.out = 1;
    row->x.in = row->x.out = pixels;
    row->in_x = in_x;
    row->out_x = (size_t)out_x;
    return true;
}

/* A row as a product, for kernels that read activations where they are: false if ndq_gemm does not take its operands. */
static bool make_product(const ndq_conv_call *row, ndq_gemm_call *product)
{
    const ndq_conv_weights *w = row->w;
    const ndq_gemm_kernel *kernel = w->part[0]->kernel;
    const size_t size = ndq_gemm_output_bytes(row->product.output);
    *product = row->product;
    product->M = row->x.out;
    if (kernel->a_centred || w->groups > 1 || row->in_c != 1 || row->out_c != size ||
        (product->M > 1 && (row->in_x < (ptrdiff_t)w->C || row->out_x != w->O * size)))
        return false;
    product->w = w->part[0];
    product->a = row->in;
    product->a_stride = row->in_x;
    product->out = row->out;
    return true;
}

double ndq_conv_macs(const ndq_conv_call *call)
{
    const ndq_conv_weights *w = call->w;
    return (double)call->N * (double)call->y.out * (double)call->x.out * (double)w->O *
           (double)(w->C * w->KH * w->KW);
}

ndq_status ndq_conv(const ndq_conv_call *call)
{
    ndq_conv_call row;
    ndq_gemm_call product;
    if (!call->N || !call->w->O || !call->y.out || !call->x.out)
        return NDQ_OK;
    if (call->w->depthwise)
        return ndq_conv_depthwise(call);
    if (!make_row(call, &row))
        return convolve(call);
    return make_product(&row, &product) ? ndq_gemm(&product) : convolve(&row);
}
