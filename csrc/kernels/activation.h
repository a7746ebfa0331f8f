/* Activations that a layer ends in: bounds of its values, which become bounds of its codes. */
#ifndef NDQ_ACTIVATION_H
#define NDQ_ACTIVATION_H

#include "../common.h"

#include <math.h>

typedef enum { NDQ_NO_ACTIVATION, NDQ_RELU, NDQ_RELU6, NDQ_ACTIVATIONS } ndq_activation;

static inline float ndq_least_value(ndq_activation activation)
{
    return activation == NDQ_NO_ACTIVATION ? -INFINITY : 0.0f;
}

static inline float ndq_largest_value(ndq_activation activation)
{
    return activation == NDQ_RELU6 ? 6.0f : INFINITY;
}

/* Narrows the bounds of codes less their zero point. As rounding keeps order, codes between those of the bounds are the
 * codes of the values between them. */
static inline void ndq_narrow_steps(ndq_activation activation, float inv, float *lo, float *hi)
{
    const float least = ndq_least_value(activation), largest = rintf(ndq_largest_value(activation) * inv);
    *lo = *lo < least ? least : *lo;
    *hi = *hi > largest ? largest : *hi;
}

#endif
