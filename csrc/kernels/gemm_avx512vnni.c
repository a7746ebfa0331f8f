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

/* expand_u8, whose rest is masked: rows are often short, and no whole number of vectors. */
static TARGET void expand_u8_by_hand(size_t K, const uint8_t *codes, bool is_signed, int32_t zero, void *row)
{
    (void)zero;
    const __m512i flip = _mm512_set1_epi8(is_signed ? -128 : 0);
    uint8_t *out = row;
    size_t k = 0;
    for (; k + 64 <= K; k += 64)
        _mm512_storeu_si512(out + k, _mm512_xor_si512(_mm512_loadu_si512(codes + k), flip));
    if (k == K)
        return;
    const __mmask64 rest = ~(__mmask64)0 >> (64 - (K - k));
    _mm512_mask_storeu_epi8(out + k, rest, _mm512_xor_si512(_mm512_maskz_loadu_epi8(rest, codes + k), flip));
}

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

/* ---- Windows that overlap ----
 *
 * Where a run is three rows long, as a window of three pixels, each word belongs to three rows one after another, in
 * another third of the run. It is broadcast once for all of them: of 16 columns, broadcasts take longer than products. */

enum { SLID_ROWS = 16 };

/* The word of pixel x, for rows x, x - 1 and x - 2. */
#define SLIDE_3(word, c0, c1, c2)                                                                            \
    do {                                                                                                     \
        __m512i x_;                                                                                          \
        __asm__ volatile("vpbroadcastd %[a], %[x]\n\tvpdpbusd %[b0], %[x], %[s0]\n\t"                       \
                         "vpdpbusd %[b1], %[x], %[s1]\n\tvpdpbusd %[b2], %[x], %[s2]"                        \
                         : [s0] "+v"(c0), [s1] "+v"(c1), [s2] "+v"(c2), [x] "=&v"(x_)                        \
                         : [a] "m"(*(const ndq_gemm_word_anywhere *)(word)), [b0] "v"(w0), [b1] "v"(w1), [b2] "v"(w2)); \
    } while (0)
#define SLIDE_2(word, c0, c1, first, second)                                                                 \
    do {                                                                                                     \
        __m512i x_;                                                                                          \
        __asm__ volatile("vpbroadcastd %[a], %[x]\n\tvpdpbusd %[b0], %[x], %[s0]\n\t"                       \
                         "vpdpbusd %[b1], %[x], %[s1]"                                                       \
                         : [s0] "+v"(c0), [s1] "+v"(c1), [x] "=&v"(x_)                                       \
                         : [a] "m"(*(const ndq_gemm_word_anywhere *)(word)), [b0] "v"(first), [b1] "v"(second)); \
    } while (0)
#define SLIDE_1(word, c0, weights)                                                                           \
    do {                                                                                                     \
        __m512i x_;                                                                                          \
        __asm__ volatile("vpbroadcastd %[a], %[x]\n\tvpdpbusd %[b0], %[x], %[s0]"                            \
                         : [s0] "+v"(c0), [x] "=&v"(x_)                                                      \
                         : [a] "m"(*(const ndq_gemm_word_anywhere *)(word)), [b0] "v"(weights));             \
    } while (0)

/* Pixel x > 1, if any of its rows is one of the tile. */
#define SLIDE(x, word, c0, c1, c2)                                                                           \
    do {                                                                                                     \
        if ((x) < rows)                                                                                      \
            SLIDE_3(word, c0, c1, c2);                                                                       \
        else if ((x) - 1 < rows)                                                                             \
            SLIDE_2(word, c1, c2, w1, w2);                                                                   \
        else if ((x) - 2 < rows)                                                                             \
            SLIDE_1(word, c2, w2);                                                                           \
    } while (0)

INLINE void slid_tile(const int rows, const avx512vnni_ending end, const ndq_gemm_runs *runs, const uint8_t *a, size_t stride,
                      const void *panel, const avx512vnni_target *to)
{
    const avx512vnni_width width = NARROW;
    const size_t third = runs->words / 3;
    const __m512i *b = panel;
    const __m512i add = _mm512_loadu_si512(to->columns->add);
    __m512i c0 = add, c1 = add, c2 = add, c3 = add, c4 = add, c5 = add, c6 = add, c7 = add, c8 = add, c9 = add;
    __m512i c10 = add, c11 = add, c12 = add, c13 = add, c14 = add, c15 = add;
    for (size_t run = 0; run < runs->runs; run++, b += 4 * third) {
        const uint8_t *a0 = a + runs->offset[run], *a3 = a0 + 3 * stride, *a6 = a3 + 3 * stride, *a9 = a6 + 3 * stride;
        const uint8_t *a12 = a9 + 3 * stride, *a15 = a12 + 3 * stride;
        for (size_t k = 0; k < third; k++, b += 2) {
            const __m512i w0 = _mm512_load_si512(b), w1 = _mm512_load_si512(b + 2 * third);
            const __m512i w2 = _mm512_load_si512(b + 4 * third);
            SLIDE_1(a0, c0, w0);
            SLIDE_2(a0 + stride, c1, c0, w0, w1);
            SLIDE(2, a0 + 2 * stride, c2, c1, c0);
            SLIDE(3, a3, c3, c2, c1);
            SLIDE(4, a3 + stride, c4, c3, c2);
            SLIDE(5, a3 + 2 * stride, c5, c4, c3);
            SLIDE(6, a6, c6, c5, c4);
            SLIDE(7, a6 + stride, c7, c6, c5);
            SLIDE(8, a6 + 2 * stride, c8, c7, c6);
            SLIDE(9, a9, c9, c8, c7);
            SLIDE(10, a9 + stride, c10, c9, c8);
            SLIDE(11, a9 + 2 * stride, c11, c10, c9);
            SLIDE(12, a12, c12, c11, c10);
            SLIDE(13, a12 + stride, c13, c12, c11);
            SLIDE(14, a12 + 2 * stride, c14, c13, c12);
            SLIDE(15, a15, c15, c14, c13);
            SLIDE(16, a15 + stride, c15, c15, c14);
            SLIDE(17, a15 + 2 * stride, c15, c15, c15);
            a0 += 4, a3 += 4, a6 += 4, a9 += 4, a12 += 4, a15 += 4;
        }
    }
    END_ROWS(0, rows, c0, c0, c1, c1, c2, c2, c3, c3);
    if (rows > 4) END_ROWS(4, rows - 4, c4, c4, c5, c5, c6, c6, c7, c7);
    if (rows > 8) END_ROWS(8, rows - 8, c8, c8, c9, c9, c10, c10, c11, c11);
    if (rows > 12) END_ROWS(12, rows - 12, c12, c12, c13, c13, c14, c14, c15, c15);
}

#define SLID_TILE(name, rows, end)                                                                           \
    static TARGET void avx512vnni_##name##_##rows(const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, \
                                                  const void *panel, const avx512vnni_target *to)            \
    {                                                                                                        \
        slid_tile(rows, end, runs, a, stride, panel, to);                                                    \
    }
#define SLID_TILES(rows) SLID_TILE(slid_code, rows, CODES) SLID_TILE(slid_real, rows, REALS)
SLID_TILES(3)
SLID_TILES(4)
SLID_TILES(5)
SLID_TILES(6)
SLID_TILES(7)
SLID_TILES(8)
SLID_TILES(9)
SLID_TILES(10)
SLID_TILES(11)
SLID_TILES(12)
SLID_TILES(13)
SLID_TILES(14)
SLID_TILES(15)
SLID_TILES(16)

/* Whether each row begins a third of a run after the row before. */
static inline bool rows_overlap(const ndq_gemm_runs *runs, size_t stride)
{
    return runs->words % 3 == 0 && runs->words * sizeof(ndq_gemm_word) == 3 * stride;
}

#define ALL_TILES(rows)                                                                                      \
    TILES(rows)                                                                                              \
    TILE_OF_OUTPUTS(wide_code, rows, WIDE, CODES)                                                            \
    TILE_OF_OUTPUTS(middle_code, rows, MIDDLE, CODES)                                                        \
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

#define OF_4(name, a, b, c, d)                                                                               \
    avx512vnni_##name##_##a, avx512vnni_##name##_##b, avx512vnni_##name##_##c, avx512vnni_##name##_##d
#define OF_12(name) OF_4(name, 1, 2, 3, 4), OF_4(name, 5, 6, 7, 8), OF_4(name, 9, 10, 11, 12)

/* One or two rows have too few words in common. */
#define SLID_OF(kind)                                                                                        \
    avx512vnni_narrow_##kind##_1, avx512vnni_narrow_##kind##_2, avx512vnni_slid_##kind##_3,                  \
        avx512vnni_slid_##kind##_4, OF_4(slid_##kind, 5, 6, 7, 8), OF_4(slid_##kind, 9, 10, 11, 12),         \
        OF_4(slid_##kind, 13, 14, 15, 16)

static TARGET void row_of_codes(size_t count, const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, const void *panel,
                                size_t columns, const ndq_gemm_columns *c, const ndq_gemm_stage *stage, uint8_t *out,
                                size_t out_stride)
{
    static avx512vnni_tile_of_outputs *const slid[] = {SLID_OF(code)};
    static avx512vnni_tile_of_outputs *const by_width[][ROWS] = {
        {OF_12(narrow_code)}, {OF_12(middle_code)}, {OF_12(wide_code)}};
    const ndq_stage_avx512 constants = ndq_make_stage_avx512(c, stage);
    const avx512vnni_target to = {.columns = c, .constants = &constants, .out = out, .stride = out_stride,
                                  .kept = ndq_kept_avx512(columns)};
    if (columns <= NR / 2 && rows_overlap(runs, stride))
        avx512vnni_even_tiles(slid, SLID_ROWS, count, runs, a, stride, panel, to);
    else
        avx512vnni_even_tiles(by_width[columns <= 16 ? NARROW : columns <= 24 ? MIDDLE : WIDE], ROWS, count, runs, a,
                              stride, panel, to);
}

static TARGET void row_of_reals(size_t count, const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, const void *panel,
                                size_t columns, const ndq_gemm_columns *c, const ndq_gemm_stage *stage, uint8_t *out,
                                size_t out_stride)
{
    static avx512vnni_tile_of_outputs *const slid[] = {SLID_OF(real)};
    static avx512vnni_tile_of_outputs *const by_width[][ROWS] = {{OF_12(narrow_real)}, {OF_12(wide_real)}};
    const reals constants = {_mm512_set1_ps(stage->floor), _mm512_set1_ps(stage->ceiling)};
    const avx512vnni_target to = {.columns = c, .constants = &constants, .out = out, .stride = out_stride,
                                  .kept = ndq_kept_avx512(columns)};
    if (columns <= NR / 2 && rows_overlap(runs, stride))
        avx512vnni_even_tiles(slid, SLID_ROWS, count, runs, a, stride, panel, to);
    else
        avx512vnni_even_tiles(by_width[columns > NR / 2], ROWS, count, runs, a, stride, panel, to);
}

const ndq_gemm_kernel ndq_gemm_avx512vnni = {
    .name = "avx512vnni",
    .mr = ROWS,
    .nr = NR,
    .codes_per_word = 4,
    .k_step = 4,
    .parallel_macs = 1e7,
    .expand_a = expand_u8_by_hand,
    .sums = ndq_sums_avx512,
    .pack_rows = ndq_pack_rows_avx512,
    .pack_columns = ndq_pack_columns_avx512,
    .tile = {OF_12(wide)},
    .narrow = {OF_12(narrow)},
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
