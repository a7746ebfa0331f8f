/* Elementwise kernels of one type and rule, for one backend. Plain C: the compiler vectorises it for NDQ_TARGET.
 *
 * Parameters: T, float or double; NDQ_AFFINE, its coefficient arrays; NDQ_MAGIC, its rounding constant; NDQ_RULE, the
 * rule (T must be double for textbook); NDQ_IS_DOUBLE, 1 if T is; NDQ_SUFFIX; and those of elementwise_all.inc.h.
 *
 * In all of them v is the scaled value before rounding, r the rounded one. The bounds lo and hi are integers, so
 * clamping before rounding gives the same as after it, and keeps v where the rounding trick is exact. */

/* Kernels that read bounds anyhow need no zp: it is qmin - lo, except by the rule textbook. */
typedef struct {
    T scale, inv, zp, lo, hi, offset, qmin;
} NDQ_FN(coef);

#define COEF NDQ_FN(coef)

static inline COEF NDQ_FN(coef_of)(const NDQ_AFFINE *p, size_t c)
{
    return (COEF){p->scale[c], p->inv[c], p->zp[c], p->lo[c], p->hi[c], p->offset[c], p->qmin};
}

/* The coefficients of channel c, whose bounds are as far apart as those of k: adding is cheaper than another load. */
static inline COEF NDQ_FN(coef_shifted)(const NDQ_AFFINE *p, size_t c, COEF k)
{
    const T lo = p->lo[c];
    return (COEF){p->scale[c], p->inv[c], p->zp[c], lo, lo + (k.hi - k.lo), p->offset[c], p->qmin};
}

/* The coefficients of channel c where all channels have the zero point, and so the bounds, of k. */
static inline COEF NDQ_FN(coef_scaled)(const NDQ_AFFINE *p, size_t c, COEF k)
{
    k.scale = p->scale[c];
    k.inv = p->inv[c];
    k.offset = p->offset[c];
    return k;
}

/* The coefficients of lane j of a vector, the first `border` lanes of which belong to one channel, the others to another. */
static inline COEF NDQ_FN(coef_in_lane)(size_t j, T border, COEF k, COEF next)
{
    static const T lanes[NDQ_VECTOR] = {0, 1, 2, 3, 4, 5, 6, 7};
    const bool first = lanes[j] < border;
#define LANE(name) first ? k.name : next.name
    return (COEF){LANE(scale), LANE(inv), LANE(zp), LANE(lo), LANE(hi), LANE(offset), k.qmin};
#undef LANE
}

static inline T NDQ_FN(scaled)(T x, COEF k)
{
#if NDQ_RULE == NDQ_RULE_TEXTBOOK
    return x / k.scale + k.zp;
#elif NDQ_RULE == NDQ_RULE_DIVIDE
    return (x - k.offset) / k.scale;
#else
    return x * k.inv;
#endif
}

/* NaN gives lo: the comparison is false. Written this way it is one max and one min instruction. */
static inline T NDQ_FN(clamp)(T v, T lo, T hi)
{
    v = v > lo ? v : lo;
    return v < hi ? v : hi;
}

static inline T NDQ_FN(round_between)(T v, T lo, T hi)
{
    return (NDQ_FN(clamp)(v, lo, hi) + NDQ_MAGIC) - NDQ_MAGIC;
}

/* The code of x if that has up to 16 bits; the bits above those of the code are arbitrary. */
static inline int32_t NDQ_FN(code)(T x, COEF k)
{
    const T v = NDQ_FN(clamp)(NDQ_FN(scaled)(x, k), k.lo, k.hi) + NDQ_MAGIC;
#if NDQ_RULE == NDQ_RULE_TEXTBOOK
    return (int32_t)(v - NDQ_MAGIC);
#elif NDQ_IS_DOUBLE
    return (int32_t)((v - NDQ_MAGIC) + (k.qmin - k.lo));
#else
    /* The rounded integer, modulo 2^16, is in the last bits of v already: two additions and a conversion less. (The
     * last bits of a float64 are as good, but AVX2 narrows 64 bits poorly.) */
    int32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits + (int32_t)(k.qmin - k.lo);
#endif
}

#if NDQ_IS_DOUBLE
/* The code of x, modulo 2^32, from the last bits of a float64: no instruction below AVX-512 converts to that width. */
static inline uint32_t NDQ_FN(code32)(T x, COEF k)
{
    const T r = NDQ_FN(round_between)(NDQ_FN(scaled)(x, k), k.lo, k.hi);
    const T v = (NDQ_RULE == NDQ_RULE_TEXTBOOK ? r : r + (k.qmin - k.lo)) + NDQ_MAGIC;
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return (uint32_t)bits;
}
#endif

static inline T NDQ_FN(real)(T r, COEF k)
{
#if NDQ_RULE == NDQ_RULE_TEXTBOOK
    return (r - k.zp) * k.scale;
#elif NDQ_RULE == NDQ_RULE_DIVIDE
    return r * k.scale + k.offset;
#else
    return r * k.scale;
#endif
}

#ifndef NDQ_EACH
#define NDQ_AT(index, STATEMENT)                                                        \
    {                                                                                   \
        const size_t i = index;                                                         \
        STATEMENT;                                                                      \
    }

#define NDQ_AT_2_ROWS(STATEMENT) NDQ_AT(first + j, STATEMENT) NDQ_AT(first + stride + j, STATEMENT)
#define NDQ_AT_4_ROWS(STATEMENT)                                                        \
    NDQ_AT_2_ROWS(STATEMENT)                                                            \
    NDQ_AT(first + 2 * stride + j, STATEMENT)                                           \
    NDQ_AT(first + 3 * stride + j, STATEMENT)

/* Runs BODY for columns j of [begin, end), with the coefficients in k: by vectors, then one by one, as what compilers
 * themselves make of the end of a loop is long and seldom run. A choice between coefficients they leave inside a loop. */
#define NDQ_COLUMN(index, COEFFICIENTS, BODY)                                           \
    {                                                                                   \
        const size_t j = index;                                                         \
        const COEF k = COEFFICIENTS;                                                    \
        BODY                                                                            \
    }
#define NDQ_COLUMN_LOOP(begin, end, COEFFICIENTS, BODY)                                 \
    {                                                                                   \
        size_t column = begin;                                                          \
        for (; column + NDQ_COLUMNS <= end; column += NDQ_COLUMNS)                      \
            NDQ_IVDEP_SHORT for (size_t v = 0; v < NDQ_COLUMNS; v++) NDQ_COLUMN(column + v, COEFFICIENTS, BODY) \
        NDQ_ONE_BY_ONE(for (; column < end; column++), NDQ_COLUMN(column, COEFFICIENTS, BODY)) \
    }
#define NDQ_EACH_COLUMN(begin, end, BODY)                                               \
    if (affine.same_zero)                                                               \
        NDQ_COLUMN_LOOP(begin, end, NDQ_FN(coef_scaled)(&affine, j, k0), BODY)          \
    else                                                                                \
        NDQ_COLUMN_LOOP(begin, end, NDQ_FN(coef_shifted)(&affine, j, k0), BODY)

/* Loops of constant length, which vanish: of some vectors, and of one. */
#define NDQ_BLOCK_AT(at, COEFFICIENTS, STATEMENT)                                       \
    NDQ_IVDEP NDQ_LOOP_AT(at, NDQ_COMMON_RUN, COEFFICIENTS, STATEMENT)
#define NDQ_VECTOR_AT(at, COEFFICIENTS, STATEMENT)                                      \
    NDQ_IVDEP_SHORT NDQ_LOOP_AT(at, NDQ_VECTOR, COEFFICIENTS, STATEMENT)
#define NDQ_LOOP_AT(at, length, COEFFICIENTS, STATEMENT)                                \
    for (size_t j = 0; j < length; j++)                                                 \
    {                                                                                   \
        const COEF k = COEFFICIENTS;                                                    \
        NDQ_AT(at + j, STATEMENT)                                                       \
    }

/* Whole stretches of `size` elements, up to the last channel or n, in steps that AT takes. */
#define NDQ_STRETCHES_OF(size, step, AT, STATEMENT)                                     \
    for (const size_t end = c + ndq_min_size(channels - c, (n - first) / (size)); c < end; c++, first += size) { \
        const COEF own = NDQ_FN(coef_of)(&affine, c);                                   \
        for (size_t v = 0; v < size; v += step)                                         \
            AT(first + v, own, STATEMENT)                                               \
    }                                                                                   \
    c = c == channels ? 0 : c;

/* Stretches that are short, but not shorter than a vector, up to the last channel or the last two before n. Where one
 * ends inside of a vector, its last elements and the first of the next are done together. */
#define NDQ_SHORT_STRETCHES(STATEMENT)                                                  \
    const size_t more = ndq_min_size(channels - 1 - c, (n - first) / inner - 1);        \
    size_t left = inner - done;                                                         \
    for (const size_t end = c + more; c < end; c++) {                                   \
        const COEF own = NDQ_FN(coef_of)(&affine, c);                                   \
        for (; left >= NDQ_VECTOR; left -= NDQ_VECTOR, first += NDQ_VECTOR)             \
            NDQ_VECTOR_AT(first, own, STATEMENT)                                        \
        if (left > 0) {                                                                 \
            const COEF next = NDQ_FN(coef_of)(&affine, c + 1);                          \
            const T border = (T)left;                                                   \
            NDQ_VECTOR_AT(first, NDQ_FN(coef_in_lane)(j, border, own, next), STATEMENT) \
            first += NDQ_VECTOR;                                                        \
            left -= NDQ_VECTOR;                                                         \
        }                                                                               \
        left += inner;                                                                  \
    }                                                                                   \
    done = inner - left;

/* Either of these, where it can begin. */
#define NDQ_STRETCHES(STATEMENT)                                                        \
    {                                                                                   \
        if (inner == NDQ_VECTOR && done == 0) {                                         \
            NDQ_STRETCHES_OF(NDQ_VECTOR, NDQ_VECTOR, NDQ_VECTOR_AT, STATEMENT)          \
        } else if (inner == 2 * NDQ_VECTOR && done == 0) {                              \
            NDQ_STRETCHES_OF(2 * NDQ_VECTOR, NDQ_VECTOR, NDQ_VECTOR_AT, STATEMENT)      \
        } else if (inner % NDQ_COMMON_RUN == 0 && done == 0) {                          \
            NDQ_STRETCHES_OF(inner, NDQ_COMMON_RUN, NDQ_BLOCK_AT, STATEMENT)            \
        } else if (n - first >= 2 * inner) {                                            \
            NDQ_SHORT_STRETCHES(STATEMENT)                                              \
        }                                                                               \
    }

/* What is left of one stretch. */
#define NDQ_STRETCH(STATEMENT)                                                          \
    const COEF own = NDQ_FN(coef_of)(&affine, c);                                       \
    for (; first + NDQ_COMMON_RUN <= last; first += NDQ_COMMON_RUN)                     \
        NDQ_BLOCK_AT(first, own, STATEMENT)                                             \
    for (; first + NDQ_VECTOR <= last; first += NDQ_VECTOR)                             \
        NDQ_VECTOR_AT(first, own, STATEMENT)                                            \
    NDQ_ONE_BY_ONE(for (; first < last; first++), const COEF k = own; NDQ_AT(first, STATEMENT))

/* Runs STATEMENT for each i of [0, n), with its coefficients in k. Where channels are the last axis, neighbours have
 * different coefficients and these are loaded like data, once for several ROWS, a digit: with several inputs or
 * outputs, 4 would be more places in memory than prefetchers follow. Otherwise they are constant over a whole stretch.
 * RUN and WHOLE do the first elements of a stretch, or whole stretches or rows, in another way, and give how many. SHORT
 * says whether short stretches are worth loops of their own, which are much code.
 * The pointers are copied first: a store of bytes could otherwise change them, for all that the compiler knows. */
#define NDQ_EACH_AFTER(RUN, WHOLE, SHORT, ROWS, STATEMENT)                              \
    const NDQ_AFFINE affine = *p;                                                       \
    const size_t channels = g->channels, inner = g->inner, stride = channels + g->gap;  \
    const COEF k0 = NDQ_FN(coef_of)(&affine, 0);                                        \
    size_t c = position / inner % channels, done = position % inner;                    \
    for (size_t first = 0, last; first < n;) {                                          \
        if (done == 0 && (last = first + (WHOLE)) != first) {                           \
            first = last;                                                               \
        } else if (inner != 1) {                                                        \
            if ((SHORT) && inner >= NDQ_VECTOR && inner <= NDQ_SHORT)                   \
                NDQ_STRETCHES(STATEMENT)                                                \
            last = ndq_min_size(n, first + (inner - done));                             \
            first += RUN;                                                               \
            NDQ_STRETCH(STATEMENT)                                                      \
            c = c + 1 == channels ? 0 : c + 1;                                          \
            done = 0;                                                                   \
        } else {                                                                        \
            for (; c == 0 && first + (ROWS - 1) * stride + channels <= n; first += ROWS * stride) \
                NDQ_EACH_COLUMN(0, channels, NDQ_AT_##ROWS##_ROWS(STATEMENT))           \
            const size_t end = first < n ? ndq_min_size(channels, c + (n - first)) : 0; \
            const size_t row = first - c;                                               \
            NDQ_EACH_COLUMN(c, end, NDQ_AT(row + j, STATEMENT))                         \
            first = row + stride;                                                       \
            c = 0;                                                                      \
        }                                                                               \
    }
#define NDQ_EACH(SHORT, STATEMENT) NDQ_EACH_AFTER(0, 0, SHORT, 4, STATEMENT)
#define NDQ_EACH_OF_SEVERAL(SHORT, STATEMENT) NDQ_EACH_AFTER(0, 0, SHORT, 2, STATEMENT)
#endif

/* Of codes, those of 8 bits are the ones that short groups and images of channels have. */
#define SHORT (NDQ_RULE != NDQ_RULE_TEXTBOOK)
#if defined(NDQ_BYTES) && !NDQ_IS_DOUBLE && NDQ_RULE == NDQ_RULE_MULTIPLY
#define SHORT_BYTES false
#define QUANTIZED_RUN NDQ_BYTES(quantize_run)(&affine, c, last - first, x + first, q + first)
#define QUANTIZED_WHOLE                                                                 \
    inner >= NDQ_BYTES(least_run) ?                                                     \
        NDQ_BYTES(quantize_runs)(&affine, &c, channels, inner, n - first, x + first, q + first) \
    : inner == 1 && c == 0 ?                                                            \
        NDQ_BYTES(quantize_rows)(&affine, channels, stride, n - first, x + first, q + first) : 0
#define DEQUANTIZED_RUN(C) NDQ_BYTES(dequantize_run)(&affine, c, last - first, q + first, (C)-1 < 0, y + first)
#define DEQUANTIZED_WHOLE(C)                                                            \
    inner >= NDQ_BYTES(least_run) ?                                                     \
        NDQ_BYTES(dequantize_runs)(&affine, &c, channels, inner, n - first, q + first, (C)-1 < 0, y + first) \
    : inner == 1 && c == 0 ?                                                            \
        NDQ_BYTES(dequantize_rows)(&affine, channels, stride, n - first, q + first, (C)-1 < 0, y + first) : 0
#else
#define SHORT_BYTES SHORT
#define QUANTIZED_RUN 0
#define QUANTIZED_WHOLE 0
#define DEQUANTIZED_RUN(C) 0
#define DEQUANTIZED_WHOLE(C) 0
#endif

NDQ_TARGET static void NDQ_FN(quantize)(NDQ_SPAN(NDQ_AFFINE), const T *x, uint8_t *q)
{
    NDQ_EACH_AFTER(QUANTIZED_RUN, QUANTIZED_WHOLE, SHORT_BYTES, 4, q[i] = (uint8_t)NDQ_FN(code)(x[i], k))
}

NDQ_TARGET static void NDQ_FN(quantize16)(NDQ_SPAN(NDQ_AFFINE), const T *x, uint16_t *q)
{
    NDQ_EACH(false, q[i] = (uint16_t)NDQ_FN(code)(x[i], k))
}

/* The difference is exact in T as it is in integers: codes of up to 16 bits and their zero points are far below 2^24,
 * those of 32 bits, and the zero points of the textbook rule, at most 2^53, where T is double. */
#if NDQ_RULE == NDQ_RULE_DIVIDE
#define VALUE ((T)q[i] - k.zp) * k.scale + k.offset
#else
#define VALUE ((T)q[i] - k.zp) * k.scale
#endif
#define DEQUANTIZE(name, C, RUN, WHOLE, SHORT_OF_C)                                     \
    NDQ_TARGET static void name(NDQ_SPAN(NDQ_AFFINE), const C *q, T *y)                 \
    {                                                                                   \
        NDQ_EACH_AFTER(RUN, WHOLE, SHORT_OF_C, 4, y[i] = VALUE)                         \
    }
DEQUANTIZE(NDQ_FN(dequantize_s8), int8_t, DEQUANTIZED_RUN(int8_t), DEQUANTIZED_WHOLE(int8_t), SHORT_BYTES)
DEQUANTIZE(NDQ_FN(dequantize_u8), uint8_t, DEQUANTIZED_RUN(uint8_t), DEQUANTIZED_WHOLE(uint8_t), SHORT_BYTES)
DEQUANTIZE(NDQ_FN(dequantize_s16), int16_t, 0, 0, false)
DEQUANTIZE(NDQ_FN(dequantize_u16), uint16_t, 0, 0, false)
#if NDQ_IS_DOUBLE
DEQUANTIZE(NDQ_FN(dequantize_s32), int32_t, 0, 0, false)
DEQUANTIZE(NDQ_FN(dequantize_u32), uint32_t, 0, 0, false)

NDQ_TARGET static void NDQ_FN(quantize32)(NDQ_SPAN(NDQ_AFFINE), const T *x, uint32_t *q)
{
    NDQ_EACH(false, q[i] = NDQ_FN(code32)(x[i], k))
}
#endif
#undef DEQUANTIZE
#undef VALUE

NDQ_TARGET static void NDQ_FN(fake_quantize)(NDQ_SPAN(NDQ_AFFINE), const T *x, T *y)
{
    NDQ_EACH(SHORT, y[i] = NDQ_FN(real)(NDQ_FN(round_between)(NDQ_FN(scaled)(x[i], k), k.lo, k.hi), k))
}

/* The gradients need to know which values lie outside, so they clamp after rounding. With NDQ_MAGIC added, or
 * subtracted again, a value grows with v, is exact as far as the bounds reach, and is NaN for NaN. */
NDQ_TARGET static void NDQ_FN(fake_quantize_backward)(NDQ_SPAN(NDQ_AFFINE), const T *dy, const T *x, T *dx)
{
    NDQ_EACH_OF_SEVERAL(SHORT, const T t = NDQ_FN(scaled)(x[i], k) + NDQ_MAGIC; const T d = dy[i];
                        dx[i] = ((t >= k.lo + NDQ_MAGIC) & (t <= k.hi + NDQ_MAGIC)) ? d : 0)
}

NDQ_TARGET static void NDQ_FN(fake_quantize_with_grad)(NDQ_SPAN(NDQ_AFFINE), const T *dy, const T *x, T *y, T *dx)
{
    NDQ_EACH_OF_SEVERAL(SHORT, const T t = (NDQ_FN(scaled)(x[i], k) + NDQ_MAGIC) - NDQ_MAGIC; const T d = dy[i];
                        const T r = NDQ_FN(clamp)(t, k.lo, k.hi);
                        y[i] = NDQ_FN(real)(r, k); dx[i] = t == r ? d : 0)
}

#ifndef NDQ_LANES
/* Runs STATEMENT for each i of [0, n), with j = i mod LANES. The inner loop has a constant length except at the end, so
 * that what it adds to arrays of LANES accumulators is vectorised without any licence to reorder. */
#define NDQ_LANES(LANES, n, STATEMENT)                                                  \
    size_t i = 0;                                                                       \
    for (; i + LANES <= n; i += LANES)                                                  \
        NDQ_IVDEP for (size_t j = 0; j < LANES; j++) { STATEMENT(i + j, j) }            \
    for (size_t j = 0; i + j < n; j++) { STATEMENT(i + j, j) }
#endif

/* Both sides of each choice are computed before it, so that the choice is a select and not a branch.
 * LSQ and LSQ+ (Esser et al. 2020, Bhalgat et al. 2020; PyTorch's _fake_quantize_learnable): with respect to the scale,
 * (y - x) / scale in range and the bound's distance to the zero point outside; to the zero point, -scale outside, and
 * to a float offset 1. */
NDQ_TARGET static void NDQ_FN(fake_quantize_learnable)(const NDQ_AFFINE *p, size_t channel, size_t n, const T *dy,
                                                       const T *x, T *dx, double *sums)
{
    enum { LANES = 16 };
    assert(n <= NDQ_BLOCK);
    const COEF k = NDQ_FN(coef_of)(p, channel);
    const double scale = k.scale, inv = k.inv;
    const bool textbook = NDQ_RULE == NDQ_RULE_TEXTBOOK;
    const double low = textbook ? k.lo - k.zp : k.lo, high = textbook ? k.hi - k.zp : k.hi;
    const double per_zero = p->float_offset ? 1 : -scale;
    double dscale[LANES] = {0}, dzp[LANES] = {0};
#define ONE(at, lane)                                                                   \
    const T t = NDQ_FN(scaled)(x[at], k) + NDQ_MAGIC, g = dy[at];                       \
    const T r = NDQ_FN(clamp)(t, k.lo + NDQ_MAGIC, k.hi + NDQ_MAGIC), y = NDQ_FN(real)(r - NDQ_MAGIC, k); \
    const double d = (double)g, error = (double)y - (double)x[at];                      \
    const double bound = r > k.lo + NDQ_MAGIC ? high : low, inside = d * error * inv;   \
    const double outside = d * bound, shift = d * per_zero;                             \
    const bool in = t == r;                                                             \
    dscale[lane] += in ? inside : outside;                                              \
    dzp[lane] += in ? 0.0 : shift;                                                      \
    dx[at] = in ? g : 0;
    NDQ_LANES(LANES, n, ONE)
#undef ONE
    sums[0] = sums[1] = 0;
    for (size_t j = 0; j < LANES; j++) {
        sums[0] += dscale[j];
        sums[1] += dzp[j];
    }
}

/* A value is outside where its gradient is 0; NaN counts as that, and makes the error NaN. */
NDQ_TARGET static void NDQ_FN(errors)(const NDQ_AFFINE *p, size_t channel, size_t n, const T *x, double *sums)
{
    enum { LANES = 16, SUMS = 4 };
    assert(n <= NDQ_BLOCK);
    const COEF k = NDQ_FN(coef_of)(p, channel);
    double outside[LANES] = {0}, inside[LANES] = {0}, squares[LANES] = {0}, count[LANES] = {0};
#define ONE(at, lane)                                                                   \
    const T t = NDQ_FN(scaled)(x[at], k) + NDQ_MAGIC;                                   \
    const T r = NDQ_FN(clamp)(t, k.lo + NDQ_MAGIC, k.hi + NDQ_MAGIC), y = NDQ_FN(real)(r - NDQ_MAGIC, k); \
    const double v = (double)x[at], error = (double)y - v, square = error * error;      \
    const bool in = t == r;                                                             \
    outside[lane] += in ? 0.0 : square;                                                 \
    inside[lane] += in ? square : 0.0;                                                  \
    squares[lane] += v * v;                                                             \
    count[lane] += in ? 0.0 : 1.0;
    NDQ_LANES(LANES, n, ONE)
#undef ONE
    const double *const lanes[SUMS] = {outside, inside, squares, count};
    for (size_t s = 0; s < SUMS; s++) {
        sums[s] = 0;
        for (size_t j = 0; j < LANES; j++)
            sums[s] += lanes[s][j];
    }
}

#undef SHORT
#undef SHORT_BYTES
#undef QUANTIZED_RUN
#undef QUANTIZED_WHOLE
#undef DEQUANTIZED_RUN
#undef DEQUANTIZED_WHOLE
#undef COEF
