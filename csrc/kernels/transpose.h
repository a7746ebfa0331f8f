#ifndef NDQ_TRANSPOSE_H
#define NDQ_TRANSPOSE_H

#include "../common.h"

/* Rows to columns, of which none overlap; strides are in bytes.
 * out[j * out_row + i] = in[i * in_row + j] for `rows` rows of `columns` bytes. */
void ndq_transpose_bytes(const uint8_t *in, ptrdiff_t in_row, size_t rows, size_t columns, uint8_t *out, size_t out_row);

/* The same of elements of 4 bytes, of any address. */
void ndq_transpose_words(const uint8_t *in, ptrdiff_t in_row, size_t rows, size_t columns, uint8_t *out, size_t out_row);

#endif
