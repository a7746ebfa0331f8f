/* What entropy calibration compares the clip ranges by, for counts in bins of equal width. */
#ifndef NDQ_ENTROPY_H
#define NDQ_ENTROPY_H

#include "../common.h"

/* Windows first[i] .. end[i] - 1 of the bins, each quantized to `levels` codes of as many bins as possible. counts[b]
 * and filled[b] are how many values there are in the bins before b, and how many of these bins are not empty. Found is
 * for each window the sum over the codes of p log(q): p is what a code counts, the outermost ones with all that lies
 * beyond; q is what its own bins count, spread over those that are not empty. Anything where a code has p and no q. */
typedef struct {
    size_t bins, windows, levels;
    const double *counts, *filled; /* bins + 1 of each */
    const int64_t *first, *end;
    double *sum;
} ndq_entropies;

void ndq_find_entropies(const ndq_entropies *job);

#endif
