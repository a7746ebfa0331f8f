#include "binary.h"

#include "../threads.h"

enum { PANELS_BYTES = 192 * 1024, CHUNKS_PER_THREAD = 4 };

typedef struct {
    const ndq_binary_call *call;
    size_t pixel_bytes, bytes, padded; /* of a pixel; of a window; the same in whole words */
    uint8_t last;                      /* which bits of the last byte of a pixel count */
    uint8_t *panels;
    int32_t *ones; /* (taps, N): how many bits of each tap of each output are 1; NULL without padding */
    size_t threads, rows, row_bytes, block_rows, block_panels, column_chunks;
    int no_memory;
} job;

void ndq_binary_copy(size_t bytes, const uint8_t *bits, uint8_t *row)
{
    memcpy(row, bits, bytes);
}

static size_t panels_of(const job *j)
{
    return ndq_ceil_div(j->call->N, j->call->kernel->nr);
}

static size_t taps_of(const job *j)
{
    return j->call->y.taps * j->call->x.taps;
}

static void mask_pixels(const job *j, size_t count, uint8_t *bits)
{
    for (size_t i = 0; j->pixel_bytes && j->last != 0xff && i < count; i++)
        bits[(i + 1) * j->pixel_bytes - 1] &= j->last;
}

static int32_t ones_in(size_t bytes, const uint8_t *bits)
{
    int32_t count = 0;
    for (size_t i = 0; i < bytes; i++)
        for (uint8_t byte = bits[i]; byte; byte &= (uint8_t)(byte - 1))
            count++;
    return count;
}

/* One panel of weights: words of its columns side by side; `bits` is memory for one output, whose end is zeros. */
static void pack_panel(const job *j, size_t panel, uint8_t *bits)
{
    const ndq_binary_call *call = j->call;
    const size_t nr = call->kernel->nr, word = call->kernel->word, taps = taps_of(j);
    uint8_t *to = j->panels + panel * nr * j->padded;
    for (size_t column = 0; column < nr; column++, to += word) {
        const size_t n = panel * nr + column;
        if (n < call->N)
            memcpy(bits, call->w + n * j->bytes, j->bytes);
        else
            memset(bits, 0, j->bytes);
        mask_pixels(j, taps, bits);
        if (word == 1)
            for (size_t i = 0; i < j->padded; i++)
                to[i * nr] = bits[i];
        else
            for (size_t i = 0; i < j->padded; i += word)
                memcpy(to + i * nr, bits + i, word);
        for (size_t tap = 0; j->ones && n < call->N && tap < taps; tap++)
            j->ones[tap * call->N + n] = ones_in(j->pixel_bytes, bits + tap * j->pixel_bytes);
    }
}

/* Where a tap of window number m is in its image; false if that is outside. */
static inline bool find_pixel(const ndq_binary_call *call, size_t m, size_t tap, size_t *pixel)
{
    const ndq_conv_axis *y = &call->y, *x = &call->x;
    const ptrdiff_t row = (ptrdiff_t)(m / x->out % y->out * y->stride + tap / x->taps * y->dilation) - y->pad;
    const ptrdiff_t column = (ptrdiff_t)(m % x->out * x->stride + tap % x->taps * x->dilation) - x->pad;
    *pixel = (size_t)row * x->in + (size_t)column;
    return row >= 0 && row < (ptrdiff_t)y->in && column >= 0 && column < (ptrdiff_t)x->in;
}

/* The row of window number m: the bits of its pixels, zeros for those outside the image. */
static void gather(const job *j, size_t m, uint8_t *bits)
{
    const ndq_binary_call *call = j->call;
    const uint8_t *image = call->a + m / (call->y.out * call->x.out) * call->y.in * call->x.in * j->pixel_bytes;
    size_t pixel;
    for (size_t tap = 0; tap < taps_of(j); tap++, bits += j->pixel_bytes)
        if (find_pixel(call, m, tap, &pixel))
            memcpy(bits, image + pixel * j->pixel_bytes, j->pixel_bytes);
        else
            memset(bits, 0, j->pixel_bytes);
}

/* Outputs of window number m from the distances to one panel's columns. A tap outside the image has counted its ones. */
static void finish_row(const job *j, size_t m, size_t first, size_t columns, const int32_t *distance)
{
    const ndq_binary_call *call = j->call;
    int32_t *out = call->out + m * call->N + first;
    const int32_t K = (int32_t)(taps_of(j) * call->channels);
    size_t pixel;
    for (size_t n = 0; n < columns; n++)
        out[n] = K - 2 * distance[n];
    for (size_t tap = 0; j->ones && tap < taps_of(j); tap++) {
        const int32_t *ones = j->ones + tap * call->N + first;
        if (find_pixel(call, m, tap, &pixel))
            continue;
        for (size_t n = 0; n < columns; n++)
            out[n] += 2 * ones[n] - (int32_t)call->channels;
    }
}

/* Multiplies `count` rows, at most a tile's, by the panels of a chunk. */
static void run_panels(const job *j, size_t first, size_t count, const uint8_t *rows, size_t panel, size_t end_panel)
{
    const ndq_binary_kernel *kernel = j->call->kernel;
    int32_t distance[NDQ_BINARY_MAX_MR * NDQ_BINARY_MAX_NR] __attribute__((aligned(NDQ_ALIGN)));
    for (; panel < end_panel; panel++) {
        const size_t n = panel * kernel->nr, columns = ndq_min_size(kernel->nr, j->call->N - n);
        kernel->tile[count - 1](j->padded / kernel->word, rows, j->row_bytes, j->panels + n * j->padded, distance);
        for (size_t i = 0; i < count; i++)
            finish_row(j, first + i, n, columns, distance + i * kernel->nr);
    }
}

static void run_chunk(void *ctx, size_t chunk)
{
    job *j = ctx;
    const ndq_binary_kernel *kernel = j->call->kernel;
    const size_t first = chunk / j->column_chunks * j->block_rows, end = ndq_min_size(first + j->block_rows, j->rows);
    const size_t panel = chunk % j->column_chunks * j->block_panels;
    uint8_t *rows = ndq_scratch(kernel->mr * j->row_bytes + j->padded);
    if (!rows) {
        __atomic_store_n(&j->no_memory, 1, __ATOMIC_RELAXED);
        return;
    }
    uint8_t *bits = rows + kernel->mr * j->row_bytes;
    memset(bits, 0, j->padded);
    for (size_t m = first; m < end; m += kernel->mr) {
        const size_t count = ndq_min_size(kernel->mr, end - m);
        for (size_t i = 0; i < count; i++) {
            gather(j, m + i, bits);
            mask_pixels(j, taps_of(j), bits);
            kernel->expand(j->padded, bits, rows + i * j->row_bytes);
        }
        run_panels(j, m, count, rows, panel, ndq_min_size(panel + j->block_panels, panels_of(j)));
    }
}

/* Cuts the product into chunks: panels that stay in the L2 cache while rows pass, and fewer of them, or of the rows, if there
 * are threads to feed. */
static size_t cut(job *j)
{
    const ndq_binary_kernel *kernel = j->call->kernel;
    const double macs = (double)j->rows * (double)j->call->N * (double)j->bytes * 8;
    const size_t threads = j->threads = ndq_gemm_threads(macs, kernel->parallel_macs);
    const size_t in_cache = PANELS_BYTES / (kernel->nr * j->padded + 1) + 1;
    j->row_bytes = ndq_round_up(j->padded * kernel->row_factor, NDQ_ALIGN) + NDQ_ALIGN;
    j->block_rows = threads > 1 ? ndq_ceil_div(j->rows, CHUNKS_PER_THREAD * threads) : j->rows;
    j->block_rows = ndq_round_up(j->block_rows, kernel->mr);
    const size_t row_chunks = ndq_ceil_div(j->rows, j->block_rows);
    const size_t groups = row_chunks < threads ? ndq_ceil_div(CHUNKS_PER_THREAD * threads, row_chunks) : 1;
    j->block_panels = ndq_min_size(in_cache, ndq_ceil_div(panels_of(j), groups));
    j->column_chunks = ndq_ceil_div(panels_of(j), j->block_panels);
    return row_chunks * j->column_chunks;
}

ndq_status ndq_binary_multiply(const ndq_binary_call *call)
{
    job j = {.call = call, .rows = call->images * call->y.out * call->x.out};
    if (!j.rows || !call->N)
        return NDQ_OK;
    j.pixel_bytes = ndq_ceil_div(call->channels, 8);
    j.last = (uint8_t)(0xff << (8 * j.pixel_bytes - call->channels));
    j.bytes = taps_of(&j) * j.pixel_bytes;
    j.padded = ndq_round_up(j.bytes, call->kernel->word);
    const size_t panels = panels_of(&j) * call->kernel->nr * j.padded, bits = ndq_round_up(j.padded, NDQ_ALIGN);
    const bool pads = call->y.pad || call->x.pad;
    uint8_t *memory = ndq_alloc(panels + bits + (pads ? taps_of(&j) * call->N * sizeof(int32_t) : 0));
    if (!memory)
        return NDQ_NO_MEMORY;
    j.panels = memory + bits;
    j.ones = pads ? (int32_t *)(memory + bits + panels) : NULL;
    memset(memory, 0, bits);
    for (size_t panel = 0; panel < panels_of(&j); panel++)
        pack_panel(&j, panel, memory);
    const size_t chunks = cut(&j);
    if (j.threads > 1)
        ndq_parallel_for(chunks, run_chunk, &j);
    for (size_t chunk = 0; j.threads == 1 && chunk < chunks; chunk++)
        run_chunk(&j, chunk);
    ndq_free(memory);
    return j.no_memory ? NDQ_NO_MEMORY : NDQ_OK;
}
