/* What the loops by hand over codes of 8 bits share: bytes_avx2.h and bytes_avx512.h. */
#ifndef NDQ_BYTES_H
#define NDQ_BYTES_H

#include "../backend.h"

/* Whether no sum or product is more than 2^30 steps away from the zero point: they are clamped only once they are
 * integers. */
static inline bool ndq_steps_are_integers(bool multiply, const ndq_byte_operands *p, const ndq_byte_result *r)
{
    const float x = 256 * p->a.scale, y = 256 * p->b.scale;
    return (multiply ? x * y : x + y) * r->inv < (float)(1 << 30);
}

/* How many of n elements are whole rows of channels, with what lies between them. */
static inline size_t ndq_whole_rows(size_t channels, size_t stride, size_t n)
{
    return (n + (stride - channels)) / stride;
}

#endif
