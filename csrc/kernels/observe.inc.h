/* Kernels that look at data of one type to choose a range. Parameters as in elementwise.inc.h. */

/* Extremes and counts one element at a time, for data that are not all finite. */
static void NDQ_FN(minmax_nonfinite)(size_t n, const T *x, ndq_extremes *e)
{
    for (size_t i = 0; i < n; i++) {
        const double v = (double)x[i];
        const bool nan = v != v, inf = v == INFINITY || v == -INFINITY;
        e->nans += nan;
        e->infs += inf;
        e->min = !nan && !inf && v < e->min ? v : e->min;
        e->max = !nan && !inf && v > e->max ? v : e->max;
    }
}

/* Extremes, and a sum that is finite only if all values are; one that overflows although they are only takes the slower
 * way. Lanes of independent minima vectorise without any licence to reorder; order does not matter to a minimum. */
NDQ_TARGET static T NDQ_FN(extremes)(size_t n, const T *x, T *least, T *most)
{
    enum { LANES = 32 };
    T low[LANES], high[LANES], check[LANES];
    for (size_t j = 0; j < LANES; j++) {
        low[j] = (T)INFINITY;
        high[j] = -(T)INFINITY;
        check[j] = 0;
    }
#define ONE(at, lane)                                                                   \
    const T v = x[at];                                                                  \
    low[lane] = v < low[lane] ? v : low[lane];                                          \
    high[lane] = v > high[lane] ? v : high[lane];                                       \
    check[lane] += v;
    const size_t whole = n < LANES ? n : n / LANES * LANES;
    NDQ_LANES(LANES, whole, ONE)
    if (n > whole) /* the rest is taken together with some that were seen already */
        NDQ_IVDEP for (size_t j = 0; j < LANES; j++) { ONE(n - LANES + j, j) }
#undef ONE
    /* Halves onto halves: rows of a weight are so short that lanes taken one by one would cost as much as the data. */
#define FOLD(half)                                                                      \
    for (size_t j = 0; j < (half); j++) {                                               \
        low[j] = low[j + (half)] < low[j] ? low[j + (half)] : low[j];                   \
        high[j] = high[j + (half)] > high[j] ? high[j + (half)] : high[j];              \
        check[j] += check[j + (half)];                                                  \
    }
    FOLD(16)
    FOLD(8)
    FOLD(4)
    FOLD(2)
    FOLD(1)
#undef FOLD
    *least = low[0];
    *most = high[0];
    return check[0];
}

#if defined(NDQ_EXTREMES) && !NDQ_IS_DOUBLE
#define EXTREMES(n, x, low, high) \
    ((n) >= NDQ_EXTREMES_LEAST ? NDQ_EXTREMES(n, x, low, high) : NDQ_FN(extremes)(n, x, low, high))
#else
#define EXTREMES NDQ_FN(extremes)
#endif

NDQ_TARGET static void NDQ_FN(minmax)(size_t n, const T *x, ndq_extremes *e)
{
    T low, high;
    const T check = EXTREMES(n, x, &low, &high);
    if (!(check - check == 0)) {
        NDQ_FN(minmax_nonfinite)(n, x, e);
        return;
    }
    e->min = (double)low < e->min ? (double)low : e->min;
    e->max = (double)high > e->max ? (double)high : e->max;
}
#undef EXTREMES

NDQ_TARGET static void NDQ_FN(squares)(size_t n, const T *x, const T *y, double *sums)
{
    enum { LANES = 16 };
    assert(n <= NDQ_BLOCK);
    double noise[LANES] = {0}, signal[LANES] = {0};
#define ONE(at, lane)                                                                   \
    const double v = (double)x[at], difference = v - (double)y[at];                     \
    noise[lane] += difference * difference;                                             \
    signal[lane] += v * v;
    NDQ_LANES(LANES, n, ONE)
#undef ONE
    sums[0] = sums[1] = 0;
    for (size_t j = 0; j < LANES; j++) {
        sums[0] += noise[j];
        sums[1] += signal[j];
    }
}
