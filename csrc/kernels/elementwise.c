#include "elementwise.h"

#include "../threads.h"

/* Elements a thread takes at a time. */
enum { CHUNK = 32 * 1024 };

/* Twelve arrays in one block: six coefficients in float64, then the same in float32. */
enum { COEFFICIENTS = 6 };

static ndq_code_type code_type(int64_t qmin, int64_t qmax)
{
    const bool is_signed = qmin < 0;
    const int64_t top = is_signed && -(qmin + 1) > qmax ? -(qmin + 1) : qmax;
    const int64_t positive = is_signed ? top << 1 : top; /* a sign takes a bit */
    return (positive < 1 << 8 ? NDQ_U8 : positive < 1 << 16 ? NDQ_U16 : NDQ_U32) + (is_signed ? 1 : 0);
}

ndq_status ndq_params_init(ndq_params *params, size_t channels, const double *scale, const double *zero_point,
                           int64_t qmin, int64_t qmax, ndq_rule rule)
{
    const size_t each = COEFFICIENTS * (sizeof(double) + sizeof(float));
    if (channels > SIZE_MAX / each)
        return NDQ_NO_MEMORY;
    double *d = ndq_alloc(channels * each);
    if (!d)
        return NDQ_NO_MEMORY;
    float *f = (float *)(d + COEFFICIENTS * channels);
    const size_t C = channels;
    const bool offset = rule == NDQ_OFFSET || rule == NDQ_OFFSET_F64;
    const ndq_code_type codes = code_type(qmin, qmax);
    *params = (ndq_params){
        .channels = C, .qmin = qmin, .qmax = qmax, .rule = rule, .codes = codes, .float_offset = offset,
        .always_f64 = codes >= NDQ_U32 || rule == NDQ_TEXTBOOK_RULE || rule == NDQ_OFFSET_F64,
        .fits_f32 = true, .memory = d,
        .f64 = {d, d + C, d + 2 * C, d + 3 * C, d + 4 * C, d + 5 * C, offset},
        .f32 = {f, f + C, f + 2 * C, f + 3 * C, f + 4 * C, f + 5 * C, offset},
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
    const double offset = params->float_offset ? zero_point : 0, zero = zero_point - offset;
    const double shift = params->rule == NDQ_TEXTBOOK_RULE ? 0 : zero;
    const double low = (double)params->qmin - shift, high = (double)params->qmax - shift;
    const double exact[COEFFICIENTS] = {scale, 1.0 / scale, zero, low, high, offset};
    for (size_t row = 0; row < COEFFICIENTS; row++) {
        d[row * C] = exact[row];
        f[row * C] = (float)exact[row];
    }
    f[C] = 1.0f / f[0];
    return isfinite(f[0]) && f[0] > 0 && isfinite(f[C]) && isfinite(f[5 * C]);
}

void ndq_params_free(ndq_params *params)
{
    ndq_free(params->memory);
    params->memory = NULL;
}

ndq_arithmetic ndq_arithmetic_of(const ndq_params *params, bool narrow)
{
    if (params->rule == NDQ_TEXTBOOK_RULE)
        return NDQ_TEXTBOOK_F64;
    const bool divide = params->rule != NDQ_MULTIPLY;
    return (narrow && !params->always_f64 ? NDQ_F32 : NDQ_F64) + (divide ? 1 : 0);
}

/* Elements of one part of an array: `first` is the first of them in the array, `position` in the part. */
typedef struct {
    size_t first, position, n;
    const ndq_affine_f32 *f32; /* coefficients of the part */
    const ndq_affine_f64 *f64;
} stretch;

typedef void stretch_body(const ndq_elementwise *job, const stretch *s);

typedef struct {
    const ndq_elementwise *job;
    stretch_body *body;
} task;

/* The coefficients from channel `first` on. */
#define SHIFTED(p, first)                                                                                     \
    {p.scale + first, p.inv + first, p.zp + first, p.lo + first, p.hi + first, p.offset + first, p.float_offset}

/* Elements [begin, end) of an array that has several parts; see run_span. */
static void run_parts(const task *t, size_t begin, size_t end, size_t origin)
{
    const ndq_params *params = t->job->params;
    const size_t part = t->job->geometry.part, channels = t->job->geometry.channels;
    for (size_t first = begin, last; first < end; first = last) {
        const size_t position = first % part, channel = first / part * channels;
        last = ndq_min_size(end, first + (part - position));
        const ndq_affine_f32 f32 = SHIFTED(params->f32, channel);
        const ndq_affine_f64 f64 = SHIFTED(params->f64, channel);
        t->body(t->job, &(stretch){first - origin, position, last - first, &f32, &f64});
    }
}

/* Elements [begin, end) of an array; what the job points to begins at its element `origin`. */
static void run_span(const task *t, size_t begin, size_t end, size_t origin)
{
    const ndq_elementwise *job = t->job;
    if (job->geometry.part)
        run_parts(t, begin, end, origin);
    else
        t->body(job, &(stretch){begin - origin, begin, end - begin, &job->params->f32, &job->params->f64});
}

static void run_chunk(void *ctx, size_t chunk)
{
    const task *t = ctx;
    const size_t begin = chunk * CHUNK;
    run_span(t, begin, ndq_min_size(t->job->n, begin + CHUNK), 0);
}

static void run(const ndq_elementwise *job, stretch_body *body)
{
    task t = {job, body};
    ndq_for_chunks(job->n, ndq_ceil_div(job->n, CHUNK), run_chunk, &t);
}

/* In the arguments of CALL: where the stretch begins in an input or an output of type C. */
#define IN(C, array) ((const C *)job->array + s->first)
#define OUT(C, array) ((C *)job->array + s->first)

/* Calls the kernel `slot` of one arithmetic, in whose arguments T is the type that computes. */
#define CALL_ONE(slot, type, affine, ...)                                                                     \
    do {                                                                                                      \
        typedef type T;                                                                                       \
        job->kernels->slot(affine, &job->geometry, s->position, s->n, __VA_ARGS__);                           \
    } while (0)

#define CALL_F64(slot, ...)                                                                                   \
    do {                                                                                                      \
        if (job->arithmetic == NDQ_F64)                                                                       \
            CALL_ONE(slot##_f64, double, s->f64, __VA_ARGS__);                                                \
        else if (job->arithmetic == NDQ_DIVIDE_F64)                                                           \
            CALL_ONE(slot##_divide_f64, double, s->f64, __VA_ARGS__);                                         \
        else                                                                                                  \
            CALL_ONE(slot##_textbook, double, s->f64, __VA_ARGS__);                                           \
    } while (0)

#define CALL(slot, ...)                                                                                       \
    do {                                                                                                      \
        if (job->arithmetic == NDQ_F32)                                                                       \
            CALL_ONE(slot##_f32, float, s->f32, __VA_ARGS__);                                                 \
        else if (job->arithmetic == NDQ_DIVIDE_F32)                                                           \
            CALL_ONE(slot##_divide_f32, float, s->f32, __VA_ARGS__);                                          \
        else                                                                                                  \
            CALL_F64(slot, __VA_ARGS__);                                                                      \
    } while (0)

static void quantize(const ndq_elementwise *job, const stretch *s)
{
    const size_t bytes = ndq_code_bytes(job->codes);
    if (bytes == 1)
        CALL(quantize, IN(T, x), OUT(uint8_t, q));
    else if (bytes == 2)
        CALL(quantize16, IN(T, x), OUT(uint16_t, q));
    else
        CALL_F64(quantize32, IN(T, x), OUT(uint32_t, q));
}

static void dequantize(const ndq_elementwise *job, const stretch *s)
{
    switch (job->codes) {
    case NDQ_S8:
        CALL(dequantize_s8, IN(int8_t, x), OUT(T, y));
        break;
    case NDQ_U8:
        CALL(dequantize_u8, IN(uint8_t, x), OUT(T, y));
        break;
    case NDQ_S16:
        CALL(dequantize_s16, IN(int16_t, x), OUT(T, y));
        break;
    case NDQ_U16:
        CALL(dequantize_u16, IN(uint16_t, x), OUT(T, y));
        break;
    case NDQ_S32:
        CALL_F64(dequantize_s32, IN(int32_t, x), OUT(T, y));
        break;
    case NDQ_U32:
        CALL_F64(dequantize_u32, IN(uint32_t, x), OUT(T, y));
        break;
    }
}

static void fake_quantize(const ndq_elementwise *job, const stretch *s)
{
    CALL(fake_quantize, IN(T, x), OUT(T, y));
}

static void fake_quantize_backward(const ndq_elementwise *job, const stretch *s)
{
    CALL(fake_quantize_backward, IN(T, dy), IN(T, x), OUT(T, dx));
}

static void fake_quantize_with_grad(const ndq_elementwise *job, const stretch *s)
{
    CALL(fake_quantize_with_grad, IN(T, dy), IN(T, x), OUT(T, y), OUT(T, dx));
}

void ndq_quantize(const ndq_elementwise *job)
{
    run(job, quantize);
}

void ndq_dequantize(const ndq_elementwise *job)
{
    run(job, dequantize);
}

void ndq_fake_quantize(const ndq_elementwise *job)
{
    run(job, fake_quantize);
}

void ndq_fake_quantize_backward(const ndq_elementwise *job)
{
    run(job, fake_quantize_backward);
}

void ndq_fake_quantize_with_grad(const ndq_elementwise *job)
{
    run(job, fake_quantize_with_grad);
}

typedef struct {
    const ndq_elementwise *from, *to;
    bool by_f32;
} requantization;

enum { REQUANTIZE_BLOCK = 1024 };

/* The values of one block, in the type that the next step reads. */
typedef struct {
    float f32[REQUANTIZE_BLOCK];
    double f64[REQUANTIZE_BLOCK];
} block_values;

static void *values_of(block_values *v, ndq_arithmetic arithmetic)
{
    return ndq_is_f32(arithmetic) ? (void *)v->f32 : (void *)v->f64;
}

static void requantize_block(const requantization *r, size_t begin, size_t end)
{
    block_values v;
    const size_t n = end - begin;
    ndq_elementwise from = *r->from, to = *r->to;
    from.x = (const char *)from.x + begin * ndq_code_bytes(from.codes);
    from.y = values_of(&v, from.arithmetic);
    run_span(&(task){&from, dequantize}, begin, end, begin);
    if (r->by_f32 && !ndq_is_f32(from.arithmetic))
        for (size_t i = 0; i < n; i++)
            v.f32[i] = (float)v.f64[i];
    if (r->by_f32 && !ndq_is_f32(to.arithmetic))
        for (size_t i = 0; i < n; i++)
            v.f64[i] = v.f32[i];
    to.x = values_of(&v, to.arithmetic);
    to.q = (char *)to.q + begin * ndq_code_bytes(to.codes);
    run_span(&(task){&to, quantize}, begin, end, begin);
}

static void requantize_chunk(void *ctx, size_t chunk)
{
    const requantization *r = ctx;
    const size_t end = ndq_min_size(r->from->n, (chunk + 1) * CHUNK);
    for (size_t begin = chunk * CHUNK; begin < end; begin += REQUANTIZE_BLOCK)
        requantize_block(r, begin, ndq_min_size(end, begin + REQUANTIZE_BLOCK));
}

void ndq_requantize(const ndq_elementwise *from, const ndq_elementwise *to, bool by_f32)
{
    requantization r = {from, to, by_f32};
    ndq_for_chunks(from->n, ndq_ceil_div(from->n, CHUNK), requantize_chunk, &r);
}
