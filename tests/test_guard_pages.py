"""Reads and writes stay inside the arrays: these end, or begin, at a page that may not be touched.

The work is done in a process of its own, so that a crash is a failed assertion.
"""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import ndquant as nq
from ndquant import _core, convolution, functional, integer
from ndquant.graph.plan import Plan
from ndquant.graph.steps import Steps

from . import cases
from .guard import guarded

SIZES = (*range(1, 71), 127, 128, 129, 1023, 4095, 4096, 4097)


#: Every rule, and every width and sign of codes.
CODES = [
    *((nq.QuantSpec(8, symmetric=False), profile) for profile in ("default", "onnx", "textbook")),
    (nq.QuantSpec(8, signed=False, symmetric=False), "default"),
    *((nq.QuantSpec(16), profile) for profile in ("default", "onnx", "textbook")),
    (nq.QuantSpec(12, signed=False, symmetric=False), "onnx"),
    *((nq.QuantSpec(32), profile) for profile in ("default", "onnx", "textbook")),
    (nq.QuantSpec(20, signed=False, symmetric=False), "textbook"),
    *((nq.QuantSpec(bits, symmetric=False, zero_aligned=False), "default") for bits in (8, 16, 32)),
]


def exercise(side, rng, dtypes=(np.float32, np.float64), sizes=SIZES):
    """Call every array function on guarded arrays of all sizes, per tensor, per channel and per group."""
    for dtype in dtypes:
        for n in sizes:
            x, dy = (guarded(rng.standard_normal(n).astype(dtype), side) for _ in range(2))
            y, dx = (guarded(np.zeros(n, dtype), side) for _ in range(2))
            for spec, profile in CODES:
                q = guarded(np.zeros(n, spec.dtype), side)
                call_all(x, dy, y, dx, q, nq.QParams(dtype(0.1), 3, spec, profile=profile))
            observe(x, None)
            if dtype != np.float16:
                training_step(x, dy, y, dx, guarded(np.zeros(n, dtype), side))
            if n < 71:
                per_channel(x, dy, y, dx, side)


def exercise_staged(side, rng):
    """The same where kernels work on copies of blocks: outputs that pass the caches by, float16, and strides."""
    _core.set_stream_from(1)
    exercise(side, rng, sizes=(*range(1, 71, 3), 1023, 1024, 4097))
    _core.set_stream_from(0)
    exercise(side, rng, dtypes=[np.float16], sizes=(*range(1, 20), 511, 512, 513))
    qp = nq.QParams(0.1, 3, nq.QuantSpec(8, symmetric=False))
    for dtype in (np.float16, np.float32, np.float64):
        for n in (1, 2, 30, 1023):
            x, dy = (guarded(np.zeros((n, 6), dtype), side) for _ in range(2))
            for view in (np.s_[:, ::5], np.s_[::-1], np.s_[:, 3:4]):
                nq.quantize(x[view], qp)
                nq.fake_quantize_with_grad(x[view], dy[view], qp)


def per_channel(x, dy, y, dx, side):
    n = x.size
    scale = np.full(n, 0.1, x.dtype)
    for spec, profile in CODES[::4]:
        q = guarded(np.zeros(n, spec.dtype), side)
        for shape, axis in (((1, n), 1), ((n, 1), 0), ((1, n, 1), -2)):
            qp = nq.QParams(scale, 3, replace(spec, axis=axis), profile=profile)
            call_all(*(a.reshape(shape) for a in (x, dy, y, dx, q)), qp)
        for shape, axis, group_size in (((1, n), -1, n), ((1, n), 0, 1), ((n, 1), 0, n)):
            scales = np.full(cases.scale_shape(replace(spec, axis=axis, group_size=group_size), shape), 0.1, x.dtype)
            qp = nq.QParams(scales, 3, replace(spec, axis=axis, group_size=group_size), profile=profile)
            call_all(*(a.reshape(shape) for a in (x, dy, y, dx, q)), qp)
    for shape, axis in (((1, n), 1), ((n, 1), 0)):
        observe(x.reshape(shape), axis)
    for shape in ((n, 1, 1), (1, n, 1), (1, 1, n)):
        u, v, constant = x.reshape(shape), dy.reshape(shape), x[: shape[1]] if shape[1] == n else x[-1:]
        _core.channel_sums(u, v)
        _core.scale_channels(u, constant, constant, None, constant)
        _core.mix_channels(u, v, constant, constant, constant, constant)


def exercise_rows(side, rng):
    """Several rows of channels, in tiles where they are wide, and channels of few elements."""
    narrow = [((rows, n), 1) for rows in (2, 5) for n in (*range(1, 71, 3), 127)]
    for shape, axis in (*narrow, *cases.SHORT_STRETCHES, *cases.WIDE_ROWS):
        for dtype, (spec, profile) in ((np.float32, CODES[0]), (np.float32, CODES[4]), (np.float64, CODES[1])):
            x, dy = (guarded(rng.standard_normal(shape).astype(dtype), side) for _ in range(2))
            y, dx = (guarded(np.zeros(shape, dtype), side) for _ in range(2))
            q = guarded(np.zeros(shape, spec.dtype), side)
            scale = rng.uniform(0.05, 0.1, shape[axis]).astype(dtype)
            for zero_point in (0, rng.integers(0, 1 if spec.symmetric else 9, scale.size)):
                call_all(x, dy, y, dx, q, nq.QParams(scale, zero_point, replace(spec, axis=axis), profile=profile))


def training_step(x, dy, y, dx, v):
    functional.relu_backward(dy, x, out=dx)
    functional.sgd_step(x, dy, 0.1)
    functional.sgd_step(x, dy, 0.1, y, 0.9)
    functional.adam_step(x, dy, y, v, 1)


#: Channels, outputs, rows, columns, window, groups: runs and panels that are not full, rows that end with the image.
CONVOLUTIONS = [
    *((c, o, 3, 5, 3, 1) for c in (1, 2, 3, 4, 5, 15, 16, 17, 33) for o in (1, 15, 33)),
    *((c, c, 4, w, k, c) for c in (2, 7, 16, 17, 31, 33) for w in (5, 6, 7) for k in (1, 3)),
    *((c, c, 6, 7, 5, c) for c in (7, 33)),
    *((c, c, 5, 4, 3, c) for c in (32, 63, 64, 97)),
    *((6 * g, 10 * g, 4, 3, 2, g) for g in (2, 3)),
    *((c, o, 6, 5, 3, 1) for c in (16, 19, 20) for o in (8, 16, 20)),
    *((c, c + 4, 2, w, 1, 1) for c in (16, 25) for w in (16, 27)),
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
                halved = 2, outputs, (size[2] + 1) // 2, (size[3] + 1) // 2
                y = guarded(np.zeros(np.take(halved, shape), np.int8), side).transpose(order)
                nq.conv2d_requantized(images, qp, weight, qp, 2, padding, groups=groups, out=y)
            if channels == outputs:
                nq.conv_transpose2d_integer(x.transpose(order), w, 2, groups=groups)
            size = 2, outputs, 3 * height - 3 + window, 2 * width - 2 + window
            y = guarded(np.zeros(np.take(size, shape), np.int8), side).transpose(order)
            nq.conv_transpose2d_requantized(x.transpose(order), qp, weight, qp, (3, 2), groups=groups, out=y)


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
    nq.requantize(q, qp, qp, out=q)
    nq.quantization_error(x, qp)
    _core.square_sums(x, y)
    nq.fake_quantize(x, qp, out=y)
    nq.fake_quantize_backward(dy, x, qp, out=dx)
    nq.fake_quantize_with_grad(x, dy, qp, out=(y, dx))
    nq.fake_quantize_learnable_backward(dy, x, qp, out=dx)


def observe(x, axis):
    """Extremes, histogram and clip errors; what the histogram gives is put against a guard page for the rest."""
    _core.minmax(x, axis)
    start, bins, counts = (guarded(a, "end") for a in _core.histogram(x, axis))
    _core.add_histograms(start, bins, counts, start, bins, counts)
    weights = guarded(counts.astype(np.float64), "end")
    ranges = guarded(np.ones((start.size - 1, 3)), "end")
    for p in (2, 2.4):
        _core.clip_errors(start, weights, weights, ranges, ranges, 255, p)
    rows = guarded(x.astype(np.float64).reshape(-1, 1 if x.size % 2 else 2), "end")
    _core.cross_entropies(rows, rows, guarded(rows[:, 0]), guarded(np.ones(3)), guarded(np.ones(3)), 255)


def exercise_layers(side, rng):
    """Call fully connected layers, and what training does for them, on guarded operands and outputs."""
    spec, grid = nq.QuantSpec(8, symmetric=False), (-128, 127, 8, True, _core.RANGE_DEFAULT)
    x_qp, signs = nq.QParams(0.1, 3, spec), (spec, replace(spec, signed=False))
    for inputs in range(1, 71):
        rows, outputs = 1 + inputs % 7, 1 + inputs * 7 % 40
        x = guarded(rng.integers(-128, 128, (rows, inputs), np.int8), side)
        w = guarded(rng.integers(-20, 20, (outputs, inputs), np.int8), side)
        bias = guarded(np.zeros(outputs, np.int32), side)
        real, b = guarded(w.astype(np.float32), side), guarded(np.zeros(outputs, np.float32), side)
        weight = nq.PackedWeight(w, nq.QParams(guarded(np.full(outputs, 0.1), side), 0, nq.QuantSpec(axis=0)), bias)
        y = guarded(np.zeros((rows, outputs), np.float32), side)
        nq.linear_integer(x, x_qp, weight, out=y)
        nq.matmul_integer(x, guarded(w.T.copy(), side), 3, guarded(np.full(outputs, 3, np.int32), side))
        for out_spec in signs:
            codes = guarded(np.zeros((rows, outputs), out_spec.dtype), side)
            nq.linear_integer(x, x_qp, weight, nq.QParams(0.1, 3, out_spec), "relu", codes)
        _core.observe_quantize(real, None, None, 0.01, *grid)
        for per_channel in (False, True):
            _core.quantize_weight(real, b, 0.1, *grid, per_channel)


def exercise_dynamic(side, rng):
    """Call layers that quantize rows, on guarded floats."""
    for n in SIZES:
        spec = nq.QParams(0.1, 0, nq.QuantSpec())
        packed = _core.pack_matrix(rng.integers(-128, 128, (3 * n, n), np.int8), spec, np.zeros(3 * n, np.float32))
        cells = _core.pack_matrix(rng.integers(-128, 128, (4 * n, n), np.int8), spec, np.zeros(4 * n, np.float32))
        x, h, c = (guarded(rng.standard_normal((2, n)).astype(np.float32), side) for _ in range(3))
        _core.linear_rows(x, packed, 1, guarded(np.zeros((2, 3 * n), np.float32), side))
        _core.softmax_f32(x, h)
        _core.layer_norm_f32(x, c[0], c[1], 1e-5, h)
        _core.gelu_f32(x, n % 2, h)
        _core.attention_f32(x[None], c[None], c[None], 1, guarded(np.zeros((1, 2, 2), np.float32), side), h[None])
        for weight, gates, states in ((packed, 3, (h, None)), (cells, 4, (h, c))):
            gx = guarded(rng.standard_normal((2, 2, gates * n)).astype(np.float32), side)
            _core.recurrence(gx, weight, *states, np.array([1, 2]), False)


def exercise_bits(side, rng):
    """Call packing and unpacking on guarded codes and bits."""
    for n in SIZES:
        for bits in (1, 2, 3, 4, 8):
            spec = nq.QuantSpec(bits, signed=False, symmetric=False)
            for rows in (1, 3):
                codes = guarded(rng.integers(0, spec.qmax, (rows, n), np.uint8, endpoint=True), side)
                packed = guarded(np.zeros((rows, -(-n * bits // 8)), np.uint8), side)
                nq.pack_codes(codes, spec, out=packed)
                nq.unpack_codes(packed, spec, n, out=codes)


def exercise_groups(side, rng):
    """Call layers on weights of 4 bits on guarded codes, floats and outputs."""
    for size in (*range(1, 40), 63, 64, 65, 130):
        for rows, outputs, groups in ((1, 3, 1), (3, 17, 2), (5, 33, 17)):
            inputs = size * groups
            w = guarded(rng.integers(-8, 8, (outputs, inputs), np.int8), side)
            spec = nq.QuantSpec(4, group_size=size, zero_aligned=size % 3 > 0)
            scale, bias = np.full((outputs, groups), 0.1), guarded(np.zeros(outputs, np.float32), side)
            weight = nq.GroupedWeight(w, nq.QParams(scale, 0, spec), bias)
            out = guarded(np.zeros((rows, outputs), np.float32), side)
            nq.linear_grouped(guarded(rng.standard_normal((rows, inputs)).astype(np.float32), side), weight, out=out)
            xq = guarded(rng.integers(-128, 128, (rows, inputs), np.int8), side)
            nq.linear_grouped(xq, weight, nq.QParams(0.1, 3, nq.QuantSpec(symmetric=False)), out=out)


def exercise_signs(side, rng):
    """Call products and convolutions of signs on guarded bits and sums."""
    for length in (*range(1, 18), 63, 64, 65, 250, 1000):
        for rows, outputs in ((1, 1), (5, 17), (9, 70)):
            bytes_ = -(-length // 8)
            a, w = (guarded(rng.integers(0, 256, (n, bytes_), np.uint8), side) for n in (rows, outputs))
            nq.matmul_binary(a, w, length, out=guarded(np.zeros((rows, outputs), np.int32), side))
            x = guarded(rng.integers(0, 256, (2, 4, rows, bytes_), np.uint8), side)
            taps = guarded(rng.integers(0, 256, (outputs, 3, 1, bytes_), np.uint8), side)
            nq.conv2d_binary(x, taps, length, (1, 2), (1, 0))


def exercise_codes(side, rng):
    """Call what lies between products on guarded codes."""
    qp = nq.QParams(0.1, 3, nq.QuantSpec(8, symmetric=False))
    table = guarded(np.zeros(256, np.int8), side)
    for n in SIZES:
        a, b, out = (guarded(rng.integers(-128, 128, n, np.int8), side) for _ in range(3))
        ones = guarded(np.ones(n, np.float32), side)
        integer.add(a, qp, b, qp, qp, out=out)
        integer.multiply(a, qp, b, qp, qp, out=out)
        integer.lookup(a, table, out=out)
        integer.softmax(a, qp, qp, out=out)
        integer.layer_norm(a, qp, qp, ones, ones, out=out)
        integer.softmax(a[None], qp, qp, mask=guarded(np.zeros((1, n), bool), side), out=out[None])
        integer.matmul(a[None], qp, b[:, None], qp, qp, out=out[None, :1])
        integer.matmul(a[:, None], qp, b[None, :3], qp, qp, out=guarded(np.zeros((n, min(n, 3)), np.int8), side))
    for channels in (1, 7, 8, 9, 33):
        for order in ((0, 1, 2, 3), (0, 3, 1, 2)):
            shape = np.take((2, channels, 9, 11), np.argsort(order))
            images = guarded(rng.integers(-128, 128, shape, np.int8), side).transpose(order)
            small = np.take((2, channels, 5, 6), np.argsort(order))
            out = guarded(np.zeros(small, np.int8), side).transpose(order)
            integer.max_pool2d(images, 3, 2, 1, out=out)
            integer.avg_pool2d(images, qp, qp, 3, 2, 1, out=out)
            integer.resize_nearest(images, (5, 6), out=out)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def exercise_plans(side, rng):
    """Run every kind of step that reads or writes an array of the caller, on guarded arrays in either layout."""
    qp = nq.QParams(0.1, 3, nq.QuantSpec(8, symmetric=False))
    for channels, outputs, height, width, window, groups in CONVOLUTIONS:
        weight = nq.PackedWeight(np.zeros((outputs, channels // groups, window, window), np.int8), qp)
        ends = {
            "quantize": lambda s, x: x,
            "transpose": lambda s, x: s.channels_last(x),
            "conv2d": lambda s, x, weight=weight, groups=groups: s.conv2d(x, weight, qp, padding=1, groups=groups),
            "transposed": lambda s, x, weight=weight, groups=groups: s.conv_transpose2d(x, weight, qp, groups=groups),
            "floats": lambda s, x, weight=weight, groups=groups: s.conv2d(x, weight, padding=1, groups=groups),
            "add": lambda s, x: s.add(x, x, qp, "relu6"),
            "pool": lambda s, x: s.max_pool2d(x, 2),
            "mean": lambda s, x: s.adaptive_avg_pool2d(x, qp),
            "resize": lambda s, x: s.resize_nearest(x, (3, 5)),
            "clamp": lambda s, x: s.clamp(x, "relu"),
            "softmax": lambda s, x: s.softmax(x, qp),
            "floats between": lambda s, x: s.gelu(s.softmax_floats(s.add_floats(x, x))),
        }
        for end in ends.values():
            steps = Steps()
            value = steps.new((2, channels, height, width))
            y = end(steps, steps.quantize(value, qp))
            x = guarded(rng.standard_normal(value.shape, np.float32), side)
            Plan(steps, {"y": y}, 1, y).run([x], guarded(np.zeros(y.memory_shape, y.dtype), side))


WORK = (
    exercise,
    exercise_staged,
    exercise_rows,
    exercise_layers,
    exercise_convolutions,
    exercise_float_convolutions,
    exercise_bits,
    exercise_groups,
    exercise_signs,
    exercise_codes,
    exercise_dynamic,
    exercise_plans,
)


@pytest.mark.parametrize("side", ["begin", "end"])
@pytest.mark.parametrize("work", WORK)
def test_kernels_stay_inside(backend, work, side):
    done = run(
        "import numpy as np; from ndquant import _core; from tests import test_guard_pages as t;"
        f"_core.set_backend({backend!r}); t.{work.__name__}({side!r}, np.random.default_rng(0)); print('done')"
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
