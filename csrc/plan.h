/* A lowered model as a flat list of steps over one arena: built once for each shape of input, run by one call that
 * allocates nothing. A batch may go through it in equal parts, one after another, so that the arena, which has room for
 * one part, stays in the caches.
 *
 * A value is an array between steps, named by its number: first those that each call brings (inputs and outputs), then
 * those of the arena, which whoever builds the plan has laid out so that values alive at the same time do not overlap.
 * A step is a function and its constants; each kind has a file in steps/. */
#ifndef NDQ_PLAN_H
#define NDQ_PLAN_H

#include "kernels/codes.h"
#include "kernels/conv_transpose.h"
#include "kernels/dynamic.h"
#include "kernels/matmul.h"
#include "kernels/elementwise.h"
#include "kernels/pool.h"
#include "kernels/rows.h"

enum { NDQ_STEP_INPUTS = 3, NDQ_BOX_AXES = 4 };

/* n codes, none of which is to be below `lowest` or above `highest`; flip moves these and the codes to u8. */
typedef struct {
    size_t n;
    uint8_t flip, lowest, highest;
} ndq_clamp_codes;

/* `count` matrices of elements of 1 or 4 bytes, to be transposed. */
typedef struct {
    size_t count, rows, columns, size;
} ndq_transposition;

/* A box of up to four axes: where it lies in the bytes of the input and where in those of the output, all of which become
 * `fill` before, if it fills. */
typedef struct {
    size_t length[NDQ_BOX_AXES];
    ptrdiff_t in_stride[NDQ_BOX_AXES];
    size_t out_stride[NDQ_BOX_AXES];
    size_t in_offset, out_offset, out_bytes;
    bool fills;
    uint8_t fill;
} ndq_placement;

typedef struct {
    ndq_pool images; /* as ndq_resize_codes takes them */
    const int32_t *row, *column;
} ndq_resizing;

/* Rows as ndq_quantize_rows leaves them. */
typedef struct {
    size_t M, K;
} ndq_quantized_rows;

typedef struct {
    ndq_conv_call call; /* as ndq_transposed_conv takes it */
    const ndq_transposed_weights *weights;
} ndq_transposing;

typedef struct ndq_step {
    ndq_status (*run)(const struct ndq_step *step, uint8_t *const *values);
    size_t in[NDQ_STEP_INPUTS], out;
    union {
        ndq_elementwise elementwise;
        ndq_gemm_call gemm;
        ndq_conv_call conv;
        ndq_transposing transposed;
        ndq_clamp_codes clamp;
        ndq_two_codes two_codes;
        ndq_pool pool;
        ndq_transposition transposition;
        ndq_placement placement;
        ndq_lookup lookup;
        ndq_resizing resizing;
        ndq_softmax softmax;
        ndq_matmul matmul;
        ndq_layer_norm layer_norm;
        ndq_quantized_rows quantized_rows;
        ndq_rows_call rows;
        ndq_grouped_rows grouped_rows;
        size_t elements;
        ndq_softmax_rows softmax_rows;
        ndq_normalized_rows normalized_rows;
        ndq_gelu gelu;
        ndq_attention attention;
    } work; /* all but the addresses of the arrays, and the kernels that are in use when it runs */
} ndq_step;

ndq_status ndq_step_quantize(const ndq_step *step, uint8_t *const *values);
ndq_status ndq_step_dequantize(const ndq_step *step, uint8_t *const *values);
ndq_status ndq_step_linear(const ndq_step *step, uint8_t *const *values);
ndq_status ndq_step_conv2d(const ndq_step *step, uint8_t *const *values);
ndq_status ndq_step_conv_transpose2d(const ndq_step *step, uint8_t *const *values);
ndq_status ndq_step_clamp(const ndq_step *step, uint8_t *const *values);
ndq_status ndq_step_combine(const ndq_step *step, uint8_t *const *values);
ndq_status ndq_step_pool(const ndq_step *step, uint8_t *const *values);
ndq_status ndq_step_transpose(const ndq_step *step, uint8_t *const *values);
ndq_status ndq_step_resize(const ndq_step *step, uint8_t *const *values);
ndq_status ndq_step_matmul(const ndq_step *step, uint8_t *const *values);
ndq_status ndq_step_softmax(const ndq_step *step, uint8_t *const *values);
ndq_status ndq_step_layer_norm(const ndq_step *step, uint8_t *const *values);
ndq_status ndq_step_place(const ndq_step *step, uint8_t *const *values);
ndq_status ndq_step_lookup(const ndq_step *step, uint8_t *const *values);
ndq_status ndq_step_quantize_rows(const ndq_step *step, uint8_t *const *values);
ndq_status ndq_step_linear_rows(const ndq_step *step, uint8_t *const *values);
ndq_status ndq_step_linear_groups(const ndq_step *step, uint8_t *const *values);
ndq_status ndq_step_add_f32(const ndq_step *step, uint8_t *const *values);
ndq_status ndq_step_softmax_f32(const ndq_step *step, uint8_t *const *values);
ndq_status ndq_step_layer_norm_f32(const ndq_step *step, uint8_t *const *values);
ndq_status ndq_step_gelu_f32(const ndq_step *step, uint8_t *const *values);
ndq_status ndq_step_attention_f32(const ndq_step *step, uint8_t *const *values);

typedef struct {
    size_t offset, bytes; /* of a part; offset: in the arena, of no meaning for an array of the caller */
    bool written;         /* by some step */
} ndq_plan_value;

typedef struct {
    size_t arrays, values, steps, parts; /* how many; `arrays` values come from the caller, with all parts in a row */
    ndq_plan_value *value;
    ndq_step *step;
    size_t arena_bytes;
    uint8_t *arena; /* NULL while a call uses it */
} ndq_plan;

/* Takes the memory that the counts ask for, all zeros, and the arena; value and step are the caller's to fill. */
ndq_status ndq_plan_init(ndq_plan *plan, size_t arrays, size_t values, size_t steps, size_t parts, size_t arena_bytes);
void ndq_plan_free(ndq_plan *plan);

/* Runs all steps on each part. Where copies is not NULL, copies[s], which has room for all parts, receives the output of
 * step s as soon as that has run. Calls of several threads at once may run the same plan: all but the first take an
 * arena of their own. */
ndq_status ndq_plan_run(ndq_plan *plan, uint8_t *const *arrays, uint8_t *const *copies);

#endif
