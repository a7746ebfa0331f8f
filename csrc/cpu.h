/* Which instruction sets this process may use. */
#ifndef NDQ_CPU_H
#define NDQ_CPU_H

#include "common.h"

typedef struct {
    bool avx2;       /* AVX2, FMA, F16C, and the system saves ymm */
    bool avx512;     /* AVX-512 F, BW, DQ, VL, and the system saves zmm and masks */
    bool avx512vnni; /* the above and VNNI */
    bool neondot;    /* NEON's dot products of bytes */
} ndq_cpu;

/* Read once from CPUID and XGETBV, or from what the kernel says of the processor; nothing else decides, so that an
 * emulator that hides a bit is believed. */
const ndq_cpu *ndq_cpu_features(void);

#endif
