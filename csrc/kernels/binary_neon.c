/* Differing bits for NEON, which counts those of each byte: a half of a vector is a column. The tile is 4 rows by 8 columns:
 * 16 sums of bytes, 4 registers of columns. */
#include "binary.h"

#ifdef NDQ_ARM64
#include <arm_neon.h>

enum { NR = 8, ROWS = 4, VECTORS = NR / 2, BLOCK = 31 }; /* words that are added in 8 bits */
_Static_assert(BLOCK * 8 <= UINT8_MAX, "sums of a block fit 8 bits");

typedef uint64_t __attribute__((may_alias, aligned(1))) word_anywhere;

static inline __attribute__((always_inline)) void tile(const size_t rows, size_t words, const uint8_t *a, size_t stride,
                                                       const uint8_t *panel, int32_t *distance)
{
    uint64x2_t total[ROWS][VECTORS];
    for (size_t r = 0; r < rows; r++)
        for (int v = 0; v < VECTORS; v++)
            total[r][v] = vdupq_n_u64(0);
    for (size_t begin = 0; begin < words; begin += BLOCK) {
        const size_t end = ndq_min_size(begin + BLOCK, words);
        uint8x16_t sum[ROWS][VECTORS];
        for (size_t r = 0; r < rows; r++)
            for (int v = 0; v < VECTORS; v++)
                sum[r][v] = vdupq_n_u8(0);
        for (size_t i = begin; i < end; i++, a += sizeof(uint64_t), panel += NR * sizeof(uint64_t))
            for (size_t r = 0; r < rows; r++) {
                const uint8x16_t x = vreinterpretq_u8_u64(vdupq_n_u64(*(const word_anywhere *)(a + r * stride)));
                for (int v = 0; v < VECTORS; v++)
                    sum[r][v] = vaddq_u8(sum[r][v], vcntq_u8(veorq_u8(vld1q_u8(panel + 16 * v), x)));
            }
        for (size_t r = 0; r < rows; r++)
            for (int v = 0; v < VECTORS; v++)
                total[r][v] = vpadalq_u32(total[r][v], vpaddlq_u16(vpaddlq_u8(sum[r][v])));
    }
    for (size_t r = 0; r < rows; r++)
        for (int v = 0; v < VECTORS; v++)
            vst1_s32(distance + r * NR + 2 * v, vreinterpret_s32_u32(vmovn_u64(total[r][v])));
}

NDQ_BINARY_TILES()

const ndq_binary_kernel ndq_binary_neon = {
    .name = "neon",
    .mr = ROWS,
    .nr = NR,
    .word = sizeof(uint64_t),
    .row_factor = 1,
    .parallel_macs = 5e6,
    .tile = {tile_1, tile_2, tile_3, tile_4},
    .expand = ndq_binary_copy,
};
#endif
