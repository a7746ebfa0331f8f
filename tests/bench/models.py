"""Convolutions and whole networks on codes: ``python -m tests.bench.models [--rounds N] [--json FILE]``.

All candidates of a row take turns in short slices, so that a busy machine slows them alike; times are medians in
microseconds. The share is that of the multiply-adds that one core does in the same run with nothing else to do, by the
exact instructions of this instruction set. Networks read another input at every call. Where PyTorch is installed, its
quantized convolution, which on AVX2 adds products in 16 bits that saturate, is timed beside.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import numpy as np

import ndquant as nq
from ndquant.functional import PackedWeight

from . import limits, networks
from .others import _library
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
}
X_QP, OUT_QP = (nq.QParams(np.float32(scale), 120, networks.AFFINE) for scale in (0.03, 4.0))
W_SCALE = 0.01


def convolution(shape, rng):
    """Return the calls of a layer on channels-last images, by name, and their multiply-adds."""
    images, channels, size, outputs, window, stride, groups = shape
    padding = window // 2
    x = rng.integers(0, 256, (images, size, size, channels), np.uint8).transpose(0, 3, 1, 2)
    w = rng.integers(-127, 128, (outputs, channels // groups, window, window), np.int8)
    packed = PackedWeight(w, nq.QParams(np.full(outputs, W_SCALE, np.float32), 0, nq.QuantSpec(axis=0)))
    out = nq.conv2d_requantized(x, X_QP, packed, OUT_QP, stride, padding, groups=groups)

    def call():
        nq.conv2d_requantized(x, X_QP, packed, OUT_QP, stride, padding, groups=groups, out=out)

    other = pytorch(x, w, stride, padding, groups)
    return {"ndquant": call} | ({"pytorch": other} if other else {}), out.size * w[0].size


def pytorch(x, w, stride, padding, groups):
    """Return PyTorch's call for the same layer, or None where it is not installed."""
    torch = _library("torch")
    if not torch:
        return None
    torch.set_num_threads(1)
    zeros = torch.zeros(len(w), dtype=torch.long)
    scales = torch.full((len(w),), W_SCALE)
    weight = torch._make_per_channel_quantized_tensor(torch.from_numpy(w), scales, zeros, 0)
    geometry = [stride] * 2, [padding] * 2, [1, 1], groups
    packed = torch.ops.quantized.conv2d_prepack(weight, torch.zeros(len(w)), *geometry)
    images = torch._make_per_tensor_quantized_tensor(torch.from_numpy(x), float(X_QP.scale), int(X_QP.zero_point))
    out = float(OUT_QP.scale), int(OUT_QP.zero_point)
    return lambda: torch.ops.quantized.conv2d(images, packed, *out)


def network(name, batch, rng):
    """Return the call of a network's plan, which reads two batches in turn, and its multiply-adds."""
    make, shape = networks.DEFINITIONS[name]
    batches = [rng.standard_normal((batch, *shape), np.float32) for _ in range(2)]
    made = networks.Network(make(rng), batches[0][:2])
    plan, turns = made.plan(batches[0].shape), itertools.cycle(batches)
    out = plan.output.new_array()
    return {"ndquant": lambda: plan.run([next(turns)], out)}, batch * made.multiply_adds(shape)


def report(name, calls, work, peak, rounds):
    """Measure the calls, print their line and return it as a record."""
    times = samples([*calls.values(), *(peak[:1] if peak else ())], rounds)
    record = {"case": name, "multiply_adds": int(work)}
    line = f"{name:24}"
    for i, (candidate, slower) in enumerate(zip(calls, ratios(times, 0), strict=False)):
        record[candidate] = {"median_s": float(np.median(times[:, i])), "times_ndquant": float(slower)}
        line += f" {record[candidate]['median_s'] * 1e6:11.1f}" + ("" if i == 0 else f" {slower:5.2f} x")
        if peak:
            share = float(np.median(times[:, -1] / times[:, i])) * work / peak[1]
            record[candidate]["share_of_peak"] = share
            line += f" {100 * share:4.0f} %"
    print(line)
    return record


def main():
    """Print the tables for one thread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments, rng = parser.parse_args(), np.random.default_rng(0)
    nq.set_num_threads(1)
    nq.show_config()
    peak = limits.multiply_adds("s8")
    print(f"\none thread{'':14}" + "".join(f" {name:>18}" for name in ("ndquant", "pytorch")))
    rows = [(name, *convolution(shape, rng), arguments.rounds) for name, shape in CONVOLUTIONS.items()]
    for name, batch in itertools.product(networks.DEFINITIONS, (1, 32)):
        rows.append((f"{name}, batch {batch}", *network(name, batch, rng), max(arguments.rounds // 3, 5)))
    records = [report(name, calls, work, peak, rounds) for name, calls, work, rounds in rows]
    if arguments.json:
        arguments.json.write_text(json.dumps({"cpu": limits.cpu_name(), "cases": records}, indent=1))


if __name__ == "__main__":
    main()
