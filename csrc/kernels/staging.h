/* Blocks of an array on their way between memory and kernels: arrays that are not contiguous or have another type, and
 * outputs that are larger than the caches. */
#ifndef NDQ_STAGING_H
#define NDQ_STAGING_H

#include "../backend.h"

/* What an array holds: what kernels compute with, or float16 for float32, or float32 for float64. */
typedef enum { NDQ_AS_COMPUTED, NDQ_IS_F16, NDQ_IS_F32 } ndq_data_type;

/* At least one axis, from the slowest to the fastest; strides in bytes. */
enum { NDQ_MAX_AXES = 64 };

typedef struct {
    int axes;
    size_t shape[NDQ_MAX_AXES];
    ptrdiff_t stride[NDQ_MAX_AXES];
} ndq_strides;

/* Adds an axis that is faster than those before; axes that can be walked as one become one. */
void ndq_strides_add(ndq_strides *strides, size_t length, ptrdiff_t stride);

/* An input or an output of a call; data is NULL if there is none. */
typedef struct {
    char *data;
    size_t bytes; /* of an element as kernels see it */
    ndq_data_type type;
    const ndq_strides *strides; /* NULL if contiguous; always for outputs */
} ndq_operand;

static inline bool ndq_is_direct(const ndq_operand *o)
{
    return o->type == NDQ_AS_COMPUTED && !o->strides;
}

/* Elements that are staged at a time: few enough that inputs, outputs and coefficients stay in the first cache, and that
 * memory is read and written in turn. */
enum { NDQ_STAGED = 512 };

/* Brings elements [first, first + n), n at most NDQ_STAGED, to `to` as kernels want them; for an operand that is not
 * direct. */
void ndq_load(const ndq_kernels *kernels, const ndq_operand *from, size_t first, size_t n, void *to);

/* Writes n elements, as kernels made them, to elements [first, first + n). */
void ndq_store(const ndq_kernels *kernels, const ndq_operand *to, size_t first, size_t n, const void *from);

/* Asks for elements [first, end) of an input, if they lie one beside the other. */
void ndq_prefetch(const ndq_operand *from, size_t first, size_t end);

/* Copies past the caches. Between threads, ndq_stream_end must follow. Elsewhere than on x86 an ordinary copy. */
void ndq_stream(void *to, const void *from, size_t bytes);
void ndq_stream_end(void);

/* Calls that move more bytes than this write past the caches: by default what the largest cache holds. Written to a
 * cache, a line is first read from memory, and would be gone before anybody came to use it. 0: by default. */
size_t ndq_get_stream_from(void);
void ndq_set_stream_from(size_t bytes);

#endif
