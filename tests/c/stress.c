/* Every backend that this CPU has, against the portable one, bit for bit, without Python; then four threads at once.
 *
 *   stress [--no-threads] [backend]...
 *
 * Named backends are checked alone, and must be there: slow emulated CPUs run only what no real one has.
 * Prints one line per group, `OK <group>` or `NOT OK <group>: <what>`, and the number of each; returns 1 on a failure.
 * Links with csrc less csrc/bindings, also statically, and needs only malloc, free, printf and memcmp of the C library,
 * and POSIX threads. The products are also compared with a plain triple loop in int64. */
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>

#include "../../csrc/backend.h"
#include "../../csrc/kernels/conv.h"
#include "../../csrc/kernels/conv_f32.h"
#include "../../csrc/cpu.h"
#include "../../csrc/threads.h"

#ifdef NDQ_X86
#include <immintrin.h>
#endif

/* ---- Random and extreme data ---- */

typedef struct {
    uint64_t state;
} rng;

/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled". */
static uint64_t next(rng *r)
{
    r->state ^= r->state >> 12;
    r->state ^= r->state << 25;
    r->state ^= r->state >> 27;
    return r->state * 0x2545f4914f6cdd1dULL;
}

static size_t below(rng *r, size_t n)
{
    return (size_t)(next(r) >> 33) % n;
}

static void *must_alloc(size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    if (!p) {
        printf("NOT OK: no memory\n");
        exit(2);
    }
    return p;
}

/* Half random bytes, or only the extremes of both signs. */
static uint8_t *random_codes(rng *r, size_t n, bool extremes)
{
    static const uint8_t extreme[] = {0x00, 0x7f, 0x80, 0xff};
    uint8_t *codes = must_alloc(n);
    for (size_t i = 0; i < n; i++)
        codes[i] = extremes ? extreme[below(r, 4)] : (uint8_t)next(r);
    return codes;
}

static double special(rng *r, double scale, double largest)
{
    switch (below(r, 8)) {
    case 0:
        return NAN;
    case 1:
        return INFINITY;
    case 2:
        return -INFINITY;
    case 3:
        return -0.0;
    case 4:
        return largest;
    case 5:
        return -largest;
    default: /* halfway between two codes */
        return ((double)below(r, 600) - 300 + 0.5) * scale;
    }
}

static double random_real(rng *r, double scale, double largest)
{
    if (below(r, 4) == 0)
        return special(r, scale, largest);
    return ((double)below(r, 1 << 24) / (1 << 23) - 1) * 200 * scale;
}

/* ---- Groups and what failed in them ---- */

static int passed, failed;

typedef struct {
    char name[64];
    char what[160];
} group;

#define FAIL(g, ...)                                                                                         \
    do {                                                                                                     \
        if (!(g)->what[0])                                                                                   \
            snprintf((g)->what, sizeof((g)->what), __VA_ARGS__);                                             \
    } while (0)

static void report(const group *g)
{
    if (g->what[0])
        printf("NOT OK %s: %s\n", g->name, g->what);
    else
        printf("OK %s\n", g->name);
    fflush(stdout);
    passed += !g->what[0];
    failed += g->what[0] != 0;
}

/* ---- Products ---- */

typedef struct {
    size_t M, N, K;
    bool a_signed, w_signed, extremes, transposed, with_float_bias, out_signed;
    ndq_activation activation;
    ndq_requantization requantization;
    int zero_points;    /* 0: none, 1: of a, 2: of both */
    int largest_weight; /* 0: any */
} product;

typedef struct {
    product p;
    uint8_t *a, *w;
    int32_t za, *zw, *bias;
    float *scale, *float_bias;
} operands;

static int32_t random_zero(rng *r, bool is_signed)
{
    static const int32_t u8[] = {0, 1, 17, 128, 255};
    return u8[below(r, 5)] - (is_signed ? 128 : 0);
}

/* Weights at most so far from their zero point, at either end more often than between. */
static void make_small(rng *r, operands *o)
{
    const product *p = &o->p;
    const int lowest = p->w_signed ? -128 : 0, largest = p->largest_weight;
    for (size_t n = 0; n < p->N; n++)
        for (size_t k = 0; k < p->K; k++) {
            const int away = below(r, 2) ? (int)below(r, 2 * (size_t)largest + 1) - largest : below(r, 2) ? largest : -largest;
            int w = o->zw[n] + away;
            w = w < lowest ? lowest : w > lowest + 255 ? lowest + 255 : w;
            o->w[p->transposed ? k * p->N + n : n * p->K + k] = (uint8_t)w;
        }
}

static operands make_operands(rng *r, const product *p)
{
    operands o = {.p = *p};
    o.a = random_codes(r, p->M * p->K, p->extremes);
    o.w = random_codes(r, p->N * p->K, p->extremes);
    o.za = p->zero_points ? random_zero(r, p->a_signed) : 0;
    o.zw = must_alloc(p->N * sizeof(int32_t));
    o.bias = must_alloc(p->N * sizeof(int32_t));
    o.scale = must_alloc(p->N * sizeof(float));
    o.float_bias = must_alloc(p->N * sizeof(float));
    for (size_t n = 0; n < p->N; n++) {
        o.zw[n] = p->zero_points > 1 ? random_zero(r, p->w_signed) : 0;
        o.bias[n] = (int32_t)below(r, 200001) - 100000;
        o.scale[n] = (float)(1 + below(r, 1000)) * 0.0001f;
        o.float_bias[n] = (float)below(r, 2001) * 0.01f - 10.0f;
    }
    if (p->largest_weight)
        make_small(r, &o);
    return o;
}

static void free_operands(operands *o)
{
    free(o->a);
    free(o->w);
    free(o->zw);
    free(o->bias);
    free(o->scale);
    free(o->float_bias);
}

static ndq_packed *pack(const ndq_gemm_kernel *kernel, const operands *o)
{
    const product *p = &o->p;
    const ndq_weights w = {
        .N = p->N,
        .K = p->K,
        .runs = 1,
        .codes = o->w,
        .stride_n = p->transposed ? 1 : (ptrdiff_t)p->K,
        .stride_k = p->transposed ? (ptrdiff_t)p->N : 1,
        .is_signed = p->w_signed,
        .zero_point = o->zw,
    };
    ndq_packed *packed = ndq_gemm_pack(kernel, &w, p->with_float_bias);
    if (!packed)
        return NULL;
    ndq_gemm_set_scales(packed, 0, p->N, o->scale, 1);
    for (size_t n = 0; n < p->N; n++) {
        if (p->with_float_bias)
            packed->float_bias[n] = o->float_bias[n];
        else
            packed->bias[n] = o->bias[n];
    }
    packed->max_bias = p->with_float_bias ? 0 : 100000;
    return packed;
}

static ndq_gemm_call make_call(const operands *o, const ndq_packed *packed, ndq_gemm_output output, void *out)
{
    const product *p = &o->p;
    return (ndq_gemm_call){
        .w = packed,
        .M = p->M,
        .a = o->a,
        .a_stride = (ptrdiff_t)p->K,
        .a_signed = p->a_signed,
        .za = o->za,
        .output = output,
        .out = out,
        .a_scale = 0.01f,
        .activation = p->activation,
        .out_scale = 0.75f,
        .out_inv = 1.0f / 0.75f,
        .out_zero = p->out_signed ? -5 : 17,
        .qmin = p->out_signed ? -128 : 0,
        .qmax = p->out_signed ? 127 : 255,
        .requantization = p->requantization,
    };
}

static int code_of(uint8_t byte, bool is_signed)
{
    return is_signed ? (int8_t)byte : byte;
}

static bool same_as_triple_loop(const operands *o, const int32_t *acc)
{
    const product *p = &o->p;
    for (size_t m = 0; m < p->M; m++)
        for (size_t n = 0; n < p->N; n++) {
            int64_t sum = p->with_float_bias ? 0 : o->bias[n];
            for (size_t k = 0; k < p->K; k++) {
                const uint8_t w = o->w[p->transposed ? k * p->N + n : n * p->K + k];
                sum += (int64_t)(code_of(o->a[m * p->K + k], p->a_signed) - o->za) *
                       (code_of(w, p->w_signed) - o->zw[n]);
            }
            if (sum != acc[m * p->N + n])
                return false;
        }
    return true;
}

enum { CANARY = 0xa5, CANARIES = 64 };

/* The product by one kernel into a fresh block with canaries behind it; NULL if they are gone or memory is. */
static uint8_t *run(const ndq_gemm_kernel *kernel, const operands *o, ndq_gemm_output output, size_t bytes)
{
    uint8_t *out = must_alloc(bytes + CANARIES);
    memset(out, CANARY, bytes + CANARIES);
    ndq_packed *packed = pack(kernel, o);
    const ndq_gemm_call call = make_call(o, packed, output, out);
    bool good = packed && ndq_gemm_overflow(packed, o->p.a_signed, o->za) == o->p.N && ndq_gemm(&call) == NDQ_OK;
    for (size_t i = 0; i < CANARIES; i++)
        good = good && out[bytes + i] == CANARY;
    ndq_gemm_free(packed);
    if (!good) {
        free(out);
        return NULL;
    }
    return out;
}

static void check_product(group *g, rng *r, const product *p, const ndq_gemm_kernel *kernel, bool triple_loop)
{
    static const char *const names[] = {"int32", "float32", "codes"};
    operands o = make_operands(r, p);
    for (ndq_gemm_output output = 0; output < NDQ_GEMM_OUTPUTS; output++) {
        const size_t bytes = p->M * p->N * (output == NDQ_GEMM_CODES ? 1 : 4);
        uint8_t *out = run(kernel, &o, output, bytes), *expected = run(&ndq_gemm_portable, &o, output, bytes);
        const bool same = out && expected && memcmp(out, expected, bytes) == 0;
        if (!same || (triple_loop && output == NDQ_GEMM_S32 && !same_as_triple_loop(&o, (const int32_t *)out)))
            FAIL(g, "M %zu N %zu K %zu, %s by %s, zero points %d, to %s", p->M, p->N, p->K, p->a_signed ? "s8" : "u8",
                 p->w_signed ? "s8" : "u8", p->zero_points, names[output]);
        free(out);
        free(expected);
    }
    free_operands(&o);
}

static product variant(size_t M, size_t N, size_t K, unsigned bits)
{
    return (product){
        .M = M,
        .N = N,
        .K = K,
        .a_signed = bits & 1,
        .w_signed = bits >> 1 & 1,
        .transposed = bits >> 2 & 1,
        .extremes = bits >> 3 & 1,
        .largest_weight = bits % 3 != 1 ? 0 : bits % 2 ? 127 : 16,
        .requantization = (ndq_requantization)((bits >> 4) % NDQ_REQUANTIZATIONS),
        .activation = (ndq_activation)(bits >> 5 & 1 ? 1 + bits % 2 : 0),
        .with_float_bias = bits >> 6 & 1,
        .out_signed = bits >> 7 & 1,
        .zero_points = (int)((bits >> 8) % 3),
    };
}

static void check_products(const char *backend, const ndq_gemm_kernel *kernel)
{
    static const size_t sizes[][3] = {
        {0, 3, 3},   {3, 0, 3},   {3, 3, 0},    {1, 1, 1},     {1, 16, 4},  {1, 17, 5},   {2, 31, 3},   {5, 32, 7},
        {6, 33, 8},  {7, 15, 63}, {11, 48, 64}, {12, 64, 65},  {13, 10, 2}, {25, 100, 84}, {3, 7, 255}, {3, 7, 256},
        {4, 9, 257}, {6, 5, 515}, {37, 70, 33}, {1, 100, 784}, {2, 3, 4100},
    };
    group g = {.what = ""};
    snprintf(g.name, sizeof(g.name), "products %s", backend);
    rng r = {20260801};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        for (unsigned bits = 0; bits < 3 * 256; bits += 1 + (unsigned)below(&r, 16)) {
            const product p = variant(sizes[i][0], sizes[i][1], sizes[i][2], bits);
            check_product(&g, &r, &p, kernel, true);
        }
    for (int i = 0; i < 200; i++) {
        const product p = variant(below(&r, 40), below(&r, 70), below(&r, 300), (unsigned)below(&r, 3 * 256));
        check_product(&g, &r, &p, kernel, true);
    }
    report(&g);
}

/* Large enough for the kernel to share among threads and to need several blocks. */
static void check_large_products(const char *backend, const ndq_gemm_kernel *kernel)
{
    static const size_t sizes[][3] = {{301, 130, 400}, {192, 256, 512}, {133, 163, 1034}, {5, 1000, 2100},
                                      {1, 1100, 2400}, {600, 9, 600}, {40, 33, 9000}};
    group g = {.what = ""};
    snprintf(g.name, sizeof(g.name), "large products %s", backend);
    rng r = {7};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        for (int j = 0; j < 3; j++) {
            const product p = variant(sizes[i][0], sizes[i][1], sizes[i][2], (unsigned)below(&r, 3 * 256));
            check_product(&g, &r, &p, kernel, false);
        }
    report(&g);
}

/* ---- Float products ---- */

/* A matrix (rows, columns) of elements of `size` bytes, by rows or by columns. */
static void set_strides(rng *r, size_t rows, size_t columns, ptrdiff_t size, ptrdiff_t *row, ptrdiff_t *column)
{
    const bool by_columns = below(r, 2);
    *row = by_columns ? size : (ptrdiff_t)columns * size;
    *column = by_columns ? (ptrdiff_t)rows * size : size;
}

/* Values of very different size, so that every order of adding shows. */
static float *random_floats(rng *r, size_t n)
{
    float *x = must_alloc(n * sizeof(*x));
    for (size_t i = 0; i < n; i++)
        x[i] = ((float)below(r, 1 << 24) - (1 << 23)) / (float)(1 << below(r, 24));
    return x;
}

static void check_float_product(group *g, rng *r, size_t M, size_t N, size_t K, const ndq_gemm_f32_kernel *kernel)
{
    float *a = random_floats(r, M * K), *b = random_floats(r, K * N), *scale = random_floats(r, K + 1);
    float *zero = random_floats(r, K + 1), *c[2];
    uint8_t *codes = random_codes(r, K * N, false);
    ndq_gemm_f32_call call = {.M = M, .N = N, .K = K, .a.data = (const char *)a};
    call.b = (ndq_terms){.type = (ndq_terms_type)below(r, 3), .scale = scale, .zero_point = zero, .per_row = below(r, 2)};
    const bool floats = call.b.type == NDQ_TERMS_F32;
    call.b.data = floats ? (const char *)b : (const char *)codes;
    set_strides(r, M, K, sizeof(*a), &call.a.stride_m, &call.a.stride_k);
    set_strides(r, K, N, floats ? sizeof(*b) : 1, &call.b.stride_k, &call.b.stride_n);
    bool good = true;
    for (int i = 0; i < 2; i++) {
        call.kernel = i ? &ndq_gemm_f32_portable : kernel;
        call.c = c[i] = random_floats(r, M * N);
        good = good && ndq_gemm_f32(&call) == NDQ_OK;
    }
    if (!good || memcmp(c[0], c[1], M * N * sizeof(**c)))
        FAIL(g, "M %zu N %zu K %zu, type %d", M, N, K, (int)call.b.type);
    free(a);
    free(b);
    free(scale);
    free(zero);
    free(codes);
    free(c[0]);
    free(c[1]);
}

static void check_float_products(const char *backend, const ndq_gemm_f32_kernel *kernel)
{
    static const size_t large[][3] = {{150, 70, 300}, {3, 1100, 270}, {14, 33, 1024}};
    group g = {.what = ""};
    snprintf(g.name, sizeof(g.name), "float products %s", backend);
    rng r = {3};
    for (int i = 0; i < 300; i++)
        check_float_product(&g, &r, below(&r, 40), below(&r, 70), below(&r, 80), kernel);
    for (size_t i = 0; i < sizeof(large) / sizeof(large[0]); i++)
        for (int j = 0; j < 4; j++)
            check_float_product(&g, &r, large[i][0], large[i][1], large[i][2], kernel);
    report(&g);
}

/* ---- Products by weights of 4 bits ---- */

static void check_grouped_product(group *g, rng *r, size_t M, size_t N, size_t groups, size_t size,
                                  const ndq_grouped_kernel *kernel)
{
    const size_t K = groups * size, n = N * groups;
    float *scale = random_floats(r, n + 1), *offset = random_floats(r, n + 1), *bias = random_floats(r, N + 1);
    float *a_scale = random_floats(r, M + 1), *y[2];
    double *zero = must_alloc((n + 1) * sizeof(*zero));
    int32_t *a_zero = must_alloc((M + 1) * sizeof(*a_zero));
    uint8_t *a = random_codes(r, M * K, below(r, 2)), *w = random_codes(r, N * K, false);
    const bool a_signed = below(r, 2), offsets = below(r, 3) == 0;
    for (size_t i = 0; i < n; i++)
        zero[i] = (double)below(r, 16) - 8;
    for (size_t i = 0; i < M; i++)
        a_zero[i] = random_zero(r, a_signed);
    for (size_t i = 0; i < N * K; i++)
        w[i] = (uint8_t)(w[i] % 16 - 8);
    const ndq_grouped_weights weights = {N, K, size, w, (uint8_t)-8, scale, zero, offsets ? offset : NULL,
                                         below(r, 2) ? bias : NULL};
    bool good = true;
    for (int i = 0; i < 2; i++) {
        ndq_grouped *packed = ndq_grouped_pack(i ? &ndq_grouped_portable : kernel, &weights);
        y[i] = random_floats(r, M * N);
        const ndq_grouped_call call = {packed, M, a, a_signed, a_scale, a_zero, true, y[i]};
        good = good && packed && ndq_grouped_multiply(&call) == NDQ_OK;
        ndq_grouped_free(packed);
    }
    if (!good || memcmp(y[0], y[1], M * N * sizeof(**y)))
        FAIL(g, "M %zu N %zu, %zu groups of %zu", M, N, groups, size);
    void *all[] = {scale, offset, bias, a_scale, zero, a_zero, a, w, y[0], y[1]};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        free(all[i]);
}

static void check_grouped_products(const char *backend, const ndq_grouped_kernel *kernel)
{
    group g = {.what = ""};
    snprintf(g.name, sizeof(g.name), "grouped products %s", backend);
    rng r = {44};
    for (int i = 0; i < 200; i++)
        check_grouped_product(&g, &r, below(&r, 12), below(&r, 70), 1 + below(&r, 20), 1 + below(&r, 70), kernel);
    check_grouped_product(&g, &r, 150, 70, 5, 64, kernel);
    check_grouped_product(&g, &r, 1, 1100, 17, 32, kernel);
    report(&g);
}

/* ---- Products of signs ---- */

static ndq_conv_axis random_binary_axis(rng *r)
{
    ndq_conv_axis axis = {.taps = 1 + below(r, 3), .stride = 1 + below(r, 2), .dilation = 1 + below(r, 2),
                          .pad = (ptrdiff_t)below(r, 3)};
    const size_t reach = (axis.taps - 1) * axis.dilation + 1;
    axis.in = reach + below(r, 6);
    axis.out = (axis.in + 2 * (size_t)axis.pad - reach) / axis.stride + 1;
    return axis;
}

/* A convolution, or, without axes, a product of matrices. */
static void check_binary_product(group *g, rng *r, size_t M, size_t N, size_t channels, const ndq_conv_axis *axes,
                                 const ndq_binary_kernel *kernel)
{
    static const ndq_conv_axis one = {.in = 1, .out = 1, .taps = 1, .stride = 1, .dilation = 1};
    ndq_binary_call call = {.images = M, .N = N, .channels = channels, .y = axes ? axes[0] : one, .x = axes ? axes[1] : one};
    const size_t bytes = (channels + 7) / 8, outputs = M * call.y.out * call.x.out * N;
    uint8_t *a = random_codes(r, M * call.y.in * call.x.in * bytes, below(r, 2));
    uint8_t *w = random_codes(r, N * call.y.taps * call.x.taps * bytes, false);
    int32_t *out[2];
    bool good = true;
    call.a = a;
    call.w = w;
    for (int i = 0; i < 2; i++) {
        call.kernel = i ? &ndq_binary_portable : kernel;
        call.out = out[i] = must_alloc(outputs * sizeof(**out));
        good = good && ndq_binary_multiply(&call) == NDQ_OK;
    }
    if (!good || memcmp(out[0], out[1], outputs * sizeof(**out)))
        FAIL(g, "M %zu N %zu, %zu channels%s", M, N, channels, axes ? ", convolution" : "");
    free(a);
    free(w);
    free(out[0]);
    free(out[1]);
}

static void check_binary_products(const char *backend, const ndq_binary_kernel *kernel)
{
    group g = {.what = ""};
    snprintf(g.name, sizeof(g.name), "products of signs %s", backend);
    rng r = {11};
    for (int i = 0; i < 100; i++) {
        const ndq_conv_axis axes[2] = {random_binary_axis(&r), random_binary_axis(&r)};
        check_binary_product(&g, &r, below(&r, 20), below(&r, 150), below(&r, 700), NULL, kernel);
        check_binary_product(&g, &r, below(&r, 3), below(&r, 90), below(&r, 140), axes, kernel);
    }
    check_binary_product(&g, &r, 70, 200, 5000, NULL, kernel);
    report(&g);
}

/* ---- Elementwise kernels ---- */

enum { ELEMENTS = 5000, CHANNELS = 7 };

typedef struct {
    double qmin, qmax, zp;
    ndq_geometry geometry;
    size_t position, n;
} span;

static span random_span(rng *r)
{
    static const double zero[] = {0, 1, 17, 128, 255};
    static const ndq_geometry geometries[] = {
        {1, ELEMENTS, 0, 0}, {CHANNELS, 1, 0, 0}, {CHANNELS, 13, 0, 0}, {CHANNELS, 200, 0, 0}, {CHANNELS, 1, 0, 6}};
    const bool is_signed = below(r, 2);
    const size_t a = below(r, ELEMENTS + 1), b = below(r, ELEMENTS + 1), shift = is_signed ? 128 : 0;
    span s = {0 - (double)shift, 255 - (double)shift, zero[below(r, 5)] - (double)shift, geometries[below(r, 5)],
              a < b ? a : b, a < b ? b - a : a - b};
    const size_t gap = s.geometry.gap, rows = s.n / (CHANNELS + gap);
    if (gap) {
        s.position = 0;
        s.n = rows ? rows * (CHANNELS + gap) - gap : 0;
    }
    return s;
}

#define SAME(what, one, other)                                                                               \
    do {                                                                                                     \
        if (memcmp(one, other, sizeof(one)))                                                                 \
            FAIL(g, "%s", what);                                                                             \
    } while (0)

/* Static: several of these blocks would not fit the small stack of an emulated machine. */
#define BUFFERS(T)                                                                                           \
    static T x[ELEMENTS], dy[ELEMENTS], y[2][ELEMENTS], dx[2][ELEMENTS];                                     \
    static uint32_t q[2][ELEMENTS];                                                                          \
    memset(y, 0, sizeof(y));                                                                                 \
    memset(dx, 0, sizeof(dx));                                                                               \
    memset(q, 0, sizeof(q));                                                                                 \
    for (size_t i = 0; i < ELEMENTS; i++) {                                                                  \
        x[i] = (T)random_real(r, 0.01, largest);                                                             \
        dy[i] = (T)random_real(r, 0.01, largest);                                                            \
    }                                                                                                        \
    (void)x, (void)dy, (void)y, (void)dx;

#define COEFFICIENTS(A, C, textbook)                                                                         \
    C scale[CHANNELS], inv[CHANNELS], zp[CHANNELS], lo[CHANNELS], hi[CHANNELS], offset[CHANNELS];            \
    for (size_t c = 0; c < CHANNELS; c++) {                                                                  \
        scale[c] = (C)(0.01 * (double)(c + 1));                                                              \
        inv[c] = 1 / scale[c];                                                                               \
        zp[c] = (C)(s.n % 2 ? s.zp : s.qmin + (double)(((size_t)(s.zp - s.qmin) + c) % 256));                \
        lo[c] = (C)(textbook ? s.qmin : s.qmin - (double)zp[c]);                                             \
        hi[c] = (C)(textbook ? s.qmax : s.qmax - (double)zp[c]);                                             \
        offset[c] = (C)(0.3 * (double)c);                                                                    \
    }                                                                                                        \
    const A p = {scale, inv, zp, lo, hi, offset, (C)s.qmin, false, s.n % 2};

#define CHECK_RULE(suffix, A, C, T, textbook)                                                                \
    static void check_rule_##suffix(group *g, rng *r, const ndq_kernels *const k[2], double largest)         \
    {                                                                                                        \
        const span s = random_span(r);                                                                       \
        BUFFERS(T)                                                                                           \
        COEFFICIENTS(A, C, textbook)                                                                         \
        double sums[2][2] = {{0}}, errors[2][4] = {{0}};                                                     \
        for (int i = 0; i < 2; i++)                                                                          \
            k[i]->quantize_##suffix(&p, &s.geometry, s.position, s.n, x, (uint8_t *)q[i]);                   \
        SAME("quantize_" #suffix, q[0], q[1]);                                                               \
        for (int i = 0; i < 2; i++)                                                                          \
            k[i]->quantize16_##suffix(&p, &s.geometry, s.position, s.n, x, (uint16_t *)q[i]);                \
        SAME("quantize16_" #suffix, q[0], q[1]);                                                             \
        for (int i = 0; i < 2; i++)                                                                          \
            k[i]->fake_quantize_##suffix(&p, &s.geometry, s.position, s.n, x, y[i]);                          \
        SAME("fake_quantize_" #suffix, y[0], y[1]);                                                          \
        for (int i = 0; i < 2; i++)                                                                          \
            k[i]->fake_quantize_backward_##suffix(&p, &s.geometry, s.position, s.n, dy, x, dx[i]);            \
        SAME("fake_quantize_backward_" #suffix, dx[0], dx[1]);                                               \
        for (int i = 0; i < 2; i++)                                                                          \
            k[i]->fake_quantize_with_grad_##suffix(&p, &s.geometry, s.position, s.n, dy, x, y[i], dx[i]);     \
        SAME("fake_quantize_with_grad_" #suffix " y", y[0], y[1]);                                           \
        SAME("fake_quantize_with_grad_" #suffix " dx", dx[0], dx[1]);                                        \
        for (size_t i = 0; i < ELEMENTS; i++) /* sums of infinities are NaN, whose bits are nobody's contract */ \
            dy[i] = (T)((double)below(r, 2001) * 0.01 - 10);                                                 \
        for (size_t i = 0; i < ELEMENTS; i++)                                                                \
            x[i] = (T)(((double)below(r, 60001) - 30000) * 0.001);                                           \
        for (int i = 0; i < 2; i++)                                                                          \
            k[i]->fake_quantize_learnable_##suffix(&p, 1, s.n < NDQ_BLOCK ? s.n : NDQ_BLOCK,     \
                                                   dy, x, dx[i], sums[i]);                                   \
        SAME("fake_quantize_learnable_" #suffix " dx", dx[0], dx[1]);                                        \
        SAME("fake_quantize_learnable_" #suffix " sums", sums[0], sums[1]);                                  \
        for (int i = 0; i < 2; i++)                                                                          \
            k[i]->errors_##suffix(&p, 1, s.n < NDQ_BLOCK ? s.n : NDQ_BLOCK, x, errors[i]);                   \
        SAME("errors_" #suffix, errors[0], errors[1]);                                                       \
    }

CHECK_RULE(f32, ndq_affine_f32, float, float, false)
CHECK_RULE(divide_f32, ndq_affine_f32, float, float, false)
CHECK_RULE(f64, ndq_affine_f64, double, double, false)
CHECK_RULE(divide_f64, ndq_affine_f64, double, double, false)
CHECK_RULE(textbook, ndq_affine_f64, double, double, true)

#define CHECK_DEQUANTIZE(slot, C)                                                                            \
    for (int i = 0; i < 2; i++)                                                                              \
        k[i]->slot(&p, &s.geometry, s.position, s.n, (const C *)q[0], y[i]);                                 \
    SAME(#slot, y[0], y[1]);

#define CHECK_CODES(suffix, A, T, textbook)                                                                  \
    static void check_codes_##suffix(group *g, rng *r, const ndq_kernels *const k[2], double largest)        \
    {                                                                                                        \
        const span s = random_span(r);                                                                       \
        BUFFERS(T)                                                                                           \
        COEFFICIENTS(A, T, textbook)                                                                         \
        for (size_t i = 0; i < ELEMENTS; i++)                                                                \
            q[0][i] = (uint32_t)next(r);                                                                     \
        CHECK_DEQUANTIZE(dequantize_s8_##suffix, int8_t)                                                     \
        CHECK_DEQUANTIZE(dequantize_u8_##suffix, uint8_t)                                                    \
        CHECK_DEQUANTIZE(dequantize_s16_##suffix, int16_t)                                                   \
        CHECK_DEQUANTIZE(dequantize_u16_##suffix, uint16_t)                                                  \
    }

CHECK_CODES(f32, ndq_affine_f32, float, false)
CHECK_CODES(divide_f32, ndq_affine_f32, float, false)
CHECK_CODES(f64, ndq_affine_f64, double, false)
CHECK_CODES(divide_f64, ndq_affine_f64, double, false)
CHECK_CODES(textbook, ndq_affine_f64, double, true)

#define CHECK_WIDE(suffix, textbook)                                                                         \
    static void check_wide_##suffix(group *g, rng *r, const ndq_kernels *const k[2], double largest)         \
    {                                                                                                        \
        span s = random_span(r);                                                                             \
        s.qmin = s.qmin < 0 ? INT32_MIN : 0;                                                                 \
        s.qmax = s.qmin < 0 ? INT32_MAX : UINT32_MAX;                                                        \
        BUFFERS(double)                                                                                      \
        COEFFICIENTS(ndq_affine_f64, double, textbook)                                                       \
        for (int i = 0; i < 2; i++)                                                                          \
            k[i]->quantize32_##suffix(&p, &s.geometry, s.position, s.n, x, q[i]);                            \
        SAME("quantize32_" #suffix, q[0], q[1]);                                                             \
        CHECK_DEQUANTIZE(dequantize_s32_##suffix, int32_t)                                                   \
        CHECK_DEQUANTIZE(dequantize_u32_##suffix, uint32_t)                                                  \
    }

CHECK_WIDE(f64, false)
CHECK_WIDE(divide_f64, false)
CHECK_WIDE(textbook, true)

/* Whether the processor itself rounds 1 + 2^-11, which lies in the middle of 1 and the next float16, to that: the emulator
 * Bochs 2.7 does, against IEEE 754. Asked of the bare instruction, so that it hides no error of a kernel. */
#ifdef NDQ_X86
__attribute__((target("f16c"))) static bool half_ties_go_up(void)
{
    volatile float tie = 1.0f + 0x1p-11f;
    return ndq_cpu_features()->avx2 && (_mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(tie), 0)) & 0xffff) != 0x3c00;
}
#else
static bool half_ties_go_up(void)
{
    return false;
}
#endif

/* float16 from all its values and to it from random bits: every NaN, subnormal and way of rounding. */
static void check_halves(group *g, rng *r, const ndq_kernels *const k[2])
{
    enum { ALL = 1 << 16, N = ALL - 3 };
    static uint16_t halves[ALL], narrow[2][N];
    static uint32_t bits[N];
    static float wide[2][N];
    for (size_t i = 0; i < ALL; i++)
        halves[i] = (uint16_t)i;
    for (size_t i = 0; i < N; i++)
        bits[i] = i < 8 * N / 9 ? (uint32_t)next(r) : 0x33000000 + (uint32_t)next(r) % 0x15000000;
    if (half_ties_go_up())
        for (size_t i = 0; i < N; i++)
            bits[i] |= 1;
    for (int i = 0; i < 2; i++) {
        k[i]->widen_f16(N, halves + 3, wide[i]);
        k[i]->narrow_f16(N, (const float *)bits, narrow[i]);
    }
    SAME("widen_f16", wide[0], wide[1]);
    SAME("narrow_f16", narrow[0], narrow[1]);
}

static bool same_extremes(const ndq_extremes *a, const ndq_extremes *b)
{
    return memcmp(&a->min, &b->min, sizeof(a->min)) == 0 && memcmp(&a->max, &b->max, sizeof(a->max)) == 0 &&
           a->nans == b->nans && a->infs == b->infs;
}

#define CHECK_TYPE(suffix, T)                                                                                \
    static void check_type_##suffix(group *g, rng *r, const ndq_kernels *const k[2], double largest)         \
    {                                                                                                        \
        const span s = random_span(r);                                                                       \
        BUFFERS(T)                                                                                           \
        ndq_extremes e[2] = {{INFINITY, -INFINITY, 0, 0}, {INFINITY, -INFINITY, 0, 0}};                      \
        for (int i = 0; i < 2; i++)                                                                          \
            k[i]->minmax_##suffix(s.n, x, &e[i]);                                                            \
        if (!same_extremes(&e[0], &e[1]))                                                                    \
            FAIL(g, "minmax_" #suffix);                                                                      \
    }

CHECK_TYPE(f32, float)
CHECK_TYPE(f64, double)

/* Ranges of many sizes over values of both signs; a power other than 2 takes the other loop. */
static void check_clip_error(group *g, rng *r, const ndq_kernels *const k[2])
{
    static double x[ELEMENTS], weight[ELEMENTS];
    const size_t n = below(r, ELEMENTS);
    for (size_t i = 0; i < n; i++) {
        x[i] = random_real(r, 0.01, 1e6);
        weight[i] = (double)below(r, 1000);
    }
    const ndq_levels levels = {-0.01 * (double)below(r, 300), 0.001 * (double)(1 + below(r, 100)), (double)below(r, 300)};
    for (int p = 2; p < 4; p++) {
        double sum[2][1];
        for (int i = 0; i < 2; i++) {
            k[i]->clip_error_f64(&levels, p, n, x, weight, sum[i]);
            sum[i][0] = isnan(sum[i][0]) ? NAN : sum[i][0];
        }
        SAME("clip_error", sum[0], sum[1]);
    }
}

/* Gradients up to the largest number: moments overflow, and roots of infinity are taken. */
#define CHECK_UPDATE(suffix, T)                                                                              \
    static void check_update_##suffix(group *g, rng *r, const ndq_kernels *const k[2], double largest)       \
    {                                                                                                        \
        static T start[4][ELEMENTS], a[2][4][ELEMENTS];                                                      \
        const span s = random_span(r);                                                                       \
        const size_t end = s.position + s.n;                                                                 \
        const ndq_sgd sgd = {.lr = 0.1, .momentum = 0.9};                                                    \
        const ndq_adam adam = {.rate = 0.01, .beta1 = 0.9, .beta2 = 0.999, .correction = 31.6, .eps = 1e-8};  \
        for (size_t i = 0; i < 4 * ELEMENTS; i++)                                                            \
            start[i / ELEMENTS][i % ELEMENTS] = (T)random_real(r, 0.01, largest);                            \
        for (size_t i = 0; i < ELEMENTS; i++) /* the second moment is no negative number */                  \
            start[3][i] = start[3][i] < 0 ? -start[3][i] : start[3][i];                                      \
        for (int i = 0; i < 2; i++) {                                                                        \
            memcpy(a[i], start, sizeof(start));                                                              \
            k[i]->relu_backward_##suffix(s.position, end, a[i][0], a[i][1], a[i][2]);                         \
        }                                                                                                    \
        SAME("relu_backward_" #suffix, a[0], a[1]);                                                          \
        for (int i = 0; i < 2; i++)                                                                          \
            k[i]->sgd_step_##suffix(&sgd, s.position, end, a[i][0], a[i][1]);                                 \
        SAME_NUMBERS("sgd_step_" #suffix, a);                                                                \
        for (int i = 0; i < 2; i++)                                                                          \
            k[i]->sgd_momentum_step_##suffix(&sgd, s.position, end, a[i][0], a[i][1], a[i][2]);               \
        SAME_NUMBERS("sgd_momentum_step_" #suffix, a);                                                       \
        for (int i = 0; i < 2; i++)                                                                          \
            k[i]->adam_step_##suffix(&adam, s.position, end, a[i][0], a[i][1], a[i][3], a[i][2]);             \
        SAME_NUMBERS("adam_step_" #suffix, a);                                                               \
    }

/* Which NaN an operation gives, of the two that went in, is nobody's contract: here all are the same one. */
#define SAME_NUMBERS(what, a)                                                                                \
    do {                                                                                                     \
        for (size_t j = 0; j < 8 * ELEMENTS; j++)                                                            \
            if (isnan(a[j / 4 / ELEMENTS][j / ELEMENTS % 4][j % ELEMENTS]))                                  \
                a[j / 4 / ELEMENTS][j / ELEMENTS % 4][j % ELEMENTS] = NAN;                                   \
        SAME(what, a[0], a[1]);                                                                              \
    } while (0)

CHECK_UPDATE(f32, float)
CHECK_UPDATE(f64, double)

#define CHECK_CHANNELS(suffix, T)                                                                            \
    static void check_channels_##suffix(group *g, rng *r, const ndq_kernels *const k[2])                     \
    {                                                                                                        \
        static T start[6][ELEMENTS], a[2][2][ELEMENTS];                                                      \
        static T repeated[2][ELEMENTS + NDQ_REPEAT_OVER];                                                    \
        static double sums[2][2 * ELEMENTS];                                                                 \
        const size_t inner = 1 + below(r, NDQ_REPEAT_MOST), count = below(r, ELEMENTS / inner + 1);          \
        for (size_t i = 0; i < 6 * ELEMENTS; i++)                                                            \
            start[i / ELEMENTS][i % ELEMENTS] = (T)below(r, 1 << 24) / (1 << 23) - 1;                        \
        const span s = random_span(r);                                                                       \
        const size_t end = s.position + s.n, C = s.geometry.channels;                                        \
        const ndq_channels_##suffix p = {start[2], start[3], start[4], start[5]};                            \
        memset(a, 0, sizeof(a));                                                                             \
        memset(sums, 0, sizeof(sums));                                                                       \
        for (int i = 0; i < 2; i++) {                                                                        \
            k[i]->scale_channels_##suffix(&p, &s.geometry, s.position, end, start[0], a[i][0]);              \
            k[i]->mix_channels_##suffix(&p, &s.geometry, s.position, end, start[0], start[1], a[i][1]);      \
            k[i]->sum_rows_##suffix(s.n / C, C, start[0], start[1], sums[i]);                                \
            k[i]->sum_run_##suffix(s.n, start[0], start[1], sums[i], sums[i] + ELEMENTS);                    \
            k[i]->repeat_##suffix(inner, count, start[0], repeated[i]);                                      \
        }                                                                                                    \
        SAME("channels_" #suffix, a[0], a[1]);                                                               \
        for (size_t j = 0; j < count * inner; j++)                                                           \
            if (repeated[0][j] != start[0][j / inner] || repeated[1][j] != start[0][j / inner])              \
                FAIL(g, "%s", "repeat_" #suffix);                                                            \
        SAME("sums of channels_" #suffix, sums[0], sums[1]);                                                 \
    }

CHECK_CHANNELS(f32, float)
CHECK_CHANNELS(f64, double)

static void check_cells(group *g, rng *r, const ndq_kernels *const k[2])
{
    static float gates[2][ELEMENTS], y[2][ELEMENTS], state[2][3][ELEMENTS / 4];
    static int32_t sums[2][ELEMENTS];
    const size_t n = below(r, ELEMENTS + 1), H = below(r, ELEMENTS / 4 + 1);
    memset(y, 0, sizeof(y));
    for (size_t i = 0; i < ELEMENTS; i++)
        for (int j = 0; j < 2; j++) {
            gates[j][i] = (float)below(r, 1 << 24) / (1 << 20) - 8;
            sums[j][i] = (int32_t)below(r, 1 << 28);
        }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 3; j++)
            memcpy(state[i][j], gates[0] + ELEMENTS / 4 * j, sizeof(state[i][j]));
    const ndq_sums_row row = {0.01f, (int32_t)below(r, 256), gates[0], gates[1], sums[1]};
    for (int i = 0; i < 2; i++) {
        k[i]->scale_sums_f32(&row, n, sums[0], y[i]);
        k[i]->lstm_cell_f32(H, gates[0], gates[1], state[i][0], state[i][1]);
        k[i]->gru_cell_f32(H, gates[0], gates[1], state[i][2]);
    }
    SAME("scale_sums", y[0], y[1]);
    SAME("cells", state[0], state[1]);
}

static void check_rows(group *g, rng *r, const ndq_kernels *const k[2])
{
    static float x[ELEMENTS], gain[ELEMENTS], y[2][5][ELEMENTS];
    const size_t n = 1 + below(r, ELEMENTS);
    memset(y, 0, sizeof(y));
    for (size_t i = 0; i < ELEMENTS; i++) {
        x[i] = below(r, 40) ? (float)below(r, 1 << 24) / (1 << 17) - 64 : -INFINITY;
        gain[i] = (float)below(r, 1 << 24) / (1 << 22);
    }
    const ndq_norm_f32 norm = {gain, x, 1e-5f};
    for (int i = 0; i < 2; i++) {
        k[i]->softmax_f32(n, x, y[i][0]);
        k[i]->gelu_f32(n, gain, y[i][1]);
        k[i]->gelu_tanh_f32(n, gain, y[i][2]);
        k[i]->layer_norm_f32(&norm, n, gain, y[i][3], y[i][4]);
    }
    SAME("rows", y[0], y[1]);
}

/* Codes of every width side by side, and back. */
static void check_bits(group *g, rng *r, const ndq_kernels *const k[2])
{
    const int bits = 1 + (int)below(r, 8);
    const size_t n = below(r, ELEMENTS), bytes = (n * (size_t)bits + 7) / 8;
    const uint8_t lowest = (uint8_t)next(r);
    uint8_t *codes = random_codes(r, n, false), *packed[2], *back[2], largest[2] = {0, 0};
    for (size_t i = 0; i < n; i++)
        codes[i] = (uint8_t)(codes[i] % (1 << bits) + lowest);
    for (int i = 0; i < 2; i++) {
        packed[i] = random_codes(r, bytes, false);
        back[i] = random_codes(r, n, false);
        k[i]->pack_u8(bits, lowest, n, codes, packed[i], &largest[i]);
        k[i]->unpack_u8(bits, lowest, n, packed[i], back[i], &largest[i]);
    }
    if (memcmp(packed[0], packed[1], bytes) || memcmp(back[0], codes, n) || memcmp(back[1], codes, n) ||
        largest[0] != largest[1])
        FAIL(g, "%zu codes of %d bits", n, bits);
    void *all[] = {codes, packed[0], packed[1], back[0], back[1]};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        free(all[i]);
}

static void check_elementwise(const char *backend, const ndq_kernels *kernels)
{
    const ndq_kernels *const both[2] = {kernels, ndq_kernels_of("portable")};
    group g = {.what = ""};
    snprintf(g.name, sizeof(g.name), "elementwise %s", backend);
    rng r = {31337};
    for (int i = 0; i < 40; i++) {
        check_rule_f32(&g, &r, both, FLT_MAX);
        check_rule_divide_f32(&g, &r, both, FLT_MAX);
        check_rule_f64(&g, &r, both, DBL_MAX);
        check_rule_divide_f64(&g, &r, both, DBL_MAX);
        check_rule_textbook(&g, &r, both, DBL_MAX);
        check_codes_f32(&g, &r, both, FLT_MAX);
        check_codes_divide_f32(&g, &r, both, FLT_MAX);
        check_codes_f64(&g, &r, both, DBL_MAX);
        check_codes_divide_f64(&g, &r, both, DBL_MAX);
        check_codes_textbook(&g, &r, both, DBL_MAX);
        check_wide_f64(&g, &r, both, DBL_MAX);
        check_wide_divide_f64(&g, &r, both, DBL_MAX);
        check_wide_textbook(&g, &r, both, DBL_MAX);
        check_type_f32(&g, &r, both, FLT_MAX);
        check_type_f64(&g, &r, both, DBL_MAX);
        check_update_f32(&g, &r, both, FLT_MAX);
        check_update_f64(&g, &r, both, DBL_MAX);
        check_channels_f32(&g, &r, both);
        check_channels_f64(&g, &r, both);
        check_clip_error(&g, &r, both);
        check_halves(&g, &r, both);
        check_cells(&g, &r, both);
        check_rows(&g, &r, both);
        check_bits(&g, &r, both);
    }
    if (half_ties_go_up())
        printf("float16: ties are not compared, as this processor itself does not round them to even\n");
    report(&g);
}

/* ---- Convolutions of floats ---- */

static ndq_conv_axis random_axis(rng *r)
{
    ndq_conv_axis a = {.taps = 1 + below(r, 4), .stride = 1 + below(r, 3), .dilation = 1 + below(r, 2),
                       .pad = (ptrdiff_t)below(r, 3)};
    const size_t reach = (a.taps - 1) * a.dilation + 1;
    a.in = reach + below(r, 15);
    a.out = (a.in + 2 * (size_t)a.pad - reach) / a.stride + 1;
    return a;
}

/* (N, C, H, W) or the same channels last. */
static ndq_images_f32 laid_out(const float *data, size_t C, size_t H, size_t W, bool last)
{
    const ptrdiff_t size = sizeof(float), c = last ? size : (ptrdiff_t)(H * W) * size;
    const ptrdiff_t x = last ? (ptrdiff_t)C * size : size;
    return (ndq_images_f32){(const char *)data, (ptrdiff_t)(C * H * W) * size, c, (ptrdiff_t)W * x, x};
}

typedef ndq_status convolution(const ndq_conv_f32_call *call);

/* Whether a kernel gives the bits of the portable one, and nothing behind them. */
static bool same_convolution(convolution *function, ndq_conv_f32_call call, const ndq_gemm_f32_kernel *kernel, size_t n)
{
    const size_t bytes = n * sizeof(float);
    const ndq_gemm_f32_kernel *const kernels[] = {kernel, &ndq_gemm_f32_portable};
    uint8_t *out[2];
    bool good = true;
    for (int i = 0; i < 2; i++) {
        out[i] = must_alloc(bytes + CANARIES);
        memset(out[i], CANARY, bytes + CANARIES);
        call.kernel = kernels[i];
        call.out = (float *)(void *)out[i];
        good = function(&call) == NDQ_OK && good;
        for (size_t c = 0; c < CANARIES; c++)
            good = good && out[i][bytes + c] == CANARY;
    }
    good = good && memcmp(out[0], out[1], bytes) == 0;
    free(out[0]);
    free(out[1]);
    return good;
}

static void check_convolution(group *g, rng *r, const ndq_gemm_f32_kernel *kernel)
{
    const size_t groups = 1 + below(r, 3) / 2, C = groups * below(r, 20), O = groups * below(r, 40);
    ndq_conv_f32_call call = {.N = below(r, 12), .C = C, .O = O, .groups = groups, .y = random_axis(r),
                              .x = random_axis(r)};
    const size_t in = call.y.in * call.x.in, out = call.y.out * call.x.out;
    const size_t weights = O * (C / groups) * call.y.taps * call.x.taps;
    float *x = random_floats(r, call.N * C * in), *dy = random_floats(r, call.N * O * out);
    float *w = random_floats(r, weights), *bias = random_floats(r, O);
    call.w = w;
    call.bias = below(r, 2) ? bias : NULL;
    call.in = laid_out(x, C, call.y.in, call.x.in, below(r, 2));
    call.dy = laid_out(dy, O, call.y.out, call.x.out, below(r, 2));
    bool same = same_convolution(ndq_conv_f32, call, kernel, call.N * O * out) &&
                same_convolution(ndq_conv_f32_weight_grad, call, kernel, weights);
    call.bias = NULL;
    call.in = call.dy;
    same = same && same_convolution(ndq_conv_f32_input_grad, call, kernel, call.N * C * in);
    if (!same)
        FAIL(g, "N %zu C %zu O %zu groups %zu, %zu x %zu, window %zu x %zu", call.N, C, O, groups, call.y.in,
             call.x.in, call.y.taps, call.x.taps);
    free(x);
    free(dy);
    free(w);
    free(bias);
}

static void check_convolutions(const char *backend, const ndq_gemm_f32_kernel *kernel)
{
    group g = {.what = ""};
    snprintf(g.name, sizeof(g.name), "float convolutions %s", backend);
    rng r = {4711};
    for (int i = 0; i < 150; i++)
        check_convolution(&g, &r, kernel);
    report(&g);
}

/* ---- Convolutions of codes ---- */

/* An image (N, C, H, W), its weights (O, C / groups, KH, KW), and how they meet. */
typedef struct {
    ndq_conv_source source;
    ndq_conv_call call;
    uint8_t *x, *w;
    int32_t *zw;
    size_t outputs;
    bool with_float_bias, out_last;
} convolution_of_codes;

/* One channel in three groups of cases is depthwise, with one output for each channel or two. */
static convolution_of_codes make_convolution(rng *r)
{
    const bool depthwise = below(r, 3) == 0, extremes = below(r, 2), x_last = below(r, 2);
    const size_t groups = depthwise ? 2 + below(r, 70) : 1 + below(r, 3) / 2, C = depthwise ? 1 : 1 + below(r, 40);
    const size_t O = groups * (depthwise ? 1 + below(r, 2) : 1 + below(r, 40)), channels = groups * C;
    convolution_of_codes c = {.with_float_bias = below(r, 2), .out_last = below(r, 2)};
    c.call = (ndq_conv_call){.N = 1 + below(r, 3), .y = random_axis(r), .x = random_axis(r)};
    const size_t KH = c.call.y.taps, KW = c.call.x.taps, H = c.call.y.in, W = c.call.x.in;
    c.x = random_codes(r, c.call.N * channels * H * W, extremes);
    c.w = random_codes(r, O * C * KH * KW, extremes);
    c.zw = must_alloc(O * sizeof(*c.zw));
    c.outputs = c.call.N * O * c.call.y.out * c.call.x.out;
    const bool a_signed = below(r, 2), w_signed = below(r, 2), has_zeros = below(r, 2);
    for (size_t o = 0; o < O; o++)
        c.zw[o] = has_zeros ? random_zero(r, w_signed) : 0;
    c.source = (ndq_conv_source){.O = O, .C = C, .KH = KH, .KW = KW, .groups = groups, .codes = c.w,
                                 .stride_g = (ptrdiff_t)(O / groups * C * KH * KW), .stride_o = (ptrdiff_t)(C * KH * KW),
                                 .stride_c = (ptrdiff_t)(KH * KW), .stride_y = (ptrdiff_t)KW, .stride_x = 1,
                                 .is_signed = w_signed, .merged = c.call.x.dilation == 1, .zero_point = c.zw};
    c.call.in = c.x;
    c.call.in_n = (ptrdiff_t)(channels * H * W);
    c.call.in_c = x_last ? 1 : (ptrdiff_t)(H * W);
    c.call.in_x = x_last ? (ptrdiff_t)channels : 1;
    c.call.in_y = (ptrdiff_t)W * c.call.in_x;
    c.call.product = (ndq_gemm_call){.a_signed = a_signed, .za = random_zero(r, a_signed), .a_scale = 0.01f,
                                     .out_scale = 0.75f, .out_inv = 1.0f / 0.75f, .out_zero = 17, .qmax = 255,
                                     .requantization = (ndq_requantization)below(r, NDQ_REQUANTIZATIONS)};
    return c;
}

/* Outputs of elements of `size` bytes, in the layout of c. */
static ndq_conv_call with_output(const convolution_of_codes *c, size_t size, void *out)
{
    ndq_conv_call call = c->call;
    const size_t O = c->source.O, pixels = call.y.out * call.x.out;
    call.out = out;
    call.out_n = O * pixels * size;
    call.out_c = c->out_last ? size : pixels * size;
    call.out_x = c->out_last ? O * size : size;
    call.out_y = call.x.out * call.out_x;
    return call;
}

static void fill_weights(const ndq_conv_weights *w, bool with_float_bias)
{
    for (size_t part = 0; part < w->parts; part++)
        for (size_t n = 0; n < w->part[part]->N; n++) {
            const size_t o = part * w->part[part]->N + n; /* kernels may differ in how many groups are a part */
            const float scale = 0.001f * (float)(1 + o % 7);
            ndq_gemm_set_scales(w->part[part], n, 1, &scale, 0);
            if (with_float_bias)
                w->part[part]->float_bias[n] = (float)(o % 5) - 2.0f;
            else
                w->part[part]->bias[n] = (int32_t)(o * 37 % 2001) - 1000;
        }
}

/* The convolution by two kernels into a fresh block with canaries behind it; NULL if they are gone or memory is. */
static uint8_t *convolve(const convolution_of_codes *c, const ndq_gemm_kernel *gemm, const ndq_gemm_kernel *depthwise,
                         ndq_gemm_output output)
{
    const size_t size = output == NDQ_GEMM_CODES ? 1 : 4, bytes = c->outputs * size;
    uint8_t *out = must_alloc(bytes + CANARIES);
    memset(out, CANARY, bytes + CANARIES);
    ndq_conv_weights *w = ndq_conv_pack(gemm, depthwise, &c->source, c->with_float_bias);
    bool good = w != NULL;
    if (w) {
        ndq_conv_call call = with_output(c, size, out);
        fill_weights(w, c->with_float_bias);
        call.w = w;
        call.product.output = output;
        good = ndq_conv(&call) == NDQ_OK;
    }
    for (size_t i = 0; i < CANARIES; i++)
        good = good && out[bytes + i] == CANARY;
    ndq_conv_free(w);
    if (good)
        return out;
    free(out);
    return NULL;
}

static void check_convolutions_of_codes(const char *backend, const ndq_kernels *kernels)
{
    group g = {.what = ""};
    snprintf(g.name, sizeof(g.name), "convolutions %s", backend);
    rng r = {815};
    for (int i = 0; i < 200; i++) {
        convolution_of_codes c = make_convolution(&r);
        for (ndq_gemm_output output = 0; output < NDQ_GEMM_OUTPUTS; output++) {
            uint8_t *out = convolve(&c, kernels->gemm, kernels->depthwise, output);
            uint8_t *expected = convolve(&c, &ndq_gemm_portable, &ndq_depthwise_portable, output);
            if (!out || !expected || memcmp(out, expected, c.outputs * (output == NDQ_GEMM_CODES ? 1 : 4)))
                FAIL(&g, "case %d: C %zu O %zu groups %zu, window %zu x %zu, output %d", i, c.source.C, c.source.O,
                     c.source.groups, c.source.KH, c.source.KW, (int)output);
            free(out);
            free(expected);
        }
        free(c.x);
        free(c.w);
        free(c.zw);
    }
    report(&g);
}

/* ---- Threads ---- */

enum { THREADS = 4, REPEATS = 40 };

/* One product that is shared among threads, packed and multiplied by four threads at once, each with its own output. */
typedef struct {
    const operands *o;
    const uint8_t *expected;
    size_t bytes;
    bool good;
} task;

static void *repeat(void *argument)
{
    task *t = argument;
    t->good = true;
    for (int i = 0; i < REPEATS; i++) {
        uint8_t *out = run(ndq_kernels_in_use()->gemm, t->o, NDQ_GEMM_CODES, t->bytes);
        t->good = t->good && out && memcmp(out, t->expected, t->bytes) == 0;
        free(out);
        ndq_set_num_threads(1 + (size_t)i % 3);
    }
    return NULL;
}

static void check_threads(const char *backend)
{
    group g = {.what = ""};
    snprintf(g.name, sizeof(g.name), "threads %s", backend);
    rng r = {99};
    const product p = variant(140, 200, 400, 0x2b | 2 << 8);
    operands o = make_operands(&r, &p);
    const size_t bytes = p.M * p.N;
    ndq_use_backend(backend);
    uint8_t *expected = run(&ndq_gemm_portable, &o, NDQ_GEMM_CODES, bytes);
    pthread_t threads[THREADS];
    task tasks[THREADS];
    for (int i = 0; i < THREADS; i++) {
        tasks[i] = (task){&o, expected, bytes, false};
        if (pthread_create(&threads[i], NULL, repeat, &tasks[i]))
            exit(2);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        if (!tasks[i].good)
            FAIL(&g, "thread %d", i);
    }
    free(expected);
    free_operands(&o);
    report(&g);
}

static void check_backend(const char *name, bool with_threads)
{
    const ndq_kernels *kernels = ndq_kernels_of(name);
    check_elementwise(name, kernels);
    check_products(name, kernels->gemm);
    check_large_products(name, kernels->gemm);
    check_convolutions_of_codes(name, kernels);
    check_float_products(name, kernels->gemm_f32);
    check_grouped_products(name, kernels->grouped);
    check_binary_products(name, kernels->binary);
    check_convolutions(name, kernels->gemm_f32);
    if (with_threads)
        check_threads(name);
}

static void check_all(bool with_threads)
{
    for (size_t i = ndq_backend_count(); i-- > 0;) {
        const char *name = ndq_backend_at(i)->name;
        if (ndq_kernels_of(name))
            check_backend(name, with_threads);
        else
            printf("SKIPPED %s: not on this CPU\n", name);
    }
}

int main(int argc, char **argv)
{
    const bool with_threads = argc < 2 || strcmp(argv[1], "--no-threads") != 0;
    ndq_dispatch_init();
    if (!with_threads)
        ndq_set_num_threads(1);
    const int first = with_threads ? 1 : 2;
    for (int i = first; i < argc; i++) {
        if (!ndq_kernels_of(argv[i])) {
            printf("NOT OK %s: no such backend on this CPU\n", argv[i]);
            return 1;
        }
        check_backend(argv[i], with_threads);
    }
    if (first >= argc)
        check_all(with_threads);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
