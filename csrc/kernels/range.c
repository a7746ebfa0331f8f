#include "range.h"

#include <float.h>
#include <math.h>

/* Scale, rounded to float32, and zero point by way of float64. */
static void choose_wide(const ndq_grid *grid, double low, double high, float *scale, int64_t *zero_point);

#define T float
#define T_RINT rintf
#define T_EPSILON FLT_EPSILON
#define NAME(x) x##_f32
#define CHOOSE_WIDE choose_wide
#include "range.inc.h"
#undef T
#undef T_RINT
#undef T_EPSILON
#undef NAME
#undef CHOOSE_WIDE

#define T double
#define T_RINT rint
#define T_EPSILON DBL_EPSILON
#define NAME(x) x##_f64
#define CHOOSE_WIDE choose_f64
#include "range.inc.h"

static void choose_wide(const ndq_grid *grid, double low, double high, float *scale, int64_t *zero_point)
{
    take_in_zero_f64(grid, &low, &high);
    *scale = (float)scale_of_f64(grid, low, high);
    *zero_point = zero_of_f64(grid, low, *scale);
}
