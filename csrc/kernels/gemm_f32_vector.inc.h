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

#define FETCH(row, c0, c1)                                                                                   \
    do {                                                                                                     \
        c0 = LOAD(c + (row) * stride);                                                                       \
        if (wide)                                                                                            \
            c1 = LOAD(c + (row) * stride + LANES);                                                           \
    } while (0)

#define SAVE(row, c0, c1)                                                                                    \
    do {                                                                                                     \
        STORE(c + (row) * stride, c0);                                                                       \
        if (wide)                                                                                            \
            STORE(c + (row) * stride + LANES, c1);                                                           \
    } while (0)

/* DO(row, address of its term, its accumulators) for each row of the tile. */
#define EACH_ROW(DO)                                                                                         \
    DO(0, a0, c00, c01);                                                                                     \
    if (rows > 1) DO(1, a0 + s, c10, c11);                                                                   \
    if (rows > 2) DO(2, a0 + 2 * s, c20, c21);                                                               \
    if (rows > 3) DO(3, a3, c30, c31);                                                                       \
    if (rows > 4) DO(4, a3 + s, c40, c41);                                                                   \
    if (rows > 5) DO(5, a3 + 2 * s, c50, c51);                                                               \
    if (rows > 6) DO(6, a6, c60, c61);                                                                       \
    if (rows > 7) DO(7, a6 + s, c70, c71);                                                                   \
    if (rows > 8) DO(8, a6 + 2 * s, c80, c81);                                                               \
    if (rows > 9) DO(9, a9, c90, c91);                                                                       \
    if (rows > 10) DO(10, a9 + s, ca0, ca1);                                                                 \
    if (rows > 11) DO(11, a9 + 2 * s, cb0, cb1)

#define MULTIPLY_ROW(row, a, c0, c1) ROW(a, c0, c1)
#define FETCH_ROW(row, a, c0, c1) FETCH(row, c0, c1)
#define SAVE_ROW(row, a, c0, c1) SAVE(row, c0, c1)

/* The accumulators are named one by one: gcc keeps an array of them in memory. */
static inline __attribute__((always_inline)) TARGET void
NAME(tile)(const int rows, const bool wide, size_t K, ndq_rows_f32 a, const float *panel, float *c, size_t stride,
           bool continued)
{
    const ptrdiff_t s = a.stride_m, step = a.stride_k;
    const char *a0 = a.data, *a3 = rows > 3 ? a0 + 3 * s : a0;
    const char *a6 = rows > 6 ? a3 + 3 * s : a0, *a9 = rows > 9 ? a6 + 3 * s : a0;
    VECTOR c00 = ZERO, c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00;
    VECTOR c30 = c00, c31 = c00, c40 = c00, c41 = c00, c50 = c00, c51 = c00;
    VECTOR c60 = c00, c61 = c00, c70 = c00, c71 = c00, c80 = c00, c81 = c00;
    VECTOR c90 = c00, c91 = c00, ca0 = c00, ca1 = c00, cb0 = c00, cb1 = c00;
    if (continued) {
        EACH_ROW(FETCH_ROW);
    }
    for (size_t k = 0; k < K; k++, panel += 2 * LANES) {
        const VECTOR b0 = LOAD(panel), b1 = LOAD(panel + LANES);
        EACH_ROW(MULTIPLY_ROW);
        a0 += step;
        if (rows > 3) a3 += step;
        if (rows > 6) a6 += step;
        if (rows > 9) a9 += step;
    }
    EACH_ROW(SAVE_ROW);
}

#define TILE(kind, rows, wide)                                                                               \
    static TARGET void NAME(kind##_##rows)(size_t K, ndq_rows_f32 a, const float *panel, float *c,           \
                                           size_t stride, bool continued)                                    \
    {                                                                                                        \
        NAME(tile)(rows, wide, K, a, panel, c, stride, continued);                                           \
    }
#define TILES(rows) TILE(wide, rows, true) TILE(narrow, rows, false)
