/* Types and helpers that every file of the core uses. Nothing here knows Python. */
#ifndef NDQ_COMMON_H
#define NDQ_COMMON_H

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Code for an instruction set is compiled in ordinary files, one function at a time, so that no file needs its own
 * compiler flags and nothing that the compiler adds (start-up code, inlined headers) can leak that instruction set. */
#ifdef __x86_64__
#define NDQ_X86 1
#ifdef __clang__ /* it takes 512-bit vectors when they are allowed; gcc has to be told */
#define NDQ_WIDE
#else
#define NDQ_WIDE ",prefer-vector-width=512"
#endif
#define NDQ_TARGET_AVX2 __attribute__((target("avx2,fma,f16c")))
#define NDQ_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl" NDQ_WIDE)))
#define NDQ_TARGET_AVX512VNNI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni" NDQ_WIDE)))
#define NDQ_TARGET_AVX512VPOPCNTDQ \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq" NDQ_WIDE)))
#endif
#if defined(__aarch64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ /* which always has NEON */
#define NDQ_ARM64 1
#define NDQ_TARGET_NEONDOT __attribute__((target("arch=armv8.2-a+dotprod")))
/* Vectors so marked are computed in this order: gcc would load all operands of a tile first, and run out of registers. */
#define NDQ_KEEP_ORDER(x) __asm__ volatile("" : "+w"(x))
#endif

#define NDQ_RESTRICT restrict

/* Before a loop whose iterations touch only element i of each array: it may be vectorised although an output may be
 * the input itself, which `restrict` would forbid. The second is for a few iterations, a constant number of them, which
 * would be written out one by one before anybody looked for vectors. */
#if defined(__clang__)
#define NDQ_IVDEP _Pragma("clang loop vectorize(assume_safety)")
#define NDQ_IVDEP_SHORT NDQ_IVDEP
#elif defined(__GNUC__)
#define NDQ_IVDEP _Pragma("GCC ivdep")
#define NDQ_IVDEP_SHORT _Pragma("GCC ivdep") _Pragma("GCC unroll 1")
#else
#define NDQ_IVDEP
#define NDQ_IVDEP_SHORT
#endif

/* A loop of so few iterations that neither vectors nor copies of its body are worth their code. */
#define NDQ_ONE_BY_ONE(LOOP, BODY)                                                      \
    _Pragma("GCC unroll 1") LOOP                                                        \
    {                                                                                   \
        __asm__ volatile("");                                                           \
        BODY                                                                            \
    }

#define NDQ_ALIGN 64 /* bytes: a cache line, and the widest vector */

static inline size_t ndq_min_size(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t ndq_ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }
static inline size_t ndq_round_up(size_t a, size_t b) { return ndq_ceil_div(a, b) * b; }

/* Copies up to 32 elements of each row; rows lie strides, in bytes, apart. A call of memcpy would take longer than a
 * row. */
static inline __attribute__((always_inline)) void ndq_copy_columns(size_t rows, size_t columns, const size_t size,
                                                                   const void *from, ptrdiff_t from_stride, void *to,
                                                                   ptrdiff_t to_stride)
{
    const char *source = from;
    char *target = to;
#define NDQ_COPY_PART(part)                                                                                  \
    if (columns & (part)) {                                                                                  \
        const size_t bytes = (part) * size;                                                                  \
        for (size_t m = 0; m < rows; m++)                                                                    \
            memcpy(target + (ptrdiff_t)m * to_stride, source + (ptrdiff_t)m * from_stride, bytes);           \
        source += bytes;                                                                                     \
        target += bytes;                                                                                     \
    }
    NDQ_COPY_PART(32)
    NDQ_COPY_PART(16)
    NDQ_COPY_PART(8)
    NDQ_COPY_PART(4)
    NDQ_COPY_PART(2)
    NDQ_COPY_PART(1)
#undef NDQ_COPY_PART
}

/* Every buffer of the core comes from here: aligned to NDQ_ALIGN, NULL when there is no memory. */
void *ndq_alloc(size_t bytes);
void ndq_free(void *p);

/* At least that many bytes, aligned likewise, that belong to the calling thread and stay for its next call, so that
 * repeated work touches no new memory. One user at a time: the next call on the same thread gives the same bytes. */
void *ndq_scratch(size_t bytes);

/* What a call of the core can answer; bindings/module.c maps these to Python exceptions. */
typedef enum {
    NDQ_OK = 0,
    NDQ_NO_MEMORY,
    NDQ_OVERFLOW, /* an int32 sum could pass 2^31 - 1 */
    NDQ_NOT_FINITE, /* NaN or infinity where a range is chosen */
} ndq_status;

#endif
