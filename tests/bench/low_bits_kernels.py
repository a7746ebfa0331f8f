"""Products by weights of 4 bits and of 1 bit beside those by int8 weights.

    python -m tests.bench.low_bits_kernels [--rounds 51] [--size 4096] [--binary 1024] [--memory 96] [--cpu-time]

A row of codes by a weight of 4 bits with a scale per group of inputs, and by one of int8: each call takes another of
several copies, so that weights come from memory and not from a cache. Then products of signs, a bit each, and of int8.
All candidates take turns in slices of a millisecond, on one thread; times are medians in microseconds, and so are
ratios, which are taken slice by slice.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from itertools import cycle

import numpy as np

import ndquant as nq

from . import timing
from .timing import empty, ratios, samples

X_QP = nq.QParams(np.float32(0.02), 7, nq.QuantSpec(signed=False, symmetric=False))
OUT_QP = nq.QParams(np.float32(0.5), 128, nq.QuantSpec(signed=False, symmetric=False))
GROUP_SIZES = (32, 64, 128, 512)


def int8_weight(codes):
    return nq.PackedWeight(codes, nq.QParams(np.full(len(codes), 0.01, np.float32), 0, nq.QuantSpec(axis=0)))


def vectors(size, memory, rng):
    """Return the calls that multiply one row, by name, each of which goes through so many bytes of weights."""
    x, out = rng.integers(0, 256, (1, size), np.uint8), empty((1, size), np.float32)
    codes = rng.integers(-127, 128, (size, size), np.int8)
    copies = cycle([int8_weight(codes) for _ in range(-(-memory // codes.nbytes))])
    calls = {"int8": lambda: nq.linear_integer(x, X_QP, next(copies), out=out)}
    for group_size in (n for n in GROUP_SIZES if size % n == 0):
        scale = rng.uniform(0.01, 0.02, (size, size // group_size)).astype(np.float32)
        qp = nq.QParams(scale, 0, nq.QuantSpec(4, group_size=group_size))
        weights = [nq.GroupedWeight(codes // 16, qp) for _ in range(-(-2 * memory // codes.nbytes))]
        grouped = partial(next, cycle(weights))
        calls[f"int4, groups of {group_size}"] = lambda grouped=grouped: nq.linear_grouped(x, grouped(), X_QP, out=out)
    return calls


def matrices(size, rng):
    """Return the calls that multiply square matrices, by name."""
    x = rng.integers(0, 256, (size, size), np.uint8)
    weight = int8_weight(rng.integers(-127, 128, (size, size), np.int8))
    a, w = (rng.integers(0, 256, (size, -(-size // 8)), np.uint8) for _ in range(2))
    sums, floats, codes = (empty((size, size), dtype) for dtype in (np.int32, np.float32, np.uint8))
    return {
        "signs": partial(nq.matmul_binary, a, w, size, out=sums),
        "int8 to float32": partial(nq.linear_integer, x, X_QP, weight, out=floats),
        "int8 to codes": partial(nq.linear_integer, x, X_QP, weight, OUT_QP, out=codes),
    }


def measure(title, calls, rounds):
    """Print the time of each call, and how many times as long as it the first takes."""
    times = samples(list(calls.values()), rounds)
    print(f"\n{title}")
    for name, seconds, ratio in zip(calls, np.median(times, axis=0), ratios(times, 0), strict=True):
        print(f"  {name:24s} {1e6 * seconds:9.0f} us   {1 / ratio:5.2f} x as fast as {next(iter(calls))}")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=51)
    parser.add_argument("--size", type=int, default=4096, help="inputs and outputs of the vector products")
    parser.add_argument("--binary", type=int, default=1024, help="rows, inputs and outputs of the others")
    parser.add_argument("--memory", type=int, default=96, help="MB: three times the last cache of an EPYC 7003")
    parser.add_argument("--cpu-time", action="store_true", help="count time of this process alone")
    options = parser.parse_args(arguments)
    if options.cpu_time:
        timing.clock = time.process_time
    nq.set_num_threads(1)
    rng = np.random.default_rng(0)
    measure(
        f"1 x {options.size} x {options.size}, from memory",
        vectors(options.size, options.memory << 20, rng),
        options.rounds,
    )
    measure(" x ".join([str(options.binary)] * 3), matrices(options.binary, rng), options.rounds)


if __name__ == "__main__":
    main()
