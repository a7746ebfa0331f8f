/* What batch normalization does with channels, and constants of channels repeated, for one type and backend. Plain C: the
 * compiler vectorises it for NDQ_TARGET.
 *
 * Parameters: T; NDQ_CHANNELS, its arrays of constants; NDQ_SUFFIX; and those of elementwise_all.inc.h. */

/* Four rows at a time, each sum in this order. */
NDQ_TARGET static void NDQ_FN(sum_rows)(size_t rows, size_t C, const T *u, const T *v, double *sums)
{
    double *products = sums + C;
    size_t r = 0;
    for (; r + 4 <= rows; r += 4, u += 4 * C, v += 4 * C)
        NDQ_IVDEP for (size_t c = 0; c < C; c++)
        {
            const double u0 = u[c], u1 = u[C + c], u2 = u[2 * C + c], u3 = u[3 * C + c];
            const double v0 = v[c], v1 = v[C + c], v2 = v[2 * C + c], v3 = v[3 * C + c];
            sums[c] += (u0 + u1) + (u2 + u3);
            products[c] += (u0 * v0 + u1 * v1) + (u2 * v2 + u3 * v3);
        }
    for (; r < rows; r++, u += C, v += C)
        NDQ_IVDEP for (size_t c = 0; c < C; c++)
        {
            sums[c] += (double)u[c];
            products[c] += (double)u[c] * (double)v[c];
        }
}

/* In 8 partial sums by index mod 8, then these in order. */
NDQ_TARGET static void NDQ_FN(sum_run)(size_t n, const T *u, const T *v, double *sum, double *product)
{
    enum { LANES = 8 };
    double sums[LANES] = {0}, products[LANES] = {0};
#define ONE(at, lane)             \
    sums[lane] += (double)u[at];  \
    products[lane] += (double)u[at] * (double)v[at];
    NDQ_LANES(LANES, n, ONE)
#undef ONE
    for (size_t j = 0; j < LANES; j++) {
        *sum += sums[j];
        *product += products[j];
    }
}

typedef struct {
    T centre, scale, slope, shift;
} NDQ_FN(constants);

static inline NDQ_FN(constants) NDQ_FN(constants_of)(const NDQ_CHANNELS *p, size_t c)
{
    return (NDQ_FN(constants)){p->centre[c], p->scale[c], p->slope[c], p->shift[c]};
}

#ifndef NDQ_EACH_CHANNEL
/* Runs STATEMENT for each i of [begin, end), with the constants of its channel in k. Where channels are the last axis,
 * neighbours have different constants and these are loaded like data; else they are the same over a stretch. */
#define NDQ_EACH_CHANNEL(STATEMENT)                                                     \
    const NDQ_CHANNELS all = *p;                                                        \
    for (size_t first = begin, last; first < end; first = last) {                       \
        const size_t c = first / g->inner % g->channels;                                \
        if (g->inner == 1) {                                                            \
            last = ndq_min_size(end, first + (g->channels - c));                        \
            const size_t shift = first - c;                                             \
            NDQ_IVDEP for (size_t i = first; i < last; i++)                             \
            {                                                                           \
                const NDQ_FN(constants) k = NDQ_FN(constants_of)(&all, i - shift);      \
                STATEMENT;                                                              \
            }                                                                           \
        } else {                                                                        \
            last = ndq_min_size(end, first + (g->inner - first % g->inner));            \
            const NDQ_FN(constants) k = NDQ_FN(constants_of)(&all, c);                  \
            NDQ_IVDEP for (size_t i = first; i < last; i++)                             \
            {                                                                           \
                STATEMENT;                                                              \
            }                                                                           \
        }                                                                               \
    }
#endif

NDQ_TARGET static void NDQ_FN(scale_channels)(const NDQ_CHANNELS *p, const ndq_geometry *g, size_t begin, size_t end,
                                              const T *x, T *y)
{
    NDQ_EACH_CHANNEL(y[i] = (x[i] - k.centre) * k.scale + k.shift)
}

NDQ_TARGET static void NDQ_FN(mix_channels)(const NDQ_CHANNELS *p, const ndq_geometry *g, size_t begin, size_t end,
                                            const T *dy, const T *x, T *dx)
{
    NDQ_EACH_CHANNEL(dx[i] = (dy[i] * k.scale + (x[i] - k.centre) * k.slope) + k.shift)
}

/* Loops of constant length vanish. Where a count is no small constant it is rounded up to one, and the next channel
 * overwrites what is too much. */
NDQ_TARGET static void NDQ_FN(repeat)(size_t inner, size_t n, const T *NDQ_RESTRICT from, T *NDQ_RESTRICT to)
{
#define TIMES(count)                                                                    \
    case count:                                                                         \
        for (size_t c = 0; c < n; c++)                                                  \
            for (size_t j = 0; j < count; j++)                                          \
                to[c * count + j] = from[c];                                            \
        return;
    assert(inner <= NDQ_REPEAT_MOST);
    switch (inner) {
        TIMES(1)
        TIMES(2)
        TIMES(3)
        TIMES(4)
    }
#undef TIMES
#define VECTORS(count)                                                                  \
    case count:                                                                         \
        for (size_t c = 0; c < n; c++, to += inner)                                     \
            for (size_t j = 0; j < count * NDQ_REPEAT_OVER; j++)                        \
                to[j] = from[c];                                                        \
        return;
    switch (ndq_ceil_div(inner, NDQ_REPEAT_OVER)) {
        VECTORS(1)
        VECTORS(2)
    }
#undef VECTORS
}
