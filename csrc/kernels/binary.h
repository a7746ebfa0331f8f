/* Products of signs. A bit of 1 stands for +1, of 0 for -1, so that a product is the XNOR of bits, and a sum of K products is
 *
 *   acc[m, n] = K - 2 * distance[m, n],   distance = how many bits of row m of a and of row n of w differ
 *
 * exact in int32. Bits lie along K, `bytes` bytes of each of M + N rows, as bits.h lays them.
 *
 * A kernel is one instruction set's tile of mr rows by nr columns that counts differing bits. Weights are packed in panels
 * of nr columns, word by word; a row is brought to the format of the kernel once for all panels. */
#ifndef NDQ_BINARY_H
#define NDQ_BINARY_H

#include "conv.h"

enum { NDQ_BINARY_MAX_MR = 4, NDQ_BINARY_MAX_NR = 64 };

/* distance[row * nr + column] of ROWS rows, `stride` bytes apart, and one panel, over `words` words. */
typedef void ndq_binary_tile(size_t words, const uint8_t *a, size_t stride, const uint8_t *panel, int32_t *distance);

/* tile_1 .. tile_4 of a kernel: its inlined function tile, whose first argument is a constant number of rows. */
#define NDQ_BINARY_TILE(target, rows)                                                                        \
    static target void tile_##rows(size_t words, const uint8_t *a, size_t stride, const uint8_t *panel,      \
                                   int32_t *distance)                                                        \
    {                                                                                                        \
        tile(rows, words, a, stride, panel, distance);                                                       \
    }
#define NDQ_BINARY_TILES(target) \
    NDQ_BINARY_TILE(target, 1)   \
    NDQ_BINARY_TILE(target, 2)   \
    NDQ_BINARY_TILE(target, 3)   \
    NDQ_BINARY_TILE(target, 4)

typedef struct {
    const char *name;
    size_t mr, nr;
    size_t word;          /* bytes of a column that lie together in a panel; rows are padded with zeros to whole words */
    size_t row_factor;    /* bytes that a byte of a row becomes */
    double parallel_macs; /* multiply-adds done in about 30 us */
    ndq_binary_tile *tile[NDQ_BINARY_MAX_MR]; /* by number of rows less one */
    void (*expand)(size_t bytes, const uint8_t *bits, uint8_t *row);
} ndq_binary_kernel;

extern const ndq_binary_kernel ndq_binary_portable;
#ifdef NDQ_X86
extern const ndq_binary_kernel ndq_binary_avx2, ndq_binary_avx512vpopcntdq;
#endif
#ifdef NDQ_ARM64
extern const ndq_binary_kernel ndq_binary_neon;
#endif

/* `expand` of kernels that read rows as they are. */
void ndq_binary_copy(size_t bytes, const uint8_t *bits, uint8_t *row);

/* A convolution; a product of matrices has images of 1 x 1 and windows of 1 x 1. */
typedef struct {
    const ndq_binary_kernel *kernel;
    size_t images, N; /* N outputs */
    size_t channels;  /* bits of a pixel, in ceil(channels / 8) bytes; other bits are not looked at */
    ndq_conv_axis y, x;
    const uint8_t *a; /* (images, y.in, x.in, bytes of a pixel) */
    const uint8_t *w; /* (N, y.taps, x.taps, bytes of a pixel) */
    int32_t *out;     /* (images, y.out, x.out, N); what lies outside an image adds nothing */
} ndq_binary_call;

/* NDQ_OK or NDQ_NO_MEMORY. The bits of a window are fewer than 2^31. */
ndq_status ndq_binary_multiply(const ndq_binary_call *call);

#endif
