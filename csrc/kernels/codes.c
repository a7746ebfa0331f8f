#include "codes.h"

#include "../threads.h"

ndq_byte_operand ndq_byte_operand_of(const ndq_params *params)
{
    const bool is_signed = params->qmin < 0;
    return (ndq_byte_operand){params->f32.scale[0], (int32_t)params->f64.zp[0] + (is_signed ? 128 : 0),
                              is_signed ? 0x80 : 0};
}

ndq_byte_result ndq_byte_result_of(const ndq_params *params, ndq_activation activation)
{
    ndq_byte_result result = {params->f32.inv[0], params->f32.lo[0], params->f32.hi[0],
                              (uint8_t)(int32_t)params->f64.zp[0]};
    ndq_narrow_steps(activation, result.inv, &result.lo, &result.hi);
    return result;
}

/* ---- Whole arrays ---- */

enum { CHUNK = 1 << 14 };

static void combine_chunk(void *ctx, size_t chunk)
{
    const ndq_two_codes *c = ctx;
    const size_t at = chunk * CHUNK, n = ndq_min_size(CHUNK, c->n - at);
    (c->multiply ? c->kernels->multiply_u8 : c->kernels->add_u8)(&c->operands, &c->result, n, c->a + at, c->b + at,
                                                                 c->out + at);
}

void ndq_combine_codes(const ndq_two_codes *call)
{
    ndq_for_chunks(call->n, ndq_ceil_div(call->n, CHUNK), combine_chunk, (void *)call);
}

static void lookup_chunk(void *ctx, size_t chunk)
{
    const ndq_lookup *c = ctx;
    const size_t end = ndq_min_size((chunk + 1) * CHUNK, c->n);
    const uint8_t flip = c->q_signed ? 0x80 : 0;
    for (size_t i = chunk * CHUNK; i < end; i++)
        c->out[i] = c->table[(uint8_t)(c->q[i] ^ flip)];
}

void ndq_lookup_codes(const ndq_lookup *call)
{
    ndq_for_chunks(call->n, ndq_ceil_div(call->n, CHUNK), lookup_chunk, (void *)call);
}

/* ---- Rows ---- */

typedef struct {
    const ndq_softmax *call;
    size_t rows; /* of a chunk */
    int no_memory;
} softmax_job;

/* Chunks of rows, each of at least CHUNK codes. */
static size_t rows_of_chunk(size_t length)
{
    return length < CHUNK ? CHUNK / (length ? length : 1) : 1;
}

/* What a mask leaves out counts as the lowest code; none is left out without a mask. */
static uint8_t largest_code(const uint8_t *x, size_t n, uint8_t flip, const uint8_t *mask)
{
    uint8_t most = 0;
    for (size_t i = 0; i < n; i++) {
        const uint8_t q = mask && mask[i] ? 0 : x[i] ^ flip;
        most = q > most ? q : most;
    }
    return most;
}

static void softmax_row(const ndq_softmax *c, size_t row, uint32_t *e)
{
    const uint8_t *x = c->x + row * c->length, *mask = c->mask ? c->mask + row % c->mask_rows * c->length : NULL;
    const uint8_t most = largest_code(x, c->length, c->flip, mask);
    uint64_t sum = 0;
    for (size_t i = 0; i < c->length; i++) {
        e[i] = mask && mask[i] ? 0 : c->exponential[most - (uint8_t)(x[i] ^ c->flip)];
        sum += e[i];
    }
    c->kernels->rescale_u8(&c->result, sum ? 1.0f / (float)sum : 0.0f, 0, c->length, e, c->out + row * c->length);
}

static void softmax_chunk(void *ctx, size_t chunk)
{
    softmax_job *j = ctx;
    const ndq_softmax *c = j->call;
    const size_t first = chunk * j->rows, end = ndq_min_size(first + j->rows, c->rows);
    uint32_t *e = ndq_scratch(c->length * sizeof(*e));
    if (!e) {
        __atomic_store_n(&j->no_memory, 1, __ATOMIC_RELAXED);
        return;
    }
    for (size_t row = first; row < end; row++)
        softmax_row(c, row, e);
}

ndq_status ndq_softmax_codes(const ndq_softmax *call)
{
    softmax_job j = {.call = call, .rows = rows_of_chunk(call->length)};
    if (call->length)
        ndq_for_chunks(8 * call->rows * call->length, ndq_ceil_div(call->rows, j.rows), softmax_chunk, &j);
    return j.no_memory ? NDQ_NO_MEMORY : NDQ_OK;
}

static void layer_norm_row(const ndq_layer_norm *c, const uint8_t *x, uint8_t *out)
{
    const uint64_t K = c->length;
    uint64_t sum = 0, squares = 0;
    for (size_t i = 0; i < K; i++) {
        const uint32_t q = (uint8_t)(x[i] ^ c->flip);
        sum += q;
        squares += q * q;
    }
    const float variance = (float)(K * squares - sum * sum) + (float)K * (float)K * c->eps;
    const ndq_byte_row row = {(int32_t)K, (int32_t)sum, 1.0f / sqrtf(variance), c->flip};
    c->kernels->normalize_u8(&c->result, &row, K, x, c->gain, c->offset, out);
}

static void layer_norm_chunk(void *ctx, size_t chunk)
{
    const ndq_layer_norm *c = ctx;
    const size_t rows = rows_of_chunk(c->length), end = ndq_min_size((chunk + 1) * rows, c->rows);
    for (size_t row = chunk * rows; row < end; row++)
        layer_norm_row(c, c->x + row * c->length, c->out + row * c->length);
}

void ndq_layer_norm_codes(const ndq_layer_norm *call)
{
    if (call->length)
        ndq_for_chunks(4 * call->rows * call->length, ndq_ceil_div(call->rows, rows_of_chunk(call->length)),
                       layer_norm_chunk, (void *)call);
}
