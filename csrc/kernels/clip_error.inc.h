/* What the search for a clip range computes for each range. Parameters as in elementwise.inc.h; T is double. */

/* The bounds are integers, so clamping before rounding gives the same as after it. powf is one function for every
 * backend; it is three times as fast as pow, and the errors differ by less than 1e-6. */
NDQ_TARGET static void NDQ_FN(clip_error)(const ndq_levels *levels, double p, size_t n, const double *x,
                                          const double *weight, double *sum)
{
    enum { LANES = 16 };
    const double base = levels->base, inv = 1.0 / levels->scale, top = levels->levels;
    const float power = (float)p;
    double part[LANES] = {0};
#define DISTANCE(at)                                                                    \
    const double v = (x[at] - base) * inv, above = v > 0 ? v : 0;                       \
    const double inside = above < top ? above : top;                                    \
    const double d = v - ((inside + NDQ_MAGIC) - NDQ_MAGIC);
#define SQUARE(at, lane) DISTANCE(at) part[lane] += weight[at] * (d * d);
#define POWER(at, lane) DISTANCE(at) part[lane] += weight[at] * (double)powf((float)fabs(d), power);
    if (p == 2) {
        NDQ_LANES(LANES, n, SQUARE)
    } else {
        NDQ_LANES(LANES, n, POWER)
    }
#undef POWER
#undef SQUARE
#undef DISTANCE
    *sum = 0;
    for (size_t j = 0; j < LANES; j++)
        *sum += part[j];
}
