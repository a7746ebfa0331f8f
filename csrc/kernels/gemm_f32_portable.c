/* Float32 tile in plain C: a row by 16 columns, a form that compilers vectorise where the machine has a fused
 * multiply-add that may be used without asking. Where it has none, the same is computed exactly in float64. */
#include "gemm.h"
#include "gemm_f32.h"

#define NAME(x) portable_f32_##x
#define TARGET
#define MR 1
#define NR 16
#include "gemm_plain.inc.h"
#define TRANSPOSE(count, rows, stride, panel) \
    NAME(pack_words)(0, count, (const ndq_gemm_word *)(rows), (size_t)(stride) / 4, 0, (ndq_gemm_word *)(panel))
#include "gemm_f32_plain.inc.h"

#ifdef __FP_FAST_FMAF
static void fuse_row(float a, const float *b, float *sums)
{
    for (size_t n = 0; n < NR; n++)
        sums[n] = fmaf(a, b[n], sums[n]);
}
#else
/* The product is exact in float64. The sum is rounded there to odd: where it is not exact, its last bit is set, so that
 * rounding it again to float32 sees on which side of a tie it lies (Boldo and Melquiond, "Emulation of a FMA and
 * correctly rounded sums", 2008). The error of the sum is Knuth's two-sum; it is NaN where the sum is not finite. */
static float fused(float a, float b, float c)
{
    const double product = (double)a * (double)b, sum = product + (double)c;
    const double part = sum - product, error = (product - (sum - part)) + ((double)c - part);
    int64_t bits;
    memcpy(&bits, &sum, sizeof(bits));
    if ((error > 0 || error < 0) && !(bits & 1))
        bits += (error > 0) == (sum > 0) ? 1 : -1;
    double rounded;
    memcpy(&rounded, &bits, sizeof(rounded));
    return (float)rounded;
}

/* Rounding twice does no harm unless the first result is a tie of the second: the 29 bits that a float32 lacks are one
 * half, or the float32 is subnormal and lacks more. */
static void fuse_row(float a, const float *b, float *sums)
{
    enum { LACKING = 0x1fffffff, HALF = 0x10000000 };
    double totals[NR];
    int any = 0;
    for (size_t n = 0; n < NR; n++)
        totals[n] = (double)a * (double)b[n] + (double)sums[n];
    for (size_t n = 0; n < NR; n++) {
        uint64_t bits;
        memcpy(&bits, &totals[n], sizeof(bits));
        any |= ((uint32_t)bits & LACKING) == HALF;
        any |= (fabs(totals[n]) < 0x1p-126) & (totals[n] != 0);
    }
    for (size_t n = 0; n < NR; n++)
        sums[n] = any ? fused(a, b[n], sums[n]) : (float)totals[n];
}
#endif

static void tile_1(size_t K, ndq_rows_f32 a, const float *panel, float *c, size_t stride, bool continued)
{
    (void)stride;
    float sums[NR] = {0};
    if (continued)
        memcpy(sums, c, sizeof(sums));
    for (size_t k = 0; k < K; k++, a.data += a.stride_k, panel += NR) {
        float term;
        memcpy(&term, a.data, sizeof(term));
        fuse_row(term, panel, sums);
    }
    memcpy(c, sums, sizeof(sums));
}

const ndq_gemm_f32_kernel ndq_gemm_f32_portable = {
    .mr = MR,
    .nr = NR,
    .parallel_macs = 1e5,
    .tile = {tile_1},
    .pack = NAME(pack),
    .pack_rows = NAME(pack_rows),
};
