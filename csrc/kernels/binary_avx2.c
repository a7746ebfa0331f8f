/* Differing bits for AVX2, which has no instruction that counts bits: four bits of a row choose one of 16 tables, in which
 * vpshufb finds, for 32 columns at once, in how many places four bits of each column differ from them. So two instructions
 * stand for an XOR and a count of 128 bits, and a row that many columns meet is turned into its tables once. The tile is 4
 * rows by 64 columns: 8 sums of bytes, 4 registers of columns, a table and what it gives. */
#include "binary.h"

#ifdef NDQ_X86
#include <immintrin.h>

#define TARGET NDQ_TARGET_AVX2

enum { NR = 64, TABLE = 16, BLOCK = 31 }; /* bytes of K that are added in 8 bits */
_Static_assert(BLOCK * 8 <= UINT8_MAX, "sums of a block fit 8 bits");

#define C(n) ((n) & 1) + ((n) >> 1 & 1) + ((n) >> 2 & 1) + ((n) >> 3)
#define T(a) {C((a) ^ 0), C((a) ^ 1), C((a) ^ 2), C((a) ^ 3), C((a) ^ 4), C((a) ^ 5), C((a) ^ 6), C((a) ^ 7), C((a) ^ 8), \
              C((a) ^ 9), C((a) ^ 10), C((a) ^ 11), C((a) ^ 12), C((a) ^ 13), C((a) ^ 14), C((a) ^ 15)}
static const uint8_t tables[16][TABLE] __attribute__((aligned(TABLE))) = {
    T(0), T(1), T(2), T(3), T(4), T(5), T(6), T(7), T(8), T(9), T(10), T(11), T(12), T(13), T(14), T(15)};
#undef T
#undef C

/* The tables of the lower and of the upper half of each byte. */
static TARGET void expand(size_t bytes, const uint8_t *bits, uint8_t *row)
{
    for (size_t i = 0; i < bytes; i++, row += 2 * TABLE) {
        memcpy(row, tables[bits[i] & 15], TABLE);
        memcpy(row + TABLE, tables[bits[i] >> 4], TABLE);
    }
}

/* As one asm statement because gcc would look everything up first, and then run out of registers. */
#define LOOK_UP(table, w0, w1, s0, s1)                                                                       \
    do {                                                                                                     \
        __m256i t_, u_;                                                                                      \
        __asm__ volatile("vbroadcasti128 %[m], %[t]\n\t"                                                     \
                         "vpshufb %[a], %[t], %[u]\n\t"                                                      \
                         "vpaddb %[u], %[x], %[x]\n\t"                                                       \
                         "vpshufb %[b], %[t], %[t]\n\t"                                                      \
                         "vpaddb %[t], %[y], %[y]"                                                           \
                         : [x] "+x"(s0), [y] "+x"(s1), [t] "=&x"(t_), [u] "=&x"(u_)                          \
                         : [a] "x"(w0), [b] "x"(w1), [m] "m"(*(const __m128i *)(table)));                    \
    } while (0)

#define ROW(r, s0, s1)                                                                                       \
    if (rows > r) {                                                                                          \
        LOOK_UP(a + r * stride, low0, low1, s0, s1);                                                         \
        LOOK_UP(a + r * stride + TABLE, high0, high1, s0, s1);                                               \
    }

#define SAVE(r, s0, s1)                                                                                      \
    if (rows > r)                                                                                            \
        add_bytes(s0, s1, distance + r * NR);

static inline __attribute__((always_inline)) TARGET void add_bytes(__m256i s0, __m256i s1, int32_t *distance)
{
    uint8_t bytes[NR] __attribute__((aligned(32)));
    _mm256_store_si256((__m256i *)bytes, s0);
    _mm256_store_si256((__m256i *)(bytes + NR / 2), s1);
    for (size_t n = 0; n < NR; n++)
        distance[n] += bytes[n];
}

static inline __attribute__((always_inline)) TARGET void tile(const size_t rows, size_t words, const uint8_t *a,
                                                              size_t stride, const uint8_t *panel, int32_t *distance)
{
    const __m256i mask = _mm256_set1_epi8(15), zero = _mm256_setzero_si256();
    memset(distance, 0, rows * NR * sizeof(*distance));
    for (size_t begin = 0; begin < words; begin += BLOCK) {
        const size_t end = ndq_min_size(begin + BLOCK, words);
        __m256i s00 = zero, s01 = zero, s10 = zero, s11 = zero, s20 = zero, s21 = zero, s30 = zero, s31 = zero;
        for (size_t i = begin; i < end; i++, a += 2 * TABLE, panel += NR) {
            const __m256i w0 = _mm256_load_si256((const __m256i *)panel);
            const __m256i w1 = _mm256_load_si256((const __m256i *)(panel + NR / 2));
            const __m256i low0 = _mm256_and_si256(w0, mask), low1 = _mm256_and_si256(w1, mask);
            const __m256i high0 = _mm256_and_si256(_mm256_srli_epi16(w0, 4), mask);
            const __m256i high1 = _mm256_and_si256(_mm256_srli_epi16(w1, 4), mask);
            ROW(0, s00, s01)
            ROW(1, s10, s11)
            ROW(2, s20, s21)
            ROW(3, s30, s31)
        }
        SAVE(0, s00, s01)
        SAVE(1, s10, s11)
        SAVE(2, s20, s21)
        SAVE(3, s30, s31)
    }
}

NDQ_BINARY_TILES(TARGET)

const ndq_binary_kernel ndq_binary_avx2 = {
    .name = "avx2",
    .mr = 4,
    .nr = NR,
    .word = 1,
    .row_factor = 2 * TABLE,
    .parallel_macs = 2e7,
    .tile = {tile_1, tile_2, tile_3, tile_4},
    .expand = expand,
};
#endif
