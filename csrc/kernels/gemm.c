#include "gemm.h"

#include "../threads.h"
#include "gemm_strassen.h"
#include "transpose.h"

/* ---- Packed weights ---- */

enum { PACK_BYTES = 16 * 1024 }; /* K is packed in parts: what lies between two formats stays in L1 */

/* What brings codes of weights to s8, for a kernel that does not centre them or multiply any. */
static int32_t shift_to_s8(const ndq_gemm_kernel *kernel, bool is_signed)
{
    return is_signed || kernel->any_signs ? 0 : -128;
}

/* One block of memory: the struct, then each array at its own cache line. NULL base measures. */
static size_t lay_out(ndq_packed *p, char *base, size_t columns, bool with_float_bias)
{
    size_t used = ndq_round_up(sizeof(*p), NDQ_ALIGN);
#define TAKE(field, bytes) (p->field = (void *)(base + used), used += ndq_round_up(bytes, NDQ_ALIGN))
    TAKE(panels, columns / p->kernel->nr * p->panel_bytes);
    TAKE(zero_point, columns * sizeof(int32_t));
    TAKE(column_sum, columns * sizeof(int32_t));
    TAKE(magnitude, columns * sizeof(int64_t));
    TAKE(bias, columns * sizeof(int32_t));
    TAKE(scale, columns * sizeof(float));
    if (with_float_bias)
        TAKE(float_bias, columns * sizeof(float));
#undef TAKE
    return used;
}

/* Broadcast views can have more elements than memory has bytes. */
static bool too_large(size_t columns, size_t K, size_t size)
{
    size_t codes, bytes;
    return __builtin_mul_overflow(columns, K, &codes) || __builtin_mul_overflow(codes, size, &bytes) ||
           bytes > SIZE_MAX / 2 || columns > SIZE_MAX / 64;
}

static ndq_packed *new_packed(const ndq_gemm_kernel *kernel, const ndq_weights *w, bool with_float_bias)
{
    if (w->N > SIZE_MAX / 4 || w->K > SIZE_MAX / 4)
        return NULL;
    const size_t columns = ndq_round_up(w->N, kernel->nr), run = ndq_round_up(w->K / w->runs, kernel->k_step);
    size_t k_padded;
    if (__builtin_mul_overflow(run, w->runs, &k_padded) ||
        too_large(columns, k_padded, ndq_gemm_panel_code_bytes(kernel)))
        return NULL;
    ndq_packed layout = {.kernel = kernel,
                         .N = w->N,
                         .K = w->K,
                         .runs = w->runs,
                         .is_signed = w->is_signed,
                         .run_words = run / kernel->codes_per_word,
                         .words = k_padded / kernel->codes_per_word,
                         .panel_bytes = kernel->nr * k_padded * ndq_gemm_panel_code_bytes(kernel)};
    const size_t bytes = lay_out(&layout, (char *)0, columns, with_float_bias);
    ndq_packed *p = ndq_alloc(bytes);
    if (!p)
        return NULL;
    lay_out(&layout, (char *)p, columns, with_float_bias);
    layout.bytes = bytes;
    /* The panels are written whole by packing; all that follows them starts as zeros. */
    memset(layout.zero_point, 0, bytes - (size_t)((char *)layout.zero_point - (char *)p));
    *p = layout;
    return p;
}

/* Codes of one part: rows of all columns of a panel, expanded, take PACK_BYTES. */
static size_t part_codes(const ndq_gemm_kernel *kernel)
{
    return PACK_BYTES / kernel->nr / ndq_gemm_panel_code_bytes(kernel);
}

static int32_t zero_of(const ndq_weights *w, size_t n)
{
    return w->zero_point ? w->zero_point[n] : 0;
}

/* Codes [k, k + count) of one run of the columns of one panel. */
typedef struct {
    size_t first, columns, run, k, count;
    const uint8_t *codes;
    ptrdiff_t stride; /* from column to column, whose codes are contiguous; or else the other way round */
} panel_part;

static ndq_gemm_word *panel_of(const ndq_packed *p, const panel_part *t)
{
    return (ndq_gemm_word *)(p->panels + t->first / p->kernel->nr * p->panel_bytes);
}

/* The words of a part and the sums of its columns, in three walks. */
static void pack_by_steps(const ndq_packed *p, const ndq_weights *w, const panel_part *t, int64_t (*sums)[2])
{
    const ndq_gemm_kernel *kernel = p->kernel;
    _Alignas(NDQ_ALIGN) uint8_t rows[PACK_BYTES];
    const size_t size = ndq_gemm_panel_code_bytes(kernel), padded = ndq_round_up(t->count, kernel->k_step);
    const size_t stride = PACK_BYTES / kernel->nr, per_word = kernel->codes_per_word;
    for (size_t j = 0; j < kernel->nr; j++) {
        uint8_t *row = rows + j * stride;
        const size_t present = j < t->columns ? t->count : 0;
        if (present) {
            const uint8_t *codes = t->codes + (ptrdiff_t)j * t->stride;
            const int32_t zero = zero_of(w, t->first + j);
            kernel->expand_w(present, codes, w->is_signed, zero, row);
            kernel->sums(present, codes, w->is_signed, zero, sums[j]);
        }
        memset(row + present * size, 0, (padded - present) * size);
    }
    kernel->pack(t->run * p->run_words + t->k / per_word, padded / per_word, (const ndq_gemm_word *)rows,
                 stride / sizeof(ndq_gemm_word), p->words, panel_of(p, t));
}

/* The same in one walk. */
static void pack_at_once(ndq_gemm_pack_walk *walk, const ndq_packed *p, const ndq_weights *w, const panel_part *t,
                         int64_t (*sums)[2])
{
    const size_t word = t->run * p->run_words + t->k / p->kernel->codes_per_word;
    walk(t->columns, t->count, t->codes, t->stride, w->is_signed, w->zero_point ? w->zero_point + t->first : NULL,
         panel_of(p, t) + word * p->kernel->nr, sums);
}

/* Brings the codes of each column next to each other. */
static void copy_codes(const ndq_weights *w, panel_part *t, size_t stride, uint8_t *copy)
{
    if (w->stride_n == 1)
        ndq_transpose_bytes(t->codes, w->stride_k, t->count, t->columns, copy, stride);
    else
        for (size_t j = 0; j < t->columns; j++)
            for (size_t i = 0; i < t->count; i++)
                copy[j * stride + i] = t->codes[(ptrdiff_t)j * w->stride_n + (ptrdiff_t)i * w->stride_k];
    t->codes = copy;
    t->stride = (ptrdiff_t)stride;
}

/* Packs a part and adds it to the sums of each column. */
static void pack_part(const ndq_packed *p, const ndq_weights *w, panel_part t, int64_t (*sums)[2])
{
    const ndq_gemm_kernel *kernel = p->kernel;
    uint8_t copy[PACK_BYTES];
    const size_t k = t.run * (p->K / p->runs) + t.k;
    t.codes = w->codes + (ptrdiff_t)t.first * w->stride_n + (ptrdiff_t)k * w->stride_k;
    t.stride = w->stride_n;
    if (w->stride_k != 1 && w->stride_n == 1 && kernel->pack_columns) {
        t.stride = w->stride_k;
        pack_at_once(kernel->pack_columns, p, w, &t, sums);
        return;
    }
    if (w->stride_k != 1)
        copy_codes(w, &t, PACK_BYTES / kernel->nr, copy);
    if (kernel->pack_rows)
        pack_at_once(kernel->pack_rows, p, w, &t, sums);
    else
        pack_by_steps(p, w, &t, sums);
}

typedef struct {
    ndq_packed *packed;
    const ndq_weights *weights;
} packing;

static void pack_panel(void *ctx, size_t panel)
{
    const packing *job = ctx;
    ndq_packed *p = job->packed;
    const ndq_weights *w = job->weights;
    const size_t first = panel * p->kernel->nr, columns = ndq_min_size(p->kernel->nr, w->N - first);
    if (w->make_rows)
        w->make_rows(w->ctx, first, columns);
    const int32_t shift = shift_to_s8(p->kernel, w->is_signed);
    int64_t sums[NDQ_GEMM_MAX_NR][2] = {{0}};
    const size_t run_codes = p->K / p->runs, part = part_codes(p->kernel);
    assert(part % p->kernel->k_step == 0);
    for (size_t run = 0; run < p->runs; run++)
        for (size_t k = 0; k < run_codes; k += part)
            pack_part(p, w, (panel_part){first, columns, run, k, ndq_min_size(part, run_codes - k), NULL, 0}, sums);
    for (size_t j = 0; j < columns; j++) {
        p->column_sum[first + j] = (int32_t)(uint32_t)(uint64_t)sums[j][0];
        p->magnitude[first + j] = sums[j][1];
    }
    for (size_t j = 0; !p->kernel->w_centred && j < columns; j++)
        p->zero_point[first + j] = zero_of(w, first + j) + shift;
}

/* K codes from k on of row n, contiguous: in place if they already are. */
static const uint8_t *contiguous_codes(const ndq_weights *w, size_t n, size_t k, size_t count, uint8_t *copy)
{
    const uint8_t *codes = w->codes + (ptrdiff_t)n * w->stride_n + (ptrdiff_t)k * w->stride_k;
    if (w->stride_k == 1)
        return codes;
    for (size_t i = 0; i < count; i++)
        copy[i] = codes[(ptrdiff_t)i * w->stride_k];
    return copy;
}

/* Whether a special kernel may pack these weights. Ordinary ones show in their first run that they are not small. */
static bool all_fit(const ndq_gemm_kernel *kernel, const ndq_weights *w)
{
    enum { AT_ONCE = 2048 };
    uint8_t copy[AT_ONCE];
    if (w->largest)
        return w->largest <= kernel->largest_weight;
    for (size_t n = 0; n < w->N; n++) {
        const int32_t zero = zero_of(w, n);
        for (size_t k = 0; k < w->K; k += AT_ONCE) {
            const size_t count = ndq_min_size(AT_ONCE, w->K - k);
            int32_t extremes[2] = {zero, zero};
            kernel->extremes(count, contiguous_codes(w, n, k, count, copy), w->is_signed, extremes);
            if (extremes[0] - zero < kernel->lowest_weight || extremes[1] - zero > kernel->largest_weight)
                return false;
        }
    }
    return true;
}

/* Memory first, weights second: a broadcast view that fits no memory would take forever to look through. */
static ndq_packed *choose_kernel(const ndq_gemm_kernel *kernel, const ndq_weights *w, bool with_float_bias)
{
    for (const ndq_gemm_kernel *special = kernel->special; special; special = special->special) {
        const bool too_few = special->least_codes && (w->K == 0 || w->N < special->least_codes / w->K);
        if (too_few || w->largest > special->largest_weight)
            continue;
        ndq_packed *p = new_packed(special, w, with_float_bias);
        if (!p || all_fit(special, w))
            return p;
        ndq_gemm_free(p);
    }
    return new_packed(kernel, w, with_float_bias);
}

ndq_packed *ndq_gemm_pack(const ndq_gemm_kernel *kernel, const ndq_weights *w, bool with_float_bias)
{
    ndq_packed *p = choose_kernel(kernel, w, with_float_bias);
    if (!p)
        return NULL;
    ndq_for_chunks(w->N * w->K, ndq_ceil_div(w->N, p->kernel->nr), pack_panel, &(packing){p, w});
    int64_t largest = 0;
    for (size_t n = 0; n < w->N; n++)
        largest = p->magnitude[n] > largest ? p->magnitude[n] : largest;
    p->max_magnitude = largest;
    for (size_t n = 0; !p->kernel->w_centred && n < w->N; n++)
        p->any_zero_point |= p->zero_point[n] != 0;
    return p;
}

void ndq_gemm_free(ndq_packed *packed)
{
    ndq_free(packed);
}

/* Bounds every partial sum too: each is at most the sum of magnitudes. */
static bool fits(int64_t magnitude, int64_t largest, int64_t bias)
{
    int64_t sum;
    return !__builtin_mul_overflow(magnitude, largest, &sum) && !__builtin_add_overflow(sum, llabs(bias), &sum) &&
           sum <= INT32_MAX;
}

size_t ndq_gemm_overflow(const ndq_packed *w, bool a_signed, int32_t za)
{
    const int32_t below = za - (a_signed ? -128 : 0), above = (a_signed ? 127 : 255) - za;
    const int64_t largest = below > above ? below : above;
    if (fits(w->max_magnitude, largest, w->max_bias))
        return w->N;
    size_t n = 0;
    while (n < w->N && fits(w->magnitude[n], largest, w->bias[n]))
        n++;
    return n;
}

/* ---- The product ---- */

/* Rows of activations in a kernel's format take at most this much, which leaves half of a 256 KB L2 for a panel; but
 * there are enough of them that reading the panels again for each block does not take longer than multiplying. */
enum { BLOCK_BYTES = 96 * 1024, LEAST_ROWS = 48 };

/* Several for each thread, as cores that are shared with others differ in speed. */
enum { CHUNKS_PER_THREAD = 4 };

typedef struct {
    const ndq_gemm_call *call;
    ndq_gemm_stage stage;
    bool in_place;      /* the tile reads the activations where they are */
    size_t row_bytes;   /* of a row in the kernel's format */
    size_t block_rows, block_panels; /* of one chunk */
    size_t column_chunks, chunks;
    int no_memory;      /* set by any thread */
} job;

/* The rows of a chunk: where its tiles read them, and memory for what becomes of them. */
typedef struct {
    const uint8_t *rows;
    size_t stride, first, count, tiles;
    int32_t *sums; /* of the codes of each row, or NULL: no row term */
    int32_t *acc;  /* of one panel: of all tiles if K is cut, else of one */
    size_t step;   /* words of K at a time */
    size_t levels;   /* of gemm_strassen.h; 0: all panels are multiplied as they are */
    uint8_t *halves; /* its scratch */
} block;

/* A panel, and the constants of its columns. */
typedef struct {
    size_t panel, columns;
    ndq_gemm_columns constants;
} strip;

ndq_gemm_stage ndq_gemm_make_stage(const ndq_gemm_call *call)
{
    float lo = (float)(call->qmin - call->out_zero), hi = (float)(call->qmax - call->out_zero);
    ndq_narrow_steps(call->activation, call->out_inv, &lo, &hi);
    const bool adds_zero_first = call->requantization == NDQ_ONNX && call->output == NDQ_GEMM_CODES;
    const int32_t zero = adds_zero_first ? 0 : call->out_zero;
    const int32_t lowest = (int32_t)lo + call->out_zero, highest = (int32_t)hi + call->out_zero;
    const int32_t flip = lowest < 0 ? 128 : 0;
    return (ndq_gemm_stage){
        .floor = ndq_least_value(call->activation),
        .ceiling = ndq_largest_value(call->activation),
        .inv = call->requantization == NDQ_DEQUANTIZE ? call->out_inv : 1.0f,
        .lo = lo + (float)(call->out_zero - zero),
        .hi = hi + (float)(call->out_zero - zero),
        .zero = zero,
        .float_bias = call->w->float_bias != NULL || adds_zero_first,
        .flip = (uint8_t)flip,
        .lowest = (uint8_t)(lowest + flip),
        .highest = (uint8_t)(highest + flip),
        .moved_zero = (int16_t)(zero + flip),
    };
}

bool ndq_gemm_shrinks(const ndq_gemm_call *call)
{
    const float scale = call->a_scale * call->w->max_scale;
    if (call->w->float_bias || call->requantization == NDQ_ONNX)
        return false;
    return (call->requantization == NDQ_DEQUANTIZE ? scale * call->out_inv : scale / call->out_scale) <= 0.5f;
}

/* For sums that become codes by one multiplication. */
static inline void requantize_columns(const ndq_gemm_call *call, const size_t nr, size_t first, ndq_gemm_columns *c)
{
    const ndq_packed *w = call->w;
    for (size_t j = 0; j < nr; j++) {
        /* Padding columns have scale 0 and are not stored. */
        c->before[j] = w->float_bias && first + j < w->N ? c->after[j] / c->scale[j] : 0.0f;
        c->after[j] = call->requantization == NDQ_ONNX ? (float)call->out_zero : 0.0f;
        c->scale[j] = c->scale[j] / call->out_scale;
    }
}

static inline __attribute__((always_inline)) void fill_columns(const ndq_gemm_call *call, uint32_t za, const size_t nr,
                                                               size_t first, ndq_gemm_columns *NDQ_RESTRICT c)
{
    const ndq_packed *w = call->w;
    const bool direct = call->requantization == NDQ_DEQUANTIZE || call->output != NDQ_GEMM_CODES;
    memcpy(c->add, w->bias + first, nr * sizeof(*c->add));
    if (w->any_zero_point)
        memcpy(c->zero_point, w->zero_point + first, nr * sizeof(*c->zero_point));
    memset(c->before, 0, nr * sizeof(*c->before));
    if (za)
        for (size_t j = 0; j < nr; j++)
            c->add[j] = (int32_t)((uint32_t)c->add[j] - za * (uint32_t)w->column_sum[first + j]);
    if (w->float_bias)
        memcpy(c->after, w->float_bias + first, nr * sizeof(*c->after));
    else
        memset(c->after, 0, nr * sizeof(*c->after));
    const float a_scale = call->a_scale, *scale = w->scale + first;
    for (size_t j = 0; j < nr; j++)
        c->scale[j] = a_scale * scale[j];
    if (!direct)
        requantize_columns(call, nr, first, c);
    c->shrinks = call->output == NDQ_GEMM_CODES && ndq_gemm_shrinks(call);
}

/* Columns from `first` on, for sums of codes whose zero point is za, unless it has been subtracted from the codes. */
static void make_columns(const ndq_gemm_call *call, int32_t za, size_t first, ndq_gemm_columns *columns)
{
    const size_t nr = call->w->kernel->nr;
    if (nr == 16) /* loops whose length is known take a third of the time: it counts where there are few rows */
        fill_columns(call, (uint32_t)za, 16, first, columns);
    else
        fill_columns(call, (uint32_t)za, nr, first, columns);
}

void ndq_gemm_make_columns(const ndq_gemm_call *call, size_t first, ndq_gemm_columns *columns)
{
    const ndq_gemm_kernel *kernel = call->w->kernel;
    const int32_t za = kernel->a_centred ? 0 : call->za + ndq_gemm_shift_of_a(kernel, call->a_signed);
    make_columns(call, za, first, columns);
}

/* Rows [m, m + rows) of a block and their sums. */
typedef struct {
    size_t m, rows;
    int32_t *acc;
} tile_rows;

static uint8_t *output_of(const job *j, size_t row, size_t panel)
{
    const ndq_packed *w = j->call->w;
    return (uint8_t *)j->call->out + (row * w->N + panel * w->kernel->nr) * ndq_gemm_output_bytes(j->call->output);
}

static void finish_tile(const job *j, const block *b, const strip *s, const tile_rows *t)
{
    const ndq_packed *w = j->call->w;
    const size_t stride = w->N * ndq_gemm_output_bytes(j->call->output);
    if (b->sums)
        w->kernel->subtract_row_terms(t->rows, t->acc, b->sums + t->m, &s->constants);
    w->kernel->store[j->call->output](t->rows, s->columns, t->acc, &s->constants, &j->stage,
                                      output_of(j, b->first + t->m, s->panel), stride);
}

/* Sums have places of their own if K is cut, or else as many as are in use at once. */
static tile_rows rows_of_tile(const job *j, const block *b, size_t tile, size_t m)
{
    const ndq_gemm_kernel *kernel = j->call->w->kernel;
    const size_t place = b->step < j->call->w->words ? m : kernel->waits ? tile % 2 * kernel->mr : 0;
    /* Tiles of about equal size: one of few rows is slow. */
    return (tile_rows){m, b->count / b->tiles + (tile < b->count % b->tiles), b->acc + place * kernel->nr};
}

/* Multiplies all rows of a block by words [word, word + words) of a panel, which ends the sums if these are the last. */
static void run_words(const job *j, const block *b, const strip *s, size_t word, size_t words)
{
    const ndq_packed *w = j->call->w;
    const bool is_last = word + words == w->words, waits = w->kernel->waits;
    const ptrdiff_t offset = (ptrdiff_t)(word * sizeof(ndq_gemm_word));
    const ndq_gemm_runs k = {1, words, &offset, word > 0, j->call->a_signed, w->is_signed};
    const void *weights = ndq_gemm_panel(w, s->panel, word);
    ndq_gemm_tile *const *tile = ndq_gemm_tiles(w->kernel, s->columns);
    tile_rows before = {0, 0, NULL};
    for (size_t i = 0; i < b->tiles; i++) {
        const tile_rows t = rows_of_tile(j, b, i, before.m + before.rows);
        tile[t.rows - 1](&k, b->rows + t.m * b->stride, b->stride, weights, t.acc);
        if (is_last && (!waits || i > 0))
            finish_tile(j, b, s, waits ? &before : &t);
        before = t;
    }
    if (is_last && waits)
        finish_tile(j, b, s, &before);
}

enum { PAIR_BYTES = 128 * 1024 }; /* two panels of so many bytes stay in L2 beside the rows */

/* Outputs of one or two panels without sums in memory, and how many; 0 if that cannot be. */
static size_t run_at_once(const job *j, const block *b, size_t panel, size_t end_panel)
{
    const ndq_packed *w = j->call->w;
    const ndq_gemm_kernel *kernel = w->kernel;
    const ndq_gemm_output output = j->call->output;
    const size_t first = panel * kernel->nr;
    const ptrdiff_t offset = 0;
    const ndq_gemm_runs k = {1, w->words, &offset, false, j->call->a_signed, w->is_signed};
    ndq_gemm_columns c[2];
    if (!kernel->row[output] || w->words > b->step)
        return 0;
    ndq_gemm_make_columns(j->call, first, &c[0]);
    if (!ndq_gemm_row_at_once(w, &c[0], output))
        return 0;
    size_t count = 1;
    if (kernel->row_panels > 1 && panel + 1 < end_panel && 2 * w->panel_bytes <= PAIR_BYTES) {
        ndq_gemm_make_columns(j->call, first + kernel->nr, &c[1]);
        count += ndq_gemm_row_at_once(w, &c[1], output);
    }
    kernel->row[output](b->count, &k, b->rows, b->stride, ndq_gemm_panel(w, panel, 0),
                        ndq_min_size(count * kernel->nr, w->N - first), c, &j->stage, output_of(j, b->first, panel),
                        w->N * ndq_gemm_output_bytes(output));
    return count;
}

static void run_panel(const job *j, const block *b, size_t panel)
{
    const ndq_packed *w = j->call->w;
    const size_t first = panel * w->kernel->nr;
    strip s;
    s.panel = panel;
    s.columns = ndq_min_size(w->kernel->nr, w->N - first);
    ndq_gemm_make_columns(j->call, first, &s.constants);
    size_t word = 0;
    do {
        run_words(j, b, &s, word, ndq_min_size(b->step, w->words - word));
        word += b->step;
    } while (word < w->words);
}

/* Brings rows into the kernel's format, padded with zeros. A few codes are multiplied in the time of a call. */
static void expand_rows(const job *j, size_t count, const uint8_t *a, uint8_t *rows)
{
    const ndq_gemm_call *call = j->call;
    const ndq_packed *w = call->w;
    const ndq_gemm_kernel *kernel = w->kernel;
    const size_t bytes = w->words * sizeof(ndq_gemm_word), padding = bytes - w->K * ndq_gemm_code_bytes(kernel);
    const bool few = padding <= sizeof(uint64_t) && bytes >= sizeof(uint64_t);
    for (size_t m = 0; m < count; m++, a += call->a_stride, rows += j->row_bytes) {
        if (few)
            memset(rows + bytes - sizeof(uint64_t), 0, sizeof(uint64_t));
        else
            memset(rows + bytes - padding, 0, padding);
        kernel->expand_a(w->K, a, call->a_signed, call->za, rows);
    }
}

static int32_t sum_of_row(const ndq_gemm_call *call, const uint8_t *codes)
{
    int64_t sum[2] = {0, 0};
    const ndq_gemm_kernel *kernel = call->w->kernel;
    kernel->sums(call->w->K, codes, call->a_signed, -ndq_gemm_shift_of_a(kernel, call->a_signed), sum);
    return (int32_t)(uint32_t)(uint64_t)sum[0];
}

/* Lays out the memory of a block from `base` on; its bytes. */
static size_t lay_out_block(const job *j, uint8_t *base, block *b)
{
    const ndq_packed *w = j->call->w;
    const size_t rows = ndq_strassen_padded_rows(b->count, b->levels);
    const size_t rows_bytes = j->in_place ? 0 : rows * j->row_bytes;
    const size_t halves_bytes = b->levels ? ndq_strassen_scratch_bytes(w, b->count, b->levels) : 0;
    const size_t at_once = w->kernel->mr * (w->kernel->waits ? 2 : 1);
    const size_t rows_of_acc = b->step < w->words ? b->count : at_once;
    b->halves = base + rows_bytes;
    b->acc = (int32_t *)(void *)(base + rows_bytes + halves_bytes);
    b->sums = w->any_zero_point ? b->acc + ndq_round_up(rows_of_acc * w->kernel->nr, NDQ_ALIGN) : NULL;
    const size_t numbers = ndq_round_up(rows_of_acc * w->kernel->nr, NDQ_ALIGN) + b->count;
    return rows_bytes + halves_bytes + numbers * sizeof(int32_t);
}

/* Brings the rows of a block into the kernel's format, with their sums if a row term needs them. */
static void prepare_block(const job *j, block *b, uint8_t *scratch)
{
    const ndq_gemm_call *call = j->call;
    const uint8_t *a = call->a + (ptrdiff_t)b->first * call->a_stride;
    b->rows = j->in_place ? a : scratch;
    b->stride = j->in_place ? (size_t)call->a_stride : j->row_bytes;
    if (!j->in_place)
        expand_rows(j, b->count, a, scratch);
    for (size_t m = 0; b->sums && m < b->count; m++, a += call->a_stride)
        b->sums[m] = sum_of_row(call, a);
}

/* Outputs of panels by fewer multiplications, and how many panels; 0 if that does not pay. */
static size_t run_halves(const job *j, const block *b, uint8_t *rows, size_t first_panel, size_t end_panel)
{
    const ndq_strassen_block halves = {.call = j->call, .stage = &j->stage, .first = b->first, .count = b->count,
                                       .levels = b->levels, .stride = b->stride, .rows = rows, .scratch = b->halves};
    if (!b->levels)
        return 0;
    ndq_strassen_prepare(&halves);
    return ndq_strassen_run(&halves, first_panel, end_panel);
}

/* Memory of a single row in the format of vector_tile. */
static size_t bytes_of_vector(const ndq_packed *w)
{
    return ndq_round_up(w->words * w->kernel->codes_per_word * w->kernel->vector_bytes, NDQ_ALIGN);
}

/* Outputs of one panel from the sums of a single row, whose codes are u8 and not centred. */
static void finish_vector(const job *j, size_t panel, int32_t sum_of_codes, int32_t *acc)
{
    const ndq_gemm_call *call = j->call;
    const ndq_packed *w = call->w;
    const ndq_gemm_kernel *kernel = w->kernel;
    const size_t first = panel * kernel->nr;
    ndq_gemm_columns c;
    make_columns(call, call->za + (call->a_signed ? 128 : 0), first, &c);
    if (w->any_zero_point)
        kernel->subtract_row_terms(1, acc, &sum_of_codes, &c);
    kernel->store[call->output](1, ndq_min_size(kernel->nr, w->N - first), acc, &c, &j->stage, output_of(j, 0, panel), 0);
}

static void run_vector(job *j, size_t first_panel, size_t end_panel)
{
    const ndq_gemm_call *call = j->call;
    const ndq_packed *w = call->w;
    const ndq_gemm_kernel *kernel = w->kernel;
    const size_t row_bytes = bytes_of_vector(w), used = w->K * kernel->vector_bytes;
    uint8_t *row = ndq_scratch(row_bytes + NDQ_GEMM_VECTOR_PANELS * kernel->nr * sizeof(int32_t));
    if (!row) {
        __atomic_store_n(&j->no_memory, 1, __ATOMIC_RELAXED);
        return;
    }
    int32_t *acc = (int32_t *)(row + row_bytes);
    memset(row + used, 0, row_bytes - used);
    kernel->expand_vector(w->K, call->a, call->a_signed, row);
    int64_t sum[2] = {0, 0};
    if (w->any_zero_point)
        kernel->sums(w->K, call->a, call->a_signed, call->a_signed ? -128 : 0, sum);
    for (size_t panel = first_panel; panel < end_panel;) {
        const size_t count = ndq_min_size(NDQ_GEMM_VECTOR_PANELS, end_panel - panel);
        const bool is_narrow = w->N <= (panel + count) * kernel->nr - kernel->nr / 2 && kernel->narrow_vector_tile[0];
        ndq_gemm_vector_tile *const *tile = is_narrow ? kernel->narrow_vector_tile : kernel->vector_tile;
        tile[count - 1](w->words, row, ndq_gemm_panel(w, panel, 0), w->panel_bytes, acc);
        for (size_t i = 0; i < count; i++)
            finish_vector(j, panel + i, (int32_t)(uint32_t)(uint64_t)sum[0], acc + i * kernel->nr);
        panel += count;
    }
}

static void run_chunk(void *ctx, size_t chunk)
{
    job *j = ctx;
    const ndq_packed *w = j->call->w;
    const size_t first = chunk / j->column_chunks * j->block_rows;
    size_t first_panel = chunk % j->column_chunks * j->block_panels;
    const size_t end_panel = ndq_min_size(first_panel + j->block_panels, ndq_ceil_div(w->N, w->kernel->nr));
    if (j->call->M == 1 && w->kernel->vector_tile[0] && (w->is_signed || !w->kernel->any_signs)) {
        run_vector(j, first_panel, end_panel);
        return;
    }
    block b = {.first = first, .count = ndq_min_size(j->block_rows, j->call->M - first)};
    b.levels = ndq_strassen_levels(w, b.count, end_panel - first_panel);
    b.tiles = ndq_ceil_div(b.count, w->kernel->mr);
    b.step = b.tiles > 1 && w->kernel->block_words ? w->kernel->block_words : w->words;
    uint8_t *scratch = ndq_scratch(lay_out_block(j, NULL, &b));
    if (!scratch) {
        __atomic_store_n(&j->no_memory, 1, __ATOMIC_RELAXED);
        return;
    }
    lay_out_block(j, scratch, &b);
    prepare_block(j, &b, scratch);
    ndq_gemm_enter(w->kernel);
    first_panel += run_halves(j, &b, scratch, first_panel, end_panel);
    for (size_t panel = first_panel; panel < end_panel;) {
        const size_t done = run_at_once(j, &b, panel, end_panel);
        if (!done)
            run_panel(j, &b, panel);
        panel += done ? done : 1;
    }
    ndq_gemm_leave(w->kernel);
}

/* A power of two between rows would put all rows of a tile into the same few sets of the L1 cache. */
static size_t padded_row_bytes(const ndq_packed *w)
{
    const size_t bytes = ndq_round_up(w->words * sizeof(ndq_gemm_word), NDQ_ALIGN);
    return bytes % 512 ? bytes : bytes + NDQ_ALIGN;
}

/* Cuts the product into chunks: blocks of rows that fit the cache, fewer rows if there are threads to feed, and groups
 * of panels only if there are not enough rows for that, as each group prepares its rows again. */
static void cut(job *j, size_t threads)
{
    const ndq_gemm_kernel *kernel = j->call->w->kernel;
    const size_t panels = ndq_ceil_div(j->call->w->N, kernel->nr), M = j->call->M;
    const size_t in_cache = BLOCK_BYTES / (j->row_bytes + sizeof(int32_t) + j->call->w->N * ndq_gemm_output_bytes(j->call->output));
    size_t rows = in_cache > LEAST_ROWS ? in_cache : LEAST_ROWS;
    const size_t rows_in_halves = ndq_strassen_rows(j->call->w, M, threads);
    if (ndq_strassen_levels(j->call->w, rows_in_halves, panels))
        rows = rows_in_halves;
    else if (threads > 1)
        rows = ndq_min_size(rows, ndq_ceil_div(M, CHUNKS_PER_THREAD * threads));
    j->block_rows = ndq_round_up(rows, kernel->mr);
    const size_t row_chunks = ndq_ceil_div(M, j->block_rows);
    const size_t groups = ndq_min_size(panels, row_chunks < threads ? ndq_ceil_div(2 * threads, row_chunks) : 1);
    j->block_panels = ndq_ceil_div(panels, groups);
    j->column_chunks = ndq_ceil_div(panels, j->block_panels);
    j->chunks = row_chunks * j->column_chunks;
}

enum { AWAKE_FRACTION = 16 }; /* of the work that is worth waking a thread: worth sharing with one that is awake */

/* A thread that is still awake from the layer before takes its share of a few microseconds of work. */
size_t ndq_gemm_threads(double macs, double enough)
{
    return macs >= enough || (macs >= enough / AWAKE_FRACTION && ndq_worker_is_awake()) ? ndq_get_num_threads() : 1;
}

ndq_status ndq_gemm(const ndq_gemm_call *call)
{
    const ndq_packed *w = call->w;
    if (!call->M || !w->N)
        return NDQ_OK;
    const bool whole_words = w->K % w->kernel->k_step == 0;
    job j = {.call = call,
             .stage = ndq_gemm_make_stage(call),
             .in_place = !w->kernel->a_centred && whole_words &&
                         (w->kernel->any_signs || call->a_signed == w->kernel->a_signed),
             .row_bytes = padded_row_bytes(w)};
    cut(&j, ndq_gemm_threads((double)call->M * (double)w->N * (double)w->K, w->kernel->parallel_macs));
    if (j.chunks > 1)
        ndq_parallel_for(j.chunks, run_chunk, &j);
    else
        run_chunk(&j, 0);
    return j.no_memory ? NDQ_NO_MEMORY : NDQ_OK;
}
