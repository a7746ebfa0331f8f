#include "conv_winograd.h"

static uint8_t *new_codes(size_t rows, size_t columns)
{
    size_t bytes;
    return __builtin_mul_overflow(rows, columns, &bytes) ? NULL : ndq_alloc(bytes);
}

static const uint8_t *codes_of(const ndq_conv_source *s, size_t o)
{
    const size_t part = s->O / s->groups;
    return s->codes + (ptrdiff_t)(o / part) * s->stride_g + (ptrdiff_t)(o % part) * s->stride_o;
}

/* How many groups are packed as one, in which each output has zero weights for the channels of the others. A tile of a
 * small group takes longer to begin and to end than to multiply: with zeros it multiplies more, but does so once. Half a
 * panel is enough where there is more to multiply. */
static size_t groups_as_one(const ndq_gemm_kernel *kernel, const ndq_conv_source *s)
{
    enum { FEW_CODES = 54 }; /* measured on AVX2 */
    const size_t outputs = s->O / s->groups, codes = s->KH * s->KW * ndq_round_up(s->C, kernel->k_step);
    const bool is_narrow = kernel->narrow[0] && codes > FEW_CODES / 2 && outputs && kernel->nr / 2 % outputs == 0;
    const size_t columns = is_narrow ? kernel->nr / 2 : kernel->nr;
    size_t count = 1;
    if (outputs && s->C && codes <= FEW_CODES && outputs <= kernel->nr / 4)
        for (count = columns / outputs; s->groups % count; count--)
            ;
    return count;
}

/* Codes in the order in which tiles of products read them: (O, KH, KW, groups packed as one, C). */
static uint8_t *channels_last(const ndq_conv_source *s, size_t as_one)
{
    uint8_t *codes = new_codes(s->O * s->KH, s->KW * s->C * as_one), *out = codes;
    for (size_t o = 0; codes && o < s->O; o++) {
        const uint8_t *in = codes_of(s, o);
        const size_t place = o / (s->O / s->groups) % as_one * s->C;
        const int zero = s->zero_point ? (uint8_t)s->zero_point[o] : 0;
        for (size_t ky = 0; ky < s->KH; ky++)
            for (size_t kx = 0; kx < s->KW; kx++, out += s->C * as_one) {
                memset(out, zero, s->C * as_one);
                for (size_t c = 0; c < s->C; c++)
                    out[place + c] =
                        in[(ptrdiff_t)c * s->stride_c + (ptrdiff_t)ky * s->stride_y + (ptrdiff_t)kx * s->stride_x];
            }
    }
    return codes;
}

/* Codes as depthwise tiles read them: (O, KH / in_word, KW, in_word), with rows of zero points below the window, one of
 * which is above it if the window is `lowered`. */
static uint8_t *rows_in_words(const ndq_conv_source *s, size_t in_word, bool lowered)
{
    const size_t KH = ndq_round_up(s->KH, in_word);
    uint8_t *codes = new_codes(s->O * KH, s->KW), *out = codes;
    for (size_t o = 0; codes && o < s->O; o++) {
        const uint8_t *in = codes_of(s, o), zero = (uint8_t)(s->zero_point ? s->zero_point[o] : 0);
        for (size_t word = 0; word < KH; word += in_word)
            for (size_t kx = 0; kx < s->KW; kx++)
                for (size_t row = word; row < word + in_word; row++) {
                    const size_t ky = row - lowered; /* above the window it is larger than any */
                    *out++ = ky < s->KH ? in[(ptrdiff_t)ky * s->stride_y + (ptrdiff_t)kx * s->stride_x] : zero;
                }
    }
    return codes;
}

/* Packs the same weights one row lower. Only their panels are used. */
static bool pack_lower(ndq_conv_weights *w, const ndq_gemm_kernel *kernel, const ndq_conv_source *s)
{
    const size_t K = ndq_round_up(s->KH, kernel->codes_per_word) * s->KW;
    uint8_t *codes = rows_in_words(s, kernel->codes_per_word, true);
    const ndq_weights matrix = {.N = s->O, .K = K, .runs = 1, .codes = codes, .stride_n = (ptrdiff_t)K, .stride_k = 1,
                                .is_signed = s->is_signed, .zero_point = s->zero_point};
    w->lower = codes ? ndq_gemm_pack(kernel, &matrix, false) : NULL;
    ndq_free(codes);
    return w->lower;
}

static bool pack_parts(ndq_conv_weights *w, const ndq_gemm_kernel *kernel, const ndq_conv_source *s,
                       const uint8_t *codes, int32_t largest, bool with_float_bias)
{
    const size_t N = s->O / w->parts, KH = w->depthwise ? ndq_round_up(s->KH, kernel->codes_per_word) : s->KH;
    const size_t K = KH * s->KW * w->C;
    for (size_t part = 0; part < w->parts; part++) {
        const ndq_weights matrix = {
            .N = N,
            .K = K,
            .runs = w->depthwise ? 1 : w->merged ? s->KH : s->KH * s->KW,
            .codes = codes + part * N * K,
            .stride_n = (ptrdiff_t)K,
            .stride_k = 1,
            .is_signed = s->is_signed,
            .zero_point = s->zero_point ? s->zero_point + part * N : NULL,
            .largest = largest,
        };
        ndq_gemm_free(w->part[part]);
        if (!(w->part[part] = ndq_gemm_pack(kernel, &matrix, with_float_bias)))
            return false;
    }
    return true;
}

static bool have_one_kernel(const ndq_conv_weights *w)
{
    size_t part = 1;
    while (part < w->parts && w->part[part]->kernel == w->part[0]->kernel)
        part++;
    return part == w->parts;
}

/* All parts read the same band, so they need the same kernel: the one for any weights if some are not small. */
static bool pack_alike(ndq_conv_weights *w, const ndq_gemm_kernel *kernel, const ndq_conv_source *s,
                       const uint8_t *codes, bool with_float_bias)
{
    enum { UNKNOWN = 0, LARGEST = 255 };
    return pack_parts(w, kernel, s, codes, UNKNOWN, with_float_bias) &&
           (have_one_kernel(w) || pack_parts(w, kernel, s, codes, LARGEST, with_float_bias));
}

/* Whether all codes less their zero points are weights that a kernel takes. */
static bool all_fit(const ndq_gemm_kernel *kernel, const ndq_conv_source *s)
{
    for (size_t o = 0; o < s->O; o++) {
        const uint8_t *in = codes_of(s, o);
        const int32_t zero = s->zero_point ? s->zero_point[o] : 0;
        for (size_t ky = 0; ky < s->KH; ky++)
            for (size_t kx = 0; kx < s->KW; kx++) {
                const uint8_t code = in[(ptrdiff_t)ky * s->stride_y + (ptrdiff_t)kx * s->stride_x];
                const int32_t weight = (s->is_signed ? (int8_t)code : code) - zero;
                if (weight < kernel->lowest_weight || weight > kernel->largest_weight)
                    return false;
            }
    }
    return true;
}

/* The codes for the kernel that takes them. Memory first, weights second, as in gemm.c. */
static uint8_t *depthwise_codes(const ndq_conv_source *s, const ndq_gemm_kernel **kernel)
{
    uint8_t *codes = rows_in_words(s, (*kernel)->codes_per_word, false);
    if (!codes || !(*kernel)->general || all_fit(*kernel, s))
        return codes;
    ndq_free(codes);
    *kernel = (*kernel)->general;
    return rows_in_words(s, (*kernel)->codes_per_word, false);
}

ndq_conv_weights *ndq_conv_pack(const ndq_gemm_kernel *gemm, const ndq_gemm_kernel *depthwise,
                                const ndq_conv_source *s, bool with_float_bias)
{
    const bool is_depthwise = s->C == 1 && s->groups > 1;
    const size_t as_one = is_depthwise ? 1 : groups_as_one(gemm, s), groups = s->groups / as_one;
    const size_t parts = is_depthwise ? 1 : groups;
    ndq_conv_weights *w = ndq_alloc(sizeof(*w) + parts * sizeof(w->part[0]));
    const ndq_gemm_kernel *kernel = is_depthwise ? depthwise : gemm;
    uint8_t *codes = !w ? NULL : is_depthwise ? depthwise_codes(s, &kernel) : channels_last(s, as_one);
    if (w)
        *w = (ndq_conv_weights){.O = s->O, .C = s->C * as_one, .KH = s->KH, .KW = s->KW, .groups = groups,
                                .merged = s->merged && groups == 1, .depthwise = is_depthwise, .parts = parts};
    for (size_t part = 0; w && part < parts; part++)
        w->part[part] = NULL;
    if (!codes || !pack_alike(w, kernel, s, codes, with_float_bias) ||
        (is_depthwise && s->KH % kernel->codes_per_word && s->KH > 1 && !pack_lower(w, kernel, s)) ||
        (w->O && ndq_winograd_suits(w) && ndq_winograd_pack(w, codes, s->is_signed, s->zero_point) != NDQ_OK)) {
        ndq_conv_free(w);
        w = NULL;
    }
    ndq_free(codes);
    return w;
}

void ndq_conv_free(ndq_conv_weights *w)
{
    for (size_t part = 0; w && part < w->parts; part++)
        ndq_gemm_free(w->part[part]);
    if (w) {
        ndq_gemm_free(w->lower);
        ndq_free(w->winograd);
    }
    ndq_free(w);
}
