/* What one core can do with memory at best: loops that do nothing but read, write, copy, or make codes of floats.
 * limits.py compiles this for the machine it runs on and calls it. Every function has the same arguments; n is a multiple
 * of 64, x and y are aligned to 64 bytes and do not overlap. */
#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define LIMIT __attribute__((visibility("default"))) void
#define ARGUMENTS long repeat, long n, const int32_t *restrict x, int32_t *restrict y

/* Keeps the compiler from merging repetitions. */
#define BARRIER() __asm__ volatile("" ::: "memory")

LIMIT read_only(ARGUMENTS)
{
    enum { LANES = 64 };
    uint32_t sums[LANES] = {0};
    for (; repeat > 0; repeat--) {
        for (long i = 0; i < n; i += LANES)
            for (int j = 0; j < LANES; j++)
                sums[j] += (uint32_t)x[i + j];
        BARRIER();
    }
    memcpy(y, sums, sizeof sums);
}

LIMIT write_only(ARGUMENTS)
{
    for (; repeat > 0; repeat--) {
        for (long i = 0; i < n; i++)
            y[i] = (int32_t)(repeat & 1);
        BARRIER();
    }
    (void)x;
}

LIMIT copy(ARGUMENTS)
{
    for (; repeat > 0; repeat--) {
        memcpy(y, x, (size_t)n * sizeof *x);
        BARRIER();
    }
}

/* A copy whose stores go past the caches; elsewhere than on x86 a plain one. */
LIMIT copy_streaming(ARGUMENTS)
{
#ifdef __SSE2__
    for (; repeat > 0; repeat--) {
        for (long i = 0; i < n; i += 4)
            _mm_stream_si128((__m128i *)(y + i), _mm_load_si128((const __m128i *)(x + i)));
        _mm_sfence();
    }
#else
    copy(repeat, n, x, y);
#endif
}

/* Four bytes in, one out, and next to no arithmetic: the traffic of quantizing. */
LIMIT narrow(ARGUMENTS)
{
    int8_t *q = (int8_t *)y;
    for (; repeat > 0; repeat--) {
        for (long i = 0; i < n; i++)
            q[i] = (int8_t)x[i];
        BARRIER();
    }
}

/* ---- Multiply-adds of one core: nothing but the instruction, on as many registers as hide its time ---- */

#define TWELVE(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define CLEAR(d) "vpxor %%xmm" #d ", %%xmm" #d ", %%xmm" #d "\n\t"
#define ASM(text)                                                                                            \
    __asm__ volatile(text ::: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
                     "xmm11", "xmm12", "xmm13", "xmm14")
#define PRODUCTS(DO)                                                                                         \
    ASM(TWELVE(CLEAR) CLEAR(13) CLEAR(14));                                                                  \
    for (; repeat > 0; repeat--)                                                                             \
        for (long i = 0; i < n; i++)                                                                         \
            ASM(CLEAR(13) CLEAR(14) TWELVE(DO));                                                             \
    (void)x;                                                                                                 \
    (void)y;

#if defined(__AVX512F__)
#define R "%%zmm"
enum { BITS = 512 };
#else
#define R "%%ymm"
enum { BITS = 256 };
#endif

/* Multiply-adds of one pass of the loops below, or 0 where this machine has no such instruction that we know. */
__attribute__((visibility("default"))) long f32_products(void)
{
#ifdef __FMA__
    return 12 * BITS / 32;
#else
    return 0;
#endif
}

__attribute__((visibility("default"))) long s8_products(void)
{
#if defined(__AVX512VNNI__)
    return 12 * BITS / 8;
#elif defined(__AVX2__)
    return 12 * 256 / 16;
#else
    return 0;
#endif
}

LIMIT f32_multiply_add(ARGUMENTS)
{
#ifdef __FMA__
#define FMA(d) "vfmadd231ps " R "13, " R "14, " R #d "\n\t"
    PRODUCTS(FMA)
#endif
}

/* The fastest exact one for codes of 8 bits: four bytes at a time, or two int16 in two instructions. */
LIMIT s8_multiply_add(ARGUMENTS)
{
#if defined(__AVX512VNNI__)
#define DOT(d) "vpdpbusd " R "13, " R "14, " R #d "\n\t"
    PRODUCTS(DOT)
#elif defined(__AVX2__)
#define PAIR(d) "vpmaddwd %%ymm13, %%ymm14, %%ymm12\n\tvpaddd %%ymm12, %%ymm" #d ", %%ymm" #d "\n\t"
    PRODUCTS(PAIR)
#endif
}
