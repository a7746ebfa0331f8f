"""Matrix products, of codes and of float32, beside NumPy's float32 ones and other libraries that are installed.

    python -m tests.bench.gemm [--rounds 51] [--shapes 100] [--alone] [--threads 1,2] [--cpu-time] [--json FILE]

All candidates of a row take turns in slices of a millisecond, so that a busy machine slows them alike; times are
medians in microseconds, and so are ratios, which are taken slice by slice. Outputs are preallocated where the library
takes any. Weights of layers are packed once, as NumPy's are transposed once; float32 operands are packed at every call.
The share is that of the multiply-adds that one core does in the same run with nothing else to do; of a row vector,
also that of reading the bytes of the weights. Threads of NumPy's BLAS are set through threadpoolctl if it is installed,
else by the environment; the other libraries are timed on one thread. One that has several forms of a layer shows the
fastest of each row, be it one that leaves the sums in int32; the file has all of them, but those that a trial shows to
be far behind.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from functools import partial
from pathlib import Path

import numpy as np

import ndquant as nq
from ndquant.functional import matmul_f32, quantize_weight

from . import forms, limits, others_products, timing
from .timing import empty, ratios, samples

#: (M, K, N): rows, inputs, outputs.
SQUARES = tuple((size, size, size) for size in (128, 256, 512, 1024, 2048))
LISTED = (*SQUARES, (32, 1024, 1024), (1, 1024, 1024), (1, 4096, 4096))
LAYERS = (*LISTED, (8, 1024, 1024), (256, 784, 100), (64, 784, 100), (1, 784, 100))
#: Gradients of the layers of the MLP at batch 64: of the weight, (O, N, K), from a transposed view, and of the input.
GRADIENTS = tuple((o, 64, k) for o, k in ((100, 784), (100, 100), (10, 100))) + ((64, 100, 100), (64, 10, 100))
#: The smallest and the largest random shapes, which are uniform in their logarithms. Those that are compared with the
#: listed shape nearest to them lie between listed ones: a product of 3 x 24 x 20 has no neighbour among these.
BETWEEN_LISTED, SMALL = ((1, 128, 128), (2048, 2048, 2048)), ((1, 16, 8), (512, 512, 512))

CODES = nq.QParams(np.float32(0.02), 7, nq.QuantSpec(signed=False, symmetric=False))
OUT_CODES = nq.QParams(np.float32(0.5), 128, nq.QuantSpec(signed=False, symmetric=False))
LARGE = 1e8  # multiply-adds: such rows take fewer rounds


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


def layer(shape, rng, alone=True):
    """Return the calls of a layer: ours to uint8 codes, NumPy float32, ours to float32, and other libraries."""
    rows, inputs, outputs = shape
    w_qp = nq.QParams(np.full(outputs, 0.01, np.float32), 0, nq.QuantSpec(axis=0))
    codes = rng.integers(0, 256, (rows, inputs), np.uint8)
    weights = rng.integers(-127, 128, (outputs, inputs), np.int8)
    packed = nq.PackedWeight(weights, w_qp)
    x, w = codes.astype(np.float32), np.ascontiguousarray(weights.T.astype(np.float32))
    y, y_integer, q = (empty((rows, outputs), dtype) for dtype in (np.float32, np.float32, np.uint8))
    calls = {
        "to codes": partial(nq.linear_integer, codes, CODES, packed, OUT_CODES, out=q),
        "numpy f32": partial(np.matmul, x, w, out=y),
        "to f32": partial(nq.linear_integer, codes, CODES, packed, out=y_integer),
    }
    return calls if alone else calls | others_products.candidates(codes, weights, CODES, OUT_CODES)


def product(shape, rng, transposed=False):
    """Return the calls of a float32 product: ours, NumPy, ours of codes, and NumPy with the pass that these need."""
    rows, inner, columns = shape
    a = rng.standard_normal((inner, rows) if transposed else (rows, inner), dtype=np.float32)
    a = a.T if transposed else a
    codes = rng.integers(0, 256, (inner, columns), np.uint8)
    b, y, other = nq.dequantize(codes, CODES), empty((rows, columns), np.float32), empty((rows, columns), np.float32)
    real = np.empty_like(b)
    return {
        "ours": partial(matmul_f32, a, b, out=other),
        "numpy f32": partial(np.matmul, a, b, out=y),
        "of codes": partial(matmul_f32, a, codes, CODES, out=other),
        "numpy": lambda: np.matmul(a, nq.dequantize(codes, CODES, out=real), out=y),
    }


def linear_forward(shape, rng):
    """Return the calls of a layer in training: quantize x, quantize and pack w, multiply to float32; and in float.

    Ranges are given, as they are to the convolution below; training also finds that of w, in the call that quantizes
    and packs it.
    """
    rows, inputs, outputs = shape
    x, w = (rng.standard_normal(s, dtype=np.float32) for s in ((rows, inputs), (outputs, inputs)))
    spec = nq.QuantSpec(axis=0)
    q, w_codes, w_qp = empty(x.shape, np.uint8), empty(w.shape, np.int8), nq.choose_qparams(w, spec)
    y, other = (empty((rows, outputs), np.float32) for _ in range(2))

    def forward():
        nq.quantize(x, CODES, out=q)
        weight = nq.PackedWeight(nq.quantize(w, w_qp, out=w_codes), w_qp)
        return nq.linear_integer(q, CODES, weight, out=y)

    def forward_with_range():
        nq.quantize(x, CODES, out=q)
        return nq.linear_integer(q, CODES, quantize_weight(w, None, CODES.scale, spec)[1], out=y)

    in_float = partial(np.matmul, x, w.T, out=other)
    return {"ours": forward, "numpy f32": in_float, "ours, range of w too": forward_with_range}


def conv_forward(rng, batch=64, channels=16, size=32):
    """Return the calls of a convolution of 3 x 3 in training, channels last; in float as a product of windows."""
    x = rng.standard_normal((batch, size, size, channels), dtype=np.float32)
    w = rng.standard_normal((channels, channels, 3, 3), dtype=np.float32)
    w_qp = nq.choose_qparams(w, nq.QuantSpec(axis=0))
    q, y = empty(x.shape, np.uint8), empty(x.shape, np.float32)
    windows, columns = (
        empty((batch * size * size, 9 * channels), np.float32),
        empty((9 * channels, channels), np.float32),
    )
    out = empty((batch * size * size, channels), np.float32)

    def forward():
        nq.quantize(x, CODES, out=q)
        weight = nq.PackedWeight(nq.quantize(w, w_qp), w_qp)
        nq.conv2d_requantized(q.transpose(0, 3, 1, 2), CODES, weight, padding=1, out=y.transpose(0, 3, 1, 2))

    return {"ours": forward, "numpy f32": partial(np.matmul, windows, columns, out=out)}


def random_shapes(count, ends, rng):
    low, high = np.log(ends)
    return [tuple(np.exp(rng.uniform(low, high)).round().astype(int).tolist()) for _ in range(count)]


class Table:
    """Rows measured beside a call that does nothing but multiply and add, so that each is a share of what it does."""

    def __init__(self, title, kind, rounds):
        self.title, self.rounds, self.rows = title, rounds, []
        self.peak = limits.multiply_adds(kind)
        print(f"\n{title}" + ("" if self.peak else " (the peak of this core is not known)"))

    def measure(self, name, macs, calls, weight_bytes=None, show=True):
        """Measure a row; the first call is the one that others are compared with."""
        probes = [self.peak[0]] if self.peak else []
        reads = limits.read(weight_bytes) if weight_bytes else None
        probes += [reads] if reads else []
        rounds = self.rounds if macs < LARGE else max(self.rounds // 5, 5)
        times = samples([*calls.values(), *probes], rounds)
        row = {
            "name": name,
            "seconds": dict(zip(calls, np.median(times, axis=0).tolist(), strict=False)),
            "times_ours": dict(zip(calls, ratios(times, 0).tolist(), strict=False)),
        }
        row["fastest_forms"] = forms.several(forms.fastest(row["times_ours"]))
        if self.peak:
            peak = times[:, len(calls) : len(calls) + 1] / times[:, : len(calls)] * macs / self.peak[1]
            row["share_of_peak"] = dict(zip(calls, np.median(peak, axis=0).tolist(), strict=True))
        if reads:
            row["share_of_read"] = float(np.median(times[:, -1] / times[:, 0]))
        self.rows.append(row)
        if show:
            self.show(row)
        return row

    def show(self, row):
        ours = next(iter(row["seconds"]))
        line = f"{row['name']:>20} {row['seconds'][ours] * 1e6:10.1f} us"
        if "share_of_peak" in row:
            line += f" {100 * row['share_of_peak'][ours]:4.0f} % of peak"
        if "share_of_read" in row:
            line += f" {100 * row['share_of_read']:4.0f} % of read"
        _, *others = forms.fastest(row["times_ours"]).items()
        print(line + "   " + "  ".join(f"{library} {row['times_ours'][form]:.2f}" for library, form in others))


def name_of(shape):
    return " x ".join(map(str, shape))


def measure_layers(shapes, rounds, alone, title):
    table, rng = Table(f"{title}; times of others / to codes", "s8", rounds), np.random.default_rng(0)
    for shape in shapes:
        weight_bytes = shape[1] * shape[2] if shape[0] == 1 else None
        table.measure(name_of(shape), np.prod(shape, dtype=float), layer(shape, rng, alone), weight_bytes)
    return table.rows


def measure_products(shapes, rounds, title):
    table, rng = Table(f"{title}; times of others / ours", "f32", rounds), np.random.default_rng(0)
    for shape in shapes:
        calls = product(shape, rng, transposed=shape[1] == 64)
        table.measure(name_of(shape), np.prod(shape, dtype=float), calls)
    return table.rows


def measure_training(rounds):
    """The forward pass of quantized layers in training, batch 64."""
    table = Table("forward in training, batch 64; times of others, and of NumPy's product alone, / ours", "s8", rounds)
    rng = np.random.default_rng(0)
    for shape in ((64, 784, 100), (64, 100, 100)):
        table.measure(f"{shape[1]} -> {shape[2]}", np.prod(shape, dtype=float), linear_forward(shape, rng))
    table.measure("conv 16 -> 16, 32^2", 64 * 32 * 32 * 9 * 16 * 16.0, conv_forward(rng))
    return table.rows


def measure_random(count, ends, rounds, listed=()):
    """Random shapes: their efficiency, also beside that of the listed shape nearest to each; and beside float."""
    smallest, largest = map(name_of, ends)
    table = Table(f"{count} random shapes from {smallest} to {largest}", "s8", rounds)
    rng, relative = np.random.default_rng(1), []
    shares = {row["name"]: row["share_of_peak"]["to codes"] for row in listed if "share_of_peak" in row}
    for shape in random_shapes(count, ends, rng):
        row = table.measure(name_of(shape), np.prod(shape, dtype=float), layer(shape, rng), show=False)
        if shares:
            near = min(LISTED, key=lambda other, s=shape: np.abs(np.log(other) - np.log(s)).sum())
            relative.append(row["share_of_peak"]["to codes"] / shares[name_of(near)])
    if table.peak:
        print(f"median share of peak {100 * np.median([r['share_of_peak']['to codes'] for r in table.rows]):.0f} %")
    if relative:
        print(f"median efficiency {100 * np.median(relative):.0f} % of that of the listed neighbour")
    faster = [row["times_ours"]["numpy f32"] for row in table.rows]
    slowest = table.rows[int(np.argmin(faster))]
    print(f"NumPy float32 / ours: median {np.median(faster):.2f}, least {min(faster):.2f} at {slowest['name']}")
    return {"efficiency_of_neighbour": relative, "rows": table.rows}


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=51)
    parser.add_argument("--shapes", type=int, default=100, help="how many random shapes of each kind")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--alone", action="store_true", help="without other libraries")
    parser.add_argument("--cpu-time", action="store_true", help="for one thread, on a machine that is busy besides")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.cpu_time:
        timing.clock = time.process_time
    rounds, result = options.rounds, {"cpu": limits.cpu_name()}
    nq.show_config()
    for count in map(int, options.threads.split(",")):
        with threads(count) as told:
            note = f"{count} thread{'s' * (count > 1)}{'' if told else ' (ours; NumPy: as OPENBLAS_NUM_THREADS says)'}"
            layers = measure_layers(LAYERS, rounds, options.alone or count > 1, f"layers on codes, {note}")
            result[f"threads {count}"] = {
                "layers": layers,
                "float32": measure_products(SQUARES[:3], rounds, f"float32 products, {note}"),
                "gradients": measure_products(GRADIENTS, rounds, f"gradients of the MLP, {note}"),
                "training": measure_training(rounds),
            }
            if count == 1 and options.shapes:
                few = max(rounds // 5, 5)
                result["threads 1"]["random"] = measure_random(options.shapes, BETWEEN_LISTED, few, layers)
                result["threads 1"]["small"] = measure_random(options.shapes, SMALL, few)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
