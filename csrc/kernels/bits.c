#include "bits.h"

#include "../threads.h"

enum { CHUNK = 1 << 15 }; /* codes; a multiple of 8, so that each part of a row begins at a byte */

typedef struct {
    const ndq_bits *call;
    size_t rows, parts; /* rows of a chunk, or else parts of a row */
    bool unpack;
    int bad;
} job;

static void run_part(const job *j, size_t row, size_t at, size_t n, uint8_t *largest)
{
    const ndq_bits *call = j->call;
    uint8_t *packed = call->packed + row * ndq_packed_bytes(call->length, call->bits) + ndq_packed_bytes(at, call->bits);
    uint8_t *codes = call->codes + row * call->length + at;
    if (j->unpack)
        call->kernels->unpack_u8(call->bits, call->lowest, n, packed, codes, largest);
    else
        call->kernels->pack_u8(call->bits, call->lowest, n, codes, packed, largest);
}

static void run_chunk(void *ctx, size_t chunk)
{
    job *j = ctx;
    const ndq_bits *call = j->call;
    const size_t first = chunk / j->parts * j->rows, at = chunk % j->parts * CHUNK;
    const size_t end = ndq_min_size(first + j->rows, call->rows);
    const size_t n = j->parts > 1 ? ndq_min_size(CHUNK, call->length - at) : call->length;
    uint8_t largest = 0;
    for (size_t row = first; row < end; row++)
        run_part(j, row, at, n, &largest);
    if (largest > call->most)
        __atomic_store_n(&j->bad, 1, __ATOMIC_RELAXED);
}

static bool run(const ndq_bits *call, bool unpack)
{
    job j = {.call = call, .rows = 1, .parts = 1, .unpack = unpack};
    if (call->rows == 0 || call->length == 0)
        return true;
    if (call->length > CHUNK)
        j.parts = ndq_ceil_div(call->length, CHUNK);
    else
        j.rows = CHUNK / call->length;
    ndq_for_chunks(call->rows * call->length, ndq_ceil_div(call->rows, j.rows) * j.parts, run_chunk, &j);
    return !j.bad;
}

bool ndq_pack_bits(const ndq_bits *call)
{
    return run(call, false);
}

bool ndq_unpack_bits(const ndq_bits *call)
{
    return run(call, true);
}
