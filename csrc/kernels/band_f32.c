#include "band_f32.h"

#include "../threads.h"
#include "gemm.h"

static float float_at(const char *p)
{
    float value;
    memcpy(&value, p, sizeof(value));
    return value;
}

/* Pixels of `channels` floats to contiguous ones, four channels at a time. */
static void copy_pixels(size_t pixels, size_t channels, const char *in, ptrdiff_t in_x, ptrdiff_t in_c, float *out)
{
    if (in_c == sizeof(float) && in_x == (ptrdiff_t)(channels * sizeof(float))) {
        memcpy(out, in, pixels * channels * sizeof(float));
        return;
    }
    size_t c = 0;
    for (; c + 4 <= channels; c += 4, in += 4 * in_c)
        for (size_t i = 0; i < pixels; i++) {
            const char *from = in + (ptrdiff_t)i * in_x;
            const float four[] = {float_at(from), float_at(from + in_c), float_at(from + 2 * in_c),
                                  float_at(from + 3 * in_c)};
            memcpy(out + i * channels + c, four, sizeof(four));
        }
    for (; c < channels; c++, in += in_c)
        for (size_t i = 0; i < pixels; i++)
            out[i * channels + c] = float_at(in + (ptrdiff_t)i * in_x);
}

/* The pixels of an axis that lie both in the band and in the image: `count` of them from `first` of the band on. */
static size_t overlap(size_t size, ptrdiff_t before, size_t in, size_t *first)
{
    *first = before > 0 ? ndq_min_size((size_t)before, size) : 0;
    const ptrdiff_t end = before + (ptrdiff_t)in;
    const size_t last = end > 0 ? ndq_min_size((size_t)end, size) : 0;
    return last > *first ? last - *first : 0;
}

void ndq_fill_band_f32(const ndq_band_f32 *b, const ndq_images_f32 *in, size_t n, size_t in_y, size_t in_x, float *out)
{
    size_t top, left;
    const size_t rows = overlap(b->size_y, b->before_y, in_y, &top);
    const size_t pixels = overlap(b->size_x, b->before_x, in_x, &left);
    const size_t line = b->size_x * b->pixel, right = b->size_x - left - pixels;
    memset(out, 0, top * line * sizeof(*out));
    for (size_t y = top; y < top + rows; y++) {
        float *row = out + y * line;
        const char *from = in->data + (ptrdiff_t)n * in->n + ((ptrdiff_t)y - b->before_y) * in->y +
                           ((ptrdiff_t)left - b->before_x) * in->x;
        memset(row, 0, left * b->pixel * sizeof(*row));
        copy_pixels(pixels, b->pixel, from, in->x, in->c, row + left * b->pixel);
        memset(row + (left + pixels) * b->pixel, 0, right * b->pixel * sizeof(*row));
    }
    memset(out + (top + rows) * line, 0, (b->size_y - top - rows) * line * sizeof(*out));
}

bool ndq_is_band_f32(const ndq_band_f32 *b, const ndq_images_f32 *in, size_t in_y, size_t in_x)
{
    const ptrdiff_t pixel = (ptrdiff_t)(b->pixel * sizeof(float));
    return !b->before_y && !b->before_x && b->size_y <= in_y && b->size_x == in_x && in->c == sizeof(float) &&
           in->x == pixel && in->y == (ptrdiff_t)in_x * pixel;
}

static size_t threads_for(const ndq_conv_f32_call *call)
{
    const double taps = (double)call->y.taps * (double)call->x.taps * (double)(call->C / call->groups);
    const double macs = (double)call->N * (double)call->y.out * (double)call->x.out * (double)call->O * taps;
    return ndq_gemm_threads(macs, call->kernel->parallel_macs);
}

void ndq_conv_f32_share(const ndq_conv_f32_call *call, size_t chunks, void (*body)(void *, size_t), void *ctx)
{
    if (chunks > 1 && threads_for(call) > 1)
        ndq_parallel_for(chunks, body, ctx);
    else
        for (size_t chunk = 0; chunk < chunks; chunk++)
            body(ctx, chunk);
}
