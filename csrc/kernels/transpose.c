#include "transpose.h"

#ifdef NDQ_X86
#include <emmintrin.h> /* which every x86-64 has */
#endif

typedef uint64_t __attribute__((may_alias, aligned(1))) eight_bytes;
typedef uint32_t __attribute__((may_alias, aligned(1))) four_bytes;

/* The first n = 4 .. 8 bytes of a number, by two accesses of 4 bytes that may overlap. On little-endian machines. */
static inline uint64_t load(const uint8_t *in, size_t n)
{
    if (n == 8)
        return *(const eight_bytes *)in;
    return *(const four_bytes *)in | (uint64_t)*(const four_bytes *)(in + n - 4) << 8 * (n - 4);
}

static inline void store(uint8_t *out, size_t n, uint64_t value)
{
    if (n == 8) {
        *(eight_bytes *)out = value;
        return;
    }
    *(four_bytes *)out = (uint32_t)value;
    *(four_bytes *)(out + n - 4) = (uint32_t)(value >> 8 * (n - 4));
}

/* Swaps the upper `bits` bits of a with the lower ones of b, in each group of twice as many. */
#define SWAP(a, b, bits, mask)                                                                               \
    do {                                                                                                     \
        const uint64_t different_ = ((a >> (bits)) ^ b) & (mask);                                            \
        b ^= different_;                                                                                     \
        a ^= different_ << (bits);                                                                           \
    } while (0)

/* 4 to 8 rows of as many columns: byte i of row j goes to byte j of row i, in three exchanges of ever larger halves. */
static inline __attribute__((always_inline)) void transpose_up_to_8(const uint8_t *in, ptrdiff_t in_row, size_t rows,
                                                                    size_t columns, uint8_t *out, size_t out_row)
{
    uint64_t r[8] = {0};
    for (size_t i = 0; i < 8; i++)
        if (i < rows)
            r[i] = load(in + (ptrdiff_t)i * in_row, columns);
    for (int i = 0; i < 8; i += 2)
        SWAP(r[i], r[i + 1], 8, 0x00ff00ff00ff00ffULL);
    for (int i = 0; i < 8; i += i % 2 ? 3 : 1)
        SWAP(r[i], r[i + 2], 16, 0x0000ffff0000ffffULL);
    for (int i = 0; i < 4; i++)
        SWAP(r[i], r[i + 4], 32, 0x00000000ffffffffULL);
    for (size_t i = 0; i < 8; i++)
        if (i < columns)
            store(out + i * out_row, rows, r[i]);
}

static void transpose_8(const uint8_t *in, ptrdiff_t in_row, size_t rows, size_t columns, uint8_t *out, size_t out_row)
{
    if (rows == 8 && columns == 8)
        transpose_up_to_8(in, in_row, 8, 8, out, out_row);
    else
        transpose_up_to_8(in, in_row, rows, columns, out, out_row);
}

enum { LONG = 16 };

#ifdef NDQ_X86
/* Each round takes the first half of the rows apart by rows of the second, which turns an index, the bits of the row and then
 * those of the column, by one bit. */
#define ROUNDS(rows, count, width)                                                                           \
    for (int round = 0; round < (count); round++) {                                                          \
        __m128i before[rows];                                                                                \
        memcpy(before, r, sizeof(r));                                                                        \
        for (int i = 0; i < (rows) / 2; i++) {                                                               \
            r[2 * i] = _mm_unpacklo_epi##width(before[i], before[(rows) / 2 + i]);                           \
            r[2 * i + 1] = _mm_unpackhi_epi##width(before[i], before[(rows) / 2 + i]);                       \
        }                                                                                                    \
    }

/* 16 rows of 4 to 8 columns. */
static inline __attribute__((always_inline)) void transpose_tall(const uint8_t *in, ptrdiff_t in_row, size_t columns,
                                                                 uint8_t *out, size_t out_row)
{
    __m128i r[8];
    for (int i = 0; i < 8; i++) {
        const uint8_t *above = in + i * in_row, *below = above + 8 * in_row;
        r[i] = _mm_unpacklo_epi8(_mm_cvtsi64_si128((long long)load(above, columns)),
                                 _mm_cvtsi64_si128((long long)load(below, columns)));
    }
    ROUNDS(8, 3, 8)
    for (size_t i = 0; i < 8; i++)
        if (i < columns)
            _mm_storeu_si128((__m128i *)(out + i * out_row), r[i]);
}

/* 4 to 8 rows of 16 columns. */
static inline __attribute__((always_inline)) void transpose_broad(const uint8_t *in, ptrdiff_t in_row, size_t rows,
                                                                  uint8_t *out, size_t out_row)
{
    __m128i r[8];
    for (size_t i = 0; i < 8; i++)
        r[i] = i < rows ? _mm_loadu_si128((const __m128i *)(in + (ptrdiff_t)i * in_row)) : _mm_setzero_si128();
    ROUNDS(8, 3, 8)
    for (size_t i = 0; i < 8; i++) {
        store(out + 2 * i * out_row, rows, (uint64_t)_mm_cvtsi128_si64(r[i]));
        store(out + (2 * i + 1) * out_row, rows, (uint64_t)_mm_cvtsi128_si64(_mm_unpackhi_epi64(r[i], r[i])));
    }
}

static void transpose_4_words(const uint8_t *in, ptrdiff_t in_row, uint8_t *out, size_t out_row)
{
    __m128i r[4];
    for (int i = 0; i < 4; i++)
        r[i] = _mm_loadu_si128((const __m128i *)(in + i * in_row));
    ROUNDS(4, 2, 32)
    for (size_t i = 0; i < 4; i++)
        _mm_storeu_si128((__m128i *)(out + i * out_row), r[i]);
}
#else
static void transpose_tall(const uint8_t *in, ptrdiff_t in_row, size_t columns, uint8_t *out, size_t out_row)
{
    transpose_8(in, in_row, 8, columns, out, out_row);
    transpose_8(in + 8 * in_row, in_row, 8, columns, out + 8, out_row);
}

static void transpose_broad(const uint8_t *in, ptrdiff_t in_row, size_t rows, uint8_t *out, size_t out_row)
{
    transpose_8(in, in_row, rows, 8, out, out_row);
    transpose_8(in + 8, in_row, rows, 8, out + 8 * out_row, out_row);
}

static void transpose_4_words(const uint8_t *in, ptrdiff_t in_row, uint8_t *out, size_t out_row)
{
    for (size_t j = 0; j < 4; j++)
        for (size_t i = 0; i < 4; i++)
            memcpy(out + j * out_row + 4 * i, in + (ptrdiff_t)i * in_row + 4 * j, 4);
}
#endif

static void transpose_one_by_one(const uint8_t *in, ptrdiff_t in_row, size_t rows, size_t columns, uint8_t *out,
                                 size_t out_row)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            out[j * out_row + i] = in[(ptrdiff_t)i * in_row + (ptrdiff_t)j];
}

static void transpose_16_rows(const uint8_t *in, ptrdiff_t in_row, size_t columns, uint8_t *out, size_t out_row)
{
    if (columns < 8)
        transpose_tall(in, in_row, columns, out, out_row);
    for (size_t j = 0; columns >= 8 && j < columns; j += 8) {
        j = ndq_min_size(j, columns - 8);
        transpose_tall(in + j, in_row, 8, out + j * out_row, out_row);
    }
}

/* 4 to 8 rows. */
static void transpose_few_rows(const uint8_t *in, ptrdiff_t in_row, size_t rows, size_t columns, uint8_t *out, size_t out_row)
{
    const size_t width = ndq_min_size(columns, 8);
    size_t j = 0;
    for (; rows == 8 && j + LONG <= columns; j += LONG)
        transpose_broad(in + j, in_row, 8, out + j * out_row, out_row);
    for (; j + LONG <= columns; j += LONG)
        transpose_broad(in + j, in_row, rows, out + j * out_row, out_row);
    for (; j < columns; j += width) {
        j = ndq_min_size(j, columns - width);
        transpose_8(in + j, in_row, rows, width, out + j * out_row, out_row);
    }
}

/* In parts, the last of which overlap those before. */
void ndq_transpose_bytes(const uint8_t *in, ptrdiff_t in_row, size_t rows, size_t columns, uint8_t *out, size_t out_row)
{
    const bool is_little = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;
    const size_t few = ndq_min_size(rows, 8);
    if (!is_little || rows < 4 || columns < 4) {
        transpose_one_by_one(in, in_row, rows, columns, out, out_row);
        return;
    }
    size_t i = 0;
    for (; i + LONG <= rows; i += LONG)
        transpose_16_rows(in + (ptrdiff_t)i * in_row, in_row, columns, out + i, out_row);
    for (; i < rows; i += few) {
        i = ndq_min_size(i, rows - few);
        transpose_few_rows(in + (ptrdiff_t)i * in_row, in_row, few, columns, out + i, out_row);
    }
}

/* Few rows of the output at a time: they are often a power of two apart, and share sets of the cache. */
void ndq_transpose_words(const uint8_t *in, ptrdiff_t in_row, size_t rows, size_t columns, uint8_t *out, size_t out_row)
{
    const size_t whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
    for (size_t j = 0; j < whole_columns; j += 4)
        for (size_t i = 0; i < whole_rows; i += 4)
            transpose_4_words(in + (ptrdiff_t)i * in_row + 4 * j, in_row, out + j * out_row + 4 * i, out_row);
    for (size_t j = 0; j < columns; j++)
        for (size_t i = j < whole_columns ? whole_rows : 0; i < rows; i++)
            memcpy(out + j * out_row + 4 * i, in + (ptrdiff_t)i * in_row + 4 * j, 4);
}
