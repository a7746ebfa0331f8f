#include "update.h"

#include "../threads.h"

/* Elements a thread takes at a time. */
enum { CHUNK = 16 * 1024 };

static void split(const ndq_update *job, void (*body)(void *job, size_t chunk))
{
    ndq_for_chunks(job->n, ndq_ceil_div(job->n, CHUNK), body, (void *)job);
}

/* Calls `slot` of the job's type. */
#define CALL(slot, ...)                                  \
    do {                                                 \
        if (job->is_double)                              \
            job->kernels->slot##_f64(__VA_ARGS__);       \
        else                                             \
            job->kernels->slot##_f32(__VA_ARGS__);       \
    } while (0)

static void relu_backward_chunk(void *ctx, size_t chunk)
{
    const ndq_update *job = ctx;
    const size_t begin = chunk * CHUNK, end = ndq_min_size(job->n, begin + CHUNK);
    CALL(relu_backward, begin, end, job->dy, job->y, job->dx);
}

static void sgd_step_chunk(void *ctx, size_t chunk)
{
    const ndq_update *job = ctx;
    const size_t begin = chunk * CHUNK, end = ndq_min_size(job->n, begin + CHUNK);
    if (job->v)
        CALL(sgd_momentum_step, &job->sgd, begin, end, job->g, job->v, job->w);
    else
        CALL(sgd_step, &job->sgd, begin, end, job->g, job->w);
}

static void adam_step_chunk(void *ctx, size_t chunk)
{
    const ndq_update *job = ctx;
    const size_t begin = chunk * CHUNK, end = ndq_min_size(job->n, begin + CHUNK);
    CALL(adam_step, &job->adam, begin, end, job->g, job->m, job->v, job->w);
}

void ndq_relu_backward(const ndq_update *job)
{
    split(job, relu_backward_chunk);
}

void ndq_sgd_step(const ndq_update *job)
{
    split(job, sgd_step_chunk);
}

void ndq_adam_step(const ndq_update *job)
{
    split(job, adam_step_chunk);
}
