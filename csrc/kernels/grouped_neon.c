/* Weights of 4 bits for NEON without dot products: s8 by s8, exact. A product is at most 15 * 128 in size, so that seventeen
 * of them fit 16 bits; sums of two words are widened to int32 together. */
#include "grouped.h"

#ifdef NDQ_ARM64
#include <arm_neon.h>

#define NAME(x) neon_##x
#define TARGET
#define NR 8
#include "grouped_plain.inc.h"

enum { BLOCK = 8, BYTES = 16, ROWS = 2 }; /* words that are added in 16 bits; bytes of a word of 8 columns */
_Static_assert(BLOCK * (NDQ_GROUPED_LEVELS - 1) * 128 <= INT16_MAX, "sums of a block fit 16 bits");

typedef int32_t __attribute__((may_alias, aligned(1))) word_anywhere;

/* Sums of two columns each: eight of 16 bits, or four of 32. */
typedef struct {
    int16x8_t narrow[4];
    int32x4_t wide[4];
} sums;

static inline __attribute__((always_inline)) void multiply_add(sums *s, int8x16_t low, int8x16_t high, int8x16_t x)
{
    s->narrow[0] = vmlal_s8(s->narrow[0], vget_low_s8(low), vget_low_s8(x));
    s->narrow[1] = vmlal_high_s8(s->narrow[1], low, x);
    s->narrow[2] = vmlal_s8(s->narrow[2], vget_low_s8(high), vget_low_s8(x));
    s->narrow[3] = vmlal_high_s8(s->narrow[3], high, x);
}

static inline __attribute__((always_inline)) void tile(const size_t rows, const ndq_grouped_run *run, const int8_t *a,
                                                       size_t stride, const uint8_t *panel, int32_t *acc)
{
    for (size_t group = 0; group < run->groups; group++, panel += run->bytes, acc += rows * NR) {
        sums s[ROWS];
        for (size_t r = 0; r < rows; r++)
            for (int i = 0; i < 4; i++)
                s[r].wide[i] = vdupq_n_s32(0);
        for (size_t word = 0; word < run->words; word += BLOCK) {
            for (size_t r = 0; r < rows; r++)
                for (int i = 0; i < 4; i++)
                    s[r].narrow[i] = vdupq_n_s16(0);
            const size_t end = ndq_min_size(word + BLOCK, run->words);
            for (size_t i = word; i < end; i++, a += NDQ_GROUPED_WORD) {
                const uint8x16_t both = vld1q_u8(panel + BYTES * i);
                const int8x16_t low = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));
                const int8x16_t high = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
                for (size_t r = 0; r < rows; r++)
                    multiply_add(&s[r], low, high,
                                 vreinterpretq_s8_s32(vdupq_n_s32(*(const word_anywhere *)(a + r * stride))));
            }
            for (size_t r = 0; r < rows; r++)
                for (int i = 0; i < 4; i++)
                    s[r].wide[i] = vpadalq_s16(s[r].wide[i], s[r].narrow[i]);
        }
        for (size_t r = 0; r < rows; r++) {
            vst1q_s32(acc + NR * r, vpaddq_s32(s[r].wide[0], s[r].wide[1]));
            vst1q_s32(acc + NR * r + NR / 2, vpaddq_s32(s[r].wide[2], s[r].wide[3]));
        }
    }
}

static void tile_1(const ndq_grouped_run *run, const int8_t *a, size_t stride, const uint8_t *panel, int32_t *acc)
{
    tile(1, run, a, stride, panel, acc);
}

static void tile_2(const ndq_grouped_run *run, const int8_t *a, size_t stride, const uint8_t *panel, int32_t *acc)
{
    tile(2, run, a, stride, panel, acc);
}

const ndq_grouped_kernel ndq_grouped_neon = {
    .name = "neon",
    .mr = ROWS,
    .nr = NR,
    .k_step = NDQ_GROUPED_WORD,
    .parallel_macs = 1e6,
    .tile = {tile_1, tile_2},
    .expand = neon_expand,
    .combine = neon_combine,
    .store = neon_store,
};
#endif
