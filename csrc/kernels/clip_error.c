#include "clip_error.h"

#include "../threads.h"

/* Ranges that a thread takes at a time: as many as make a chunk worth handing out. */
enum { CHUNK = 32 * 1024 };

static double error_of(const ndq_clip_errors *job, size_t channel, size_t number)
{
    const int64_t start = job->start[channel];
    const ndq_levels levels = {job->base[number], job->scale[number], job->levels};
    double sum;
    if (!(levels.scale > 0 && isfinite(levels.scale)))
        return INFINITY;
    job->kernels->clip_error_f64(&levels, job->p, (size_t)(job->start[channel + 1] - start), job->value + start,
                                 job->weight + start, &sum);
    /* The kernel has taken distances to the power of the float. */
    return sum * (job->p == 2 ? levels.scale * levels.scale : pow(levels.scale, (double)(float)job->p));
}

/* About as many ranges as have CHUNK values to compare with each. */
static size_t ranges_per_chunk(const ndq_clip_errors *job)
{
    const size_t values = (size_t)job->start[job->channels] / job->channels;
    return 1 + CHUNK / (values + 1);
}

static void error_chunk(void *ctx, size_t chunk)
{
    const ndq_clip_errors *job = ctx;
    const size_t each = ranges_per_chunk(job), end = ndq_min_size(job->channels * job->tries, (chunk + 1) * each);
    for (size_t number = chunk * each; number < end; number++)
        job->error[number] = error_of(job, number / job->tries, number);
}

void ndq_find_clip_errors(const ndq_clip_errors *job)
{
    if (!job->channels || !job->tries)
        return;
    const size_t values = (size_t)job->start[job->channels] / job->channels, ranges = job->channels * job->tries;
    ndq_for_chunks(ranges * (values + 1), ndq_ceil_div(ranges, ranges_per_chunk(job)), error_chunk, (void *)job);
}
