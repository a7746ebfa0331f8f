/* Rows of codes as bits side by side, the first code in the most significant bits of the first byte. */
#ifndef NDQ_BITS_H
#define NDQ_BITS_H

#include "../backend.h"

/* Each row of `length` codes of 1 to 8 bits takes ndq_packed_bytes bytes; a code is stored as its distance from `lowest`,
 * modulo 2^8, and the bits that are left of the last byte are 0. */
typedef struct {
    const ndq_kernels *kernels;
    int bits;
    uint8_t lowest, most; /* most: the largest distance that is a code */
    size_t rows, length;
    uint8_t *codes, *packed; /* one of them is read, the other written */
} ndq_bits;

static inline size_t ndq_packed_bytes(size_t length, int bits)
{
    return length / 8 * (size_t)bits + ndq_ceil_div(length % 8 * (size_t)bits, 8);
}

/* False if something is no code: then what was written means nothing. */
bool ndq_pack_bits(const ndq_bits *call);
bool ndq_unpack_bits(const ndq_bits *call);

#endif
