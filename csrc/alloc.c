#include "common.h"

void *ndq_alloc(size_t bytes)
{
    /* aligned_alloc wants a multiple of the alignment, and at least one so that NULL only means failure. */
    if (bytes > SIZE_MAX - NDQ_ALIGN)
        return NULL;
    return aligned_alloc(NDQ_ALIGN, ndq_round_up(bytes ? bytes : 1, NDQ_ALIGN));
}

void ndq_free(void *p)
{
    free(p);
}
