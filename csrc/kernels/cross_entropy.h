/* How much the softmax of rows of logits changes when they are quantized. */
#ifndef NDQ_CROSS_ENTROPY_H
#define NDQ_CROSS_ENTROPY_H

#include "../backend.h"

/* N rows of C logits x, the largest of each, and p = softmax(x); `tries` ways to quantize them, with one number of levels. Found is
 * for each the sum over the rows of the cross-entropy -sum p log softmax(y), where y are the levels nearest to x. A scale
 * that is not positive and finite has an infinite one. */
typedef struct {
    size_t N, C, tries;
    const double *x, *p, *largest;
    const double *base, *scale;
    double levels;
    double *sum;
} ndq_cross_entropies;

ndq_status ndq_find_cross_entropies(const ndq_cross_entropies *job);

#endif
