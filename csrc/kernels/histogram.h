/* Histograms with fixed edges, one per channel: adding them is merging them.
 *
 * Bins are numbered in the order of values. Bin 0 holds |x| < 2^-126: no scale is that small, and float32 and float64
 * data then share their bins. Bin i > 0 holds the positive values whose bits, read as float64, begin with exponent and
 * 9 bits of mantissa equal to i + NDQ_BINS_BELOW; bin -i their negatives. Within a binade bins are equally wide, 2^-9
 * of its lower end. */
#ifndef NDQ_HISTOGRAM_H
#define NDQ_HISTOGRAM_H

#include "elementwise.h"

/* Exponent 897 is 2^-126, whose first bin is number 1. */
enum { NDQ_BINS_PER_BINADE = 512, NDQ_BINS_BELOW = 897 * NDQ_BINS_PER_BINADE - 1 };

/* The bins that are not empty, of all channels behind each other: those of channel c are start[c] .. start[c + 1] - 1,
 * in ascending order. */
typedef struct {
    size_t channels, used, capacity;
    int64_t *start, *count;
    int32_t *bin;
} ndq_histogram;

/* Counts the finite values of job->x; uses arithmetic, geometry, n and x of the job. */
ndq_status ndq_histogram_of(const ndq_elementwise *job, ndq_histogram *histogram);

/* The sum of two histograms of as many channels. */
ndq_status ndq_histogram_sum(const ndq_histogram *a, const ndq_histogram *b, ndq_histogram *sum);

void ndq_histogram_free(ndq_histogram *histogram);

#endif
