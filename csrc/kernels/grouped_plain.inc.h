/* The loops of a kernel of grouped.h that need no intrinsics: plain C, compiled once per instruction set.
 * Parameters: NAME(x) makes the function names; TARGET is the target attribute; NR the columns of a panel. */

static TARGET int32_t NAME(expand)(size_t n, const uint8_t *codes, uint8_t flip, int8_t *row)
{
    int8_t *NDQ_RESTRICT out = row;
    int32_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        out[i] = (int8_t)(codes[i] ^ flip);
        sum += out[i];
    }
    return sum;
}

/* (a - za) * (w - zw) summed is the sum of a * w, less za * sum of (w - zw), less zw * sum of a: the last two come from
 * `term`, 16 * sum of (w - zw) + zw, and the sums of the row. */
static inline __attribute__((always_inline)) TARGET void NAME(combine_group)(const bool has_offset,
                                                                             const ndq_grouped_sums *s, size_t group,
                                                                             size_t r, float *NDQ_RESTRICT total)
{
    const ndq_grouped_row *row = &s->row[r];
    const uint8_t *constants = s->constants + group * s->run->bytes;
    const float *scale = (const float *)constants, *offset = (const float *)(constants + 2 * NR * sizeof(float));
    const int32_t *term = (const int32_t *)(constants + NR * sizeof(float));
    const int32_t *acc = s->acc + group * s->acc_group + r * NR;
    const uint32_t zero = (uint32_t)row->zero, sum = (uint32_t)row->sums[s->first + group];
    const float inputs = (float)(int32_t)(sum - (uint32_t)s->group_size * zero);
    for (size_t n = 0; n < NR; n++) {
        const uint32_t weights = (uint32_t)(term[n] >> 4), zw = (uint32_t)term[n] & 15;
        float y = (float)(int32_t)((uint32_t)acc[n] - zero * weights - zw * sum) * scale[n];
        if (has_offset)
            y = y + inputs * offset[n];
        total[n] = total[n] + y;
    }
}

static TARGET void NAME(combine)(const ndq_grouped_sums *s, float *total)
{
    for (size_t group = 0; group < s->run->groups; group++)
        for (size_t r = 0; r < s->rows; r++) {
            if (s->has_offset)
                NAME(combine_group)(true, s, group, r, total + r * NR);
            else
                NAME(combine_group)(false, s, group, r, total + r * NR);
        }
}

static TARGET void NAME(store)(size_t columns, const float *total, float scale, const float *bias, float *y)
{
    for (size_t n = 0; n < columns; n++)
        y[n] = total[n] * scale;
    for (size_t n = 0; bias && n < columns; n++)
        y[n] = y[n] + bias[n];
}
