/* Coefficients written out element by element, where a loop over one channel, or over one row of channels, would be too
 * short to be worth starting. */
#ifndef NDQ_TABLE_H
#define NDQ_TABLE_H

#include "elementwise.h"

/* Of each coefficient so many bytes of entries, and room for a channel that begins before them, up to a cache line, and for
 * one that ends after them, in whole lines. */
enum { NDQ_TABLE_BYTES = 4096, NDQ_TABLE_ROOM = (2 * (NDQ_REPEAT_MOST + NDQ_REPEAT_OVER) + 15) / 16 * 16 };

typedef union {
    _Alignas(NDQ_ALIGN) float f32[NDQ_COEFFICIENTS][NDQ_TABLE_BYTES / sizeof(float) + NDQ_TABLE_ROOM];
    double f64[NDQ_COEFFICIENTS][NDQ_TABLE_BYTES / sizeof(double) + NDQ_TABLE_ROOM];
} ndq_table;

/* How an array, or one of its parts, divides into channels, and their coefficients. */
typedef struct {
    ndq_geometry geometry;
    ndq_affine_f32 f32;
    ndq_affine_f64 f64;
} ndq_view;

/* What a kernel does, which says the coefficients that it reads. */
enum { NDQ_SCALES = 1, NDQ_CLAMPS = 2, NDQ_READS_ZERO = 4, NDQ_MAKES_REALS = 8 };

/* Of how many elements of the job a table should be for work on n of them, 0 if it should be without. If `periodic`, one
 * that begins with the array serves for all. */
size_t ndq_table_length(const ndq_elementwise *job, size_t n, bool *periodic);

/* Of how many columns the coefficients stay in the caches, in a table if channels have several elements each. */
size_t ndq_tile_columns(const ndq_elementwise *job, unsigned does);

/* A view with entries for elements [first, first + n) in a row of `length`; first is a multiple of that. */
ndq_view ndq_tabulate(const ndq_elementwise *job, unsigned does, size_t length, size_t first, size_t n,
                      ndq_table *table);

#endif
