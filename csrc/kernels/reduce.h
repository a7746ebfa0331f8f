/* Reductions over one channel or the whole array, in blocks of NDQ_BLOCK elements of one channel, in index order. The
 * blocks are fixed by the shape, so results are the same bits for any number of threads. */
#ifndef NDQ_REDUCE_H
#define NDQ_REDUCE_H

#include "elementwise.h"

/* Fills job->dx and adds up the gradients of scale and zero point, one of each per channel, times grad_factor. */
ndq_status ndq_fake_quantize_learnable(const ndq_elementwise *job, double grad_factor, double *dscale, double *dzp);

/* The errors of the whole of job->x: the sums of the kernel `errors`, added over blocks and channels in order. */
enum { NDQ_ERRORS = 4 };
ndq_status ndq_errors(const ndq_elementwise *job, double sums[NDQ_ERRORS]);

/* The sums of the kernel `squares` over the arrays x and y of job. */
ndq_status ndq_squares(const ndq_elementwise *job, double sums[2]);

/* Extremes of each channel of job->x; uses kernels, arithmetic, geometry, n and x of the job. -0 becomes +0. */
ndq_status ndq_minmax(const ndq_elementwise *job, ndq_extremes *extremes);

#endif
