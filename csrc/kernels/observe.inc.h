/* Kernels that look at data of one type to choose a range. Parameters as in elementwise.inc.h. */

/* Lanes of independent minima vectorise without any licence to reorder; order does not matter to a minimum. */
NDQ_TARGET static void NDQ_FN(minmax)(size_t n, const T *x, ndq_extremes *e)
{
    enum { LANES = 32 };
    const T inf = (T)INFINITY;
    T low[LANES], high[LANES];
    uint32_t nans[LANES] = {0}, infs[LANES] = {0};
    for (size_t j = 0; j < LANES; j++) {
        low[j] = inf;
        high[j] = -inf;
    }
    assert(n < UINT32_MAX);
    /* An infinity is never the smaller of two when its sign is turned away, and a NaN never compares. */
#define ONE(at, lane)                                                                   \
    const T v = x[at], down = v == -inf ? inf : v, up = v == inf ? -inf : v;            \
    low[lane] = down < low[lane] ? down : low[lane];                                    \
    high[lane] = up > high[lane] ? up : high[lane];                                     \
    nans[lane] += v != v;                                                               \
    infs[lane] += (v == inf) | (v == -inf);
    NDQ_LANES(LANES, n, ONE)
#undef ONE
    for (size_t j = 0; j < LANES; j++) {
        e->min = (double)low[j] < e->min ? (double)low[j] : e->min;
        e->max = (double)high[j] > e->max ? (double)high[j] : e->max;
        e->nans += nans[j];
        e->infs += infs[j];
    }
}

/* Bits of |x| < 2^-126 are those of zero: no scale is that small, and float32 and float64 data then share their bins. */
static inline uint64_t NDQ_FN(bin)(T x)
{
    const double v = (double)x;
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return v < 0x1p-126 && v > -0x1p-126 ? 0 : bits >> 43;
}

NDQ_TARGET static void NDQ_FN(binades)(size_t n, const T *x, uint8_t *seen)
{
    for (size_t i = 0; i < n; i++)
        if (x[i] - x[i] == 0)
            seen[NDQ_FN(bin)(x[i]) / NDQ_BINS_PER_BINADE] = 1;
}

NDQ_TARGET static void NDQ_FN(histogram)(size_t n, const T *x, const int32_t *row, int64_t *counts)
{
    for (size_t i = 0; i < n; i++)
        if (x[i] - x[i] == 0) {
            const uint64_t bin = NDQ_FN(bin)(x[i]);
            counts[(size_t)row[bin / NDQ_BINS_PER_BINADE] * NDQ_BINS_PER_BINADE + bin % NDQ_BINS_PER_BINADE]++;
        }
}
