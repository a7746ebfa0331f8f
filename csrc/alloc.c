#include "common.h"

#include <pthread.h>

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

/* One buffer for each thread, released by the key when the thread ends. */
static _Thread_local struct {
    void *memory;
    size_t bytes;
} scratch;
static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;
static bool scratch_has_key;

static void make_scratch_key(void)
{
    scratch_has_key = pthread_key_create(&scratch_key, ndq_free) == 0;
}

void *ndq_scratch(size_t bytes)
{
    if (bytes <= scratch.bytes)
        return scratch.memory;
    pthread_once(&scratch_once, make_scratch_key);
    void *memory = ndq_alloc(bytes);
    if (!memory || !scratch_has_key || pthread_setspecific(scratch_key, memory)) {
        ndq_free(memory);
        return NULL;
    }
    ndq_free(scratch.memory);
    scratch.memory = memory;
    scratch.bytes = bytes;
    return memory;
}
