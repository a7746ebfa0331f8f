/* GEMM tile for AVX-512 VNNI: 12 rows by 32 columns: 24 accumulators, 2 registers of weights, 1 for a row. */
#include "gemm.h"

#ifdef NDQ_X86
#include <immintrin.h>

#define NAME(x) avx512vnni_##x
#define TARGET NDQ_TARGET_AVX512VNNI
#define NR 32
#include "gemm_plain.inc.h"
#include "pack_avx512.h"
#include "store_avx512.h"

enum { ROWS = 12 };

/* The lower half of a vector, which clang 19 names wrongly in registers from 16 on. */
#ifdef __clang__
#define HALF ""
#else
#define HALF "t"
#endif

/* One asm statement for the reason given in gemm_avx2.c. */
#define ADD_DOT(word, c0, c1)                                                                                \
    do {                                                                                                     \
        __m512i x_;                                                                                          \
        if (width == WIDE)                                                                                   \
            __asm__ volatile("vpbroadcastd %[a], %[x]\n\t"                                                   \
                             "vpdpbusd %[b0], %[x], %[s0]\n\t"                                               \
                             "vpdpbusd %[b1], %[x], %[s1]"                                                   \
                             : [s0] "+v"(c0), [s1] "+v"(c1), [x] "=&v"(x_)                                   \
                             : [a] "m"(*(const ndq_gemm_word_anywhere *)(word)), [b0] "v"(w0), [b1] "v"(w1)); \
        else if (width == MIDDLE)                                                                            \
            __asm__ volatile("vpbroadcastd %[a], %[x]\n\t"                                                   \
                             "vpdpbusd %[b0], %[x], %[s0]\n\t"                                               \
                             "vpdpbusd %" HALF "[b1], %" HALF "[x], %" HALF "[s1]"                           \
                             : [s0] "+v"(c0), [s1] "+v"(c1), [x] "=&v"(x_)                                   \
                             : [a] "m"(*(const ndq_gemm_word_anywhere *)(word)), [b0] "v"(w0), [b1] "v"(w1)); \
        else                                                                                                 \
            __asm__ volatile("vpbroadcastd %[a], %[x]\n\t"                                                   \
                             "vpdpbusd %[b0], %[x], %[s0]"                                                   \
                             : [s0] "+v"(c0), [x] "=&v"(x_)                                                  \
                             : [a] "m"(*(const ndq_gemm_word_anywhere *)(word)), [b0] "v"(w0));              \
    } while (0)

/* ---- Outputs straight from the registers ---- */

/* Bounds of outputs in float32. */
typedef struct {
    __m512 floor, ceiling;
} reals;

#define INLINE static inline __attribute__((always_inline)) TARGET

/* 16 columns as float32, from `first` on. In max and min a NaN gives the bound. */
INLINE void store_reals(__m512i sums, const ndq_gemm_columns *c, size_t first, const reals *k, uint32_t kept, float *out)
{
    __m512 y = _mm512_add_ps(_mm512_cvtepi32_ps(sums), _mm512_loadu_ps(c->before + first));
    y = _mm512_add_ps(_mm512_mul_ps(y, _mm512_loadu_ps(c->scale + first)), _mm512_loadu_ps(c->after + first));
    y = _mm512_min_ps(_mm512_max_ps(y, k->floor), k->ceiling);
    _mm512_mask_storeu_ps(out + first, (__mmask16)(kept >> first), y);
}

/* Codes of two rows of 32 columns. */
INLINE void store_pair(int count, __m512i c00, __m512i c01, __m512i c10, __m512i c11, const ndq_stage_avx512 *k,
                       uint8_t *out, size_t stride, uint32_t kept)
{
    const __m512i first = ndq_halves_avx512(ndq_steps_avx512(false, true, c00, 0, NULL, k),
                                            ndq_steps_avx512(false, true, c01, 1, NULL, k), k);
    const __m512i second = count > 1 ? ndq_halves_avx512(ndq_steps_avx512(false, true, c10, 0, NULL, k),
                                                         ndq_steps_avx512(false, true, c11, 1, NULL, k), k)
                                     : first;
    const __m512i codes = ndq_bytes_avx512(first, second, k);
    _mm256_mask_storeu_epi8(out, kept, _mm512_castsi512_si256(codes));
    if (count > 1)
        _mm256_mask_storeu_epi8(out + stride, kept, _mm512_extracti64x4_epi64(codes, 1));
}

/* Codes of four rows of 16 columns. */
INLINE void store_four(int count, __m512i c0, __m512i c1, __m512i c2, __m512i c3, const ndq_stage_avx512 *k, uint8_t *out,
                       size_t stride, uint32_t kept)
{
#define STEPS(i) (count > i ? ndq_steps_avx512(false, true, c##i, 0, NULL, k) : _mm512_setzero_si512())
    const __m512i first = ndq_halves_avx512(STEPS(0), STEPS(1), k), second = ndq_halves_avx512(STEPS(2), STEPS(3), k);
#undef STEPS
    const __m512i codes = ndq_bytes_avx512(first, second, k);
    _mm_mask_storeu_epi8(out, (__mmask16)kept, _mm512_castsi512_si128(codes));
    if (count > 1)
        _mm_mask_storeu_epi8(out + stride, (__mmask16)kept, _mm512_extracti32x4_epi32(codes, 1));
    if (count > 2)
        _mm_mask_storeu_epi8(out + 2 * stride, (__mmask16)kept, _mm512_extracti32x4_epi32(codes, 2));
    if (count > 3)
        _mm_mask_storeu_epi8(out + 3 * stride, (__mmask16)kept, _mm512_extracti32x4_epi32(codes, 3));
}

#define END_ROWS(row, count, c00, c01, c10, c11, c20, c21, c30, c31)                                         \
    do {                                                                                                     \
        uint8_t *const out_ = to->out + (row) * to->stride;                                                  \
        if (end == CODES && width != NARROW) {                                                               \
            store_pair(count, c00, c01, c10, c11, to->constants, out_, to->stride, to->kept);                \
            if ((count) > 2)                                                                                 \
                store_pair((count) - 2, c20, c21, c30, c31, to->constants, out_ + 2 * to->stride, to->stride, to->kept); \
        } else if (end == CODES) {                                                                           \
            store_four(count, c00, c10, c20, c30, to->constants, out_, to->stride, to->kept);                \
        } else {                                                                                             \
            END_REALS(0, count, c00, c01);                                                                   \
            END_REALS(1, count, c10, c11);                                                                   \
            END_REALS(2, count, c20, c21);                                                                   \
            END_REALS(3, count, c30, c31);                                                                   \
        }                                                                                                    \
    } while (0)

#define END_REALS(i, count, c0, c1)                                                                          \
    if ((count) > (i)) {                                                                                     \
        float *const y_ = (float *)(void *)(out_ + (i) * to->stride);                                        \
        store_reals(c0, to->columns, 0, to->constants, to->kept, y_);                                        \
        if (width != NARROW)                                                                                 \
            store_reals(c1, to->columns, 16, to->constants, to->kept, y_);                                   \
    }

#define VECTOR __m512i
#define LANES 16
#define LOAD(p) _mm512_load_si512(p)
#define STORE(p, v) _mm512_store_si512(p, v)
#define ZERO _mm512_setzero_si512()
#include "gemm_vnni.inc.h"

#define ALL_TILES(rows)                                                                                      \
    TILES(rows)                                                                                              \
    TILE_OF_OUTPUTS(wide_code, rows, WIDE, CODES)                                                            \
    TILE_OF_OUTPUTS(middle_code, rows, MIDDLE, CODES)                                \
    TILE_OF_OUTPUTS(narrow_code, rows, NARROW, CODES)                                                        \
    TILE_OF_OUTPUTS(wide_real, rows, WIDE, REALS)                                                            \
    TILE_OF_OUTPUTS(narrow_real, rows, NARROW, REALS)
ALL_TILES(1)
ALL_TILES(2)
ALL_TILES(3)
ALL_TILES(4)
ALL_TILES(5)
ALL_TILES(6)
ALL_TILES(7)
ALL_TILES(8)
ALL_TILES(9)
ALL_TILES(10)
ALL_TILES(11)
ALL_TILES(12)

#define OF_12(name)                                                                                          \
    {                                                                                                        \
        avx512vnni_##name##_1, avx512vnni_##name##_2, avx512vnni_##name##_3, avx512vnni_##name##_4,          \
            avx512vnni_##name##_5, avx512vnni_##name##_6, avx512vnni_##name##_7, avx512vnni_##name##_8,      \
            avx512vnni_##name##_9, avx512vnni_##name##_10, avx512vnni_##name##_11, avx512vnni_##name##_12    \
    }

static TARGET void row_of_codes(size_t count, const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, const void *panel,
                                size_t columns, const ndq_gemm_columns *c, const ndq_gemm_stage *stage, uint8_t *out,
                                size_t out_stride)
{
    static avx512vnni_tile_of_outputs *const by_width[][ROWS] = {OF_12(narrow_code), OF_12(middle_code),
                                                                      OF_12(wide_code)};
    const ndq_stage_avx512 constants = ndq_make_stage_avx512(c, stage);
    const avx512vnni_target to = {.columns = c, .constants = &constants, .out = out, .stride = out_stride,
                                  .kept = ndq_kept_avx512(columns)};
    avx512vnni_even_tiles(by_width[columns <= 16 ? NARROW : columns <= 24 ? MIDDLE : WIDE], ROWS, count, runs, a, stride,
                          panel, to);
}

static TARGET void row_of_reals(size_t count, const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, const void *panel,
                                size_t columns, const ndq_gemm_columns *c, const ndq_gemm_stage *stage, uint8_t *out,
                                size_t out_stride)
{
    static avx512vnni_tile_of_outputs *const by_width[][ROWS] = {OF_12(narrow_real), OF_12(wide_real)};
    const reals constants = {_mm512_set1_ps(stage->floor), _mm512_set1_ps(stage->ceiling)};
    const avx512vnni_target to = {.columns = c, .constants = &constants, .out = out, .stride = out_stride,
                                  .kept = ndq_kept_avx512(columns)};
    avx512vnni_even_tiles(by_width[columns > 16], ROWS, count, runs, a, stride, panel, to);
}

const ndq_gemm_kernel ndq_gemm_avx512vnni = {
    .name = "avx512vnni",
    .mr = ROWS,
    .nr = NR,
    .codes_per_word = 4,
    .k_step = 4,
    .parallel_macs = 1e7,
    .expand_a = NAME(expand_u8),
    .sums = ndq_sums_avx512,
    .pack_rows = ndq_pack_rows_avx512,
    .pack_columns = ndq_pack_columns_avx512,
    .tile = OF_12(wide),
    .narrow = OF_12(narrow),
    .row = {[NDQ_GEMM_F32] = row_of_reals, [NDQ_GEMM_CODES] = row_of_codes},
    .row_panels = 1,
    .vector_tile = {NAME(vector_1), NAME(vector_2), NAME(vector_3), NAME(vector_4)},
    .narrow_vector_tile = {NAME(narrow_vector_1), NAME(narrow_vector_2), NAME(narrow_vector_3), NAME(narrow_vector_4)},
    .expand_vector = NAME(expand_vector),
    .vector_bytes = 1,
    .subtract_row_terms = NAME(subtract_row_terms),
    .store = {NAME(store_s32), NAME(store_f32), ndq_store_codes_avx512},
};
#endif
