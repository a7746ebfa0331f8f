/* Whole-array forms of the elementwise kernels: coefficients of an affine map, and the split over threads. */
#ifndef NDQ_ELEMENTWISE_H
#define NDQ_ELEMENTWISE_H

#include "../backend.h"
#include "staging.h"

/* How values are rounded. The last two have a float offset in place of a zero point: the value of code 0. */
typedef enum { NDQ_MULTIPLY, NDQ_DIVIDE, NDQ_TEXTBOOK_RULE, NDQ_OFFSET, NDQ_OFFSET_F64, NDQ_RULES } ndq_rule;

/* Which suffix of the kernels does the work, by the rule and the type that computes. */
typedef enum { NDQ_F32, NDQ_DIVIDE_F32, NDQ_F64, NDQ_DIVIDE_F64, NDQ_TEXTBOOK_F64 } ndq_arithmetic;

/* The types of codes: twice the log2 of their bytes, and 1 if they are signed. */
typedef enum { NDQ_U8, NDQ_S8, NDQ_U16, NDQ_S16, NDQ_U32, NDQ_S32 } ndq_code_type;

/* How many an affine map has: the arrays of ndq_affine_f32. */
enum { NDQ_COEFFICIENTS = 6 };

typedef struct {
    size_t channels;
    int64_t qmin, qmax;
    ndq_rule rule;
    ndq_code_type codes; /* the smallest that holds qmin .. qmax */
    bool always_f64;     /* whatever the data are: rules of that type, and codes that float32 cannot hold */
    bool float_offset;
    bool fits_f32; /* each scale, rounded to float32, is finite and not zero */
    ndq_affine_f32 f32;
    ndq_affine_f64 f64;
    void *memory; /* holds all the arrays above */
} ndq_params;

/* The scale is rounded to the type of the computation once, then inverted. Without scales the caller sets each channel
 * by ndq_params_set before it is used. */
ndq_status ndq_params_init(ndq_params *params, size_t channels, const double *scale, const double *zero_point,
                           int64_t qmin, int64_t qmax, ndq_rule rule);

/* Coefficients of channels [first, first + count); whether their scales fit float32. */
bool ndq_params_set(ndq_params *params, size_t first, size_t count, const double *scale, const double *zero_point);
void ndq_params_free(ndq_params *params);

/* The arithmetic for data that are float32 or narrower, or not. */
ndq_arithmetic ndq_arithmetic_of(const ndq_params *params, bool narrow);

static inline bool ndq_is_f32(ndq_arithmetic arithmetic)
{
    return arithmetic == NDQ_F32 || arithmetic == NDQ_DIVIDE_F32;
}

static inline size_t ndq_code_bytes(ndq_code_type codes)
{
    return (size_t)1 << codes / 2;
}

/* The arrays of one call; a function uses those that its kernel names. They are C-contiguous, aligned, and of the type
 * that computes (or codes), unless `x_is` and the like say otherwise; strides are those of inputs only. */
typedef struct {
    const ndq_kernels *kernels;
    const ndq_params *params;
    ndq_arithmetic arithmetic;
    ndq_code_type codes; /* of q, or of x where x is codes */
    ndq_geometry geometry;
    size_t n;
    const void *x, *dy;
    void *q, *y, *dx;
    ndq_data_type x_is, dy_is, y_is; /* y_is: of y and dx */
    const ndq_strides *x_strides, *dy_strides;
} ndq_elementwise;

void ndq_quantize(const ndq_elementwise *job);
void ndq_dequantize(const ndq_elementwise *job);
void ndq_fake_quantize(const ndq_elementwise *job);
void ndq_fake_quantize_backward(const ndq_elementwise *job);
void ndq_fake_quantize_with_grad(const ndq_elementwise *job);

/* Codes from->x to codes to->q, by way of float32 or else float64 values, a block at a time that stays in the cache. */
void ndq_requantize(const ndq_elementwise *from, const ndq_elementwise *to, bool by_f32);

#endif
