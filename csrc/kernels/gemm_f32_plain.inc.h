/* How a kernel of gemm_f32.h packs: plain C, compiled once per instruction set.
 *
 * Parameters: NAME(x) makes the function names; TARGET is the target attribute; MR and NR the rows and columns of a
 * tile; and TRANSPOSE(count, rows, stride, panel), which lays `count` words of NR rows, `stride` words apart, into
 * [count][NR]. gemm_plain.inc.h comes first. */

/* `columns` codes of type C of each row of b, `step` bytes apart. The constants of a row are read before its panel is
 * written: for all that the compiler knows, they lie there. */
#define NDQ_PACK_CODES(C, columns, step)                                                                     \
    for (size_t i = 0; i < count; i++, row += b->stride_k, panel += NR) {                                    \
        const size_t channel = b->per_row ? k + i : 0;                                                       \
        const float zero = b->zero_point[channel], scale = b->scale[channel];                                \
        NDQ_GEMM_KEEP_LOOP                                                                                   \
        for (size_t j = 0; j < (columns); j++)                                                               \
            panel[j] = ((float)*(const C *)(row + (ptrdiff_t)j * (step)) - zero) * scale;                    \
        memset(panel + (columns), 0, (NR - (columns)) * sizeof(*panel));                                     \
    }

/* Column by column, unless each row is copied as it is. */
static TARGET void NAME(pack_floats)(const char *row, ptrdiff_t stride_k, ptrdiff_t step, size_t count, size_t columns,
                                     float *panel)
{
    if (columns < NR)
        memset(panel, 0, count * NR * sizeof(*panel));
    if (step == sizeof(*panel)) {
        ndq_copy_columns_f32(count, columns, row, stride_k, panel, NR * sizeof(*panel));
        return;
    }
    for (size_t j = 0; j < columns; j++)
        ndq_copy_columns_f32(count, 1, row + (ptrdiff_t)j * step, stride_k, panel + j, NR * sizeof(*panel));
}

static TARGET void NAME(pack)(const ndq_terms *b, size_t k, size_t count, size_t n, size_t columns,
                              float *NDQ_RESTRICT panel)
{
    const char *row = b->data + (ptrdiff_t)k * b->stride_k + (ptrdiff_t)n * b->stride_n;
    const ptrdiff_t step = b->stride_n, size = b->type == NDQ_TERMS_F32 ? sizeof(float) : 1;
    const bool whole = columns == NR && step == size;
    switch (b->type) {
    case NDQ_TERMS_F32:
        if (columns == NR && b->stride_k == size && step > size)
            TRANSPOSE(count, row, step, panel);
        else
            NAME(pack_floats)(row, b->stride_k, step, count, columns, panel);
        return;
    case NDQ_TERMS_U8:
        if (whole)
            NDQ_PACK_CODES(uint8_t, NR, 1)
        else
            NDQ_PACK_CODES(uint8_t, columns, step)
        return;
    case NDQ_TERMS_S8:
        if (whole)
            NDQ_PACK_CODES(int8_t, NR, 1)
        else
            NDQ_PACK_CODES(int8_t, columns, step)
    }
}

/* Rows whose neighbours are neighbours in memory are copied a term of a whole tile at a time. */
static TARGET void NAME(pack_rows)(size_t K, size_t rows, ndq_rows_f32 a, float *packed)
{
    for (size_t k = 0; k < K; k++, a.data += a.stride_k, packed += MR)
        if (rows == MR && a.stride_m == sizeof(*packed))
            memcpy(packed, a.data, MR * sizeof(*packed));
        else
            for (size_t i = 0; i < rows; i++)
                memcpy(packed + i, a.data + (ptrdiff_t)i * a.stride_m, sizeof(*packed));
}

#undef NDQ_PACK_CODES
