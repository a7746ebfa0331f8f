#include "entropy.h"

#include "../threads.h"

/* Codes that are looked at together. */
enum { CODES = 128 };

static double from_bits(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The logarithm of a normal positive number to within 2 ulp, in operations that vectorise and give the same bits
 * everywhere, as no library's do: x = 2^e * m with m between sqrt(1/2) and sqrt(2), and log(m) is
 * 2 artanh((m - 1) / (m + 1)). */
static inline double logarithm(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    const double e = from_bits((bits >> 52) | 0x4330000000000000) - (0x1p52 + 1023);
    const double m = from_bits((bits & 0x000fffffffffffff) | 0x3ff0000000000000);
    const bool large = m > 0x1.6a09e667f3bcdp0;
    const double a = large ? 0.5 * m : m, f = (a - 1) / (a + 1), s = f * f;
    double series = 1.0 / 23;
    for (int k = 21; k > 0; k -= 2)
        series = series * s + 1.0 / k;
    return (large ? e + 1 : e) * 0x1.62e42fefa39efp-1 + 2 * f * series;
}

/* The sum of p log(q) over n codes; p may be 0, and then q anything. */
static double sum_of(size_t n, const double *p, const double *q)
{
    double terms[CODES], sum = 0;
    NDQ_IVDEP for (size_t k = 0; k < n; k++)
    {
        const double term = p[k] * logarithm(q[k]);
        terms[k] = p[k] > 0 ? term : 0;
    }
    for (size_t k = 0; k < n; k++)
        sum += terms[k];
    return sum;
}

static double window_entropy(const ndq_entropies *job, size_t first, size_t end)
{
    const size_t levels = job->levels, width = end - first;
    const double below = job->counts[first], above = job->counts[job->bins] - job->counts[end];
    double p[CODES], q[CODES], sum = 0;
    const size_t whole = width / levels, rest = width % levels;
    size_t edge = first, over = 0; /* first + ceil(code * width / levels), and levels times what that rounds up by */
    for (size_t code = 0, n; code < levels; code += n) {
        n = ndq_min_size(CODES, levels - code);
        for (size_t k = 0; k < n; k++) {
            const size_t from = edge, carry = over < rest;
            edge += whole + carry;
            over += (carry ? levels : 0) - rest;
            p[k] = job->counts[edge] - job->counts[from];
            q[k] = p[k] / (job->filled[edge] - job->filled[from]);
        }
        p[0] += code == 0 ? below : 0;
        p[n - 1] += code + n == levels ? above : 0;
        sum += sum_of(n, p, q);
    }
    return sum;
}

/* Windows that a thread takes at a time. */
enum { WINDOWS = 64 };

static void entropy_chunk(void *ctx, size_t chunk)
{
    const ndq_entropies *job = ctx;
    const size_t end = ndq_min_size(job->windows, (chunk + 1) * WINDOWS);
    for (size_t i = chunk * WINDOWS; i < end; i++)
        job->sum[i] = window_entropy(job, (size_t)job->first[i], (size_t)job->end[i]);
}

void ndq_find_entropies(const ndq_entropies *job)
{
    enum { COST = 50 }; /* of a code, in elements of a kernel that is bound by memory */
    ndq_for_chunks(COST * job->levels * job->windows, ndq_ceil_div(job->windows, WINDOWS), entropy_chunk, (void *)job);
}
