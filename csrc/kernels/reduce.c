#include "reduce.h"

#include "../threads.h"

/* Elements that one chunk of the pool should have at least. */
enum { CHUNK = 32 * 1024 };

/* A job cut into blocks; block `b` of channel `c` is number c * per_channel + b. */
typedef struct {
    const ndq_elementwise *job;
    size_t size;        /* bytes of an element */
    size_t channels;    /* of all parts */
    size_t channel_n;   /* elements of one channel */
    size_t per_channel; /* blocks of one channel */
    size_t blocks;
    size_t per_chunk; /* blocks that one chunk takes */
    void *partial;    /* one result per block */
} reduction;

typedef struct {
    size_t channel, start, count; /* elements [start, start + count) of that channel */
} block;

static reduction cut(const ndq_elementwise *job)
{
    const ndq_geometry *g = &job->geometry;
    const size_t channels = g->part ? job->n / g->part * g->channels : g->channels;
    const size_t channel_n = job->n / (channels ? channels : 1);
    const size_t per_channel = ndq_ceil_div(channel_n, NDQ_BLOCK);
    const size_t in_block = ndq_min_size(channel_n, NDQ_BLOCK);
    return (reduction){
        .job = job,
        .size = ndq_is_f32(job->arithmetic) ? sizeof(float) : sizeof(double),
        .channels = channels,
        .channel_n = channel_n,
        .per_channel = per_channel,
        .blocks = per_channel * channels,
        .per_chunk = in_block ? ndq_ceil_div(CHUNK, in_block) : 1,
    };
}

static block block_of(const reduction *r, size_t number)
{
    const size_t start = number % r->per_channel * NDQ_BLOCK;
    return (block){number / r->per_channel, start, ndq_min_size(NDQ_BLOCK, r->channel_n - start)};
}

static bool in_one_run(const ndq_geometry *g, block b)
{
    return b.start / g->inner == (b.start + b.count - 1) / g->inner;
}

/* Where element i of a channel lies in the array. */
static size_t position(const ndq_geometry *g, size_t channel, size_t i)
{
    const size_t in_part = channel % g->channels, part = channel / g->channels;
    return part * g->part + (i / g->inner * g->channels + in_part) * g->inner + i % g->inner;
}

/* Copies n elements; either side may have a stride. Constant sizes, so that each copy is one move. */
static void copy_strided(char *to, size_t to_step, const char *from, size_t from_step, size_t n, size_t size)
{
    if (size == sizeof(float))
        for (size_t i = 0; i < n; i++)
            memcpy(to + i * to_step, from + i * from_step, sizeof(float));
    else
        for (size_t i = 0; i < n; i++)
            memcpy(to + i * to_step, from + i * from_step, sizeof(double));
}

/* Collects a block that is scattered over the array, or with `back` puts it there again. */
static void transfer(const reduction *r, block b, char *array, char *buffer, bool back)
{
    const ndq_geometry *g = &r->job->geometry;
    if (g->inner == 1) {
        char *first = array + position(g, b.channel, b.start) * r->size;
        const size_t step = g->channels * r->size;
        back ? copy_strided(first, step, buffer, r->size, b.count, r->size)
             : copy_strided(buffer, r->size, first, step, b.count, r->size);
        return;
    }
    for (size_t i = b.start, end = b.start + b.count; i < end;) {
        const size_t run = ndq_min_size(end - i, g->inner - i % g->inner);
        char *there = array + position(g, b.channel, i) * r->size;
        memcpy(back ? there : buffer, back ? buffer : there, run * r->size);
        buffer += run * r->size;
        i += run;
    }
}

/* The block of `array` as contiguous data: in place if it is so, else collected in `buffer`. */
static const void *contiguous(const reduction *r, block b, const void *array, void *buffer)
{
    const ndq_geometry *g = &r->job->geometry;
    if (in_one_run(g, b))
        return (const char *)array + position(g, b.channel, b.start) * r->size;
    transfer(r, b, (char *)array, buffer, false);
    return buffer;
}

static void run(reduction *r, void (*body)(void *reduction, size_t chunk))
{
    ndq_for_chunks(r->job->n, ndq_ceil_div(r->blocks, r->per_chunk), body, r);
}

/* Calls the kernel `slot` of the job's arithmetic on one block. */
#define BLOCK_CALL(slot, ...)                                                                                 \
    do {                                                                                                      \
        const ndq_kernels *k = job->kernels;                                                                  \
        switch (job->arithmetic) {                                                                            \
        case NDQ_F32:                                                                                         \
            k->slot##_f32(&job->params->f32, b.channel, b.count, __VA_ARGS__);                                \
            break;                                                                                            \
        case NDQ_DIVIDE_F32:                                                                                  \
            k->slot##_divide_f32(&job->params->f32, b.channel, b.count, __VA_ARGS__);                         \
            break;                                                                                            \
        case NDQ_F64:                                                                                         \
            k->slot##_f64(&job->params->f64, b.channel, b.count, __VA_ARGS__);                                \
            break;                                                                                            \
        case NDQ_DIVIDE_F64:                                                                                  \
            k->slot##_divide_f64(&job->params->f64, b.channel, b.count, __VA_ARGS__);                         \
            break;                                                                                            \
        case NDQ_TEXTBOOK_F64:                                                                                \
            k->slot##_textbook(&job->params->f64, b.channel, b.count, __VA_ARGS__);                           \
            break;                                                                                            \
        }                                                                                                     \
    } while (0)

static void learnable_block(const reduction *r, size_t number)
{
    const ndq_elementwise *job = r->job;
    const block b = block_of(r, number);
    double buffers[3][NDQ_BLOCK];
    const void *x = contiguous(r, b, job->x, buffers[0]);
    const void *dy = contiguous(r, b, job->dy, buffers[1]);
    const bool direct = in_one_run(&job->geometry, b);
    void *dx = direct ? (char *)job->dx + position(&job->geometry, b.channel, b.start) * r->size : (char *)buffers[2];
    double *sums = (double *)r->partial + 2 * number;
    BLOCK_CALL(fake_quantize_learnable, dy, x, dx, sums);
    if (!direct)
        transfer(r, b, job->dx, dx, true);
}

static void learnable_chunk(void *ctx, size_t chunk)
{
    const reduction *r = ctx;
    const size_t end = ndq_min_size(r->blocks, (chunk + 1) * r->per_chunk);
    for (size_t number = chunk * r->per_chunk; number < end; number++)
        learnable_block(r, number);
}

ndq_status ndq_fake_quantize_learnable(const ndq_elementwise *job, double grad_factor, double *dscale, double *dzp)
{
    reduction r = cut(job);
    double *sums = r.partial = ndq_alloc(r.blocks * 2 * sizeof(double));
    if (!sums)
        return NDQ_NO_MEMORY;
    run(&r, learnable_chunk);
    for (size_t c = 0; c < r.channels; c++) {
        dscale[c] = dzp[c] = 0;
        for (size_t b = 0; b < r.per_channel; b++, sums += 2) {
            dscale[c] += sums[0];
            dzp[c] += sums[1];
        }
        dscale[c] *= grad_factor;
        dzp[c] *= grad_factor;
    }
    ndq_free(r.partial);
    return NDQ_OK;
}

static void errors_chunk(void *ctx, size_t chunk)
{
    const reduction *r = ctx;
    const ndq_elementwise *job = r->job;
    const size_t end = ndq_min_size(r->blocks, (chunk + 1) * r->per_chunk);
    for (size_t number = chunk * r->per_chunk; number < end; number++) {
        double buffer[NDQ_BLOCK];
        const block b = block_of(r, number);
        const void *x = contiguous(r, b, job->x, buffer);
        BLOCK_CALL(errors, x, (double *)r->partial + NDQ_ERRORS * number);
    }
}

static void squares_chunk(void *ctx, size_t chunk)
{
    const reduction *r = ctx;
    const ndq_elementwise *job = r->job;
    const size_t end = ndq_min_size(r->blocks, (chunk + 1) * r->per_chunk);
    for (size_t number = chunk * r->per_chunk; number < end; number++) {
        const block b = block_of(r, number);
        double *sums = (double *)r->partial + 2 * number;
        if (ndq_is_f32(job->arithmetic))
            job->kernels->squares_f32(b.count, (const float *)job->x + b.start, (const float *)job->y + b.start, sums);
        else
            job->kernels->squares_f64(b.count, (const double *)job->x + b.start, (const double *)job->y + b.start, sums);
    }
}

/* Adds up what `body` leaves of each block, `count` sums a block: blocks in order, then channels. */
static ndq_status add_up(const ndq_elementwise *job, void (*body)(void *, size_t), size_t count, double *sums)
{
    reduction r = cut(job);
    double *of_block = r.partial = ndq_alloc(r.blocks * count * sizeof(double));
    if (!of_block)
        return NDQ_NO_MEMORY;
    run(&r, body);
    for (size_t s = 0; s < count; s++)
        sums[s] = 0;
    for (size_t c = 0; c < r.channels; c++) {
        double channel[NDQ_ERRORS] = {0};
        for (size_t b = 0; b < r.per_channel; b++, of_block += count)
            for (size_t s = 0; s < count; s++)
                channel[s] += of_block[s];
        for (size_t s = 0; s < count; s++)
            sums[s] += channel[s];
    }
    ndq_free(r.partial);
    return NDQ_OK;
}

ndq_status ndq_errors(const ndq_elementwise *job, double sums[NDQ_ERRORS])
{
    return add_up(job, errors_chunk, NDQ_ERRORS, sums);
}

ndq_status ndq_squares(const ndq_elementwise *job, double sums[2])
{
    return add_up(job, squares_chunk, 2, sums);
}

static const ndq_extremes nothing_seen = {.min = INFINITY, .max = -INFINITY};

static void minmax_chunk(void *ctx, size_t chunk)
{
    const reduction *r = ctx;
    const ndq_kernels *k = r->job->kernels;
    const size_t end = ndq_min_size(r->blocks, (chunk + 1) * r->per_chunk);
    for (size_t number = chunk * r->per_chunk; number < end; number++) {
        double buffer[NDQ_BLOCK];
        const block b = block_of(r, number);
        const void *x = contiguous(r, b, r->job->x, buffer);
        ndq_extremes *e = (ndq_extremes *)r->partial + number;
        *e = nothing_seen;
        ndq_is_f32(r->job->arithmetic) ? k->minmax_f32(b.count, x, e) : k->minmax_f64(b.count, x, e);
    }
}

ndq_status ndq_minmax(const ndq_elementwise *job, ndq_extremes *extremes)
{
    reduction r = cut(job);
    ndq_extremes *seen = r.partial = ndq_alloc(r.blocks * sizeof *seen);
    if (!seen)
        return NDQ_NO_MEMORY;
    run(&r, minmax_chunk);
    for (size_t c = 0; c < r.channels; c++) {
        ndq_extremes *e = &extremes[c];
        *e = nothing_seen;
        for (size_t b = 0; b < r.per_channel; b++, seen++) {
            e->min = seen->min < e->min ? seen->min : e->min;
            e->max = seen->max > e->max ? seen->max : e->max;
            e->nans += seen->nans;
            e->infs += seen->infs;
        }
        e->min += 0.0;
        e->max += 0.0;
    }
    ndq_free(r.partial);
    return NDQ_OK;
}
