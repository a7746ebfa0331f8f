/* float16 to float32 and back, rounded to nearest even, as IEEE 754 and F16C have it: a NaN stays one and becomes quiet.
 *
 * Parameters: those of elementwise_all.inc.h; NDQ_HALVES, the number of values that a vector has, where it is defined
 * with NDQ_WIDEN_VECTOR(from, to) and NDQ_NARROW_VECTOR(from, to) that convert so many. Otherwise plain C. */

static inline float NDQ_FN(f32_of)(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t NDQ_FN(bits_of)(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Exponent and mantissa move to their places in a float32 whose exponent is then 112 too small; multiplying corrects it,
 * for subnormals too. */
static inline float NDQ_FN(widened)(uint16_t half)
{
    const uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13, sign = (uint32_t)(half & 0x8000) << 16;
    const uint32_t finite = NDQ_FN(bits_of)(NDQ_FN(f32_of)(magnitude) * 0x1p112f);
    const uint32_t quiet = magnitude > 0x0f800000 ? 0x00400000 : 0;
    return NDQ_FN(f32_of)(sign | (magnitude < 0x0f800000 ? finite : magnitude | 0x7f800000 | quiet));
}

/* Below 2^-14 the addition of 0.5 rounds at the last place of a subnormal; above, half an ulp less one, and one if the
 * result would be odd, is added to the bits. What passes 65504 carries into the exponent of infinity. */
static inline uint16_t NDQ_FN(narrowed)(float value)
{
    const uint32_t bits = NDQ_FN(bits_of)(value), magnitude = bits & 0x7fffffff, sign = (bits >> 16) & 0x8000;
    const uint32_t small = NDQ_FN(bits_of)(NDQ_FN(f32_of)(magnitude) + 0.5f) - 0x3f000000;
    const uint32_t normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
    const uint32_t nan = 0x7e00 | ((magnitude >> 13) & 0x3ff);
    const uint32_t large = magnitude > 0x7f800000 ? nan : 0x7c00;
    return (uint16_t)(sign | (magnitude < 0x38800000 ? small : magnitude >= 0x47800000 ? large : normal));
}

NDQ_TARGET static void NDQ_FN(widen)(size_t n, const uint16_t *from, float *to)
{
    size_t i = 0;
#ifdef NDQ_HALVES
    for (; i + NDQ_HALVES <= n; i += NDQ_HALVES)
        NDQ_WIDEN_VECTOR(from + i, to + i);
#endif
    NDQ_IVDEP for (; i < n; i++)
        to[i] = NDQ_FN(widened)(from[i]);
}

NDQ_TARGET static void NDQ_FN(narrow)(size_t n, const float *from, uint16_t *to)
{
    size_t i = 0;
#ifdef NDQ_HALVES
    for (; i + NDQ_HALVES <= n; i += NDQ_HALVES)
        NDQ_NARROW_VECTOR(from + i, to + i);
#endif
    NDQ_IVDEP for (; i < n; i++)
        to[i] = NDQ_FN(narrowed)(from[i]);
}
