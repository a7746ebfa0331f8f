#include "gemm_f32.h"

#include "../threads.h"
#include "gemm.h"

/* At most so many terms at a time, so that a panel and a tile of rows stay in L1; so many columns that packed b stays
 * in an L3 cache, and so many rows that packed a stays in L2. */
enum { MOST_K = 384, BLOCK_N = 1024, BLOCK_M = 96 };

/* What fits L1 is read in place whatever its strides; addresses this far apart share a set of it. */
enum { NEAR_BYTES = 32 * 1024, L1_WAY_BYTES = 4096 };

enum { CHUNKS_PER_THREAD = 4 };

/* One block of b, packed, and the rows that are multiplied by it. */
typedef struct {
    const ndq_gemm_f32_call *call;
    size_t k, count;   /* terms of this block */
    size_t n, columns; /* columns of this block */
    float *panels;
    bool pack_late; /* each panel on its first use, as one thread does all of them */
    bool in_place;
    size_t chunk_rows, chunk_panels, column_chunks, chunks;
    int no_memory; /* set by any thread */
} job;

static size_t panel_count(const job *j)
{
    return ndq_ceil_div(j->columns, j->call->kernel->nr);
}

static void pack_panel(void *ctx, size_t panel)
{
    const job *j = ctx;
    const size_t nr = j->call->kernel->nr, first = panel * nr;
    j->call->kernel->pack(&j->call->b, j->k, j->count, j->n + first, ndq_min_size(nr, j->columns - first),
                          j->panels + panel * nr * j->count);
}

/* Terms of this block of the rows from m on. */
static ndq_rows_f32 rows_at(const job *j, size_t m)
{
    ndq_rows_f32 a = j->call->a;
    a.data += (ptrdiff_t)m * a.stride_m + (ptrdiff_t)j->k * a.stride_k;
    return a;
}

/* A tile of less than nr columns is computed beside c, as it would touch what is right of it. */
static void run_partial(ndq_gemm_f32_tile *tile, const job *j, ndq_rows_f32 a, const float *panel, float *c,
                        size_t rows, size_t columns)
{
    _Alignas(NDQ_ALIGN) float beside[NDQ_GEMM_F32_MAX_MR * NDQ_GEMM_F32_MAX_NR];
    const size_t nr = j->call->kernel->nr;
    const ptrdiff_t in_c = (ptrdiff_t)(j->call->N * sizeof(*c)), in_beside = (ptrdiff_t)(nr * sizeof(*c));
    if (j->k) {
        memset(beside, 0, rows * nr * sizeof(*beside));
        ndq_copy_columns_f32(rows, columns, c, in_c, beside, in_beside);
    }
    tile(j->count, a, panel, beside, nr, j->k > 0);
    ndq_copy_columns_f32(rows, columns, beside, in_beside, c, in_c);
}

/* Packs a panel; its first tile does that on the way, if it can. Returns whether that tile is done. */
static bool pack_first(job *j, size_t panel, size_t rows, ndq_rows_f32 a, float *c)
{
    const ndq_gemm_f32_call *call = j->call;
    const ndq_gemm_f32_kernel *kernel = call->kernel;
    const ndq_terms *b = &call->b;
    const size_t first = panel * kernel->nr;
    const bool whole = rows == kernel->mr && j->columns - first >= kernel->nr;
    if (!whole || !kernel->packing_tile || b->type != NDQ_TERMS_F32 || b->stride_n != sizeof(float)) {
        pack_panel(j, panel);
        return false;
    }
    const char *row = b->data + (ptrdiff_t)j->k * b->stride_k + (ptrdiff_t)(j->n + first) * b->stride_n;
    kernel->packing_tile(j->count, a, row, b->stride_k, j->panels + first * j->count, c, call->N, j->k > 0);
    return true;
}

/* Rows [m, m + rows) by one panel; `packed` holds them, or is NULL if they are read in place. */
static void run_panel(job *j, size_t m, size_t rows, const float *packed, size_t panel)
{
    const ndq_gemm_f32_call *call = j->call;
    const ndq_gemm_f32_kernel *kernel = call->kernel;
    const size_t nr = kernel->nr, mr = kernel->mr, columns = ndq_min_size(nr, j->columns - panel * nr);
    ndq_gemm_f32_tile *const *tile = columns <= nr / 2 && kernel->narrow[0] ? kernel->narrow : kernel->tile;
    const float *b = j->panels + panel * nr * j->count;
    const ptrdiff_t term = (ptrdiff_t)(mr * sizeof(*packed));
    ndq_rows_f32 a = packed ? (ndq_rows_f32){(const char *)packed, sizeof(*packed), term} : rows_at(j, m);
    const ptrdiff_t next = packed ? (ptrdiff_t)j->count * term : (ptrdiff_t)mr * a.stride_m;
    float *c = call->c + m * call->N + j->n + panel * nr;
    for (size_t first = 0; first < rows; first += mr, a.data += next, c += mr * call->N) {
        const size_t in_tile = ndq_min_size(mr, rows - first);
        if (j->pack_late && m + first == 0 && pack_first(j, panel, in_tile, a, c))
            continue;
        if (columns == nr)
            tile[in_tile - 1](j->count, a, b, c, call->N, j->k > 0);
        else
            run_partial(tile[in_tile - 1], j, a, b, c, in_tile, columns);
    }
}

static void run_chunk(void *ctx, size_t chunk)
{
    job *j = ctx;
    const ndq_gemm_f32_kernel *kernel = j->call->kernel;
    const size_t mr = kernel->mr, m = chunk / j->column_chunks * j->chunk_rows;
    const size_t rows = ndq_min_size(j->chunk_rows, j->call->M - m);
    const size_t first = chunk % j->column_chunks * j->chunk_panels;
    const size_t end = ndq_min_size(first + j->chunk_panels, panel_count(j));
    float *packed = NULL;
    if (!j->in_place) {
        packed = ndq_scratch(ndq_round_up(rows, mr) * j->count * sizeof(*packed));
        if (!packed) {
            __atomic_store_n(&j->no_memory, 1, __ATOMIC_RELAXED);
            return;
        }
        for (size_t i = 0; i < rows; i += mr)
            kernel->pack_rows(j->count, ndq_min_size(mr, rows - i), rows_at(j, m + i), packed + i * j->count);
    }
    for (size_t panel = first; panel < end; panel++)
        run_panel(j, m, rows, packed, panel);
}

/* Blocks of rows, fewer rows if there are threads to feed, and groups of panels only if there are not enough rows. */
static void cut(job *j, size_t threads)
{
    const size_t mr = j->call->kernel->mr, M = j->call->M, panels = panel_count(j);
    const size_t rows = threads > 1 ? ndq_min_size(BLOCK_M, ndq_ceil_div(M, CHUNKS_PER_THREAD * threads)) : BLOCK_M;
    j->chunk_rows = ndq_round_up(rows, mr);
    const size_t row_chunks = ndq_ceil_div(M, j->chunk_rows);
    const size_t groups = row_chunks < threads ? ndq_ceil_div(2 * threads, row_chunks) : 1;
    j->chunk_panels = ndq_ceil_div(panels, ndq_min_size(panels, groups));
    j->column_chunks = ndq_ceil_div(panels, j->chunk_panels);
    j->chunks = row_chunks * j->column_chunks;
}

static void for_each(job *j, size_t threads, size_t chunks, void (*body)(void *job, size_t chunk))
{
    if (threads > 1 && chunks > 1)
        ndq_parallel_for(chunks, body, j);
    else
        for (size_t chunk = 0; chunk < chunks; chunk++)
            body(j, chunk);
}

static size_t size_of(ptrdiff_t stride)
{
    return (size_t)(stride < 0 ? -stride : stride);
}

/* In place unless that would cost a tile its lines in the L1 cache: rows whose terms are scattered over pages, or
 * contiguous rows that all fall into the same sets. */
static bool reads_in_place(const ndq_gemm_f32_call *call, size_t K)
{
    const size_t between_terms = size_of(call->a.stride_k);
    if (between_terms <= sizeof(float))
        return size_of(call->a.stride_m) % L1_WAY_BYTES || K * sizeof(float) < NEAR_BYTES / NDQ_GEMM_F32_MAX_MR;
    return between_terms * K <= NEAR_BYTES;
}

/* Terms of a block: all have about the same, as a short one would write c as often as a long one. */
static size_t block_terms(size_t K)
{
    return ndq_round_up(ndq_ceil_div(K, ndq_ceil_div(K, MOST_K)), 4);
}

ndq_status ndq_gemm_f32(const ndq_gemm_f32_call *call)
{
    const size_t nr = call->kernel->nr, most = ndq_min_size(ndq_round_up(call->N, nr), BLOCK_N);
    if (!call->M || !call->N)
        return NDQ_OK;
    if (!call->K) {
        memset(call->c, 0, call->M * call->N * sizeof(*call->c));
        return NDQ_OK;
    }
    const size_t terms = block_terms(call->K);
    job j = {.call = call, .in_place = reads_in_place(call, terms)};
    j.panels = ndq_alloc(most * terms * sizeof(*j.panels));
    if (!j.panels)
        return NDQ_NO_MEMORY;
    const double macs = (double)call->M * (double)call->N * (double)call->K;
    const size_t threads = ndq_gemm_threads(macs, call->kernel->parallel_macs);
    j.pack_late = threads == 1;
    for (j.n = 0; j.n < call->N; j.n += BLOCK_N)
        for (j.k = 0; j.k < call->K; j.k += terms) {
            j.columns = ndq_min_size(BLOCK_N, call->N - j.n);
            j.count = ndq_min_size(terms, call->K - j.k);
            cut(&j, threads);
            if (!j.pack_late)
                for_each(&j, threads, panel_count(&j), pack_panel);
            for_each(&j, threads, j.chunks, run_chunk);
        }
    ndq_free(j.panels);
    return j.no_memory ? NDQ_NO_MEMORY : NDQ_OK;
}
