#include "pool.h"

#include "conv_band.h"

#include "../threads.h"

typedef struct {
    const ndq_pool *call;
    size_t width; /* codes of one row of the image, channels next to each other */
    bool staged;  /* rows are copied, as the channels of a pixel are apart in the image */
    int no_memory; /* set by any thread */
} job;

/* The memory of one row of outputs: the rows of its windows reduced to one, the windows reduced, codes. */
typedef struct {
    uint8_t *staging, *codes;
    void *row, *window;
} memory;

static const uint8_t *row_of(const job *j, const memory *m, size_t n, size_t y)
{
    const ndq_pool *call = j->call;
    const uint8_t *in = call->in + (ptrdiff_t)n * call->in_n + (ptrdiff_t)y * call->in_y;
    if (!j->staged)
        return in;
    ndq_conv_gather(in, call->in_c, call->in_x, call->C, call->x.in, m->staging, call->C);
    return m->staging;
}

/* Rows under the windows of output row y, one upon the other: the largest u8 or the sums of u8 at each place. */
static void reduce_rows(const job *j, const memory *m, size_t n, size_t y)
{
    const ndq_pool *call = j->call;
    const uint8_t flip = call->operand.flip;
    memset(m->row, 0, j->width * (call->average ? sizeof(uint32_t) : 1));
    for (size_t at = (size_t)call->y.begin[y]; at < (size_t)call->y.end[y]; at += call->y.step) {
        const uint8_t *row = row_of(j, m, n, at);
        if (call->average)
            call->kernels->total_u8(j->width, flip, row, m->row);
        else
            call->kernels->largest_u8(j->width, flip, row, m->row);
    }
}

static void largest_window(const job *j, const memory *m, size_t x)
{
    const ndq_pool *call = j->call;
    const uint8_t *row = m->row, flip = call->operand.flip;
    uint8_t *out = m->codes + x * call->C;
    memset(out, 0, call->C);
    for (size_t at = (size_t)call->x.begin[x]; at < (size_t)call->x.end[x]; at += call->x.step)
        call->kernels->largest_u8(call->C, 0, row + at * call->C, out);
    for (size_t c = 0; c < call->C; c++)
        out[c] ^= flip;
}

static void average_window(const job *j, const memory *m, size_t y, size_t x)
{
    const ndq_pool *call = j->call;
    const uint32_t *row = m->row;
    uint32_t *sum = m->window;
    memset(sum, 0, call->C * sizeof(*sum));
    for (size_t at = (size_t)call->x.begin[x]; at < (size_t)call->x.end[x]; at += call->x.step)
        for (size_t c = 0; c < call->C; c++)
            sum[c] += row[at * call->C + c];
    const size_t rows = ndq_ceil_div((size_t)(call->y.end[y] - call->y.begin[y]), call->y.step);
    const size_t columns = ndq_ceil_div((size_t)(call->x.end[x] - call->x.begin[x]), call->x.step);
    const float count = (float)((size_t)call->y.count[y] * (size_t)call->x.count[x]);
    call->kernels->rescale_u8(&call->result, call->operand.scale / count,
                              (uint32_t)(rows * columns) * (uint32_t)call->operand.zero, call->C, sum,
                              m->codes + x * call->C);
}

static size_t lay_out(const job *j, uint8_t *base, memory *m)
{
    const ndq_pool *call = j->call;
    const size_t size = call->average ? sizeof(uint32_t) : 1;
    size_t used = 0;
#define TAKE(field, bytes) (m->field = base + used, used += ndq_round_up(bytes, NDQ_ALIGN))
    TAKE(row, j->width * size);
    TAKE(window, call->C * size);
    TAKE(codes, call->x.out * call->C);
    TAKE(staging, j->width);
#undef TAKE
    return used;
}

static void run_row(void *ctx, size_t index)
{
    job *j = ctx;
    const ndq_pool *call = j->call;
    const size_t n = index / call->y.out, y = index % call->y.out;
    memory m;
    uint8_t *scratch = ndq_scratch(lay_out(j, NULL, &m));
    if (!scratch) {
        __atomic_store_n(&j->no_memory, 1, __ATOMIC_RELAXED);
        return;
    }
    lay_out(j, scratch, &m);
    reduce_rows(j, &m, n, y);
    for (size_t x = 0; x < call->x.out; x++) {
        if (call->average)
            average_window(j, &m, y, x);
        else
            largest_window(j, &m, x);
    }
    ndq_conv_scatter(m.codes, call->C, call->C, call->x.out, 1, call->out + n * call->out_n + y * call->out_y,
                     call->out_c, call->out_x);
}

ndq_status ndq_pool_codes(const ndq_pool *call)
{
    size_t width;
    if (__builtin_mul_overflow(call->C, call->x.in, &width) || width > SIZE_MAX / 16)
        return NDQ_NO_MEMORY;
    job j = {.call = call, .width = width, .staged = call->in_c != 1 || call->in_x != (ptrdiff_t)call->C};
    if (call->C && call->x.out)
        ndq_for_chunks(call->N * call->y.in * width, call->N * call->y.out, run_row, &j);
    return j.no_memory ? NDQ_NO_MEMORY : NDQ_OK;
}

/* ---- Nearest neighbours ---- */

typedef struct {
    const ndq_pool *call;
    const int32_t *row, *column;
} resize_job;

static void resize_row(void *ctx, size_t index)
{
    const resize_job *j = ctx;
    const ndq_pool *call = j->call;
    const size_t n = index / call->y.out, y = index % call->y.out;
    const uint8_t *in = call->in + (ptrdiff_t)n * call->in_n + j->row[y] * call->in_y;
    uint8_t *out = call->out + n * call->out_n + y * call->out_y;
    const bool whole = call->in_c == 1 && call->out_c == 1;
    for (size_t x = 0; x < call->x.out; x++, out += call->out_x) {
        const uint8_t *pixel = in + j->column[x] * call->in_x;
        if (whole)
            memcpy(out, pixel, call->C);
        else
            for (size_t c = 0; c < call->C; c++)
                out[c * call->out_c] = pixel[(ptrdiff_t)c * call->in_c];
    }
}

void ndq_resize_codes(const ndq_pool *call, const int32_t *row, const int32_t *column)
{
    ndq_for_chunks(call->N * call->C * call->y.out * call->x.out, call->N * call->y.out, resize_row,
                   &(resize_job){call, row, column});
}
