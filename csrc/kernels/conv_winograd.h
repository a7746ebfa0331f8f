/* Convolution with windows of 3 x 3 and stride 1 in fewer multiplications, exact: Winograd's F(2 x 2, 3 x 3) (Lavin and
 * Gray, 2016, https://arxiv.org/abs/1509.09308). Four outputs Y of a channel form a tile that reads 4 x 4 pixels d:
 *
 *   4 Y = A^T [ sum over channels of (G g G^T) * (B^T d B) ] A,   * element by element
 *
 *         1  0 -1  0         2  0  0
 *   B^T = 0  1  1  0     G = 1  1  1     A^T = 1  1  1  0
 *         0 -1  1  0         1 -1  1           0  1 -1 -1
 *         0  1  0 -1         0  0  2
 *
 * G is twice that of the source, so that all numbers are integers: |B^T d B| <= 4 * 255 and |G g G^T| <= 9 * 255 fit
 * int16. The sums of each of the 16 elements are a product of matrices of K = C, on the tiles of gemm.h; they may
 * wrap, as 4 Y is exact modulo 2^32, and packing makes sure that it fits. */
#ifndef NDQ_CONV_WINOGRAD_H
#define NDQ_CONV_WINOGRAD_H

#include "conv.h"

enum { NDQ_WINOGRAD_ELEMENTS = 16, NDQ_WINOGRAD_OUTPUTS = 4, NDQ_WINOGRAD_LEAST_CHANNELS = 16 };

/* What an instruction set adds. Its products are of int16, both operands centred. */
typedef struct ndq_winograd {
    const ndq_gemm_kernel *products;
    /* B^T d B of `tiles` tiles side by side, of at least NDQ_WINOGRAD_LEAST_CHANNELS channels: elements `element`
     * apart, and in each tiles `tile` apart. Pixels have their channels last, in rows `row` apart. */
    void (*pixels)(size_t tiles, size_t channels, const int16_t *in, size_t row, int16_t *out, size_t tile,
                   size_t element);
    /* Y of `tiles` tiles and nr channels: elements and outputs are `element` apart, each of (tiles, nr). */
    void (*outputs)(size_t tiles, const int32_t *in, int32_t *out, size_t element);
    /* The same to codes, for all nr channels of tiles side by side, if columns->shrinks. */
    void (*codes)(size_t tiles, const int32_t *in, size_t element, const ndq_gemm_columns *columns,
                  const ndq_gemm_stage *stage, uint8_t *out, size_t out_y, size_t out_x);
} ndq_winograd;

#ifdef NDQ_X86
extern const ndq_winograd ndq_winograd_avx2;
#endif

/* Whether weights, packed for direct products, can be multiplied so as well. */
bool ndq_winograd_suits(const ndq_conv_weights *w);

/* Fills w->winograd from centred codes in the order (O, 3, 3, C). NDQ_OK or NDQ_NO_MEMORY. */
ndq_status ndq_winograd_pack(ndq_conv_weights *w, const uint8_t *codes, bool is_signed, const int32_t *zero_point);

/* Whether it is worth it for a call. */
bool ndq_winograd_pays(const ndq_conv_call *call);

/* The call as one whose outputs are the tiles: windows of 4 x 4 with stride 2. */
ndq_conv_call ndq_winograd_tiles(const ndq_conv_call *call);

/* rows x cols tiles of the outputs from `out` on, of which the image has out_rows x out_cols, for some panels. */
typedef struct {
    const ndq_conv_call *call; /* of the outputs */
    const ndq_gemm_stage *stage;
    size_t rows, cols, out_rows, out_cols, panel, end_panel;
    const int16_t *band;
    size_t band_row; /* codes */
    uint8_t *out;
} ndq_winograd_block;

size_t ndq_winograd_scratch_bytes(const ndq_conv_weights *w);
void ndq_winograd_run(const ndq_winograd_block *block, uint8_t *scratch);

#endif
