#define _GNU_SOURCE
#include "common.h"

#include <pthread.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

enum { LARGE_PAGE = 2 << 20, LARGE_FROM = 4 << 20 };

/* Linux gives large pages to those who ask: weights that come from memory are then read with fewer misses of the TLB. */
static void ask_for_large_pages(void *p, size_t bytes)
{
#ifdef __linux__
    if (p)
        madvise(p, bytes, MADV_HUGEPAGE); /* where it is refused, small pages do */
#else
    (void)p, (void)bytes;
#endif
}

void *ndq_alloc(size_t bytes)
{
    /* aligned_alloc wants a multiple of the alignment, and at least one so that NULL only means failure. */
    const size_t align = bytes >= LARGE_FROM ? LARGE_PAGE : NDQ_ALIGN;
    if (bytes > SIZE_MAX - align)
        return NULL;
    const size_t whole = ndq_round_up(bytes ? bytes : 1, align);
    void *p = aligned_alloc(align, whole);
    if (align == LARGE_PAGE)
        ask_for_large_pages(p, whole);
    return p;
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
