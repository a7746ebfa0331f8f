/* Tile of a depthwise convolution on x86: NR channels of 4 outputs at once, two taps at a time.
 *
 * Parameters: NAME(x) makes the function names; TARGET is the target attribute; VECTOR a register of NR int16; LOAD,
 * LOW, HIGH (unpack 16 bits), MADD, ADD (32 bits) its operations; SAVE(row, low, high) stores one row of sums.
 *
 * Unpacking two taps puts their codes of one channel side by side, so that vpmaddwd adds both products. It works on
 * lanes of 128 bits: of the 8 channels in each, 4 go into `low` and 4 into `high`. The panel has this order, a word
 * being the weights of two taps; a SAVE undoes it. */

enum { ROWS = 4 };

static void pack(size_t first, size_t count, const ndq_gemm_word *rows, size_t stride, size_t words,
                 ndq_gemm_word *panel)
{
    (void)words;
    for (size_t i = 0; i < count; i++)
        for (size_t n = 0; n < NR; n++)
            panel[(first + i) * NR + n % 8 / 4 * (NR / 2) + n / 8 * 4 + n % 4] = rows[n * stride + i];
}

#define ROW(row, low, high)                                                                                  \
    do {                                                                                                     \
        const VECTOR x_ = LOAD(a0 + (row) * stride), y_ = LOAD(a1 + (row) * stride);                         \
        low = ADD(low, MADD(LOW(x_, y_), w0));                                                               \
        high = ADD(high, MADD(HIGH(x_, y_), w1));                                                            \
    } while (0)

static inline __attribute__((always_inline)) TARGET void
outputs(const int rows, const ndq_gemm_runs *taps, const uint8_t *a, size_t stride, const void *panel, int32_t *acc)
{
    const uint8_t *w = panel;
    VECTOR l0 = ZERO, h0 = ZERO, l1 = ZERO, h1 = ZERO, l2 = ZERO, h2 = ZERO, l3 = ZERO, h3 = ZERO;
    for (size_t pair = 0; pair < taps->words; pair++, w += 2 * sizeof(VECTOR)) {
        const uint8_t *a0 = a + taps->offset[2 * pair], *a1 = a + taps->offset[2 * pair + 1];
        const VECTOR w0 = LOAD(w), w1 = LOAD(w + sizeof(VECTOR));
        ROW(0, l0, h0);
        if (rows > 1) ROW(1, l1, h1);
        if (rows > 2) ROW(2, l2, h2);
        if (rows > 3) ROW(3, l3, h3);
    }
    SAVE(0, l0, h0);
    if (rows > 1) SAVE(1, l1, h1);
    if (rows > 2) SAVE(2, l2, h2);
    if (rows > 3) SAVE(3, l3, h3);
}

#define OUTPUTS(rows)                                                                                        \
    static __attribute__((noinline)) TARGET void outputs_##rows(const ndq_gemm_runs *taps, const uint8_t *a, \
                                                                size_t stride, const void *panel, int32_t *acc) \
    {                                                                                                        \
        outputs(rows, taps, a, stride, panel, acc);                                                          \
    }
OUTPUTS(1)
OUTPUTS(2)
OUTPUTS(3)
OUTPUTS(4)

/* Tiles of more rows than registers hold, so that the output stage has long ones. */
static inline __attribute__((always_inline)) TARGET void
tile(const size_t rows, const ndq_gemm_runs *taps, const uint8_t *a, size_t stride, const void *panel, int32_t *acc)
{
    static ndq_gemm_tile *const rest[] = {outputs_1, outputs_2, outputs_3};
    for (size_t row = 0; row + ROWS <= rows; row += ROWS)
        outputs_4(taps, a + row * stride, stride, panel, acc + row * NR);
    if (rows % ROWS)
        rest[rows % ROWS - 1](taps, a + rows / ROWS * ROWS * stride, stride, panel, acc + rows / ROWS * ROWS * NR);
}

#define TILE(rows)                                                                                           \
    static TARGET void tile_##rows(const ndq_gemm_runs *taps, const uint8_t *a, size_t stride, const void *panel, \
                                   int32_t *acc)                                                             \
    {                                                                                                        \
        tile(rows, taps, a, stride, panel, acc);                                                             \
    }
NDQ_GEMM_EACH_ROW(TILE)

#define NAME_OF(rows) tile_##rows,
#define KERNEL(isa, macs, codes)                                                                                    \
    {                                                                                                        \
        .name = #isa "_depthwise", .mr = NDQ_GEMM_MAX_MR, .nr = NR, .codes_per_word = 2, .a_centred = true,             \
        .w_centred = true, .k_step = 2, .parallel_macs = macs, .expand_a = NAME(expand_s16),                 \
        .expand_w = NAME(expand_s16), .sums = NAME(sums), .pack = pack,                     \
        .tile = {NDQ_GEMM_EACH_ROW(NAME_OF)},                                                                \
        .store = {NAME(store_s32), NAME(store_f32), codes},                                      \
    }
