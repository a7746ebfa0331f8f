#define _GNU_SOURCE
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#ifdef NDQ_X86
#include <immintrin.h>
#define RELAX() _mm_pause()
#elif defined(NDQ_ARM64)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif

/* How long a worker looks for the next job before it sleeps: the next layer, and the next call of a network, come
 * sooner. Whoever waits gives its core away now and then: the scheduler may have put both threads on the same one. */
enum { SPIN_NANOSECONDS = 100 * 1000, SPINS_PER_CLOCK = 64 };

/* A job is offered through `state`: its upper half counts openings and closings (odd while a job is open), its lower
 * half counts the workers inside. A worker enters by adding one while the job is open, so a job never waits for a
 * worker that is still asleep, and no worker reads the fields of a job that is over. */
#define TURN ((uint64_t)1 << 32)
#define INSIDE(state) ((state) & (TURN - 1))
#define IS_OPEN(state) (((state) / TURN) & 1)

static struct {
    _Atomic uint64_t state;
    atomic_size_t next;
    size_t chunks;
    void (*body)(void *ctx, size_t chunk);
    void *ctx;
    atomic_bool stop;
    atomic_size_t sleepers, awake;
    pthread_mutex_t sleep_lock;
    pthread_cond_t wake;

    /* Guarded by `owner`, which the thread that runs a job or changes the workers holds. */
    pthread_mutex_t owner;
    size_t workers;
    pthread_t ids[NDQ_MAX_THREADS];
    bool fork_handlers;
} pool = {
    .sleep_lock = PTHREAD_MUTEX_INITIALIZER,
    .wake = PTHREAD_COND_INITIALIZER,
    .owner = PTHREAD_MUTEX_INITIALIZER,
};

static atomic_size_t wanted; /* threads including the caller; 0: not decided yet */

static void take_chunks(void)
{
    for (;;) {
        size_t chunk = atomic_fetch_add_explicit(&pool.next, 1, memory_order_relaxed);
        if (chunk >= pool.chunks)
            return;
        pool.body(pool.ctx, chunk);
    }
}

/* Joins the open job unless it was `done` already; returns its state, by which it is known from the next one. */
static uint64_t try_join(uint64_t done)
{
    uint64_t state = atomic_load(&pool.state);
    while (IS_OPEN(state) && state / TURN != done / TURN) {
        if (atomic_compare_exchange_weak(&pool.state, &state, state + 1)) {
            take_chunks();
            atomic_fetch_sub(&pool.state, 1);
            return state;
        }
    }
    return done;
}

static bool nothing_new(uint64_t done)
{
    uint64_t state = atomic_load(&pool.state);
    return !atomic_load(&pool.stop) && !(IS_OPEN(state) && state / TURN != done / TURN);
}

static int64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static bool spin(uint64_t done)
{
    const int64_t end = nanoseconds() + SPIN_NANOSECONDS;
    do {
        for (int i = 0; i < SPINS_PER_CLOCK; i++) {
            if (!nothing_new(done))
                return true;
            RELAX();
        }
        sched_yield();
    } while (nanoseconds() < end);
    return false;
}

static void sleep_until_something(uint64_t done)
{
    pthread_mutex_lock(&pool.sleep_lock);
    atomic_fetch_sub(&pool.awake, 1);
    atomic_fetch_add(&pool.sleepers, 1);
    while (nothing_new(done))
        pthread_cond_wait(&pool.wake, &pool.sleep_lock);
    atomic_fetch_sub(&pool.sleepers, 1);
    atomic_fetch_add(&pool.awake, 1);
    pthread_mutex_unlock(&pool.sleep_lock);
}

static void wake_sleepers(void)
{
    if (atomic_load(&pool.sleepers) == 0)
        return;
    pthread_mutex_lock(&pool.sleep_lock);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.sleep_lock);
}

static void *worker(void *unused)
{
    uint64_t done = 0;
    atomic_fetch_add(&pool.awake, 1);
    while (!atomic_load(&pool.stop)) {
        done = try_join(done);
        if (!spin(done))
            sleep_until_something(done);
    }
    atomic_fetch_sub(&pool.awake, 1);
    return unused;
}

/* The owner holds `owner` in the three functions below. */
static void stop_workers(void)
{
    atomic_store(&pool.stop, true);
    wake_sleepers();
    for (size_t i = 0; i < pool.workers; i++)
        pthread_join(pool.ids[i], NULL);
    pool.workers = 0;
    atomic_store(&pool.stop, false);
}

/* A child of fork has only the forking thread. So workers are gone before the fork, and parent and child both start
 * new ones when they next need them. */
static void before_fork(void)
{
    pthread_mutex_lock(&pool.owner);
    stop_workers();
}

static void after_fork(void)
{
    pthread_mutex_unlock(&pool.owner);
}

static void start_workers(size_t count)
{
    if (!pool.fork_handlers)
        pool.fork_handlers = pthread_atfork(before_fork, after_fork, after_fork) == 0;
    if (!pool.fork_handlers)
        return;
    /* Signals belong to Python's threads. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (pool.workers < count && pthread_create(&pool.ids[pool.workers], NULL, worker, NULL) == 0)
        pool.workers++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void run_shared(size_t chunks, void (*body)(void *, size_t), void *ctx)
{
    pool.chunks = chunks;
    pool.body = body;
    pool.ctx = ctx;
    atomic_store(&pool.next, 0);
    atomic_fetch_add(&pool.state, TURN);
    wake_sleepers();
    take_chunks();
    atomic_fetch_add(&pool.state, TURN);
    for (unsigned i = 1; INSIDE(atomic_load(&pool.state)) != 0; i++) {
        RELAX();
        if (i % SPINS_PER_CLOCK == 0)
            sched_yield();
    }
}

static void run_alone(size_t chunks, void (*body)(void *, size_t), void *ctx)
{
    for (size_t chunk = 0; chunk < chunks; chunk++)
        body(ctx, chunk);
}

void ndq_parallel_for(size_t chunks, void (*body)(void *ctx, size_t chunk), void *ctx)
{
    const size_t threads = ndq_get_num_threads();
    if (chunks > 1 && threads > 1 && pthread_mutex_trylock(&pool.owner) == 0) {
        if (pool.workers < threads - 1)
            start_workers(threads - 1);
        run_shared(chunks, body, ctx);
        pthread_mutex_unlock(&pool.owner);
        return;
    }
    run_alone(chunks, body, ctx);
}

bool ndq_worker_is_awake(void)
{
    return atomic_load_explicit(&pool.awake, memory_order_relaxed) != 0;
}

static bool worth_sharing(size_t elements)
{
    enum { AWAKE = 64 * 1024, ASLEEP = 128 * 1024 };
    return elements >= ASLEEP || (elements >= AWAKE && ndq_worker_is_awake());
}

void ndq_for_chunks(size_t elements, size_t chunks, void (*body)(void *ctx, size_t chunk), void *ctx)
{
    if (worth_sharing(elements))
        ndq_parallel_for(chunks, body, ctx);
    else
        run_alone(chunks, body, ctx);
}

static size_t clamp_threads(long n)
{
    return n < 1 ? 1 : n > NDQ_MAX_THREADS ? NDQ_MAX_THREADS : (size_t)n;
}

static size_t default_threads(void)
{
    const char *text = getenv("NDQUANT_NUM_THREADS");
    if (text && atol(text) > 0)
        return clamp_threads(atol(text));
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return clamp_threads(CPU_COUNT(&set));
#endif
    return clamp_threads(sysconf(_SC_NPROCESSORS_ONLN));
}

size_t ndq_get_num_threads(void)
{
    size_t n = atomic_load(&wanted);
    if (n == 0) {
        size_t none = 0;
        n = default_threads();
        if (!atomic_compare_exchange_strong(&wanted, &none, n))
            n = none;
    }
    return n;
}

void ndq_set_num_threads(size_t n)
{
    pthread_mutex_lock(&pool.owner);
    stop_workers();
    atomic_store(&wanted, clamp_threads(n > NDQ_MAX_THREADS ? NDQ_MAX_THREADS : (long)n));
    pthread_mutex_unlock(&pool.owner);
}
