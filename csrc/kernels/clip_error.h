/* The error of ranges that a search tries, over the values of a histogram. */
#ifndef NDQ_CLIP_ERROR_H
#define NDQ_CLIP_ERROR_H

#include "../backend.h"

/* Values and their weights, of all channels behind each other: those of channel c are start[c] .. start[c + 1] - 1. The
 * ranges that are tried are rows of `tries` for each channel, and so is what is found: the sum over the values of
 * weight * |value - the level nearest to it|^p. A scale that is not positive and finite has an infinite error. */
typedef struct {
    const ndq_kernels *kernels;
    size_t channels, tries;
    const int64_t *start;
    const double *value, *weight;
    const double *base, *scale;
    double levels, p;
    double *error;
} ndq_clip_errors;

void ndq_find_clip_errors(const ndq_clip_errors *job);

#endif
