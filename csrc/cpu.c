#include "cpu.h"

#ifdef NDQ_X86
#include <cpuid.h>

/* XCR0 bits: 1 SSE, 2 AVX, 5..7 AVX-512 masks and registers (Intel SDM vol. 1, 13.3). */
enum { XCR0_YMM = 0x6, XCR0_ZMM = 0xe6 };

/* Compilers that do not know it have no name for it (Intel SDM vol. 2, CPUID). */
enum { LEAF_7_1_EAX_AVXVNNI = 1 << 4 };

static uint32_t xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static ndq_cpu detect(void)
{
    ndq_cpu cpu = {0};
    unsigned a, b, c, d, c1;
    if (!__get_cpuid(1, &a, &b, &c1, &d) || !(c1 & bit_OSXSAVE))
        return cpu;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return cpu;
    uint32_t saved = xcr0();
    cpu.avx2 = (saved & XCR0_YMM) == XCR0_YMM && (b & bit_AVX2) && (c1 & bit_FMA) && (c1 & bit_F16C);
    cpu.avx512 = cpu.avx2 && (saved & XCR0_ZMM) == XCR0_ZMM && (b & bit_AVX512F) && (b & bit_AVX512BW) &&
                 (b & bit_AVX512DQ) && (b & bit_AVX512VL);
    cpu.avx512vnni = cpu.avx512 && (c & bit_AVX512VNNI);
#ifdef NDQ_EMULATE
    cpu.avxvnni = cpu.avx2;
#else
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
    if (!known) {
        cpu = detect();
        known = true;
    }
    return &cpu;
}
