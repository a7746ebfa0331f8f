#include "cross_entropy.h"

#include "../threads.h"

/* Levels below the highest of a row whose exponentials are kept in a table. */
enum { TABLE = 256 };

/* y = base + scale * k; in a row whose highest k is `top`, y contributes exp(scale * (k - top)) to the softmax. */
typedef struct {
    ndq_levels levels;
    double inv, table[TABLE];
} grid;

static grid make_grid(double base, double scale, double levels)
{
    grid g = {.levels = {base, scale, levels}, .inv = 1.0 / scale};
    for (int k = 0; k < TABLE; k++)
        g.table[k] = exp(-scale * k);
    return g;
}

/* Rounded to nearest even by an addition and a subtraction, where rint would be a call. */
static double level_of(const grid *g, double x)
{
    const double magic = 0x1.8p52, v = (x - g->levels.base) * g->inv, above = v > 0 ? v : 0;
    return ((above < g->levels.levels ? above : g->levels.levels) + magic) - magic;
}

/* What one logit adds to the sum of exponentials and to the mean distance from the highest level. */
static void add(const grid *g, double top, double x, double p, double *sum, double *dot)
{
    const double below = top - level_of(g, x);
    /* Below 0 only if the caller's largest is not: the table must not be left then. */
    *sum += below >= 0 && below < TABLE ? g->table[(size_t)below] : exp(-g->levels.scale * below);
    *dot += p * below;
}

/* log(sum exp(y)) - sum p y, both less base + scale * top: p adds up to 1. Two sums of each, by index mod 2, so that one
 * addition need not wait for the other. */
static double row_entropy(const grid *g, size_t C, double largest, const double *x, const double *p)
{
    const double top = level_of(g, largest);
    double sum[2] = {0}, dot[2] = {0};
    for (size_t c = 0; c + 1 < C; c += 2) {
        add(g, top, x[c], p[c], &sum[0], &dot[0]);
        add(g, top, x[c + 1], p[c + 1], &sum[1], &dot[1]);
    }
    if (C % 2)
        add(g, top, x[C - 1], p[C - 1], &sum[0], &dot[0]);
    return log(sum[0] + sum[1]) + g->levels.scale * (dot[0] + dot[1]);
}

typedef struct {
    const ndq_cross_entropies *job;
    const grid *grids;
    size_t rows;     /* that one block has */
    double *partial; /* of each block and each try */
} search;

/* Every way to quantize the rows of one block, which stay in the cache meanwhile. */
static void entropy_block(void *ctx, size_t block)
{
    const search *s = ctx;
    const ndq_cross_entropies *job = s->job;
    const size_t first = block * s->rows, end = ndq_min_size(job->N, first + s->rows);
    for (size_t i = 0; i < job->tries; i++) {
        double sum = 0;
        for (size_t n = first; n < end; n++)
            sum += row_entropy(&s->grids[i], job->C, job->largest[n], job->x + n * job->C, job->p + n * job->C);
        s->partial[block * job->tries + i] = sum;
    }
}

static bool usable(double scale)
{
    return scale > 0 && isfinite(scale);
}

static void run(const search *s, grid *grids, size_t blocks)
{
    const ndq_cross_entropies *job = s->job;
    for (size_t i = 0; i < job->tries; i++)
        grids[i] = make_grid(job->base[i], usable(job->scale[i]) ? job->scale[i] : 1, job->levels);
    /* A logit costs about as much as twenty elements of a kernel that is bound by memory. */
    ndq_for_chunks(20 * job->N * job->C * job->tries, blocks, entropy_block, (void *)s);
    for (size_t i = 0; i < job->tries; i++) {
        job->sum[i] = usable(job->scale[i]) ? 0 : INFINITY;
        for (size_t b = 0; b < blocks; b++)
            job->sum[i] += s->partial[b * job->tries + i];
    }
}

ndq_status ndq_find_cross_entropies(const ndq_cross_entropies *job)
{
    enum { BLOCK = 8192 }; /* logits: with their p 128 KB */
    const size_t rows = 1 + BLOCK / (job->C + 1), blocks = ndq_ceil_div(job->N, rows);
    grid *grids = ndq_alloc(job->tries * sizeof *grids);
    double *partial = ndq_alloc(blocks * job->tries * sizeof *partial);
    const search s = {job, grids, rows, partial};
    if (grids && partial)
        run(&s, grids, blocks);
    ndq_free(grids);
    ndq_free(partial);
    return grids && partial ? NDQ_OK : NDQ_NO_MEMORY;
}
