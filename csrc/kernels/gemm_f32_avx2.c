/* Float32 tile for AVX2 with FMA: 6 rows by 16 columns, 12 accumulators. */
#include "gemm.h"
#include "gemm_f32.h"

#ifdef NDQ_X86
#include <immintrin.h>

#define NAME(x) avx2_f32_##x
#define TARGET NDQ_TARGET_AVX2
#define MR 6
#define NR 16
#include "gemm_avx2.inc.h"
#define TRANSPOSE(count, rows, stride, panel) \
    NAME(pack_transposed)(0, count, (const ndq_gemm_word *)(rows), (size_t)(stride) / 4, 0, (ndq_gemm_word *)(panel))
#include "gemm_f32_plain.inc.h"

#define VECTOR __m256
#define LANES 8
#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, v) _mm256_storeu_ps(p, v)
#define ZERO _mm256_setzero_ps()
#include "gemm_f32_vector.inc.h"

TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILES(5)
TILES(6)

const ndq_gemm_f32_kernel ndq_gemm_f32_avx2 = {
    .mr = MR,
    .nr = NR,
    .parallel_macs = 1.2e6,
    .tile = {NAME(wide_1), NAME(wide_2), NAME(wide_3), NAME(wide_4), NAME(wide_5), NAME(wide_6)},
    .narrow = {NAME(narrow_1), NAME(narrow_2), NAME(narrow_3), NAME(narrow_4), NAME(narrow_5), NAME(narrow_6)},
    .packing_tile = NAME(packing_tile),
    .pack = NAME(pack),
    .pack_rows = NAME(pack_rows),
};
#endif
