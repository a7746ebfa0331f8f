#include "grouped.h"

#include "../threads.h"
#include "gemm.h"

/* ---- Packed weights ---- */

static size_t constants_of(const ndq_grouped *w)
{
    return w->run.words * NDQ_GROUPED_WORD * w->kernel->nr / 2;
}

/* One block of memory: the struct, the bias, the panels, each at its own cache line. NULL base measures. */
static size_t lay_out(ndq_grouped *w, const ndq_grouped_weights *given, uint8_t *base)
{
    const size_t bias = given->bias ? w->N * sizeof(float) : 0;
    const size_t begin = ndq_round_up(sizeof(*w), NDQ_ALIGN), panels = begin + ndq_round_up(bias, NDQ_ALIGN);
    if (base) {
        w->bias = given->bias ? (float *)(base + begin) : NULL;
        w->panels = base + panels;
    }
    return panels + ndq_ceil_div(w->N, w->kernel->nr) * w->panel_bytes;
}

static void pack_constants(const ndq_grouped *w, const ndq_grouped_weights *given, size_t n, size_t group, int32_t sum,
                           uint8_t *constants)
{
    const size_t nr = w->kernel->nr, column = n % nr, at = n * w->run.groups + group;
    const uint8_t zero = given->offset ? (uint8_t)-given->lowest
                                       : (uint8_t)((int32_t)given->zero_point[at] - given->lowest);
    ((float *)constants)[column] = given->scale[at];
    ((int32_t *)constants)[nr + column] = (sum - (int32_t)w->group_size * zero) * NDQ_GROUPED_LEVELS + zero;
    if (given->offset)
        ((float *)constants)[2 * nr + column] = given->offset[at];
}

/* One output's codes and constants, in their places among those of the panel, which is zeros. */
static void pack_output(const ndq_grouped *w, const ndq_grouped_weights *given, size_t n)
{
    const size_t half = w->kernel->nr / 2, column = n % w->kernel->nr;
    const int shift = column < half ? 0 : 4;
    uint8_t *panel = w->panels + n / w->kernel->nr * w->panel_bytes + column % half * NDQ_GROUPED_WORD;
    const uint8_t *codes = given->codes + n * w->K;
    for (size_t group = 0; group < w->run.groups; group++, panel += w->run.bytes) {
        int32_t sum = 0;
        for (size_t k = 0; k < w->group_size; k++) {
            const uint8_t code = (uint8_t)(*codes++ - given->lowest);
            panel[k / NDQ_GROUPED_WORD * half * NDQ_GROUPED_WORD + k % NDQ_GROUPED_WORD] |= (uint8_t)(code << shift);
            sum += code;
        }
        pack_constants(w, given, n, group, sum,
                       panel - column % half * NDQ_GROUPED_WORD + constants_of(w));
    }
}

typedef struct {
    const ndq_grouped *w;
    const ndq_grouped_weights *given;
} pack_job;

static void pack_panel(void *ctx, size_t panel)
{
    const pack_job *j = ctx;
    const size_t nr = j->w->kernel->nr, end = ndq_min_size((panel + 1) * nr, j->w->N);
    memset(j->w->panels + panel * j->w->panel_bytes, 0, j->w->panel_bytes);
    for (size_t n = panel * nr; n < end; n++)
        pack_output(j->w, j->given, n);
}

ndq_grouped *ndq_grouped_pack(const ndq_grouped_kernel *kernel, const ndq_grouped_weights *given)
{
    ndq_grouped made = {.kernel = kernel, .N = given->N, .K = given->K, .group_size = given->group_size,
                        .has_offset = given->offset != NULL};
    made.run.groups = given->K / given->group_size;
    made.run.words = ndq_round_up(given->group_size, kernel->k_step) / NDQ_GROUPED_WORD;
    made.run.bytes = ndq_round_up(constants_of(&made) + (made.has_offset ? 3 : 2) * kernel->nr * sizeof(float), NDQ_ALIGN);
    made.panel_bytes = made.run.groups * made.run.bytes;
    made.bytes = lay_out(&made, given, NULL);
    ndq_grouped *w = ndq_alloc(made.bytes);
    if (!w)
        return NULL;
    *w = made;
    lay_out(w, given, (uint8_t *)w);
    if (given->bias)
        memcpy(w->bias, given->bias, w->N * sizeof(float));
    pack_job job = {w, given};
    ndq_for_chunks(w->N * w->K, ndq_ceil_div(w->N, kernel->nr), pack_panel, &job);
    return w;
}

void ndq_grouped_free(ndq_grouped *w)
{
    ndq_free(w);
}

/* ---- Products ---- */

enum { BLOCK_BYTES = 128 * 1024, LEAST_ROWS = 16, GROUPS_AT_ONCE = 16, CHUNKS_PER_THREAD = 4 };

typedef struct {
    const ndq_grouped_call *call;
    size_t row_bytes, block_rows, block_panels, column_chunks;
    int no_memory;
} job;

/* Rows that are multiplied by several panels, and memory for what comes between. */
typedef struct {
    size_t first, count;
    int8_t *rows;
    int32_t *acc, *sums;
    float *total;
    ndq_grouped_row *row;
} block;

/* Lays out the memory of a block from `base` on; its bytes. */
static size_t lay_out_block(const job *j, uint8_t *base, block *b)
{
    const ndq_grouped *w = j->call->w;
    const ndq_grouped_kernel *kernel = w->kernel;
    size_t at = b->count * j->row_bytes;
    b->rows = (int8_t *)base;
    b->acc = (int32_t *)(base + at);
    const size_t cells = kernel->mr > NDQ_GROUPED_STREAMS ? kernel->mr : NDQ_GROUPED_STREAMS;
    at += GROUPS_AT_ONCE * cells * kernel->nr * sizeof(int32_t);
    b->total = (float *)(base + at);
    at += (b->count == 1 ? NDQ_GROUPED_STREAMS : b->count) * kernel->nr * sizeof(float);
    b->row = (ndq_grouped_row *)(base + at);
    at += ndq_round_up(b->count * sizeof(ndq_grouped_row), NDQ_ALIGN);
    b->sums = (int32_t *)(base + at);
    return at + b->count * w->run.groups * sizeof(int32_t);
}

/* Brings the rows of a block to s8, each group padded with zeros, and sums them up. */
static void expand_rows(const job *j, block *b)
{
    const ndq_grouped_call *call = j->call;
    const ndq_grouped *w = call->w;
    const uint8_t flip = call->a_signed ? 0 : 0x80; /* moves u8 down by 128, and its zero point too */
    const size_t padded = w->run.words * NDQ_GROUPED_WORD;
    for (size_t m = 0; m < b->count; m++) {
        const size_t row = call->per_row ? b->first + m : 0;
        const uint8_t *codes = call->a + (b->first + m) * w->K;
        int8_t *to = b->rows + m * j->row_bytes;
        int32_t *sums = b->sums + m * w->run.groups;
        for (size_t g = 0; g < w->run.groups; g++, codes += w->group_size, to += padded) {
            sums[g] = w->kernel->expand(w->group_size, codes, flip, to);
            memset(to + w->group_size, 0, padded - w->group_size);
        }
        b->row[m] = (ndq_grouped_row){call->a_scale[row], call->a_zero[row] - flip, sums};
    }
}

/* Groups of panels, from `first` on. */
typedef struct {
    size_t panel, panels, first, groups;
} part;

static void combine(const job *j, const block *b, const part *p, size_t m, size_t rows, size_t cells)
{
    const ndq_grouped *w = j->call->w;
    const size_t nr = w->kernel->nr;
    ndq_grouped_run run = w->run;
    run.groups = p->groups;
    for (size_t i = 0; i < p->panels; i++) {
        const uint8_t *codes = w->panels + (p->panel + i) * w->panel_bytes + p->first * run.bytes;
        const ndq_grouped_sums sums = {
            &run,       p->first, rows, w->group_size, w->has_offset, b->acc + i * nr,
            cells * nr, codes + constants_of(w), b->row + m};
        w->kernel->combine(&sums, b->total + (i * b->count + m) * nr);
    }
}

/* Adds up the groups of a part for all rows of the block; of several panels for one row. */
static void run_part(const job *j, const block *b, const part *p)
{
    const ndq_grouped *w = j->call->w;
    const ndq_grouped_kernel *kernel = w->kernel;
    ndq_grouped_run run = w->run;
    run.groups = p->groups;
    const int8_t *a = b->rows + p->first * run.words * NDQ_GROUPED_WORD;
    const uint8_t *codes = w->panels + p->panel * w->panel_bytes + p->first * run.bytes;
    if (p->panels > 1) {
        kernel->streams(&run, a, codes, w->panel_bytes, b->acc);
        combine(j, b, p, 0, 1, p->panels);
        return;
    }
    for (size_t m = 0; m < b->count; m += kernel->mr) {
        const size_t rows = ndq_min_size(kernel->mr, b->count - m);
        kernel->tile[rows - 1](&run, a + m * j->row_bytes, j->row_bytes, codes, b->acc);
        combine(j, b, p, m, rows, rows);
    }
}

/* Outputs of some panels: of one, or of several for a single row. */
static void run_panels(const job *j, const block *b, size_t panel, size_t count)
{
    const ndq_grouped *w = j->call->w;
    const size_t nr = w->kernel->nr;
    memset(b->total, 0, count * b->count * nr * sizeof(float));
    for (part of = {panel, count, 0, 0}; of.first < w->run.groups; of.first += of.groups) {
        of.groups = ndq_min_size(GROUPS_AT_ONCE, w->run.groups - of.first);
        run_part(j, b, &of);
    }
    for (size_t p = 0; p < count; p++)
        for (size_t m = 0; m < b->count; m++) {
            const size_t n = (panel + p) * nr;
            w->kernel->store(ndq_min_size(nr, w->N - n), b->total + (p * b->count + m) * nr, b->row[m].scale,
                             w->bias ? w->bias + n : NULL, j->call->y + (b->first + m) * w->N + n);
        }
}

static void run_chunk(void *ctx, size_t chunk)
{
    job *j = ctx;
    const ndq_grouped *w = j->call->w;
    const size_t first_panel = chunk % j->column_chunks * j->block_panels;
    const size_t end_panel = ndq_min_size(first_panel + j->block_panels, ndq_ceil_div(w->N, w->kernel->nr));
    block b = {.first = chunk / j->column_chunks * j->block_rows};
    b.count = ndq_min_size(j->block_rows, j->call->M - b.first);
    uint8_t *scratch = ndq_scratch(lay_out_block(j, NULL, &b));
    if (!scratch) {
        __atomic_store_n(&j->no_memory, 1, __ATOMIC_RELAXED);
        return;
    }
    lay_out_block(j, scratch, &b);
    expand_rows(j, &b);
    const size_t at_once = b.count == 1 && w->kernel->streams ? NDQ_GROUPED_STREAMS : 1;
    for (size_t panel = first_panel, count; panel < end_panel; panel += count) {
        count = end_panel - panel < at_once ? 1 : at_once;
        run_panels(j, &b, panel, count);
    }
}

ndq_status ndq_grouped_multiply(const ndq_grouped_call *call)
{
    const ndq_grouped *w = call->w;
    if (!call->M || !w->N)
        return NDQ_OK;
    const size_t threads = ndq_gemm_threads((double)call->M * (double)w->N * (double)w->K, w->kernel->parallel_macs);
    job j = {.call = call};
    j.row_bytes = ndq_round_up(w->run.groups * w->run.words * NDQ_GROUPED_WORD, NDQ_ALIGN) + NDQ_ALIGN;
    const size_t in_cache = ndq_round_up(BLOCK_BYTES / j.row_bytes + LEAST_ROWS, w->kernel->mr);
    j.block_rows = ndq_min_size(in_cache, ndq_round_up(ndq_ceil_div(call->M, threads), w->kernel->mr));
    const size_t row_chunks = ndq_ceil_div(call->M, j.block_rows), panels = ndq_ceil_div(w->N, w->kernel->nr);
    const size_t groups = row_chunks < threads ? ndq_ceil_div(CHUNKS_PER_THREAD * threads, row_chunks) : 1;
    j.block_panels = ndq_ceil_div(panels, ndq_min_size(panels, groups));
    j.column_chunks = ndq_ceil_div(panels, j.block_panels);
    const size_t chunks = row_chunks * j.column_chunks;
    if (chunks > 1)
        ndq_parallel_for(chunks, run_chunk, &j);
    else
        run_chunk(&j, 0);
    return j.no_memory ? NDQ_NO_MEMORY : NDQ_OK;
}
