/* GEMM tile in plain C: centred int16 rows and columns, each contiguous along K, two by two dot products at a time, a
 * form that compilers turn into the multiply-add of pairs that every vector instruction set has. */
#include "gemm.h"

#define NAME(x) portable_##x
#define TARGET
#define NR 8
#include "gemm_plain.inc.h"

/* A panel is NR columns one after another. */
static void pack_columns(size_t first, size_t count, const ndq_gemm_word *rows, size_t stride, size_t words,
                         ndq_gemm_word *panel)
{
    for (size_t n = 0; n < NR; n++)
        memcpy(panel + n * words + first, rows + n * stride, count * sizeof(*panel));
}

static void tile_1(const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, const void *panel, int32_t *acc)
{
    (void)stride;
    const int16_t *column = panel;
    const size_t K = 2 * runs->words;
    for (size_t n = 0; n < NR; n++) {
        uint32_t sum = 0;
        for (size_t run = 0; run < runs->runs; run++, column += K) {
            const int16_t *row = (const int16_t *)(a + runs->offset[run]);
            for (size_t k = 0; k < K; k++)
                sum += (uint32_t)(row[k] * column[k]);
        }
        acc[n] = (int32_t)sum;
    }
}

static void tile_2(const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, const void *panel, int32_t *acc)
{
    const int16_t *column0 = panel;
    const size_t K = 2 * runs->words, all = runs->runs * K;
    for (size_t n = 0; n < NR; n += 2, column0 += all) {
        uint32_t s00 = 0, s01 = 0, s10 = 0, s11 = 0;
        for (size_t run = 0; run < runs->runs; run++, column0 += K) {
            const int16_t *row0 = (const int16_t *)(a + runs->offset[run]);
            const int16_t *row1 = (const int16_t *)(a + runs->offset[run] + stride), *column1 = column0 + all;
            for (size_t k = 0; k < K; k++) {
                s00 += (uint32_t)(row0[k] * column0[k]);
                s01 += (uint32_t)(row0[k] * column1[k]);
                s10 += (uint32_t)(row1[k] * column0[k]);
                s11 += (uint32_t)(row1[k] * column1[k]);
            }
        }
        acc[n] = (int32_t)s00;
        acc[n + 1] = (int32_t)s01;
        acc[NR + n] = (int32_t)s10;
        acc[NR + n + 1] = (int32_t)s11;
    }
}

const ndq_gemm_kernel ndq_gemm_portable = {
    .name = "portable",
    .mr = 2,
    .nr = NR,
    .codes_per_word = 2,
    .a_centred = true,
    .w_centred = true,
    .k_step = 8,
    .parallel_macs = 5e5,
    .expand_a = portable_expand_s16,
    .expand_w = portable_expand_s16,
    .sums = portable_sums,
    .pack = pack_columns,
    .tile = {tile_1, tile_2},
    .store = {portable_store_s32, portable_store_f32, portable_store_codes},
};
