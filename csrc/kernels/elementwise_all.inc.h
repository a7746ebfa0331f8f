/* Every elementwise kernel of one backend: the templates, once per type and rule.
 *
 * Parameters: NDQ_ISA, the backend's name; NDQ_TARGET, its target attribute (may be empty). Optional: NDQ_BYTES(kernel), the
 * names of functions like those of bytes_avx2.h; NDQ_COLUMNS, how many columns of rows of channels make a vector;
 * NDQ_HALVES and what belongs to it, see half.inc.h.
 * Gives NDQ_ELEMENTWISE_ROW, the initializers of the backend's slots. */
#ifndef NDQ_ELEMENTWISE_ALL_INC_H
#define NDQ_ELEMENTWISE_ALL_INC_H

#define NDQ_PASTE3_(a, b, c) a##_##b##_##c
#define NDQ_PASTE3(a, b, c) NDQ_PASTE3_(a, b, c)
/* ndq_<kernel>_<suffix>_<isa>, with the suffix of the instance being compiled. */
#define NDQ_FN(kernel) NDQ_PASTE3(ndq_##kernel, NDQ_SUFFIX, NDQ_ISA)

#define NDQ_SLOT_OF_ISA_(name, isa) .name = ndq_##name##_##isa,
#define NDQ_SLOT_OF_ISA(name, isa) NDQ_SLOT_OF_ISA_(name, isa)
#define NDQ_SLOT(name, arguments) NDQ_SLOT_OF_ISA(name, NDQ_ISA)
#define NDQ_ELEMENTWISE_ROW NDQ_ELEMENTWISE_SLOTS(NDQ_SLOT)

/* Adding and subtracting 1.5 * 2^(mantissa bits) rounds to nearest even for |v| < 2^(mantissa bits - 1), never gives
 * -0, and is two instructions on every machine. */
#define NDQ_MAGIC_F32 12582912.0f
#define NDQ_MAGIC_F64 6755399441055744.0

#ifndef NDQ_COLUMNS
#define NDQ_COLUMNS NDQ_VECTOR
#endif

#define NDQ_RULE_MULTIPLY 0
#define NDQ_RULE_DIVIDE 1
#define NDQ_RULE_TEXTBOOK 2

#define NDQ_SUFFIX f16
#include "half.inc.h"
#undef NDQ_SUFFIX

#define T float
#define NDQ_AFFINE ndq_affine_f32
#define NDQ_CHANNELS ndq_channels_f32
#define NDQ_MAGIC NDQ_MAGIC_F32
#define NDQ_IS_DOUBLE 0
#define NDQ_SQRT sqrtf
#define NDQ_RULE NDQ_RULE_MULTIPLY
#define NDQ_SUFFIX f32
#include "elementwise.inc.h"
#include "observe.inc.h"
#include "update.inc.h"
#include "channels.inc.h"
#include "cells.inc.h"
#include "rows.inc.h"
#undef NDQ_RULE
#undef NDQ_SUFFIX

#define NDQ_SUFFIX u8
#include "codes.inc.h"
#include "bits.inc.h"
#undef NDQ_SUFFIX

#define NDQ_RULE NDQ_RULE_DIVIDE
#define NDQ_SUFFIX divide_f32
#include "elementwise.inc.h"
#undef NDQ_RULE
#undef NDQ_SUFFIX
#undef NDQ_SQRT
#undef NDQ_IS_DOUBLE
#undef NDQ_MAGIC
#undef NDQ_CHANNELS
#undef NDQ_AFFINE
#undef T

#define T double
#define NDQ_AFFINE ndq_affine_f64
#define NDQ_CHANNELS ndq_channels_f64
#define NDQ_MAGIC NDQ_MAGIC_F64
#define NDQ_IS_DOUBLE 1
#define NDQ_SQRT sqrt
#define NDQ_RULE NDQ_RULE_MULTIPLY
#define NDQ_SUFFIX f64
#include "elementwise.inc.h"
#include "observe.inc.h"
#include "update.inc.h"
#include "channels.inc.h"
#include "clip_error.inc.h"
#undef NDQ_RULE
#undef NDQ_SUFFIX

#define NDQ_RULE NDQ_RULE_DIVIDE
#define NDQ_SUFFIX divide_f64
#include "elementwise.inc.h"
#undef NDQ_RULE
#undef NDQ_SUFFIX

#define NDQ_RULE NDQ_RULE_TEXTBOOK
#define NDQ_SUFFIX textbook
#include "elementwise.inc.h"
#undef NDQ_RULE
#undef NDQ_SUFFIX
#undef NDQ_SQRT
#undef NDQ_IS_DOUBLE
#undef NDQ_MAGIC
#undef NDQ_CHANNELS
#undef NDQ_AFFINE
#undef T

#endif
