/* Float32 convolution and its gradients, on the tiles of gemm_f32.h:
 *
 *   y[n, o, i, j] = bias[o] + sum over c, ky, kx of x[n, c, i', j'] * w[o, c, ky, kx]
 *   i' = i * stride + ky * dilation - pad, j' likewise; outside the image x is 0
 *
 * N images of C channels, O outputs, windows of KH x KW taps. Output o of group g sees the C / groups channels of g.
 *
 * Channels are innermost inside. The image is brought into a band once, channels last and with its border; windows are
 * read where they lie in it, one run of K for each of their rows, or for each tap where the row is not contiguous.
 * Each sum is a chain of fused multiply-adds whose order does not depend on threads or on the instruction set. */
#ifndef NDQ_CONV_F32_H
#define NDQ_CONV_F32_H

#include "conv.h"
#include "gemm_f32.h"

/* N images in any layout; strides in bytes. */
typedef struct {
    const char *data;
    ptrdiff_t n, c, y, x;
} ndq_images_f32;

typedef struct {
    const ndq_gemm_f32_kernel *kernel;
    size_t N, C, O, groups;
    ndq_conv_axis y, x;
    ndq_images_f32 in; /* (N, C, y.in, x.in), or, for the gradient of the input, (N, O, y.out, x.out) */
    ndq_images_f32 dy; /* (N, O, y.out, x.out), for the gradient of the weight */
    const float *w;    /* (O, C / groups, KH, KW) */
    const float *bias; /* O, or NULL */
    float *out;        /* (N, y.out, x.out, O); gradients: (N, y.in, x.in, C); (O, C / groups, KH, KW) */
} ndq_conv_f32_call;

/* NDQ_OK or NDQ_NO_MEMORY. */
ndq_status ndq_conv_f32(const ndq_conv_f32_call *call);
ndq_status ndq_conv_f32_input_grad(const ndq_conv_f32_call *call);
ndq_status ndq_conv_f32_weight_grad(const ndq_conv_f32_call *call);

#endif
