#include "backend.h"

#include <stdatomic.h>

static const ndq_backend *const rows[] = {
#ifdef NDQ_X86
    &ndq_backend_amx,
    &ndq_backend_avx512vpopcntdq,
    &ndq_backend_avx512vnni,
    &ndq_backend_avx512,
    &ndq_backend_avxvnni,
    &ndq_backend_avx2,
#endif
#ifdef NDQ_ARM64
    &ndq_backend_neondot,
    &ndq_backend_neon,
#endif
    &ndq_backend_portable,
};

enum { ROWS = sizeof rows / sizeof rows[0] };

static ndq_kernels composed[ROWS];
static atomic_size_t in_use = ROWS - 1;

size_t ndq_backend_count(void)
{
    return ROWS;
}

const ndq_backend *ndq_backend_at(size_t index)
{
    assert(index < ROWS);
    return rows[index];
}

/* Fills the empty slots of `table` from `row`. */
static void inherit(ndq_kernels *table, const ndq_kernels *row)
{
#define INHERIT(name, arguments) \
    if (!table->name)            \
        table->name = row->name;
    NDQ_ELEMENTWISE_SLOTS(INHERIT)
#undef INHERIT
    if (!table->gemm)
        table->gemm = row->gemm;
    if (!table->gemm_f32)
        table->gemm_f32 = row->gemm_f32;
    if (!table->grouped)
        table->grouped = row->grouped;
    if (!table->binary)
        table->binary = row->binary;
    if (!table->depthwise)
        table->depthwise = row->depthwise;
}

/* The index of the row of that name if it is available, else ROWS. */
static size_t find(const char *name)
{
    for (size_t i = 0; i < ROWS; i++)
        if (strcmp(rows[i]->name, name) == 0 && rows[i]->available())
            return i;
    return ROWS;
}

static size_t best_available(void)
{
    for (size_t i = 0; i < ROWS; i++)
        if (rows[i]->available())
            return i;
    return ROWS - 1;
}

/* A cap that is better than what this machine has, or that does not exist, leaves the best there is. */
static size_t capped(size_t best)
{
    const char *cap = getenv("NDQUANT_BACKEND");
    for (size_t i = best; cap && i < ROWS; i++)
        if (strcmp(rows[i]->name, cap) == 0 && rows[i]->available())
            return i;
    return best;
}

void ndq_dispatch_init(void)
{
    for (size_t i = 0; i < ROWS; i++)
        for (size_t j = i; j < ROWS; j++) /* a processor may have a row without all that stand below */
            if (rows[j]->available())
                inherit(&composed[i], &rows[j]->kernels);
    atomic_store(&in_use, capped(best_available()));
}

const ndq_kernels *ndq_kernels_in_use(void)
{
    return &composed[atomic_load(&in_use)];
}

const char *ndq_backend_in_use(void)
{
    return rows[atomic_load(&in_use)]->name;
}

const ndq_kernels *ndq_kernels_of(const char *name)
{
    size_t i = find(name);
    return i < ROWS ? &composed[i] : NULL;
}

bool ndq_use_backend(const char *name)
{
    size_t i = find(name);
    if (i == ROWS)
        return false;
    atomic_store(&in_use, i);
    return true;
}
