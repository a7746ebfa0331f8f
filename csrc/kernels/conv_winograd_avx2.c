/* The transforms of conv_winograd.h with AVX2, for the tiles of gemm_avx2.c. */
#include "conv_winograd.h"

#ifdef NDQ_X86
#include <immintrin.h>

#define NAME(x) winograd_##x
#define TARGET NDQ_TARGET_AVX2
#define NR 16
#include "gemm_avx2.inc.h"

enum { LANES = 16 };

#define INLINE static inline __attribute__((always_inline)) NDQ_TARGET_AVX2

/* B^T times a column of pixels, `row` apart. */
INLINE void down(const int16_t *in, size_t row, __m256i *out)
{
    __m256i d[4];
    for (size_t i = 0; i < 4; i++)
        d[i] = _mm256_loadu_si256((const __m256i *)(in + i * row));
    out[0] = _mm256_sub_epi16(d[0], d[2]);
    out[1] = _mm256_add_epi16(d[1], d[2]);
    out[2] = _mm256_sub_epi16(d[2], d[1]);
    out[3] = _mm256_sub_epi16(d[1], d[3]);
}

INLINE void save(int16_t *out, __m256i x)
{
    _mm256_storeu_si256((__m256i *)out, x);
}

/* 16 channels. The last two columns of a tile are the first two of the next. */
INLINE void pixels_of_lanes(size_t tiles, size_t channels, const int16_t *in, size_t row, int16_t *out, size_t tile,
                            size_t element)
{
    __m256i a[4], b[4], c[4], d[4];
    down(in, row, a);
    down(in + channels, row, b);
    for (; tiles > 0; tiles--, out += tile) {
        in += 2 * channels;
        down(in, row, c);
        down(in + channels, row, d);
        for (size_t i = 0; i < 4; i++) {
            save(out + 4 * i * element, _mm256_sub_epi16(a[i], c[i]));
            save(out + (4 * i + 1) * element, _mm256_add_epi16(b[i], c[i]));
            save(out + (4 * i + 2) * element, _mm256_sub_epi16(c[i], b[i]));
            save(out + (4 * i + 3) * element, _mm256_sub_epi16(b[i], d[i]));
            a[i] = c[i];
            b[i] = d[i];
        }
    }
}

static NDQ_TARGET_AVX2 void pixels(size_t tiles, size_t channels, const int16_t *in, size_t row, int16_t *out,
                                   size_t tile, size_t element)
{
    for (size_t c = 0; c + LANES <= channels; c += LANES)
        pixels_of_lanes(tiles, channels, in + c, row, out + c, tile, element);
    if (channels % LANES) /* the last 16 once more, some of them again */
        pixels_of_lanes(tiles, channels, in + channels - LANES, row, out + channels - LANES, tile, element);
}

INLINE __m256i load(const int32_t *in)
{
    return _mm256_loadu_si256((const __m256i *)in);
}

/* A^T times four rows. */
INLINE void two_of_four(const __m256i *m, __m256i *y)
{
    y[0] = _mm256_add_epi32(_mm256_add_epi32(m[0], m[1]), m[2]);
    y[1] = _mm256_sub_epi32(_mm256_sub_epi32(m[1], m[2]), m[3]);
}

/* Four outputs of eight channels of a tile: (0, 0), (0, 1), (1, 0), (1, 1). */
INLINE void four_outputs(const int32_t *in, size_t element, __m256i *out)
{
    __m256i rows[4][2], y[2];
    for (size_t i = 0; i < 4; i++, in += 4 * element) {
        const __m256i m[4] = {load(in), load(in + element), load(in + 2 * element), load(in + 3 * element)};
        two_of_four(m, rows[i]);
    }
    for (size_t x = 0; x < 2; x++) {
        const __m256i m[4] = {rows[0][x], rows[1][x], rows[2][x], rows[3][x]};
        two_of_four(m, y);
        out[x] = _mm256_srai_epi32(y[0], 2);
        out[2 + x] = _mm256_srai_epi32(y[1], 2);
    }
}

static NDQ_TARGET_AVX2 void outputs(size_t tiles, const int32_t *in, int32_t *out, size_t element)
{
    __m256i y[4];
    for (size_t i = 0; i < tiles * NR; i += 8) {
        four_outputs(in + i, element, y);
        for (size_t output = 0; output < 4; output++)
            _mm256_storeu_si256((__m256i *)(out + output * element + i), y[output]);
    }
}

static NDQ_TARGET_AVX2 void codes(size_t tiles, const int32_t *in, size_t element, const ndq_gemm_columns *columns,
                                  const ndq_gemm_stage *constants, uint8_t *out, size_t out_y, size_t out_x)
{
    const winograd_stage stage = winograd_make_stage(constants);
    for (size_t tile = 0; tile < tiles; tile++, in += NR, out += 2 * out_x) {
        __m256i y[2][4], pixel[4];
        four_outputs(in, element, y[0]);
        four_outputs(in + 8, element, y[1]);
        for (size_t output = 0; output < 4; output++)
            pixel[output] = winograd_row_of_codes(false, true, y[0][output], y[1][output], columns, &stage);
        for (size_t row = 0; row < 2; row++) {
            const __m256i both = winograd_two_rows(pixel[2 * row], pixel[2 * row + 1], &stage);
            _mm_storeu_si128((__m128i *)(out + row * out_y), _mm256_castsi256_si128(both));
            _mm_storeu_si128((__m128i *)(out + row * out_y + out_x), _mm256_extracti128_si256(both, 1));
        }
    }
}

const ndq_winograd ndq_winograd_avx2 = {
    .products = &ndq_gemm_avx2,
    .pixels = pixels,
    .outputs = outputs,
    .codes = codes,
};
#endif
