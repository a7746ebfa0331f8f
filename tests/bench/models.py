"""Convolutions and whole networks on codes: ``python -m tests.bench.models [--rounds N] [--cpu-time] [--json FILE]``.

All candidates of a row take turns in short slices, so that a busy machine slows them alike; times are medians in
microseconds. The share is that of the multiply-adds that one core does in the same run with nothing else to do, by the
exact instructions of this instruction set. Networks read another input at every call. ONNX Runtime and OpenVINO, and
for convolutions PyTorch and LiteRT, are timed beside where they are installed; on AVX2 they add products in 16 bits
that saturate. A library that has several forms of a convolution shows the fastest of each row; the file has all of
them, but those that a trial shows to be far behind.

Random convolutions have numbers of channels and sizes between those of the listed ones; a quarter are depthwise. All
are compared with their float32 form. Where layers of more than three channels with this window and stride, depthwise
or not alike, are listed, the share is compared with that of the nearest of them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np

import ndquant as nq
from ndquant.convolution import conv2d_f32

from . import forms, limits, networks, others_convolutions, others_networks, timing
from .timing import ratios, samples

#: name: (images, channels, rows and columns, outputs, window, stride, groups)
CONVOLUTIONS = {
    "3x3 32x32 16->16": (1, 16, 32, 16, 3, 1, 1),
    "3x3 16x16 32->32": (1, 32, 16, 32, 3, 1, 1),
    "3x3 8x8 64->64": (1, 64, 8, 64, 3, 1, 1),
    "3x3 56x56 64->64": (1, 64, 56, 64, 3, 1, 1),
    "3x3 14x14 256->256": (1, 256, 14, 256, 3, 1, 1),
    "1x1 56x56 64->256": (1, 64, 56, 256, 1, 1, 1),
    "1x1 14x14 1024->256": (1, 1024, 14, 256, 1, 1, 1),
    "1x1 56x56 144->24": (1, 144, 56, 24, 1, 1, 1),
    "1x1 112x112 32->16": (1, 32, 112, 16, 1, 1, 1),
    "1x1 112x112 16->96": (1, 16, 112, 96, 1, 1, 1),
    "7x7/2 224x224 3->64": (1, 3, 224, 64, 7, 2, 1),
    "3x3/2 224x224 3->32": (1, 3, 224, 32, 3, 2, 1),
    "depthwise 112x112x32": (1, 32, 112, 32, 3, 1, 32),
    "depthwise 14x14x512": (1, 512, 14, 512, 3, 1, 512),
    "depthwise/2 112x112x96": (1, 96, 112, 96, 3, 2, 96),
    "depthwise 5x5 28x28x128": (1, 128, 28, 128, 5, 1, 128),
}
X_QP, OUT_QP = (nq.QParams(np.float32(scale), 120, networks.AFFINE) for scale in (0.03, 4.0))
W_SCALE = 0.01
LEAST_WORK, MOST_WORK = 1e6, 2e8  # multiply-adds of random shapes


def layer_of(shape, rng):
    """Return codes of channels-last images, and a layer for them with its codes and their scales."""
    images, channels, size, outputs, window, stride, groups = shape
    x = rng.integers(0, 256, (images, size, size, channels), np.uint8).transpose(0, 3, 1, 2)
    w = rng.integers(-127, 128, (outputs, channels // groups, window, window)) * W_SCALE
    layer = networks.Layer(w.astype(np.float32), np.zeros(outputs, np.float32), stride, groups)
    layer.calibrate(np.zeros((1, channels, 1, 1), np.float32), X_QP)
    layer.out_qparams = OUT_QP
    return x, layer


def ndquant(x, layer):
    """Return our call for a layer, and its multiply-adds."""
    stride, padding, _, groups = layer.geometry
    arguments = X_QP, layer.packed, OUT_QP, stride, padding
    out = nq.conv2d_requantized(x, *arguments, groups=groups)

    def call():
        nq.conv2d_requantized(x, *arguments, groups=groups, out=out)

    return call, out.size * layer.w[0].size


def convolution(shape, rng, alone=False):
    """Return the calls of a layer, by name, and their multiply-adds."""
    x, layer = layer_of(shape, rng)
    call, work = ndquant(x, layer)
    return {"ndquant": call} | ({} if alone else others_convolutions.candidates(x, layer)), work


def beside_float(shape, rng):
    """Return the calls of a layer on codes and on float32, and their multiply-adds."""
    x, layer = layer_of(shape, rng)
    call, work = ndquant(x, layer)
    real, geometry = nq.dequantize(x, X_QP), layer.geometry
    return {"ndquant": call, "float32": lambda: conv2d_f32(real, layer.w, layer.b, *geometry)}, work


def network(name, batch, rng):
    """Return the call of a network's plan, which reads two batches in turn, and its multiply-adds."""
    make, shape = networks.DEFINITIONS[name]
    batches = [rng.standard_normal((batch, *shape), np.float32) for _ in range(2)]
    made = networks.Network(make(rng), batches[0][:2])
    plan, turns = made.plan(batches[0].shape), itertools.cycle(batches)
    out = plan.output.new_array()
    calls = {"ndquant": lambda: plan.run([next(turns)], out)} | others_networks.network(made, batches)
    return calls, batch * made.multiply_adds(shape)


def random_shapes(count, rng):
    """Return shapes as `CONVOLUTIONS` has them: sizes uniform in their logarithms, a quarter of them depthwise."""
    shapes = []
    while len(shapes) < count:
        channels, size, outputs = (int(np.exp(rng.uniform(*np.log(ends)))) for ends in ((16, 512), (7, 112), (16, 512)))
        depthwise, stride = rng.random() < 0.25, int(rng.choice([1, 2]))
        window = int(rng.choice([3, 5] if depthwise else [1, 3, 5]))
        outputs, groups = (channels, channels) if depthwise else (outputs, 1)
        if LEAST_WORK < outputs * channels // groups * (window * size // stride) ** 2 < MOST_WORK:
            shapes.append((1, channels, size, outputs, window, stride, groups))
    return shapes


def _kind(shape):
    """Return window, stride and whether it is depthwise."""
    return *shape[4:6], shape[6] > 1


def _neighbour(shape, listed):
    """Return the nearest listed shape of the same kind that is no first layer, or None."""
    alike = [other for other in listed if _kind(other) == _kind(shape) and other[1] > 3]
    return min(alike, key=lambda other: np.abs(np.log(np.array(shape[1:4]) / other[1:4])).sum(), default=None)


def random_rows(count, listed, peak, rounds, rng):
    """Measure random shapes; `listed` has the records of `CONVOLUTIONS` by shape."""
    print(f"\n{count} random convolutions, and float32")
    records = []
    for shape in random_shapes(count, rng):
        calls, work = beside_float(shape, rng)
        records.append(report(" ".join(map(str, shape)), calls, work, peak, rounds))
        near = _neighbour(shape, listed)
        if peak and near:
            share = listed[near]["ndquant"]["share_of_peak"]
            records[-1]["share_of_neighbour"] = records[-1]["ndquant"]["share_of_peak"] / share
    shares = [100 * record["share_of_neighbour"] for record in records if "share_of_neighbour" in record]
    if shares:
        print(f"share of that of the listed neighbour, of {len(shares)} that have one of their kind: ", end="")
        print(f"median {np.median(shares):.0f} %, least {min(shares):.0f} %")
    slower = [record["float32"]["times_ndquant"] for record in records]
    print(f"float32 / codes: median {np.median(slower):.1f}, least {min(slower):.1f}")
    return records


def report(name, calls, work, peak, rounds):
    """Measure the calls, print their line and return it as a record."""
    times = samples([*calls.values(), *(peak[:1] if peak else ())], rounds)
    slower = dict(zip(calls, ratios(times, 0).tolist(), strict=False))
    fastest = forms.fastest(slower)
    record = {"case": name, "multiply_adds": int(work), "fastest_forms": forms.several(fastest)}
    for i, candidate in enumerate(calls):
        record[candidate] = {"median_s": float(np.median(times[:, i])), "times_ndquant": slower[candidate]}
        if peak:
            record[candidate]["share_of_peak"] = float(np.median(times[:, -1] / times[:, i])) * work / peak[1]
    _, *others = fastest.items()
    ours = record["ndquant"]
    line = f"{name:24} {ours['median_s'] * 1e6:9.1f}" + (f" {100 * ours['share_of_peak']:4.0f} %" if peak else "")
    for library, form in others:
        line += f"   {library} {record[form]['median_s'] * 1e6:8.1f} {slower[form]:5.2f} x"
    print(line)
    return record


def main():
    """Print the tables for one thread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--shapes", type=int, default=100, help="how many random convolutions")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--cpu-time", action="store_true", help="for a machine that is busy besides")
    arguments, rng = parser.parse_args(), np.random.default_rng(0)
    if arguments.cpu_time:
        timing.clock = time.process_time
    nq.set_num_threads(1)
    nq.show_config()
    peak = limits.multiply_adds("s8")
    print("\none thread: microseconds and share of peak; of others microseconds and how many times as long")
    listed = {
        shape: report(name, *convolution(shape, rng), peak, arguments.rounds) for name, shape in CONVOLUTIONS.items()
    }
    few = max(arguments.rounds // 3, 5)
    records = [
        report(f"{name}, batch {batch}", *network(name, batch, rng), peak, few)
        for name, batch in itertools.product(networks.DEFINITIONS, (1, 32))
    ]
    random = random_rows(arguments.shapes, listed, peak, few, rng) if arguments.shapes else []
    if arguments.json:
        result = {"cpu": limits.cpu_name(), "cases": [*listed.values(), *records], "random": random}
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
