/* What conv_f32.c and conv_f32_weight.c share: images with their border, channels last, and threads. */
#ifndef NDQ_BAND_F32_H
#define NDQ_BAND_F32_H

#include "conv_f32.h"

/* What a convolution reads of an image: `size` pixels along each axis from pixel -before on, zeros where the image has none;
 * `pixel` floats a pixel. */
typedef struct {
    size_t size_y, size_x, pixel;
    ptrdiff_t before_y, before_x;
} ndq_band_f32;

/* Image n of in_y by in_x pixels as a band. */
void ndq_fill_band_f32(const ndq_band_f32 *b, const ndq_images_f32 *in, size_t n, size_t in_y, size_t in_x, float *out);

/* Whether the images themselves are what their bands would be. */
bool ndq_is_band_f32(const ndq_band_f32 *b, const ndq_images_f32 *in, size_t in_y, size_t in_x);

/* Calls body(ctx, chunk) for each chunk, on several threads if the call has work for them. */
void ndq_conv_f32_share(const ndq_conv_f32_call *call, size_t chunks, void (*body)(void *, size_t), void *ctx);

#endif
