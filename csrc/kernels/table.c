#include "table.h"

enum { ROW_SCALE, ROW_INV, ROW_ZP, ROW_LO, ROW_HI, ROW_OFFSET };

/* A row of this many elements is long enough, and should be of whole cache lines or at least vectors; it is repeated,
 * so that a table for it has to serve some of them. */
enum { LONG_ROW = 64, LINE = 16, VECTOR = 8, SEVERAL = 8 };

static size_t entry_bytes(const ndq_elementwise *job)
{
    return ndq_is_f32(job->arithmetic) ? sizeof(float) : sizeof(double);
}

static size_t periods_in_multiple(size_t period, size_t most, size_t of)
{
    for (size_t times = ndq_ceil_div(LONG_ROW, period); times * period < most; times++)
        if (times * period % of == 0)
            return times;
    return 0;
}

/* How many periods make a row of whole lines or vectors, or else a long one; 0 if it would be longer than `most`. Rows
 * that fill a table would all begin at the same place of the first cache: they stay below. */
static size_t periods_in_row(size_t period, size_t most)
{
    const size_t lines = periods_in_multiple(period, most, LINE);
    const size_t vectors = lines ? lines : periods_in_multiple(period, most, VECTOR);
    return vectors ? vectors : periods_in_multiple(period, most, 1);
}

static unsigned rows_read(const ndq_elementwise *job, unsigned does)
{
    const bool multiply = job->arithmetic == NDQ_F32 || job->arithmetic == NDQ_F64;
    const unsigned affine = multiply ? 1u << ROW_SCALE : 1u << ROW_SCALE | 1u << ROW_OFFSET;
    unsigned rows = does & NDQ_MAKES_REALS ? affine : 0;
    if (does & NDQ_SCALES)
        rows |= multiply ? 1u << ROW_INV : affine;
    if (job->params->f64.same_zero)
        return rows;
    if (does & NDQ_CLAMPS)
        rows |= 1u << ROW_LO; /* the upper bounds are as far away everywhere */
    return does & NDQ_READS_ZERO || job->arithmetic == NDQ_TEXTBOOK_F64 ? rows | 1u << ROW_ZP : rows;
}

size_t ndq_table_length(const ndq_elementwise *job, size_t n, bool *periodic)
{
    const ndq_geometry *g = &job->geometry;
    const size_t entries = NDQ_TABLE_BYTES / entry_bytes(job);
    *periodic = false;
    if (g->part || g->inner > NDQ_REPEAT_MOST || n < 2 * LONG_ROW)
        return 0;
    const size_t period = g->channels < entries ? g->channels * g->inner : entries;
    const size_t times = periods_in_row(period, entries), longest = g->inner == 1 ? 1 : 0;
    *periodic = times > longest && n >= SEVERAL * times * period;
    if (*periodic)
        return times * period;
    return g->inner > 1 && g->inner < NDQ_VECTOR ? entries : 0; /* else stretches cost less than entries that serve once */
}

size_t ndq_tile_columns(const ndq_elementwise *job, unsigned does)
{
    enum { CACHED = 16 * NDQ_TABLE_BYTES }; /* long rows for the prefetchers, in the second cache */
    const bool tabulated = job->geometry.inner > 1;
    const size_t rows = (size_t)__builtin_popcount(rows_read(job, does));
    return (tabulated ? NDQ_TABLE_BYTES : CACHED / rows) / entry_bytes(job) / LINE * LINE;
}

/* Entries for the elements of n channels or more, from channel c on: the first begins at `to`. */
#define TABULATE(suffix, T)                                                                                   \
    static void tabulate_row_##suffix(const ndq_elementwise *job, size_t c, size_t n, const T *from, T *to)   \
    {                                                                                                         \
        const size_t channels = job->geometry.channels, inner = job->geometry.inner;                          \
        for (size_t run; n > 0; n -= run, c = 0) {                                                            \
            run = ndq_min_size(n, channels - c);                                                              \
            job->kernels->repeat_##suffix(inner, run, from + c, to);                                          \
            to += run * inner;                                                                                \
        }                                                                                                     \
    }                                                                                                         \
                                                                                                              \
    /* Entries of element `first` lie at the start of a cache line. Coefficients that no kernel reads have    \
     * those of another one; of the upper bounds only the first is read. */                                   \
    static ndq_affine_##suffix tabulate_##suffix(const ndq_elementwise *job, unsigned rows, size_t first,     \
                                                 size_t n, ndq_table *table)                                  \
    {                                                                                                         \
        const ndq_affine_##suffix *p = &job->params->suffix;                                                  \
        const size_t inner = job->geometry.inner, c = first / inner % job->geometry.channels;                 \
        const size_t done = first % inner, aligned = ndq_round_up(done, NDQ_ALIGN / sizeof(T));               \
        const T *at[NDQ_COEFFICIENTS] = {p->scale, p->inv, p->zp, p->lo, p->hi + c, p->offset}, *any = NULL;  \
        for (int row = 0; row < NDQ_COEFFICIENTS; row++)                                                      \
            if (rows >> row & 1) {                                                                            \
                T *to = table->suffix[row] + aligned;                                                         \
                tabulate_row_##suffix(job, c, ndq_ceil_div(done + n, inner), at[row], to - done);             \
                at[row] = any = to;                                                                           \
            }                                                                                                 \
        for (int row = 0; row < NDQ_COEFFICIENTS; row++)                                                      \
            if (!(rows >> row & 1) && row != ROW_HI && !(p->same_zero && of_zero(row)))                       \
                at[row] = any;                                                                                \
        return (ndq_affine_##suffix){at[ROW_SCALE], at[ROW_INV], at[ROW_ZP], at[ROW_LO], at[ROW_HI],          \
                                     at[ROW_OFFSET], p->qmin, p->float_offset, p->same_zero};                 \
    }

static bool of_zero(int row)
{
    return row == ROW_ZP || row == ROW_LO;
}

TABULATE(f32, float)
TABULATE(f64, double)

ndq_view ndq_tabulate(const ndq_elementwise *job, unsigned does, size_t length, size_t first, size_t n,
                      ndq_table *table)
{
    const unsigned rows = rows_read(job, does);
    ndq_view v = {{length, 1, 0, 0}, job->params->f32, job->params->f64};
    assert(first % length == 0 && n <= length && length <= NDQ_TABLE_BYTES / entry_bytes(job));
    if (ndq_is_f32(job->arithmetic))
        v.f32 = tabulate_f32(job, rows, first, n, table);
    else
        v.f64 = tabulate_f64(job, rows, first, n, table);
    return v;
}
