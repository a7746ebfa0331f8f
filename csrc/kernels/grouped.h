/* Product of rows of codes by weights of 4 bits that have a scale for each group of inputs, exact within a group:
 *
 *   acc[m, n, g] = sum over k in group g of (a[m, k] - za[m]) * (w[n, k] - zw[n, g])
 *   y[m, n] = (sum over g of float(acc[m, n, g]) * scale[n, g]) * a_scale[m] + bias[n]
 *
 * in float32, groups added in ascending order, no fused operation. With float offsets a weight is scale * w + offset, and a
 * group adds float(acc) * scale + float(sum over k of (a[m, k] - za[m])) * offset.
 *
 * M rows of activations, N outputs, K inputs in G groups. Two weights share a byte: a panel of nr columns is, for each word
 * of 4 inputs, 4 * nr / 2 bytes, the first half of the columns in the lower halves of the bytes. Behind the codes of a
 * group lie its constants for these columns, so that all that a row needs is one stream of memory. */
#ifndef NDQ_GROUPED_H
#define NDQ_GROUPED_H

#include "../common.h"

enum { NDQ_GROUPED_MAX_MR = 8, NDQ_GROUPED_MAX_NR = 32, NDQ_GROUPED_WORD = 4, NDQ_GROUPED_LEVELS = 16 };
enum { NDQ_GROUPED_STREAMS = 4 };

/* Where the groups of a panel are: `words` of each, `bytes` from one to the next. */
typedef struct {
    size_t groups, words, bytes;
} ndq_grouped_run;

/* Multiplies ROWS rows of s8 codes, `stride` bytes apart, by the groups of a panel: sums of the codes alone, weights taken
 * as 0 .. 15, go to acc[(group * ROWS + row) * nr + column]. */
typedef void ndq_grouped_tile(const ndq_grouped_run *run, const int8_t *a, size_t stride, const uint8_t *panel,
                              int32_t *acc);

/* Multiplies one row by NDQ_GROUPED_STREAMS panels, `panel_bytes` apart, which take turns at every word: so memory gives
 * them sooner than one after another. Sums go to acc[(group * NDQ_GROUPED_STREAMS + panel) * nr + column]. */
typedef void ndq_grouped_streams(const ndq_grouped_run *run, const int8_t *a, const uint8_t *panels, size_t panel_bytes,
                                 int32_t *acc);

/* What the codes of a row mean: y = scale * (a - zero), and the sums of its codes over each group. */
typedef struct {
    float scale;
    int32_t zero;
    const int32_t *sums;
} ndq_grouped_row;

/* The sums of some groups, from `first` on, of `rows` rows. */
typedef struct {
    const ndq_grouped_run *run;
    size_t first, rows, group_size;
    bool has_offset;
    const int32_t *acc;       /* of the first, rows side by side */
    size_t acc_group;         /* from one group to the next */
    const uint8_t *constants; /* of the first of these groups */
    const ndq_grouped_row *row;
} ndq_grouped_sums;

typedef struct {
    const char *name;
    size_t mr, nr;
    size_t k_step;        /* groups are padded with zeros to a multiple of this many codes */
    double parallel_macs; /* multiply-adds done in about 30 us */
    ndq_grouped_tile *tile[NDQ_GROUPED_MAX_MR]; /* by number of rows less one */
    ndq_grouped_streams *streams;               /* or NULL: one panel after another */
    /* row[k] = codes[k] ^ flip, as s8; their sum. */
    int32_t (*expand)(size_t n, const uint8_t *codes, uint8_t flip, int8_t *row);
    /* total[row * nr + n] += what these groups give, group by group. */
    void (*combine)(const ndq_grouped_sums *sums, float *total);
    /* y[n] = total[n] * scale + bias[n], for n < columns <= nr; bias NULL adds nothing. */
    void (*store)(size_t columns, const float *total, float scale, const float *bias, float *y);
} ndq_grouped_kernel;

extern const ndq_grouped_kernel ndq_grouped_portable;
#ifdef NDQ_X86
extern const ndq_grouped_kernel ndq_grouped_avx2, ndq_grouped_avx512vnni;
#endif
#ifdef NDQ_ARM64
extern const ndq_grouped_kernel ndq_grouped_neon, ndq_grouped_neondot;
#endif

/* Weights in a kernel's format. */
typedef struct {
    const ndq_grouped_kernel *kernel;
    size_t N, K, group_size;
    ndq_grouped_run run;
    size_t panel_bytes;
    bool has_offset;
    float *bias; /* N, or NULL */
    uint8_t *panels;
    size_t bytes; /* all of the above */
} ndq_grouped;

/* Weights as they come, C-contiguous. The codes of an output less `lowest`, modulo 2^8, are 0 .. 15, as are its zero
 * points. */
typedef struct {
    size_t N, K, group_size; /* which divides K; K is not 0 */
    const uint8_t *codes;    /* (N, K) */
    uint8_t lowest;
    const float *scale;      /* (N, G), as the next two */
    const double *zero_point; /* of the codes as they come; not read if there are offsets */
    const float *offset;     /* or NULL */
    const float *bias;       /* (N,) or NULL */
} ndq_grouped_weights;

/* No group may be longer: its sum could pass int32. */
enum { NDQ_GROUPED_LONGEST = INT32_MAX / (255 * (NDQ_GROUPED_LEVELS - 1)) };

/* NULL when there is no memory. */
ndq_grouped *ndq_grouped_pack(const ndq_grouped_kernel *kernel, const ndq_grouped_weights *w);
void ndq_grouped_free(ndq_grouped *w);

typedef struct {
    const ndq_grouped *w;
    size_t M;
    const uint8_t *a; /* (M, K), C-contiguous */
    bool a_signed;
    const float *a_scale;    /* one for each row, or of all if */
    const int32_t *a_zero;   /* ... likewise */
    bool per_row;
    float *y; /* (M, N), C-contiguous */
} ndq_grouped_call;

/* NDQ_OK or NDQ_NO_MEMORY. */
ndq_status ndq_grouped_multiply(const ndq_grouped_call *call);

#endif
