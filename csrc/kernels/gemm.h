/* Integer matrix product, exact in int32, with the output stage in the same pass:
 *
 *   acc[m, n] = sum over k of (a[m, k] - za) * (w[n, k] - zw[n]) + bias[n]
 *
 * M rows of activations, N output features, K inputs. a is (M, K) and w is (N, K); each is u8 or s8.
 *
 * Packing, blocking, threads and zero points are written once, in gemm.c. A kernel is one instruction set's tile of
 * mr rows by nr columns and the layout that this tile reads. Packed weights keep the pointer to their kernel, so that
 * changing the backend can never misread them.
 *
 * Along K, codes are grouped in words of 32 bits, as many codes as one lane of the dot-product instruction takes: two
 * int16 or four bytes, u8 or s8 activations by s8 weights. An operand that has room for it is centred: its zero point is
 * subtracted while the codes are expanded, and nothing is left to do. Otherwise codes of the other sign are moved by
 * 128 together with their zero point, and the zero point enters through the sums of the other operand: that of a
 * through the column sums of w, that of w through the row sums of a. */
#ifndef NDQ_GEMM_H
#define NDQ_GEMM_H

#include "activation.h"

enum { NDQ_GEMM_MAX_MR = 32, NDQ_GEMM_MAX_NR = 32, NDQ_GEMM_VECTOR_PANELS = 4 };

/* 32 bits of codes, as words, int16 or bytes. */
typedef uint32_t __attribute__((may_alias)) ndq_gemm_word;

/* The same at any address: rows of bytes read in place, and windows that begin at an odd code. */
typedef uint32_t __attribute__((may_alias, aligned(1))) ndq_gemm_word_anywhere;

/* What a tile becomes. S32 is acc. The others compute y = (float(acc) + before[n]) * scale[n] + after[n] in float32,
 * with no fused operation; F32 is y between floor and ceiling; U8 and S8 are clamp(zero + rint(y * inv)), as bytes. */
typedef enum { NDQ_GEMM_S32, NDQ_GEMM_F32, NDQ_GEMM_CODES, NDQ_GEMM_OUTPUTS } ndq_gemm_output;

/* How sums become codes. DEQUANTIZE is literally that, then quantizing. The others multiply by one float32, scale of the
 * sums by 1 / scale of the codes, after the bias has joined the sum, divided by its scale; FBGEMM adds the zero point
 * after rounding, ONNX (QLinearMatMul) before it. */
typedef enum { NDQ_DEQUANTIZE, NDQ_FBGEMM, NDQ_ONNX, NDQ_REQUANTIZATIONS } ndq_requantization;

/* Constants of the columns of one panel, for one call. */
typedef struct {
    int32_t add[NDQ_GEMM_MAX_NR];        /* bias[n] and, unless a is centred, -za * sum over k of (w[n, k] - zw[n]) */
    int32_t zero_point[NDQ_GEMM_MAX_NR]; /* zw[n], to be multiplied by the sum of the row of a; only if any is not 0 */
    float before[NDQ_GEMM_MAX_NR], scale[NDQ_GEMM_MAX_NR], after[NDQ_GEMM_MAX_NR];
    bool shrinks; /* before and after are 0, and no sum gives steps outside int32: no clamp before they are rounded */
} ndq_gemm_columns;

/* Constants of the output stage, for one call. lo and hi are code bounds less the zero point. */
typedef struct {
    float floor, ceiling, inv, lo, hi;
    int32_t zero;
    bool float_bias; /* before or after of some column may not be 0 */
    /* The same bounds as bytes: codes moved to u8, for which flip is 0 or 128, and the zero point moved likewise. */
    uint8_t flip, lowest, highest;
    int16_t moved_zero;
} ndq_gemm_stage;

/* Where the words of a row of activations are: `runs` runs of `words` each, offset[i] bytes after the row. The row of a
 * matrix is one run, or one block of K; the window of a convolution is one for each of its rows, or of its positions. */
typedef struct {
    size_t runs, words;
    const ptrdiff_t *offset;
    bool continued; /* what these words give is added to the sums in acc; only where the kernel has block_words */
    bool a_signed, w_signed; /* signs of the codes, for kernels that multiply any */
} ndq_gemm_runs;

/* Multiplies ROWS rows of activations, `stride` bytes apart, by one panel, over all words of the runs, and stores raw
 * sums in acc[row * nr + column]. Sums wrap: they are exact modulo 2^32. */
typedef void ndq_gemm_tile(const ndq_gemm_runs *k, const uint8_t *a, size_t stride, const void *panel, int32_t *acc);

/* `count` such products of one run in one call, as calls take as long as a few words: rows a_step bytes further for each,
 * panels one after another, and sums mr * nr further. */
typedef void ndq_gemm_tiles_of_many(size_t count, const ndq_gemm_runs *k, const uint8_t *a, size_t a_step, size_t stride,
                                    const void *panels, int32_t *acc);

/* Writes `columns` <= nr columns of `rows` finished tile rows to out, whose rows are `stride` bytes apart. */
typedef void ndq_gemm_store(size_t rows, size_t columns, const int32_t *acc, const ndq_gemm_columns *c,
                            const ndq_gemm_stage *stage, uint8_t *out, size_t stride);

/* Tiles and `store` in one, without the way of the sums through memory, for any number of rows and columns but 0, of
 * row_panels adjacent panels at most, each with its constants: see ndq_gemm_row_at_once. */
typedef void ndq_gemm_row(size_t count, const ndq_gemm_runs *k, const uint8_t *a, size_t stride, const void *panel,
                          size_t columns, const ndq_gemm_columns *c, const ndq_gemm_stage *stage, uint8_t *out,
                          size_t out_stride);

/* Codes of a row of an image as a depthwise kernel reads them: nr channels of each pixel, `stride` bytes apart. */
typedef struct {
    const uint8_t *codes;
    ptrdiff_t stride;
} ndq_depthwise_pixels;

/* Rows of windows of 3 x 3 that begin at rows 0, down, 2 * down... of the image, and at columns 0, across... They see its
 * pixels in columns [begin, end), and `outside` in all others. panel[1] is one row lower, for the second of two rows that
 * begin at rows next to each other, or NULL. Channels of a panel that does not have all are not followed by others. */
typedef struct {
    const ndq_depthwise_pixels *row;
    const uint8_t *outside;
    const void *panel[2];
    size_t rows, cols, down, across, begin, end; /* rows and cols: of windows */
    bool is_signed;
} ndq_depthwise_windows;

/* Codes of such windows, as rows of codes are given. Codes are multiplied as u8: c->add has the zero point. */
typedef void ndq_depthwise_direct(const ndq_depthwise_windows *windows, size_t columns, const ndq_gemm_columns *c,
                                  const ndq_gemm_stage *stage, uint8_t *out, size_t out_x, size_t out_y);

/* Multiplies one row, expanded for this, by a few panels at once, `panel_bytes` apart: a single one is a single stream of
 * reading, and its two sums wait for each other. Raw sums go to acc[panel * nr + column]. */
typedef void ndq_gemm_vector_tile(size_t words, const uint8_t *row, const uint8_t *panels, size_t panel_bytes, int32_t *acc);

/* Packs K codes of each of `columns` <= nr columns of a panel, from a word on, with their zero points unless that is NULL, and
 * adds to a pair of sums for each of them; K is so small that these fit int32. The panel's other columns become zeros. */
typedef void ndq_gemm_pack_walk(size_t columns, size_t K, const uint8_t *codes, ptrdiff_t stride, bool is_signed,
                                const int32_t *zero_point, ndq_gemm_word *panel, int64_t (*sums)[2]);

typedef struct ndq_gemm_kernel {
    const char *name;
    size_t mr, nr;
    size_t codes_per_word; /* 2 or 4 */
    bool a_centred, w_centred;
    bool a_signed;          /* the sign of a that is multiplied, unless a is centred */
    bool any_signs;         /* codes of either sign are multiplied as they are, and none is moved */
    const struct ndq_gemm_kernel *special; /* tried before this one, as it is faster for some weights, or NULL */
    const struct ndq_gemm_kernel *general; /* of a depthwise kernel that takes some weights only: the one for others */
    int32_t lowest_weight, largest_weight; /* of a special kernel: packs only weights w - zw between these, */
    size_t least_codes;                    /* if there are at least so many */
    size_t k_step;         /* each run is padded with zeros to a multiple of this many codes */
    size_t block_words;    /* so many words of a panel stay in L1 while all rows are multiplied by them; 0: all words */
    bool waits;            /* a tile takes time in which the output stage of the one before can run */
    bool byte_panels;      /* panels hold bytes, which tiles widen to the words of this format */
    double parallel_macs;  /* multiply-adds done in about 30 us: less work than this is not worth waking a thread */

    const struct ndq_winograd *winograd; /* see conv_winograd.h; or NULL */
    const struct ndq_strassen *strassen; /* see gemm_strassen.h; or NULL */

    /* What a thread does before its first tile of a call and after the last, or NULL. */
    void (*enter)(void);
    void (*leave)(void);
    /* Brings K codes of one row into the format above; zero matters to centred operands only. */
    void (*expand_a)(size_t K, const uint8_t *codes, bool is_signed, int32_t zero, void *row);
    /* Of a depthwise kernel instead: nr channels of `count` pixels of as many rows as a word has codes, side by side or
     * as the kernel wants. */
    void (*expand_rows)(size_t count, const ndq_depthwise_pixels *rows, bool is_signed, int32_t zero, void *pixels);
    /* Puts pixels of three planes, in_c bytes apart, next to each other; or NULL. */
    void (*join_3)(size_t count, const uint8_t *in, ptrdiff_t in_c, uint8_t *pixels);
    void (*expand_w)(size_t K, const uint8_t *codes, bool is_signed, int32_t zero, void *row);
    /* sums[0] += sum of (code - zero), sums[1] += sum of |code - zero|; zero is a code of that sign. */
    void (*sums)(size_t K, const uint8_t *codes, bool is_signed, int32_t zero, int64_t *sums);
    /* The smallest and the largest of K codes, merged into extremes[0] and [1]. Only of a special kernel. */
    void (*extremes)(size_t K, const uint8_t *codes, bool is_signed, int32_t *extremes);
    /* Lays words [first, first + count) of nr expanded rows, `stride` words apart, into a panel of `words` words. */
    void (*pack)(size_t first, size_t count, const ndq_gemm_word *rows, size_t stride, size_t words,
                 ndq_gemm_word *panel);
    /* expand_w, sums and pack in one walk, or NULL: of columns whose codes are contiguous, `stride` bytes apart, and of codes
     * `stride` bytes apart of contiguous columns. A kernel with the first needs neither expand_w nor, unless it has
     * winograd, pack. */
    ndq_gemm_pack_walk *pack_rows, *pack_columns;

    ndq_gemm_tile *tile[NDQ_GEMM_MAX_MR];   /* by number of rows less one */
    ndq_gemm_tile *narrow[NDQ_GEMM_MAX_MR]; /* the same for the first nr / 2 columns of a panel, or NULL */
    ndq_gemm_tiles_of_many *many[NDQ_GEMM_MAX_MR]; /* of kernels with winograd */
    ndq_gemm_row *row[NDQ_GEMM_OUTPUTS]; /* or NULL; where no zero point of the weights as packed is left */
    size_t row_panels;                   /* 1 or 2 */
    ndq_depthwise_direct *windows;       /* or NULL; of depthwise kernels */
    size_t windows_across, windows_panels; /* their least step, 1 or 2, and how many adjacent panels they take, 1 or 2: */
                                           /* of two, only bytes of channels that there are are read */
    /* For a single row, or NULL: by number of panels less one; and what brings K codes into the format that these read, of
     * vector_bytes for each, as u8 that are not centred. Weights are s8. */
    ndq_gemm_vector_tile *vector_tile[NDQ_GEMM_VECTOR_PANELS];
    ndq_gemm_vector_tile *narrow_vector_tile[NDQ_GEMM_VECTOR_PANELS]; /* of the last panel the first nr / 2 columns; or NULL */
    void (*expand_vector)(size_t K, const uint8_t *codes, bool is_signed, void *row);
    size_t vector_bytes;
    /* acc[row, n] -= row_sums[row] * zero_point[n]; NULL if w is centred. */
    void (*subtract_row_terms)(size_t rows, int32_t *acc, const int32_t *row_sums, const ndq_gemm_columns *c);
    ndq_gemm_store *store[NDQ_GEMM_OUTPUTS];
} ndq_gemm_kernel;

extern const ndq_gemm_kernel ndq_gemm_portable, ndq_depthwise_portable;
#ifdef NDQ_X86
extern const ndq_gemm_kernel ndq_gemm_avx2, ndq_gemm_avx2_bytes, ndq_gemm_avx2_small;
extern const ndq_gemm_kernel ndq_gemm_avxvnni, ndq_gemm_avx512vnni, ndq_gemm_amx;
extern const ndq_gemm_kernel ndq_depthwise_avx2, ndq_depthwise_avx512, ndq_depthwise_avx512vnni;
#endif
#ifdef NDQ_ARM64
extern const ndq_gemm_kernel ndq_gemm_neon, ndq_gemm_neon_small, ndq_gemm_neondot;
#endif

/* Weights in a kernel's format. Arrays by column are padded with zeros to whole panels. */
typedef struct {
    const ndq_gemm_kernel *kernel;
    size_t N, K;
    size_t runs, run_words; /* along K, padding included */
    size_t words;           /* runs * run_words */
    uint8_t *panels;        /* [ceil(N / nr)][words][nr], or as the kernel's pack lays it */
    size_t panel_bytes;
    int32_t *zero_point;    /* of the codes as packed */
    int32_t *column_sum;    /* sum over k of (w - zw), modulo 2^32 */
    int64_t *magnitude;     /* sum over k of |w - zw| */
    int32_t *bias;          /* zeros until the caller fills it */
    float *scale;           /* the same, by ndq_gemm_set_scales */
    float *float_bias;      /* NULL, or what the caller has put there: added to y instead of acc */
    int64_t max_magnitude, max_bias; /* the caller that fills bias sets max_bias to the largest |bias| */
    float max_scale;
    bool is_signed;         /* of the codes as packed, if its kernel multiplies any */
    bool any_zero_point;    /* some zero point of the codes as packed is not 0 */
    size_t bytes;           /* all of the above */
} ndq_packed;

/* Weights as they come: strides in bytes. zero_point has N entries, or is NULL: all 0. Codes that do not exist yet are
 * made as they are packed, so that each row is still in the cache: make_rows writes codes and zero points of rows
 * [first, first + count). It runs once for each row, in any order, on several threads. */
typedef struct {
    size_t N, K;
    size_t runs; /* of K / runs codes each */
    const uint8_t *codes;
    ptrdiff_t stride_n, stride_k;
    bool is_signed;
    const int32_t *zero_point;
    int32_t largest; /* no |w - zw| is larger; 0: not known, so the codes are looked through */
    void (*make_rows)(void *ctx, size_t first, size_t count); /* NULL: the codes are there. Else largest is known */
    void *ctx;
} ndq_weights;

/* NULL when there is no memory. with_float_bias allocates float_bias, zeros. Takes kernel->special if the weights fit. */
ndq_packed *ndq_gemm_pack(const ndq_gemm_kernel *kernel, const ndq_weights *w, bool with_float_bias);
void ndq_gemm_free(ndq_packed *packed);

/* Scales of columns [first, first + count): scale[i * step], so that a step of 0 repeats one. */
static inline void ndq_gemm_set_scales(ndq_packed *packed, size_t first, size_t count, const float *scale, size_t step)
{
    float largest = packed->max_scale;
    for (size_t i = 0; i < count; i++) {
        const float s = scale[i * step];
        packed->scale[first + i] = s;
        largest = s > largest ? s : largest;
    }
    packed->max_scale = largest;
}

/* The first column whose sum could pass 2^31 - 1 for activations of this sign and zero point, or N if there is none. */
size_t ndq_gemm_overflow(const ndq_packed *w, bool a_signed, int32_t za);

typedef struct {
    const ndq_packed *w;
    size_t M;
    const uint8_t *a; /* rows contiguous, a_stride bytes apart */
    ptrdiff_t a_stride;
    bool a_signed;
    int32_t za;

    ndq_gemm_output output;
    void *out; /* (M, N), C-contiguous: int32, float or bytes */
    float a_scale;
    ndq_activation activation;
    /* For codes only: y = scale * (q - zero), qmin <= q <= qmax. */
    float out_scale, out_inv;
    int32_t out_zero, qmin, qmax;
    ndq_requantization requantization;
} ndq_gemm_call;

/* NDQ_OK or NDQ_NO_MEMORY. The caller has asked ndq_gemm_overflow; the weights are one run. */
ndq_status ndq_gemm(const ndq_gemm_call *call);

/* ---- For drivers: how many threads to use, and what the output stage of a call needs ---- */

/* For so many multiply-adds, of which `enough` take about 30 us. */
size_t ndq_gemm_threads(double macs, double enough);

/* Before and after the tiles of a thread. */
static inline void ndq_gemm_enter(const ndq_gemm_kernel *kernel)
{
    if (kernel->enter)
        kernel->enter();
}

static inline void ndq_gemm_leave(const ndq_gemm_kernel *kernel)
{
    if (kernel->leave)
        kernel->leave();
}

ndq_gemm_stage ndq_gemm_make_stage(const ndq_gemm_call *call);
void ndq_gemm_make_columns(const ndq_gemm_call *call, size_t first, ndq_gemm_columns *columns);

/* Whether all columns of codes have ndq_gemm_columns.shrinks. */
bool ndq_gemm_shrinks(const ndq_gemm_call *call);

static inline size_t ndq_gemm_output_bytes(ndq_gemm_output output)
{
    return output == NDQ_GEMM_CODES ? 1 : 4;
}

static inline size_t ndq_gemm_code_bytes(const ndq_gemm_kernel *kernel)
{
    return 4 / kernel->codes_per_word;
}

/* The same of weights in a panel. */
static inline size_t ndq_gemm_panel_code_bytes(const ndq_gemm_kernel *kernel)
{
    return kernel->byte_panels ? 1 : ndq_gemm_code_bytes(kernel);
}

/* Words [word, ...) of a panel, which lie together where the kernel has block_words; else only word 0. */
static inline const uint8_t *ndq_gemm_panel(const ndq_packed *w, size_t panel, size_t word)
{
    const ndq_gemm_kernel *kernel = w->kernel;
    return w->panels + panel * w->panel_bytes +
           word * kernel->nr * kernel->codes_per_word * ndq_gemm_panel_code_bytes(kernel);
}

/* The tiles for a panel of which so many columns are used. */
static inline ndq_gemm_tile *const *ndq_gemm_tiles(const ndq_gemm_kernel *kernel, size_t columns)
{
    return columns <= kernel->nr / 2 && kernel->narrow[0] ? kernel->narrow : kernel->tile;
}

/* Whether `row` may make the outputs of a panel: it has no row terms. */
static inline bool ndq_gemm_row_at_once(const ndq_packed *w, const ndq_gemm_columns *c, ndq_gemm_output output)
{
    return w->kernel->row[output] && !w->any_zero_point && (output != NDQ_GEMM_CODES || c->shrinks);
}

/* What brings codes of activations to the sign that a kernel multiplies, unless it centres them. */
static inline int32_t ndq_gemm_shift_of_a(const ndq_gemm_kernel *kernel, bool is_signed)
{
    return kernel->a_centred || kernel->any_signs || is_signed == kernel->a_signed ? 0 : is_signed ? 128 : -128;
}

#endif
