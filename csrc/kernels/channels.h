/* Whole-array forms of the kernels of batch normalization: blocks, threads, and constants of few channels repeated. */
#ifndef NDQ_CHANNELS_H
#define NDQ_CHANNELS_H

#include "../backend.h"

/* Arrays of outer * channels * inner elements of one type, C-contiguous; inner is 1 if channels come last. */
typedef struct {
    const ndq_kernels *kernels;
    bool is_double;
    size_t outer;
    ndq_geometry geometry;
    const void *u, *v;
    void *out;
    /* One of each for each channel, of the type of the arrays. */
    const void *centre, *scale, *slope, *shift;
} ndq_channels;

/* NDQ_OK or NDQ_NO_MEMORY. sums[c] is the sum of u over channel c, sums[channels + c] that of u * v, added in float64 in
 * an order that depends on the sizes alone. */
ndq_status ndq_channel_sums(const ndq_channels *job, double *sums);

/* out = (u - centre) * scale + shift */
ndq_status ndq_scale_channels(const ndq_channels *job);

/* out = (u * scale + (v - centre) * slope) + shift */
ndq_status ndq_mix_channels(const ndq_channels *job);

#endif
