#include "gemm_strassen.h"

/* Words of a product at a time: those of one panel stay in L1 while all rows are multiplied by them. */
enum { BLOCK_WORDS = 256 };

/* A level wins an eighth of the products. Of that, sums of rows take LEFT / columns, sums of weights RIGHT / rows, and sums
 * of products, with what leaving `row` for tiles of sums costs, OUTPUTS / words of a product: fitted to shapes timed with a
 * level and without. Fewer columns would not fill the panels that are taken in pairs. */
enum { LEFT = 80, RIGHT = 36, OUTPUTS = 56, LEAST_COLUMNS = 128 };

/* A second level pays from here on; words are those of its products. */
enum { LEAST_ROWS_TWICE = 128, LEAST_COLUMNS_TWICE = 384, LEAST_WORDS_TWICE = 64 };

enum { LEAST_ROWS = 96, MOST_ROWS = 256 }; /* of a block, which may be the last */

/* Of rows and their sums, which take MOST_COPIES of the rows, unless there are LEAST_ROWS: scratch stays with the thread.
 * CACHE_BYTES of L2 are for them. */
enum { MOST_BYTES = 4 * 1024 * 1024, MOST_COPIES = 4, CACHE_BYTES = 320 * 1024 };

enum { SUMS = 4, FIRST_LEFT_SUM = 2 }; /* left operands that are sums: those of P2 to P5 */

/* Words of each product of `levels`. A few more may be left: tiles take them in pairs. */
static size_t words_of_product(const ndq_packed *w, size_t levels)
{
    return w->words >> (levels + 1) << 1;
}

static size_t block_words(size_t words)
{
    return ndq_round_up(ndq_ceil_div(words, ndq_ceil_div(words, BLOCK_WORDS)), 2);
}

/* Panels that are multiplied at a time: two for each product of the second level, as rows and all their sums do not stay
 * in L2, and would be read twice as often for one. */
static size_t panels_of(size_t levels)
{
    return levels << levels;
}

static bool pays(size_t rows, size_t columns, size_t words)
{
    return LEFT * rows * words + RIGHT * columns * words + OUTPUTS * rows * columns < rows * columns * words;
}

static bool may_be_cut_twice(const ndq_packed *w, size_t columns)
{
    return columns >= LEAST_COLUMNS_TWICE && words_of_product(w, 2) >= LEAST_WORDS_TWICE;
}

size_t ndq_strassen_levels(const ndq_packed *w, size_t rows, size_t panels)
{
    const size_t columns = ndq_min_size(panels * w->kernel->nr, w->N);
    if (!w->kernel->strassen || columns < LEAST_COLUMNS || !pays(rows, columns, words_of_product(w, 1)))
        return 0;
    return rows >= LEAST_ROWS_TWICE && may_be_cut_twice(w, columns) ? NDQ_STRASSEN_LEVELS : 1;
}

/* Of a block. One level of many rows is faster by blocks that stay in L2 with their sums, unless these have too few. */
static size_t most_rows(const ndq_packed *w, size_t M)
{
    const size_t row_bytes = w->words * sizeof(ndq_gemm_word), fit = CACHE_BYTES / (2 * row_bytes);
    const bool in_cache = !may_be_cut_twice(w, w->N) && M >= MOST_ROWS && fit >= MOST_ROWS / 2;
    const size_t most = in_cache ? fit : MOST_BYTES / (MOST_COPIES * row_bytes);
    return most < LEAST_ROWS ? LEAST_ROWS : ndq_min_size(most, MOST_ROWS);
}

size_t ndq_strassen_rows(const ndq_packed *w, size_t M, size_t threads)
{
    const size_t most = w->words ? most_rows(w, M) : MOST_ROWS;
    const size_t rows = ndq_ceil_div(M, ndq_round_up(ndq_ceil_div(M, most), threads));
    return ndq_round_up(rows, 2 * w->kernel->mr);
}

/* ---- Left operands: rows ---- */

/* An operand of `count` rows that is cut into quarters `level` times, with the sums of these: [SUMS] of rows, then the sums
 * of each of its left operands. */
typedef struct {
    const uint8_t *rows;
    uint8_t *sums;
    size_t stride, count, words, level;
} left_operand;

/* Bytes from one sum of rows to the next: no power of two, as for the rows themselves. */
static size_t sum_stride(const left_operand *a)
{
    const size_t bytes = ndq_round_up(a->words / 2 * sizeof(ndq_gemm_word), NDQ_ALIGN);
    return bytes % 512 ? bytes : bytes + NDQ_ALIGN;
}

static size_t left_set(const left_operand *a)
{
    return a->count / 2 * sum_stride(a);
}

static size_t left_bytes(const left_operand *a)
{
    const left_operand half = {.count = a->count / 2, .words = a->words / 2, .level = a->level - 1};
    return a->level ? SUMS * left_set(a) + NDQ_STRASSEN_PRODUCTS * left_bytes(&half) : 0;
}

/* The left operand of a product. */
static left_operand left_of(const left_operand *a, size_t product)
{
    left_operand half = {.count = a->count / 2, .words = a->words / 2, .level = a->level - 1};
    half.sums = a->sums + SUMS * left_set(a) + product * left_bytes(&half);
    if (product >= FIRST_LEFT_SUM && product < FIRST_LEFT_SUM + SUMS) {
        half.stride = sum_stride(a);
        half.rows = a->sums + (product - FIRST_LEFT_SUM) * left_set(a);
    } else {
        half.stride = a->stride;
        half.rows = a->rows + (product == 6 ? half.count * a->stride : 0) +
                    (product == 0 ? 0 : half.words * sizeof(ndq_gemm_word));
    }
    return half;
}

static void sum_left(const ndq_strassen *strassen, const left_operand *a)
{
    const size_t half = a->count / 2, codes = a->words;
    for (size_t m = 0; m < half; m++) {
        const int16_t *upper = (const int16_t *)(const void *)(a->rows + m * a->stride);
        const int16_t *lower = (const int16_t *)(const void *)(a->rows + (half + m) * a->stride);
        const int16_t *const quarter[NDQ_STRASSEN_QUARTERS] = {upper, upper + codes, lower, lower + codes};
        strassen->sum_rows(codes, quarter, (int16_t *)(void *)(a->sums + m * sum_stride(a)),
                           left_set(a) / sizeof(int16_t));
    }
    for (size_t p = 0; a->level > 1 && p < NDQ_STRASSEN_PRODUCTS; p++) {
        const left_operand operand = left_of(a, p);
        sum_left(strassen, &operand);
    }
}

/* ---- Right operands: weights ---- */

/* An operand of `count` panels. Each level cuts its words into halves that follow each other, and its panels into even and
 * odd ones. Sums of weights are in the format of strassen->products. */
typedef struct {
    const ndq_gemm_kernel *kernel;
    const uint8_t *panels;
    size_t count, panel_step;
    size_t words_step; /* from one part of the words to the next: they are as many as all levels make of them */
} right_operand;

/* Of so many words of a panel of such sums. */
static size_t part_bytes(const ndq_packed *w, size_t words)
{
    return words * w->kernel->nr * sizeof(ndq_gemm_word);
}

/* Of one sum of half of `count` panels, of so many words of each part: no power of two, as for rows. */
static size_t right_set(const ndq_packed *w, size_t level, size_t count, size_t words)
{
    return ((count / 2) << (level - 1)) * part_bytes(w, words) + NDQ_ALIGN;
}

/* The right operands of all products, of so many words of each part. */
static void take_right(const ndq_packed *w, const right_operand *b, size_t level, size_t words, uint8_t *sums,
                       right_operand right[NDQ_STRASSEN_PRODUCTS])
{
    static const uint8_t product_of_sum[SUMS] = {2, 3, 4, 6};
    const ndq_strassen *strassen = w->kernel->strassen;
    const size_t parts = (size_t)1 << (level - 1), half = b->count / 2, lower = parts * b->words_step;
    const size_t bytes = part_bytes(w, words), set = right_set(w, level, b->count, words);
    for (size_t i = 0; i < parts * half; i++) {
        const uint8_t *first = b->panels + i / half * b->words_step + i % half * 2 * b->panel_step;
        const uint8_t *const quarter[NDQ_STRASSEN_QUARTERS] = {first, first + b->panel_step, first + lower,
                                                               first + lower + b->panel_step};
        (b->kernel->byte_panels ? strassen->sum_bytes : strassen->sum_words)(
            bytes / sizeof(int16_t), quarter, (int16_t *)(void *)(sums + i * bytes), set / sizeof(int16_t));
    }
    for (size_t i = 0; i < SUMS; i++)
        right[product_of_sum[i]] = (right_operand){strassen->products, sums + i * set, half, bytes, half * bytes};
    right[0] = right[1] = right[5] =
        (right_operand){b->kernel, b->panels, half, 2 * b->panel_step, b->words_step};
    right[1].panels += lower;
    right[5].panels += lower + b->panel_step;
}

/* ---- Products ---- */

/* Sums of one product of half of `rows` and of `panels`, [panel][row][nr]. */
static size_t product_set(const ndq_packed *w, size_t rows, size_t panels)
{
    return rows / 2 * (panels / 2) * w->kernel->nr;
}

static size_t product_bytes(const ndq_packed *w, size_t rows, size_t panels)
{
    return NDQ_STRASSEN_PRODUCTS * product_set(w, rows, panels) * sizeof(int32_t);
}

/* Of all that `multiply` needs. */
static size_t work_bytes(const ndq_packed *w, size_t rows, size_t panels, size_t level, size_t words)
{
    const size_t sums = SUMS * right_set(w, level, panels, words);
    return level == 1 ? sums
                      : sums + product_bytes(w, rows / 2, panels / 2) +
                            work_bytes(w, rows / 2, panels / 2, level - 1, words);
}

/* Tiles of about equal size over some rows, each of which is multiplied by all panels while it is in L1. */
static void multiply_tiles(const ndq_gemm_runs *k, size_t count, const uint8_t *rows, size_t stride,
                           const right_operand *b, int32_t *sums)
{
    const ndq_gemm_kernel *kernel = b->kernel;
    for (size_t i = 0, at_once, left = ndq_ceil_div(count, kernel->mr); left > 0; left--, i += at_once) {
        at_once = ndq_ceil_div(count - i, left);
        for (size_t j = 0; j < b->count; j++)
            kernel->tile[at_once - 1](k, rows + i * stride, stride, b->panels + j * b->panel_step,
                                      sums + (j * count + i) * kernel->nr);
    }
}

/* C of a product that is made of seven, to its place among those of the level above. */
static void combine(const ndq_packed *w, size_t rows, size_t panels, bool add, const int32_t *products, int32_t *out)
{
    const size_t quarter = rows / 2 * w->kernel->nr;
    for (size_t i = 0; i < panels / 2; i++, products += quarter, out += 4 * quarter) {
        int32_t *const c[NDQ_STRASSEN_QUARTERS] = {out, out + 2 * quarter, out + quarter, out + 3 * quarter};
        w->kernel->strassen->outputs(quarter, products, product_set(w, rows, panels), add, c);
    }
}

/* Words of each part. */
typedef struct {
    size_t first, count;
} word_range;

/* The seven products of some words; `add`: added to what those before have given. */
static void multiply(const ndq_packed *w, const left_operand *a, const right_operand *b, word_range words, bool add,
                     int32_t *products, uint8_t *scratch)
{
    const ptrdiff_t offset = (ptrdiff_t)(words.first * sizeof(ndq_gemm_word));
    const ndq_gemm_runs k = {.runs = 1, .words = words.count, .offset = &offset, .continued = add};
    right_operand right[NDQ_STRASSEN_PRODUCTS];
    take_right(w, b, a->level, words.count, scratch, right);
    int32_t *inner = (int32_t *)(void *)(scratch + SUMS * right_set(w, a->level, b->count, words.count));
    for (size_t p = 0; p < NDQ_STRASSEN_PRODUCTS; p++, products += product_set(w, a->count, b->count)) {
        const left_operand left = left_of(a, p);
        if (a->level == 1) {
            multiply_tiles(&k, left.count, left.rows, left.stride, &right[p], products);
            continue;
        }
        multiply(w, &left, &right[p], words, false, inner,
                 (uint8_t *)inner + product_bytes(w, left.count, right[p].count));
        combine(w, left.count, right[p].count, add, inner, products);
    }
}

/* ---- Blocks ---- */

/* Where the scratch of a block is: sums of rows, products, and what `multiply` needs. */
typedef struct {
    left_operand a;
    int32_t *products;
    uint8_t *work;
} workspace;

/* Lays out the scratch of a block from `base` on; its bytes. */
static size_t lay_out(const ndq_packed *w, size_t rows, size_t levels, uint8_t *base, workspace *s)
{
    const size_t count = ndq_strassen_padded_rows(rows, levels);
    s->a = (left_operand){.sums = base, .count = count, .words = words_of_product(w, levels) << levels, .level = levels};
    const size_t panels = panels_of(levels), words = block_words(words_of_product(w, levels));
    const size_t left = left_bytes(&s->a), products = product_bytes(w, count, panels);
    s->products = (int32_t *)(void *)(base + left);
    s->work = base + left + products;
    return left + products + work_bytes(w, count, panels, levels, words);
}

size_t ndq_strassen_scratch_bytes(const ndq_packed *w, size_t rows, size_t levels)
{
    workspace s;
    return lay_out(w, rows, levels, NULL, &s);
}

/* The same of a block that has its scratch. */
static workspace workspace_of(const ndq_strassen_block *b)
{
    workspace s;
    lay_out(b->call->w, b->count, b->levels, b->scratch, &s);
    s.a.rows = b->rows;
    s.a.stride = b->stride;
    return s;
}

void ndq_strassen_prepare(const ndq_strassen_block *b)
{
    const workspace s = workspace_of(b);
    memset(b->rows + b->count * b->stride, 0, (s.a.count - b->count) * b->stride);
    sum_left(b->call->w->kernel->strassen, &s.a);
}

static uint8_t *output_of(const ndq_strassen_block *b, size_t row, size_t column)
{
    const size_t N = b->call->w->N;
    return (uint8_t *)b->call->out + ((b->first + row) * N + column) * ndq_gemm_output_bytes(b->call->output);
}

/* A pair of panels whose outputs are made, from products that are `set` sums apart. */
typedef struct {
    size_t panel, half, set; /* half: of the rows */
    size_t done;             /* words of K */
    int32_t *products;
    ndq_gemm_columns columns[2];
} pair;

/* Whether the outputs of both panels have been made in one go. */
static bool finish_codes(const ndq_strassen_block *b, const pair *s)
{
    const ndq_gemm_call *call = b->call;
    const ndq_packed *w = call->w;
    const size_t first = s->panel * w->kernel->nr;
    if (call->output != NDQ_GEMM_CODES || !s->columns[0].shrinks || !s->columns[1].shrinks || b->count < 2 * s->half ||
        w->words != s->done || w->N - first < 2 * w->kernel->nr)
        return false;
    w->kernel->strassen->codes(s->half, s->products, s->set, s->columns, b->stage, output_of(b, 0, first),
                               output_of(b, s->half, first), w->N);
    return true;
}

/* Adds what the last words give, if some are left, and stores a quarter of the outputs. */
static void finish_quarter(const ndq_strassen_block *b, const pair *s, size_t quarter, int32_t *sums)
{
    const ndq_gemm_call *call = b->call;
    const ndq_packed *w = call->w;
    const size_t nr = w->kernel->nr, panel = s->panel + quarter % 2, row = quarter / 2 * s->half;
    const size_t rows = ndq_min_size(s->half, b->count - row);
    const ptrdiff_t offset = (ptrdiff_t)(s->done * sizeof(ndq_gemm_word));
    const ndq_gemm_runs rest = {.runs = 1, .words = w->words - s->done, .offset = &offset, .continued = true};
    const right_operand weights = {.kernel = w->kernel, .panels = ndq_gemm_panel(w, panel, s->done), .count = 1};
    if (rest.words)
        multiply_tiles(&rest, rows, b->rows + row * b->stride, b->stride, &weights, sums);
    w->kernel->store[call->output](rows, ndq_min_size(nr, w->N - panel * nr), sums, &s->columns[quarter % 2], b->stage,
                                   output_of(b, row, panel * nr), w->N * ndq_gemm_output_bytes(call->output));
}

static void finish(const ndq_strassen_block *b, pair *s)
{
    const ndq_gemm_kernel *kernel = b->call->w->kernel;
    for (size_t i = 0; i < 2; i++)
        ndq_gemm_make_columns(b->call, (s->panel + i) * kernel->nr, &s->columns[i]);
    if (finish_codes(b, s))
        return;
    int32_t *const quarter[NDQ_STRASSEN_QUARTERS] = {s->products, s->products + s->set, s->products + 2 * s->set,
                                                     s->products + 3 * s->set};
    kernel->strassen->outputs(s->half * kernel->nr, s->products, s->set, false, quarter);
    for (size_t i = 0; i < NDQ_STRASSEN_QUARTERS; i++)
        finish_quarter(b, s, i, quarter[i]);
}

/* Outputs of `panels` panels by so many levels, at most as many as the block is prepared for. */
static void run_panels(const ndq_strassen_block *b, const workspace *s, size_t levels, size_t first, size_t panels)
{
    const ndq_packed *w = b->call->w;
    const size_t words = s->a.words >> levels, step = block_words(words), half = s->a.count / 2;
    const size_t words_step = (size_t)(ndq_gemm_panel(w, 0, words) - ndq_gemm_panel(w, 0, 0));
    left_operand a = s->a;
    a.level = levels;
    for (size_t word = 0; word < words; word += step) {
        const right_operand right = {w->kernel, ndq_gemm_panel(w, first, word), panels, w->panel_bytes, words_step};
        multiply(w, &a, &right, (word_range){word, ndq_min_size(step, words - word)}, word > 0, s->products, s->work);
    }
    for (size_t i = 0; i < panels; i += 2) {
        pair p = {.panel = first + i, .half = half, .set = product_set(w, a.count, panels), .done = a.words,
                  .products = s->products + i / 2 * half * w->kernel->nr};
        finish(b, &p);
    }
}

size_t ndq_strassen_run(const ndq_strassen_block *b, size_t first_panel, size_t end_panel)
{
    const workspace s = workspace_of(b);
    size_t panel = first_panel;
    for (size_t levels = b->levels; levels > 0; levels--)
        for (const size_t panels = panels_of(levels); panel + panels <= end_panel; panel += panels)
            run_panels(b, &s, levels, panel, panels);
    return panel - first_panel;
}
