/* GEMM tile for AVX-512 VNNI: 12 rows by 32 columns: 24 accumulators, 2 registers of weights, 1 for a row. */
#include "gemm.h"

#ifdef NDQ_X86
#include <immintrin.h>

#define NAME(x) avx512vnni_##x
#define TARGET NDQ_TARGET_AVX512VNNI
#define NR 32
#include "gemm_plain.inc.h"

/* One asm statement for the reason given in gemm_avx2.c. */
#define ADD_DOT(word, c0, c1)                                                                                \
    do {                                                                                                     \
        __m512i x_;                                                                                          \
        if (wide)                                                                                            \
            __asm__ volatile("vpbroadcastd %[a], %[x]\n\t"                                                   \
                             "vpdpbusd %[b0], %[x], %[s0]\n\t"                                               \
                             "vpdpbusd %[b1], %[x], %[s1]"                                                   \
                             : [s0] "+v"(c0), [s1] "+v"(c1), [x] "=&v"(x_)                                   \
                             : [a] "m"(*(const ndq_gemm_word_anywhere *)(word)), [b0] "v"(w0), [b1] "v"(w1)); \
        else                                                                                                 \
            __asm__ volatile("vpbroadcastd %[a], %[x]\n\t"                                                   \
                             "vpdpbusd %[b0], %[x], %[s0]"                                                   \
                             : [s0] "+v"(c0), [x] "=&v"(x_)                                                  \
                             : [a] "m"(*(const ndq_gemm_word_anywhere *)(word)), [b0] "v"(w0));              \
    } while (0)

#define VECTOR __m512i
#define LANES 16
#define LOAD(p) _mm512_load_si512(p)
#define STORE(p, v) _mm512_store_si512(p, v)
#define ZERO _mm512_setzero_si512()
#include "gemm_vnni.inc.h"

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

const ndq_gemm_kernel ndq_gemm_avx512vnni = {
    .name = "avx512vnni",
    .mr = 12,
    .nr = NR,
    .codes_per_word = 4,
    .k_step = 4,
    .block_words = 512,
    .parallel_macs = 1e7,
    .expand_a = NAME(expand_u8),
    .expand_w = NAME(expand_s8),
    .sums = NAME(sums),
    .pack = NAME(pack_words),
    .tile = {NAME(wide_1), NAME(wide_2), NAME(wide_3), NAME(wide_4), NAME(wide_5), NAME(wide_6), NAME(wide_7),
             NAME(wide_8), NAME(wide_9), NAME(wide_10), NAME(wide_11), NAME(wide_12)},
    .narrow = {NAME(narrow_1), NAME(narrow_2), NAME(narrow_3), NAME(narrow_4), NAME(narrow_5), NAME(narrow_6),
               NAME(narrow_7), NAME(narrow_8), NAME(narrow_9), NAME(narrow_10), NAME(narrow_11), NAME(narrow_12)},
    .vector_tile = {NAME(vector_1), NAME(vector_2), NAME(vector_3), NAME(vector_4)},
    .expand_vector = NAME(expand_vector),
    .vector_bytes = 1,
    .subtract_row_terms = NAME(subtract_row_terms),
    .store = {NAME(store_s32), NAME(store_f32), NAME(store_codes)},
};
#endif
