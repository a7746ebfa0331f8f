/* GEMM tile for AMX: 32 rows by 32 columns in four tiles of sums, two of rows, two of weights. 64 codes of K at a time:
 * rows are read where they are, and a panel has two tiles of weights for each step, [16 words][16 columns] of four codes.
 * Codes of either sign are multiplied as they are. A single row is left to VNNI, in the same format. */
#include "gemm.h"

#ifdef NDQ_X86
#include "amx_tiles.h"

#include <immintrin.h>

#define NAME(x) amx_##x
#ifdef NDQ_EMULATE
#define TARGET NDQ_TARGET_AVX2
#define STORE_CODES amx_store_codes
#else
#include "store_avx512.h"
#define TARGET NDQ_TARGET_AVX512 /* every processor with AMX has it */
#define STORE_CODES ndq_store_codes_avx512
#endif
#define NR 32
#include "gemm_plain.inc.h"

enum { HALF = 16, STEP_WORDS = 16, STEP_CODES = 64 };

/* Sums are tiles 0 to 3: above left and right, then below; rows are 4 and 5; weights 6 and 7. Loading the configuration
 * costs as much as some products, so it stays from tile to tile of a call if they have the same rows. */
static _Thread_local size_t configured_rows;

static void enter(void)
{
    configured_rows = 0;
}

/* Whatever else in this process uses tiles finds none configured, and a thread that has none is switched faster. */
static void leave(void)
{
    if (configured_rows)
        NDQ_TILE_RELEASE();
    configured_rows = 0;
}

static __attribute__((noinline)) void configure(size_t rows)
{
    const uint8_t above = (uint8_t)ndq_min_size(rows, HALF), below = (uint8_t)(rows - above);
    const uint8_t tile_rows[NDQ_TILES] = {above, above, below, below, above, below, HALF, HALF};
    ndq_tile_config config = {.palette = 1};
    for (int t = 0; t < NDQ_TILES; t++) {
        config.rows[t] = tile_rows[t];
        config.row_bytes[t] = tile_rows[t] ? NDQ_TILE_ROW_BYTES : 0;
    }
    NDQ_TILE_CONFIGURE(&config);
    configured_rows = rows;
}

/* Weights stay in L1, rows pass through it. */
#define MULTIPLY(signs)                                                                                      \
    static inline __attribute__((always_inline)) void multiply_##signs(                                      \
        const bool below, const bool wide, const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, const uint8_t *b) \
    {                                                                                                        \
        for (size_t run = 0; run < runs->runs; run++) {                                                      \
            const uint8_t *x = a + runs->offset[run];                                                        \
            for (size_t k = 0; k < runs->words; k += STEP_WORDS, x += STEP_CODES, b += 2 * NDQ_TILE_BYTES) { \
                NDQ_TILE_LOAD(6, b, NDQ_TILE_ROW_BYTES);                                                     \
                NDQ_TILE_LOAD_ONCE(4, x, stride);                                                            \
                NDQ_TILE_DOT(signs, 0, 4, 6);                                                                \
                if (wide) {                                                                                  \
                    NDQ_TILE_LOAD(7, b + NDQ_TILE_BYTES, NDQ_TILE_ROW_BYTES);                                \
                    NDQ_TILE_DOT(signs, 1, 4, 7);                                                            \
                }                                                                                            \
                if (below) {                                                                                 \
                    NDQ_TILE_LOAD_ONCE(5, x + HALF * stride, stride);                                        \
                    NDQ_TILE_DOT(signs, 2, 5, 6);                                                            \
                }                                                                                            \
                if (below && wide)                                                                           \
                    NDQ_TILE_DOT(signs, 3, 5, 7);                                                            \
            }                                                                                                \
        }                                                                                                    \
    }
MULTIPLY(uu)
MULTIPLY(us)
MULTIPLY(su)
MULTIPLY(ss)

#define BEGIN(t, from)                                                                                       \
    do {                                                                                                     \
        if (runs->continued)                                                                                 \
            NDQ_TILE_LOAD(t, from, NR * sizeof(*acc));                                                       \
        else                                                                                                 \
            NDQ_TILE_ZERO(t);                                                                                \
    } while (0)

static inline __attribute__((always_inline)) void tile(const bool below, const bool wide, const ndq_gemm_runs *runs,
                                                       const uint8_t *a, size_t stride, const void *panel, int32_t *acc)
{
    int32_t *const acc_below = acc + HALF * NR;
    BEGIN(0, acc);
    if (wide)
        BEGIN(1, acc + HALF);
    if (below)
        BEGIN(2, acc_below);
    if (below && wide)
        BEGIN(3, acc_below + HALF);
    if (runs->a_signed && runs->w_signed)
        multiply_ss(below, wide, runs, a, stride, panel);
    else if (runs->a_signed)
        multiply_su(below, wide, runs, a, stride, panel);
    else if (runs->w_signed)
        multiply_us(below, wide, runs, a, stride, panel);
    else
        multiply_uu(below, wide, runs, a, stride, panel);
    NDQ_TILE_STORE(0, acc, NR * sizeof(*acc));
    if (wide)
        NDQ_TILE_STORE(1, acc + HALF, NR * sizeof(*acc));
    if (below)
        NDQ_TILE_STORE(2, acc_below, NR * sizeof(*acc));
    if (below && wide)
        NDQ_TILE_STORE(3, acc_below + HALF, NR * sizeof(*acc));
}

#define SHAPE(name, below, wide)                                                                             \
    static void name(const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, const void *panel, int32_t *acc) \
    {                                                                                                        \
        tile(below, wide, runs, a, stride, panel, acc);                                                      \
    }
SHAPE(above_wide, false, true)
SHAPE(above_narrow, false, false)
SHAPE(both_wide, true, true)
SHAPE(both_narrow, true, false)

#define TILE(name, rows)                                                                                     \
    static void amx_##name##_##rows(const ndq_gemm_runs *runs, const uint8_t *a, size_t stride,              \
                                    const void *panel, int32_t *acc)                                         \
    {                                                                                                        \
        if (configured_rows != (rows))                                                                       \
            configure(rows);                                                                                 \
        if ((rows) > HALF)                                                                                   \
            both_##name(runs, a, stride, panel, acc);                                                        \
        else                                                                                                 \
            above_##name(runs, a, stride, panel, acc);                                                       \
    }

#define EIGHT(DO, a, b, c, d, e, f, g, h) DO(a) DO(b) DO(c) DO(d) DO(e) DO(f) DO(g) DO(h)
#define ALL_ROWS(DO)                                                                                         \
    EIGHT(DO, 1, 2, 3, 4, 5, 6, 7, 8)                                                                        \
    EIGHT(DO, 9, 10, 11, 12, 13, 14, 15, 16)                                                                 \
    EIGHT(DO, 17, 18, 19, 20, 21, 22, 23, 24)                                                                \
    EIGHT(DO, 25, 26, 27, 28, 29, 30, 31, 32)
#define TILES(rows) TILE(wide, rows) TILE(narrow, rows)
ALL_ROWS(TILES)
#define WIDE(rows) amx_wide_##rows,
#define NARROW(rows) amx_narrow_##rows,

/* [words / 16][2][16 words][16 columns] */
static void pack(size_t first, size_t count, const ndq_gemm_word *rows, size_t stride, size_t words,
                 ndq_gemm_word *panel)
{
    (void)words;
    ndq_gemm_word *out = panel + first * NR;
    for (size_t i = 0; i < count; i += STEP_WORDS)
        for (size_t n = 0; n < NR; n++)
            for (size_t word = 0; word < STEP_WORDS; word++)
                out[i * NR + n / HALF * HALF * STEP_WORDS + word * HALF + n % HALF] = rows[n * stride + i + word];
}

static void expand(size_t K, const uint8_t *codes, bool is_signed, int32_t zero, void *row)
{
    (void)is_signed;
    (void)zero;
    memcpy(row, codes, K);
}

/* A single row reads all weights for one product with each: that takes no tiles, nor their configuration. VNNI multiplies
 * u8 by s8. */
#ifdef NDQ_EMULATE
typedef struct {
    int32_t sum[HALF];
} vector;

static inline vector add_dots(vector c, const uint8_t *word, const uint8_t *weights)
{
    for (size_t i = 0; i < 4 * HALF; i++)
        c.sum[i / 4] += word[i % 4] * (int8_t)weights[i];
    return c;
}

static inline void save(int32_t *to, vector c)
{
    memcpy(to, &c, sizeof(c));
}
#else
typedef __m512i vector;

/* asm for the reason given in gemm_avx2.c. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX512VNNI vector add_dots(vector c, const uint8_t *word,
                                                                                   const uint8_t *weights)
{
    const __m512i x = _mm512_set1_epi32((int32_t)*(const ndq_gemm_word_anywhere *)word);
    __asm__ volatile("vpdpbusd %[b], %[x], %[s]" : [s] "+v"(c) : [x] "v"(x), [b] "m"(*(const __m512i *)weights));
    return c;
}

static inline __attribute__((always_inline)) NDQ_TARGET_AVX512VNNI void save(int32_t *to, vector c)
{
    _mm512_store_si512(to, c);
}
#undef TARGET
#define TARGET NDQ_TARGET_AVX512VNNI
#endif

#define ADD_PANEL(c0, c1)                                                                                    \
    (c0 = add_dots(c0, row, at), c1 = add_dots(c1, row, at + NDQ_TILE_BYTES), at += panel_bytes)
#define SAVE(panel, c0, c1) (save(acc + (panel) * NR, c0), save(acc + (panel) * NR + HALF, c1))

/* The accumulators are named one by one: gcc keeps an array of them in memory. */
static inline __attribute__((always_inline)) TARGET void
vector_tile(const int panels, size_t words, const uint8_t *row, const uint8_t *b, size_t panel_bytes, int32_t *acc)
{
    vector c00 = {0}, c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00;
    for (size_t k = 0; k < words; k++, row += 4) {
        const uint8_t *at = b + k / STEP_WORDS * 2 * NDQ_TILE_BYTES + k % STEP_WORDS * NDQ_TILE_ROW_BYTES;
        ADD_PANEL(c00, c01);
        if (panels > 1) ADD_PANEL(c10, c11);
        if (panels > 2) ADD_PANEL(c20, c21);
        if (panels > 3) ADD_PANEL(c30, c31);
    }
    SAVE(0, c00, c01);
    if (panels > 1) SAVE(1, c10, c11);
    if (panels > 2) SAVE(2, c20, c21);
    if (panels > 3) SAVE(3, c30, c31);
}

#define VECTOR_TILE(panels)                                                                                  \
    static TARGET void vector_##panels(size_t words, const uint8_t *row, const uint8_t *b,                   \
                                       size_t panel_bytes, int32_t *acc)                                     \
    {                                                                                                        \
        vector_tile(panels, words, row, b, panel_bytes, acc);                                                \
    }
VECTOR_TILE(1)
VECTOR_TILE(2)
VECTOR_TILE(3)
VECTOR_TILE(4)

static void expand_vector(size_t K, const uint8_t *codes, bool is_signed, void *row)
{
    amx_expand_u8(K, codes, is_signed, 0, row);
}

const ndq_gemm_kernel ndq_gemm_amx = {
    .name = "amx",
    .mr = 32,
    .nr = NR,
    .codes_per_word = 4,
    .any_signs = true,
    .k_step = STEP_CODES,
    .block_words = 256,
    .parallel_macs = 5e7,
    .waits = true,
    .enter = enter,
    .leave = leave,
    .expand_a = expand,
    .expand_w = expand,
    .sums = amx_sums,
    .pack = pack,
    .tile = {ALL_ROWS(WIDE)},
    .narrow = {ALL_ROWS(NARROW)},
    .vector_tile = {vector_1, vector_2, vector_3, vector_4},
    .expand_vector = expand_vector,
    .vector_bytes = 1,
    .subtract_row_terms = amx_subtract_row_terms,
    .store = {amx_store_s32, amx_store_f32, STORE_CODES},
};
#endif
