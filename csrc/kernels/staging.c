#include "staging.h"

#include "../cpu.h"

#include <stdatomic.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

void ndq_strides_add(ndq_strides *strides, size_t length, ptrdiff_t stride)
{
    const int last = strides->axes - 1;
    assert(strides->axes < NDQ_MAX_AXES);
    if (last >= 0 && strides->stride[last] == stride * (ptrdiff_t)length) {
        strides->shape[last] *= length;
        strides->stride[last] = stride;
        return;
    }
    strides->shape[last + 1] = length;
    strides->stride[last + 1] = stride;
    strides->axes++;
}

/* n elements that are `step` bytes apart; constant sizes, so that each is one move. */
static void gather_run(char *to, const char *from, ptrdiff_t step, size_t n, size_t bytes)
{
    if (step == (ptrdiff_t)bytes) {
        memcpy(to, from, n * bytes);
        return;
    }
#define MOVE(size)                                                                                            \
    case size:                                                                                                \
        for (size_t i = 0; i < n; i++)                                                                        \
            memcpy(to + i * size, from + (ptrdiff_t)i * step, size);                                          \
        break;
    switch (bytes) {
        MOVE(1)
        MOVE(2)
        MOVE(4)
        MOVE(8)
    }
#undef MOVE
}

/* Elements [first, first + n), in C order, of an array with strides. */
static void gather(const ndq_operand *o, size_t bytes, size_t first, size_t n, char *to)
{
    const ndq_strides *s = o->strides;
    size_t index[NDQ_MAX_AXES];
    const char *from = o->data;
    for (int a = s->axes - 1; a >= 0; a--, first /= s->shape[a + 1]) {
        index[a] = first % s->shape[a];
        from += (ptrdiff_t)index[a] * s->stride[a];
    }
    const int last = s->axes - 1;
    while (n > 0) {
        const size_t run = ndq_min_size(n, s->shape[last] - index[last]);
        gather_run(to, from, s->stride[last], run, bytes);
        to += run * bytes;
        n -= run;
        index[last] += run;
        from += (ptrdiff_t)run * s->stride[last];
        for (int a = last; a > 0 && index[a] == s->shape[a]; a--) {
            from += s->stride[a - 1] - (ptrdiff_t)index[a] * s->stride[a];
            index[a] = 0;
            index[a - 1]++;
        }
    }
}

static size_t bytes_in_memory(const ndq_operand *o)
{
    return o->type == NDQ_IS_F16 ? sizeof(uint16_t) : o->type == NDQ_IS_F32 ? sizeof(float) : o->bytes;
}

void ndq_load(const ndq_kernels *kernels, const ndq_operand *from, size_t first, size_t n, void *to)
{
    float gathered[NDQ_STAGED];
    const size_t bytes = bytes_in_memory(from);
    const void *data = gathered;
    assert(n <= NDQ_STAGED);
    if (from->strides)
        gather(from, bytes, first, n, from->type == NDQ_AS_COMPUTED ? to : (char *)gathered);
    else
        data = from->data + first * bytes;
    if (from->type == NDQ_IS_F16)
        kernels->widen_f16(n, data, to);
    else if (from->type == NDQ_IS_F32)
        for (size_t i = 0; i < n; i++)
            ((double *)to)[i] = ((const float *)data)[i];
}

void ndq_store(const ndq_kernels *kernels, const ndq_operand *to, size_t first, size_t n, const void *from)
{
    const size_t bytes = bytes_in_memory(to);
    void *data = to->data + first * bytes;
    if (to->type == NDQ_IS_F16)
        kernels->narrow_f16(n, from, data);
    else if (to->type == NDQ_IS_F32)
        for (size_t i = 0; i < n; i++)
            ((float *)data)[i] = (float)((const double *)from)[i];
    else
        ndq_stream(data, from, n * bytes);
}

void ndq_prefetch(const ndq_operand *from, size_t first, size_t end)
{
    const size_t bytes = bytes_in_memory(from);
    for (size_t i = first * bytes; from->data && !from->strides && i < end * bytes; i += NDQ_ALIGN)
        __builtin_prefetch(from->data + i);
}

#ifdef __SSE2__
void ndq_stream(void *to, const void *from, size_t bytes)
{
    enum { LINE = 64 };
    const bool aligned = (uintptr_t)to % sizeof(__m128i) == 0;
    size_t i = 0;
    for (; aligned && i + LINE <= bytes; i += LINE)
        for (size_t j = i; j < i + LINE; j += sizeof(__m128i))
            _mm_stream_si128((__m128i *)((char *)to + j), _mm_loadu_si128((const __m128i *)((const char *)from + j)));
    memcpy((char *)to + i, (const char *)from + i, bytes - i);
}

void ndq_stream_end(void)
{
    _mm_sfence();
}
#else
void ndq_stream(void *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
}

void ndq_stream_end(void)
{
}
#endif

static atomic_size_t stream_from; /* 0: not decided yet */

size_t ndq_get_stream_from(void)
{
    const size_t bytes = atomic_load_explicit(&stream_from, memory_order_relaxed);
    return bytes ? bytes : ndq_cpu_features()->cache_bytes;
}

void ndq_set_stream_from(size_t bytes)
{
    atomic_store(&stream_from, bytes);
}
