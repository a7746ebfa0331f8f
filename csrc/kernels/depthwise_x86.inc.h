/* Depthwise tile on x86: NR channels of up to 6 outputs at once in registers, and twice as many in a tile, so that the
 * output stage has long ones.
 *
 * Parameters: NAME(x) makes the function names; TARGET is the target attribute; VECTOR a register of NR int16; LOAD,
 * STORE, ZERO, MADD (int16 by int16, pairs added), ADD and SUBTRACT its operations; WIDEN_S8(p), WIDEN_U8(p) load and
 * widen; PAIRS(a, b, low, high) interleaves NR bytes at a and b, widened as is_signed says. Optional: ROW(row, low, high),
 * which multiplies a row of x by w0 and w1 and adds, by hand. */

static TARGET void expand_pairs(size_t count, const uint8_t *a, ptrdiff_t a_stride, const uint8_t *b,
                                ptrdiff_t b_stride, bool is_signed, int32_t zero, void *pixels)
{
    uint8_t *out = pixels;
    const VECTOR z = SET_S16((int16_t)zero);
    for (size_t i = 0; i < count; i++, a += a_stride, b += b_stride, out += 2 * sizeof(VECTOR)) {
        VECTOR low, high;
        PAIRS(a, b, low, high);
        STORE(out, SUBTRACT(low, z));
        STORE(out + sizeof(VECTOR), SUBTRACT(high, z));
    }
}

#ifndef ROW
#define ROW(row, low, high)                                                                                  \
    do {                                                                                                     \
        low = ADD(low, MADD(LOAD(x + (row) * stride), w0));                                                  \
        high = ADD(high, MADD(LOAD(x + (row) * stride + sizeof(VECTOR)), w1));                               \
    } while (0)
#endif

#define SAVE(row, low, high) (STORE(acc + NR * (row), low), STORE(acc + NR * (row) + NR / 2, high))

/* The accumulators are named one by one: gcc keeps an array of them in memory. */
#define SUMS(rows)                                                                                           \
    VECTOR l0 = ZERO, h0 = ZERO, l1 = ZERO, h1 = ZERO, l2 = ZERO, h2 = ZERO;                                 \
    VECTOR l3 = ZERO, h3 = ZERO, l4 = ZERO, h4 = ZERO, l5 = ZERO, h5 = ZERO;                                 \
    const uint8_t *w = panel;                                                                                \
    for (size_t tap = 0; tap < taps->runs; tap++, w += 2 * sizeof(VECTOR)) {                                 \
        const uint8_t *x = a + taps->offset[tap];                                                            \
        const VECTOR w0 = LOAD(w), w1 = LOAD(w + sizeof(VECTOR));                                            \
        ROW(0, l0, h0);                                                                                      \
        if (rows > 1) ROW(1, l1, h1);                                                                        \
        if (rows > 2) ROW(2, l2, h2);                                                                        \
        if (rows > 3) ROW(3, l3, h3);                                                                        \
        if (rows > 4) ROW(4, l4, h4);                                                                        \
        if (rows > 5) ROW(5, l5, h5);                                                                        \
    }

static inline __attribute__((always_inline)) TARGET void
outputs(const int rows, const ndq_gemm_runs *taps, const uint8_t *a, size_t stride, const void *panel, int32_t *acc)
{
    SUMS(rows)
    SAVE(0, l0, h0);
    if (rows > 1) SAVE(1, l1, h1);
    if (rows > 2) SAVE(2, l2, h2);
    if (rows > 3) SAVE(3, l3, h3);
    if (rows > 4) SAVE(4, l4, h4);
    if (rows > 5) SAVE(5, l5, h5);
}

#define TILE(rows)                                                                                           \
    static TARGET void tile_##rows(const ndq_gemm_runs *taps, const uint8_t *a, size_t stride, const void *panel, \
                                   int32_t *acc)                                                             \
    {                                                                                                        \
        outputs(rows, taps, a, stride, panel, acc);                                                          \
    }

#define TWO_TILES(rows, first, second)                                                                       \
    static TARGET void tile_##rows(const ndq_gemm_runs *taps, const uint8_t *a, size_t stride, const void *panel, \
                                   int32_t *acc)                                                             \
    {                                                                                                        \
        tile_##first(taps, a, stride, panel, acc);                                                           \
        tile_##second(taps, a + (first) * stride, stride, panel, acc + (first) * NR);                        \
    }

#define ALL_TILES(TILE, TWO_TILES)                                                                           \
    TILE(1)                                                                                                  \
    TILE(2)                                                                                                  \
    TILE(3)                                                                                                  \
    TILE(4)                                                                                                  \
    TILE(5)                                                                                                  \
    TILE(6)                                                                                                  \
    TWO_TILES(7, 4, 3)                                                                                       \
    TWO_TILES(8, 4, 4)                                                                                       \
    TWO_TILES(9, 5, 4)                                                                                       \
    TWO_TILES(10, 5, 5)                                                                                      \
    TWO_TILES(11, 6, 5)                                                                                      \
    TWO_TILES(12, 6, 6)
ALL_TILES(TILE, TWO_TILES)

#define NAMES(name)                                                                                          \
    {name##_1, name##_2, name##_3, name##_4, name##_5, name##_6, name##_7, name##_8, name##_9, name##_10, name##_11, \
     name##_12}

#ifdef NDQ_CODE_ROWS
static inline __attribute__((always_inline)) TARGET void
code_outputs(const int rows, const ndq_gemm_runs *taps, const uint8_t *a, size_t stride, const void *panel,
             const ndq_gemm_columns *c, const ndq_gemm_stage *constants, uint8_t *out, size_t out_stride)
{
    SUMS(rows)
    const NAME(stage) stage = NAME(make_stage)(constants);
    NDQ_CODE_ROWS(rows, 0, l0, h0, l1, h1);
    if (rows > 2) NDQ_CODE_ROWS(rows, 2, l2, h2, l3, h3);
    if (rows > 4) NDQ_CODE_ROWS(rows, 4, l4, h4, l5, h5);
}

#define CODE_TILE_ARGUMENTS                                                                                  \
    const ndq_gemm_runs *taps, const uint8_t *a, size_t stride, const void *panel, const ndq_gemm_columns *c, \
        const ndq_gemm_stage *stage, uint8_t *out, size_t out_stride

#define CODE_TILE(rows)                                                                                      \
    static TARGET void codes_##rows(CODE_TILE_ARGUMENTS)                                                     \
    {                                                                                                        \
        code_outputs(rows, taps, a, stride, panel, c, stage, out, out_stride);                               \
    }

#define TWO_CODE_TILES(rows, first, second)                                                                  \
    static TARGET void codes_##rows(CODE_TILE_ARGUMENTS)                                                     \
    {                                                                                                        \
        codes_##first(taps, a, stride, panel, c, stage, out, out_stride);                                    \
        codes_##second(taps, a + (first) * stride, stride, panel, c, stage, out + (first) * out_stride, out_stride); \
    }
ALL_TILES(CODE_TILE, TWO_CODE_TILES)
#define CODE_TILES NAMES(codes)
#else
#define CODE_TILES {NULL}
#endif

#define KERNEL(isa, macs, codes)                                                                             \
    {                                                                                                        \
        .name = #isa "_depthwise", .mr = 12, .nr = NR, .codes_per_word = 2, .a_centred = true,               \
        .w_centred = true, .k_step = 2, .parallel_macs = macs, .expand_pairs = expand_pairs,                 \
        .expand_w = NAME(expand_s16), .sums = NAME(sums), .pack = NAME(pack_words),                          \
        .tile = NAMES(tile), .code_tile = CODE_TILES,                                                        \
        .store = {NAME(store_s32), NAME(store_f32), codes},                                                  \
    }
