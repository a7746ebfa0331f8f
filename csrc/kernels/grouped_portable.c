/* Weights of 4 bits in plain C. */
#include "grouped.h"

#define NAME(x) portable_##x
#define TARGET
#define NR 8
#include "grouped_plain.inc.h"

enum { HALF = NR / 2, STEP = NDQ_GROUPED_WORD * HALF };

static void tile_1(const ndq_grouped_run *run, const int8_t *a, size_t stride, const uint8_t *panel, int32_t *acc)
{
    (void)stride;
    for (size_t group = 0; group < run->groups; group++, panel += run->bytes, acc += NR) {
        int32_t sum[NR] = {0};
        for (size_t word = 0; word < run->words; word++, a += NDQ_GROUPED_WORD)
            for (size_t i = 0; i < STEP; i++) {
                const uint8_t both = panel[word * STEP + i];
                const int32_t x = a[i % NDQ_GROUPED_WORD];
                sum[i / NDQ_GROUPED_WORD] += x * (both & 15);
                sum[HALF + i / NDQ_GROUPED_WORD] += x * (both >> 4);
            }
        memcpy(acc, sum, sizeof(sum));
    }
}

const ndq_grouped_kernel ndq_grouped_portable = {
    .name = "portable",
    .mr = 1,
    .nr = NR,
    .k_step = NDQ_GROUPED_WORD,
    .parallel_macs = 5e4,
    .tile = {tile_1},
    .expand = portable_expand,
    .combine = portable_combine,
    .store = portable_store,
};
