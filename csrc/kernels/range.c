#include "range.h"

#include <float.h>
#include <math.h>

#define T float
#define T_RINT rintf
#define T_EPSILON FLT_EPSILON
#define NAME(x) x##_f32
#include "range.inc.h"
#undef T
#undef T_RINT
#undef T_EPSILON
#undef NAME

#define T double
#define T_RINT rint
#define T_EPSILON DBL_EPSILON
#define NAME(x) x##_f64
#include "range.inc.h"
