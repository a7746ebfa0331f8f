/* Preloaded before the C library: makes one call of aligned_alloc fail, which only the core calls, or pthread_create. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

static atomic_long until_failure = -1; /* calls; negative: none fails */
static atomic_bool no_threads;

/* The n-th call from now on fails, counted from 0; -1: none does. */
void fail_alloc_at(long n)
{
    atomic_store(&until_failure, n);
}

void fail_threads(bool fail)
{
    atomic_store(&no_threads, fail);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    void *(*next)(size_t, size_t);
    *(void **)&next = dlsym(RTLD_NEXT, "aligned_alloc");
    return atomic_fetch_sub(&until_failure, 1) == 0 ? NULL : next(alignment, bytes);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
    int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    *(void **)&next = dlsym(RTLD_NEXT, "pthread_create");
    return atomic_load(&no_threads) ? EAGAIN : next(thread, attributes, start, argument);
}
