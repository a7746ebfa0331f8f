/* Float32 tile for AVX-512: 12 rows by 32 columns, 24 accumulators. */
#include "gemm.h"
#include "gemm_f32.h"

#ifdef NDQ_X86
#include <immintrin.h>

#define NAME(x) avx512_f32_##x
#define TARGET NDQ_TARGET_AVX512
#define MR 12
#define NR 32
#include "gemm_plain.inc.h"
#define TRANSPOSE(count, rows, stride, panel) \
    NAME(pack_words)(0, count, (const ndq_gemm_word *)(rows), (size_t)(stride) / 4, 0, (ndq_gemm_word *)(panel))
#include "gemm_f32_plain.inc.h"

#define VECTOR __m512
#define LANES 16
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, v) _mm512_storeu_ps(p, v)
#define ZERO _mm512_setzero_ps()
#include "gemm_f32_vector.inc.h"

TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILES(5)
TILES(6)
TILES(7)
TILES(8)
TILES(9)
TILES(10)
TILES(11)
TILES(12)

const ndq_gemm_f32_kernel ndq_gemm_f32_avx512 = {
    .mr = MR,
    .nr = NR,
    .parallel_macs = 3e6,
    .tile = {NAME(wide_1), NAME(wide_2), NAME(wide_3), NAME(wide_4), NAME(wide_5), NAME(wide_6), NAME(wide_7),
             NAME(wide_8), NAME(wide_9), NAME(wide_10), NAME(wide_11), NAME(wide_12)},
    .narrow = {NAME(narrow_1), NAME(narrow_2), NAME(narrow_3), NAME(narrow_4), NAME(narrow_5), NAME(narrow_6),
               NAME(narrow_7), NAME(narrow_8), NAME(narrow_9), NAME(narrow_10), NAME(narrow_11), NAME(narrow_12)},
    .packing_tile = NAME(packing_tile),
    .pack = NAME(pack),
    .pack_rows = NAME(pack_rows),
};
#endif
