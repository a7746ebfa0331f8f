"""Integer products against float32 ones of NumPy: ``python tests/bench/gemm.py [--slices N]``.

The two are run in turn, in slices of about a millisecond, so that a busy machine slows both; medians of the slices are
printed, and the median of the ratios slice by slice. Outputs are preallocated. Weights are packed once, as NumPy's are
transposed once. Threads of NumPy's BLAS are set through threadpoolctl if it is installed, else by the environment.
"""

from __future__ import annotations

import argparse
import contextlib
import time

import numpy as np

import ndquant as nq

#: (M, K, N): rows, inputs, outputs.
SHAPES = (
    *((size, size, size) for size in (128, 256, 512, 1024)),
    (256, 784, 100),
    (64, 784, 100),
    (1, 784, 100),
    (256, 100, 100),
)
SLICE_SECONDS = 1e-3


@contextlib.contextmanager
def threads(count):
    """Let both libraries use `count` threads; yields whether NumPy could be told."""
    nq.set_num_threads(count)
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield False
        return
    with threadpool_limits(count):
        yield True


def repeats(function):
    """Return how many calls fill a slice."""
    function()
    start = time.perf_counter()
    function()
    return max(1, round(SLICE_SECONDS / (time.perf_counter() - start)))


def interleaved(functions, slices):
    """Return seconds per call, an array of shape (slices, functions)."""
    counts = [repeats(function) for function in functions]
    times = np.empty((slices, len(functions)))
    for row in times:
        for column, (function, count) in enumerate(zip(functions, counts, strict=True)):
            start = time.perf_counter()
            for _ in range(count):
                function()
            row[column] = (time.perf_counter() - start) / count
    return times


def contestants(shape, rng):
    """Return the calls to compare: NumPy float32, ours to uint8 codes, ours to float32."""
    rows, inputs, outputs = shape
    x_qp = nq.QParams(np.float32(0.02), 7, nq.QuantSpec(signed=False, symmetric=False))
    out_qp = nq.QParams(np.float32(0.5), 128, nq.QuantSpec(signed=False, symmetric=False))
    w_qp = nq.QParams(np.full(outputs, 0.01, np.float32), 0, nq.QuantSpec(axis=0))
    codes = rng.integers(0, 256, (rows, inputs), np.uint8)
    weights = rng.integers(-127, 128, (outputs, inputs), np.int8)
    packed = nq.PackedWeight(weights, w_qp)
    x, w = codes.astype(np.float32), np.ascontiguousarray(weights.T.astype(np.float32))
    y, y_integer, q = (np.empty((rows, outputs), dtype) for dtype in (np.float32, np.float32, np.uint8))
    return (
        lambda: np.matmul(x, w, out=y),
        lambda: nq.linear_integer(codes, x_qp, packed, out_qp, out=q),
        lambda: nq.linear_integer(codes, x_qp, packed, out=y_integer),
    )


def report(shape, slices):
    """Measure one shape and print its line."""
    times = interleaved(contestants(shape, np.random.default_rng(0)), slices)
    numpy_time, codes_time, float_time = np.median(times, axis=0) * 1e6
    codes_ratio, float_ratio = np.median(times[:, :1] / times[:, 1:], axis=0)
    name = " x ".join(map(str, shape))
    print(f"{name:>20} {numpy_time:10.1f} {codes_time:10.1f} {codes_ratio:6.2f} {float_time:10.1f} {float_ratio:6.2f}")


def main():
    """Print the table for one thread and for two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=200)
    slices = parser.parse_args().slices
    nq.show_config()
    for count in (1, 2):
        with threads(count) as told:
            note = "" if told else " (ours; NumPy: as OPENBLAS_NUM_THREADS says)"
            print(f"\n{count} thread{'s' * (count > 1)}{note}: microseconds, and how many times faster than NumPy")
            print(f"{'M x K x N':>20} {'numpy f32':>10} {'to codes':>10} {'':6} {'to f32':>10}")
            for shape in SHAPES:
                report(shape, slices if np.prod(shape) < 1e8 else max(slices // 10, 5))


if __name__ == "__main__":
    main()
