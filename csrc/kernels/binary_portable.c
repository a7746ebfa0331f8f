/* Differing bits counted in plain C, 64 at a time. */
#include "binary.h"

enum { NR = 4 };

typedef uint64_t __attribute__((may_alias, aligned(1))) word_anywhere;

/* Sums of neighbours of 1, 2 and 4 bits, then of all bytes by one multiplication (Warren, Hacker's Delight, 5-1). */
static inline int32_t count_ones(uint64_t x)
{
    x -= x >> 1 & 0x5555555555555555;
    x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0f;
    return (int32_t)(x * 0x0101010101010101 >> 56);
}

static void tile_1(size_t words, const uint8_t *a, size_t stride, const uint8_t *panel, int32_t *distance)
{
    (void)stride;
    const word_anywhere *row = (const word_anywhere *)a, *w = (const word_anywhere *)panel;
    int32_t sum[NR] = {0};
    for (size_t i = 0; i < words; i++)
        for (size_t n = 0; n < NR; n++)
            sum[n] += count_ones(row[i] ^ w[i * NR + n]);
    memcpy(distance, sum, sizeof(sum));
}

const ndq_binary_kernel ndq_binary_portable = {
    .name = "portable",
    .mr = 1,
    .nr = NR,
    .word = sizeof(uint64_t),
    .row_factor = 1,
    .parallel_macs = 4e5,
    .tile = {tile_1},
    .expand = ndq_binary_copy,
};
