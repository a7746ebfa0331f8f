/* Tiles of the VNNI kernels: up to 12 rows by two vectors, by one (narrow), or by one and a half (middle). vpdpbusd adds four
 * products of u8 activations by s8 weights to an int32, and wraps, so that the sum is exact modulo 2^32 whatever the order.
 *
 * Parameters: NAME(x), TARGET; VECTOR, the type of a vector of LANES words; LOAD(p), STORE(p, v), aligned; ZERO;
 * ADD_DOT(word, c0, c1), which adds the dot products of the word of a row with w0 and, unless `width` is NARROW, w1; and
 * END_ROWS(row, count, sums of four rows), what becomes of `count` or more rows from `row` on if `end` is not SUMS. */

typedef enum { NARROW, MIDDLE, WIDE } NAME(width);

/* What a tile ends in: sums in memory, or outputs, whose sums begin with what is added to them. */
typedef enum { SUMS, CODES, REALS } NAME(ending);

typedef struct {
    int32_t *acc;
    const ndq_gemm_columns *columns; /* of outputs, as is all that follows */
    const void *constants;
    uint8_t *out; /* of rows `stride` bytes apart */
    size_t stride;
    uint32_t kept; /* a bit for each column that is stored */
} NAME(target);

/* DO(row, address of its word, its accumulators) for each row of the tile. */
#define EACH_ROW(DO)                                                                                         \
    DO(0, a0, c00, c01);                                                                                     \
    if (rows > 1) DO(1, a0 + stride, c10, c11);                                                              \
    if (rows > 2) DO(2, a0 + 2 * stride, c20, c21);                                                          \
    if (rows > 3) DO(3, a3, c30, c31);                                                                       \
    if (rows > 4) DO(4, a3 + stride, c40, c41);                                                              \
    if (rows > 5) DO(5, a3 + 2 * stride, c50, c51);                                                          \
    if (rows > 6) DO(6, a6, c60, c61);                                                                       \
    if (rows > 7) DO(7, a6 + stride, c70, c71);                                                              \
    if (rows > 8) DO(8, a6 + 2 * stride, c80, c81);                                                          \
    if (rows > 9) DO(9, a9, c90, c91);                                                                       \
    if (rows > 10) DO(10, a9 + stride, ca0, ca1);                                                            \
    if (rows > 11) DO(11, a9 + 2 * stride, cb0, cb1)

#define MULTIPLY(row, word, c0, c1) ADD_DOT(word, c0, c1)
#define SAVE(row, word, c0, c1)                                                                              \
    (STORE(acc + 2 * LANES * (row), c0), STORE(acc + 2 * LANES * (row) + LANES, c1))

#define FETCH(row, word, c0, c1)                                                                             \
    (c0 = LOAD(acc + 2 * LANES * (row)), c1 = LOAD(acc + 2 * LANES * (row) + LANES))
#define BEGIN(row, word, c0, c1)                                                                             \
    (memcpy(&c0, to->columns->add, sizeof(c0)), memcpy(&c1, to->columns->add + LANES, sizeof(c1)))

/* The accumulators are named one by one: gcc keeps an array of them in memory. */
static inline __attribute__((always_inline)) TARGET void
NAME(tile)(const int rows, const NAME(width) width, const NAME(ending) end, const ndq_gemm_runs *runs, const uint8_t *a,
           size_t stride, const void *panel, const NAME(target) *to)
{
    int32_t *const acc = to->acc;
    const int32_t *b = panel;
    VECTOR c00 = ZERO, c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00;
    VECTOR c30 = c00, c31 = c00, c40 = c00, c41 = c00, c50 = c00, c51 = c00;
    VECTOR c60 = c00, c61 = c00, c70 = c00, c71 = c00, c80 = c00, c81 = c00;
    VECTOR c90 = c00, c91 = c00, ca0 = c00, ca1 = c00, cb0 = c00, cb1 = c00;
    const uint8_t *a0 = a, *a3 = a, *a6 = a, *a9 = a;
    if (end != SUMS) {
        EACH_ROW(BEGIN);
    } else if (runs->continued) {
        EACH_ROW(FETCH);
    }
    for (size_t run = 0; run < runs->runs; run++) {
        a0 = a + runs->offset[run];
        a3 = rows > 3 ? a0 + 3 * stride : a0;
        a6 = rows > 6 ? a3 + 3 * stride : a0;
        a9 = rows > 9 ? a6 + 3 * stride : a0;
        for (size_t k = 0; k < runs->words; k++, b += 2 * LANES, a0 += 4, a3 += 4, a6 += 4, a9 += 4) {
            const VECTOR w0 = LOAD(b), w1 = LOAD(b + LANES);
            EACH_ROW(MULTIPLY);
        }
    }
    if (end == SUMS) {
        EACH_ROW(SAVE);
        return;
    }
    END_ROWS(0, rows, c00, c01, c10, c11, c20, c21, c30, c31);
    if (rows > 4) END_ROWS(4, rows - 4, c40, c41, c50, c51, c60, c61, c70, c71);
    if (rows > 8) END_ROWS(8, rows - 8, c80, c81, c90, c91, ca0, ca1, cb0, cb1);
}

#define TILE(kind, rows, width)                                                                              \
    static TARGET void NAME(kind##_##rows)(const ndq_gemm_runs *runs, const uint8_t *a, size_t stride,       \
                                           const void *panel, int32_t *acc)                                  \
    {                                                                                                        \
        NAME(tile)(rows, width, SUMS, runs, a, stride, panel, &(NAME(target)){.acc = acc});                 \
    }
#define TILES(rows) TILE(wide, rows, WIDE) TILE(narrow, rows, NARROW)

typedef void NAME(tile_of_outputs)(const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, const void *panel,
                                   const NAME(target) *to);

#define TILE_OF_OUTPUTS(name, rows, width, end)                                                              \
    static TARGET void NAME(name##_##rows)(const ndq_gemm_runs *runs, const uint8_t *a, size_t stride,       \
                                           const void *panel, const NAME(target) *to)                        \
    {                                                                                                        \
        NAME(tile)(rows, width, end, runs, a, stride, panel, to);                                            \
    }

/* Rows in tiles of about equal size: one of few rows is slow. */
static void NAME(even_tiles)(NAME(tile_of_outputs) *const *by_rows, size_t limit, size_t count,
                             const ndq_gemm_runs *runs, const uint8_t *a, size_t stride, const void *panel,
                             NAME(target) to)
{
    const size_t tiles = ndq_ceil_div(count, limit), most = ndq_ceil_div(count, tiles);
    const size_t larger = count - tiles * (most - 1);
    for (size_t tile = 0, rows; tile < tiles; tile++, a += rows * stride, to.out += rows * to.stride) {
        rows = tile < larger ? most : most - 1;
        by_rows[rows - 1](runs, a, stride, panel, &to);
    }
}

/* One row by several panels, whose sums do not wait for each other; of the last panel all columns or the first half. */
#define ADD_PANEL(panel, c0, c1)                                                                             \
    do {                                                                                                     \
        const NAME(width) width = (panel) + 1 < panels ? WIDE : last;                                        \
        const int32_t *const b_ = (const int32_t *)(b + (panel) * panel_bytes);                              \
        const VECTOR w0 = LOAD(b_), w1 = width == WIDE ? LOAD(b_ + LANES) : ZERO;                            \
        ADD_DOT(row, c0, c1);                                                                                \
    } while (0)

static inline __attribute__((always_inline)) TARGET void
NAME(vector_tile)(const int panels, const NAME(width) last, size_t words, const uint8_t *row, const uint8_t *b,
                  size_t panel_bytes, int32_t *acc)
{
    VECTOR c00 = ZERO, c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00;
    for (size_t k = 0; k < words; k++, row += 4, b += 2 * LANES * sizeof(int32_t)) {
        ADD_PANEL(0, c00, c01);
        if (panels > 1) ADD_PANEL(1, c10, c11);
        if (panels > 2) ADD_PANEL(2, c20, c21);
        if (panels > 3) ADD_PANEL(3, c30, c31);
    }
    SAVE(0, row, c00, c01);
    if (panels > 1) SAVE(1, row, c10, c11);
    if (panels > 2) SAVE(2, row, c20, c21);
    if (panels > 3) SAVE(3, row, c30, c31);
}

#define VECTOR_TILE(name, panels, last)                                                                      \
    static TARGET void NAME(name##_##panels)(size_t words, const uint8_t *row, const uint8_t *b,             \
                                             size_t panel_bytes, int32_t *acc)                               \
    {                                                                                                        \
        NAME(vector_tile)(panels, last, words, row, b, panel_bytes, acc);                                    \
    }
#define VECTOR_TILES(panels) VECTOR_TILE(vector, panels, WIDE) VECTOR_TILE(narrow_vector, panels, NARROW)
VECTOR_TILES(1)
VECTOR_TILES(2)
VECTOR_TILES(3)
VECTOR_TILES(4)

static TARGET void NAME(expand_vector)(size_t K, const uint8_t *codes, bool is_signed, void *row)
{
    NAME(expand_u8)(K, codes, is_signed, 0, row);
}
