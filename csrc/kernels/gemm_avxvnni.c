/* GEMM tile for AVX-VNNI, which processors without AVX-512 have: 6 rows by 16 columns in ymm registers. */
#include "gemm.h"

#ifdef NDQ_X86
#include <immintrin.h>

/* The instruction stands in asm alone, so that compilers need not know its set. */
#define NAME(x) avxvnni_##x
#define TARGET NDQ_TARGET_AVX2
#define NR 16
#include "gemm_avx2.inc.h"

#ifdef NDQ_EMULATE
/* vpdpbusd for builds that test on processors without it. Products of a u8 by an s8 fit 16 bits. */
static inline TARGET __m256i dot(__m256i c, __m256i u8, __m256i s8)
{
    const __m256i low = _mm256_set1_epi16(0xff), one = _mm256_set1_epi16(1);
    const __m256i even = _mm256_mullo_epi16(_mm256_and_si256(u8, low), _mm256_srai_epi16(_mm256_slli_epi16(s8, 8), 8));
    const __m256i odd = _mm256_mullo_epi16(_mm256_srli_epi16(u8, 8), _mm256_srai_epi16(s8, 8));
    return _mm256_add_epi32(c, _mm256_add_epi32(_mm256_madd_epi16(even, one), _mm256_madd_epi16(odd, one)));
}

#define ADD_DOT(word, c0, c1)                                                                                \
    do {                                                                                                     \
        const __m256i x_ = _mm256_set1_epi32((int32_t)*(const ndq_gemm_word_anywhere *)(word));              \
        c0 = dot(c0, x_, w0);                                                                                \
        if (width == WIDE)                                                                                            \
            c1 = dot(c1, x_, w1);                                                                            \
    } while (0)
#else
/* One asm statement for the reason given in gemm_avx2.c. */
#define ADD_DOT(word, c0, c1)                                                                                \
    do {                                                                                                     \
        __m256i x_;                                                                                          \
        if (width == WIDE)                                                                                            \
            __asm__ volatile("vpbroadcastd %[a], %[x]\n\t"                                                   \
                             "%{vex%} vpdpbusd %[b0], %[x], %[s0]\n\t"                                         \
                             "%{vex%} vpdpbusd %[b1], %[x], %[s1]"                                             \
                             : [s0] "+x"(c0), [s1] "+x"(c1), [x] "=&x"(x_)                                   \
                             : [a] "m"(*(const ndq_gemm_word_anywhere *)(word)), [b0] "x"(w0), [b1] "x"(w1)); \
        else                                                                                                 \
            __asm__ volatile("vpbroadcastd %[a], %[x]\n\t"                                                   \
                             "%{vex%} vpdpbusd %[b0], %[x], %[s0]"                                             \
                             : [s0] "+x"(c0), [x] "=&x"(x_)                                                  \
                             : [a] "m"(*(const ndq_gemm_word_anywhere *)(word)), [b0] "x"(w0));              \
    } while (0)
#endif

/* Outputs of up to four rows from their sums. */
static inline __attribute__((always_inline)) TARGET void
end_codes(const size_t rows, const bool wide, __m256i c00, __m256i c01, __m256i c10, __m256i c11, __m256i c20, __m256i c21,
          __m256i c30, __m256i c31, const float *scale, const avxvnni_stage *k, uint8_t *out, size_t stride)
{
    __m256i halves[4];
    halves[0] = wide ? avxvnni_halves_of(c00, c01, scale, scale + 8, k) : avxvnni_halves_of(c00, c10, scale, scale, k);
    if (wide ? rows > 1 : rows > 2)
        halves[1] = wide ? avxvnni_halves_of(c10, c11, scale, scale + 8, k) : avxvnni_halves_of(c20, c30, scale, scale, k);
    if (wide && rows > 2)
        halves[2] = avxvnni_halves_of(c20, c21, scale, scale + 8, k);
    if (wide && rows > 3)
        halves[3] = avxvnni_halves_of(c30, c31, scale, scale + 8, k);
    avxvnni_store_halves(rows, wide, halves, k, out, stride);
}

static inline __attribute__((always_inline)) TARGET void end_real(const bool wide, __m256i c0, __m256i c1,
                                                                  const ndq_gemm_columns *c, const avxvnni_reals *k,
                                                                  uint8_t *out)
{
    float *y = (float *)(void *)out;
    avxvnni_real_columns(c0, c, 0, k, y);
    if (wide)
        avxvnni_real_columns(c1, c, 8, k, y);
}

#define END_ROWS(row, count, c00, c01, c10, c11, c20, c21, c30, c31)                                         \
    do {                                                                                                     \
        const bool wide_ = width == WIDE;                                                                    \
        uint8_t *const out_ = to->out + (row) * to->stride;                                                  \
        if (end == CODES)                                                                                    \
            end_codes((count) < 4 ? (count) : 4, wide_, c00, c01, c10, c11, c20, c21, c30, c31,              \
                      to->columns->scale, to->constants, out_, to->stride);                                  \
        else {                                                                                               \
            end_real(wide_, c00, c01, to->columns, to->constants, out_);                                     \
            if ((count) > 1) end_real(wide_, c10, c11, to->columns, to->constants, out_ + to->stride);       \
            if ((count) > 2) end_real(wide_, c20, c21, to->columns, to->constants, out_ + 2 * to->stride);   \
            if ((count) > 3) end_real(wide_, c30, c31, to->columns, to->constants, out_ + 3 * to->stride);   \
        }                                                                                                    \
    } while (0)

#define VECTOR __m256i
#define LANES 8
#define LOAD(p) _mm256_load_si256((const __m256i *)(p))
#define STORE(p, v) _mm256_store_si256((__m256i *)(p), v)
#define ZERO _mm256_setzero_si256()
#include "gemm_vnni.inc.h"

#define ALL_TILES(rows)                                                                                      \
    TILES(rows)                                                                                              \
    TILE_OF_OUTPUTS(wide_code, rows, WIDE, CODES)                                                            \
    TILE_OF_OUTPUTS(narrow_code, rows, NARROW, CODES)                                                        \
    TILE_OF_OUTPUTS(wide_real, rows, WIDE, REALS)                                                            \
    TILE_OF_OUTPUTS(narrow_real, rows, NARROW, REALS)
ALL_TILES(1)
ALL_TILES(2)
ALL_TILES(3)
ALL_TILES(4)
ALL_TILES(5)
ALL_TILES(6)

#define OF_6(name)                                                                                           \
    {                                                                                                        \
        avxvnni_##name##_1, avxvnni_##name##_2, avxvnni_##name##_3, avxvnni_##name##_4, avxvnni_##name##_5,  \
            avxvnni_##name##_6                                                                               \
    }

enum { ROWS = 6 };

/* Whole vectors of columns go where they belong, others by way of memory of their own. */
static TARGET void row_of_outputs(avxvnni_tile_of_outputs *const (*by_width)[ROWS], size_t size, size_t count,
                                  const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, const void *panel,
                                  size_t columns, avxvnni_target to)
{
    enum { MOST = 16 * ROWS };
    _Alignas(NDQ_ALIGN) uint8_t some[MOST * NR * sizeof(float)];
    avxvnni_tile_of_outputs *const *by_rows = by_width[columns > NR / 2];
    if (columns % (NR / 2) == 0) {
        avxvnni_even_tiles(by_rows, ROWS, count, runs, a, stride, panel, to);
        return;
    }
    const avxvnni_target aside = {.columns = to.columns, .constants = to.constants, .out = some, .stride = NR * size};
    for (size_t rows; count > 0; count -= rows, a += rows * stride, to.out += rows * to.stride) {
        rows = ndq_min_size(count, MOST);
        avxvnni_even_tiles(by_rows, ROWS, rows, runs, a, stride, panel, aside);
        ndq_copy_columns(rows, columns, size, some, NR * size, to.out, (ptrdiff_t)to.stride);
    }
}

static TARGET void row_of_codes(size_t count, const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, const void *panel,
                                size_t columns, const ndq_gemm_columns *c, const ndq_gemm_stage *stage, uint8_t *out,
                                size_t out_stride)
{
    static avxvnni_tile_of_outputs *const by_width[][ROWS] = {OF_6(narrow_code), OF_6(wide_code)};
    const avxvnni_stage constants = avxvnni_make_stage(stage);
    row_of_outputs(by_width, sizeof(uint8_t), count, runs, a, stride, panel, columns,
                   (avxvnni_target){.columns = c, .constants = &constants, .out = out, .stride = out_stride});
}

static TARGET void row_of_reals(size_t count, const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, const void *panel,
                                size_t columns, const ndq_gemm_columns *c, const ndq_gemm_stage *stage, uint8_t *out,
                                size_t out_stride)
{
    static avxvnni_tile_of_outputs *const by_width[][ROWS] = {OF_6(narrow_real), OF_6(wide_real)};
    const avxvnni_reals constants = {_mm256_set1_ps(stage->floor), _mm256_set1_ps(stage->ceiling)};
    row_of_outputs(by_width, sizeof(float), count, runs, a, stride, panel, columns,
                   (avxvnni_target){.columns = c, .constants = &constants, .out = out, .stride = out_stride});
}

const ndq_gemm_kernel ndq_gemm_avxvnni = {
    .name = "avxvnni",
    .mr = ROWS,
    .nr = NR,
    .codes_per_word = 4,
    .k_step = 4,
    .block_words = 512,
    .parallel_macs = 5e6,
    .expand_a = NAME(expand_u8),
    .expand_w = NAME(expand_s8),
    .sums = NAME(sums_both),
    .pack = NAME(pack_transposed),
    .tile = OF_6(wide),
    .narrow = OF_6(narrow),
    .row = {[NDQ_GEMM_F32] = row_of_reals, [NDQ_GEMM_CODES] = row_of_codes},
    .row_panels = 1,
    .vector_tile = {NAME(vector_1), NAME(vector_2), NAME(vector_3), NAME(vector_4)},
    .narrow_vector_tile = {NAME(narrow_vector_1), NAME(narrow_vector_2), NAME(narrow_vector_3), NAME(narrow_vector_4)},
    .expand_vector = NAME(expand_vector),
    .vector_bytes = 1,
    .subtract_row_terms = NAME(subtract_row_terms),
    .store = {NAME(store_s32), NAME(store_f32), NAME(store_codes_by_hand)},
};
#endif
