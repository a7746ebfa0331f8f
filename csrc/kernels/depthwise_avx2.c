/* Depthwise tile for AVX2, 32 channels wide.
 *
 * Everything works within the 128 bits in which AVX2 unpacks and packs: vector i of the four that make a pixel of the
 * band has channels 4 i .. 4 i + 3 in its lower half and those 16 further in its upper half. Unpacking gives this order,
 * and packing the outputs takes it back, so that nothing is permuted. */
#include "gemm.h"

#ifdef NDQ_X86
#include "columns_avx2.h"

#define NAME(x) avx2_##x
#define TARGET NDQ_TARGET_AVX2
#define NR 32
#include "gemm_plain.inc.h"

enum { VECTORS = 4, MOST = 6, PIXEL = 2 * NR * sizeof(int16_t) }; /* of a pixel; pixels of a tile; bytes */

static NDQ_TARGET_AVX2 void expand_pairs(size_t count, const ndq_depthwise_pixels *rows, bool is_signed, int32_t zero,
                                         void *pixels)
{
    const uint8_t *a = rows[0].codes, *b = rows[1].codes;
    const ptrdiff_t a_x = rows[0].stride, b_x = rows[1].stride;
    const __m256i flip = _mm256_set1_epi8(is_signed ? -128 : 0), none = _mm256_setzero_si256();
    const __m256i z = _mm256_set1_epi16((int16_t)(zero + (is_signed ? 128 : 0)));
    __m256i *out = pixels;
    for (size_t i = 0; i < count; i++, a += a_x, b += b_x, out += VECTORS) {
        const __m256i upper = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)a), flip);
        const __m256i lower = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)b), flip);
        const __m256i low = _mm256_unpacklo_epi8(upper, lower), high = _mm256_unpackhi_epi8(upper, lower);
        _mm256_store_si256(out, _mm256_sub_epi16(_mm256_unpacklo_epi8(low, none), z));
        _mm256_store_si256(out + 1, _mm256_sub_epi16(_mm256_unpackhi_epi8(low, none), z));
        _mm256_store_si256(out + 2, _mm256_sub_epi16(_mm256_unpacklo_epi8(high, none), z));
        _mm256_store_si256(out + 3, _mm256_sub_epi16(_mm256_unpackhi_epi8(high, none), z));
    }
}

/* The weights in the same order. */
static void pack_pairs(size_t first, size_t count, const ndq_gemm_word *rows, size_t stride, size_t words,
                       ndq_gemm_word *panel)
{
    (void)words;
    ndq_gemm_word *out = panel + first * NR;
    for (size_t i = 0; i < count; i++, out += NR)
        for (size_t n = 0; n < NR; n++)
            out[n % 16 / 4 * 8 + n / 16 * 4 + n % 4] = rows[n * stride + i];
}

/* asm as in gemm_avx2.c: gcc would keep some of the accumulators in memory. */
#define ROW(row, low, high)                                                                                  \
    do {                                                                                                     \
        const __m256i *x_ = (const __m256i *)(x + (row) * stride);                                           \
        __m256i y_;                                                                                          \
        __asm__ volatile("vpmaddwd %[a], %[b0], %[y]\n\tvpaddd %[y], %[s0], %[s0]\n\t"                       \
                         "vpmaddwd %[b], %[b1], %[y]\n\tvpaddd %[y], %[s1], %[s1]"                           \
                         : [s0] "+x"(low), [s1] "+x"(high), [y] "=&x"(y_)                                    \
                         : [a] "m"(x_[0]), [b] "m"(x_[1]), [b0] "x"(w0), [b1] "x"(w1));                      \
    } while (0)

/* Sums of two vectors of up to 6 pixels, which begin as `low` and `high`. The accumulators are named one by one: gcc
 * keeps an array of them in memory. */
#define SUMS(rows, low, high)                                                                                \
    __m256i l0 = low, h0 = high, l1 = l0, h1 = h0, l2 = l0, h2 = h0;                                         \
    __m256i l3 = l0, h3 = h0, l4 = l0, h4 = h0, l5 = l0, h5 = h0;                                            \
    for (size_t tap = 0; tap < taps->runs; tap++, w += VECTORS) {                                            \
        const uint8_t *x = a + taps->offset[tap];                                                            \
        const __m256i w0 = _mm256_load_si256(w), w1 = _mm256_load_si256(w + 1);                              \
        ROW(0, l0, h0);                                                                                      \
        if (rows > 1) ROW(1, l1, h1);                                                                        \
        if (rows > 2) ROW(2, l2, h2);                                                                        \
        if (rows > 3) ROW(3, l3, h3);                                                                        \
        if (rows > 4) ROW(4, l4, h4);                                                                        \
        if (rows > 5) ROW(5, l5, h5);                                                                        \
    }

static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void save(__m256i sums, int32_t *acc)
{
    _mm_store_si128((__m128i *)acc, _mm256_castsi256_si128(sums));
    _mm_store_si128((__m128i *)(acc + 16), _mm256_extracti128_si256(sums, 1));
}

#define SAVE(row, low, high) (save(low, acc + NR * (row)), save(high, acc + NR * (row) + 4))

static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void
half_tile(const int rows, const ndq_gemm_runs *taps, const uint8_t *a, size_t stride, const __m256i *w, int32_t *acc)
{
    SUMS(rows, _mm256_setzero_si256(), _mm256_setzero_si256())
    SAVE(0, l0, h0);
    if (rows > 1) SAVE(1, l1, h1);
    if (rows > 2) SAVE(2, l2, h2);
    if (rows > 3) SAVE(3, l3, h3);
    if (rows > 4) SAVE(4, l4, h4);
    if (rows > 5) SAVE(5, l5, h5);
}

/* Constants of channels in the order of the accumulators, and of all channels. */
typedef struct {
    __m256i add[VECTORS];
    __m256 scale[VECTORS], inv;
    __m256i zero, lowest, highest, flip;
} constants;

static NDQ_TARGET_AVX2 void make_constants(const ndq_gemm_columns *c, const ndq_gemm_stage *stage, constants *k)
{
    for (int i = 0; i < VECTORS; i++) {
        k->add[i] = _mm256_loadu2_m128i((const __m128i *)(c->add + 4 * i + 16), (const __m128i *)(c->add + 4 * i));
        k->scale[i] = _mm256_loadu2_m128(c->scale + 4 * i + 16, c->scale + 4 * i);
    }
    k->inv = _mm256_set1_ps(stage->inv);
    k->zero = _mm256_set1_epi16(stage->moved_zero);
    k->lowest = _mm256_set1_epi8((char)stage->lowest);
    k->highest = _mm256_set1_epi8((char)stage->highest);
    k->flip = _mm256_set1_epi8((char)stage->flip);
}

/* 16 channels of one pixel, as int16 that saturate and so stay on their side of the bounds. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 __m256i codes_of(__m256i low, __m256i high, int i,
                                                                               const constants *k)
{
    const __m256 y0 = _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(low), k->scale[i]), k->inv);
    const __m256 y1 = _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(high), k->scale[i + 1]), k->inv);
    return _mm256_adds_epi16(_mm256_packs_epi32(_mm256_cvtps_epi32(y0), _mm256_cvtps_epi32(y1)), k->zero);
}

/* The codes of one pixel, from both halves of its vectors. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 __m256i bytes_of(__m256i low, __m256i high,
                                                                               const constants *k)
{
    const __m256i codes = _mm256_max_epu8(_mm256_packus_epi16(low, high), k->lowest);
    return _mm256_xor_si256(_mm256_min_epu8(codes, k->highest), k->flip);
}

/* Vectors i and i + 1 of all pixels: there are no registers for the sums of all four. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void
half_codes(const int rows, const int i, const ndq_gemm_runs *taps, const uint8_t *a, size_t stride, const __m256i *w,
           const constants *k, __m256i *codes)
{
    SUMS(rows, k->add[i], k->add[i + 1])
    codes[0] = codes_of(l0, h0, i, k);
    if (rows > 1) codes[1] = codes_of(l1, h1, i, k);
    if (rows > 2) codes[2] = codes_of(l2, h2, i, k);
    if (rows > 3) codes[3] = codes_of(l3, h3, i, k);
    if (rows > 4) codes[4] = codes_of(l4, h4, i, k);
    if (rows > 5) codes[5] = codes_of(l5, h5, i, k);
}

#define TILE(rows)                                                                                           \
    static NDQ_TARGET_AVX2 void tile_##rows(const ndq_gemm_runs *taps, const uint8_t *a, size_t stride,      \
                                            const void *panel, int32_t *acc)                                 \
    {                                                                                                        \
        half_tile(rows, taps, a, stride, panel, acc);                                                        \
        half_tile(rows, taps, a + PIXEL / 2, stride, (const __m256i *)panel + 2, acc + 8);                   \
    }                                                                                                        \
    static NDQ_TARGET_AVX2 void codes_##rows(const ndq_gemm_runs *taps, const uint8_t *a, size_t stride,     \
                                             const void *panel, size_t columns, const constants *k, uint8_t *out, \
                                             size_t out_stride)                                              \
    {                                                                                                        \
        __m256i low[rows], high[rows];                                                                       \
        half_codes(rows, 0, taps, a, stride, panel, k, low);                                                 \
        half_codes(rows, 2, taps, a + PIXEL / 2, stride, (const __m256i *)panel + 2, k, high);               \
        for (size_t row = 0; row < (rows); row++)                                                            \
            ndq_store_columns_avx2(bytes_of(low[row], high[row], k), columns, out + row * out_stride);       \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)

static NDQ_TARGET_AVX2 void code_row(size_t count, const ndq_gemm_runs *taps, const uint8_t *a, size_t stride,
                                     const void *panel, size_t columns, const ndq_gemm_columns *c,
                                     const ndq_gemm_stage *stage, uint8_t *out, size_t out_stride)
{
    void (*const tile[])(const ndq_gemm_runs *, const uint8_t *, size_t, const void *, size_t, const constants *,
                         uint8_t *, size_t) = {codes_1, codes_2, codes_3, codes_4, codes_5, codes_6};
    constants k;
    make_constants(c, stage, &k);
    for (size_t tiles = ndq_ceil_div(count, MOST); tiles > 0; tiles--) {
        const size_t rows = ndq_ceil_div(count, tiles);
        tile[rows - 1](taps, a, stride, panel, columns, &k, out, out_stride);
        count -= rows;
        a += rows * stride;
        out += rows * out_stride;
    }
}

/* ---- Windows of 3 x 3 at every second column ----
 *
 * Few windows see the same codes, so pairs of int16 in memory would take longer to make than they save. Each column is
 * unpacked once for a row of outputs, and multiplied by the weights of the one or two outputs that see it, whose sums
 * stay in registers. */

enum { TAPS = 3 };

/* Sums of one pixel, in the order of the weights. */
typedef struct {
    __m256i a, b, c, d;
} pixel_sums;

#define INLINE static inline __attribute__((always_inline)) NDQ_TARGET_AVX2
#define OF(sums, member) ((sums) ? &(sums)->member : NULL)
#define ADD_PRODUCT(sum, pairs, weights)                                                                     \
    do {                                                                                                     \
        __m256i y_;                                                                                          \
        __asm__ volatile("vpmaddwd %[w], %[p], %[y]\n\tvpaddd %[y], %[s], %[s]"                              \
                         : [s] "+x"(sum), [y] "=&x"(y_)                                                      \
                         : [p] "x"(pairs), [w] "m"(weights));                                                \
    } while (0)

/* Adds what a column contributes to the outputs of which it is the right, the middle or the left column; NULL: none. */
INLINE void add_products(__m256i pairs, const __m256i *w, __m256i *right, __m256i *middle, __m256i *left)
{
    if (right)
        ADD_PRODUCT(*right, pairs, w[2 * VECTORS]);
    if (middle)
        ADD_PRODUCT(*middle, pairs, w[VECTORS]);
    if (left)
        ADD_PRODUCT(*left, pairs, w[0]);
}

/* The same of two pixels of the column, one below the other. */
INLINE void add_pixels(__m256i upper, __m256i lower, const __m256i *w, pixel_sums *right, pixel_sums *middle,
                       pixel_sums *left)
{
    const __m256i none = _mm256_setzero_si256();
    const __m256i low = _mm256_unpacklo_epi8(upper, lower), high = _mm256_unpackhi_epi8(upper, lower);
    add_products(_mm256_unpacklo_epi8(low, none), w, OF(right, a), OF(middle, a), OF(left, a));
    add_products(_mm256_unpackhi_epi8(low, none), w + 1, OF(right, b), OF(middle, b), OF(left, b));
    add_products(_mm256_unpacklo_epi8(high, none), w + 2, OF(right, c), OF(middle, c), OF(left, c));
    add_products(_mm256_unpackhi_epi8(high, none), w + 3, OF(right, d), OF(middle, d), OF(left, d));
}

/* The columns of a row of windows that are still to come. */
typedef struct {
    const ndq_depthwise_windows *windows;
    const uint8_t *next[TAPS];
    ptrdiff_t step[TAPS];
    size_t column;
    __m256i flip;
} cursor;

/* Adds the next column. Below the third row of the window the weights are 0. */
INLINE void add_column(cursor *at, const __m256i *w, pixel_sums *right, pixel_sums *middle, pixel_sums *left)
{
    const bool is_inside = at->column - at->windows->begin < at->windows->end - at->windows->begin;
    __m256i codes[TAPS];
    for (int i = 0; i < TAPS; i++) {
        const uint8_t *pixel = is_inside ? at->next[i] : at->windows->outside;
        codes[i] = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)pixel), at->flip);
        at->next[i] += is_inside ? at->step[i] : 0;
    }
    at->column++;
    __asm__("" : "+r"(w)); /* or gcc would keep the address of each vector in memory */
    add_pixels(codes[0], codes[1], w, right, middle, left);
    add_pixels(codes[2], codes[2], w + TAPS * VECTORS, right, middle, left);
}

static NDQ_TARGET_AVX2 void halved_row(size_t count, cursor at, const __m256i *w, size_t columns, const constants *k,
                                       uint8_t *out, size_t out_x)
{
    const pixel_sums first = {k->add[0], k->add[1], k->add[2], k->add[3]};
    pixel_sums sums = first;
    add_column(&at, w, NULL, NULL, &sums);
    for (; count > 0; count--, out += out_x) {
        pixel_sums next = first;
        add_column(&at, w, NULL, &sums, NULL);
        add_column(&at, w, &sums, NULL, &next);
        const __m256i low = codes_of(sums.a, sums.b, 0, k), high = codes_of(sums.c, sums.d, 2, k);
        ndq_store_columns_avx2(bytes_of(low, high, k), columns, out);
        sums = next;
    }
}

static NDQ_TARGET_AVX2 void halved(const ndq_depthwise_windows *windows, size_t columns, const ndq_gemm_columns *c,
                                   const ndq_gemm_stage *stage, uint8_t *out, size_t out_x, size_t out_y)
{
    constants k;
    make_constants(c, stage, &k);
    cursor at = {.windows = windows, .flip = _mm256_set1_epi8(windows->is_signed ? -128 : 0)};
    for (size_t y = 0; y < windows->rows; y++, out += out_y) {
        for (size_t i = 0; i < TAPS; i++) {
            at.next[i] = windows->row[y * windows->down + i].codes;
            at.step[i] = windows->row[y * windows->down + i].stride;
        }
        halved_row(windows->cols, at, windows->panel[0], columns, &k, out, out_x);
    }
}

const ndq_gemm_kernel ndq_depthwise_avx2 = {
    .name = "avx2_depthwise",
    .mr = MOST,
    .nr = NR,
    .codes_per_word = 2,
    .a_centred = true,
    .w_centred = true,
    .k_step = 2,
    .parallel_macs = 9e5,
    .expand_rows = expand_pairs,
    .expand_w = avx2_expand_s16,
    .sums = avx2_sums,
    .pack = pack_pairs,
    .tile = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6},
    .row = {[NDQ_GEMM_CODES] = code_row},
    .row_panels = 1,
    .windows = halved,
    .windows_across = 2,
    .windows_panels = 1,
    .store = {avx2_store_s32, avx2_store_f32, avx2_store_codes},
};
#endif
