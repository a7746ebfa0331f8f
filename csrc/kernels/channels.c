#include "channels.h"

#include "../threads.h"

/* Elements of a block of sums, or of what a thread takes at a time. */
enum { BLOCK = 16 * 1024 };

/* Where channels are last and fewer than this, their constants are repeated: the inner loops would be too short. */
enum { LEAST_PERIOD = 256 };

typedef struct {
    const ndq_channels *job;
    size_t n, size;           /* elements, and bytes of one */
    size_t per_block, blocks; /* outer indices of one block of sums */
    double *partial;          /* [blocks][2][channels] */
    ndq_geometry geometry;    /* with the repeated constants, if there are such */
    ndq_channels_f32 f32;
    ndq_channels_f64 f64;
} run;

static run make_run(const ndq_channels *job)
{
    const size_t row = job->geometry.channels * job->geometry.inner;
    run r = {.job = job, .n = job->outer * row, .size = job->is_double ? sizeof(double) : sizeof(float),
             .geometry = job->geometry};
    r.per_block = ndq_ceil_div(BLOCK, row ? row : 1);
    r.blocks = ndq_ceil_div(job->outer, r.per_block);
    return r;
}

static void sum_block(void *ctx, size_t block)
{
    const run *r = ctx;
    const ndq_channels *job = r->job;
    const size_t C = job->geometry.channels, inner = job->geometry.inner, first = block * r->per_block;
    const size_t count = ndq_min_size(r->per_block, job->outer - first), offset = first * C * inner * r->size;
    const char *u = (const char *)job->u + offset, *v = (const char *)job->v + offset;
    double *sums = r->partial + block * 2 * C;
    memset(sums, 0, 2 * C * sizeof(*sums));
    if (inner == 1) {
        if (job->is_double)
            job->kernels->sum_rows_f64(count, C, (const double *)u, (const double *)v, sums);
        else
            job->kernels->sum_rows_f32(count, C, (const float *)u, (const float *)v, sums);
        return;
    }
    for (size_t i = 0; i < count * C; i++, u += inner * r->size, v += inner * r->size)
        if (job->is_double)
            job->kernels->sum_run_f64(inner, (const double *)u, (const double *)v, sums + i % C, sums + C + i % C);
        else
            job->kernels->sum_run_f32(inner, (const float *)u, (const float *)v, sums + i % C, sums + C + i % C);
}

ndq_status ndq_channel_sums(const ndq_channels *job, double *sums)
{
    run r = make_run(job);
    const size_t count = 2 * job->geometry.channels;
    memset(sums, 0, count * sizeof(*sums));
    r.partial = ndq_alloc(r.blocks * count * sizeof(*r.partial));
    if (!r.partial)
        return NDQ_NO_MEMORY;
    ndq_for_chunks(r.n, r.blocks, sum_block, &r);
    for (size_t block = 0; block < r.blocks; block++)
        for (size_t i = 0; i < count; i++)
            sums[i] += r.partial[block * count + i];
    ndq_free(r.partial);
    return NDQ_OK;
}

/* Copies the constants `times` times, all into one block of memory; NULL if there is none. */
static char *repeat_constants(run *r, size_t times)
{
    const void *const from[] = {r->job->centre, r->job->scale, r->job->slope, r->job->shift};
    const size_t bytes = r->geometry.channels * r->size;
    char *memory = ndq_alloc(4 * times * bytes), *to = memory;
    for (int i = 0; memory && i < 4; i++)
        for (size_t t = 0; t < times; t++, to += bytes)
            memcpy(to, from[i], bytes);
    return memory;
}

static void scale_chunk(void *ctx, size_t chunk)
{
    const run *r = ctx;
    const size_t begin = chunk * BLOCK, end = ndq_min_size(r->n, begin + BLOCK);
    if (r->job->is_double)
        r->job->kernels->scale_channels_f64(&r->f64, &r->geometry, begin, end, r->job->u, r->job->out);
    else
        r->job->kernels->scale_channels_f32(&r->f32, &r->geometry, begin, end, r->job->u, r->job->out);
}

static void mix_chunk(void *ctx, size_t chunk)
{
    const run *r = ctx;
    const size_t begin = chunk * BLOCK, end = ndq_min_size(r->n, begin + BLOCK);
    if (r->job->is_double)
        r->job->kernels->mix_channels_f64(&r->f64, &r->geometry, begin, end, r->job->u, r->job->v, r->job->out);
    else
        r->job->kernels->mix_channels_f32(&r->f32, &r->geometry, begin, end, r->job->u, r->job->v, r->job->out);
}

static ndq_status each_channel(const ndq_channels *job, void (*body)(void *run, size_t chunk))
{
    run r = make_run(job);
    const size_t C = job->geometry.channels;
    const size_t times = r.geometry.inner == 1 && C && C < LEAST_PERIOD ? ndq_ceil_div(LEAST_PERIOD, C) : 1;
    char *constants = repeat_constants(&r, times);
    if (!constants)
        return NDQ_NO_MEMORY;
    r.geometry.channels = times * C;
    const float *f = (const float *)(const void *)constants;
    const double *d = (const double *)(const void *)constants;
    r.f32 = (ndq_channels_f32){f, f + times * C, f + 2 * times * C, f + 3 * times * C};
    r.f64 = (ndq_channels_f64){d, d + times * C, d + 2 * times * C, d + 3 * times * C};
    ndq_for_chunks(r.n, ndq_ceil_div(r.n, BLOCK), body, &r);
    ndq_free(constants);
    return NDQ_OK;
}

ndq_status ndq_scale_channels(const ndq_channels *job)
{
    return each_channel(job, scale_chunk);
}

ndq_status ndq_mix_channels(const ndq_channels *job)
{
    return each_channel(job, mix_chunk);
}
