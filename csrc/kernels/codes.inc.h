/* Kernels on codes of 8 bits, for one backend. Plain C: the compiler vectorises it for NDQ_TARGET. Parameters as in
 * elementwise.inc.h. Values are computed in runs that stay in the L1 cache, then rounded: a loop over one width of
 * elements vectorises well. */

#define NDQ_RUN 256

static inline void NDQ_FN(emit)(const ndq_byte_result *r, size_t n, const float *y, uint8_t *out)
{
    const float inv = r->inv, lo = r->lo, hi = r->hi;
    const uint8_t zero = r->zero;
    uint32_t bits[NDQ_RUN];
    for (size_t i = 0; i < n; i++) {
        float v = y[i] * inv;
        v = v > lo ? v : lo;
        v = (v < hi ? v : hi) + NDQ_MAGIC;
        memcpy(&bits[i], &v, sizeof(v)); /* the integer is in the last bits, modulo 2^8 */
    }
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)((uint8_t)bits[i] + zero);
}

/* out[i] = the code of VALUE, in terms of i, for i >= FIRST; `out` may be an input. */
#define NDQ_EACH_CODE_FROM(FIRST, VALUE)                                                                     \
    for (size_t first = (FIRST); first < n; first += NDQ_RUN) {                                                    \
        const size_t count = ndq_min_size(NDQ_RUN, n - first);                                               \
        float y[NDQ_RUN];                                                                                    \
        for (size_t j = 0; j < count; j++) {                                                                 \
            const size_t i = first + j;                                                                      \
            y[j] = (VALUE);                                                                                  \
        }                                                                                                    \
        NDQ_FN(emit)(r, count, y, out + first);                                                              \
    }
#define NDQ_EACH_CODE(VALUE) NDQ_EACH_CODE_FROM(0, VALUE)

#define NDQ_VALUE(k, q) ((float)((int32_t)((q) ^ (k).flip) - (k).zero) * (k).scale)

#ifdef NDQ_BYTES
#define NDQ_COMBINED(multiply) NDQ_BYTES(combine_run)(multiply, p, r, n, a, b, out)
#else
#define NDQ_COMBINED(multiply) 0
#endif

NDQ_TARGET static void NDQ_FN(add)(const ndq_byte_operands *p, const ndq_byte_result *r, size_t n, const uint8_t *a,
                                   const uint8_t *b, uint8_t *out)
{
    const ndq_byte_operand ka = p->a, kb = p->b;
    NDQ_EACH_CODE_FROM(NDQ_COMBINED(false), NDQ_VALUE(ka, a[i]) + NDQ_VALUE(kb, b[i]))
}

NDQ_TARGET static void NDQ_FN(multiply)(const ndq_byte_operands *p, const ndq_byte_result *r, size_t n,
                                        const uint8_t *a, const uint8_t *b, uint8_t *out)
{
    const ndq_byte_operand ka = p->a, kb = p->b;
    NDQ_EACH_CODE_FROM(NDQ_COMBINED(true), NDQ_VALUE(ka, a[i]) * NDQ_VALUE(kb, b[i]))
}

NDQ_TARGET static void NDQ_FN(rescale)(const ndq_byte_result *r, float factor, uint32_t less, size_t n,
                                       const uint32_t *sum, uint8_t *out)
{
    NDQ_EACH_CODE((float)(int32_t)(sum[i] - less) * factor)
}

NDQ_TARGET static void NDQ_FN(normalize)(const ndq_byte_result *r, const ndq_byte_row *row, size_t n, const uint8_t *x,
                                         const float *gain, const float *offset, uint8_t *out)
{
    const int32_t length = row->length, sum = row->sum;
    const float inv = row->inv;
    const uint8_t flip = row->flip;
    NDQ_EACH_CODE((float)(length * (int32_t)(x[i] ^ flip) - sum) * inv * gain[i] + offset[i])
}

NDQ_TARGET static void NDQ_FN(largest)(size_t n, uint8_t flip, const uint8_t *x, uint8_t *most)
{
    NDQ_IVDEP for (size_t i = 0; i < n; i++)
    {
        const uint8_t q = x[i] ^ flip;
        most[i] = q > most[i] ? q : most[i];
    }
}

NDQ_TARGET static void NDQ_FN(total)(size_t n, uint8_t flip, const uint8_t *x, uint32_t *sum)
{
    NDQ_IVDEP for (size_t i = 0; i < n; i++) sum[i] += (uint8_t)(x[i] ^ flip);
}

#undef NDQ_VALUE
#undef NDQ_COMBINED
#undef NDQ_EACH_CODE
#undef NDQ_EACH_CODE_FROM
#undef NDQ_RUN
