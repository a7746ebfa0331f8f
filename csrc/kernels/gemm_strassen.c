#include "gemm_strassen.h"

/* Words of half of K at a time: their weights stay in L1 while all rows are multiplied by them. */
enum { BLOCK_WORDS = 256 };

/* Sums of rows and weights take as long as is won where there are fewer rows, fewer columns, or fewer words in half of K.
 * Blocks have about as many rows as words in half of K, so that they stay in the L2 cache. */
enum { LEAST_ROWS = 96, MOST_ROWS = 256, LEAST_COLUMNS = 128, LEAST_WORDS = 128 };

/* Of rows and their sums, unless there are LEAST_ROWS: scratch stays with the thread. */
enum { MOST_BYTES = 2 * 1024 * 1024 };

enum { SUMS = 4, FIRST_LEFT_SUM = 2 }; /* left operands that are sums: those of P2 to P5 */

/* Words of each half of K. Two more may be left: tiles take them in pairs. */
static size_t half_words(const ndq_packed *w)
{
    return w->words / 4 * 2;
}

static size_t block_words(const ndq_packed *w)
{
    const size_t half = half_words(w);
    return ndq_round_up(ndq_ceil_div(half, ndq_ceil_div(half, BLOCK_WORDS)), 2);
}

/* Bytes from one sum of rows to the next: no power of two, as for the rows themselves. */
static size_t sum_stride(const ndq_packed *w)
{
    const size_t bytes = ndq_round_up(half_words(w) * sizeof(ndq_gemm_word), NDQ_ALIGN);
    return bytes % 512 ? bytes : bytes + NDQ_ALIGN;
}

bool ndq_strassen_pays(const ndq_packed *w, size_t rows)
{
    return w->kernel->strassen && rows >= LEAST_ROWS && w->N >= LEAST_COLUMNS && half_words(w) >= LEAST_WORDS;
}

size_t ndq_strassen_rows(const ndq_packed *w, size_t M, size_t threads)
{
    const size_t row_bytes = 2 * w->words * sizeof(ndq_gemm_word), half = half_words(w);
    const size_t few = ndq_min_size(ndq_min_size(half, MOST_ROWS), row_bytes ? MOST_BYTES / row_bytes : MOST_ROWS);
    const size_t most = few > LEAST_ROWS ? few : LEAST_ROWS;
    const size_t rows = ndq_ceil_div(M, ndq_round_up(ndq_ceil_div(M, most), threads));
    return ndq_round_up(rows, 2 * w->kernel->mr);
}

/* The same of weights. */
static size_t right_set(const ndq_packed *w)
{
    return block_words(w) * w->kernel->nr * sizeof(ndq_gemm_word) + NDQ_ALIGN;
}

/* Where the scratch of a block is. */
typedef struct {
    uint8_t *left;  /* [SUMS][rows of a half][sum_stride] */
    uint8_t *right; /* [SUMS][right_set], of one block of words */
    int32_t *sums;  /* [product][rows of a half][nr] */
    size_t left_set, set, half;
} workspace;

/* Lays out the scratch of a block of so many rows from `base` on; its bytes. */
static size_t lay_out(const ndq_packed *w, size_t rows, uint8_t *base, workspace *s)
{
    s->half = ndq_strassen_padded_rows(rows) / 2;
    s->left_set = s->half * sum_stride(w);
    s->set = s->half * w->kernel->nr;
    const size_t left_bytes = SUMS * s->left_set, right_bytes = SUMS * right_set(w);
    s->left = base;
    s->right = base + left_bytes;
    s->sums = (int32_t *)(void *)(base + left_bytes + right_bytes);
    return left_bytes + right_bytes + NDQ_STRASSEN_PRODUCTS * s->set * sizeof(int32_t);
}

size_t ndq_strassen_scratch_bytes(const ndq_packed *w, size_t rows)
{
    workspace s;
    return lay_out(w, rows, NULL, &s);
}

void ndq_strassen_prepare(const ndq_strassen_block *b)
{
    const ndq_packed *w = b->call->w;
    const size_t codes = half_words(w) * w->kernel->codes_per_word, stride = b->stride / sizeof(int16_t);
    workspace s;
    lay_out(w, b->count, b->scratch, &s);
    if (b->count < 2 * s.half)
        memset(b->rows + b->count * b->stride, 0, b->stride);
    for (size_t m = 0; m < s.half; m++) {
        const int16_t *upper = (const int16_t *)(const void *)(b->rows + m * b->stride);
        const int16_t *lower = upper + s.half * stride;
        const int16_t *const quarter[NDQ_STRASSEN_QUARTERS] = {upper, upper + codes, lower, lower + codes};
        w->kernel->strassen->sum_rows(codes, quarter, (int16_t *)(void *)(s.left + m * sum_stride(w)),
                                      s.left_set / sizeof(int16_t));
    }
}

/* The left operand of a product, from `word` of a half on, and its stride. */
static const uint8_t *left_of(const ndq_strassen_block *b, const workspace *s, size_t product, size_t word,
                              size_t *stride)
{
    const ndq_packed *w = b->call->w;
    const size_t offset = word * sizeof(ndq_gemm_word), half_bytes = half_words(w) * sizeof(ndq_gemm_word);
    if (product >= FIRST_LEFT_SUM && product < FIRST_LEFT_SUM + SUMS) {
        *stride = sum_stride(w);
        return s->left + (product - FIRST_LEFT_SUM) * s->left_set + offset;
    }
    *stride = b->stride;
    return b->rows + (product == 6 ? s->half * b->stride : 0) + (product == 0 ? 0 : half_bytes) + offset;
}

/* The right operand of a product, which is a sum or in the format of the kernel itself. */
typedef struct {
    const ndq_gemm_kernel *kernel;
    const void *panel;
} right_operand;

/* Those of words [word, word + words) of both halves of two panels. */
static void take_right(const ndq_packed *w, const workspace *s, size_t panel, size_t word, size_t words,
                       right_operand right[NDQ_STRASSEN_PRODUCTS])
{
    static const uint8_t product_of_sum[SUMS] = {2, 3, 4, 6};
    const ndq_strassen *strassen = w->kernel->strassen;
    const size_t codes = words * w->kernel->nr * w->kernel->codes_per_word, set = right_set(w);
    const uint8_t *quarter[NDQ_STRASSEN_QUARTERS];
    for (size_t i = 0; i < NDQ_STRASSEN_QUARTERS; i++)
        quarter[i] = ndq_gemm_panel(w, panel + i % 2, i / 2 * half_words(w) + word);
    (w->kernel->byte_panels ? strassen->sum_bytes : strassen->sum_words)(codes, quarter, (int16_t *)(void *)s->right,
                                                                         set / sizeof(int16_t));
    for (size_t i = 0; i < SUMS; i++)
        right[product_of_sum[i]] = (right_operand){strassen->products, s->right + i * set};
    right[0] = (right_operand){w->kernel, quarter[0]};
    right[1] = (right_operand){w->kernel, quarter[2]};
    right[5] = (right_operand){w->kernel, quarter[3]};
}

/* Tiles of about equal size over the rows of a half: sums of k words of rows and a panel. */
static void multiply(const ndq_gemm_kernel *kernel, const ndq_gemm_runs *k, size_t count, const uint8_t *rows,
                     size_t stride, const void *panel, int32_t *sums)
{
    for (size_t i = 0, at_once, left = ndq_ceil_div(count, kernel->mr); left > 0; left--, i += at_once) {
        at_once = ndq_ceil_div(count - i, left);
        kernel->tile[at_once - 1](k, rows + i * stride, stride, panel, sums + i * kernel->nr);
    }
}

static void multiply_words(const ndq_strassen_block *b, const workspace *s, size_t panel, size_t word, size_t words)
{
    const ndq_packed *w = b->call->w;
    const ptrdiff_t offset = 0;
    const ndq_gemm_runs k = {.runs = 1, .words = words, .offset = &offset, .continued = word > 0};
    right_operand right[NDQ_STRASSEN_PRODUCTS];
    take_right(w, s, panel, word, words, right);
    for (size_t p = 0; p < NDQ_STRASSEN_PRODUCTS; p++) {
        size_t stride;
        const uint8_t *left = left_of(b, s, p, word, &stride);
        multiply(right[p].kernel, &k, s->half, left, stride, right[p].panel, s->sums + p * s->set);
    }
}

static uint8_t *output_of(const ndq_strassen_block *b, size_t row, size_t column)
{
    const size_t N = b->call->w->N;
    return (uint8_t *)b->call->out + ((b->first + row) * N + column) * ndq_gemm_output_bytes(b->call->output);
}

/* Whether the outputs of both panels have been made in one go. */
static bool finish_codes(const ndq_strassen_block *b, const workspace *s, size_t panel, const ndq_gemm_columns *columns)
{
    const ndq_gemm_call *call = b->call;
    const ndq_packed *w = call->w;
    const size_t first = panel * w->kernel->nr;
    if (call->output != NDQ_GEMM_CODES || !columns[0].shrinks || !columns[1].shrinks || b->count % 2 ||
        w->words != 2 * half_words(w) || w->N - first < 2 * w->kernel->nr)
        return false;
    w->kernel->strassen->codes(s->half, s->sums, s->set, columns, b->stage, output_of(b, 0, first),
                               output_of(b, s->half, first), w->N);
    return true;
}

/* Adds what the last two words give, if they are left, and stores a quarter of the outputs. */
static void finish_quarter(const ndq_strassen_block *b, const workspace *s, size_t panel, size_t quarter,
                           const ndq_gemm_columns *columns)
{
    const ndq_gemm_call *call = b->call;
    const ndq_packed *w = call->w;
    const size_t nr = w->kernel->nr, done = 2 * half_words(w), column = (panel + quarter % 2) * nr;
    const size_t row = quarter / 2 * s->half, rows = ndq_min_size(s->half, b->count - row);
    int32_t *sums = s->sums + quarter * s->set;
    const ptrdiff_t offset = (ptrdiff_t)(done * sizeof(ndq_gemm_word));
    const ndq_gemm_runs rest = {.runs = 1, .words = w->words - done, .offset = &offset, .continued = true};
    if (rest.words)
        multiply(w->kernel, &rest, rows, b->rows + row * b->stride, b->stride,
                 ndq_gemm_panel(w, panel + quarter % 2, done), sums);
    w->kernel->store[call->output](rows, ndq_min_size(nr, w->N - column), sums, columns, b->stage,
                                   output_of(b, row, column), w->N * ndq_gemm_output_bytes(call->output));
}

void ndq_strassen_run(const ndq_strassen_block *b, size_t panel)
{
    const ndq_packed *w = b->call->w;
    const size_t half = half_words(w), step = block_words(w);
    workspace s;
    ndq_gemm_columns columns[2];
    lay_out(w, b->count, b->scratch, &s);
    for (size_t i = 0; i < 2; i++)
        ndq_gemm_make_columns(b->call, (panel + i) * w->kernel->nr, &columns[i]);
    for (size_t word = 0; word < half; word += step)
        multiply_words(b, &s, panel, word, ndq_min_size(step, half - word));
    if (finish_codes(b, &s, panel, columns))
        return;
    w->kernel->strassen->outputs(s.set, s.sums, s.set);
    for (size_t quarter = 0; quarter < NDQ_STRASSEN_QUARTERS; quarter++)
        finish_quarter(b, &s, panel, quarter, &columns[quarter % 2]);
}
