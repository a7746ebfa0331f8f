/* Whole-array forms of the elementwise kernels: coefficients of an affine map, and the split over threads. */
#ifndef NDQ_ELEMENTWISE_H
#define NDQ_ELEMENTWISE_H

#include "../backend.h"

typedef enum { NDQ_MULTIPLY, NDQ_TEXTBOOK_RULE } ndq_rule;

/* Which suffix of the kernels does the work: the type of the data, unless the rule has its own. */
typedef enum { NDQ_F32, NDQ_F64, NDQ_TEXTBOOK_F64 } ndq_arithmetic;

typedef struct {
    size_t channels;
    int32_t qmin, qmax;
    ndq_rule rule;
    bool fits_f32; /* each scale, rounded to float32, is finite and not zero */
    ndq_affine_f32 f32;
    ndq_affine_f64 f64;
    void *memory; /* holds all the arrays above */
} ndq_params;

/* The scale is rounded to the type of the computation once, then inverted. Without scales the caller sets each channel
 * by ndq_params_set before it is used. */
ndq_status ndq_params_init(ndq_params *params, size_t channels, const double *scale, const double *zero_point,
                           int32_t qmin, int32_t qmax, ndq_rule rule);

/* Coefficients of one channel; whether its scale fits float32. */
bool ndq_params_set(ndq_params *params, size_t channel, double scale, double zero_point);
void ndq_params_free(ndq_params *params);

/* The arrays of one call; a function uses those that its kernel names. All are C-contiguous and aligned. */
typedef struct {
    const ndq_kernels *kernels;
    const ndq_params *params;
    ndq_arithmetic arithmetic;
    bool codes_signed;
    ndq_geometry geometry;
    size_t n;
    const void *x, *dy;
    void *q, *y, *dx;
} ndq_elementwise;

void ndq_quantize(const ndq_elementwise *job);
void ndq_dequantize(const ndq_elementwise *job);
void ndq_fake_quantize(const ndq_elementwise *job);
void ndq_fake_quantize_backward(const ndq_elementwise *job);
void ndq_fake_quantize_with_grad(const ndq_elementwise *job);

#endif
