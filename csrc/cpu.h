/* Which instruction sets this process may use. */
#ifndef NDQ_CPU_H
#define NDQ_CPU_H

#include "common.h"

/*   avx2         AVX2, FMA, F16C, and the system saves ymm
 *   avxvnni      avx2 and VNNI in ymm registers; in a build that emulates it, avx2
 *   avx512       AVX-512 F, BW, DQ, VL, and the system saves zmm and masks
 *   avx512vnni   the above and VNNI
 *   avx512vpopcntdq   avx512vnni and VPOPCNTDQ
 *   amx          avx512vnni, AMX for bytes, and Linux grants this process tiles; in a build that emulates them, avx2
 *   neondot      NEON's dot products of bytes */
#define NDQ_CPU_FEATURES(X) X(avx2) X(avxvnni) X(avx512) X(avx512vnni) X(avx512vpopcntdq) X(amx) X(neondot)

#define NDQ_CPU_FIELD(feature) bool feature;
typedef struct {
    NDQ_CPU_FEATURES(NDQ_CPU_FIELD)
    size_t cache_bytes; /* of the largest cache, or a guess */
} ndq_cpu;
#undef NDQ_CPU_FIELD

/* Read once from CPUID and XGETBV, or from what the kernel says of the processor; nothing else decides, so that an
 * emulator that hides a bit is believed. */
const ndq_cpu *ndq_cpu_features(void);

#endif
