/* Weights of 4 bits for NEON's dot products, which multiply s8 by s8. */
#include "grouped.h"

#ifdef NDQ_ARM64
#include <arm_neon.h>

#define NAME(x) neondot_##x
#define TARGET NDQ_TARGET_NEONDOT
#define NR 8
#include "grouped_plain.inc.h"

enum { BYTES = 16, ROWS = 4 }; /* bytes of a word of 8 columns */

typedef int32_t __attribute__((may_alias, aligned(1))) word_anywhere;

static inline __attribute__((always_inline)) TARGET void tile(const size_t rows, const ndq_grouped_run *run,
                                                              const int8_t *a, size_t stride, const uint8_t *panel,
                                                              int32_t *acc)
{
    for (size_t group = 0; group < run->groups; group++, panel += run->bytes, acc += rows * NR) {
        int32x4_t sum[ROWS][2];
        for (size_t r = 0; r < rows; r++)
            sum[r][0] = sum[r][1] = vdupq_n_s32(0);
        for (size_t word = 0; word < run->words; word++, a += NDQ_GROUPED_WORD) {
            const uint8x16_t both = vld1q_u8(panel + BYTES * word);
            const int8x16_t low = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));
            const int8x16_t high = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
            for (size_t r = 0; r < rows; r++) {
                const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(*(const word_anywhere *)(a + r * stride)));
                sum[r][0] = vdotq_s32(sum[r][0], low, x);
                sum[r][1] = vdotq_s32(sum[r][1], high, x);
            }
        }
        for (size_t r = 0; r < rows; r++) {
            vst1q_s32(acc + NR * r, sum[r][0]);
            vst1q_s32(acc + NR * r + NR / 2, sum[r][1]);
        }
    }
}

#define TILE(rows)                                                                                           \
    static TARGET void tile_##rows(const ndq_grouped_run *run, const int8_t *a, size_t stride,               \
                                   const uint8_t *panel, int32_t *acc)                                       \
    {                                                                                                        \
        tile(rows, run, a, stride, panel, acc);                                                              \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)

const ndq_grouped_kernel ndq_grouped_neondot = {
    .name = "neondot",
    .mr = ROWS,
    .nr = NR,
    .k_step = NDQ_GROUPED_WORD,
    .parallel_macs = 2e6,
    .tile = {tile_1, tile_2, tile_3, tile_4},
    .expand = neondot_expand,
    .combine = neondot_combine,
    .store = neondot_store,
};
#endif
