"""Matrix products, of codes and of float32, beside NumPy's float32 ones: ``python -m tests.bench.gemm [--rounds N]``.

All candidates of a row take turns in slices of a millisecond, so that a busy machine slows them alike; times are
medians in microseconds, and so are ratios, which are taken slice by slice. Outputs are preallocated. Weights of layers
are packed once, as NumPy's are transposed once; float32 operands are packed at every call. The share is that of the
multiply-adds that one core does in the same run with nothing else to do. Threads of NumPy's BLAS are set through
threadpoolctl if it is installed, else by the environment.
"""

from __future__ import annotations

import argparse
import contextlib
from functools import partial

import numpy as np

import ndquant as nq
from ndquant.functional import matmul_f32

from . import limits
from .timing import empty, ratios, samples

#: (M, K, N): rows, inputs, outputs.
SQUARES = tuple((size, size, size) for size in (128, 256, 512, 1024))
LAYERS = (*SQUARES, (32, 1024, 1024), (8, 1024, 1024), (1, 1024, 1024), (256, 784, 100), (64, 784, 100), (1, 784, 100))
#: Gradients of the layers of the MLP at batch 64: of the weight, (O, N, K), from a transposed view, and of the input.
GRADIENTS = tuple((o, 64, k) for o, k in ((100, 784), (100, 100), (10, 100))) + ((64, 100, 100), (64, 10, 100))

CODES = nq.QParams(np.float32(0.02), 7, nq.QuantSpec(signed=False, symmetric=False))
OUT_CODES = nq.QParams(np.float32(0.5), 128, nq.QuantSpec(signed=False, symmetric=False))


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


def layer(shape, rng):
    """Return the calls of a layer: NumPy float32, ours to uint8 codes, ours to float32."""
    rows, inputs, outputs = shape
    w_qp = nq.QParams(np.full(outputs, 0.01, np.float32), 0, nq.QuantSpec(axis=0))
    codes = rng.integers(0, 256, (rows, inputs), np.uint8)
    weights = rng.integers(-127, 128, (outputs, inputs), np.int8)
    packed = nq.PackedWeight(weights, w_qp)
    x, w = codes.astype(np.float32), np.ascontiguousarray(weights.T.astype(np.float32))
    y, y_integer, q = (empty((rows, outputs), dtype) for dtype in (np.float32, np.float32, np.uint8))
    return {
        "numpy f32": partial(np.matmul, x, w, out=y),
        "to codes": partial(nq.linear_integer, codes, CODES, packed, OUT_CODES, out=q),
        "to f32": partial(nq.linear_integer, codes, CODES, packed, out=y_integer),
    }


def product(shape, rng, transposed=False):
    """Return the calls of a float32 product: NumPy, ours, ours of codes, and NumPy with the pass that these need."""
    rows, inner, columns = shape
    a = rng.standard_normal((inner, rows) if transposed else (rows, inner), dtype=np.float32)
    a = a.T if transposed else a
    codes = rng.integers(0, 256, (inner, columns), np.uint8)
    b, y, other = nq.dequantize(codes, CODES), empty((rows, columns), np.float32), empty((rows, columns), np.float32)
    real = np.empty_like(b)
    return {
        "numpy f32": partial(np.matmul, a, b, out=y),
        "ours": partial(matmul_f32, a, b, out=other),
        "of codes": partial(matmul_f32, a, codes, CODES, out=other),
        "numpy": lambda: np.matmul(a, nq.dequantize(codes, CODES, out=real), out=y),
    }


def report(shape, calls, peak, rounds):
    """Measure one shape and print its line: time, NumPy's time over it, and the share of the peak."""
    times = samples([*calls.values(), *(peak[:1] if peak else ())], rounds)
    microseconds, slower = np.median(times, axis=0) * 1e6, 1 / ratios(times, 0)
    line = f"{' x '.join(map(str, shape)):>20} {microseconds[0]:10.1f}"
    for i in range(1, len(calls)):
        line += f" {microseconds[i]:10.1f} {slower[i]:6.2f}"
        if peak:
            line += f" {100 * np.median(times[:, -1] / times[:, i]) * np.prod(shape) / peak[1]:4.0f} %"
    print(line)


def table(title, kind, rows, rounds):
    """Print a table; `rows` are (shape, calls)."""
    peak = limits.multiply_adds(kind)
    print(f"\n{title}" + ("" if peak else " (the peak of this core is not known)"))
    for number, (shape, calls) in enumerate(rows):
        if not number:
            first, *others = calls
            width = 13 if peak else 6
            print(f"{'M x K x N':>20} {first:>10}" + "".join(f" {name:>10} {'':{width}}" for name in others))
        report(shape, calls, peak, rounds if np.prod(shape, dtype=float) < 1e8 else max(rounds // 5, 5))


def main():
    """Print the tables for one thread and for two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=51)
    rounds, rng = parser.parse_args().rounds, np.random.default_rng(0)
    nq.show_config()
    for count in (1, 2):
        with threads(count) as told:
            note = f"{count} thread{'s' * (count > 1)}{'' if told else ' (ours; NumPy: as OPENBLAS_NUM_THREADS says)'}"
            table(f"layers on codes, {note}", "s8", ((shape, layer(shape, rng)) for shape in LAYERS), rounds)
            table(f"float32 products, {note}", "f32", ((shape, product(shape, rng)) for shape in SQUARES), rounds)
            rows = ((shape, product(shape, rng, transposed=shape[1] == 64)) for shape in GRADIENTS)
            table(f"gradients of the MLP, {note}", "f32", rows, rounds)


if __name__ == "__main__":
    main()
