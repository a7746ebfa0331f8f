#include "dynamic.h"

#include "../threads.h"
#include "range.h"

enum { ROWS_AT_ONCE = 8, CODES = 255 };

/* Codes of rows and what they mean. */
typedef struct {
    uint8_t *codes;
    float *scale;
    int32_t *zero;
} quantized_rows;

static size_t numbers_bytes(size_t M)
{
    return ndq_round_up(M * sizeof(float), NDQ_ALIGN);
}

static quantized_rows rows_in(void *memory, size_t M)
{
    char *numbers = memory;
    return (quantized_rows){.scale = memory, .zero = (int32_t *)(void *)(numbers + numbers_bytes(M)),
                            .codes = (uint8_t *)numbers + 2 * numbers_bytes(M)};
}

size_t ndq_quantized_rows_bytes(size_t M, size_t K)
{
    size_t codes, bytes;
    if (M > SIZE_MAX / (4 * sizeof(float)) || __builtin_mul_overflow(M, K, &codes) ||
        __builtin_add_overflow(codes, 2 * numbers_bytes(M), &bytes))
        return SIZE_MAX;
    return bytes;
}

/* False if the row is not finite. */
static bool quantize_row(const ndq_kernels *kernels, size_t K, const float *x, quantized_rows *rows, size_t m)
{
    static const ndq_grid grid = {.qmax = CODES, .bits = 8, .rule = NDQ_RANGE_DEFAULT};
    const ndq_geometry whole = {.channels = 1, .inner = K ? K : 1};
    ndq_extremes e = {INFINITY, -INFINITY, 0, 0};
    kernels->minmax_f32(K, x, &e);
    if (e.nans || e.infs)
        return false;
    const float low = K ? (float)e.min : 0.0f, high = K ? (float)e.max : 0.0f, offset = 0.0f;
    int64_t zero;
    ndq_scale_zero_point_f32(&grid, 1, &low, &high, &rows->scale[m], &zero);
    rows->zero[m] = (int32_t)zero;
    const float inv = 1.0f / rows->scale[m], zp = (float)zero, lo = -zp, hi = CODES - zp;
    const ndq_affine_f32 affine = {&rows->scale[m], &inv, &zp, &lo, &hi, &offset, 0, false, true};
    kernels->quantize_f32(&affine, &whole, 0, K, x, rows->codes + m * K);
    return true;
}

typedef struct {
    const ndq_kernels *kernels;
    size_t M, K;
    const float *x;
    quantized_rows rows;
    size_t bad_row; /* the first, or M */
} quantize_job;

static void quantize_chunk(void *ctx, size_t chunk)
{
    quantize_job *j = ctx;
    const size_t end = ndq_min_size(j->M, (chunk + 1) * ROWS_AT_ONCE);
    for (size_t m = chunk * ROWS_AT_ONCE; m < end; m++)
        if (!quantize_row(j->kernels, j->K, j->x + m * j->K, &j->rows, m)) {
            size_t seen = __atomic_load_n(&j->bad_row, __ATOMIC_RELAXED);
            while (m < seen && !__atomic_compare_exchange_n(&j->bad_row, &seen, m, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
                ;
        }
}

ndq_status ndq_quantize_rows(const ndq_kernels *kernels, size_t M, size_t K, const float *x, void *memory, size_t *bad_row)
{
    quantize_job job = {kernels, M, K, x, rows_in(memory, M), M};
    ndq_for_chunks(M * K, ndq_ceil_div(M, ROWS_AT_ONCE), quantize_chunk, &job);
    *bad_row = job.bad_row;
    return job.bad_row < M ? NDQ_NOT_FINITE : NDQ_OK;
}

typedef struct {
    const ndq_rows_call *call;
    quantized_rows rows;
} scale_job;

static void activate(ndq_activation activation, size_t n, float *y)
{
    const float largest = ndq_largest_value(activation);
    for (size_t i = 0; i < n; i++) {
        const float v = y[i] < 0 ? 0.0f : y[i];
        y[i] = v > largest ? largest : v;
    }
}

/* The sums are where the outputs will be. */
static void scale_chunk(void *ctx, size_t chunk)
{
    const scale_job *job = ctx;
    const ndq_rows_call *call = job->call;
    const ndq_packed *w = call->w;
    const size_t end = ndq_min_size(call->M, (chunk + 1) * ROWS_AT_ONCE);
    ndq_sums_row row = {.scale = w->scale, .bias = w->float_bias, .column_sum = w->column_sum};
    for (size_t m = chunk * ROWS_AT_ONCE; m < end; m++) {
        float *y = call->y + m * w->N;
        row.own_scale = job->rows.scale[m];
        row.zero = job->rows.zero[m];
        call->kernels->scale_sums_f32(&row, w->N, (const int32_t *)(const void *)y, y);
        if (call->activation != NDQ_NO_ACTIVATION)
            activate(call->activation, w->N, y);
    }
}

ndq_status ndq_multiply_rows(const ndq_rows_call *call, const void *memory)
{
    const ndq_packed *w = call->w;
    scale_job job = {call, rows_in((void *)memory, call->M)};
    const ndq_gemm_call gemm = {.w = w, .M = call->M, .a = job.rows.codes, .a_stride = (ptrdiff_t)w->K,
                                .output = NDQ_GEMM_S32, .out = call->y};
    const ndq_status status = ndq_gemm(&gemm);
    if (status == NDQ_OK)
        ndq_for_chunks(call->M * w->N, ndq_ceil_div(call->M, ROWS_AT_ONCE), scale_chunk, &job);
    return status;
}

static ndq_status run_rows(const ndq_rows_call *call, void *memory, size_t *bad_row)
{
    const ndq_status status = ndq_quantize_rows(call->kernels, call->M, call->w->K, call->x, memory, bad_row);
    return status == NDQ_OK ? ndq_multiply_rows(call, memory) : status;
}

ndq_status ndq_linear_rows(const ndq_rows_call *call, size_t *bad_row)
{
    void *memory = ndq_alloc(ndq_quantized_rows_bytes(call->M, call->w->K));
    const ndq_status status = memory ? run_rows(call, memory, bad_row) : NDQ_NO_MEMORY;
    ndq_free(memory);
    return status;
}

ndq_status ndq_multiply_groups(const ndq_grouped_rows *call, const void *memory)
{
    const quantized_rows rows = rows_in((void *)memory, call->M);
    const ndq_grouped_call product = {.w = call->w, .M = call->M, .a = rows.codes, .a_scale = rows.scale,
                                      .a_zero = rows.zero, .per_row = true, .y = call->y};
    const ndq_status status = ndq_grouped_multiply(&product);
    if (status == NDQ_OK && call->activation != NDQ_NO_ACTIVATION)
        activate(call->activation, call->M * call->w->N, call->y);
    return status;
}

ndq_status ndq_linear_groups(const ndq_kernels *kernels, const ndq_grouped_rows *call, const float *x, size_t *bad_row)
{
    void *memory = ndq_alloc(ndq_quantized_rows_bytes(call->M, call->w->K));
    ndq_status status = memory ? ndq_quantize_rows(kernels, call->M, call->w->K, x, memory, bad_row) : NDQ_NO_MEMORY;
    if (status == NDQ_OK)
        status = ndq_multiply_groups(call, memory);
    ndq_free(memory);
    return status;
}

static void run_cells(const ndq_recurrence *call, size_t t, const float *gh)
{
    const size_t G = call->w->N, H = call->w->K;
    for (size_t n = 0; n < call->N; n++) {
        float *y = call->y + (t * call->N + n) * H, *h = call->h + n * H;
        const float *gx = call->gx + (t * call->N + n) * G;
        if (call->lengths && (int64_t)t >= call->lengths[n]) {
            memset(y, 0, H * sizeof(float));
            continue;
        }
        if (call->c)
            call->kernels->lstm_cell_f32(H, gx, gh + n * G, call->c + n * H, h);
        else
            call->kernels->gru_cell_f32(H, gx, gh + n * G, h);
        memcpy(y, h, H * sizeof(float));
    }
}

ndq_status ndq_run_recurrence(const ndq_recurrence *call, size_t *bad_row)
{
    const ndq_packed *w = call->w;
    float *gh = ndq_alloc(call->N * w->N * sizeof(float));
    void *memory = ndq_alloc(ndq_quantized_rows_bytes(call->N, w->K));
    const ndq_rows_call product = {.kernels = call->kernels, .w = w, .M = call->N, .x = call->h, .y = gh};
    ndq_status status = gh && memory ? NDQ_OK : NDQ_NO_MEMORY;
    for (size_t step = 0; status == NDQ_OK && step < call->T; step++) {
        status = run_rows(&product, memory, bad_row);
        if (status == NDQ_OK)
            run_cells(call, call->reverse ? call->T - 1 - step : step, gh);
    }
    ndq_free(memory);
    ndq_free(gh);
    return status;
}
