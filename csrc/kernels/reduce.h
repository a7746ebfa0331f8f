/* Reductions over one channel or the whole array, in blocks of NDQ_BLOCK elements of one channel, in index order. The
 * blocks are fixed by the shape, so results are the same bits for any number of threads. */
#ifndef NDQ_REDUCE_H
#define NDQ_REDUCE_H

#include "elementwise.h"

/* Fills job->dx and adds up the gradients of scale and zero point, one of each per channel, times grad_factor. */
ndq_status ndq_fake_quantize_learnable(const ndq_elementwise *job, double grad_factor, double *dscale, double *dzp);

/* Extremes of each channel of job->x; uses kernels, arithmetic, geometry, n and x of the job. -0 becomes +0. */
ndq_status ndq_minmax(const ndq_elementwise *job, ndq_extremes *extremes);

#endif
