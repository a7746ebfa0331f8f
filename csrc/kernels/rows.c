#include "rows.h"

#include "../threads.h"

/* Chunks of rows, each of at least so many floats; an exponential takes as long as some ten elements of a copy. */
enum { CHUNK = 1 << 12, COST = 10 };

static size_t rows_of_chunk(size_t length)
{
    return length < CHUNK ? CHUNK / (length ? length : 1) : 1;
}

static void softmax_chunk(void *ctx, size_t chunk)
{
    const ndq_softmax_rows *c = ctx;
    const size_t rows = rows_of_chunk(c->length), end = ndq_min_size((chunk + 1) * rows, c->rows);
    for (size_t row = chunk * rows; row < end; row++)
        c->kernels->softmax_f32(c->length, c->x + row * c->length, c->y + row * c->length);
}

void ndq_softmax_f32(const ndq_softmax_rows *call)
{
    ndq_for_chunks(COST * call->rows * call->length, ndq_ceil_div(call->rows, rows_of_chunk(call->length)), softmax_chunk,
                   (void *)call);
}

static void layer_norm_chunk(void *ctx, size_t chunk)
{
    const ndq_normalized_rows *c = ctx;
    const size_t rows = rows_of_chunk(c->length), end = ndq_min_size((chunk + 1) * rows, c->rows);
    for (size_t row = chunk * rows; row < end; row++) {
        float unread[2], *stats = c->stats ? c->stats + 2 * row : unread;
        c->kernels->layer_norm_f32(&c->norm, c->length, c->x + row * c->length, c->y + row * c->length, stats);
    }
}

void ndq_layer_norm_f32(const ndq_normalized_rows *call)
{
    ndq_for_chunks(COST * call->rows * call->length, ndq_ceil_div(call->rows, rows_of_chunk(call->length)), layer_norm_chunk,
                   (void *)call);
}

static void gelu_chunk(void *ctx, size_t chunk)
{
    const ndq_gelu *c = ctx;
    const size_t at = chunk * CHUNK, n = ndq_min_size(CHUNK, c->n - at);
    (c->tanh ? c->kernels->gelu_tanh_f32 : c->kernels->gelu_f32)(n, c->x + at, c->y + at);
}

void ndq_gelu_f32(const ndq_gelu *call)
{
    ndq_for_chunks(COST * call->n, ndq_ceil_div(call->n, CHUNK), gelu_chunk, (void *)call);
}

/* ---- Attention ---- */

static const char *head_of(const ndq_heads *x, size_t n, size_t first)
{
    return x->data + (ptrdiff_t)n * x->example + (ptrdiff_t)first * x->element;
}

static void weigh(const ndq_attention *c, size_t n, float *scores)
{
    const float factor = c->factor, *mask = c->mask ? c->mask + (c->masks > 1 ? n : 0) * c->L * c->S : NULL;
    for (size_t i = 0; i < c->L * c->S; i++)
        scores[i] *= factor;
    for (size_t i = 0; mask && i < c->L * c->S; i++)
        scores[i] += mask[i];
    for (size_t l = 0; l < c->L; l++)
        c->kernels->softmax_f32(c->S, scores + l * c->S, scores + l * c->S);
}

/* `part` takes the (L, D) outputs of this head before they are put beside those of the others. */
static ndq_status run_head(const ndq_attention *c, size_t n, size_t h, float *scores, float *part)
{
    const size_t first = h * c->D, E = c->heads * c->D;
    ndq_gemm_f32_call product = {.kernel = c->kernels->gemm_f32, .M = c->L, .N = c->S, .K = c->D,
                                 .a = {head_of(&c->q, n, first), c->q.row, c->q.element},
                                 .b = {.data = head_of(&c->k, n, first), .stride_k = c->k.element, .stride_n = c->k.row},
                                 .c = scores};
    ndq_status status = ndq_gemm_f32(&product);
    if (status != NDQ_OK)
        return status;
    weigh(c, n, scores);
    product.N = c->D;
    product.K = c->S;
    product.a = (ndq_rows_f32){(const char *)scores, (ptrdiff_t)(c->S * sizeof(*scores)), sizeof(*scores)};
    product.b = (ndq_terms){.data = head_of(&c->v, n, first), .stride_k = c->v.row, .stride_n = c->v.element};
    product.c = part;
    status = ndq_gemm_f32(&product);
    for (size_t l = 0; status == NDQ_OK && l < c->L; l++)
        memcpy(c->y + (n * c->L + l) * E + first, part + l * c->D, c->D * sizeof(*part));
    return status;
}

ndq_status ndq_attention_f32(const ndq_attention *call)
{
    size_t of_head, floats, bytes;
    if (__builtin_mul_overflow(call->L, call->S, &of_head) ||
        __builtin_add_overflow(of_head, call->L * call->D, &floats) ||
        __builtin_mul_overflow(floats, sizeof(float), &bytes))
        return NDQ_NO_MEMORY;
    float *memory = ndq_alloc(bytes);
    ndq_status status = memory ? NDQ_OK : NDQ_NO_MEMORY;
    for (size_t i = 0; status == NDQ_OK && i < call->N * call->heads; i++)
        status = run_head(call, i / call->heads, i % call->heads, call->weights ? call->weights + i * of_head : memory,
                          memory + of_head);
    ndq_free(memory);
    return status;
}
