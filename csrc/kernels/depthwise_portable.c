/* Depthwise tile in plain C: a loop over channels, which compilers vectorise. */
#include "gemm.h"

#define NAME(x) portable_##x
#define TARGET
#define NR 8
#include "gemm_plain.inc.h"

/* All first codes of the pairs, then all second ones: a loop over either is contiguous. */
static void expand_pairs(size_t count, const ndq_depthwise_pixels *rows, bool is_signed, int32_t zero, void *pixels)
{
    const uint8_t *a = rows[0].codes, *b = rows[1].codes;
    const ptrdiff_t a_x = rows[0].stride, b_x = rows[1].stride;
    int16_t *out = pixels;
    for (size_t i = 0; i < count; i++, a += a_x, b += b_x, out += 2 * NR) {
        portable_expand_s16(NR, a, is_signed, zero, out);
        portable_expand_s16(NR, b, is_signed, zero, out + NR);
    }
}

/* The weights likewise. */
static void pack_pairs(size_t first, size_t count, const ndq_gemm_word *rows, size_t stride, size_t words,
                       ndq_gemm_word *panel)
{
    (void)words;
    int16_t *out = (int16_t *)(panel + first * NR);
    for (size_t n = 0; n < NR; n++)
        for (size_t tap = 0; tap < 2 * count; tap++)
            memcpy(out + tap * NR + n, (const uint8_t *)(rows + n * stride) + tap * sizeof(*out), sizeof(*out));
}

static void tile(size_t rows, const ndq_gemm_runs *taps, const uint8_t *a, size_t stride, const void *panel,
                 int32_t *acc)
{
    for (size_t row = 0; row < rows; row++, a += stride, acc += NR) {
        const int16_t *w = panel;
        uint32_t sum[NR] = {0};
        for (size_t tap = 0; tap < taps->runs; tap++, w += 2 * NR) {
            const int16_t *x = (const int16_t *)(a + taps->offset[tap]);
            for (size_t n = 0; n < NR; n++)
                sum[n] += (uint32_t)(x[n] * w[n]);
            for (size_t n = 0; n < NR; n++)
                sum[n] += (uint32_t)(x[NR + n] * w[NR + n]);
        }
        memcpy(acc, sum, sizeof(sum));
    }
}

#define TILE(rows)                                                                                           \
    static void tile_##rows(const ndq_gemm_runs *taps, const uint8_t *a, size_t stride, const void *panel,   \
                            int32_t *acc)                                                                    \
    {                                                                                                        \
        tile(rows, taps, a, stride, panel, acc);                                                             \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)

const ndq_gemm_kernel ndq_depthwise_portable = {
    .name = "portable_depthwise",
    .mr = 4,
    .nr = NR,
    .codes_per_word = 2,
    .a_centred = true,
    .w_centred = true,
    .k_step = 2,
    .parallel_macs = 1.5e5,
    .expand_rows = expand_pairs,
    .expand_w = portable_expand_s16,
    .sums = portable_sums,
    .pack = pack_pairs,
    .tile = {tile_1, tile_2, tile_3, tile_4},
    .store = {portable_store_s32, portable_store_f32, portable_store_codes},
};
