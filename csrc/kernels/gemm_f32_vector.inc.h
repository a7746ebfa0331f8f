/* Tiles of gemm_f32.h on x86: up to 12 rows by two vectors, or by one (narrow).
 *
 * Parameters: NAME(x), TARGET; VECTOR, the type of a vector, LANES floats long; LOAD(p), STORE(p, v) at any address;
 * ZERO. */

/* One term of one row: broadcast it, multiply it by the row of b, add. One asm statement, as in gemm_avx2.c: gcc would
 * move the broadcasts of all rows together and spill accumulators. The constraint v is x where there is no AVX-512. */
#define ROW(a, c0, c1)                                                                                       \
    do {                                                                                                     \
        VECTOR x_;                                                                                           \
        if (wide)                                                                                            \
            __asm__ volatile("vbroadcastss %[m], %[x]\n\t"                                                   \
                             "vfmadd231ps %[b0], %[x], %[s0]\n\t"                                            \
                             "vfmadd231ps %[b1], %[x], %[s1]"                                                \
                             : [s0] "+v"(c0), [s1] "+v"(c1), [x] "=&v"(x_)                                   \
                             : [m] "m"(*(const float *)(a)), [b0] "v"(b0), [b1] "v"(b1));                    \
        else                                                                                                 \
            __asm__ volatile("vbroadcastss %[m], %[x]\n\t"                                                   \
                             "vfmadd231ps %[b0], %[x], %[s0]"                                                \
                             : [s0] "+v"(c0), [x] "=&v"(x_)                                                  \
                             : [m] "m"(*(const float *)(a)), [b0] "v"(b0));                                  \
    } while (0)

#define FETCH(at, c0, c1)                                                                                    \
    do {                                                                                                     \
        c0 = LOAD(at);                                                                                       \
        if (wide)                                                                                            \
            c1 = LOAD((at) + LANES);                                                                         \
    } while (0)

#define SAVE(at, c0, c1)                                                                                     \
    do {                                                                                                     \
        STORE(at, c0);                                                                                       \
        if (wide)                                                                                            \
            STORE((at) + LANES, c1);                                                                         \
    } while (0)

/* What is written when the tile is done. */
#define PREFETCH(at, c0, c1) __builtin_prefetch(at, 1)

/* DO(its address, its accumulators) for each row of a tile: addresses are x0, x0 + s, x0 + 2 * s, x3, ... */
#define EACH_ROW(DO, x, s)                                                                                   \
    DO(x##0, c00, c01);                                                                                      \
    if (rows > 1) DO(x##0 + s, c10, c11);                                                                    \
    if (rows > 2) DO(x##0 + 2 * s, c20, c21);                                                                \
    if (rows > 3) DO(x##3, c30, c31);                                                                        \
    if (rows > 4) DO(x##3 + s, c40, c41);                                                                    \
    if (rows > 5) DO(x##3 + 2 * s, c50, c51);                                                                \
    if (rows > 6) DO(x##6, c60, c61);                                                                        \
    if (rows > 7) DO(x##6 + s, c70, c71);                                                                    \
    if (rows > 8) DO(x##6 + 2 * s, c80, c81);                                                                \
    if (rows > 9) DO(x##9, c90, c91);                                                                        \
    if (rows > 10) DO(x##9 + s, ca0, ca1);                                                                   \
    if (rows > 11) DO(x##9 + 2 * s, cb0, cb1)

/* Addresses of rows 0, 3, 6 and 9, of which the others are one or two strides off. */
#define THIRD_ROWS(type, x, first, s)                                                                        \
    type *x##0 = (first), *x##3 = rows > 3 ? x##0 + 3 * (s) : x##0;                                          \
    type *x##6 = rows > 6 ? x##3 + 3 * (s) : x##0, *x##9 = rows > 9 ? x##6 + 3 * (s) : x##0

/* One term of each row. */
#define TERM                                                                                                 \
    do {                                                                                                     \
        const VECTOR b0 = LOAD((const float *)b), b1 = LOAD((const float *)b + LANES);                       \
        if (packs) {                                                                                         \
            STORE(packed, b0);                                                                               \
            STORE(packed + LANES, b1);                                                                       \
            packed += 2 * LANES;                                                                             \
        }                                                                                                    \
        EACH_ROW(ROW, a, s);                                                                                 \
        b += stride_k;                                                                                       \
        a0 += step;                                                                                          \
        if (rows > 3) a3 += step;                                                                            \
        if (rows > 6) a6 += step;                                                                            \
        if (rows > 9) a9 += step;                                                                            \
    } while (0)

/* The accumulators are named one by one: gcc keeps an array of them in memory. Four terms go at a time: what counts
 * them and moves addresses would else be a fifth of the instructions, which shows on a core that two threads share. */
static inline __attribute__((always_inline)) TARGET void
NAME(terms)(const int rows, const bool wide, const bool packs, const ptrdiff_t step, size_t K, ndq_rows_f32 at,
            const char *b, const ptrdiff_t stride_k, float *packed, float *c, size_t stride, bool continued)
{
    const ptrdiff_t s = at.stride_m;
    THIRD_ROWS(const char, a, at.data, s);
    VECTOR c00 = ZERO, c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00;
    VECTOR c30 = c00, c31 = c00, c40 = c00, c41 = c00, c50 = c00, c51 = c00;
    VECTOR c60 = c00, c61 = c00, c70 = c00, c71 = c00, c80 = c00, c81 = c00;
    VECTOR c90 = c00, c91 = c00, ca0 = c00, ca1 = c00, cb0 = c00, cb1 = c00;
    THIRD_ROWS(float, from, c, stride);
    if (continued) {
        EACH_ROW(FETCH, from, stride);
    } else {
        EACH_ROW(PREFETCH, from, stride);
    }
    for (; K >= 4; K -= 4) {
        TERM;
        TERM;
        TERM;
        TERM;
    }
    NDQ_GEMM_KEEP_LOOP
    for (; K; K--)
        TERM;
    __asm__("" : "+r"(c), "+r"(stride)); /* gcc would keep twelve addresses on the stack instead of adding */
    THIRD_ROWS(float, to, c, stride);
    EACH_ROW(SAVE, to, stride);
}

/* Where terms lie next to each other, their distances are part of the instructions that read them. */
static inline __attribute__((always_inline)) TARGET void
NAME(tile)(const int rows, const bool wide, const bool packs, size_t K, ndq_rows_f32 a, const char *b,
           const ptrdiff_t stride_k, float *packed, float *c, size_t stride, bool continued)
{
    if (a.stride_k == sizeof(float))
        NAME(terms)(rows, wide, packs, sizeof(float), K, a, b, stride_k, packed, c, stride, continued);
    else
        NAME(terms)(rows, wide, packs, a.stride_k, K, a, b, stride_k, packed, c, stride, continued);
}

#define TILE(kind, rows, wide)                                                                               \
    static TARGET void NAME(kind##_##rows)(size_t K, ndq_rows_f32 a, const float *panel, float *c,           \
                                           size_t stride, bool continued)                                    \
    {                                                                                                        \
        NAME(tile)(rows, wide, false, K, a, (const char *)panel, NR * sizeof(float), NULL, c, stride,        \
                   continued);                                                                               \
    }
#define TILES(rows) TILE(wide, rows, true) TILE(narrow, rows, false)

static TARGET void NAME(packing_tile)(size_t K, ndq_rows_f32 a, const char *b, ptrdiff_t stride_k, float *panel,
                                      float *c, size_t stride, bool continued)
{
    NAME(tile)(MR, true, true, K, a, b, stride_k, panel, c, stride, continued);
}
