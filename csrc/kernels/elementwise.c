#include "elementwise.h"

#include "../threads.h"
#include "table.h"

/* Elements a thread takes at a time. */
enum { CHUNK = 32 * 1024 };

/* Elements of a cache line, or more. */
enum { LINE = 16 };

static ndq_code_type code_type(int64_t qmin, int64_t qmax)
{
    const bool is_signed = qmin < 0;
    const int64_t top = is_signed && -(qmin + 1) > qmax ? -(qmin + 1) : qmax;
    const int64_t positive = is_signed ? top << 1 : top; /* a sign takes a bit */
    return (positive < 1 << 8 ? NDQ_U8 : positive < 1 << 16 ? NDQ_U16 : NDQ_U32) + (is_signed ? 1 : 0);
}

/* The arrays of params are one block: coefficients in float64, then the same in float32. A cache line lies between
 * arrays that could otherwise begin at the same place of the first cache. */
static size_t pitch_of(size_t channels)
{
    enum { MANY = 512 };
    return channels < MANY ? channels : channels + LINE;
}

ndq_status ndq_params_init(ndq_params *params, size_t channels, const double *scale, const double *zero_point,
                           int64_t qmin, int64_t qmax, ndq_rule rule)
{
    const size_t each = NDQ_COEFFICIENTS * (sizeof(double) + sizeof(float));
    if (channels > SIZE_MAX / each / 2)
        return NDQ_NO_MEMORY;
    const size_t C = channels, P = pitch_of(channels);
    double *d = ndq_alloc(P * each);
    if (!d)
        return NDQ_NO_MEMORY;
    float *f = (float *)(d + NDQ_COEFFICIENTS * P);
    const bool offset = rule == NDQ_OFFSET || rule == NDQ_OFFSET_F64;
    const ndq_code_type codes = code_type(qmin, qmax);
    bool same = offset || zero_point;
    for (size_t c = 0; same && !offset && c < C; c++)
        same = zero_point[c] == zero_point[0];
    *params = (ndq_params){
        .channels = C, .qmin = qmin, .qmax = qmax, .rule = rule, .codes = codes, .float_offset = offset,
        .always_f64 = codes >= NDQ_U32 || rule == NDQ_TEXTBOOK_RULE || rule == NDQ_OFFSET_F64,
        .fits_f32 = true, .memory = d,
        .f64 = {d, d + P, d + 2 * P, d + 3 * P, d + 4 * P, d + 5 * P, (double)qmin, offset, same},
        .f32 = {f, f + P, f + 2 * P, f + 3 * P, f + 4 * P, f + 5 * P, (float)qmin, offset, same},
    };
    if (scale)
        params->fits_f32 = ndq_params_set(params, 0, C, scale, zero_point);
    return NDQ_OK;
}

/* A row of coefficients in both types. */
#define SET_ROW(row, VALUE)                                                             \
    for (size_t c = 0; c < count; c++) {                                                \
        const double value = VALUE;                                                     \
        d[(row) * P + c] = value;                                                       \
        f[(row) * P + c] = (float)value;                                                \
    }

/* Row by row, as training sets the channels of a weight at every step: compilers vectorise that. */
bool ndq_params_set(ndq_params *params, size_t first, size_t count, const double *scale, const double *zero_point)
{
    const size_t P = pitch_of(params->channels);
    double *NDQ_RESTRICT d = (double *)params->memory + first;
    float *NDQ_RESTRICT f = (float *)((double *)params->memory + NDQ_COEFFICIENTS * P) + first;
    const bool offset = params->float_offset, shifts = params->rule != NDQ_TEXTBOOK_RULE && !offset;
    const double qmin = (double)params->qmin, qmax = (double)params->qmax;
    SET_ROW(0, scale[c])
    SET_ROW(1, 1.0 / scale[c])
    SET_ROW(2, offset ? 0 : zero_point[c])
    SET_ROW(3, shifts ? qmin - zero_point[c] : qmin)
    SET_ROW(4, shifts ? qmax - zero_point[c] : qmax)
    SET_ROW(5, offset ? zero_point[c] : 0)
    int unfit = 0;
    for (size_t c = 0; c < count; c++) {
        const float inv = 1.0f / f[c];
        f[P + c] = inv;
        unfit |= !(f[c] > 0) | !(f[c] < INFINITY) | !(inv < INFINITY);
    }
    for (size_t c = 0; offset && c < count; c++)
        unfit |= !isfinite(f[5 * P + c]);
    return !unfit;
}
#undef SET_ROW

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

static size_t float_bytes(const ndq_elementwise *job)
{
    return ndq_is_f32(job->arithmetic) ? sizeof(float) : sizeof(double);
}

/* n elements, the first of which is element `position` of what is viewed. */
typedef struct {
    const ndq_view *view;
    size_t position, n;
    const char *in[2];
    char *out[2];
} stretch;

typedef void stretch_body(const ndq_elementwise *job, const stretch *s);

/* A function on whole arrays. `staged`: kernels work on copies of some operands; `stream`: outputs go past the
 * caches. If `tile` is not 0, the array is seen as rows of `period` elements, after which coefficients return, and cut
 * into tiles of so many columns. */
typedef struct {
    const ndq_elementwise *job;
    stretch_body *body;
    unsigned does; /* as table.h says it */
    ndq_operand in[2], out[2];
    bool staged, stream;
    size_t tile, period;
    ndq_view view;
    size_t tabulated; /* elements for which a table is made at a time, 0 if `view` serves for all */
} task;

/* The coefficients of a view, whose arrays are AT(p, name). */
#define COEFFICIENTS_AT(p, AT)                                                                                \
    {AT(p, scale), AT(p, inv), AT(p, zp), AT(p, lo), AT(p, hi), AT(p, offset), p.qmin, p.float_offset, p.same_zero}

/* Element `first` of an operand, NULL if there is none. */
static char *at(const ndq_operand *o, size_t first)
{
    return o->data ? o->data + first * o->bytes : NULL;
}

/* Calls the kernel part by part, where an array has several. */
static void run_parts(const task *t, size_t first, stretch s)
{
    const ndq_elementwise *job = t->job;
    const size_t part = job->geometry.part;
    for (const size_t end = first + s.n; first < end; first += s.n) {
        const size_t channel = first / part * job->geometry.channels;
#define FROM_CHANNEL(p, name) p.name + channel
        const ndq_view v = {job->geometry, COEFFICIENTS_AT(job->params->f32, FROM_CHANNEL),
                        COEFFICIENTS_AT(job->params->f64, FROM_CHANNEL)};
#undef FROM_CHANNEL
        s.view = &v;
        s.position = first % part;
        s.n = ndq_min_size(end - first, part - s.position);
        t->body(job, &s);
        for (int k = 0; k < 2; k++) {
            s.in[k] = s.in[k] ? s.in[k] + s.n * t->in[k].bytes : NULL;
            s.out[k] = s.out[k] ? s.out[k] + s.n * t->out[k].bytes : NULL;
        }
    }
}

static void run_stretch(const task *t, const stretch *s)
{
    if (t->job->geometry.part)
        run_parts(t, s->position, *s);
    else
        t->body(t->job, s);
}

/* Whether kernels read or write the array itself, rather than a copy of a block. */
static bool direct(const task *t, const ndq_operand *o)
{
    return ndq_is_direct(o) && !(t->stream && (o == &t->out[0] || o == &t->out[1]));
}

static void run_staged(const task *t, const ndq_view *v, size_t first, size_t n)
{
    double memory[4][NDQ_STAGED];
    stretch s = {.view = v, .position = first, .n = n};
    for (int k = 0; k < 2; k++) {
        s.in[k] = at(&t->in[k], first);
        s.out[k] = direct(t, &t->out[k]) ? at(&t->out[k], first) : (char *)memory[2 + k];
        if (!direct(t, &t->in[k])) {
            ndq_load(t->job->kernels, &t->in[k], first, n, memory[k]);
            s.in[k] = (const char *)memory[k];
        }
    }
    run_stretch(t, &s);
    for (int k = 0; k < 2; k++) {
        if (t->stream)
            ndq_prefetch(&t->in[k], first + 2 * NDQ_STAGED, ndq_min_size(t->job->n, first + 2 * NDQ_STAGED + n));
        if (t->out[k].data && !direct(t, &t->out[k]))
            ndq_store(t->job->kernels, &t->out[k], first, n, s.out[k]);
    }
}

/* Elements up to where the first output begins a cache line: lines that are streamed in two pieces are slow. */
static size_t to_next_line(const task *t, size_t first)
{
    const size_t begun = (uintptr_t)(t->out[0].data + first * t->out[0].bytes) % NDQ_ALIGN;
    return t->stream && begun ? (NDQ_ALIGN - begun) / t->out[0].bytes : 0;
}

static void run_range(const task *t, const ndq_view *v, size_t begin, size_t end)
{
    if (!t->staged) {
        const char *x = at(&t->in[0], begin), *dy = at(&t->in[1], begin);
        run_stretch(t, &(stretch){v, begin, end - begin, {x, dy}, {at(&t->out[0], begin), at(&t->out[1], begin)}});
        return;
    }
    for (size_t first = begin, n; first < end; first += n) {
        n = to_next_line(t, first);
        n = ndq_min_size(end - first, n ? n : NDQ_STAGED);
        run_staged(t, v, first, n);
    }
    if (t->stream)
        ndq_stream_end();
}

static ndq_view whole_view(const ndq_elementwise *job)
{
    return (ndq_view){job->geometry, job->params->f32, job->params->f64};
}

/* A view of so many columns, where channels are the last axis. */
static ndq_view some_columns(const ndq_elementwise *job, size_t column, size_t columns)
{
#define FROM_COLUMN(p, name) p.name + column
    return (ndq_view){{columns, 1, 0, 0}, COEFFICIENTS_AT(job->params->f32, FROM_COLUMN),
                      COEFFICIENTS_AT(job->params->f64, FROM_COLUMN)};
#undef FROM_COLUMN
}

/* Kernels take so many rows at a time, at most. */
enum { ROWS = 4 };

static size_t rows_of_a_chunk(const task *t)
{
    const size_t rows = CHUNK / t->tile / ROWS * ROWS;
    return rows ? rows : ROWS;
}

static void run_tile(void *ctx, size_t chunk)
{
    const task *t = ctx;
    const size_t tiles = ndq_ceil_div(t->period, t->tile), column = chunk % tiles * t->tile;
    const size_t columns = ndq_min_size(t->tile, t->period - column), most = rows_of_a_chunk(t);
    const size_t row = chunk / tiles * most, rows = ndq_min_size(most, t->job->n / t->period - row);
    ndq_table table;
    ndq_view v = t->job->geometry.inner == 1 ? some_columns(t->job, column, columns)
                                             : ndq_tabulate(t->job, t->does, t->tile, column, columns, &table);
    v.geometry.channels = columns;
    v.geometry.gap = t->period - columns;
    stretch s = {.view = &v, .n = (rows - 1) * t->period + columns};
    for (int k = 0; k < 2; k++) {
        s.in[k] = at(&t->in[k], row * t->period + column);
        s.out[k] = at(&t->out[k], row * t->period + column);
    }
    t->body(t->job, &s);
}

static void run_chunk(void *ctx, size_t chunk)
{
    const task *t = ctx;
    const size_t begin = chunk * CHUNK, end = ndq_min_size(t->job->n, begin + CHUNK);
    if (!t->tabulated) {
        run_range(t, &t->view, begin, end);
        return;
    }
    ndq_table table;
    for (size_t first = begin, last; first < end; first = last) {
        last = ndq_min_size(end, first + t->tabulated);
        const ndq_view v = ndq_tabulate(t->job, t->does, t->tabulated, first, last - first, &table);
        run_range(t, &v, first, last);
    }
}

/* Where less is written than read, nothing is gained. Outputs that are inputs themselves are in the caches already when
 * they are written. */
static bool goes_past_the_caches(const task *t)
{
    size_t read = 0, written = 0;
    for (int k = 0; k < 2; k++) {
        const ndq_operand *o = &t->out[k];
        if (o->data && (!ndq_is_direct(o) || o->data == t->in[0].data || o->data == t->in[1].data))
            return false;
        read += t->in[k].bytes;
        written += o->bytes;
    }
    return written >= read && t->job->n * (read + written) > ndq_get_stream_from();
}

/* Columns of the tiles, whole cache lines of them; 0 if the array is not to be cut into such. Rows that are done at one
 * time need no coefficients twice: their tiles are what a thread takes. */
static size_t tile_of(const task *t)
{
    const ndq_geometry *g = &t->job->geometry;
    const size_t rows = t->job->n / t->period;
    const bool once = rows < ROWS;
    if (t->staged || g->part || g->inner > NDQ_REPEAT_MOST || rows == 0 || (once && g->inner > 1))
        return 0;
    const size_t most = once ? CHUNK / rows : ndq_tile_columns(t->job, t->does);
    return t->period < most ? 0 : ndq_round_up(ndq_ceil_div(t->period, ndq_ceil_div(t->period, most)), LINE);
}

static void run(task t)
{
    const ndq_elementwise *job = t.job;
    ndq_table table;
    bool periodic;
    if (job->n == 0)
        return;
    t.stream = goes_past_the_caches(&t);
    t.staged = t.stream;
    for (int k = 0; k < 2; k++)
        t.staged |= !ndq_is_direct(&t.in[k]) || !ndq_is_direct(&t.out[k]);
    t.period = job->geometry.channels * job->geometry.inner;
    t.tile = tile_of(&t);
    if (t.tile) {
        const size_t bands = ndq_ceil_div(job->n / t.period, rows_of_a_chunk(&t));
        ndq_for_chunks(job->n, ndq_ceil_div(t.period, t.tile) * bands, run_tile, &t);
        return;
    }
    t.tabulated = ndq_table_length(job, job->n, &periodic);
    t.view = periodic ? ndq_tabulate(job, t.does, t.tabulated, 0, t.tabulated, &table) : whole_view(job);
    t.tabulated = periodic ? 0 : t.tabulated;
    ndq_for_chunks(job->n, ndq_ceil_div(job->n, CHUNK), run_chunk, &t);
}

/* In the arguments of CALL: where the stretch begins in input or output k of type C. */
#define IN(C, k) ((const C *)s->in[k])
#define OUT(C, k) ((C *)s->out[k])

/* Calls the kernel `slot` of one arithmetic, in whose arguments T is the type that computes. */
#define CALL_ONE(slot, type, affine, ...)                                                                     \
    do {                                                                                                      \
        typedef type T;                                                                                       \
        job->kernels->slot(affine, &s->view->geometry, s->position, s->n, __VA_ARGS__);                       \
    } while (0)

#define CALL_F64(slot, ...)                                                                                   \
    do {                                                                                                      \
        if (job->arithmetic == NDQ_F64)                                                                       \
            CALL_ONE(slot##_f64, double, &s->view->f64, __VA_ARGS__);                                         \
        else if (job->arithmetic == NDQ_DIVIDE_F64)                                                           \
            CALL_ONE(slot##_divide_f64, double, &s->view->f64, __VA_ARGS__);                                  \
        else                                                                                                  \
            CALL_ONE(slot##_textbook, double, &s->view->f64, __VA_ARGS__);                                    \
    } while (0)

#define CALL(slot, ...)                                                                                       \
    do {                                                                                                      \
        if (job->arithmetic == NDQ_F32)                                                                       \
            CALL_ONE(slot##_f32, float, &s->view->f32, __VA_ARGS__);                                          \
        else if (job->arithmetic == NDQ_DIVIDE_F32)                                                           \
            CALL_ONE(slot##_divide_f32, float, &s->view->f32, __VA_ARGS__);                                   \
        else                                                                                                  \
            CALL_F64(slot, __VA_ARGS__);                                                                      \
    } while (0)

static void quantize(const ndq_elementwise *job, const stretch *s)
{
    const size_t bytes = ndq_code_bytes(job->codes);
    if (bytes == 1)
        CALL(quantize, IN(T, 0), OUT(uint8_t, 0));
    else if (bytes == 2)
        CALL(quantize16, IN(T, 0), OUT(uint16_t, 0));
    else
        CALL_F64(quantize32, IN(T, 0), OUT(uint32_t, 0));
}

static void dequantize(const ndq_elementwise *job, const stretch *s)
{
    switch (job->codes) {
    case NDQ_S8:
        CALL(dequantize_s8, IN(int8_t, 0), OUT(T, 0));
        break;
    case NDQ_U8:
        CALL(dequantize_u8, IN(uint8_t, 0), OUT(T, 0));
        break;
    case NDQ_S16:
        CALL(dequantize_s16, IN(int16_t, 0), OUT(T, 0));
        break;
    case NDQ_U16:
        CALL(dequantize_u16, IN(uint16_t, 0), OUT(T, 0));
        break;
    case NDQ_S32:
        CALL_F64(dequantize_s32, IN(int32_t, 0), OUT(T, 0));
        break;
    case NDQ_U32:
        CALL_F64(dequantize_u32, IN(uint32_t, 0), OUT(T, 0));
        break;
    }
}

static void fake_quantize(const ndq_elementwise *job, const stretch *s)
{
    CALL(fake_quantize, IN(T, 0), OUT(T, 0));
}

static void fake_quantize_backward(const ndq_elementwise *job, const stretch *s)
{
    CALL(fake_quantize_backward, IN(T, 1), IN(T, 0), OUT(T, 0));
}

static void fake_quantize_with_grad(const ndq_elementwise *job, const stretch *s)
{
    CALL(fake_quantize_with_grad, IN(T, 1), IN(T, 0), OUT(T, 0), OUT(T, 1));
}

/* Arrays of a job as operands. */
#define X_OF(job) {(char *)(job)->x, float_bytes(job), (job)->x_is, (job)->x_strides}
#define DY_OF(job) {(char *)(job)->dy, float_bytes(job), (job)->dy_is, (job)->dy_strides}
#define FLOATS(job, array) {(job)->array, float_bytes(job), (job)->y_is, NULL}

enum { QUANTIZES = NDQ_SCALES | NDQ_CLAMPS, DEQUANTIZES = NDQ_READS_ZERO | NDQ_MAKES_REALS };

void ndq_quantize(const ndq_elementwise *job)
{
    const ndq_operand codes = {.data = job->q, .bytes = ndq_code_bytes(job->codes)};
    run((task){.job = job, .body = quantize, .does = QUANTIZES, .in = {X_OF(job)}, .out = {codes}});
}

void ndq_dequantize(const ndq_elementwise *job)
{
    const ndq_operand codes = {(char *)job->x, ndq_code_bytes(job->codes), NDQ_AS_COMPUTED, job->x_strides};
    run((task){.job = job, .body = dequantize, .does = DEQUANTIZES, .in = {codes}, .out = {FLOATS(job, y)}});
}

void ndq_fake_quantize(const ndq_elementwise *job)
{
    run((task){.job = job, .body = fake_quantize, .does = NDQ_SCALES | NDQ_CLAMPS | NDQ_MAKES_REALS, .in = {X_OF(job)},
               .out = {FLOATS(job, y)}});
}

void ndq_fake_quantize_backward(const ndq_elementwise *job)
{
    run((task){.job = job, .body = fake_quantize_backward, .does = NDQ_SCALES | NDQ_CLAMPS,
               .in = {X_OF(job), DY_OF(job)}, .out = {FLOATS(job, dx)}});
}

void ndq_fake_quantize_with_grad(const ndq_elementwise *job)
{
    run((task){.job = job, .body = fake_quantize_with_grad, .does = NDQ_SCALES | NDQ_CLAMPS | NDQ_MAKES_REALS,
               .in = {X_OF(job), DY_OF(job)}, .out = {FLOATS(job, y), FLOATS(job, dx)}});
}

typedef struct {
    const ndq_elementwise *from, *to;
    bool by_f32;
} requantization;

/* No longer than a table of float64. */
enum { REQUANTIZE_BLOCK = NDQ_TABLE_BYTES / sizeof(double) };

/* The values of one block, in the type that the next step reads. */
typedef struct {
    float f32[REQUANTIZE_BLOCK];
    double f64[REQUANTIZE_BLOCK];
} block_values;

static void *values_of(block_values *v, ndq_arithmetic arithmetic)
{
    return ndq_is_f32(arithmetic) ? (void *)v->f32 : (void *)v->f64;
}

/* A step of one block; `in` and `out` are where the block begins. */
static void run_step(const ndq_elementwise *job, stretch_body *body, unsigned does, size_t begin, size_t n,
                     ndq_operand in, ndq_operand out)
{
    ndq_table table;
    ndq_view v = whole_view(job);
    bool periodic;
    const size_t length = ndq_table_length(job, n, &periodic);
    if (length)
        v = periodic ? ndq_tabulate(job, does, length, 0, length, &table)
                     : ndq_tabulate(job, does, REQUANTIZE_BLOCK, begin, n, &table);
    const task t = {.job = job, .body = body, .in = {in}, .out = {out}};
    run_stretch(&t, &(stretch){&v, begin, n, {in.data}, {out.data}});
}

static void requantize_block(const requantization *r, size_t begin, size_t end)
{
    block_values v;
    const size_t n = end - begin;
    const ndq_elementwise *from = r->from, *to = r->to;
    const size_t from_bytes = ndq_code_bytes(from->codes), to_bytes = ndq_code_bytes(to->codes);
    const ndq_operand codes = {.data = (char *)from->x + begin * from_bytes, .bytes = from_bytes};
    const ndq_operand values = {.data = values_of(&v, from->arithmetic), .bytes = float_bytes(from)};
    run_step(from, dequantize, DEQUANTIZES, begin, n, codes, values);
    if (r->by_f32 && !ndq_is_f32(from->arithmetic))
        for (size_t i = 0; i < n; i++)
            v.f32[i] = (float)v.f64[i];
    if (r->by_f32 && !ndq_is_f32(to->arithmetic))
        for (size_t i = 0; i < n; i++)
            v.f64[i] = v.f32[i];
    const ndq_operand read = {.data = values_of(&v, to->arithmetic), .bytes = float_bytes(to)};
    const ndq_operand written = {.data = (char *)to->q + begin * to_bytes, .bytes = to_bytes};
    run_step(to, quantize, QUANTIZES, begin, n, read, written);
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
