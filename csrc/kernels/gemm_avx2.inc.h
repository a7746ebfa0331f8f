/* What the AVX2 kernels do by hand. Parameters as in gemm_plain.inc.h, which this includes; NR is 16. */
#include "gemm_plain.inc.h"
#include "pack_avx2.h"

#define BY_HAND static __attribute__((unused)) NDQ_TARGET_AVX2

/* `sums`, with both sums of absolute differences in one loop, which compilers do not find. */
BY_HAND void NAME(sums_both)(size_t K, const uint8_t *codes, bool is_signed, int32_t zero, int64_t *sums)
{
    const __m256i flip = _mm256_set1_epi8(is_signed ? -128 : 0), none = _mm256_setzero_si256();
    const __m256i from = _mm256_xor_si256(_mm256_set1_epi8((char)zero), flip);
    const size_t whole = K / 32 * 32;
    __m256i values = none, sizes = none;
    for (size_t k = 0; k < whole; k += 32) {
        const __m256i c = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(codes + k)), flip);
        values = _mm256_add_epi64(values, _mm256_sad_epu8(c, none));
        sizes = _mm256_add_epi64(sizes, _mm256_sad_epu8(c, from));
    }
    _Alignas(32) int64_t lanes[8];
    _mm256_store_si256((__m256i *)lanes, values);
    _mm256_store_si256((__m256i *)(lanes + 4), sizes);
    sums[0] += lanes[0] + lanes[1] + lanes[2] + lanes[3] - (int64_t)whole * (zero + (is_signed ? 128 : 0));
    sums[1] += lanes[4] + lanes[5] + lanes[6] + lanes[7];
    for (size_t k = whole; k < K; k++) {
        const int32_t value = (is_signed ? (int8_t)codes[k] : codes[k]) - zero;
        sums[0] += value;
        sums[1] += abs(value);
    }
}

/* 16 codes as int16 less the zero point, which both have `flip` in the sign bit. Widening by an instruction of its own takes
 * two operations. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 __m256i NAME(centred)(const uint8_t *codes, __m256i flip, __m256i zero)
{
    const __m256i apart = _mm256_setr_epi8(0, -1, 1, -1, 2, -1, 3, -1, 4, -1, 5, -1, 6, -1, 7, -1, 8, -1, 9, -1, 10, -1, 11,
                                           -1, 12, -1, 13, -1, 14, -1, 15, -1);
    const __m256i twice = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)codes));
    return _mm256_sub_epi16(_mm256_shuffle_epi8(_mm256_xor_si256(twice, flip), apart), zero);
}

static inline NDQ_TARGET_AVX2 void NAME(expand_few)(size_t K, const uint8_t *codes, __m256i flip, __m256i zero, int16_t *out)
{
    const __m128i f = _mm256_castsi256_si128(flip), z = _mm256_castsi256_si128(zero);
    size_t k = 0;
    for (; k + 4 <= K; k += 4) {
        const __m128i four = _mm_cvtsi32_si128((int32_t)*(const ndq_gemm_word_anywhere *)(codes + k));
        _mm_storel_epi64((__m128i *)(out + k), _mm_sub_epi16(_mm_cvtepu8_epi16(_mm_xor_si128(four, f)), z));
    }
    for (; k < K; k++)
        out[k] = (int16_t)((codes[k] ^ (uint8_t)_mm_extract_epi8(f, 0)) - (int16_t)_mm_extract_epi16(z, 0));
}

/* expand_s16, whose last 16 codes are expanded again instead of a rest one by one: rows are often short. */
BY_HAND void NAME(expand_s16_by_hand)(size_t K, const uint8_t *codes, bool is_signed, int32_t zero, void *row)
{
    const int32_t shift = is_signed ? 128 : 0;
    const __m256i flip = _mm256_set1_epi8((char)shift), moved = _mm256_set1_epi16((short)(zero + shift));
    int16_t *out = row;
    if (K < 16) {
        NAME(expand_few)(K, codes, flip, moved, out);
        return;
    }
    size_t k = 0;
    for (; k + 32 <= K; k += 32) {
        const __m256i first = NAME(centred)(codes + k, flip, moved), second = NAME(centred)(codes + k + 16, flip, moved);
        _mm256_storeu_si256((__m256i *)(out + k), first);
        _mm256_storeu_si256((__m256i *)(out + k + 16), second);
    }
    if (k + 16 <= K)
        _mm256_storeu_si256((__m256i *)(out + k), NAME(centred)(codes + k, flip, moved));
    if (K % 16)
        _mm256_storeu_si256((__m256i *)(out + K - 16), NAME(centred)(codes + K - 16, flip, moved));
}

static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void
transpose_8x8(const ndq_gemm_word *rows, size_t stride, ndq_gemm_word *out)
{
    __m256i r[8];
    for (int i = 0; i < 8; i++)
        r[i] = _mm256_loadu_si256((const __m256i *)(rows + (size_t)i * stride));
    ndq_transpose_avx2(r);
    for (int i = 0; i < 8; i++)
        _mm256_store_si256((__m256i *)(out + NR * i), r[i]);
}

/* pack_words, with eight by eight words at a time. */
BY_HAND void NAME(pack_transposed)(size_t first, size_t count, const ndq_gemm_word *rows, size_t stride, size_t words,
                                                  ndq_gemm_word *panel)
{
    const size_t whole = count / 8 * 8;
    for (size_t i = 0; i < whole; i += 8)
        for (size_t n = 0; n < NR; n += 8)
            transpose_8x8(rows + n * stride + i, stride, panel + (first + i) * NR + n);
    NAME(pack_words)(first + whole, count - whole, rows + whole, stride, words, panel);
}

/* What a stage needs of each output, in registers. */
typedef struct {
    __m256 inv, lo, hi;
    __m256i zero, lowest, highest, flip;
} NAME(stage);

static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 NAME(stage) NAME(make_stage)(const ndq_gemm_stage *stage)
{
    return (NAME(stage)){
        .inv = _mm256_set1_ps(stage->inv),
        .lo = _mm256_set1_ps(stage->lo),
        .hi = _mm256_set1_ps(stage->hi),
        .zero = _mm256_set1_epi16(stage->moved_zero),
        .lowest = _mm256_set1_epi8((char)stage->lowest),
        .highest = _mm256_set1_epi8((char)stage->highest),
        .flip = _mm256_set1_epi8((char)stage->flip),
    };
}

/* Steps from the zero point, as int32, of 8 columns from `first` on. In max and min a NaN gives the bound. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 __m256i
NAME(steps)(const bool float_bias, const bool shrinks, __m256i acc, const ndq_gemm_columns *c, size_t first,
            const NAME(stage) *stage)
{
    __m256 y = _mm256_cvtepi32_ps(_mm256_add_epi32(acc, _mm256_loadu_si256((const __m256i *)(c->add + first))));
    if (float_bias)
        y = _mm256_add_ps(y, _mm256_loadu_ps(c->before + first));
    y = _mm256_mul_ps(y, _mm256_loadu_ps(c->scale + first));
    if (float_bias)
        y = _mm256_add_ps(y, _mm256_loadu_ps(c->after + first));
    y = _mm256_mul_ps(y, stage->inv);
    return _mm256_cvtps_epi32(shrinks ? y : _mm256_min_ps(_mm256_max_ps(y, stage->lo), stage->hi));
}

/* Codes of one row as int16, in the order in which packing works on 128 bits: columns 0-3, 8-11, 4-7, 12-15. What does not
 * fit saturates, and stays on its side of the bounds. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 __m256i
NAME(row_of_codes)(const bool float_bias, const bool shrinks, __m256i acc0, __m256i acc1, const ndq_gemm_columns *c,
                   const NAME(stage) *stage)
{
    const __m256i steps = _mm256_packs_epi32(NAME(steps)(float_bias, shrinks, acc0, c, 0, stage),
                                             NAME(steps)(float_bias, shrinks, acc1, c, 8, stage));
    return _mm256_adds_epi16(steps, stage->zero);
}

/* The codes of two such rows, or of one of 32 columns, or of four of 8. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 __m256i
NAME(two_rows)(__m256i first, __m256i second, const NAME(stage) *stage)
{
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i codes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(first, second), in_order);
    return _mm256_xor_si256(_mm256_min_epu8(_mm256_max_epu8(codes, stage->lowest), stage->highest), stage->flip);
}

/* Bounds of outputs in float32. */
typedef struct {
    __m256 floor, ceiling;
} NAME(reals);

/* Sums of two rows of 8 columns, or of 16 columns of one, which began with what is added to them, as row_of_codes gives
 * them. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 __m256i
NAME(halves_of)(__m256i c0, __m256i c1, const float *scale0, const float *scale1, const NAME(stage) *k)
{
    const __m256 y0 = _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(c0), _mm256_loadu_ps(scale0)), k->inv);
    const __m256 y1 = _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(c1), _mm256_loadu_ps(scale1)), k->inv);
    return _mm256_adds_epi16(_mm256_packs_epi32(_mm256_cvtps_epi32(y0), _mm256_cvtps_epi32(y1)), k->zero);
}

/* The same as float32, 8 columns from `first` on. In max and min a NaN gives the bound. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void
NAME(real_columns)(__m256i sums, const ndq_gemm_columns *c, size_t first, const NAME(reals) *k, float *out)
{
    __m256 y = _mm256_add_ps(_mm256_cvtepi32_ps(sums), _mm256_loadu_ps(c->before + first));
    y = _mm256_add_ps(_mm256_mul_ps(y, _mm256_loadu_ps(c->scale + first)), _mm256_loadu_ps(c->after + first));
    _mm256_storeu_ps(out + first, _mm256_min_ps(_mm256_max_ps(y, k->floor), k->ceiling));
}

/* One of two rows of 16 columns, or one of four of 8. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void
NAME(store_row)(const bool wide, const size_t row, __m256i codes, uint8_t *out)
{
    const __m128i half = row < (wide ? 1 : 2) ? _mm256_castsi256_si128(codes) : _mm256_extracti128_si256(codes, 1);
    if (wide)
        _mm_storeu_si128((__m128i *)out, half);
    else if (row % 2)
        _mm_storeh_pd((double *)(void *)out, _mm_castsi128_pd(half));
    else
        _mm_storel_epi64((__m128i *)out, half);
}

/* Rows of a tile of 16 or 8 columns from what it ends in. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void
NAME(store_halves)(const size_t rows, const bool wide, const __m256i *halves, const NAME(stage) *k, uint8_t *out, size_t stride)
{
    const size_t in_one = wide ? 2 : 4, columns = wide ? NR : NR / 2;
    for (size_t row = 0; row < rows; row += in_one, halves += 2) {
        const size_t count = rows - row;
        const __m256i codes = NAME(two_rows)(halves[0], halves[count > in_one / 2], k);
        if (stride == columns && count >= in_one) {
            _mm256_storeu_si256((__m256i *)(out + row * stride), codes);
            continue;
        }
        for (size_t i = 0; i < in_one && i < count; i++)
            NAME(store_row)(wide, i, codes, out + (row + i) * stride);
    }
}

/* Two rows at a time, 16 bytes each; the second of an odd last row is nothing that is stored. */
static inline __attribute__((always_inline)) NDQ_TARGET_AVX2 void
NAME(code_rows_by_hand)(const bool float_bias, const bool shrinks, const bool whole, size_t rows, size_t columns,
                        const int32_t *acc, const ndq_gemm_columns *c, const ndq_gemm_stage *constants, uint8_t *out,
                        size_t stride)
{
    const NAME(stage) stage = NAME(make_stage)(constants);
    for (size_t row = 0; row < rows; row += 2, acc += 2 * NR, out += 2 * stride) {
        const __m256i *sums = (const __m256i *)acc;
        const bool both = row + 1 < rows;
        const __m256i first = NAME(row_of_codes)(float_bias, shrinks, _mm256_loadu_si256(sums),
                                                 _mm256_loadu_si256(sums + 1), c, &stage);
        const __m256i second = both ? NAME(row_of_codes)(float_bias, shrinks, _mm256_loadu_si256(sums + 2),
                                                         _mm256_loadu_si256(sums + 3), c, &stage)
                                    : first;
        const __m256i codes = NAME(two_rows)(first, second, &stage);
        if (whole) {
            _mm_storeu_si128((__m128i *)out, _mm256_castsi256_si128(codes));
            if (both)
                _mm_storeu_si128((__m128i *)(out + stride), _mm256_extracti128_si256(codes, 1));
            continue;
        }
        uint8_t bytes[2 * NR];
        _mm256_storeu_si256((__m256i *)bytes, codes);
        memcpy(out, bytes, columns);
        if (both)
            memcpy(out + stride, bytes + NR, columns);
    }
}

/* `store_codes` of 16 columns, without a detour of the codes through memory. */
BY_HAND void NAME(store_codes_by_hand)(size_t rows, size_t columns, const int32_t *acc, const ndq_gemm_columns *c,
                                       const ndq_gemm_stage *stage, uint8_t *out, size_t stride)
{
    if (stage->float_bias)
        NAME(code_rows_by_hand)(true, false, false, rows, columns, acc, c, stage, out, stride);
    else if (!c->shrinks)
        NAME(code_rows_by_hand)(false, false, false, rows, columns, acc, c, stage, out, stride);
    else if (columns == NR)
        NAME(code_rows_by_hand)(false, true, true, rows, columns, acc, c, stage, out, stride);
    else
        NAME(code_rows_by_hand)(false, true, false, rows, columns, acc, c, stage, out, stride);
}

#undef BY_HAND
