"""Reads and writes stay inside the arrays: these end, or begin, at a page that may not be touched.

The work is done in a process of its own, so that a crash is a failed assertion.
"""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import ndquant as nq
from ndquant import _core, convolution, functional

from .guard import guarded

SIZES = (*range(1, 71), 127, 128, 129, 1023, 4095, 4096, 4097)


def exercise(side, rng):
    """Call every array function on guarded arrays of all sizes, per tensor and per channel."""
    spec = nq.QuantSpec(8, symmetric=False)
    for dtype in (np.float32, np.float64):
        for n in SIZES:
            x, dy = (guarded(rng.standard_normal(n).astype(dtype), side) for _ in range(2))
            y, dx = (guarded(np.zeros(n, dtype), side) for _ in range(2))
            q = guarded(np.zeros(n, np.int8), side)
            for profile in ("default", "textbook"):
                call_all(x, dy, y, dx, q, nq.QParams(dtype(0.1), 3, spec, profile=profile))
            training_step(x, dy, y, dx, guarded(np.zeros(n, dtype), side))
            if n < 71:
                per_channel(x, dy, y, dx, q, dtype)
                other_codes(x, dy, y, dx, side)


def per_channel(x, dy, y, dx, q, dtype):
    n = x.size
    scale = np.full(n, 0.1, dtype)
    for shape, axis in (((1, n), 1), ((n, 1), 0), ((1, n, 1), -2)):
        qp = nq.QParams(scale, 3, nq.QuantSpec(8, symmetric=False, axis=axis))
        call_all(*(a.reshape(shape) for a in (x, dy, y, dx, q)), qp)


def other_codes(x, dy, y, dx, side):
    """Codes of 2 and 4 bytes, true division, float offsets, and groups along either axis."""
    n, dtype = x.size, x.dtype.type
    for bits, size in ((16, np.int16), (32, np.int32)):
        q = guarded(np.zeros(n, size), side)
        spec = nq.QuantSpec(bits, symmetric=False)
        call_all(x, dy, y, dx, q, nq.QParams(dtype(0.1), 3, spec, profile="onnx"))
        call_all(x, dy, y, dx, q, nq.QParams(dtype(0.1), 0.5, nq.QuantSpec(bits, zero_aligned=False)))
        arrays = [a.reshape(1, n) for a in (x, dy, y, dx, q)]
        call_all(*arrays, nq.QParams(np.full((1, 1), 0.1, dtype), 3, replace(spec, group_size=n)))
        call_all(*arrays, nq.QParams(np.full((1, n), 0.1, dtype), 3, replace(spec, axis=0, group_size=1)))


def training_step(x, dy, y, dx, v):
    functional.relu_backward(dy, x, out=dx)
    functional.sgd_step(x, dy, 0.1)
    functional.sgd_step(x, dy, 0.1, y, 0.9)
    functional.adam_step(x, dy, y, v, 1)


#: Channels, outputs, rows, columns, window, groups: runs and panels that are not full, rows that end with the image.
CONVOLUTIONS = [
    *((c, o, 3, 5, 3, 1) for c in (1, 2, 3, 4, 5, 15, 16, 17, 33) for o in (1, 15, 33)),
    *((c, c, 4, w, k, c) for c in (2, 7, 16, 17, 31, 33) for w in (5, 6, 7) for k in (1, 3)),
    *((6 * g, 10 * g, 4, 3, 2, g) for g in (2, 3)),
]


def exercise_convolutions(side, rng):
    """Call the convolutions on guarded images, weights and outputs of both layouts."""
    spec = nq.QuantSpec(8, symmetric=False)
    qp = nq.QParams(0.1, 3, spec)
    for channels, outputs, height, width, window, groups in CONVOLUTIONS:
        weight = nq.PackedWeight(np.zeros((outputs, channels // groups, window, window), np.int8), qp)
        for order in ((0, 1, 2, 3), (0, 3, 1, 2)):
            shape = np.argsort(order)
            x = guarded(rng.integers(-128, 128, np.take((2, channels, height, width), shape), np.int8), side)
            w = guarded(np.zeros(weight.shape, np.int8), side)
            for padding in (0, 1):
                size = 2, outputs, height + 2 * padding - window + 1, width + 2 * padding - window + 1
                sums, y = (guarded(np.zeros(np.take(size, shape), dtype), side) for dtype in (np.int32, np.int8))
                images = x.transpose(order)
                nq.conv2d_integer(images, w, 1, padding, 1, groups, out=sums.transpose(order))
                nq.conv2d_requantized(images, qp, weight, qp, padding=padding, groups=groups, out=y.transpose(order))
            if channels == outputs:
                nq.conv_transpose2d_integer(x.transpose(order), w, 2, groups=groups)


def exercise_float_convolutions(side, rng):
    """The same for convolutions of floats and their gradients, whose results are new arrays."""
    for channels, outputs, height, width, window, groups in CONVOLUTIONS:
        for order in ((0, 1, 2, 3), (0, 3, 1, 2)):
            shape = np.argsort(order)
            x = guarded(rng.random(np.take((2, channels, height, width), shape), np.float32), side).transpose(order)
            w = guarded(np.zeros((outputs, channels // groups, window, window), np.float32), side)
            for stride, padding in ((1, 0), (1, 1), (2, 1), (3, 0)):
                geometry = stride, padding, 1, groups
                y = convolution.conv2d_f32(x, w, guarded(np.zeros(outputs, np.float32), side), *geometry)
                dy = guarded(np.zeros(np.take(y.shape, shape), np.float32), side).transpose(order)
                convolution.conv2d_f32_input_grad(dy, w, (height, width), *geometry)
                convolution.conv2d_f32_weight_grad(dy, x, (window, window), *geometry)


def call_all(x, dy, y, dx, q, qp):
    nq.quantize(x, qp, out=q)
    nq.dequantize(q, qp, dtype=x.dtype, out=y)
    nq.dequantize(q.view(f"u{q.itemsize}"), qp, dtype=x.dtype, out=y)
    nq.requantize(q, qp, qp, out=q)
    nq.quantization_error(x, qp)
    _core.square_sums(x, y)
    nq.fake_quantize(x, qp, out=y)
    nq.fake_quantize_backward(dy, x, qp, out=dx)
    nq.fake_quantize_with_grad(x, dy, qp, out=(y, dx))
    nq.fake_quantize_learnable_backward(dy, x, qp, out=dx)
    _core.minmax(x, qp.spec.axis)
    searched(x, qp.spec.axis)


def searched(x, axis):
    """Histogram and clip errors; what the first gives is put against a guard page for the second."""
    start, bins, counts = (guarded(a, "end") for a in _core.histogram(x, axis))
    _core.add_histograms(start, bins, counts, start, bins, counts)
    weights = guarded(counts.astype(np.float64), "end")
    ranges = guarded(np.ones((start.size - 1, 3)), "end")
    for p in (2, 2.4):
        _core.clip_errors(start, weights, weights, ranges, ranges, 255, p)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("side", ["begin", "end"])
def test_kernels_stay_inside(backend, side):
    done = run(
        "import numpy as np; from ndquant import _core; from tests import test_guard_pages as t;"
        f"_core.set_backend({backend!r}); t.exercise({side!r}, np.random.default_rng(0)); print('done')"
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.parametrize("side", ["begin", "end"])
def test_convolutions_stay_inside(backend, side):
    done = run(
        "import numpy as np; from ndquant import _core; from tests import test_guard_pages as t;"
        f"_core.set_backend({backend!r}); t.exercise_convolutions({side!r}, np.random.default_rng(0));"
        f"t.exercise_float_convolutions({side!r}, np.random.default_rng(0)); print('done')"
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.parametrize("side, index", [("begin", -1), ("end", 1)])
def test_the_guard_would_notice(side, index):
    """One byte too far ends the process with SIGSEGV."""
    done = run(
        "import ctypes, numpy as np; from tests.guard import guarded;"
        f"a = guarded(np.zeros(1, np.uint8), {side!r}); ctypes.string_at(a.ctypes.data + {index}, 1)"
    )
    assert done.returncode == -11
