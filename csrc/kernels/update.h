/* Whole-array forms of the kernels of a training step: the choice of type, and the split over threads. */
#ifndef NDQ_UPDATE_H
#define NDQ_UPDATE_H

#include "../backend.h"

/* The arrays of one call, all C-contiguous, aligned, of n elements of one type; a function uses those that its kernel
 * names. */
typedef struct {
    const ndq_kernels *kernels;
    bool is_double;
    size_t n;
    ndq_sgd sgd;
    ndq_adam adam;
    const void *dy, *y, *g;
    void *dx, *w, *m, *v;
} ndq_update;

void ndq_relu_backward(const ndq_update *job);

/* v is the velocity, or NULL without momentum. */
void ndq_sgd_step(const ndq_update *job);
void ndq_adam_step(const ndq_update *job);

#endif
