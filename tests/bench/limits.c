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
