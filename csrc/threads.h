/* The project's own thread pool. */
#ifndef NDQ_THREADS_H
#define NDQ_THREADS_H

#include "common.h"

/* Calls body(ctx, chunk) once for each chunk in [0, chunks), in any order, on up to ndq_get_num_threads() threads, and
 * returns when all are done. If the pool is busy with a call of another thread, the caller does its chunks alone.
 * Never call it from inside a body. */
void ndq_parallel_for(size_t chunks, void (*body)(void *ctx, size_t chunk), void *ctx);

/* Whether some worker is awake, looking for work, so that even a few microseconds of it are worth sharing. It may fall
 * asleep at any time. */
bool ndq_worker_is_awake(void);

/* The chunks of a kernel that is bound by memory, about 0.15 ns for each of its elements: shared if it has 10 us of work
 * and a worker is awake, or 20 us. */
void ndq_for_chunks(size_t elements, size_t chunks, void (*body)(void *ctx, size_t chunk), void *ctx);

enum { NDQ_MAX_THREADS = 256 };

/* By default the CPUs this process may use, or NDQUANT_NUM_THREADS. n is brought to 1 .. NDQ_MAX_THREADS. */
void ndq_set_num_threads(size_t n);
size_t ndq_get_num_threads(void);

#endif
