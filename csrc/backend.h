/* The table of kernels: rows are instruction sets, columns are kernels, each column declared once in NDQ_SLOTS. */
#ifndef NDQ_BACKEND_H
#define NDQ_BACKEND_H

#include "common.h"
#include "kernels/binary.h"
#include "kernels/gemm.h"
#include "kernels/gemm_f32.h"
#include "kernels/grouped.h"

/* Coefficients of the map between values and codes, y = scale * (q - zp) + offset; each array has one entry per channel.
 * inv = 1 / scale; qmin is that of all channels. By rule, the value v that is rounded, and its bounds:
 *   multiply (profiles default, torch):   v = x * inv,              lo = qmin - zp, hi = qmax - zp
 *   divide (profile onnx, float offsets): v = (x - offset) / scale, lo = qmin - zp, hi = qmax - zp
 *   textbook, always in float64:          v = x / scale + zp,       lo = qmin,      hi = qmax
 * Only the rule divide reads the offset: it is 0 for onnx, and a float offset has zp = 0. With same_zero all channels have
 * one zp, and so one lo and one hi, of which kernels that see channels along the last axis read the first alone. */
typedef struct {
    const float *scale, *inv, *zp, *lo, *hi, *offset;
    float qmin;
    bool float_offset, same_zero;
} ndq_affine_f32;

typedef struct {
    const double *scale, *inv, *zp, *lo, *hi, *offset;
    double qmin;
    bool float_offset, same_zero;
} ndq_affine_f64;

/* A C-contiguous array seen as (outer, channels, inner); element i belongs to channel i / inner % channels.
 * Per tensor: channels = 1, inner = number of elements. Per group along an axis that is not the last, the array is cut
 * into parts of `part` elements, each of that form and with channels of its own; otherwise part is 0. Kernels see one
 * part at a time. Where inner is 1, they may see some columns of a larger array, from the first of them on: then `gap`
 * elements lie between the end of one row of channels and the next, and n counts those between, too. */
typedef struct {
    size_t channels, inner, part, gap;
} ndq_geometry;

/* Smallest and largest finite value (+inf and -inf if there is none) and what else was seen. */
typedef struct {
    double min, max;
    size_t nans, infs;
} ndq_extremes;

/* One step of SGD, and of Adam: rate = lr / (1 - beta1^t), correction = 1 / sqrt(1 - beta2^t) at step t = 1, 2, ... */
typedef struct {
    double lr, momentum;
} ndq_sgd;

typedef struct {
    double rate, beta1, beta2, correction, eps;
} ndq_adam;

/* The values that codes stand for: base + scale * k for k = 0 .. levels. */
typedef struct {
    double base, scale, levels;
} ndq_levels;

/* Codes of 8 bits of either sign: a byte q means scale * ((q ^ flip) - zero), flip and zero moving s8 to u8. */
typedef struct {
    float scale;
    int32_t zero;
    uint8_t flip;
} ndq_byte_operand;

typedef struct {
    ndq_byte_operand a, b;
} ndq_byte_operands;

/* The code of y: clamp(rint(y * inv)) between lo and hi, plus zero, as a byte. */
typedef struct {
    float inv, lo, hi;
    uint8_t zero;
} ndq_byte_result;

/* A row of codes to be normalized: `length` codes u8 that add up to `sum`. length * 255 fits int32. */
typedef struct {
    int32_t length, sum;
    float inv;
    uint8_t flip;
} ndq_byte_row;

/* Constants of batch normalization, one of each for each channel. */
typedef struct {
    const float *centre, *scale, *slope, *shift;
} ndq_channels_f32;

typedef struct {
    const double *centre, *scale, *slope, *shift;
} ndq_channels_f64;

/* Sums of a row of codes without its zero point: what the row and the columns mean. */
typedef struct {
    float own_scale;
    int32_t zero;
    const float *scale, *bias;
    const int32_t *column_sum;
} ndq_sums_row;

/* Layer normalization of a row: gain and offset of each element, and what the variance gets. */
typedef struct {
    const float *gain, *offset;
    float eps;
} ndq_norm_f32;

/* Contracts. Elementwise kernels work on n elements, the first of which is element `position` of an array, so that
 * threads may split anywhere; pointers are to the first of the n. An output may be an input of the same element size.
 * No argument is NULL.
 *
 *   quantize                 q[i] = code of x[i], as a byte (two's complement if the codes are signed)
 *   quantize16, quantize32   the same for wider codes
 *   dequantize_s8 .. _u32    y[i] = scale * (q[i] - zp) + offset
 *   fake_quantize            y[i] = dequantize(quantize(x[i])), never -0
 *   fake_quantize_backward   dx[i] = dy[i] if x[i] is in range before the clamp, else +0
 *   fake_quantize_with_grad  the two above in one pass
 *   fake_quantize_learnable  one block of n <= NDQ_BLOCK elements of one channel: dx as above, and in sums[0], sums[1]
 *                            the gradients of scale and zero point without their factor g, added in a fixed order:
 *                            16 partial sums by index mod 16, then these in order 0..15
 *   errors                   one such block: in sums, in the same order, the squared error of x[i] against
 *                            fake_quantize(x[i]) outside the range and inside it, x[i]^2, and how many are outside
 *   squares                  one such block: in sums (x[i] - y[i])^2 and x[i]^2
 *   minmax                   extremes of n elements; merges into *e
 *   clip_error               sum of weight[i] * |x[i] - the level nearest to it|^p, in units of the scale: 16 partial
 *                            sums by index mod 16, then these in order 0..15
 *   widen_f16, narrow_f16    to[i] = from[i], float16 to float32 and back, rounded to nearest even
 *   relu_backward            dx[i] = dy[i] if y[i] > 0, else +0
 *   sgd_step                 w[i] -= lr * g[i]
 *   sgd_momentum_step        v[i] = momentum * v[i] + g[i]; w[i] -= lr * v[i]
 *   adam_step                m[i] = beta1 * m[i] + (1 - beta1) * g[i]; v[i] = beta2 * v[i] + (1 - beta2) * g[i]^2;
 *                            w[i] -= rate * (m[i] / (sqrt(v[i]) * correction + eps))
 *   add, multiply            out[i] = code of a + b, of a * b; on codes of 8 bits, as the next four
 *   rescale                  out[i] = code of factor * (sum[i] - less), the difference modulo 2^32
 *   normalize                out[i] = code of (length * x - sum) * inv * gain[i] + offset[i]
 *   largest                  most[i] = max(most[i], x[i] ^ flip)
 *   total                    sum[i] += x[i] ^ flip
 *   pack                     codes[i] - lowest, modulo 2^8, as `bits` bits side by side, the first in the most significant
 *                            ones; the last byte is filled with zeros; *largest = max(*largest, each of them)
 *   unpack                   the reverse
 *   sum_rows                 sums[c] += sum of u, sums[C + c] += sum of u * v over rows of C channels, in float64, in a
 *                            fixed order
 *   sum_run                  the same for n elements of one channel
 *   repeat                   to[c * inner + j] = from[c] for c < n, j < inner <= NDQ_REPEAT_MOST; writes up to
 *                            NDQ_REPEAT_OVER elements more
 *   scale_channels           y[i] = (x[i] - centre) * scale + shift
 *   mix_channels             dx[i] = (dy[i] * scale + (x[i] - centre) * slope) + shift
 *   scale_sums               y[i] = float(sum[i] - zero * column_sum[i]) * (own_scale * scale[i]) + bias[i]; y may be sum
 *   lstm_cell                i, f, o = sigmoid, g = tanh of gx + gh, H of each in the order i, f, g, o;
 *                            c = f * c + i * g; h = o * tanh(c)
 *   gru_cell                 r, z = sigmoid of gx + gh, n = tanh(gx + r * gh), in this order; h = (h - n) * z + n
 *   softmax                  y[i] = exp(x[i] - max) / sum of these, 0 where x[i] is 87 or more below the maximum; all 0 if
 *                            that is -inf; y may be x
 *   layer_norm               y[i] = (x[i] - mean) / sqrt(variance + eps) * gain[i] + offset[i] for n >= 1; stats: the mean,
 *                            and 1 / sqrt(variance + eps); y may be x
 *   gelu, gelu_tanh          y[i] = x[i] * P(X <= x[i]) of the normal distribution, and of its approximation by tanh
 *   gemm                     the kernel of integer matrix products: see kernels/gemm.h
 *   depthwise                the same of depthwise convolutions: a panel holds the taps of nr channels, centred
 *   gemm_f32                 that of float32 products: see kernels/gemm_f32.h
 *   grouped                  that of products by weights of 4 bits with scales per group: see kernels/grouped.h
 *   binary                   that of products of signs: see kernels/binary.h
 *
 * Suffixes: f32, f64 and divide_f32, divide_f64 compute in that type, by the rules multiply and divide; textbook is that
 * rule. Codes of 32 bits are computed in float64 only: float32 does not hold them. */
enum { NDQ_BLOCK = 4096, NDQ_REPEAT_MOST = 15, NDQ_REPEAT_OVER = 8 };

/* Loops of the first length take whole vectors on every machine; groups have the second size more often than any other, and
 * images that convolutional networks end with the third. Stretches of up to NDQ_SHORT elements are worth a loop over
 * several of them. */
enum { NDQ_VECTOR = 8, NDQ_COMMON_RUN = 32, NDQ_COMMON_IMAGE = 7 * 7, NDQ_SHORT = 256 };

#define NDQ_SPAN(A) const A *p, const ndq_geometry *g, size_t position, size_t n

#define NDQ_SLOTS_OF_RULE(X, A, T, s)                                                                        \
    X(quantize_##s, (NDQ_SPAN(A), const T *x, uint8_t *q))                                                   \
    X(quantize16_##s, (NDQ_SPAN(A), const T *x, uint16_t *q))                                                \
    X(fake_quantize_##s, (NDQ_SPAN(A), const T *x, T *y))                                                    \
    X(fake_quantize_backward_##s, (NDQ_SPAN(A), const T *dy, const T *x, T *dx))                             \
    X(fake_quantize_with_grad_##s, (NDQ_SPAN(A), const T *dy, const T *x, T *y, T *dx))                      \
    X(fake_quantize_learnable_##s,                                                                           \
      (const A *p, size_t channel, size_t n, const T *dy, const T *x, T *dx, double *sums))                  \
    X(errors_##s, (const A *p, size_t channel, size_t n, const T *x, double *sums))

#define NDQ_SLOTS_OF_CODES(X, A, T, s)                                                                       \
    X(dequantize_s8_##s, (NDQ_SPAN(A), const int8_t *q, T *y))                                               \
    X(dequantize_u8_##s, (NDQ_SPAN(A), const uint8_t *q, T *y))                                              \
    X(dequantize_s16_##s, (NDQ_SPAN(A), const int16_t *q, T *y))                                             \
    X(dequantize_u16_##s, (NDQ_SPAN(A), const uint16_t *q, T *y))

#define NDQ_SLOTS_OF_WIDE_CODES(X, s)                                                                        \
    X(quantize32_##s, (NDQ_SPAN(ndq_affine_f64), const double *x, uint32_t *q))                              \
    X(dequantize_s32_##s, (NDQ_SPAN(ndq_affine_f64), const int32_t *q, double *y))                           \
    X(dequantize_u32_##s, (NDQ_SPAN(ndq_affine_f64), const uint32_t *q, double *y))

#define NDQ_SLOTS_OF_TYPE(X, T, s)                                                                           \
    X(squares_##s, (size_t n, const T *x, const T *y, double *sums))                                         \
    X(minmax_##s, (size_t n, const T *x, ndq_extremes *e))                                                   \
    X(relu_backward_##s, (size_t begin, size_t end, const T *dy, const T *y, T *dx))                         \
    X(sgd_step_##s, (const ndq_sgd *p, size_t begin, size_t end, const T *g, T *w))                          \
    X(sgd_momentum_step_##s, (const ndq_sgd *p, size_t begin, size_t end, const T *g, T *v, T *w))           \
    X(adam_step_##s, (const ndq_adam *p, size_t begin, size_t end, const T *g, T *m, T *v, T *w))            \
    X(sum_rows_##s, (size_t rows, size_t C, const T *u, const T *v, double *sums))                           \
    X(sum_run_##s, (size_t n, const T *u, const T *v, double *sum, double *product))                         \
    X(repeat_##s, (size_t inner, size_t n, const T *from, T *to))                                            \
    X(scale_channels_##s,                                                                                    \
      (const ndq_channels_##s *p, const ndq_geometry *g, size_t begin, size_t end, const T *x, T *y))        \
    X(mix_channels_##s, (const ndq_channels_##s *p, const ndq_geometry *g, size_t begin, size_t end,         \
                         const T *dy, const T *x, T *dx))

#define NDQ_SLOTS_OF_BYTES(X, s)                                                                             \
    X(add_##s, (const ndq_byte_operands *p, const ndq_byte_result *r, size_t n, const uint8_t *a,            \
                const uint8_t *b, uint8_t *out))                                                             \
    X(multiply_##s, (const ndq_byte_operands *p, const ndq_byte_result *r, size_t n, const uint8_t *a,       \
                     const uint8_t *b, uint8_t *out))                                                        \
    X(rescale_##s, (const ndq_byte_result *r, float factor, uint32_t less, size_t n, const uint32_t *sum,    \
                    uint8_t *out))                                                                           \
    X(normalize_##s, (const ndq_byte_result *r, const ndq_byte_row *row, size_t n, const uint8_t *x,         \
                      const float *gain, const float *offset, uint8_t *out))                                 \
    X(largest_##s, (size_t n, uint8_t flip, const uint8_t *x, uint8_t *most))                                \
    X(total_##s, (size_t n, uint8_t flip, const uint8_t *x, uint32_t *sum))                                  \
    X(pack_##s, (int bits, uint8_t lowest, size_t n, const uint8_t *codes, uint8_t *packed, uint8_t *largest)) \
    X(unpack_##s, (int bits, uint8_t lowest, size_t n, const uint8_t *packed, uint8_t *codes, uint8_t *largest))

#define NDQ_SLOTS_OF_CELLS(X, s)                                                                             \
    X(scale_sums_##s, (const ndq_sums_row *row, size_t n, const int32_t *sum, float *y))                     \
    X(lstm_cell_##s, (size_t H, const float *gx, const float *gh, float *c, float *h))                       \
    X(gru_cell_##s, (size_t H, const float *gx, const float *gh, float *h))

#define NDQ_SLOTS_OF_ROWS(X, s)                                                                              \
    X(softmax_##s, (size_t n, const float *x, float *y))                                                     \
    X(layer_norm_##s, (const ndq_norm_f32 *p, size_t n, const float *x, float *y, float *stats))             \
    X(gelu_##s, (size_t n, const float *x, float *y))                                                        \
    X(gelu_tanh_##s, (size_t n, const float *x, float *y))

#define NDQ_ELEMENTWISE_SLOTS(X)                                                                             \
    NDQ_SLOTS_OF_RULE(X, ndq_affine_f32, float, f32)                                                         \
    NDQ_SLOTS_OF_RULE(X, ndq_affine_f32, float, divide_f32)                                                  \
    NDQ_SLOTS_OF_RULE(X, ndq_affine_f64, double, f64)                                                        \
    NDQ_SLOTS_OF_RULE(X, ndq_affine_f64, double, divide_f64)                                                 \
    NDQ_SLOTS_OF_RULE(X, ndq_affine_f64, double, textbook)                                                   \
    NDQ_SLOTS_OF_CODES(X, ndq_affine_f32, float, f32)                                                        \
    NDQ_SLOTS_OF_CODES(X, ndq_affine_f32, float, divide_f32)                                                 \
    NDQ_SLOTS_OF_CODES(X, ndq_affine_f64, double, f64)                                                       \
    NDQ_SLOTS_OF_CODES(X, ndq_affine_f64, double, divide_f64)                                                \
    NDQ_SLOTS_OF_CODES(X, ndq_affine_f64, double, textbook)                                                  \
    NDQ_SLOTS_OF_WIDE_CODES(X, f64)                                                                          \
    NDQ_SLOTS_OF_WIDE_CODES(X, divide_f64)                                                                   \
    NDQ_SLOTS_OF_WIDE_CODES(X, textbook)                                                                     \
    NDQ_SLOTS_OF_TYPE(X, float, f32)                                                                         \
    NDQ_SLOTS_OF_TYPE(X, double, f64)                                                                        \
    NDQ_SLOTS_OF_BYTES(X, u8)                                                                                \
    NDQ_SLOTS_OF_CELLS(X, f32)                                                                               \
    NDQ_SLOTS_OF_ROWS(X, f32)                                                                                \
    X(widen_f16, (size_t n, const uint16_t *from, float *to))                                                \
    X(narrow_f16, (size_t n, const float *from, uint16_t *to))                                               \
    X(clip_error_f64, (const ndq_levels *levels, double p, size_t n, const double *x, const double *weight,   \
                       double *sum))

#define NDQ_DECLARE_SLOT(name, arguments) void(*name) arguments;

typedef struct {
    NDQ_ELEMENTWISE_SLOTS(NDQ_DECLARE_SLOT)
    const ndq_gemm_kernel *gemm, *depthwise;
    const ndq_gemm_f32_kernel *gemm_f32;
    const ndq_grouped_kernel *grouped;
    const ndq_binary_kernel *binary;
} ndq_kernels;

#undef NDQ_DECLARE_SLOT

/* One row. A NULL slot inherits from the next row that is available; the last row, portable, is complete. */
typedef struct {
    const char *name;
    bool (*available)(void);
    ndq_kernels kernels;
} ndq_backend;

extern const ndq_backend ndq_backend_portable;
#ifdef NDQ_X86
extern const ndq_backend ndq_backend_avx2, ndq_backend_avx512, ndq_backend_avx512vnni, ndq_backend_avxvnni;
extern const ndq_backend ndq_backend_avx512vpopcntdq, ndq_backend_amx;
#endif
#ifdef NDQ_ARM64
extern const ndq_backend ndq_backend_neon, ndq_backend_neondot;
#endif

/* All rows of this build, best first. */
size_t ndq_backend_count(void);
const ndq_backend *ndq_backend_at(size_t index);

/* Composes the tables; the environment variable NDQUANT_BACKEND caps the choice. Call once, before any other thread. */
void ndq_dispatch_init(void);

/* The table in use. Take the pointer once per call: another thread may change the choice, never the table. */
const ndq_kernels *ndq_kernels_in_use(void);
const char *ndq_backend_in_use(void);

/* The composed table of a backend that is available here, else NULL. */
const ndq_kernels *ndq_kernels_of(const char *name);

/* False if there is no such backend on this machine. */
bool ndq_use_backend(const char *name);

#endif
