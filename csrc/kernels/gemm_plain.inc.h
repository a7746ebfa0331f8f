/* The loops of a GEMM kernel that need no intrinsics: plain C, compiled once per instruction set.
 *
 * Parameters: NAME(x) makes the function names; TARGET is the target attribute; NR the columns of a tile.
 * A kernel uses what its format needs, hence `unused`. */

#define PLAIN static __attribute__((unused)) TARGET

/* Adding and subtracting 1.5 * 2^23 rounds a float of size below 2^22 to the nearest integer, ties to even. */
#ifndef NDQ_GEMM_MAGIC
#define NDQ_GEMM_MAGIC 12582912.0f
#ifdef __clang__
#define NDQ_GEMM_KEEP_LOOP
#else /* gcc unrolls a loop of NR steps before it could vectorise it */
#define NDQ_GEMM_KEEP_LOOP _Pragma("GCC unroll 1")
#endif
enum { NDQ_GEMM_SUM_RUN = 1 << 20 }; /* so many numbers of at most 255 add up to less than 2^32 */
#endif

PLAIN void NAME(expand_s16)(size_t K, const uint8_t *codes, bool is_signed, int32_t zero, void *row)
{
    int16_t *NDQ_RESTRICT out = row;
    const int8_t *s8 = (const int8_t *)codes;
    const int16_t z = (int16_t)zero;
    if (is_signed)
        for (size_t k = 0; k < K; k++)
            out[k] = (int16_t)(s8[k] - z);
    else
        for (size_t k = 0; k < K; k++)
            out[k] = (int16_t)(codes[k] - z);
}

/* For codes that are small once centred. */
PLAIN void NAME(expand_centred_s8)(size_t K, const uint8_t *codes, bool is_signed, int32_t zero, void *row)
{
    (void)is_signed;
    uint8_t *NDQ_RESTRICT out = row;
    for (size_t k = 0; k < K; k++)
        out[k] = (uint8_t)(codes[k] - zero);
}

PLAIN void NAME(flip)(size_t K, const uint8_t *codes, uint8_t mask, void *row)
{
    uint8_t *NDQ_RESTRICT out = row;
    for (size_t k = 0; k < K; k++)
        out[k] = codes[k] ^ mask;
}

/* Flipping the top bit moves s8 up, and u8 down, by 128. */
PLAIN void NAME(expand_u8)(size_t K, const uint8_t *codes, bool is_signed, int32_t zero, void *row)
{
    (void)zero;
    NAME(flip)(K, codes, is_signed ? 0x80 : 0, row);
}

PLAIN void NAME(expand_s8)(size_t K, const uint8_t *codes, bool is_signed, int32_t zero, void *row)
{
    (void)zero;
    NAME(flip)(K, codes, is_signed ? 0 : 0x80, row);
}

/* Sum of |(byte ^ flip) - from|: in this form compilers use the instruction for sums of absolute differences. */
static __attribute__((noinline, unused)) TARGET uint64_t NAME(distance)(size_t K, const uint8_t *codes, uint8_t flip,
                                                                       uint8_t from)
{
    uint64_t total = 0;
    for (size_t begin = 0; begin < K; begin += NDQ_GEMM_SUM_RUN) {
        const size_t end = ndq_min_size(K, begin + NDQ_GEMM_SUM_RUN);
        uint32_t sum = 0;
        for (size_t k = begin; k < end; k++)
            sum += (uint32_t)abs((uint8_t)(codes[k] ^ flip) - from);
        total += sum;
    }
    return total;
}

PLAIN void NAME(sums)(size_t K, const uint8_t *codes, bool is_signed, int32_t zero, int64_t *sums)
{
    const uint8_t flip = is_signed ? 0x80 : 0; /* brings s8 to u8, and its zero point by the same 128 */
    const uint8_t from = (uint8_t)(zero + flip);
    sums[0] += (int64_t)NAME(distance)(K, codes, flip, 0) - (int64_t)K * from;
    sums[1] += (int64_t)NAME(distance)(K, codes, flip, from);
}

PLAIN void NAME(extremes)(size_t K, const uint8_t *codes, bool is_signed, int32_t *extremes)
{
    const uint8_t flip = is_signed ? 0x80 : 0; /* brings s8 to u8, by 128 */
    uint8_t least = 255, most = 0;
    for (size_t k = 0; k < K; k++) {
        const uint8_t code = codes[k] ^ flip;
        least = code < least ? code : least;
        most = code > most ? code : most;
    }
    extremes[0] = least - flip < extremes[0] ? least - flip : extremes[0];
    extremes[1] = most - flip > extremes[1] ? most - flip : extremes[1];
}

/* Word by word, column by column: a transpose, so that a tile loads one word of each of its columns as a vector. */
PLAIN void NAME(pack_words)(size_t first, size_t count, const ndq_gemm_word *rows, size_t stride, size_t words,
                            ndq_gemm_word *panel)
{
    (void)words;
    ndq_gemm_word *NDQ_RESTRICT out = panel + first * NR;
    for (size_t i = 0; i < count; i++)
        for (size_t n = 0; n < NR; n++)
            out[i * NR + n] = rows[n * stride + i];
}

PLAIN void NAME(subtract_row_terms)(size_t rows, int32_t *acc, const int32_t *row_sums, const ndq_gemm_columns *c)
{
    uint32_t *sum = (uint32_t *)acc;
    for (size_t row = 0; row < rows; row++)
        for (size_t n = 0; n < NR; n++)
            sum[row * NR + n] -= (uint32_t)row_sums[row] * (uint32_t)c->zero_point[n];
}

/* The stores compute all NR columns, so that the loops have no tail, and copy those that exist. */
PLAIN void NAME(copy)(uint8_t *out, const void *tile_row, size_t columns, size_t size)
{
    if (columns == NR)
        memcpy(out, tile_row, NR * size);
    else
        memcpy(out, tile_row, columns * size);
}

PLAIN void NAME(store_s32)(size_t rows, size_t columns, const int32_t *acc, const ndq_gemm_columns *c,
                           const ndq_gemm_stage *stage, uint8_t *out, size_t stride)
{
    (void)stage;
    for (size_t row = 0; row < rows; row++) {
        uint32_t y[NR];
        NDQ_GEMM_KEEP_LOOP
        for (size_t n = 0; n < NR; n++)
            y[n] = (uint32_t)acc[row * NR + n] + (uint32_t)c->add[n];
        NAME(copy)(out + row * stride, y, columns, sizeof(y[0]));
    }
}

/* y of one row, the same for all that is not int32. */
static inline __attribute__((always_inline, unused)) TARGET void NAME(real_row)(const int32_t *acc,
                                                                                const ndq_gemm_columns *c, float *y)
{
    NDQ_GEMM_KEEP_LOOP
    for (size_t n = 0; n < NR; n++) {
        const int32_t sum = (int32_t)((uint32_t)acc[n] + (uint32_t)c->add[n]);
        y[n] = ((float)sum + c->before[n]) * c->scale[n] + c->after[n];
    }
}

/* The same where before and after are zeros; y may be -0 instead of 0. */
static inline __attribute__((always_inline, unused)) TARGET void NAME(scaled_row)(const int32_t *acc,
                                                                                  const ndq_gemm_columns *c, float *y)
{
    NDQ_GEMM_KEEP_LOOP
    for (size_t n = 0; n < NR; n++)
        y[n] = (float)(int32_t)((uint32_t)acc[n] + (uint32_t)c->add[n]) * c->scale[n];
}

PLAIN void NAME(store_f32)(size_t rows, size_t columns, const int32_t *acc, const ndq_gemm_columns *c,
                           const ndq_gemm_stage *stage, uint8_t *out, size_t stride)
{
    const float floor = stage->floor, ceiling = stage->ceiling;
    for (size_t row = 0; row < rows; row++) {
        float y[NR];
        NAME(real_row)(acc + row * NR, c, y);
        NDQ_GEMM_KEEP_LOOP
        for (size_t n = 0; n < NR; n++) {
            y[n] = y[n] > floor ? y[n] : floor;
            y[n] = y[n] < ceiling ? y[n] : ceiling;
        }
        NAME(copy)(out + row * stride, y, columns, sizeof(y[0]));
    }
}

/* Clamps before rounding, which commute as the bounds are integers: the magic number needs a small argument. The low
 * bits of a float that has just been rounded by it are the integer. Bytes are made in a loop of their own over the
 * whole tile, long enough for full vectors. */
static inline __attribute__((always_inline, unused)) TARGET void
NAME(code_rows)(const bool float_bias, size_t rows, size_t columns, const int32_t *acc, const ndq_gemm_columns *c,
                const ndq_gemm_stage *stage, uint8_t *out, size_t stride)
{
    const float inv = stage->inv, lo = stage->lo, hi = stage->hi;
    const uint8_t zero = (uint8_t)stage->zero;
    uint32_t bits[NDQ_GEMM_MAX_MR * NR];
    uint8_t bytes[NDQ_GEMM_MAX_MR * NR];
    for (size_t row = 0; row < rows; row++) {
        float y[NR];
        if (float_bias)
            NAME(real_row)(acc + row * NR, c, y);
        else
            NAME(scaled_row)(acc + row * NR, c, y);
        NDQ_GEMM_KEEP_LOOP
        for (size_t n = 0; n < NR; n++) {
            float v = y[n] * inv;
            v = v > lo ? v : lo;
            v = v < hi ? v : hi;
            v += NDQ_GEMM_MAGIC;
            memcpy(&bits[row * NR + n], &v, sizeof(v));
        }
    }
    for (size_t i = 0; i < rows * NR; i++)
        bytes[i] = (uint8_t)((uint8_t)bits[i] + zero);
    for (size_t row = 0; row < rows; row++)
        NAME(copy)(out + row * stride, bytes + row * NR, columns, 1);
}

PLAIN void NAME(store_codes)(size_t rows, size_t columns, const int32_t *acc, const ndq_gemm_columns *c,
                             const ndq_gemm_stage *stage, uint8_t *out, size_t stride)
{
    if (stage->float_bias)
        NAME(code_rows)(true, rows, columns, acc, c, stage, out, stride);
    else
        NAME(code_rows)(false, rows, columns, acc, c, stage, out, stride);
}

#undef PLAIN
