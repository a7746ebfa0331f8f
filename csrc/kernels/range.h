/* From a range of values to the scale and the zero point of its codes. */
#ifndef NDQ_RANGE_H
#define NDQ_RANGE_H

#include "../common.h"

typedef enum {
    NDQ_RANGE_DEFAULT,  /* the largest magnitude is a code, and no rounding tie */
    NDQ_RANGE_TORCH,    /* PyTorch's observers: UniformQuantizationObserverBase._calculate_qparams */
    NDQ_RANGE_TEXTBOOK, /* the range as it is: it need not include 0 */
    NDQ_RANGE_ONNX,     /* ONNX's DynamicQuantizeLinear; symmetric ranges, which it does not know, as by default */
    NDQ_RANGE_RULES
} ndq_range_rule;

typedef struct {
    long long qmin, qmax;
    int bits;
    bool symmetric;
    ndq_range_rule rule;
} ndq_grid;

/* n ranges with finite low <= high; the scale is computed in their type, for codes of more than 16 bits in float64 and
 * then rounded to it. A scale that passes it is infinite. */
void ndq_scale_zero_point_f32(const ndq_grid *grid, size_t n, const float *low, const float *high, float *scale,
                              int64_t *zero_point);
void ndq_scale_zero_point_f64(const ndq_grid *grid, size_t n, const double *low, const double *high, double *scale,
                              int64_t *zero_point);

/* The biases of a layer as int32 at the scale of its sums, x_scale * scale. A bias must fit into 31 bits, and that scale
 * be a normal float32, so scales are raised first: to max(scale, |bias| / (x_scale * 2^30), 2^-126 / x_scale), one scale
 * for all biases being raised for the largest. `raised` may be `scale`. True if any scale was raised. */
typedef struct {
    double x_scale;
    size_t scales, biases; /* scales is 1, or as many as there are biases */
    const double *bias;
    int32_t *codes;
} ndq_bias;

bool ndq_quantize_bias_f32(const ndq_bias *b, const float *scale, float *raised);
bool ndq_quantize_bias_f64(const ndq_bias *b, const double *scale, double *raised);

#endif
