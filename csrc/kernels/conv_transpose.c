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

/* One phase along y or x, which has taps. */
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
    while ((at - (ptrdiff_t)first * dilation) % stride)
        first++;
    const size_t taps = (whole->taps - 1 - first) / step + 1, last = first + (taps - 1) * step;
    const size_t apart = whole->dilation / divisor;
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

/* Phases with taps: that of tap 0, of tap 1 and so on, until they return. */
static size_t count_phases(const ndq_conv_axis *a)
{
    return ndq_min_size(a->taps, a->stride / common_divisor(a->stride, a->dilation));
}

static size_t phase_of_tap(const ndq_conv_axis *a, size_t tap)
{
    const ptrdiff_t stride = (ptrdiff_t)a->stride, at = ((ptrdiff_t)(tap * a->dilation) - a->pad) % stride;
    return (size_t)(at < 0 ? at + stride : at);
}

static ndq_conv_weights *pack_phase(const ndq_gemm_kernel *gemm, const ndq_gemm_kernel *depthwise,
                                    const ndq_conv_source *source, const conv_phase *y, const conv_phase *x,
                                    bool with_float_bias)
{
    ndq_conv_source s = *source;
    s.KH = y->axis.taps;
    s.KW = x->axis.taps;
    s.codes += (ptrdiff_t)y->first_tap * s.stride_y + (ptrdiff_t)x->first_tap * s.stride_x;
    s.stride_y *= y->tap_step;
    s.stride_x *= x->tap_step;
    s.merged = x->axis.dilation == 1 || s.KW == 1;
    return ndq_conv_pack(gemm, depthwise, &s, with_float_bias);
}

/* One tap whose codes are the zero points. */
static ndq_conv_weights *pack_rest(const ndq_gemm_kernel *gemm, const ndq_gemm_kernel *depthwise,
                                   const ndq_conv_source *source, bool with_float_bias)
{
    ndq_conv_source s = *source;
    uint8_t *codes = ndq_alloc(s.O);
    for (size_t o = 0; codes && o < s.O; o++)
        codes[o] = s.zero_point ? (uint8_t)s.zero_point[o] : 0;
    s.codes = codes;
    s.KH = s.KW = 1;
    s.merged = true;
    s.stride_o = 1;
    s.stride_g = (ptrdiff_t)(s.O / s.groups);
    s.stride_c = s.stride_y = s.stride_x = 0;
    ndq_conv_weights *w = codes ? ndq_conv_pack(gemm, depthwise, &s, with_float_bias) : NULL;
    ndq_free(codes);
    return w;
}

ndq_transposed_weights *ndq_transposed_pack(const ndq_gemm_kernel *gemm, const ndq_gemm_kernel *depthwise,
                                            const ndq_conv_source *source, const ndq_conv_axis *y,
                                            const ndq_conv_axis *x, bool with_float_bias)
{
    const size_t down = count_phases(y), across = count_phases(x);
    ndq_transposed_weights *w = ndq_alloc(sizeof(*w) + down * across * sizeof(w->phase[0]));
    if (!w)
        return NULL;
    *w = (ndq_transposed_weights){.O = source->O, .C = source->C, .groups = source->groups, .y = *y, .x = *x};
    bool packed = (down == y->stride && across == x->stride) ||
                  (w->rest = pack_rest(gemm, depthwise, source, with_float_bias));
    for (size_t i = 0; packed && i < down * across; i++) {
        ndq_conv_phase *phase = &w->phase[w->count];
        phase->y = phase_of_tap(y, i / across);
        phase->x = phase_of_tap(x, i % across);
        const conv_phase of_y = phase_of(y, phase->y), of_x = phase_of(x, phase->x);
        phase->w = pack_phase(gemm, depthwise, source, &of_y, &of_x, with_float_bias);
        packed = phase->w;
        w->count += packed;
    }
    if (packed)
        return w;
    ndq_transposed_free(w);
    return NULL;
}

void ndq_transposed_free(ndq_transposed_weights *w)
{
    for (size_t i = 0; w && i <= w->count; i++)
        ndq_conv_free(ndq_transposed_part(w, i));
    ndq_free(w);
}

double ndq_transposed_macs(const ndq_conv_call *call, const ndq_transposed_weights *w)
{
    return (double)call->N * (double)call->y.in * (double)call->x.in * (double)w->O *
           (double)(w->C * w->y.taps * w->x.taps);
}

/* Every output from the bias alone. */
static ndq_status fill(const ndq_conv_call *call, const ndq_conv_weights *rest)
{
    ndq_conv_call whole = *call;
    whole.w = rest;
    whole.y = (ndq_conv_axis){.in = call->y.in, .out = call->y.out, .taps = 1, .stride = 1, .dilation = 1};
    whole.x = (ndq_conv_axis){.in = call->x.in, .out = call->x.out, .taps = 1, .stride = 1, .dilation = 1};
    return ndq_conv(&whole);
}

ndq_status ndq_transposed_conv(const ndq_conv_call *call, const ndq_transposed_weights *w)
{
    ndq_status status = w->rest ? fill(call, w->rest) : NDQ_OK;
    for (size_t i = 0; status == NDQ_OK && i < w->count; i++) {
        const ndq_conv_phase *phase = &w->phase[i];
        ndq_conv_call one = *call;
        if (phase->y >= call->y.out || phase->x >= call->x.out)
            continue;
        one.w = phase->w;
        one.out = (uint8_t *)call->out + phase->y * call->out_y + phase->x * call->out_x;
        one.out_y = call->out_y * call->y.stride;
        one.out_x = call->out_x * call->x.stride;
        one.y = phase_of(&call->y, phase->y).axis;
        one.x = phase_of(&call->x, phase->x).axis;
        status = ndq_conv(&one);
    }
    return status;
}
