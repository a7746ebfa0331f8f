/* Depthwise tile for AVX-512 VNNI, 32 channels of up to 7 outputs in registers: weights that fit a byte once centred, and
 * codes as u8, of four rows of the image in a word.
 *
 * Everything works within the 128 bits in which unpacking and packing do. Each 128 bits of codes have 16 channels, which
 * unpacking spreads over four vectors: this is the order of the quarters of the two that make a pixel, the channels of
 * each 128 bits by the first of four:
 *
 *   first vector    0  16   8  24        second vector    4  20  12  28
 *
 * so that packing the outputs takes it back, and nothing is permuted. */
#include "gemm.h"

#ifdef NDQ_X86
#include <immintrin.h>

#define NAME(x) avx512vnni_depthwise_##x
#define TARGET NDQ_TARGET_AVX512VNNI
#define NR 32
#include "gemm_plain.inc.h"

enum { VECTORS = 2, MOST = 7, MOST_SUMS = 4 }; /* of a pixel; pixels of a tile of codes, and of sums */

#define INLINE static inline __attribute__((always_inline)) TARGET

static TARGET void expand_words(size_t count, const ndq_depthwise_pixels *rows, bool is_signed, int32_t zero,
                                void *pixels)
{
    (void)zero;
    const __m512i flip = _mm512_set1_epi8(is_signed ? -128 : 0);
    const uint8_t *a = rows[0].codes, *b = rows[1].codes, *c = rows[2].codes, *d = rows[3].codes;
    const ptrdiff_t a_x = rows[0].stride, b_x = rows[1].stride, c_x = rows[2].stride, d_x = rows[3].stride;
    __m512i *out = pixels;
    for (size_t i = 0; i < count; i++, a += a_x, b += b_x, c += c_x, d += d_x, out += VECTORS) {
        const __m256i x0 = _mm256_loadu_si256((const __m256i *)a), x1 = _mm256_loadu_si256((const __m256i *)b);
        const __m256i x2 = _mm256_loadu_si256((const __m256i *)c), x3 = _mm256_loadu_si256((const __m256i *)d);
        const __m512i upper = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_unpacklo_epi8(x0, x1)),
                                                 _mm256_unpackhi_epi8(x0, x1), 1);
        const __m512i lower = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_unpacklo_epi8(x2, x3)),
                                                 _mm256_unpackhi_epi8(x2, x3), 1);
        _mm512_storeu_si512(out, _mm512_xor_si512(_mm512_unpacklo_epi16(upper, lower), flip));
        _mm512_storeu_si512(out + 1, _mm512_xor_si512(_mm512_unpackhi_epi16(upper, lower), flip));
    }
}

/* Where the words of a channel are in a pixel. */
static size_t place_of(size_t n)
{
    const size_t quarter = n / 8 % 2 * 2 + n / 16;
    return n / 4 % 2 * 16 + quarter * 4 + n % 4;
}

static void pack_words(size_t first, size_t count, const ndq_gemm_word *rows, size_t stride, size_t words,
                       ndq_gemm_word *panel)
{
    (void)words;
    ndq_gemm_word *out = panel + first * NR;
    for (size_t i = 0; i < count; i++, out += NR)
        for (size_t n = 0; n < NR; n++)
            out[place_of(n)] = rows[n * stride + i];
}

#define EACH_OUTPUT(DO)                                                                                      \
    DO(0, l0, h0);                                                                                           \
    if (outputs > 1) DO(1, l1, h1);                                                                          \
    if (outputs > 2) DO(2, l2, h2);                                                                          \
    if (outputs > 3) DO(3, l3, h3);                                                                          \
    if (outputs > 4) DO(4, l4, h4);                                                                          \
    if (outputs > 5) DO(5, l5, h5);                                                                          \
    if (outputs > 6) DO(6, l6, h6)

/* One asm statement for the reason given in gemm_avx2.c. */
#define ADD_PRODUCTS(i, low, high)                                                                           \
    do {                                                                                                     \
        const __m512i *x_ = (const __m512i *)(x + (i) * stride);                                             \
        __m512i y_;                                                                                          \
        __asm__ volatile("vmovdqu64 %[a], %[y]\n\tvpdpbusd %[b0], %[y], %[s0]\n\t"                           \
                         "vmovdqu64 %[b], %[y]\n\tvpdpbusd %[b1], %[y], %[s1]"                               \
                         : [s0] "+v"(low), [s1] "+v"(high), [y] "=&v"(y_)                                    \
                         : [a] "m"(x_[0]), [b] "m"(x_[1]), [b0] "v"(w0), [b1] "v"(w1));                      \
    } while (0)

/* Sums of up to 7 pixels, which begin as `low` and `high`. The accumulators are named one by one: gcc keeps an array of
 * them in memory. */
#define SUMS(low, high)                                                                                      \
    __m512i l0 = low, h0 = high, l1 = l0, h1 = h0, l2 = l0, h2 = h0, l3 = l0, h3 = h0;                       \
    __m512i l4 = l0, h4 = h0, l5 = l0, h5 = h0, l6 = l0, h6 = h0;                                            \
    for (size_t tap = 0; tap < taps->runs; tap++, w += VECTORS) {                                            \
        const uint8_t *x = a + taps->offset[tap];                                                            \
        const __m512i w0 = _mm512_load_si512(w), w1 = _mm512_load_si512(w + 1);                              \
        EACH_OUTPUT(ADD_PRODUCTS);                                                                           \
    }

INLINE void save(__m512i low, __m512i high, int32_t *acc)
{
    const __m512i even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13), odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    _mm512_storeu_si512(acc, _mm512_permutex2var_epi64(low, even, high));
    _mm512_storeu_si512(acc + NR / 2, _mm512_permutex2var_epi64(low, odd, high));
}

#define SAVE(i, low, high) save(low, high, acc + NR * (i))

INLINE void sums_of(const int outputs, const ndq_gemm_runs *taps, const uint8_t *a, size_t stride, const __m512i *w,
                    int32_t *acc)
{
    SUMS(_mm512_setzero_si512(), _mm512_setzero_si512())
    EACH_OUTPUT(SAVE);
}

/* Constants of channels in the order of the accumulators, and of all channels. */
typedef struct {
    __m512i add[VECTORS];
    __m512 scale[VECTORS], inv;
    __m512i zero;
    __m256i lowest, highest, flip;
    bool is_bounded; /* these three change codes */
    __mmask32 columns;
} constants;

/* 32-bit numbers of all channels in the order of vector i. */
INLINE __m512i in_order(const void *numbers, int i)
{
    const __m128i *n = (const __m128i *)numbers + i;
    const __m256i low = _mm256_loadu2_m128i(n + 4, n), high = _mm256_loadu2_m128i(n + 6, n + 2);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

INLINE void make_constants(size_t columns, const ndq_gemm_columns *c, const ndq_gemm_stage *stage, constants *k)
{
    for (int i = 0; i < VECTORS; i++) {
        k->add[i] = in_order(c->add, i);
        k->scale[i] = _mm512_castsi512_ps(in_order(c->scale, i));
    }
    k->inv = _mm512_set1_ps(stage->inv);
    k->zero = _mm512_set1_epi16(stage->moved_zero);
    k->lowest = _mm256_set1_epi8((char)stage->lowest);
    k->highest = _mm256_set1_epi8((char)stage->highest);
    k->flip = _mm256_set1_epi8((char)stage->flip);
    k->is_bounded = stage->lowest > 0 || stage->highest < UINT8_MAX || stage->flip;
    k->columns = (__mmask32)(UINT32_MAX >> (NR - columns));
}

INLINE __m512i rounded(__m512i sums, __m512 scale, __m512 inv)
{
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), scale), inv));
}

/* The codes of one pixel. int16 saturate and so stay on their side of the bounds. */
INLINE __m256i codes_of(__m512i low, __m512i high, const constants *k)
{
    const __m512i words = _mm512_adds_epi16(
        _mm512_packs_epi32(rounded(low, k->scale[0], k->inv), rounded(high, k->scale[1], k->inv)), k->zero);
    const __m256i codes = _mm256_packus_epi16(_mm512_castsi512_si256(words), _mm512_extracti64x4_epi64(words, 1));
    if (!k->is_bounded)
        return codes;
    return _mm256_xor_si256(_mm256_min_epu8(_mm256_max_epu8(codes, k->lowest), k->highest), k->flip);
}

/* Masked stores of bytes take longer. */
INLINE void store_columns(__m256i codes, __mmask32 columns, uint8_t *out)
{
    if (columns == UINT32_MAX)
        _mm256_storeu_si256((__m256i *)out, codes);
    else
        _mm256_mask_storeu_epi8(out, columns, codes);
}

#define STORE_CODES(i, low, high) store_columns(codes_of(low, high, k), k->columns, out + (i) * out_stride)

INLINE void code_pixels(const int outputs, const ndq_gemm_runs *taps, const uint8_t *a, size_t stride, const __m512i *w,
                        const constants *constant, uint8_t *out, size_t out_stride)
{
    const constants c = *constant, *const k = &c;
    SUMS(k->add[0], k->add[1])
    EACH_OUTPUT(STORE_CODES);
}

/* The same for windows of five columns next to each other, as the pixels are: each word is read once for all outputs
 * that see it, and the weights of a row of the window stay in registers meanwhile. */

enum { COLUMNS = 5 };

/* An array of a power of two, of which only constant places are used, so that none is outside. */
#define WEIGHT(w, at) w[(at) & 7]
#define ADD_SEEN(i, low, high)                                                                               \
    if (column >= (i) && column < (i) + COLUMNS)                                                             \
    __asm__("vpdpbusd %[b0], %[a], %[s0]\n\tvpdpbusd %[b1], %[b], %[s1]"                                     \
            : [s0] "+v"(low), [s1] "+v"(high)                                                                \
            : [a] "v"(x0), [b] "v"(x1), [b0] "v"(WEIGHT(w0, column - (i))), [b1] "v"(WEIGHT(w1, column - (i))))

#define ADD_SEEN_COLUMN(at)                                                                                  \
    do {                                                                                                     \
        const int column = (at);                                                                             \
        const __m512i x0 = _mm512_load_si512(x), x1 = _mm512_load_si512(x + sizeof(__m512i));                \
        x += stride;                                                                                         \
        EACH_OUTPUT(ADD_SEEN);                                                                               \
    } while (0)

static TARGET void NAME(columns_7)(const ndq_gemm_runs *taps, const uint8_t *a, size_t stride, const void *panel,
                                   const constants *constant, uint8_t *out, size_t out_stride)
{
    enum { outputs = MOST };
    const __m512i *w = panel;
    const constants c = *constant, *const k = &c;
    __m512i l0 = k->add[0], h0 = k->add[1], l1 = l0, h1 = h0, l2 = l0, h2 = h0, l3 = l0, h3 = h0;
    __m512i l4 = l0, h4 = h0, l5 = l0, h5 = h0, l6 = l0, h6 = h0;
    for (size_t tap = 0; tap < taps->runs; tap += COLUMNS, w += COLUMNS * VECTORS) {
        const uint8_t *x = a + taps->offset[tap];
        const __m512i w0[8] = {w[0], w[2], w[4], w[6], w[8]}, w1[8] = {w[1], w[3], w[5], w[7], w[9]};
        ADD_SEEN_COLUMN(0);
        ADD_SEEN_COLUMN(1);
        ADD_SEEN_COLUMN(2);
        ADD_SEEN_COLUMN(3);
        ADD_SEEN_COLUMN(4);
        ADD_SEEN_COLUMN(5);
        ADD_SEEN_COLUMN(6);
        ADD_SEEN_COLUMN(7);
        ADD_SEEN_COLUMN(8);
        ADD_SEEN_COLUMN(9);
        ADD_SEEN_COLUMN(10);
    }
    EACH_OUTPUT(STORE_CODES);
}

static bool are_columns(const ndq_gemm_runs *taps, size_t stride)
{
    for (size_t i = 1; i < taps->runs; i++)
        if (i % COLUMNS && taps->offset[i] - taps->offset[i - 1] != (ptrdiff_t)stride)
            return false;
    return taps->runs % COLUMNS == 0;
}

typedef void code_tile(const ndq_gemm_runs *taps, const uint8_t *a, size_t stride, const void *panel, const constants *k,
                       uint8_t *out, size_t out_stride);

#define SUM_TILE(outputs)                                                                                    \
    static TARGET void tile_##outputs(const ndq_gemm_runs *taps, const uint8_t *a, size_t stride,            \
                                      const void *panel, int32_t *acc)                                       \
    {                                                                                                        \
        sums_of(outputs, taps, a, stride, panel, acc);                                                       \
    }
SUM_TILE(1)
SUM_TILE(2)
SUM_TILE(3)
SUM_TILE(4)

#define CODE_TILE(outputs)                                                                                   \
    static TARGET void NAME(code_##outputs)(const ndq_gemm_runs *taps, const uint8_t *a, size_t stride,      \
                                            const void *panel, const constants *k, uint8_t *out,             \
                                            size_t out_stride)                                               \
    {                                                                                                        \
        code_pixels(outputs, taps, a, stride, panel, k, out, out_stride);                                    \
    }
CODE_TILE(1)
CODE_TILE(4)
CODE_TILE(7)

/* Tiles of one size: the last begins earlier if there are too few outputs left, some of which are made twice. */
static TARGET void code_row(size_t count, const ndq_gemm_runs *taps, const uint8_t *a, size_t stride, const void *panel,
                            size_t columns, const ndq_gemm_columns *c, const ndq_gemm_stage *stage, uint8_t *out,
                            size_t out_stride)
{
    const size_t outputs = count >= MOST ? MOST : count >= 4 ? 4 : 1;
    code_tile *const many = are_columns(taps, stride) ? NAME(columns_7) : NAME(code_7);
    code_tile *const tile = outputs == MOST ? many : outputs == 4 ? NAME(code_4) : NAME(code_1);
    constants k;
    make_constants(columns, c, stage, &k);
    for (size_t done = 0; done < count; done += outputs) {
        const size_t first = ndq_min_size(done, count - outputs);
        tile(taps, a + first * stride, stride, panel, &k, out + first * out_stride, out_stride);
    }
}

/* ---- Windows of 3 x 3 straight from the image ----
 *
 * 64 channels, of two panels, or 32 of two groups of rows. Each column is unpacked once for one row of outputs, or for
 * two that are next to each other, and stays in registers for all outputs that see it. Weights are read again for each,
 * as loads have nothing else to do. */

enum { TAPS = 3, WIDE = 4, HALVES = 2 }; /* WIDE: vectors of a column */

/* Rows of pixels, words of one column, or sums. */
typedef struct {
    __m512i a, b, c, d;
} four_vectors;

/* What all windows have in common, in the same order: what is read again for each, weights of the first and the second
 * of two rows of outputs, and what stays in registers. */
typedef struct {
    __m512i weights[2][TAPS][WIDE], add[WIDE], outside;
} shared;

typedef struct {
    __m512 scale0, scale1, scale2, scale3, inv;
    __m512i zero, lowest, highest, flip;
    __mmask64 columns;
    bool is_whole, is_signed, is_bounded; /* no column is masked; codes that are read are flipped; as in constants */
} wide_constants;

/* The columns of a row of windows that are still to come, of different rows in both halves or of the same in either. */
typedef struct {
    const uint8_t *next[HALVES][TAPS + 1];
    ptrdiff_t step[HALVES][TAPS + 1];
    size_t column, begin, inside; /* inside: how many from `begin` on are */
} cursor;

/* The order of four vectors whose halves are the channels of `low` and of `high`, two each in the order of a panel. */
INLINE void widen(const __m512i *low, const __m512i *high, __m512i *wide)
{
    wide[0] = _mm512_shuffle_i64x2(low[0], high[0], 0x44);
    wide[1] = _mm512_shuffle_i64x2(low[1], high[1], 0x44);
    wide[2] = _mm512_shuffle_i64x2(low[0], high[0], 0xee);
    wide[3] = _mm512_shuffle_i64x2(low[1], high[1], 0xee);
}

static TARGET void make_shared(const ndq_depthwise_windows *windows, size_t columns, const ndq_gemm_columns *c,
                               const ndq_gemm_stage *stage, shared *s, wide_constants *wide)
{
    const size_t high = columns > NR; /* the second panel, or the first again */
    constants k[HALVES];
    __m512i scale[WIDE];
    for (size_t i = 0; i < HALVES; i++)
        make_constants(NR, &c[i * high], stage, &k[i]);
    widen(k[0].add, k[1].add, s->add);
    widen((const __m512i *)k[0].scale, (const __m512i *)k[1].scale, scale);
    for (size_t line = 0; line < 2 && windows->panel[line]; line++)
        for (size_t i = 0; i < TAPS; i++) {
            const __m512i *w = (const __m512i *)windows->panel[line] + i * VECTORS;
            widen(w, w + high * TAPS * VECTORS, s->weights[line][i]);
        }
    s->outside = _mm512_set1_epi8((char)*windows->outside);
    *wide = (wide_constants){
        .scale0 = _mm512_castsi512_ps(scale[0]),
        .scale1 = _mm512_castsi512_ps(scale[1]),
        .scale2 = _mm512_castsi512_ps(scale[2]),
        .scale3 = _mm512_castsi512_ps(scale[3]),
        .inv = k[0].inv,
        .zero = k[0].zero,
        .lowest = _mm512_set1_epi8((char)stage->lowest),
        .highest = _mm512_set1_epi8((char)stage->highest),
        .flip = _mm512_set1_epi8((char)stage->flip),
        .is_signed = windows->is_signed,
        .is_bounded = k[0].is_bounded,
        .columns = (__mmask64)(UINT64_MAX >> (HALVES * NR - columns)),
        .is_whole = columns == (high ? HALVES * NR : NR),
    };
}

/* The next pixels of row i of the window. Masked bytes are not read, but masks take longer. */
INLINE __m512i next_pixels(const bool is_pair, const bool is_whole, int i, cursor *at, __mmask64 columns)
{
    const uint8_t *low = at->next[0][i], *high = at->next[1][i];
    at->next[0][i] += at->step[0][i];
    if (!is_pair)
        return is_whole ? _mm512_loadu_si512(low) : _mm512_maskz_loadu_epi8(columns, low);
    at->next[1][i] += at->step[1][i];
    const __mmask32 half = is_whole ? UINT32_MAX : (__mmask32)columns;
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_maskz_loadu_epi8(half, low)),
                              _mm256_maskz_loadu_epi8(half, high), 1);
}

/* One row of outputs sees three rows of the image: any codes fill their words, as their weights are 0. */
INLINE four_vectors next_rows(const int lines, const bool is_pair, const bool is_whole, cursor *at, __mmask64 columns)
{
    four_vectors x = {.a = next_pixels(is_pair, is_whole, 0, at, columns),
                      .b = next_pixels(is_pair, is_whole, 1, at, columns),
                      .c = next_pixels(is_pair, is_whole, 2, at, columns)};
    x.d = lines > 1 ? next_pixels(is_pair, is_whole, 3, at, columns) : x.c;
    return x;
}

/* The words of the next column, in the order of unpacking. */
INLINE four_vectors next_column(const int lines, const bool is_pair, cursor *at, const shared *s,
                                const wide_constants *k)
{
    four_vectors x = {s->outside, s->outside, s->outside, s->outside};
    if (at->column++ - at->begin < at->inside)
        x = k->is_whole ? next_rows(lines, is_pair, true, at, k->columns)
                        : next_rows(lines, is_pair, false, at, k->columns);
    if (k->is_signed) {
        const __m512i flip = _mm512_set1_epi8(-128);
        x = (four_vectors){_mm512_xor_si512(x.a, flip), _mm512_xor_si512(x.b, flip), _mm512_xor_si512(x.c, flip),
                           _mm512_xor_si512(x.d, flip)};
    }
    const __m512i low = _mm512_unpacklo_epi8(x.a, x.b), low_below = _mm512_unpacklo_epi8(x.c, x.d);
    const __m512i high = _mm512_unpackhi_epi8(x.a, x.b), high_below = _mm512_unpackhi_epi8(x.c, x.d);
    return (four_vectors){_mm512_unpacklo_epi16(low, low_below), _mm512_unpackhi_epi16(low, low_below),
                          _mm512_unpacklo_epi16(high, high_below), _mm512_unpackhi_epi16(high, high_below)};
}

/* asm, or gcc would keep some of the weights in registers and the words in memory instead. */
#define ADD_WORDS(sums, words, w)                                                                            \
    __asm__("vpdpbusd %[b], %[a], %[s]" : [s] "+v"(sums) : [a] "v"(words), [b] "m"(w))

INLINE void add_column(const four_vectors *x, const __m512i *w, four_vectors *sums)
{
    ADD_WORDS(sums->a, x->a, w[0]);
    ADD_WORDS(sums->b, x->b, w[1]);
    ADD_WORDS(sums->c, x->c, w[2]);
    ADD_WORDS(sums->d, x->d, w[3]);
}

INLINE four_vectors wide_sums(const four_vectors *left, const four_vectors *middle, const four_vectors *right,
                              const __m512i w[TAPS][WIDE], const shared *s)
{
    __asm__("" : "+r"(w)); /* or gcc would keep the address of each vector */
    four_vectors sums = {s->add[0], s->add[1], s->add[2], s->add[3]};
    add_column(left, w[0], &sums);
    add_column(middle, w[1], &sums);
    add_column(right, w[2], &sums);
    return sums;
}

INLINE __m512i wide_codes(const four_vectors *sums, const wide_constants *k)
{
    const __m512i low = _mm512_packs_epi32(rounded(sums->a, k->scale0, k->inv), rounded(sums->b, k->scale1, k->inv));
    const __m512i high = _mm512_packs_epi32(rounded(sums->c, k->scale2, k->inv), rounded(sums->d, k->scale3, k->inv));
    const __m512i codes = _mm512_packus_epi16(_mm512_adds_epi16(low, k->zero), _mm512_adds_epi16(high, k->zero));
    if (!k->is_bounded)
        return codes;
    return _mm512_xor_si512(_mm512_min_epu8(_mm512_max_epu8(codes, k->lowest), k->highest), k->flip);
}

/* Masked stores of bytes take longer. */
INLINE void store_wide(const bool is_pair, __m512i codes, const wide_constants *k, uint8_t *low, uint8_t *high)
{
    if (is_pair && k->is_whole) {
        _mm256_storeu_si256((__m256i *)low, _mm512_castsi512_si256(codes));
        _mm256_storeu_si256((__m256i *)high, _mm512_extracti64x4_epi64(codes, 1));
    } else if (is_pair) {
        _mm256_mask_storeu_epi8(low, (__mmask32)k->columns, _mm512_castsi512_si256(codes));
        _mm256_mask_storeu_epi8(high, (__mmask32)k->columns, _mm512_extracti64x4_epi64(codes, 1));
    } else if (k->is_whole) {
        _mm512_storeu_si512(low, codes);
    } else {
        _mm512_mask_storeu_epi8(low, k->columns, codes);
    }
}

/* One or two rows of `count` outputs that begin at every column or at every second one; of a pair, twice as many. Of two
 * rows the first is written last. */
INLINE void run_strip(const int lines, const int across, const bool is_pair, size_t count, cursor at, const shared *s,
                      const wide_constants *wide, uint8_t *low, uint8_t *high, size_t out_x, size_t out_y)
{
    const wide_constants k = *wide;
    four_vectors left, middle, right = next_column(lines, is_pair, &at, s, &k);
    if (across == 1) {
        middle = right;
        right = next_column(lines, is_pair, &at, s, &k);
    }
    for (; count > 0; count--, low += out_x, high += out_x) {
        left = across == 1 ? middle : right;
        middle = across == 1 ? right : next_column(lines, is_pair, &at, s, &k);
        right = next_column(lines, is_pair, &at, s, &k);
        const four_vectors sums = wide_sums(&left, &middle, &right, s->weights[0], s);
        if (lines > 1) {
            const four_vectors lower = wide_sums(&left, &middle, &right, s->weights[1], s);
            store_wide(is_pair, wide_codes(&lower, &k), &k, low + out_y, high + out_y);
        }
        store_wide(is_pair, wide_codes(&sums, &k), &k, low, high);
    }
}

typedef void strip(size_t count, cursor at, const shared *s, const wide_constants *wide, uint8_t *low, uint8_t *high,
                   size_t out_x, size_t out_y);

#define STRIP(lines, across, is_pair)                                                                        \
    static TARGET void strip_##lines##_##across##_##is_pair(                                                 \
        size_t count, cursor at, const shared *s, const wide_constants *wide, uint8_t *low, uint8_t *high,   \
        size_t out_x, size_t out_y)                                                                          \
    {                                                                                                        \
        run_strip(lines, across, is_pair, count, at, s, wide, low, high, out_x, out_y);                      \
    }
STRIP(1, 2, 0)
STRIP(1, 2, 1)
STRIP(2, 1, 0)
STRIP(2, 1, 1)

/* Groups of rows at the end begin earlier if there are too few rows left: some outputs are made twice. Where there is
 * only one row, the first of two rows of outputs is written over the second. */
static TARGET void run_windows(const ndq_depthwise_windows *windows, size_t columns, const ndq_gemm_columns *c,
                               const ndq_gemm_stage *stage, uint8_t *out, size_t out_x, size_t out_y)
{
    static strip *const strips[2][2] = {{strip_2_1_0, strip_2_1_1}, {strip_1_2_0, strip_1_2_1}};
    shared s;
    wide_constants wide;
    make_shared(windows, columns, c, stage, &s, &wide);
    const bool is_pair = columns <= NR;
    const size_t lines = windows->across == 1 ? 2 : 1, halves = is_pair ? HALVES : 1;
    const size_t last = windows->rows > lines ? windows->rows - lines : 0;
    const size_t last_row = (windows->rows - 1) * windows->down + TAPS - 1;
    strip *const run = strips[windows->across - 1][is_pair];
    cursor at = {.begin = windows->begin, .inside = windows->end - windows->begin};
    for (size_t y = 0; y < windows->rows; y += halves * lines) {
        const size_t first[HALVES] = {ndq_min_size(y, last), ndq_min_size(y + lines, last)};
        for (size_t half = 0; half < halves; half++)
            for (size_t i = 0; i < lines + 2; i++) {
                const ndq_depthwise_pixels row = windows->row[ndq_min_size(first[half] * windows->down + i, last_row)];
                at.next[half][i] = row.codes;
                at.step[half][i] = row.stride;
            }
        run(windows->cols, at, &s, &wide, out + first[0] * out_y, out + first[1] * out_y, out_x,
            windows->rows > 1 ? out_y : 0);
    }
}

const ndq_gemm_kernel ndq_depthwise_avx512vnni = {
    .name = "avx512vnni_depthwise",
    .mr = MOST_SUMS,
    .nr = NR,
    .codes_per_word = 4,
    .w_centred = true,
    .general = &ndq_depthwise_avx512,
    .lowest_weight = -128,
    .largest_weight = 127,
    .k_step = 4,
    .parallel_macs = 3e6,
    .expand_rows = expand_words,
    .expand_w = NAME(expand_centred_s8),
    .sums = NAME(sums),
    .pack = pack_words,
    .tile = {tile_1, tile_2, tile_3, tile_4},
    .row = {[NDQ_GEMM_CODES] = code_row},
    .row_panels = 1,
    .windows = run_windows,
    .windows_across = 1,
    .windows_panels = 2,
    .store = {NAME(store_s32), NAME(store_f32), NAME(store_codes)},
};
#endif
