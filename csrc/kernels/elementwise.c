#include "elementwise.h"

#include "../threads.h"

/* Elements a thread takes at a time. */
enum { CHUNK = 32 * 1024 };

/* Ten arrays in one block: five coefficients in float64, then the same in float32. */
enum { COEFFICIENTS = 5 };

ndq_status ndq_params_init(ndq_params *params, size_t channels, const double *scale, const double *zero_point,
                           int32_t qmin, int32_t qmax, ndq_rule rule)
{
    const size_t each = COEFFICIENTS * (sizeof(double) + sizeof(float));
    if (channels > SIZE_MAX / each)
        return NDQ_NO_MEMORY;
    double *d = ndq_alloc(channels * each);
    if (!d)
        return NDQ_NO_MEMORY;
    float *f = (float *)(d + COEFFICIENTS * channels);
    const size_t C = channels;
    *params = (ndq_params){
        .channels = C, .qmin = qmin, .qmax = qmax, .rule = rule, .fits_f32 = true, .memory = d,
        .f64 = {.scale = d, .inv = d + C, .zp = d + 2 * C, .lo = d + 3 * C, .hi = d + 4 * C},
        .f32 = {.scale = f, .inv = f + C, .zp = f + 2 * C, .lo = f + 3 * C, .hi = f + 4 * C},
    };
    for (size_t c = 0; scale && c < C; c++)
        params->fits_f32 &= ndq_params_set(params, c, scale[c], zero_point[c]);
    return NDQ_OK;
}

bool ndq_params_set(ndq_params *params, size_t channel, double scale, double zero_point)
{
    const size_t C = params->channels;
    double *d = (double *)params->memory + channel;
    float *f = (float *)((double *)params->memory + COEFFICIENTS * C) + channel;
    const double shift = params->rule == NDQ_TEXTBOOK_RULE ? 0 : zero_point;
    const double exact[COEFFICIENTS] = {scale, 1.0 / scale, zero_point, params->qmin - shift, params->qmax - shift};
    for (size_t row = 0; row < COEFFICIENTS; row++) {
        d[row * C] = exact[row];
        f[row * C] = (float)exact[row];
    }
    f[C] = 1.0f / f[0];
    return isfinite(f[0]) && f[0] > 0 && isfinite(f[C]);
}

void ndq_params_free(ndq_params *params)
{
    ndq_free(params->memory);
    params->memory = NULL;
}

static void split(const ndq_elementwise *job, void (*body)(void *job, size_t chunk))
{
    ndq_for_chunks(job->n, ndq_ceil_div(job->n, CHUNK), body, (void *)job);
}

/* Calls the kernel `slot` of the job's arithmetic on one chunk. */
#define CALL(slot, ...)                                                                                       \
    do {                                                                                                      \
        const size_t begin = chunk * CHUNK, end = ndq_min_size(job->n, begin + CHUNK);                        \
        const ndq_kernels *k = job->kernels;                                                                  \
        if (job->arithmetic == NDQ_F32)                                                                       \
            k->slot##_f32(&job->params->f32, &job->geometry, begin, end, __VA_ARGS__);                        \
        else if (job->arithmetic == NDQ_F64)                                                                  \
            k->slot##_f64(&job->params->f64, &job->geometry, begin, end, __VA_ARGS__);                        \
        else                                                                                                  \
            k->slot##_textbook(&job->params->f64, &job->geometry, begin, end, __VA_ARGS__);                   \
    } while (0)

static void quantize_chunk(void *ctx, size_t chunk)
{
    const ndq_elementwise *job = ctx;
    CALL(quantize, job->x, job->q);
}

static void dequantize_chunk(void *ctx, size_t chunk)
{
    const ndq_elementwise *job = ctx;
    const size_t begin = chunk * CHUNK, end = ndq_min_size(job->n, begin + CHUNK);
    const ndq_kernels *k = job->kernels;
    const ndq_affine_f32 *f32 = &job->params->f32;
    const ndq_affine_f64 *f64 = &job->params->f64;
    const ndq_geometry *g = &job->geometry;
    if (job->arithmetic == NDQ_F32)
        job->codes_signed ? k->dequantize_s8_f32(f32, g, begin, end, job->x, job->y)
                          : k->dequantize_u8_f32(f32, g, begin, end, job->x, job->y);
    else
        job->codes_signed ? k->dequantize_s8_f64(f64, g, begin, end, job->x, job->y)
                          : k->dequantize_u8_f64(f64, g, begin, end, job->x, job->y);
}

static void fake_quantize_chunk(void *ctx, size_t chunk)
{
    const ndq_elementwise *job = ctx;
    CALL(fake_quantize, job->x, job->y);
}

static void fake_quantize_backward_chunk(void *ctx, size_t chunk)
{
    const ndq_elementwise *job = ctx;
    CALL(fake_quantize_backward, job->dy, job->x, job->dx);
}

static void fake_quantize_with_grad_chunk(void *ctx, size_t chunk)
{
    const ndq_elementwise *job = ctx;
    CALL(fake_quantize_with_grad, job->dy, job->x, job->y, job->dx);
}

void ndq_quantize(const ndq_elementwise *job)
{
    split(job, quantize_chunk);
}

void ndq_dequantize(const ndq_elementwise *job)
{
    split(job, dequantize_chunk);
}

void ndq_fake_quantize(const ndq_elementwise *job)
{
    split(job, fake_quantize_chunk);
}

void ndq_fake_quantize_backward(const ndq_elementwise *job)
{
    split(job, fake_quantize_backward_chunk);
}

void ndq_fake_quantize_with_grad(const ndq_elementwise *job)
{
    split(job, fake_quantize_with_grad_chunk);
}
