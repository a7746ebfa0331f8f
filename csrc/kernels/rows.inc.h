/* Rows of floats between products: probabilities, layer normalization, GELU; for one backend. Plain C: the compiler
 * vectorises it for NDQ_TARGET. Parameters as in elementwise.inc.h; exp_parts and tanh are those of cells.inc.h. Sums are
 * 16 partial ones in float64 by index mod 16, then these in order. */

#define NDQ_PARTS 16

static inline double NDQ_FN(sum_of)(const double *parts)
{
    double sum = 0;
    for (size_t j = 0; j < NDQ_PARTS; j++)
        sum += parts[j];
    return sum;
}

/* exp(x) for x <= 0: 0 below -87, NaN of NaN. */
NDQ_TARGET static inline float NDQ_FN(exp)(float x)
{
    float s, p;
    NDQ_FN(exp_parts)(x, &s, &p);
    const float least = x < -87.0f ? 0.0f : x, e = s * p + s;
    return x >= -87.0f ? e : least;
}

NDQ_TARGET static void NDQ_FN(softmax)(size_t n, const float *x, float *y)
{
    float most[NDQ_PARTS], top = -INFINITY;
    double parts[NDQ_PARTS] = {0};
    for (size_t j = 0; j < NDQ_PARTS; j++)
        most[j] = top;
#define ONE(at, lane) most[lane] = x[at] > most[lane] ? x[at] : most[lane];
    {
        NDQ_LANES(NDQ_PARTS, n, ONE)
    }
#undef ONE
    for (size_t j = 0; j < NDQ_PARTS; j++)
        top = most[j] > top ? most[j] : top;
    top = top == -INFINITY ? 0.0f : top;
    NDQ_IVDEP for (size_t i = 0; i < n; i++) y[i] = NDQ_FN(exp)(x[i] - top);
#define ONE(at, lane) parts[lane] += (double)y[at];
    {
        NDQ_LANES(NDQ_PARTS, n, ONE)
    }
#undef ONE
    const float sum = (float)NDQ_FN(sum_of)(parts), total = sum == 0 ? 1.0f : sum;
    NDQ_IVDEP for (size_t i = 0; i < n; i++) y[i] /= total;
}

NDQ_TARGET static void NDQ_FN(layer_norm)(const ndq_norm_f32 *p, size_t n, const float *x, float *y, float *stats)
{
    const float *gain = p->gain, *offset = p->offset;
    double sums[NDQ_PARTS] = {0}, squares[NDQ_PARTS] = {0};
#define ONE(at, lane) sums[lane] += (double)x[at];
    {
        NDQ_LANES(NDQ_PARTS, n, ONE)
    }
#undef ONE
    const float mean = (float)(NDQ_FN(sum_of)(sums) / (double)n);
#define ONE(at, lane)                                \
    const double away = (double)(x[at] - mean);      \
    squares[lane] += away * away;
    {
        NDQ_LANES(NDQ_PARTS, n, ONE)
    }
#undef ONE
    const float inverse = 1.0f / sqrtf((float)(NDQ_FN(sum_of)(squares) / (double)n) + p->eps);
    NDQ_IVDEP for (size_t i = 0; i < n; i++) y[i] = ((x[i] - mean) * inverse) * gain[i] + offset[i];
    stats[0] = mean;
    stats[1] = inverse;
}

/* x * P(X <= x) of the normal distribution. P(X <= -|x|) = exp(-x^2 / 2) * t * series(2 t - 1) with t = 4 / (4 + |x|),
 * where the series is the Chebyshev interpolation of exp(x^2 / 2) * P(X <= -|x|) / t of degree 9, relative error 5e-8. */
NDQ_TARGET static void NDQ_FN(gelu)(size_t n, const float *x, float *y)
{
    NDQ_IVDEP for (size_t i = 0; i < n; i++)
    {
        const float u = 8.0f / (4.0f + fabsf(x[i])) - 1.0f;
        float series = 0x1.49ecd6p-15f * u + 0x1.0f3732p-15f, s, p;
        series = series * u - 0x1.99eff6p-12f;
        series = series * u - 0x1.c7a0d6p-11f;
        series = series * u + 0x1.ec5254p-10f;
        series = series * u + 0x1.eec21ep-7f;
        series = series * u + 0x1.7e01b8p-5f;
        series = series * u + 0x1.8c6dcap-4f;
        series = series * u + 0x1.373e32p-3f;
        series = series * u + 0x1.82b4bcp-3f;
        NDQ_FN(exp_parts)((x[i] * x[i]) * -0.5f, &s, &p);
        const float below = (s * p + s) * ((u + 1.0f) * 0.5f * series), above = 1.0f - below;
        y[i] = x[i] * (x[i] < 0 ? below : above);
    }
}

/* The same with P(X <= x) = (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2; beyond 20 nothing changes, and the cube
 * could overflow. */
NDQ_TARGET static void NDQ_FN(gelu_tanh)(size_t n, const float *x, float *y)
{
    NDQ_IVDEP for (size_t i = 0; i < n; i++)
    {
        float near = x[i] > -20.0f ? x[i] : -20.0f;
        near = near < 20.0f ? near : 20.0f;
        const float cube = 0.044715f * near * near * near;
        y[i] = x[i] * (0.5f * (1.0f + NDQ_FN(tanh)(0x1.988454p-1f * (near + cube))));
    }
}

#undef NDQ_PARTS
