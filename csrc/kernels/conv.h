/* Integer convolution, exact in int32, on the kernels and with the output stage of gemm.h:
 *
 *   acc[n, o, y, x] = sum over c, ky, kx of (in[n, c, y', x'] - za) * (w[o, c, ky, kx] - zw[o]) + bias[o]
 *   y' = y * stride + ky * dilation - pad, x' likewise; outside the image (in - za) is 0
 *
 * N images of C channels, O outputs, windows of KH x KW taps. Output o of group g sees the C / groups channels of g.
 *
 * Channels are innermost inside. The part of the image that a block of outputs reads, the band, is brought into the
 * kernel's format once, with its border; windows are read where they lie in it, one run of K for each of their rows, or
 * for each of their positions if the row is not contiguous. A depthwise convolution has a kernel and a driver of its
 * own: see depthwise.c. A 1 x 1 convolution is a product of matrices. */
#ifndef NDQ_CONV_H
#define NDQ_CONV_H

#include "gemm.h"

/* Sizes and steps along y or x. pad pixels come before the first; a negative number of them crops the image. */
typedef struct {
    size_t in, out, taps;
    size_t stride, dilation;
    ptrdiff_t pad;
} ndq_conv_axis;

/* Weights as they come: strides in bytes from group to group, output of a group, channel and tap. merged: the taps of a
 * row of the window are next to each other in the image, as they are with dilation 1 along x. */
typedef struct {
    size_t O, C, KH, KW; /* C: channels of one group */
    size_t groups;
    const uint8_t *codes;
    ptrdiff_t stride_g, stride_o, stride_c, stride_y, stride_x;
    bool is_signed, merged;
    const int32_t *zero_point; /* O of them, or NULL: all 0 */
} ndq_conv_source;

/* Packed weights, `parts` of them with O / parts outputs each: one for each group, or a single one if depthwise. Several
 * small groups of the source may have become one, as C and groups then say. `lower` has the codes of a depthwise window
 * one row lower, for the second of two rows of outputs: see depthwise.c. It is NULL where that would have more words of
 * rows. `winograd` has windows of 3 x 3 in another form besides, for stride 1: see conv_winograd.h. NULL: not these. */
typedef struct {
    size_t O, C, KH, KW, groups;
    bool merged, depthwise;
    size_t parts;
    ndq_packed *lower;
    uint8_t *winograd;
    size_t winograd_bytes;
    ndq_packed *part[];
} ndq_conv_weights;

/* NULL when there is no memory. Each of the parts has its scales and biases to be filled by the caller. */
ndq_conv_weights *ndq_conv_pack(const ndq_gemm_kernel *gemm, const ndq_gemm_kernel *depthwise,
                                const ndq_conv_source *source, bool with_float_bias);
void ndq_conv_free(ndq_conv_weights *weights);

typedef struct {
    const ndq_conv_weights *w;
    size_t N;
    ndq_conv_axis y, x;
    const uint8_t *in;
    ptrdiff_t in_n, in_c, in_y, in_x; /* strides in bytes */
    void *out;
    size_t out_n, out_c, out_y, out_x;
    ndq_gemm_call product; /* the signs, scales and the output stage; not its operands */
} ndq_conv_call;

/* NDQ_OK or NDQ_NO_MEMORY. The caller has asked ndq_gemm_overflow for each part. */
ndq_status ndq_conv(const ndq_conv_call *call);

/* The same for depthwise weights and some outputs: what ndq_conv calls for them. */
ndq_status ndq_conv_depthwise(const ndq_conv_call *call);

/* Multiply-adds of a call. */
double ndq_conv_macs(const ndq_conv_call *call);

#endif
