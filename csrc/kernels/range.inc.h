/* Written once for both float types. Parameters: T, the type; T_RINT, T_EPSILON; NAME(x), the name with the type's
 * suffix; CHOOSE_WIDE, what chooses scale and zero point of codes of more than 16 bits. */

/* (high - low) / levels; a difference that overflows is formed in wider steps. */
static inline T NAME(span)(T low, T high, long long levels)
{
    const T span = (high - low) / (T)levels;
    return isfinite(span) ? span : (T)((double)high / (double)levels - (double)low / (double)levels);
}

static inline T NAME(magnitude)(T low, T high)
{
    return -low > high ? -low : high;
}

/* At least the smallest scale of the rule; an empty range has scale 1, except where the rule has an epsilon of its own.
 * A scale of 0 does not tell: the quotient of a subnormal range underflows too. */
static inline T NAME(usable)(const ndq_grid *grid, T scale, bool empty)
{
    if (grid->rule == NDQ_RANGE_TORCH)
        return scale > (T)FLT_EPSILON ? scale : (T)FLT_EPSILON;
    return empty ? 1 : scale > (T)FLT_MIN ? scale : (T)FLT_MIN;
}

/* Takes 0 into the range. A textbook range takes it in only where it is so narrow for its distance from 0 that it has
 * no usable zero point: its steps are below the rounding of its values. */
static inline void NAME(take_in_zero)(const ndq_grid *grid, T *low, T *high)
{
    const bool textbook = grid->rule == NDQ_RANGE_TEXTBOOK;
    if (textbook && (grid->symmetric || NAME(span)(*low, *high, 1) > NAME(magnitude)(*low, *high) * T_EPSILON))
        return;
    *low = *low < 0 ? *low : 0;
    *high = *high > 0 ? *high : 0;
}

/* The zero point of a symmetric range. */
static inline long long NAME(middle)(const ndq_grid *grid)
{
    return grid->qmin < 0 ? 0 : 1LL << (grid->bits - 1);
}

/* Steps from 0 to the largest magnitude. */
static inline T NAME(symmetric_steps)(const ndq_grid *grid)
{
    const long long above = grid->qmax - NAME(middle)(grid), below = NAME(middle)(grid) - grid->qmin;
    if (grid->rule == NDQ_RANGE_TORCH)
        return (T)(grid->qmax - grid->qmin) / 2;
    return (T)(grid->rule == NDQ_RANGE_TEXTBOOK ? (1LL << (grid->bits - 1)) - 1 : above < below ? above : below);
}

static inline T NAME(scale_of)(const ndq_grid *grid, T low, T high)
{
    const bool empty = low == 0 && high == 0, textbook = grid->rule == NDQ_RANGE_TEXTBOOK;
    if (grid->symmetric)
        return NAME(usable)(grid, NAME(magnitude)(low, high) / NAME(symmetric_steps)(grid), empty);
    return NAME(usable)(grid, NAME(span)(low, high, textbook ? (1LL << grid->bits) - 1 : grid->qmax - grid->qmin), empty);
}

static inline T NAME(between_codes)(const ndq_grid *grid, T zero)
{
    const T qmin = (T)grid->qmin, qmax = (T)grid->qmax;
    return zero < qmin ? qmin : zero > qmax ? qmax : zero;
}

static inline int64_t NAME(zero_of)(const ndq_grid *grid, T low, T scale)
{
    if (grid->symmetric)
        return NAME(middle)(grid);
    if (grid->rule == NDQ_RANGE_ONNX)
        return (int64_t)T_RINT(NAME(between_codes)(grid, (T)grid->qmin - low / scale));
    const T zero = (T)grid->qmin - T_RINT(low / scale);
    return (int64_t)(grid->rule == NDQ_RANGE_TEXTBOOK ? zero : NAME(between_codes)(grid, zero));
}

static inline __attribute__((always_inline)) void NAME(choose)(const ndq_grid *grid, T low, T high, T *scale,
                                                               int64_t *zero_point)
{
    NAME(take_in_zero)(grid, &low, &high);
    *scale = NAME(scale_of)(grid, low, high);
    *zero_point = NAME(zero_of)(grid, low, *scale);
}

void NAME(ndq_scale_zero_point)(const ndq_grid *grid, size_t n, const T *low, const T *high, T *scale,
                                int64_t *zero_point)
{
    /* That of weights in training, without a choice in the loop. */
    const ndq_grid usual = {grid->qmin, grid->qmax, grid->bits, .symmetric = true, .rule = NDQ_RANGE_DEFAULT};
    if (grid->bits > 16)
        for (size_t i = 0; i < n; i++)
            CHOOSE_WIDE(grid, low[i], high[i], &scale[i], &zero_point[i]);
    else if (grid->symmetric && grid->rule == NDQ_RANGE_DEFAULT)
        for (size_t i = 0; i < n; i++)
            NAME(choose)(&usual, low[i], high[i], &scale[i], &zero_point[i]);
    else
        for (size_t i = 0; i < n; i++)
            NAME(choose)(grid, low[i], high[i], &scale[i], &zero_point[i]);
}

/* The least scale that serves biases [first, end), and not less than `least`. */
static T NAME(least_scale)(const ndq_bias *b, double least, size_t first, size_t end)
{
    for (size_t i = first; i < end; i++) {
        const double needed = fabs(b->bias[i]) / (b->x_scale * 0x1p30);
        least = needed > least ? needed : least;
    }
    return (T)least;
}

bool NAME(ndq_quantize_bias)(const ndq_bias *b, const T *scale, T *raised)
{
    const double normal = 0x1p-126 / b->x_scale;
    bool any = false;
    for (size_t n = 0; n < b->scales; n++) {
        const bool one = b->scales == 1;
        const size_t first = one ? 0 : n, end = one ? b->biases : ndq_min_size(n + 1, b->biases);
        const T least = NAME(least_scale)(b, normal, first, end);
        any |= scale[n] < least;
        raised[n] = scale[n] < least ? least : scale[n];
    }
    for (size_t i = 0; i < b->biases; i++) {
        const float s = (float)b->x_scale * (float)raised[b->scales == 1 ? 0 : i];
        b->codes[i] = (int32_t)rint(b->bias[i] / (double)s);
    }
    return any;
}
