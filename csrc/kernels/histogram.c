#include "histogram.h"

#include "../threads.h"

/* Elements that a thread should have to count: each has counters of its own, which are added in the end. */
enum { SHARE = 128 * 1024, MOST_SHARES = 64 };

/* Binades of either sign, by the leading bits of a value. Float32 has the first 512 of them. */
enum { BINADES = 4096, ROWS_F32 = 512, ROWS_F64 = 2304 };

/* Rows of counters that always exist: values as good as zero, and NaN and infinities, which nobody asks for. */
enum { ZERO, NONFINITE, FIXED_ROWS, NO_ROW = -1 };

typedef int64_t counters[NDQ_BINS_PER_BINADE];

/* How the leading bits of a type are read: binades first .. last - 1 have rows of their own when they occur. */
typedef struct {
    int binades, first, last;
    size_t rows, bins_below;
} layout;

static const layout layout_f32 = {ROWS_F32, 1, 255, ROWS_F32, 1 * NDQ_BINS_PER_BINADE - 1};
static const layout layout_f64 = {BINADES, 897, 2047, ROWS_F64, NDQ_BINS_BELOW};

/* Counts of one channel, or of a part of it. Rows are handed out as binades occur: most data have a few dozen. */
typedef struct {
    const layout *layout;
    int32_t row[BINADES];
    int32_t used;
    counters *rows;
} tally;

static void clear_row(tally *t, int32_t row)
{
    memset(t->rows[row], 0, sizeof t->rows[row]);
}

static void clear(tally *t)
{
    const layout *l = t->layout;
    const int half = l->binades / 2;
    for (int b = 0; b < l->binades; b++)
        t->row[b] = b % half < l->first ? ZERO : b % half < l->last ? NO_ROW : NONFINITE;
    t->used = FIXED_ROWS;
    clear_row(t, ZERO);
    clear_row(t, NONFINITE);
}

static int32_t new_row(tally *t, size_t binade)
{
    clear_row(t, t->used);
    return t->row[binade] = t->used++;
}

/* Counts n elements, each `step` after the one before. It is bound by the counters, not by arithmetic, and no
 * instruction set adds anything to it: about 1 ns per element. */
#define COUNT(name, T, BITS, SHIFT)                                                     \
    static void name(tally *t, const T *x, size_t n, size_t step)                       \
    {                                                                                   \
        for (size_t i = 0; i < n; i++) {                                                \
            BITS bits;                                                                  \
            memcpy(&bits, x + i * step, sizeof bits);                                   \
            const size_t key = (size_t)(bits >> SHIFT), b = key / NDQ_BINS_PER_BINADE;  \
            int32_t row = t->row[b];                                                    \
            if (row == NO_ROW)                                                          \
                row = new_row(t, b);                                                    \
            t->rows[row][key % NDQ_BINS_PER_BINADE]++;                                  \
        }                                                                               \
    }

COUNT(count_f32, float, uint32_t, 14)
COUNT(count_f64, double, uint64_t, 43)

static void count(tally *t, const ndq_elementwise *job, size_t first, size_t n, size_t step)
{
    if (ndq_is_f32(job->arithmetic))
        count_f32(t, (const float *)job->x + first, n, step);
    else
        count_f64(t, (const double *)job->x + first, n, step);
}

/* Counts elements [begin, end) of one channel. */
static void count_channel(tally *t, const ndq_elementwise *job, size_t channel, size_t begin, size_t end)
{
    const ndq_geometry *g = &job->geometry;
    const size_t inner = g->inner, channels = g->channels;
    const size_t part = channel / channels * g->part, in_part = channel % channels;
    if (inner == 1) {
        count(t, job, part + begin * channels + in_part, end - begin, channels);
        return;
    }
    for (size_t i = begin, run; i < end; i += run) {
        run = ndq_min_size(end - i, inner - i % inner);
        count(t, job, part + (i / inner * channels + in_part) * inner + i % inner, run, 1);
    }
}

/* ---- Writing down what was counted ---- */

static ndq_status grow(ndq_histogram *h, size_t more)
{
    if (h->used + more <= h->capacity)
        return NDQ_OK;
    const size_t capacity = h->used + more + h->used / 2;
    int32_t *bin = ndq_alloc(capacity * sizeof *bin);
    int64_t *counts = ndq_alloc(capacity * sizeof *counts);
    if (!bin || !counts) {
        ndq_free(bin);
        ndq_free(counts);
        return NDQ_NO_MEMORY;
    }
    if (h->used) {
        memcpy(bin, h->bin, h->used * sizeof *bin);
        memcpy(counts, h->count, h->used * sizeof *counts);
    }
    ndq_free(h->bin);
    ndq_free(h->count);
    h->bin = bin;
    h->count = counts;
    h->capacity = capacity;
    return NDQ_OK;
}

static void put(ndq_histogram *h, int32_t bin, int64_t n)
{
    h->bin[h->used] = bin;
    h->count[h->used] = n;
    h->used += n != 0;
}

/* All that fell into the bins of row 0: the sum over its bins and over the shares. */
static void put_zeros(ndq_histogram *h, const tally *tallies, size_t shares)
{
    int64_t n = 0;
    for (size_t s = 0; s < shares; s++)
        for (size_t k = 0; k < NDQ_BINS_PER_BINADE; k++)
            n += tallies[s].rows[ZERO][k];
    put(h, 0, n);
}

/* Adds the rows of other shares to the first that has one, which it returns, or NULL if the binade did not occur. */
static const int64_t *summed(const tally *tallies, size_t shares, int binade)
{
    int64_t *sum = NULL;
    for (size_t s = 0; s < shares; s++) {
        if (tallies[s].row[binade] == NO_ROW)
            continue;
        int64_t *row = tallies[s].rows[tallies[s].row[binade]];
        for (size_t k = 0; sum && k < NDQ_BINS_PER_BINADE; k++)
            sum[k] += row[k];
        sum = sum ? sum : row;
    }
    return sum;
}

/* The bins of one binade that are not empty. Few are filled where channels are short: eight are skipped at once. */
static void put_binade(ndq_histogram *h, const tally *tallies, size_t shares, int binade, bool negative)
{
    enum { LAST = NDQ_BINS_PER_BINADE - 1, STEP = 8 };
    const layout *l = tallies->layout;
    const int32_t first = (int32_t)((size_t)binade * NDQ_BINS_PER_BINADE - l->bins_below);
    const int64_t *row = summed(tallies, shares, binade + (negative ? l->binades / 2 : 0));
    for (int32_t i = 0; row && i <= LAST; i += STEP) {
        const int64_t *eight = row + (negative ? LAST + 1 - STEP - i : i);
        int64_t any = 0;
        for (int32_t k = 0; k < STEP; k++)
            any |= eight[k];
        for (int32_t k = 0; any && k < STEP; k++)
            put(h, negative ? i + k - LAST - first : first + i + k, eight[negative ? STEP - 1 - k : k]);
    }
}

static ndq_status put_channel(ndq_histogram *h, const tally *tallies, size_t shares)
{
    const layout *l = tallies->layout;
    size_t rows = 0;
    for (size_t s = 0; s < shares; s++)
        rows += (size_t)tallies[s].used;
    if (grow(h, rows * NDQ_BINS_PER_BINADE) != NDQ_OK)
        return NDQ_NO_MEMORY;
    for (int b = l->last - 1; b >= l->first; b--)
        put_binade(h, tallies, shares, b, true);
    put_zeros(h, tallies, shares);
    for (int b = l->first; b < l->last; b++)
        put_binade(h, tallies, shares, b, false);
    return NDQ_OK;
}

/* ---- Channels one after another, each by as many threads as it is worth ---- */

typedef struct {
    const ndq_elementwise *job;
    tally *tallies;
    size_t shares, channel, channel_n;
} counting;

static void count_share(void *ctx, size_t share)
{
    const counting *c = ctx;
    const size_t each = ndq_ceil_div(c->channel_n, c->shares);
    const size_t begin = ndq_min_size(c->channel_n, share * each), end = ndq_min_size(c->channel_n, begin + each);
    clear(&c->tallies[share]);
    count_channel(&c->tallies[share], c->job, c->channel, begin, end);
}

static void free_tallies(counting *c)
{
    for (size_t s = 0; c->tallies && s < c->shares; s++)
        ndq_free(c->tallies[s].rows);
    ndq_free(c->tallies);
}

static ndq_status make_tallies(counting *c)
{
    const layout *l = ndq_is_f32(c->job->arithmetic) ? &layout_f32 : &layout_f64;
    c->shares = ndq_min_size(ndq_min_size(1 + c->channel_n / SHARE, ndq_get_num_threads()), MOST_SHARES);
    if (!(c->tallies = ndq_alloc(c->shares * sizeof *c->tallies)))
        return NDQ_NO_MEMORY;
    bool good = true;
    for (size_t s = 0; s < c->shares; s++) {
        c->tallies[s].layout = l;
        c->tallies[s].rows = ndq_alloc(l->rows * sizeof *c->tallies[s].rows);
        good = good && c->tallies[s].rows;
    }
    return good ? NDQ_OK : NDQ_NO_MEMORY;
}

static ndq_status count_all(counting *c, ndq_histogram *h)
{
    for (c->channel = 0; c->channel < h->channels; c->channel++) {
        h->start[c->channel] = (int64_t)h->used;
        if (c->shares > 1)
            ndq_parallel_for(c->shares, count_share, c);
        else
            count_share(c, 0);
        if (put_channel(h, c->tallies, c->shares) != NDQ_OK)
            return NDQ_NO_MEMORY;
    }
    h->start[h->channels] = (int64_t)h->used;
    return NDQ_OK;
}

ndq_status ndq_histogram_of(const ndq_elementwise *job, ndq_histogram *histogram)
{
    const ndq_geometry *g = &job->geometry;
    const size_t channels = g->part ? job->n / g->part * g->channels : g->channels;
    *histogram = (ndq_histogram){.channels = channels};
    counting c = {.job = job, .channel_n = channels ? job->n / channels : 0};
    ndq_status status = NDQ_NO_MEMORY;
    histogram->start = ndq_alloc((channels + 1) * sizeof *histogram->start);
    if (histogram->start && make_tallies(&c) == NDQ_OK)
        status = count_all(&c, histogram);
    free_tallies(&c);
    if (status != NDQ_OK)
        ndq_histogram_free(histogram);
    return status;
}

/* Bins and counts, ascending. */
typedef struct {
    const int32_t *bin;
    const int64_t *count;
    size_t n;
} run;

static run channel_of(const ndq_histogram *h, size_t channel)
{
    const int64_t first = h->start[channel];
    return (run){h->bin + first, h->count + first, (size_t)(h->start[channel + 1] - first)};
}

/* Returns how many bins the sum of two runs has. */
static size_t sum_runs(run a, run b, int32_t *NDQ_RESTRICT bin, int64_t *NDQ_RESTRICT count)
{
    size_t i = 0, j = 0, n = 0;
    for (; i < a.n && j < b.n; n++) {
        const int32_t x = a.bin[i], y = b.bin[j];
        bin[n] = x < y ? x : y;
        count[n] = (x <= y ? a.count[i] : 0) + (y <= x ? b.count[j] : 0);
        i += x <= y;
        j += y <= x;
    }
    const run rest = i < a.n ? (run){a.bin + i, a.count + i, a.n - i} : (run){b.bin + j, b.count + j, b.n - j};
    if (rest.n) {
        memcpy(bin + n, rest.bin, rest.n * sizeof *bin);
        memcpy(count + n, rest.count, rest.n * sizeof *count);
    }
    return n + rest.n;
}

ndq_status ndq_histogram_sum(const ndq_histogram *a, const ndq_histogram *b, ndq_histogram *sum)
{
    *sum = (ndq_histogram){.channels = a->channels};
    sum->start = ndq_alloc((a->channels + 1) * sizeof *sum->start);
    if (!sum->start || grow(sum, a->used + b->used) != NDQ_OK) {
        ndq_histogram_free(sum);
        return NDQ_NO_MEMORY;
    }
    for (size_t c = 0; c < a->channels; c++) {
        sum->start[c] = (int64_t)sum->used;
        sum->used += sum_runs(channel_of(a, c), channel_of(b, c), sum->bin + sum->used, sum->count + sum->used);
    }
    sum->start[a->channels] = (int64_t)sum->used;
    return NDQ_OK;
}

void ndq_histogram_free(ndq_histogram *histogram)
{
    ndq_free(histogram->start);
    ndq_free(histogram->bin);
    ndq_free(histogram->count);
    *histogram = (ndq_histogram){0};
}
