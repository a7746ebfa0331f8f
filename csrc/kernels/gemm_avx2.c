/* GEMM tile for AVX2: int16 by int16 to int32, exact.
 *
 * vpmaddubsw would read bytes, but it saturates at 16 bits: 2 * 255 * 127 does not fit. So both operands are widened to
 * int16 and vpmaddwd adds two products into an int32 without loss. The tile is 6 rows by 16 columns: 12 accumulators,
 * 2 registers of weights, 2 for a row. */
#include "gemm.h"

#ifdef NDQ_X86
#include "conv_winograd.h"
#include "gemm_strassen.h"

#define NAME(x) avx2_##x
#define TARGET NDQ_TARGET_AVX2
#define NR 16
#include "gemm_avx2.inc.h"

/* One word of K of one row: broadcast it, multiply it by the two vectors of weights, add. As one asm statement because
 * gcc moves the six broadcasts of a step together and then spills half of the accumulators. */
#define WIDE_ROW(word, c0, c1)                                                                               \
    do {                                                                                                     \
        __m256i x_, y_;                                                                                      \
        __asm__ volatile("vpbroadcastd %[a], %[x]\n\t"                                                       \
                         "vpmaddwd %[b0], %[x], %[y]\n\t"                                                    \
                         "vpmaddwd %[b1], %[x], %[x]\n\t"                                                    \
                         "vpaddd %[y], %[s0], %[s0]\n\t"                                                     \
                         "vpaddd %[x], %[s1], %[s1]"                                                         \
                         : [s0] "+x"(c0), [s1] "+x"(c1), [x] "=&x"(x_), [y] "=&x"(y_)                        \
                         : [a] "m"(*(const ndq_gemm_word_anywhere *)(word)), [b0] "x"(w0), [b1] "x"(w1));    \
    } while (0)

/* The product in a fixed register: with one of its choice, gcc moves sums of five rows about. */
#define NARROW_ROW(word, c0)                                                                                 \
    __asm__ volatile("vpbroadcastd %[a], %%ymm15\n\t"                                                        \
                     "vpmaddwd %[b0], %%ymm15, %%ymm15\n\t"                                                  \
                     "vpaddd %%ymm15, %[s0], %[s0]"                                                          \
                     : [s0] "+x"(c0)                                                                         \
                     : [a] "m"(*(const ndq_gemm_word_anywhere *)(word)), [b0] "x"(w0)                        \
                     : "xmm15")

#define ROW(word, c0, c1)                                                                                    \
    do {                                                                                                     \
        if (wide)                                                                                            \
            WIDE_ROW(word, c0, c1);                                                                          \
        else                                                                                                 \
            NARROW_ROW(word, c0);                                                                            \
    } while (0)

/* 16 weights, from `at` vectors of them on. */
#define WEIGHTS(at)                                                                                          \
    (bytes ? _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)b + (at)))                                 \
           : _mm256_load_si256((const __m256i *)b + (at)))

#define STEP(i)                                                                                              \
    do {                                                                                                     \
        const __m256i w0 = WEIGHTS(2 * (i)), w1 = WEIGHTS(2 * (i) + 1);                                      \
        ROW(a0 + 4 * (i), c00, c01);                                                                         \
        if (rows > 1) ROW(a0 + stride + 4 * (i), c10, c11);                                                  \
        if (rows > 2) ROW(a0 + 2 * stride + 4 * (i), c20, c21);                                              \
        if (rows > 3) ROW(a3 + 4 * (i), c30, c31);                                                           \
        if (rows > 4) ROW(a3 + stride + 4 * (i), c40, c41);                                                  \
        if (rows > 5) ROW(a3 + 2 * stride + 4 * (i), c50, c51);                                              \
    } while (0)

#define FETCH(row, c0, c1)                                                                                   \
    (c0 = _mm256_load_si256((const __m256i *)(acc + 16 * (row))),                                            \
     c1 = _mm256_load_si256((const __m256i *)(acc + 16 * (row) + 8)))
#define SAVE(row, c0, c1)                                                                                    \
    (_mm256_store_si256((__m256i *)(acc + 16 * (row)), c0), _mm256_store_si256((__m256i *)(acc + 16 * (row) + 8), c1))

/* What a tile ends in: its sums, or codes of int16, each row of 16 columns or every two rows of 8, or float32. */
typedef enum { SUMS, HALVES, REALS } ending;

typedef struct {
    int32_t *acc;
    const ndq_gemm_columns *columns; /* of the others */
    const avx2_stage *constants;
    __m256i *halves;
    const avx2_reals *bounds;
    uint8_t *out; /* of rows `stride` bytes apart */
    size_t stride;
} target;

static inline float *reals_of(const target *to, size_t row)
{
    return (float *)(void *)(to->out + row * to->stride);
}

/* Rows `row` and the next, the latter only if `both`. */
#define END_ROWS(row, both, c0, c1, d0, d1)                                                                  \
    do {                                                                                                     \
        const float *scale = to->columns->scale;                                                             \
        if (end == HALVES && wide) {                                                                         \
            to->halves[row] = avx2_halves_of(c0, c1, scale, scale + 8, to->constants);                            \
            if (both)                                                                                        \
                to->halves[(row) + 1] = avx2_halves_of(d0, d1, scale, scale + 8, to->constants);                  \
        } else if (end == HALVES)                                                                            \
            to->halves[(row) / 2] = avx2_halves_of(c0, d0, scale, scale, to->constants);                          \
        else {                                                                                               \
            END_REALS(row, c0, c1);                                                                          \
            if (both)                                                                                        \
                END_REALS((row) + 1, d0, d1);                                                                \
        }                                                                                                    \
    } while (0)

#define END_REALS(row, c0, c1)                                                                               \
    do {                                                                                                     \
        float *reals = reals_of(to, row);                                                                    \
        avx2_real_columns(c0, to->columns, 0, to->bounds, reals);                                                 \
        if (wide)                                                                                            \
            avx2_real_columns(c1, to->columns, 8, to->bounds, reals);                                             \
    } while (0)

/* The accumulators are named one by one: gcc keeps an array of them in memory. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void
tile(const int rows, const bool wide, const bool bytes, const ending end, const ndq_gemm_runs *runs, const uint8_t *a,
     size_t stride, const void *panel, const target *to)
{
    int32_t *const acc = to->acc;
    const uint8_t *b = panel;
    __m256i c00 = _mm256_setzero_si256(), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00;
    __m256i c30 = c00, c31 = c00, c40 = c00, c41 = c00, c50 = c00, c51 = c00;
    if (end != SUMS) {
        const int32_t *add = to->columns->add;
        c00 = c10 = c20 = c30 = c40 = c50 = _mm256_loadu_si256((const __m256i *)add);
        c01 = c11 = c21 = c31 = c41 = c51 = _mm256_loadu_si256((const __m256i *)(add + 8));
    }
    if (end == SUMS && runs->continued) {
        FETCH(0, c00, c01);
        if (rows > 1) FETCH(1, c10, c11);
        if (rows > 2) FETCH(2, c20, c21);
        if (rows > 3) FETCH(3, c30, c31);
        if (rows > 4) FETCH(4, c40, c41);
        if (rows > 5) FETCH(5, c50, c51);
    }
    for (size_t run = 0; run < runs->runs; run++) {
        const uint8_t *a0 = a + runs->offset[run], *a3 = rows > 3 ? a0 + 3 * stride : a0;
        for (size_t k = 0; k < runs->words; k += 2) {
            STEP(0);
            STEP(1);
            a0 += 8;
            a3 += 8;
            b += bytes ? 64 : 128;
        }
    }
    if (end != SUMS) {
        END_ROWS(0, rows > 1, c00, c01, c10, c11);
        if (rows > 2) END_ROWS(2, rows > 3, c20, c21, c30, c31);
        if (rows > 4) END_ROWS(4, rows > 5, c40, c41, c50, c51);
        return;
    }
    SAVE(0, c00, c01);
    if (rows > 1) SAVE(1, c10, c11);
    if (rows > 2) SAVE(2, c20, c21);
    if (rows > 3) SAVE(3, c30, c31);
    if (rows > 4) SAVE(4, c40, c41);
    if (rows > 5) SAVE(5, c50, c51);
}

/* Panels of a convolution's weights lie one after another. */
static inline const void *next_panel(bool bytes, const ndq_gemm_runs *runs, const void *panel)
{
    return (const uint8_t *)panel + runs->runs * runs->words * NR * (bytes ? 2 : 4);
}

enum { ROWS = 6, TRIO_ROWS = 4, QUAD_ROWS = 3 };

/* All words of K, of panels of words that follow each other. */
#define ALL_WORDS(STEP)                                                                                      \
    for (size_t run = 0; run < runs->runs; run++) {                                                          \
        const uint8_t *a0 = a + runs->offset[run];                                                           \
        for (size_t k = 0; k < runs->words; k += 2) {                                                        \
            STEP(0);                                                                                         \
            STEP(1);                                                                                         \
            a0 += 8;                                                                                         \
            b += 4;                                                                                          \
        }                                                                                                    \
    }

/* One word of K of one row and three vectors of weights, of which two stay in memory. */
#define TRIO_ROW(word, c0, c1, c2)                                                                           \
    do {                                                                                                     \
        __m256i x_, y_, z_;                                                                                  \
        __asm__ volatile("vpbroadcastd %[a], %[x]\n\t"                                                       \
                         "vpmaddwd %[b0], %[x], %[y]\n\t"                                                    \
                         "vpmaddwd %[b1], %[x], %[z]\n\t"                                                    \
                         "vpmaddwd %[b2], %[x], %[x]\n\t"                                                    \
                         "vpaddd %[y], %[s0], %[s0]\n\t"                                                     \
                         "vpaddd %[z], %[s1], %[s1]\n\t"                                                     \
                         "vpaddd %[x], %[s2], %[s2]"                                                         \
                         : [s0] "+x"(c0), [s1] "+x"(c1), [s2] "+x"(c2), [x] "=&x"(x_), [y] "=&x"(y_),        \
                           [z] "=&x"(z_)                                                                     \
                         : [a] "m"(*(const ndq_gemm_word_anywhere *)(word)), [b0] "x"(w0), [b1] "m"(*w1),    \
                           [b2] "m"(*w2));                                                                   \
    } while (0)

#define TRIO_STEP(i)                                                                                         \
    do {                                                                                                     \
        const __m256i w0 = _mm256_load_si256(b + 2 * (i)), *w1 = b + 2 * (i) + 1;                            \
        const __m256i *w2 = b + 2 * (i) + panel_vectors;                                                     \
        TRIO_ROW(a0 + 4 * (i), c00, c01, c02);                                                               \
        if (rows > 1) TRIO_ROW(a0 + stride + 4 * (i), c10, c11, c12);                                        \
        if (rows > 2) TRIO_ROW(a0 + 2 * stride + 4 * (i), c20, c21, c22);                                    \
        if (rows > 3) TRIO_ROW(a0 + 3 * stride + 4 * (i), c30, c31, c32);                                    \
    } while (0)

#define END_TRIO(row, c0, c1)                                                                                \
    left[row] = avx2_halves_of(c0, c1, c->scale, c->scale + 8, constants)

/* 24 columns, of a panel and half of the next: half of a panel alone has as many loads as multiplications. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void
trio_tile(const int rows, const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, const void *panel,
          const ndq_gemm_columns *c, const avx2_stage *constants, uint8_t *out, size_t out_stride)
{
    const __m256i *b = panel;
    const size_t panel_vectors = runs->runs * runs->words * 2;
    __m256i c00 = _mm256_loadu_si256((const __m256i *)c[0].add), c10 = c00, c20 = c00, c30 = c00;
    __m256i c01 = _mm256_loadu_si256((const __m256i *)(c[0].add + 8)), c11 = c01, c21 = c01, c31 = c01;
    __m256i c02 = _mm256_loadu_si256((const __m256i *)c[1].add), c12 = c02, c22 = c02, c32 = c02;
    ALL_WORDS(TRIO_STEP)
    __m256i left[TRIO_ROWS], right[TRIO_ROWS / 2];
    END_TRIO(0, c00, c01);
    if (rows > 1) END_TRIO(1, c10, c11);
    if (rows > 2) END_TRIO(2, c20, c21);
    if (rows > 3) END_TRIO(3, c30, c31);
    right[0] = avx2_halves_of(c02, c12, c[1].scale, c[1].scale, constants);
    if (rows > 2) right[1] = avx2_halves_of(c22, c32, c[1].scale, c[1].scale, constants);
    avx2_store_halves(rows, true, left, constants, out, out_stride);
    avx2_store_halves(rows, false, right, constants, out + NR, out_stride);
}

/* One word of K of one row and four vectors of weights, of which three stay in memory. */
#define QUAD_ROW(word, c0, c1, c2, c3)                                                                       \
    do {                                                                                                     \
        __m256i x_, y_, z_;                                                                                  \
        __asm__ volatile("vpbroadcastd %[a], %[x]\n\t"                                                       \
                         "vpmaddwd %[b0], %[x], %[y]\n\t"                                                    \
                         "vpmaddwd %[b1], %[x], %[z]\n\t"                                                    \
                         "vpaddd %[y], %[s0], %[s0]\n\t"                                                     \
                         "vpmaddwd %[b2], %[x], %[y]\n\t"                                                    \
                         "vpaddd %[z], %[s1], %[s1]\n\t"                                                     \
                         "vpmaddwd %[b3], %[x], %[x]\n\t"                                                    \
                         "vpaddd %[y], %[s2], %[s2]\n\t"                                                     \
                         "vpaddd %[x], %[s3], %[s3]"                                                         \
                         : [s0] "+x"(c0), [s1] "+x"(c1), [s2] "+x"(c2), [s3] "+x"(c3), [x] "=&x"(x_),        \
                           [y] "=&x"(y_), [z] "=&x"(z_)                                                      \
                         : [a] "m"(*(const ndq_gemm_word_anywhere *)(word)), [b0] "x"(w0), [b1] "m"(*w1),    \
                           [b2] "m"(*w2), [b3] "m"(w2[1]));                                                  \
    } while (0)

#define QUAD_STEP(i)                                                                                         \
    do {                                                                                                     \
        const __m256i w0 = _mm256_load_si256(b + 2 * (i)), *w1 = b + 2 * (i) + 1;                            \
        const __m256i *w2 = b + 2 * (i) + panel_vectors;                                                     \
        QUAD_ROW(a0 + 4 * (i), c00, c01, c02, c03);                                                          \
        if (rows > 1) QUAD_ROW(a0 + stride + 4 * (i), c10, c11, c12, c13);                                   \
        if (rows > 2) QUAD_ROW(a0 + 2 * stride + 4 * (i), c20, c21, c22, c23);                               \
    } while (0)

#define END_QUAD(row, c0, c1, c2, c3)                                                                        \
    do {                                                                                                     \
        const ndq_gemm_columns *left = to->columns, *right = left + 1;                                       \
        if (end == HALVES) {                                                                                 \
            const __m256i first = avx2_halves_of(c0, c1, left->scale, left->scale + 8, to->constants);            \
            const __m256i second = avx2_halves_of(c2, c3, right->scale, right->scale + 8, to->constants);         \
            _mm256_storeu_si256((__m256i *)(to->out + (row) * to->stride),                                   \
                                avx2_two_rows(first, second, to->constants));                                \
        } else {                                                                                             \
            float *reals = reals_of(to, row);                                                                \
            avx2_real_columns(c0, left, 0, to->bounds, reals);                                                    \
            avx2_real_columns(c1, left, 8, to->bounds, reals);                                                    \
            avx2_real_columns(c2, right, 0, to->bounds, reals + NR);                                              \
            avx2_real_columns(c3, right, 8, to->bounds, reals + NR);                                              \
        }                                                                                                    \
    } while (0)

/* 32 columns, of two panels: as many sums as of 16 columns of six rows, and as many products by fewer instructions. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void
quad_tile(const int rows, const ending end, const ndq_gemm_runs *runs, const uint8_t *a, size_t stride,
          const void *panel, const target *to)
{
    const __m256i *b = panel;
    const ndq_gemm_columns *c = to->columns;
    const size_t panel_vectors = runs->runs * runs->words * 2;
    __m256i c00 = _mm256_loadu_si256((const __m256i *)c[0].add), c10 = c00, c20 = c00;
    __m256i c01 = _mm256_loadu_si256((const __m256i *)(c[0].add + 8)), c11 = c01, c21 = c01;
    __m256i c02 = _mm256_loadu_si256((const __m256i *)c[1].add), c12 = c02, c22 = c02;
    __m256i c03 = _mm256_loadu_si256((const __m256i *)(c[1].add + 8)), c13 = c03, c23 = c03;
    ALL_WORDS(QUAD_STEP)
    END_QUAD(0, c00, c01, c02, c03);
    if (rows > 1) END_QUAD(1, c10, c11, c12, c13);
    if (rows > 2) END_QUAD(2, c20, c21, c22, c23);
}

#define MANY(rows)                                                                                           \
    static NDQ_TARGET_AVX2 void many_##rows(size_t count, const ndq_gemm_runs *runs, const uint8_t *a,       \
                                            size_t a_step, size_t stride, const void *panels, int32_t *acc)  \
    {                                                                                                        \
        const ptrdiff_t offset = 0;                                                                          \
        const ndq_gemm_runs run = {.runs = 1, .words = runs->words, .offset = &offset};                      \
        for (; count > 0; count--, a += a_step, acc += 6 * NR) {                                             \
            tile(rows, true, false, SUMS, &run, a, stride, panels, &(target){.acc = acc});                   \
            panels = next_panel(false, &run, panels);                                                        \
        }                                                                                                    \
    }
#define TILE(name, rows, wide, bytes)                                                                        \
    static NDQ_TARGET_AVX2 void name##_##rows(const ndq_gemm_runs *runs, const uint8_t *a, size_t stride,    \
                                              const void *panel, int32_t *acc)                               \
    {                                                                                                        \
        tile(rows, wide, bytes, SUMS, runs, a, stride, panel, &(target){.acc = acc});                        \
    }

/* Outputs of any number of tiles, below each other: a call takes as long as the sums of eight codes. Constants are
 * those of codes, avx2_stage, or of float32, avx2_reals. */
typedef void tiles_of_rows(size_t tiles, const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, const void *panel,
                           const ndq_gemm_columns *c, const void *constants, uint8_t *out, size_t out_stride);

#define TILES_OF_ROWS(name, rows)                                                                            \
    static NDQ_TARGET_AVX2 void name##_##rows(size_t tiles, const ndq_gemm_runs *runs, const uint8_t *a,     \
                                              size_t stride, const void *panel, const ndq_gemm_columns *c,   \
                                              const void *constants, uint8_t *out, size_t out_stride)        \
    {                                                                                                        \
        for (; tiles > 0; tiles--, a += (rows) * stride, out += (rows) * out_stride)                         \
            name##_tile_##rows(runs, a, stride, panel, c, constants, out, out_stride);                       \
    }
#define TILE_OF_ROWS(attributes, name, rows)                                                                 \
    static attributes NDQ_TARGET_AVX2 void name##_tile_##rows(                                               \
        const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, const void *panel, const ndq_gemm_columns *c, \
        const void *constants, uint8_t *out, size_t out_stride)
#define INLINED inline __attribute__((always_inline))

#define CODE_TILES(name, rows, wide, bytes)                                                                  \
    TILE_OF_ROWS(INLINED, name##_code, rows)                                                                 \
    {                                                                                                        \
        __m256i halves[rows];                                                                                \
        const target to = {.columns = c, .constants = constants, .halves = halves};                          \
        tile(rows, wide, bytes, HALVES, runs, a, stride, panel, &to);                                        \
        avx2_store_halves(rows, wide, halves, constants, out, out_stride);                                         \
    }                                                                                                        \
    TILES_OF_ROWS(name##_code, rows)
#define REAL_TILES(name, rows, wide, bytes)                                                                  \
    TILE_OF_ROWS(INLINED, name##_real, rows)                                                                 \
    {                                                                                                        \
        const target to = {.columns = c, .bounds = constants, .out = out, .stride = out_stride};             \
        tile(rows, wide, bytes, REALS, runs, a, stride, panel, &to);                                         \
    }                                                                                                        \
    TILES_OF_ROWS(name##_real, rows)
/* `field` of the target is where the constants of such an ending are. */
#define QUADS(name, rows, end, field)                                                                        \
    TILE_OF_ROWS(INLINED, name, rows)                                                                        \
    {                                                                                                        \
        const target to = {.columns = c, .field = constants, .out = out, .stride = out_stride};              \
        quad_tile(rows, end, runs, a, stride, panel, &to);                                                   \
    }                                                                                                        \
    TILES_OF_ROWS(name, rows)
/* Not inlined: with a loop over tiles in the same function, gcc moves sums about. */
#define TRIOS(rows)                                                                                          \
    TILE_OF_ROWS(__attribute__((noinline)), trio, rows)                                                      \
    {                                                                                                        \
        trio_tile(rows, runs, a, stride, panel, c, constants, out, out_stride);                              \
    }                                                                                                        \
    TILES_OF_ROWS(trio, rows)
#define TILES(rows)                                                                                          \
    TILE(wide, rows, true, false)                                                                            \
    TILE(narrow, rows, false, false)                                                                         \
    MANY(rows)                                                                                               \
    TILE(wide_bytes, rows, true, true)                                                                       \
    TILE(narrow_bytes, rows, false, true)                                                                    \
    CODE_TILES(wide, rows, true, false)                                                                      \
    CODE_TILES(narrow, rows, false, false)                                                                   \
    CODE_TILES(wide_bytes, rows, true, true)                                                                 \
    CODE_TILES(narrow_bytes, rows, false, true)                                                              \
    REAL_TILES(wide, rows, true, false)                                                                      \
    REAL_TILES(narrow, rows, false, false)                                                                   \
    REAL_TILES(wide_bytes, rows, true, true)                                                                 \
    REAL_TILES(narrow_bytes, rows, false, true)
TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILES(5)
TILES(6)
TRIOS(1)
TRIOS(2)
TRIOS(3)
TRIOS(4)
QUADS(quad_code, 1, HALVES, constants)
QUADS(quad_code, 2, HALVES, constants)
QUADS(quad_code, 3, HALVES, constants)
QUADS(quad_real, 1, REALS, bounds)
QUADS(quad_real, 2, REALS, bounds)
QUADS(quad_real, 3, REALS, bounds)

#define OF_3(name) name##_1, name##_2, name##_3
#define OF_6(name) OF_3(name), name##_4, name##_5, name##_6

/* Rows in tiles of at most so many, all of about equal size. */
static inline void even_tiles(tiles_of_rows *const *by_rows, size_t most, size_t count, const ndq_gemm_runs *runs,
                              const uint8_t *a, size_t stride, const void *panel, const ndq_gemm_columns *c,
                              const void *constants, uint8_t *out, size_t out_stride)
{
    const size_t tiles = ndq_ceil_div(count, most), rows = ndq_ceil_div(count, tiles);
    const size_t larger = count - tiles * (rows - 1), done = larger * rows;
    by_rows[rows - 1](larger, runs, a, stride, panel, c, constants, out, out_stride);
    if (larger < tiles)
        by_rows[rows - 2](tiles - larger, runs, a + done * stride, stride, panel, c, constants, out + done * out_stride,
                          out_stride);
}

/* Columns of one panel, of outputs of `size` bytes. Some of a vector are stored by way of memory of their own. */
static inline __attribute__((always_inline)) void
panel_of_outputs(tiles_of_rows *const *by_rows, const size_t size, size_t count, const ndq_gemm_runs *runs,
                 const uint8_t *a, size_t stride, const void *panel, size_t columns, const ndq_gemm_columns *c,
                 const void *constants, uint8_t *out, size_t out_stride)
{
    enum { MOST = 16 * ROWS };
    _Alignas(NDQ_ALIGN) uint8_t some[MOST * NR * sizeof(float)];
    if (columns % (NR / 2) == 0) {
        even_tiles(by_rows, ROWS, count, runs, a, stride, panel, c, constants, out, out_stride);
        return;
    }
    for (size_t left = ndq_ceil_div(count, MOST); left > 0; left--) {
        const size_t rows = ndq_ceil_div(count, left);
        even_tiles(by_rows, ROWS, rows, runs, a, stride, panel, c, constants, some, NR * size);
        ndq_copy_columns(rows, columns, size, some, NR * size, out, (ptrdiff_t)out_stride);
        count -= rows;
        a += rows * stride;
        out += rows * out_stride;
    }
}

/* Columns of row_panels panels. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void
row_of_outputs(const bool bytes, const ending end, size_t count, const ndq_gemm_runs *runs, const uint8_t *a,
               size_t stride, const void *panel, size_t columns, const ndq_gemm_columns *c, const void *constants,
               uint8_t *out, size_t out_stride)
{
    static tiles_of_rows *const one[2][2][2][ROWS] = {
        {{{OF_6(narrow_code)}, {OF_6(wide_code)}}, {{OF_6(narrow_bytes_code)}, {OF_6(wide_bytes_code)}}},
        {{{OF_6(narrow_real)}, {OF_6(wide_real)}}, {{OF_6(narrow_bytes_real)}, {OF_6(wide_bytes_real)}}}};
    static tiles_of_rows *const trio[TRIO_ROWS] = {OF_3(trio), trio_4};
    static tiles_of_rows *const quad[2][QUAD_ROWS] = {{OF_3(quad_code)}, {OF_3(quad_real)}};
    const bool real = end == REALS;
    const size_t size = real ? sizeof(float) : sizeof(uint8_t);
    if (!bytes && columns == 2 * NR)
        even_tiles(quad[real], QUAD_ROWS, count, runs, a, stride, panel, c, constants, out, out_stride);
    else if (!bytes && !real && columns == NR + NR / 2)
        even_tiles(trio, TRIO_ROWS, count, runs, a, stride, panel, c, constants, out, out_stride);
    else
        for (size_t first = 0; first < columns; first += NR, c++, panel = next_panel(bytes, runs, panel)) {
            const size_t left = ndq_min_size(columns - first, NR);
            panel_of_outputs(one[real][bytes][left > NR / 2], size, count, runs, a, stride, panel, left, c, constants,
                             out + first * size, out_stride);
        }
}

static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void
code_row(const bool bytes, size_t count, const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, const void *panel,
         size_t columns, const ndq_gemm_columns *c, const ndq_gemm_stage *stage, uint8_t *out, size_t out_stride)
{
    const avx2_stage constants = avx2_make_stage(stage);
    row_of_outputs(bytes, HALVES, count, runs, a, stride, panel, columns, c, &constants, out, out_stride);
}

static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void
real_row(const bool bytes, size_t count, const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, const void *panel,
         size_t columns, const ndq_gemm_columns *c, const ndq_gemm_stage *stage, uint8_t *out, size_t out_stride)
{
    const avx2_reals bounds = {_mm256_set1_ps(stage->floor), _mm256_set1_ps(stage->ceiling)};
    row_of_outputs(bytes, REALS, count, runs, a, stride, panel, columns, c, &bounds, out, out_stride);
}

#define ROW_OF(kind, name, bytes)                                                                            \
    static NDQ_TARGET_AVX2 void kind##_##name(size_t count, const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, \
                                              const void *panel, size_t columns, const ndq_gemm_columns *c,  \
                                              const ndq_gemm_stage *stage, uint8_t *out, size_t out_stride)  \
    {                                                                                                        \
        kind(bytes, count, runs, a, stride, panel, columns, c, stage, out, out_stride);                      \
    }
ROW_OF(code_row, words, false)
ROW_OF(code_row, bytes, true)
ROW_OF(real_row, words, false)
ROW_OF(real_row, bytes, true)

/* The codes of a panel in pairs, each of which would be a word of int16: words of four are transposed, then the first
 * pairs of 16 columns put before the second. */
static NDQ_TARGET_AVX2 void pack_pairs(size_t first, size_t count, const ndq_gemm_word *rows, size_t stride, size_t words,
                                       ndq_gemm_word *panel)
{
    const __m256i apart = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9, 12,
                                           13, 2, 3, 6, 7, 10, 11, 14, 15);
    avx2_pack_transposed(first / 2, count / 2, rows, stride, words / 2, panel);
    __m256i *out = (__m256i *)(panel + first / 2 * NR);
    for (size_t i = 0; i < count / 2; i++, out += 2) {
        const __m256i low = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(out[0], apart), 0xd8);
        const __m256i high = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(out[1], apart), 0xd8);
        out[0] = _mm256_permute2x128_si256(low, high, 0x20);
        out[1] = _mm256_permute2x128_si256(low, high, 0x31);
    }
}

/* ---- A single row by panels of bytes ----
 *
 * It is as fast as the bytes come, so they are not widened. Codes of the row, as u8, are split into 4 low and 4 high bits,
 * each of which is multiplied by vpmaddubsw without saturating; eight such sums of two products fit 16 bits:
 * 8 * 2 * 15 * 128 < 2^15. Low and high sums side by side are then multiplied by 1 and 16, and added. */

enum { ROW_STEPS = 8 }; /* pairs of codes whose products are added in 16 bits */
_Static_assert(ROW_STEPS * 2 * 15 * 128 <= INT16_MAX, "sums of a group fit 16 bits");

/* Two codes become four bytes of low bits, then four of high bits: each pair twice, as a lane of 32 bits needs it. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void split_16(__m128i codes, uint8_t *out)
{
    const __m128i low = _mm_and_si128(codes, _mm_set1_epi8(15));
    const __m128i high = _mm_and_si128(_mm_srli_epi16(codes, 4), _mm_set1_epi8(15));
    const __m128i low0 = _mm_unpacklo_epi16(low, low), low1 = _mm_unpackhi_epi16(low, low);
    const __m128i high0 = _mm_unpacklo_epi16(high, high), high1 = _mm_unpackhi_epi16(high, high);
    _mm_store_si128((__m128i *)out, _mm_unpacklo_epi32(low0, high0));
    _mm_store_si128((__m128i *)(out + 16), _mm_unpackhi_epi32(low0, high0));
    _mm_store_si128((__m128i *)(out + 32), _mm_unpacklo_epi32(low1, high1));
    _mm_store_si128((__m128i *)(out + 48), _mm_unpackhi_epi32(low1, high1));
}

/* Pads with zeros to 16 codes, which are a whole cache line of the row. */
static NDQ_TARGET_AVX2 void expand_halves(size_t K, const uint8_t *codes, bool is_signed, void *row)
{
    const __m128i flip = _mm_set1_epi8(is_signed ? -128 : 0);
    uint8_t last[16] = {0};
    size_t k = 0;
    for (; k + 16 <= K; k += 16)
        split_16(_mm_xor_si128(_mm_loadu_si128((const __m128i *)(codes + k)), flip), (uint8_t *)row + 4 * k);
    if (k == K)
        return;
    for (size_t i = 0; k + i < K; i++)
        last[i] = codes[k + i] ^ (is_signed ? 0x80 : 0);
    split_16(_mm_loadu_si128((const __m128i *)last), (uint8_t *)row + 4 * k);
}

/* asm for the reason given above: gcc would add in another order, and spill. */
#define MULTIPLY_PAIR(low, high)                                                                             \
    __asm__ volatile("vpmaddubsw %[b], %[l], %[sl]\n\t"                                                      \
                     "vpmaddubsw %[b], %[h], %[sh]"                                                          \
                     : [sl] "=&x"(low), [sh] "=&x"(high)                                                     \
                     : [l] "x"(low_bits), [h] "x"(high_bits), [b] "x"(weights))

#define ADD_PAIR(low, high)                                                                                  \
    do {                                                                                                     \
        __m256i x_, y_;                                                                                      \
        __asm__ volatile("vpmaddubsw %[b], %[l], %[x]\n\t"                                                   \
                         "vpmaddubsw %[b], %[h], %[y]\n\t"                                                   \
                         "vpaddw %[x], %[sl], %[sl]\n\t"                                                     \
                         "vpaddw %[y], %[sh], %[sh]"                                                         \
                         : [sl] "+x"(low), [sh] "+x"(high), [x] "=&x"(x_), [y] "=&x"(y_)                     \
                         : [l] "x"(low_bits), [h] "x"(high_bits), [b] "x"(weights));                         \
    } while (0)

#define WORD_OF_PANEL(OPERATION, from, low, high)                                                            \
    do {                                                                                                     \
        const __m256i weights = _mm256_load_si256((const __m256i *)(from));                                  \
        OPERATION(low, high);                                                                                \
    } while (0)

#define WORD_OF_ROW(OPERATION, i)                                                                            \
    do {                                                                                                     \
        const __m256i low_bits = _mm256_set1_epi32((int32_t)row[2 * (i)]);                                   \
        const __m256i high_bits = _mm256_set1_epi32((int32_t)row[2 * (i) + 1]);                              \
        WORD_OF_PANEL(OPERATION, b0 + 32 * (i), low0, high0);                                                \
        if (panels > 1) WORD_OF_PANEL(OPERATION, b0 + panel_bytes + 32 * (i), low1, high1);                  \
        if (panels > 2) WORD_OF_PANEL(OPERATION, b2 + 32 * (i), low2, high2);                                \
        if (panels > 3) WORD_OF_PANEL(OPERATION, b2 + panel_bytes + 32 * (i), low3, high3);                  \
    } while (0)

/* Adds the sums of 16 columns to those of 32 bits: columns 0-3 and 8-11, then 4-7 and 12-15. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void add_halves(__m256i *sums, __m256i low, __m256i high)
{
    const __m256i places = _mm256_set1_epi32(1 | 16 << 16);
    sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(_mm256_unpacklo_epi16(low, high), places));
    sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(_mm256_unpackhi_epi16(low, high), places));
}

static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void
vector_tile(const int panels, size_t words, const uint8_t *expanded, const uint8_t *b0, size_t panel_bytes, int32_t *acc)
{
    const ndq_gemm_word *row = (const ndq_gemm_word *)expanded;
    const uint8_t *b2 = b0 + 2 * panel_bytes;
    __m256i *sums = (__m256i *)acc;
    const __m256i none = _mm256_setzero_si256();
    for (int i = 0; i < 2 * panels; i++)
        sums[i] = none;
    for (size_t k = 0; k < words; k += ROW_STEPS, b0 += 32 * ROW_STEPS, b2 += 32 * ROW_STEPS, row += 2 * ROW_STEPS) {
        __m256i low0, high0, low1 = none, high1 = none, low2 = none, high2 = none, low3 = none, high3 = none;
        WORD_OF_ROW(MULTIPLY_PAIR, 0);
        WORD_OF_ROW(ADD_PAIR, 1);
        if (words - k >= ROW_STEPS) {
            WORD_OF_ROW(ADD_PAIR, 2);
            WORD_OF_ROW(ADD_PAIR, 3);
            WORD_OF_ROW(ADD_PAIR, 4);
            WORD_OF_ROW(ADD_PAIR, 5);
            WORD_OF_ROW(ADD_PAIR, 6);
            WORD_OF_ROW(ADD_PAIR, 7);
        } else
            for (size_t i = 2; i < words - k; i++)
                WORD_OF_ROW(ADD_PAIR, i);
        add_halves(sums, low0, high0);
        if (panels > 1) add_halves(sums + 2, low1, high1);
        if (panels > 2) add_halves(sums + 4, low2, high2);
        if (panels > 3) add_halves(sums + 6, low3, high3);
        __asm__ volatile("" ::: "memory"); /* sums are in memory alone: there are no registers left for them */
    }
    for (int p = 0; p < panels; p++, sums += 2) {
        const __m256i first = sums[0];
        sums[0] = _mm256_permute2x128_si256(first, sums[1], 0x20);
        sums[1] = _mm256_permute2x128_si256(first, sums[1], 0x31);
    }
}

#define VECTOR_TILE(panels)                                                                                     \
    static NDQ_TARGET_AVX2 void vector_##panels(size_t words, const uint8_t *row, const uint8_t *b, size_t panel_bytes, \
                                             int32_t *acc)                                                   \
    {                                                                                                        \
        vector_tile(panels, words, row, b, panel_bytes, acc);                                                   \
    }
VECTOR_TILE(1)
VECTOR_TILE(2)
VECTOR_TILE(3)
VECTOR_TILE(4)

/* ---- The image that a network begins with ---- */

/* Bytes of 16 pixels of three planes, each of which is shuffled to its places in each vector of the result. */
static NDQ_TARGET_AVX2 void join_3(size_t count, const uint8_t *in, ptrdiff_t in_c, uint8_t *pixels)
{
    enum { PLANES = 3, PIXELS = 16, NO = 0x80 };
    static const uint8_t place[PLANES][PLANES][PIXELS] = {
        {{0, NO, NO, 1, NO, NO, 2, NO, NO, 3, NO, NO, 4, NO, NO, 5},
         {NO, 0, NO, NO, 1, NO, NO, 2, NO, NO, 3, NO, NO, 4, NO, NO},
         {NO, NO, 0, NO, NO, 1, NO, NO, 2, NO, NO, 3, NO, NO, 4, NO}},
        {{NO, NO, 6, NO, NO, 7, NO, NO, 8, NO, NO, 9, NO, NO, 10, NO},
         {5, NO, NO, 6, NO, NO, 7, NO, NO, 8, NO, NO, 9, NO, NO, 10},
         {NO, 5, NO, NO, 6, NO, NO, 7, NO, NO, 8, NO, NO, 9, NO, NO}},
        {{NO, 11, NO, NO, 12, NO, NO, 13, NO, NO, 14, NO, NO, 15, NO, NO},
         {NO, NO, 11, NO, NO, 12, NO, NO, 13, NO, NO, 14, NO, NO, 15, NO},
         {10, NO, NO, 11, NO, NO, 12, NO, NO, 13, NO, NO, 14, NO, NO, 15}}};
    size_t x = 0;
    for (; x + PIXELS <= count; x += PIXELS, pixels += PLANES * PIXELS) {
        const __m128i a = _mm_loadu_si128((const __m128i *)(in + x));
        const __m128i b = _mm_loadu_si128((const __m128i *)(in + in_c + x));
        const __m128i c = _mm_loadu_si128((const __m128i *)(in + 2 * in_c + x));
        for (int v = 0; v < PLANES; v++) {
            const __m128i *to = (const __m128i *)place[v];
            const __m128i first = _mm_shuffle_epi8(a, _mm_loadu_si128(to));
            const __m128i second = _mm_shuffle_epi8(b, _mm_loadu_si128(to + 1));
            const __m128i third = _mm_shuffle_epi8(c, _mm_loadu_si128(to + 2));
            _mm_storeu_si128((__m128i *)(pixels + PIXELS * v), _mm_or_si128(_mm_or_si128(first, second), third));
        }
    }
    for (; x < count; x++, pixels += PLANES)
        for (int plane = 0; plane < PLANES; plane++)
            pixels[plane] = in[(ptrdiff_t)x + plane * in_c];
}

#define KERNEL                                                                                               \
    .mr = 6, .nr = NR, .codes_per_word = 2, .a_centred = true, .w_centred = true, .k_step = 4,               \
    .winograd = &ndq_winograd_avx2, .strassen = &ndq_strassen_avx2, .block_words = 1024,                     \
    .parallel_macs = 2.4e6, .sums = avx2_sums_both, .expand_a = avx2_expand_s16_by_hand, .join_3 = join_3,   \
    .store = {avx2_store_s32, avx2_store_f32, avx2_store_codes_by_hand}

const ndq_gemm_kernel ndq_gemm_avx2 = {
    KERNEL,
    .name = "avx2",
    .special = &ndq_gemm_avx2_small,
    .expand_w = avx2_expand_s16_by_hand,
    .pack = avx2_pack_transposed,
    .pack_rows = ndq_pack_rows_avx2,
    .tile = {wide_1, wide_2, wide_3, wide_4, wide_5, wide_6},
    .narrow = {narrow_1, narrow_2, narrow_3, narrow_4, narrow_5, narrow_6},
    .many = {many_1, many_2, many_3, many_4, many_5, many_6},
    .row = {[NDQ_GEMM_F32] = real_row_words, [NDQ_GEMM_CODES] = code_row_words},
    .row_panels = 2,
};

/* For weights that would not stay in an L2 cache as int16, and are bytes once they are centred. */
const ndq_gemm_kernel ndq_gemm_avx2_bytes = {
    KERNEL,
    .name = "avx2_bytes",
    .lowest_weight = INT8_MIN,
    .largest_weight = INT8_MAX,
    .least_codes = 128 * 1024,
    .byte_panels = true,
    .expand_w = avx2_expand_centred_s8,
    .extremes = avx2_extremes,
    .pack = pack_pairs,
    .tile = {wide_bytes_1, wide_bytes_2, wide_bytes_3, wide_bytes_4, wide_bytes_5, wide_bytes_6},
    .narrow = {narrow_bytes_1, narrow_bytes_2, narrow_bytes_3, narrow_bytes_4, narrow_bytes_5, narrow_bytes_6},
    .row = {[NDQ_GEMM_F32] = real_row_bytes, [NDQ_GEMM_CODES] = code_row_bytes},
    .row_panels = 2,
    .vector_tile = {vector_1, vector_2, vector_3, vector_4},
    .expand_vector = expand_halves,
    .vector_bytes = 4,
};
#endif
