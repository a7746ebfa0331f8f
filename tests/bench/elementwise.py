"""Elementwise work on float32 arrays, beside NumPy, a copy of the same array, and other libraries that are installed.

    python -m tests.bench.elementwise [--sizes 64,65536] [--rounds 21] [--alone] [--json FILE]

All candidates of a row take turns in slices of a millisecond; times are medians, and so are ratios, which are taken
slice by slice. Outputs are preallocated, except by PyTorch, which has no `out=` there. One thread, unless a table says
otherwise.

"The NumPy expression" is the formula as one writes it, in new arrays, with ``r = np.rint(x / s) + z``:
``np.clip(r, lo, hi).astype(np.int8)``, ``(q.astype(np.float32) - z) * s``, the two without the cast between them, and
``np.where((r >= lo) & (r <= hi), dy, 0)``. Its table also says how many times as fast a kernel would be that moves its
bytes as fast as a copy does on one core: what touches no more memory than it must cannot do much better.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

import ndquant as nq
from ndquant import _core

from . import limits, others
from .timing import aligned, empty, ratios, samples

SIZES = (64, 1 << 16, 1 << 20, 1 << 24)
CHANNELS = 64
QMIN, QMAX = -128, 127


@dataclass(frozen=True)
class Data:
    """What a row computes on: inputs, outputs, one scale or one for each element of `axis`."""

    x: np.ndarray
    dy: np.ndarray
    q: np.ndarray
    y: np.ndarray
    dx: np.ndarray
    t: np.ndarray
    scale: np.ndarray
    zero_point: int | np.ndarray
    axis: int | None

    @classmethod
    def make(cls, n, axis):
        rng = np.random.default_rng(0)
        x, dy = (aligned(rng.standard_normal(n, dtype=np.float32)) for _ in range(2))
        q, (y, dx, t) = empty(n, np.int8), (empty(n, np.float32) for _ in range(3))
        q[...] = rng.integers(QMIN, QMAX + 1, n)
        return cls(x, dy, q, y, dx, t, np.float32(0.02), 3, None).with_axis(axis)

    def with_axis(self, axis):
        """The same memory with a scale for each index along an axis of a matrix, or with one scale."""
        n = self.x.size
        shape = {None: (n,), 0: (CHANNELS, n // CHANNELS), 1: (n // CHANNELS, CHANNELS)}[axis]
        return self.with_shape(shape, axis, self.zero_point)

    def with_shape(self, shape, axis, zero_point):
        scale = np.float32(0.02) if axis is None else np.linspace(0.01, 0.03, shape[axis], dtype=np.float32)
        arrays = (a.reshape(shape) for a in (self.x, self.dy, self.q, self.y, self.dx, self.t))
        return Data(*arrays, scale, zero_point, axis)

    @property
    def qparams(self):
        return nq.QParams(self.scale, self.zero_point, nq.QuantSpec(symmetric=False, axis=self.axis))

    @property
    def steps(self):
        """The scale in a shape that broadcasts."""
        return self.scale.reshape(-1, 1) if self.axis == 0 else self.scale


#: {operation: bytes per element that it has to move}.
OPERATIONS = {"quantize": 5, "dequantize": 5, "fake_quantize": 8, "backward": 12, "forward+backward": 16}
#: (shape, axis of the channels): wide rows, the taps of a convolution, small images, groups of 32; and channels of few
#: elements in the whole array, or of one, where reading coefficients is more work than reading data.
STRETCHES = (
    *(((64, 4096), 1), ((4, 65536), 1), ((64, 64, 3, 3), 1), ((64, 64, 7, 7), 1), ((2048, 32), 0)),
    *(((8192, 8), 0), ((1, 1 << 20), 1)),
)
#: (operation, axis of the channels).
ROWS = (*((name, None) for name in OPERATIONS), ("quantize", 0), ("quantize", 1), ("fake_quantize", 1))


def ndquant(operation, d):
    qp, both = d.qparams, (d.y, d.dx)
    return {
        "quantize": lambda: nq.quantize(d.x, qp, out=d.q),
        "dequantize": lambda: nq.dequantize(d.q, qp, out=d.y),
        "fake_quantize": lambda: nq.fake_quantize(d.x, qp, out=d.y),
        "backward": lambda: nq.fake_quantize_backward(d.dy, d.x, qp, out=d.dx),
        "forward+backward": lambda: nq.fake_quantize_with_grad(d.x, d.dy, qp, out=both),
    }[operation]


def into_new_arrays(operation, d):
    qp = d.qparams
    return {
        "quantize": lambda: nq.quantize(d.x, qp),
        "dequantize": lambda: nq.dequantize(d.q, qp),
        "fake_quantize": lambda: nq.fake_quantize(d.x, qp),
        "backward": lambda: nq.fake_quantize_backward(d.dy, d.x, qp),
        "forward+backward": lambda: nq.fake_quantize_with_grad(d.x, d.dy, qp),
    }[operation]


def numpy_naive(operation, d):
    """The formula as one writes it."""
    s, zp = d.steps, np.float32(d.zero_point)

    def codes():
        return np.clip(np.rint(d.x / s) + zp, QMIN, QMAX)

    def gradient():
        r = np.rint(d.x / s) + zp
        return np.where((r >= QMIN) & (r <= QMAX), d.dy, np.float32(0))

    return {
        "quantize": lambda: codes().astype(np.int8),
        "dequantize": lambda: (d.q.astype(np.float32) - zp) * s,
        "fake_quantize": lambda: (codes() - zp) * s,
        "backward": gradient,
        "forward+backward": lambda: ((codes() - zp) * s, gradient()),
    }[operation]


def numpy_tuned(operation, d):
    """The same without new arrays; the zero point is moved into the bounds."""
    s, zp = d.steps, np.float32(d.zero_point)
    low, high, inside = np.float32(QMIN - zp), np.float32(QMAX - zp), np.empty(d.x.shape, bool)

    def rounded():
        np.divide(d.x, s, out=d.t)
        np.rint(d.t, out=d.t)
        np.clip(d.t, low, high, out=d.y)

    def quantize():
        rounded()
        np.add(d.y, zp, out=d.y)
        np.copyto(d.q, d.y, casting="unsafe")

    def dequantize():
        np.subtract(d.q, zp, out=d.y, dtype=np.float32)
        np.multiply(d.y, s, out=d.y)

    def fake_quantize():
        rounded()
        np.multiply(d.y, s, out=d.y)

    def backward():
        rounded()
        np.equal(d.y, d.t, out=inside)
        np.multiply(d.dy, inside, out=d.dx)

    return {
        "quantize": quantize,
        "dequantize": dequantize,
        "fake_quantize": fake_quantize,
        "backward": backward,
        "forward+backward": lambda: (backward(), np.multiply(d.y, s, out=d.y)),
    }[operation]


def candidates(operation, d, alone):
    """Return {name: call}, ndquant first, then a copy of the input."""
    calls = {
        "ndquant": ndquant(operation, d),
        "memcpy": lambda: np.copyto(d.t, d.x),
        "numpy": numpy_naive(operation, d),
        "numpy out=": numpy_tuned(operation, d),
    }
    builders = {} if alone else others.CANDIDATES
    calls |= {name: build(operation, d) for name, build in builders.items()}
    return {name: call for name, call in calls.items() if call}


def measure_row(operation, axis, n, rounds, alone):
    calls = candidates(operation, Data.make(n, axis), alone)
    times = samples(list(calls.values()), rounds)
    seconds = dict(zip(calls, np.median(times, axis=0).tolist(), strict=True))
    return {
        "operation": operation,
        "axis": axis,
        "n": n,
        "seconds": seconds,
        "times_ndquant": dict(zip(calls, ratios(times, 0).tolist(), strict=True)),
        "times_memcpy": float(np.median(times[:, 0] / times[:, 1])),
        "gigabytes_per_second": OPERATIONS[operation] * n / seconds["ndquant"] * 1e-9,
    }


def row_name(operation, axis):
    return operation + {None: "", 0: ", axis 0 of 2", 1: ", last axis"}[axis]


def show_row(row):
    others_of = {k: v for k, v in row["times_ndquant"].items() if k not in ("ndquant", "memcpy")}
    print(
        f"{row_name(row['operation'], row['axis']):26}{row['n']:>10}{row['seconds']['ndquant'] * 1e6:11.2f}"
        f"{row['gigabytes_per_second']:8.1f}{row['times_memcpy']:9.2f}   "
        + "  ".join(f"{name} {ratio:.1f}" for name, ratio in others_of.items())
    )


def measure_rows(sizes, rounds, alone):
    print(f"\n{'one thread':26}{'elements':>10}{'us':>11}{'GB/s':>8}{'x memcpy':>9}   times of others / ours")
    rows = []
    for operation, axis in ROWS:
        for n in sizes:
            rows.append(measure_row(operation, axis, n, rounds, alone))
            show_row(rows[-1])
    return rows


def measure_stretches(rounds):
    """The same for channels of other forms, with one zero point and with many."""
    print(f"\n{'one scale or many':36}us per call (times as fast as the first)")
    result = {}
    for (shape, axis), operation in itertools.product(STRETCHES, OPERATIONS):
        d, zero_points = Data.make(int(np.prod(shape)), None), np.arange(shape[axis]) % 40
        kinds = {"per tensor": d, "one zero point": d.with_shape(shape, axis, 3)}
        kinds["many"] = d.with_shape(shape, axis, zero_points)
        times = samples([ndquant(operation, data) for data in kinds.values()], rounds)
        title = f"{operation}, {'x'.join(map(str, shape))}, axis {axis}"
        result[title] = show_relative(title, kinds, times)
    return result


def measure_expression(rounds, n):
    """How many times as long the NumPy expression takes."""
    one, all_cores = partial(threads, 1), partial(threads, os.cpu_count())
    print(f"\n{f'NumPy expression, {n}':30}its time in us, and times of ours")
    result = {}
    for operation, axis in ROWS:
        d = Data.make(n, axis)
        calls = [f(operation, d) for f in (numpy_naive, ndquant, into_new_arrays, ndquant)]
        times = samples([*calls, lambda d=d: np.copyto(d.t, d.x)], rounds, around=[one, one, one, all_cores, one])
        times[:, -1] *= OPERATIONS[operation] / OPERATIONS["fake_quantize"]
        names = ("out=", "new arrays", f"out=, {os.cpu_count()} threads", "at the speed of memcpy")
        ratio = dict(zip(names, np.median(times[:, :1] / times[:, 1:], axis=0).tolist(), strict=True))
        name, seconds = row_name(operation, axis), float(np.median(times[:, 0]))
        print(f"{name:30}{seconds * 1e6:9.1f}   " + "   ".join(f"{k} {v:.1f}" for k, v in ratio.items()))
        result[name] = {"seconds": seconds, "times_ours": ratio}
    return result


def compare(title, d, operation, settings, rounds):
    """Time one operation under each of `settings`, {name: context manager}, relative to the first."""
    call = ndquant(operation, d)
    return show_relative(title, settings, samples([call] * len(settings), rounds, around=list(settings.values())))


def show_relative(title, names, times):
    """Print the time of each column and how many times as fast as the first it is."""
    microseconds = np.median(times, axis=0) * 1e6
    faster = np.median(times[:, :1] / times, axis=0)
    cells = list(zip(names, microseconds.tolist(), faster.tolist(), strict=True))
    print(f"{title:36}" + "   ".join(f"{name} {us:.2f} us ({ratio:.2f} x)" for name, us, ratio in cells))
    return {name: {"seconds": us * 1e-6, "faster": ratio} for name, us, ratio in cells}


@contextlib.contextmanager
def threads(count):
    before = nq.get_num_threads()
    nq.set_num_threads(count)
    try:
        yield
    finally:
        nq.set_num_threads(before)


def measure_backends(rounds, n=4096):
    """Each set of kernels against the plainest."""
    print(f"\n{'backends':36}us per call (times as fast as the first)")
    settings = {name: partial(nq.backend, name) for name in reversed(_core.available_backends())}
    d = Data.make(n, None)
    return {name: compare(f"{name} of {n}", d, name, settings, rounds) for name in OPERATIONS}


def measure_channels(sizes, rounds):
    """A scale for each element of an axis against one for all."""
    print(f"\n{'one scale or many':36}us per call (times as fast as the first)")
    result = {}
    for operation, n in itertools.product(OPERATIONS, sizes):
        axes, d = {"per tensor": None, "axis 0 of 2": 0, "last axis": 1}, Data.make(n, None)
        times = samples([ndquant(operation, d.with_axis(axis)) for axis in axes.values()], rounds)
        result[f"{operation} of {n}"] = show_relative(f"{operation} of {n}", axes, times)
    return result


def repeated(call, times):
    def work():
        for _ in range(times):
            call()

    return work


def shares(d, parts):
    """Return {name: calls for as many threads as parts} of what no kernel can gain more by."""
    times = max(1, (1 << 24) // d.x.size)  # so that handing them to the threads costs nothing
    pieces = zip(np.array_split(d.t, parts), np.array_split(d.x, parts), strict=True)
    result = {"memcpy": [repeated(partial(np.copyto, *piece), times) for piece in pieces]}
    if arithmetic := limits.multiply_adds("f32"):
        result["registers only"] = [repeated(arithmetic[0], 64 // parts)] * parts
    return result


def measure_threads(rounds, n):
    """All cores against one; below, what they gain on a copy, and on multiply-adds that touch no memory."""
    count = os.cpu_count()
    print(f"\n{'threads':36}us per call (times as fast as one)")
    settings = {f"{k}": partial(threads, k) for k in (1, count)}
    d = Data.make(n, None)
    result = {name: compare(f"{name} of {n}", d, name, settings, rounds) for name in OPERATIONS}
    with ThreadPoolExecutor(count) as pool:
        one, all_of_them = shares(d, 1), shares(d, count)
        for name in one:
            works = (one[name], all_of_them[name])
            times = samples([lambda w=w: list(pool.map(lambda work: work(), w)) for w in works], rounds)
            result[name] = show_relative(f"the limit: {name}", settings, times)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=lambda text: [int(n) for n in text.split(",")], default=SIZES)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--alone", action="store_true", help="without other libraries, even if they are installed")
    parser.add_argument("--json", help="file for the figures")
    options = parser.parse_args()
    print(limits.cpu_name())
    nq.show_config()
    measured = limits.measure(options.rounds)
    limits.show(measured)
    result = {"cpu": limits.cpu_name(), "limits": measured}
    with threads(1):
        result["rows"] = measure_rows(options.sizes, options.rounds, options.alone)
        result["expression"] = measure_expression(options.rounds, 1 << 20)
        result["channels"] = measure_channels(options.sizes, options.rounds)
        result["stretches"] = measure_stretches(options.rounds)
        result["backends"] = measure_backends(options.rounds)
    result["threads"] = {n: measure_threads(options.rounds, n) for n in options.sizes if n >= 1 << 20}
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
