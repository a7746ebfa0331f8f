#define _GNU_SOURCE
#include "cpu.h"

#ifdef NDQ_X86
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* XCR0 bits: 1 SSE, 2 AVX, 5..7 AVX-512 masks and registers, 17 and 18 tiles (Intel SDM vol. 1, 13.3). */
enum { XCR0_YMM = 0x6, XCR0_ZMM = 0xe6, XCR0_TILES = 0x60000 };

/* Compilers that do not know it have no name for it (Intel SDM vol. 2, CPUID). */
enum { LEAF_7_1_EAX_AVXVNNI = 1 << 4, LEAF_7_EDX_AMX_TILE = 1 << 24, LEAF_7_EDX_AMX_INT8 = 1 << 25 };

static uint32_t xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

#ifndef NDQ_EMULATE
/* Tiles are a large state, which Linux saves only for processes that ask (Documentation/arch/x86/xstate.rst). */
static bool ask_for_tiles(void)
{
#ifdef __linux__
    enum { REQUEST = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
    return false;
#endif
}
#endif

/* The largest cache that a leaf lists: 4 (Intel SDM vol. 2, CPUID) or 0x8000001D of the same form (AMD APM vol. 3). The C
 * library adds up the caches of all cores of an AMD processor. */
static size_t largest_cache(unsigned leaf)
{
    enum { SUBLEAVES = 8 };
    size_t largest = 0;
    unsigned a, b, c, d;
    for (unsigned i = 0; i < SUBLEAVES && __get_cpuid_count(leaf, i, &a, &b, &c, &d) && (a & 0x1f) != 0; i++) {
        const size_t ways = (b >> 22) + 1, partitions = ((b >> 12) & 0x3ff) + 1, line = (b & 0xfff) + 1;
        const size_t bytes = ways * partitions * line * ((size_t)c + 1);
        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

static ndq_cpu detect(void)
{
    ndq_cpu cpu = {0};
    unsigned a, b, c, d, c1;
    const size_t cache = largest_cache(4);
    cpu.cache_bytes = cache ? cache : largest_cache(0x8000001d);
    if (!__get_cpuid(1, &a, &b, &c1, &d) || !(c1 & bit_OSXSAVE))
        return cpu;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return cpu;
    uint32_t saved = xcr0();
    cpu.avx2 = (saved & XCR0_YMM) == XCR0_YMM && (b & bit_AVX2) && (c1 & bit_FMA) && (c1 & bit_F16C);
    cpu.avx512 = cpu.avx2 && (saved & XCR0_ZMM) == XCR0_ZMM && (b & bit_AVX512F) && (b & bit_AVX512BW) &&
                 (b & bit_AVX512DQ) && (b & bit_AVX512VL);
    cpu.avx512vnni = cpu.avx512 && (c & bit_AVX512VNNI);
    cpu.avx512vpopcntdq = cpu.avx512vnni && (c & bit_AVX512VPOPCNTDQ);
#ifdef NDQ_EMULATE
    cpu.avxvnni = cpu.amx = cpu.avx2;
#else
    cpu.amx = cpu.avx512vnni && (saved & XCR0_TILES) == XCR0_TILES && (d & LEAF_7_EDX_AMX_TILE) &&
              (d & LEAF_7_EDX_AMX_INT8) && ask_for_tiles();
    cpu.avxvnni = cpu.avx2 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & LEAF_7_1_EAX_AVXVNNI);
#endif
    return cpu;
}
#elif defined(NDQ_ARM64) && defined(__linux__)
#include <sys/auxv.h>

static ndq_cpu detect(void)
{
    enum { ASIMDDP = 1 << 20 }; /* Linux, Documentation/arch/arm64/elf_hwcaps.rst */
    return (ndq_cpu){.neondot = (getauxval(AT_HWCAP) & ASIMDDP) != 0};
}
#else
static ndq_cpu detect(void)
{
    return (ndq_cpu){0};
}
#endif

const ndq_cpu *ndq_cpu_features(void)
{
    /* Filled by the first call, which dispatch.c makes while the module is imported, under the import lock. */
    static ndq_cpu cpu;
    static bool known;
    enum { SOME_CACHE = 32 << 20 };
    if (!known) {
        cpu = detect();
        if (cpu.cache_bytes == 0)
            cpu.cache_bytes = SOME_CACHE;
        known = true;
    }
    return &cpu;
}
