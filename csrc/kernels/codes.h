/* Integer forms of what lies between products, on codes of 8 bits: whole arrays, and rows of them.
 *
 * Operands of either sign are moved to u8 together with their zero points. Values are float32, and each result is
 * rounded to a code by multiplication; ReLU is a higher lower bound of the codes. */
#ifndef NDQ_CODES_H
#define NDQ_CODES_H

#include "activation.h"
#include "elementwise.h"

/* How codes of `params`, per tensor and of at most 8 bits, are read and written. */
ndq_byte_operand ndq_byte_operand_of(const ndq_params *params);
ndq_byte_result ndq_byte_result_of(const ndq_params *params, ndq_activation activation);

typedef struct {
    const ndq_kernels *kernels;
    ndq_byte_operands operands;
    ndq_byte_result result;
    bool multiply; /* or add */
    size_t n;
    const uint8_t *a, *b;
    uint8_t *out;
} ndq_two_codes;

void ndq_combine_codes(const ndq_two_codes *call);

/* out[i] = table[q[i]]; the table begins with the lowest code. */
typedef struct {
    size_t n;
    const uint8_t *q, *table;
    bool q_signed;
    uint8_t *out;
} ndq_lookup;

void ndq_lookup_codes(const ndq_lookup *call);

/* Rows of `length` codes. exponential[d] is exp(-scale * d) in units of 2^-23, so exponential[0] is 2^23. Row r takes row
 * r % mask_rows of the mask, where codes of nonzero bytes are left out: their probability is 0. */
typedef struct {
    const ndq_kernels *kernels;
    ndq_byte_result result;
    size_t rows, length;
    const uint8_t *x;
    uint8_t flip;
    const uint32_t *exponential;
    const uint8_t *mask; /* or NULL */
    size_t mask_rows;
    uint8_t *out;
} ndq_softmax;

/* p = e / sum of the row's e, as e * (1 / float(sum)), and 0 where that is 0. NDQ_OK or NDQ_NO_MEMORY. */
ndq_status ndq_softmax_codes(const ndq_softmax *call);

/* eps: of the formula, divided by the square of the scale. length is at most NDQ_LONGEST_ROW. */
typedef struct {
    const ndq_kernels *kernels;
    ndq_byte_result result;
    size_t rows, length;
    const uint8_t *x;
    uint8_t flip;
    float eps;
    const float *gain, *offset;
    uint8_t *out;
} ndq_layer_norm;

enum { NDQ_LONGEST_ROW = 1 << 23 };

/* With K codes q of a row, S their sum and V = K * sum of q^2 - S^2, both exact:
 * y = float(K * q - S) / sqrt(float(V) + K^2 * eps) * gain + offset, the division once for each row. */
void ndq_layer_norm_codes(const ndq_layer_norm *call);

#endif
