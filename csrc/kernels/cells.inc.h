/* What follows the products of layers whose inputs are quantized as they come, and the cells of recurrent ones, for one
 * backend. Plain C: the compiler vectorises it for NDQ_TARGET. Parameters as in elementwise.inc.h. Each operation is
 * rounded by itself, in the order written, so that all backends give the same bits. */

NDQ_TARGET static void NDQ_FN(scale_sums)(const ndq_sums_row *row, size_t n, const int32_t *sum, float *y)
{
    const int32_t *column_sum = row->column_sum;
    const float *scale = row->scale, *bias = row->bias;
    const float own = row->own_scale;
    const uint32_t zero = (uint32_t)row->zero;
    NDQ_IVDEP for (size_t i = 0; i < n; i++)
    {
        const uint32_t exact = (uint32_t)sum[i] - zero * (uint32_t)column_sum[i];
        y[i] = (float)(int32_t)exact * (own * scale[i]) + bias[i];
    }
}

/* exp(x) = s * p + s for x <= 0, which -87 bounds below: s is a power of two, and p = exp(r) - 1 by Taylor's series up to
 * r^7, with an error below 1e-8 for |r| <= ln(2) / 2. ln(2) comes in two parts, of which n times the first is exact. */
NDQ_TARGET static inline void NDQ_FN(exp_parts)(float x, float *s, float *p)
{
    x = x > -87.0f ? x : -87.0f;
    const float shifted = x * 0x1.715476p+0f + NDQ_MAGIC;
    const float n = shifted - NDQ_MAGIC;
    const float r = (x - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
    float series = 1.0f / 5040 * r + 1.0f / 720;
    series = series * r + 1.0f / 120;
    series = series * r + 1.0f / 24;
    series = series * r + 1.0f / 6;
    series = series * r + 0.5f;
    *p = (series * r) * r + r;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof(bits)); /* n is in the last bits */
    bits = (bits << 23) + 0x3f800000u;
    memcpy(s, &bits, sizeof(bits));
}

NDQ_TARGET static inline float NDQ_FN(sigmoid)(float x)
{
    float s, p;
    NDQ_FN(exp_parts)(-fabsf(x), &s, &p);
    const float e = s * p + s;
    return (x < 0 ? e : 1.0f) / (1.0f + e);
}

/* -expm1(-2 |x|) / (2 + expm1(-2 |x|)), with the sign of x. */
NDQ_TARGET static inline float NDQ_FN(tanh)(float x)
{
    float s, p;
    NDQ_FN(exp_parts)(-2.0f * fabsf(x), &s, &p);
    const float m = s * p + (s - 1.0f);
    const float t = (0.0f - m) / (2.0f + m);
    return x < 0 ? -t : t;
}

NDQ_TARGET static void NDQ_FN(lstm_cell)(size_t H, const float *gx, const float *gh, float *c, float *h)
{
    NDQ_IVDEP for (size_t j = 0; j < H; j++)
    {
        const float i = NDQ_FN(sigmoid)(gx[j] + gh[j]);
        const float f = NDQ_FN(sigmoid)(gx[H + j] + gh[H + j]);
        const float g = NDQ_FN(tanh)(gx[2 * H + j] + gh[2 * H + j]);
        c[j] = f * c[j] + i * g;
    }
    NDQ_IVDEP for (size_t j = 0; j < H; j++)
    {
        h[j] = NDQ_FN(sigmoid)(gx[3 * H + j] + gh[3 * H + j]) * NDQ_FN(tanh)(c[j]);
    }
}

NDQ_TARGET static void NDQ_FN(gru_cell)(size_t H, const float *gx, const float *gh, float *h)
{
    NDQ_IVDEP for (size_t j = 0; j < H; j++)
    {
        const float r = NDQ_FN(sigmoid)(gx[j] + gh[j]);
        const float z = NDQ_FN(sigmoid)(gx[H + j] + gh[H + j]);
        const float n = NDQ_FN(tanh)(gx[2 * H + j] + r * gh[2 * H + j]);
        h[j] = (h[j] - n) * z + n;
    }
}
