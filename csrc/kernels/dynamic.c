#include "dynamic.h"

#include "../threads.h"
#include "range.h"

enum { ROWS_AT_ONCE = 8, CODES = 255 };

/* Memory for the codes of rows and what they mean. */
typedef struct {
    uint8_t *codes;
    float *scale;
    int32_t *zero;
    void *memory;
} quantized_rows;

static bool take_rows(size_t M, size_t K, quantized_rows *rows)
{
    const size_t numbers = ndq_round_up(M * sizeof(float), NDQ_ALIGN);
    rows->memory = ndq_alloc(2 * numbers + M * K);
    rows->scale = rows->memory;
    rows->zero = (int32_t *)((char *)rows->memory + numbers);
    rows->codes = (uint8_t *)rows->memory + 2 * numbers;
    return rows->memory != NULL;
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
    const ndq_rows_call *call;
    quantized_rows rows;
    size_t bad_row; /* the first, or M */
} rows_job;

static void quantize_rows(void *ctx, size_t chunk)
{
    rows_job *job = ctx;
    const ndq_rows_call *call = job->call;
    const size_t K = call->w->K, end = ndq_min_size(call->M, (chunk + 1) * ROWS_AT_ONCE);
    for (size_t m = chunk * ROWS_AT_ONCE; m < end; m++)
        if (!quantize_row(call->kernels, K, call->x + m * K, &job->rows, m)) {
            size_t seen = __atomic_load_n(&job->bad_row, __ATOMIC_RELAXED);
            while (m < seen && !__atomic_compare_exchange_n(&job->bad_row, &seen, m, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
                ;
        }
}

/* The sums are where the outputs will be. */
static void scale_rows(void *ctx, size_t chunk)
{
    const rows_job *job = ctx;
    const ndq_packed *w = job->call->w;
    const size_t end = ndq_min_size(job->call->M, (chunk + 1) * ROWS_AT_ONCE);
    ndq_sums_row row = {.scale = w->scale, .bias = w->float_bias, .column_sum = w->column_sum};
    for (size_t m = chunk * ROWS_AT_ONCE; m < end; m++) {
        float *y = job->call->y + m * w->N;
        row.own_scale = job->rows.scale[m];
        row.zero = job->rows.zero[m];
        job->call->kernels->scale_sums_f32(&row, w->N, (const int32_t *)(const void *)y, y);
    }
}

static ndq_status run_rows(rows_job *job)
{
    const ndq_rows_call *call = job->call;
    const ndq_packed *w = call->w;
    const size_t chunks = ndq_ceil_div(call->M, ROWS_AT_ONCE);
    job->bad_row = call->M;
    ndq_for_chunks(call->M * w->K, chunks, quantize_rows, job);
    if (job->bad_row < call->M)
        return NDQ_NOT_FINITE;
    const ndq_gemm_call gemm = {.w = w, .M = call->M, .a = job->rows.codes, .a_stride = (ptrdiff_t)w->K,
                                .output = NDQ_GEMM_S32, .out = call->y};
    const ndq_status status = ndq_gemm(&gemm);
    if (status == NDQ_OK)
        ndq_for_chunks(call->M * w->N, chunks, scale_rows, job);
    return status;
}

ndq_status ndq_linear_rows(const ndq_rows_call *call, size_t *bad_row)
{
    rows_job job = {.call = call};
    if (!take_rows(call->M, call->w->K, &job.rows))
        return NDQ_NO_MEMORY;
    const ndq_status status = run_rows(&job);
    *bad_row = job.bad_row;
    ndq_free(job.rows.memory);
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
    const ndq_rows_call product = {.kernels = call->kernels, .w = w, .M = call->N, .x = call->h, .y = gh};
    rows_job job = {.call = &product};
    ndq_status status = gh && take_rows(call->N, w->K, &job.rows) ? NDQ_OK : NDQ_NO_MEMORY;
    for (size_t step = 0; status == NDQ_OK && step < call->T; step++) {
        status = run_rows(&job);
        if (status == NDQ_OK)
            run_cells(call, call->reverse ? call->T - 1 - step : step, gh);
    }
    *bad_row = job.bad_row;
    ndq_free(job.rows.memory);
    ndq_free(gh);
    return status;
}
