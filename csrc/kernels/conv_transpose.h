/* Transposed convolution: the image [n, c, i] spreads over outputs o = i * stride + tap * dilation - pad along y and x,
 *
 *   acc[n, o] = sum over c, taps and all i that reach o of (in[n, c, i] - za) * (w[c, o, taps] - zw[o])
 *
 * Outputs with the same remainder modulo the stride, a phase, are an ordinary convolution of the image with the taps
 * that reach them, in reverse: so no product with an inserted zero is ever computed. */
#ifndef NDQ_CONV_TRANSPOSE_H
#define NDQ_CONV_TRANSPOSE_H

#include "conv.h"

/* One phase along y and x: an ordinary convolution. */
typedef struct {
    ndq_conv_weights *w;
    ndq_conv_axis y, x;
    size_t first_y, first_x; /* its first output */
} ndq_conv_part;

/* Packs the weights of all phases that have taps, at most taps of y times taps of x of them, into parts[0 .. *count).
 * NDQ_OK or NDQ_NO_MEMORY; the caller frees each w either way. */
ndq_status ndq_conv_transpose_pack(const ndq_gemm_kernel *gemm, const ndq_gemm_kernel *depthwise,
                                   const ndq_conv_source *source, const ndq_conv_axis *y, const ndq_conv_axis *x,
                                   ndq_conv_part *parts, size_t *count);

/* call: its weights and axes are those of the whole. The output starts as zeros and is dense. */
ndq_status ndq_conv_transpose(const ndq_conv_call *call, const ndq_conv_part *parts, size_t count);

#endif
