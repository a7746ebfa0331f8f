/* Transposed convolution: the image [n, c, i] spreads over outputs o = i * stride + tap * dilation - pad along y and x,
 *
 *   acc[n, o] = sum over c, taps and all i that reach o of (in[n, c, i] - za) * (w[c, o, taps] - zw[o]) + bias[o]
 *
 * Outputs with the same remainder modulo the stride, a phase, are an ordinary convolution of the image with the taps
 * that reach them, in reverse: so no product with an inserted zero is ever computed. */
#ifndef NDQ_CONV_TRANSPOSE_H
#define NDQ_CONV_TRANSPOSE_H

#include "conv.h"

/* The weights of one phase; y and x are its first output. */
typedef struct {
    ndq_conv_weights *w;
    size_t y, x;
} ndq_conv_phase;

/* Packed weights for one stride, dilation and padding, which the axes have; they also have the taps, and no sizes.
 * `rest`, if some phases have no taps, is one tap of zeros that gives every output its bias. */
typedef struct {
    size_t O, C, groups; /* C: channels of one group */
    ndq_conv_axis y, x;
    ndq_conv_weights *rest;
    size_t count;
    ndq_conv_phase phase[];
} ndq_transposed_weights;

/* NULL when there is no memory. Each part of each phase, and of rest, has its scales and biases to be filled by the
 * caller. */
ndq_transposed_weights *ndq_transposed_pack(const ndq_gemm_kernel *gemm, const ndq_gemm_kernel *depthwise,
                                            const ndq_conv_source *source, const ndq_conv_axis *y,
                                            const ndq_conv_axis *x, bool with_float_bias);
void ndq_transposed_free(ndq_transposed_weights *weights);

/* All packed convolutions, number 0 to count: the last is `rest`, perhaps NULL. */
static inline ndq_conv_weights *ndq_transposed_part(const ndq_transposed_weights *w, size_t number)
{
    return number < w->count ? w->phase[number].w : w->rest;
}

/* call: its axes are those of the whole, with sizes; its weights are not looked at. */
ndq_status ndq_transposed_conv(const ndq_conv_call *call, const ndq_transposed_weights *weights);

/* Multiply-adds of a call. */
double ndq_transposed_macs(const ndq_conv_call *call, const ndq_transposed_weights *weights);

#endif
