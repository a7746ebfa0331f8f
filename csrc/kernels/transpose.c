#include "transpose.h"

typedef uint64_t __attribute__((may_alias, aligned(1))) eight_bytes;

/* Swaps the upper `bits` bits of a with the lower ones of b, in each group of twice as many. */
#define SWAP(a, b, bits, mask)                                                                               \
    do {                                                                                                     \
        const uint64_t different_ = ((a >> (bits)) ^ b) & (mask);                                            \
        b ^= different_;                                                                                     \
        a ^= different_ << (bits);                                                                           \
    } while (0)

/* Byte i of row j goes to byte j of row i, in three exchanges of ever larger halves. On little-endian machines. */
static void transpose_8x8(const uint8_t *in, ptrdiff_t in_row, uint8_t *out, size_t out_row)
{
    uint64_t r[8];
    for (int i = 0; i < 8; i++)
        r[i] = *(const eight_bytes *)(in + i * in_row);
    for (int i = 0; i < 8; i += 2)
        SWAP(r[i], r[i + 1], 8, 0x00ff00ff00ff00ffULL);
    for (int i = 0; i < 8; i += i % 2 ? 3 : 1)
        SWAP(r[i], r[i + 2], 16, 0x0000ffff0000ffffULL);
    for (int i = 0; i < 4; i++)
        SWAP(r[i], r[i + 4], 32, 0x00000000ffffffffULL);
    for (size_t i = 0; i < 8; i++)
        *(eight_bytes *)(out + i * out_row) = r[i];
}

void ndq_transpose_bytes(const uint8_t *in, ptrdiff_t in_row, size_t rows, size_t columns, uint8_t *out, size_t out_row)
{
    const bool is_little = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;
    const size_t whole_rows = is_little ? rows / 8 * 8 : 0, whole_columns = columns / 8 * 8;
    for (size_t i = 0; i < whole_rows; i += 8)
        for (size_t j = 0; j < whole_columns; j += 8)
            transpose_8x8(in + (ptrdiff_t)i * in_row + j, in_row, out + j * out_row + i, out_row);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = i < whole_rows ? whole_columns : 0; j < columns; j++)
            out[j * out_row + i] = in[(ptrdiff_t)i * in_row + (ptrdiff_t)j];
}
