#include "band_f32.h"

/* Part of the window: K floats next to each other in the band, `offset` floats after its first pixel, that meet the
 * rows of the packed weights from `first` on. */
typedef struct {
    size_t offset, first, K;
} run;

/* Outputs from (y, x) on, `every` apart, that read the same runs; each reads them `step` pixels further in the band
 * than the one before. A convolution is one phase. Its gradient to the input is one for each remainder of the position
 * by the stride, as each of them meets other taps. */
typedef struct {
    size_t y, x, count_y, count_x;
    run *runs;
    size_t run_count;
} phase;

/* Windows of `depth` channels of each group of a band, times weights, to `width` channels of each group of out. */
typedef struct {
    const ndq_conv_f32_call *call;
    ndq_band_f32 band;
    size_t in_y, in_x, out_y, out_x; /* pixels of an image in and out */
    size_t depth, width;
    size_t every_y, every_x, step_y, step_x;
    phase *phases;
    run *runs;
    size_t phase_count;
    size_t *taps, tap_count; /* where each tap begins in (KH, KW), in the order of the runs */
    float *panels;           /* [groups][panels of width][tap_count * depth][nr] */
    bool in_place;
    int no_memory; /* set by any thread */
} job;

static size_t panel_count(const job *j)
{
    return ndq_ceil_div(j->width, j->call->kernel->nr);
}

/* The panel of weights of the i-th group and columns. */
static float *panel_at(const job *j, size_t i)
{
    return j->panels + i * j->tap_count * j->depth * j->call->kernel->nr;
}

/* ---- Windows times weights ---- */

/* A tile of less than nr columns is computed beside out, as it would touch what is right of it. */
static void run_tile(const job *j, const phase *p, size_t rows, const float *in, const float *panel, float *out,
                     size_t columns, const float *bias)
{
    _Alignas(NDQ_ALIGN) float beside[NDQ_GEMM_F32_MAX_MR * NDQ_GEMM_F32_MAX_NR];
    const ndq_gemm_f32_kernel *kernel = j->call->kernel;
    const size_t nr = kernel->nr, out_stride = j->every_x * j->width * j->call->groups;
    const bool whole = columns == nr;
    ndq_gemm_f32_tile *tile = (columns <= nr / 2 && kernel->narrow[0] ? kernel->narrow : kernel->tile)[rows - 1];
    float *c = whole ? out : beside;
    const size_t stride = whole ? out_stride : nr;
    for (size_t r = 0; r < p->run_count; r++) {
        const ndq_rows_f32 a = {(const char *)(in + p->runs[r].offset),
                                (ptrdiff_t)(j->step_x * j->band.pixel * sizeof(float)), sizeof(float)};
        tile(p->runs[r].K, a, panel + p->runs[r].first * nr, c, stride, r > 0);
    }
    if (p->run_count && !whole)
        ndq_copy_columns_f32(rows, columns, beside, (ptrdiff_t)(nr * sizeof(*out)), out,
                             (ptrdiff_t)(out_stride * sizeof(*out)));
    for (size_t m = 0; m < rows; m++) {
        if (!p->run_count)
            memset(out + m * out_stride, 0, columns * sizeof(*out));
        for (size_t n = 0; bias && n < columns; n++)
            out[m * out_stride + n] += bias[n];
    }
}

/* A line of outputs, cut into tiles of about the same number of rows: the last would else be too small to be fast. */
static void run_line(const job *j, const phase *p, const float *in, const float *panel, float *out, size_t columns,
                     const float *bias)
{
    const size_t tiles = ndq_ceil_div(p->count_x, j->call->kernel->mr);
    for (size_t t = 0; t < tiles; t++) {
        const size_t first = p->count_x * t / tiles, end = p->count_x * (t + 1) / tiles;
        run_tile(j, p, end - first, in + first * j->step_x * j->band.pixel, panel,
                 out + first * j->every_x * j->width * j->call->groups, columns, bias);
    }
}

static void run_image(const job *j, const float *in, float *out)
{
    const ndq_conv_f32_call *call = j->call;
    const size_t nr = call->kernel->nr, panels = panel_count(j), pixel = j->width * call->groups;
    for (size_t i = 0; i < call->groups * panels; i++) {
        const size_t group = i / panels, column = i % panels * nr, channel = group * j->width + column;
        const float *panel = panel_at(j, i), *bias = call->bias ? call->bias + channel : NULL;
        for (const phase *p = j->phases; p < j->phases + j->phase_count; p++)
            for (size_t y = 0; y < p->count_y; y++) {
                const size_t from = y * j->step_y * j->band.size_x;
                const size_t to = (p->y + y * j->every_y) * j->out_x + p->x;
                run_line(j, p, in + from * j->band.pixel + group * j->depth, panel, out + to * pixel + channel,
                         ndq_min_size(nr, j->width - column), bias);
            }
    }
}

static void run_chunk(void *ctx, size_t n)
{
    job *j = ctx;
    const ndq_images_f32 *in = &j->call->in;
    const float *image = (const float *)(in->data + (ptrdiff_t)n * in->n);
    if (!j->in_place) {
        float *copy = ndq_scratch(j->band.size_y * j->band.size_x * j->band.pixel * sizeof(*copy));
        if (!copy) {
            __atomic_store_n(&j->no_memory, 1, __ATOMIC_RELAXED);
            return;
        }
        ndq_fill_band_f32(&j->band, in, n, j->in_y, j->in_x, copy);
        image = copy;
    }
    run_image(j, image, j->call->out + n * j->out_y * j->out_x * j->width * j->call->groups);
}

/* ---- Which taps meet which outputs ---- */

/* One axis of a job. Tap t meets the outputs phase[t], phase[t] + every, ..., and lies at[t] pixels behind the first
 * pixel of what they read. */
typedef struct {
    size_t size, every, step, phases, positions, taps;
    ptrdiff_t before;
    size_t *phase, *at;
    bool descending; /* in the band, the last tap comes first */
} axis_plan;

static void plan_axis(const ndq_conv_axis *a, axis_plan *plan)
{
    plan->size = (a->out - 1) * a->stride + (a->taps - 1) * a->dilation + 1;
    plan->before = a->pad;
    plan->every = plan->phases = 1;
    plan->step = a->stride;
    plan->positions = a->out;
    plan->descending = false;
    for (size_t t = 0; t < a->taps; t++) {
        plan->phase[t] = 0;
        plan->at[t] = t * a->dilation;
    }
}

static ptrdiff_t floor_div(ptrdiff_t a, ptrdiff_t b)
{
    return a / b - (a % b < 0);
}

/* Through tap t, input i gets from output (i + pad - t * dilation) / stride, where that is whole. */
static void plan_gradient_axis(const ndq_conv_axis *a, axis_plan *plan)
{
    const ptrdiff_t stride = (ptrdiff_t)a->stride, reach = (ptrdiff_t)((a->taps - 1) * a->dilation);
    const ptrdiff_t least = floor_div(a->pad - reach, stride), most = floor_div((ptrdiff_t)a->in - 1 + a->pad, stride);
    plan->size = (size_t)(most - least) + 1;
    plan->before = -least;
    plan->every = a->stride;
    plan->step = 1;
    plan->phases = ndq_min_size(a->stride, a->in);
    plan->positions = a->in;
    plan->descending = true;
    for (size_t t = 0; t < a->taps; t++) {
        const ptrdiff_t shift = a->pad - (ptrdiff_t)(t * a->dilation), first = -floor_div(-shift, stride);
        plan->phase[t] = (size_t)(first * stride - shift);
        plan->at[t] = (size_t)(first - least);
    }
}

/* Adds the taps of phase (y, x) to its runs, in the order in which they lie in the band. */
static void plan_phase(job *j, const axis_plan *y, const axis_plan *x, phase *p)
{
    const bool merges = j->call->groups == 1;
    for (size_t i = 0; i < y->taps * x->taps; i++) {
        const size_t ty = y->descending ? y->taps - 1 - i / x->taps : i / x->taps;
        const size_t tx = x->descending ? x->taps - 1 - i % x->taps : i % x->taps;
        if (y->phase[ty] != p->y || x->phase[tx] != p->x)
            continue;
        const size_t offset = (y->at[ty] * j->band.size_x + x->at[tx]) * j->band.pixel;
        run *next = p->runs + p->run_count;
        if (merges && p->run_count && next[-1].offset + next[-1].K == offset) {
            next[-1].K += j->depth;
        } else {
            *next = (run){.offset = offset, .first = j->tap_count * j->depth, .K = j->depth};
            p->run_count++;
        }
        j->taps[j->tap_count++] = ty * x->taps + tx;
    }
}

/* Fills in what follows from the axes. */
static void plan_phases(job *j, const axis_plan *y, const axis_plan *x)
{
    j->band = (ndq_band_f32){.size_y = y->size, .size_x = x->size, .pixel = j->depth * j->call->groups,
                             .before_y = y->before, .before_x = x->before};
    j->every_y = y->every;
    j->every_x = x->every;
    j->step_y = y->step;
    j->step_x = x->step;
    run *runs = j->runs;
    for (size_t i = 0; i < y->phases * x->phases; i++) {
        phase *p = j->phases + i;
        *p = (phase){.y = i / x->phases, .x = i % x->phases, .runs = runs};
        p->count_y = ndq_ceil_div(y->positions - p->y, y->every);
        p->count_x = ndq_ceil_div(x->positions - p->x, x->every);
        plan_phase(j, y, x, p);
        runs += p->run_count;
    }
    j->phase_count = y->phases * x->phases;
}

/* Lays the taps into the panels, in the order of the runs. */
static void pack_weights(const job *j, size_t stride_k, size_t stride_n)
{
    const ndq_conv_f32_call *call = j->call;
    const size_t nr = call->kernel->nr, panels = panel_count(j);
    const size_t group_floats = call->O / call->groups * (call->C / call->groups) * call->y.taps * call->x.taps;
    for (size_t i = 0; i < call->groups * panels; i++)
        for (size_t t = 0; t < j->tap_count; t++) {
            const float *from = call->w + i / panels * group_floats + j->taps[t];
            const ndq_terms terms = {.data = (const char *)from, .stride_k = (ptrdiff_t)(stride_k * sizeof(float)),
                                     .stride_n = (ptrdiff_t)(stride_n * sizeof(float))};
            const size_t column = i % panels * nr, columns = ndq_min_size(nr, j->width - column);
            call->kernel->pack(&terms, 0, j->depth, column, columns, panel_at(j, i) + t * j->depth * nr);
        }
}

/* Runs a job whose sizes of images, depth and width are set; the axes give the rest. */
static ndq_status run_job(job *j, void (*plan)(const ndq_conv_axis *, axis_plan *), size_t stride_k, size_t stride_n)
{
    const ndq_conv_f32_call *call = j->call;
    const size_t KH = call->y.taps, KW = call->x.taps, panels = call->groups * panel_count(j);
    size_t *numbers = ndq_alloc((2 * (KH + KW) + KH * KW) * sizeof(*numbers));
    j->runs = ndq_alloc(KH * KW * sizeof(*j->runs));
    const size_t phases = ndq_min_size(call->y.stride, call->y.in) * ndq_min_size(call->x.stride, call->x.in);
    j->phases = ndq_alloc((phases + 1) * sizeof(*j->phases)); /* a convolution has one, of however small an image */
    j->panels = ndq_alloc(panels * KH * KW * j->depth * call->kernel->nr * sizeof(*j->panels));
    ndq_status status = NDQ_NO_MEMORY;
    if (numbers && j->runs && j->phases && j->panels) {
        j->taps = numbers + 2 * (KH + KW);
        axis_plan y = {.taps = KH, .phase = numbers, .at = numbers + KH};
        axis_plan x = {.taps = KW, .phase = numbers + 2 * KH, .at = numbers + 2 * KH + KW};
        plan(&call->y, &y);
        plan(&call->x, &x);
        plan_phases(j, &y, &x);
        pack_weights(j, stride_k, stride_n);
        j->in_place = ndq_is_band_f32(&j->band, &call->in, j->in_y, j->in_x);
        ndq_conv_f32_share(call, call->N, run_chunk, j);
        status = j->no_memory ? NDQ_NO_MEMORY : NDQ_OK;
    }
    ndq_free(numbers);
    ndq_free(j->runs);
    ndq_free(j->phases);
    ndq_free(j->panels);
    return status;
}

ndq_status ndq_conv_f32(const ndq_conv_f32_call *call)
{
    const size_t depth = call->C / call->groups, window = call->y.taps * call->x.taps;
    job j = {.call = call, .in_y = call->y.in, .in_x = call->x.in, .out_y = call->y.out, .out_x = call->x.out,
             .depth = depth, .width = call->O / call->groups};
    return run_job(&j, plan_axis, window, depth * window);
}

ndq_status ndq_conv_f32_input_grad(const ndq_conv_f32_call *call)
{
    const size_t width = call->C / call->groups, window = call->y.taps * call->x.taps;
    job j = {.call = call, .in_y = call->y.out, .in_x = call->x.out, .out_y = call->y.in, .out_x = call->x.in,
             .depth = call->O / call->groups, .width = width};
    return run_job(&j, plan_gradient_axis, width * window, window);
}
