#include "conv_transpose.h"

static size_t common_divisor(size_t a, size_t b)
{
    while (b) {
        const size_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* One phase along y or x. Without taps its outputs are 0. */
typedef struct {
    ndq_conv_axis axis; /* of the ordinary convolution */
    size_t first_tap;   /* of the whole window, for its first */
    ptrdiff_t tap_step;
} conv_phase;

/* Output o = phase + j * stride is reached by tap t from pixel i = (o + pad - t * dilation) / stride, so by every tap
 * that makes this a whole number: t = first + m * step, with i one `dilation / divisor` less for each m. */
static conv_phase phase_of(const ndq_conv_axis *whole, size_t phase)
{
    const ptrdiff_t stride = (ptrdiff_t)whole->stride, dilation = (ptrdiff_t)whole->dilation;
    const size_t divisor = common_divisor(whole->stride, whole->dilation), step = whole->stride / divisor;
    const ptrdiff_t at = (ptrdiff_t)phase + whole->pad;
    size_t first = 0;
    while (first < whole->taps && (at - (ptrdiff_t)first * dilation) % stride)
        first++;
    const size_t taps = first < whole->taps ? (whole->taps - 1 - first) / step + 1 : 0;
    const size_t last = first + (taps ? taps - 1 : 0) * step, apart = whole->dilation / divisor;
    const ptrdiff_t pixel = (at - (ptrdiff_t)last * dilation) / stride;
    return (conv_phase){
        .axis = {.in = whole->in,
                 .out = phase < whole->out ? (whole->out - 1 - phase) / whole->stride + 1 : 0,
                 .taps = taps,
                 .stride = 1,
                 .dilation = apart,
                 .pad = -pixel},
        .first_tap = last,
        .tap_step = -(ptrdiff_t)step,
    };
}

ndq_status ndq_conv_transpose_pack(const ndq_gemm_kernel *gemm, const ndq_gemm_kernel *depthwise,
                                   const ndq_conv_source *source, const ndq_conv_axis *y, const ndq_conv_axis *x,
                                   ndq_conv_part *parts, size_t *count)
{
    *count = 0;
    for (size_t py = 0; py < y->stride && py < y->out; py++) {
        const conv_phase of_y = phase_of(y, py);
        for (size_t px = 0; of_y.axis.taps && px < x->stride && px < x->out; px++) {
            const conv_phase of_x = phase_of(x, px);
            if (!of_x.axis.taps)
                continue;
            ndq_conv_source s = *source;
            s.KH = of_y.axis.taps;
            s.KW = of_x.axis.taps;
            s.codes += (ptrdiff_t)of_y.first_tap * s.stride_y + (ptrdiff_t)of_x.first_tap * s.stride_x;
            s.stride_y *= of_y.tap_step;
            s.stride_x *= of_x.tap_step;
            s.merged = of_x.axis.dilation == 1 || s.KW == 1;
            ndq_conv_weights *w = ndq_conv_pack(gemm, depthwise, &s, false);
            if (!w)
                return NDQ_NO_MEMORY;
            parts[(*count)++] = (ndq_conv_part){.w = w, .y = of_y.axis, .x = of_x.axis, .first_y = py, .first_x = px};
        }
    }
    return NDQ_OK;
}

ndq_status ndq_conv_transpose(const ndq_conv_call *call, const ndq_conv_part *parts, size_t count)
{
    ndq_status status = NDQ_OK;
    for (size_t i = 0; status == NDQ_OK && i < count; i++) {
        ndq_conv_call one = *call;
        one.w = parts[i].w;
        one.out = (uint8_t *)call->out + parts[i].first_y * call->out_y + parts[i].first_x * call->out_x;
        one.out_y = call->out_y * call->y.stride;
        one.out_x = call->out_x * call->x.stride;
        one.y = parts[i].y;
        one.x = parts[i].x;
        status = ndq_conv(&one);
    }
    return status;
}
