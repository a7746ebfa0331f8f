"""Integer forms of what lies between products, on every backend against their twins and against float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ndquant as nq
from ndquant import _core, integer, reference
from ndquant.ops import pool

from .cases import assert_same_bits
from .examples import examples
from .test_conv import LAYOUTS, in_layout, is_channels_last
from .test_gemm import random_codes
from .test_linear_integer import S8, U8

SPECS = (S8, U8, nq.QuantSpec(4), nq.QuantSpec(5, signed=False, symmetric=False))
SHAPES = ((), (0,), (1,), (67,), (3, 300), (2, 5, 6, 7))


def random_qparams(rng, spec, low=0.05, high=0.8):
    zero = int(rng.integers(spec.qmin, spec.qmax, endpoint=True))
    return nq.QParams(np.float32(np.exp(rng.uniform(np.log(low), np.log(high)))), zero, spec)


def constants(qparams):
    """Return a result's QParams as the twins take them."""
    return qparams.scale, int(qparams.zero_point), qparams.spec.qmin, qparams.spec.qmax


def operand(q, qparams):
    return q, qparams.scale, int(qparams.zero_point)


def steps_from(codes, exact, qparams):
    """Return the largest distance from the exact values, in steps of the codes, clamped ones left out."""
    spec = qparams.spec
    wanted = exact / np.float64(qparams.scale) + int(qparams.zero_point)
    inside = (wanted > spec.qmin) & (wanted < spec.qmax)
    return np.abs(codes.astype(np.float64) - wanted)[inside].max(initial=0.0)


def exact(q, qparams):
    return (q.astype(np.float64) - int(qparams.zero_point)) * np.float64(qparams.scale)


COMBINED = ((integer.add, reference.add_codes, np.add), (integer.multiply, reference.multiply_codes, np.multiply))


@pytest.mark.parametrize("function, twin, exactly", COMBINED, ids=("add", "multiply"))
def test_two_arrays(backend, rng, function, twin, exactly):
    worst = 0.0
    for shape, a_spec, b_spec, out_spec in itertools.product(SHAPES, *(SPECS[:2],) * 2, SPECS):
        a_qp, b_qp, out_qp = (random_qparams(rng, spec) for spec in (a_spec, b_spec, out_spec))
        a, b = random_codes(rng, shape, a_spec.dtype), random_codes(rng, shape, b_spec.dtype)
        found = function(a, a_qp, b, b_qp, out_qp)
        assert_same_bits(found, twin(*operand(a, a_qp), *operand(b, b_qp), constants(out_qp)))
        worst = max(worst, steps_from(found, exactly(exact(a, a_qp), exact(b, b_qp)), out_qp))
        for activation in ("relu", "relu6"):
            found = function(a, a_qp, b, b_qp, out_qp, activation)
            assert_same_bits(found, twin(*operand(a, a_qp), *operand(b, b_qp), constants(out_qp), activation))
    assert 0.4 < worst <= 0.501


def test_two_arrays_in_any_layout(rng):
    a_qp, b_qp, out_qp = (random_qparams(rng, U8) for _ in range(3))
    a, b = (random_codes(rng, (2, 5, 6, 7), np.uint8) for _ in range(2))
    wanted = integer.add(a, a_qp, b, b_qp, out_qp)
    for left, right, out_layout in itertools.product(LAYOUTS, LAYOUTS, (None, *LAYOUTS[:2])):
        out = None if out_layout is None else in_layout(np.zeros_like(a), out_layout)
        found = integer.add(in_layout(a, left), a_qp, in_layout(b, right), b_qp, out_qp, out=out)
        assert_same_bits(found, wanted)
        assert out is None or found is out
        assert is_channels_last(found) == ((out_layout or left) == "channels-last")
    same = a.copy()
    assert integer.add(same, a_qp, b, b_qp, out_qp, out=same) is same
    assert_same_bits(same, wanted)


def test_tables(backend, rng):
    functions = (np.tanh, np.exp, lambda x: 1 / (1 + np.exp(-x)), lambda x: x * np.clip(x + 3, 0, 6) / 6, np.log)
    for function, spec, out_spec in itertools.product(functions, SPECS[:2], SPECS):
        qp, out_qp = random_qparams(rng, spec), random_qparams(rng, out_spec)
        table = integer.unary_table(function, qp, out_qp)
        q = random_codes(rng, (3, 50), spec.dtype)
        found = integer.lookup(q, table)
        assert_same_bits(found, table[q.astype(int) - np.iinfo(q.dtype).min])
        with np.errstate(all="ignore"):
            y = function(exact(q, qp))
        assert steps_from(found, np.where(np.isfinite(y), y, 1e30), out_qp) <= 0.5 + 1e-9


def test_join(backend, rng):
    """Codes that have the QParams of the result are copied, the others requantized."""
    out_qp = random_qparams(rng, U8)
    qparams = [random_qparams(rng, S8), out_qp, random_qparams(rng, U8)]
    arrays = [random_codes(rng, (2, c, 3, 4), qp.spec.dtype) for c, qp in zip((3, 1, 5), qparams, strict=True)]
    for layout in LAYOUTS[:2]:
        found = integer.concatenate([in_layout(a, layout) for a in arrays], qparams, out_qp)
        assert is_channels_last(found) == (layout == "channels-last")
        np.testing.assert_array_equal(found[:, 3:4], arrays[1])
        values = np.concatenate([exact(a, qp) for a, qp in zip(arrays, qparams, strict=True)], axis=1)
        assert 0.4 < steps_from(found, values, out_qp) <= 0.501


#: x shape, window, stride, padding, dilation, ceil_mode
POOLS = (
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0), (1, 1), False),
    ((2, 3, 6, 7), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((1, 17, 9, 8), (3, 3), (2, 2), (1, 1), (1, 1), False),
    ((1, 40, 8, 9), (3, 2), (2, 3), (1, 1), (1, 1), True),
    ((2, 5, 11, 12), (3, 4), (1, 2), (1, 2), (2, 3), False),
    ((1, 65, 5, 5), (5, 5), (1, 1), (2, 2), (1, 1), True),
    ((0, 3, 4, 4), (2, 2), (1, 1), (0, 0), (1, 1), False),
    ((2, 0, 4, 4), (2, 2), (1, 1), (0, 0), (1, 1), False),
)


def _axes(case):
    shape, *pairs, _ = case
    return zip(shape[2:], *pairs, strict=True)


@pytest.mark.parametrize("case", POOLS, ids=str)
def test_largest_of_windows(backend, rng, case):
    shape, kernel, stride, padding, dilation, ceil_mode = case
    for dtype, layout in itertools.product((np.int8, np.uint8), LAYOUTS):
        q = random_codes(rng, shape, dtype)
        found = integer.max_pool2d(in_layout(q, layout), kernel, stride, padding, dilation, ceil_mode)
        windows = [integer.pool_windows(*axis, ceil_mode) for axis in _axes(case)]
        assert_same_bits(found, reference.max_pool_codes(q, *windows, dilation))
        assert q.size == 0 or is_channels_last(found) == (layout == "channels-last" or found.size == 1)
        floats, _ = pool.max_pool2d(q.astype(np.float32), kernel, stride, padding, dilation, ceil_mode)
        np.testing.assert_array_equal(found, floats)


@pytest.mark.parametrize("case", [case for case in POOLS if case[4] == (1, 1)], ids=str)
@pytest.mark.parametrize("count_include_pad", (True, False))
def test_means_of_windows(backend, rng, case, count_include_pad):
    shape, kernel, stride, padding, _, ceil_mode = case
    for spec, out_spec, layout in itertools.product(SPECS[:2], SPECS, LAYOUTS):
        qp, out_qp = random_qparams(rng, spec, 0.3), random_qparams(rng, out_spec, high=0.1)
        q = random_codes(rng, shape, spec.dtype)
        found = integer.avg_pool2d(
            in_layout(q, layout), qp, out_qp, kernel, stride, padding, ceil_mode, count_include_pad
        )
        windows = [integer.pool_windows(*axis, ceil_mode, count_include_pad) for axis in _axes(case)]
        assert_same_bits(found, reference.avg_pool_codes(*operand(q, qp), *windows, constants(out_qp)))
        means = pool.avg_pool2d(exact(q, qp), kernel, stride, padding, ceil_mode, count_include_pad)
        assert steps_from(found, means, out_qp) <= 0.501


@pytest.mark.parametrize("size", [1, (2, 3), (7, 6), 9], ids=str)
def test_means_of_even_windows(backend, rng, size):
    qp, out_qp = random_qparams(rng, U8, 0.3), random_qparams(rng, S8, high=0.1)
    q = random_codes(rng, (2, 33, 7, 6), np.uint8)
    found = integer.adaptive_avg_pool2d(q, qp, out_qp, size)
    means = pool.adaptive_avg_pool2d(exact(q, qp), pool.pair(size, "output_size"))
    assert found.shape == means.shape
    assert steps_from(found, means, out_qp) <= 0.501


@pytest.mark.parametrize("size", [(1, 1), (4, 6), (8, 10), (3, 2), (7, 11)], ids=str)
def test_nearest_neighbours(backend, rng, size):
    for layout in LAYOUTS:
        q = random_codes(rng, (2, 5, 4, 5), np.int8)
        rows, columns = (np.arange(m) * n // m for n, m in zip(q.shape[2:], size, strict=True))
        assert_same_bits(integer.resize_nearest(in_layout(q, layout), size), q[:, :, rows][..., columns])


@pytest.mark.parametrize("shape", [(1, 1), (3, 10), (2, 3, 300), (0, 5), (5, 0), (70, 1000)], ids=str)
def test_softmax(backend, rng, shape):
    for spec, out_scale in itertools.product(SPECS[:2], (2.0**-8, 2.0**-16)):
        qp, out_qp = random_qparams(rng, spec, 0.01, 0.3), nq.QParams(np.float32(out_scale), 0, U8)
        q = random_codes(rng, shape, spec.dtype)
        found = integer.softmax(q, qp, out_qp)
        assert_same_bits(found, reference.softmax_codes(q, integer.exp_table(qp), constants(out_qp)))
        e = np.exp(exact(q, qp) - exact(q, qp).max(axis=-1, keepdims=True, initial=-np.inf))
        assert steps_from(found, e / e.sum(axis=-1, keepdims=True), out_qp) <= 0.501


MASKS = [(2, 3, 5, 40), (5, 40), (40,), (2, 1, 1, 40), (2, 1, 5, 40), (1, 1, 1, 40)]


@pytest.mark.parametrize("mask_shape", MASKS, ids=str)
def test_softmax_with_a_mask(backend, rng, mask_shape):
    for spec in SPECS[:2]:
        qp, out_qp = random_qparams(rng, spec, 0.01, 0.3), random_qparams(rng, spec, 0.004, 0.005)
        q, mask = random_codes(rng, (2, 3, 5, 40), spec.dtype), rng.random(mask_shape) < 0.4
        mask.reshape(-1, 40)[0] = True  # nothing is left of these rows
        found = integer.softmax(q, qp, out_qp, mask=mask)
        assert_same_bits(found, reference.softmax_codes(q, integer.exp_table(qp), constants(out_qp), mask))
        everywhere = np.broadcast_to(mask, q.shape)
        assert (found[everywhere] == out_qp.zero_point).all()
        e = np.where(everywhere, 0, np.exp(exact(q, qp)))
        truth = e / np.maximum(e.sum(axis=-1, keepdims=True), 1e-30)
        assert steps_from(found, truth, out_qp) <= 0.501


MATRICES = [((3, 4), (4, 5)), ((2, 3, 7, 16), (2, 3, 16, 9)), ((5, 1, 300), (300, 33))]
MATRICES += [((0, 4, 3), (0, 3, 4)), ((3, 0), (0, 2))]


@pytest.mark.parametrize("shapes", MATRICES, ids=str)
def test_products_of_two_arrays(backend, rng, shapes):
    for a_spec, b_spec, out_spec in itertools.product(SPECS[:2], SPECS, (*SPECS, None)):
        a_qp, b_qp = random_qparams(rng, a_spec), random_qparams(rng, b_spec)
        a, b = (random_codes(rng, shape, spec.dtype) for shape, spec in zip(shapes, (a_spec, b_spec), strict=True))
        sums = reference.matmul_sums(a, b, a_qp.zero_point, b_qp.zero_point)
        scales = np.float32(a_qp.scale), np.float32(b_qp.scale) * np.float32(0.125)
        if out_spec is None:
            found = integer.matmul(a, a_qp, b, b_qp, factor=0.125)
            assert_same_bits(found, reference.linear_f32(sums, *scales))
            continue
        size = 0.1 * np.sqrt(max(shapes[0][-1], 1)) * 30
        out_qp = random_qparams(rng, out_spec, size / 200, size / 50)
        found = integer.matmul(a, a_qp, b, b_qp, out_qp, 0.125)
        assert_same_bits(found, reference.linear_codes(sums, *scales, *constants(out_qp)))
        assert steps_from(found, exact(a, a_qp) @ exact(b, b_qp) / 8, out_qp) <= 0.501


@given(st.tuples(*[st.integers(1, 40)] * 4), st.integers(0, 2**32 - 1))
@settings(max_examples=examples(60), deadline=None)
def test_products_of_any_shape(sizes, seed):
    batch, m, k, n = sizes
    rng = np.random.default_rng(seed)
    qp, out_qp = random_qparams(rng, U8), nq.QParams(np.float32(k / 4), 128, U8)
    a, b = random_codes(rng, (batch, m, k), np.uint8), random_codes(rng, (k, n), np.uint8)
    sums = reference.matmul_sums(a, b, qp.zero_point, qp.zero_point)
    scales = np.float32(qp.scale), np.float32(qp.scale)
    assert_same_bits(
        integer.matmul(a, qp, b, qp, out_qp), reference.linear_codes(sums, *scales, *constants(out_qp))
    )


def test_the_largest_sums_fit():
    a, qp = np.full((1, 33025), 255, np.uint8), nq.QParams(1.0, 0, U8)
    assert integer.matmul(a, qp, a.T, qp)[0, 0] == np.float32(33025 * 255**2)
    a = np.full((1, 33026), 255, np.uint8)
    with pytest.raises(ValueError, match="a sum of 33026 products could pass the range of int32; at most 33025"):
        integer.matmul(a, qp, a.T, qp)


@pytest.mark.parametrize("shape", [(1, 1), (3, 10), (2, 3, 300), (0, 5), (5, 0), (70, 1000), (1, 65536)], ids=str)
def test_layer_norm(backend, rng, shape):
    for spec, out_spec in itertools.product(SPECS[:2], SPECS):
        qp, out_qp = random_qparams(rng, spec), random_qparams(rng, out_spec, 0.03, 0.3)
        q = random_codes(rng, shape, spec.dtype)
        gain, offset = (rng.normal(size=shape[-1]).astype(np.float32) for _ in range(2))
        found = integer.layer_norm(q, qp, out_qp, gain, offset)
        eps = 1e-5 / float(qp.scale) ** 2
        unsigned = (q.astype(int) - np.iinfo(q.dtype).min).astype(np.uint8)
        assert_same_bits(found, reference.layer_norm_codes(unsigned, gain, offset, eps, constants(out_qp)))
        if q.size:
            x = exact(q, qp)
            x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
            assert steps_from(found, x * gain + offset, out_qp) <= 0.501


def test_rows_of_equal_codes(backend):
    """A row without variance gives its offset; with eps 0 it is 0 / 0, which becomes the lowest code."""
    q, ones = np.full((2, 9), 77, np.int8), np.ones(9, np.float32)
    qp = nq.QParams(0.5, 3, S8)
    np.testing.assert_array_equal(integer.layer_norm(q, qp, qp, ones, 2 * ones), 7)
    np.testing.assert_array_equal(integer.layer_norm(q, qp, qp, ones, ones, eps=0.0), -128)


@pytest.mark.parametrize("backend_name", _core.available_backends())
@given(data=st.data())
@settings(max_examples=examples(60), deadline=None)
def test_any_pool(backend_name, data):
    draw = data.draw
    axes = []
    for _ in range(2):
        kernel, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3))
        padding = draw(st.integers(0, kernel // 2))
        least = max(dilation, dilation * (kernel - 1) + 1 - 2 * padding)  # a tap of each window lies in the image
        axes.append((draw(st.integers(least, least + 9)), kernel, draw(st.integers(1, 4)), padding, dilation))
    sizes, kernel, stride, padding, dilation = zip(*axes, strict=True)
    ceil_mode, layout = draw(st.booleans()), draw(st.sampled_from(LAYOUTS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    q = random_codes(rng, (draw(st.integers(1, 2)), draw(st.integers(1, 40)), *sizes), np.uint8)
    with nq.backend(backend_name):
        found = integer.max_pool2d(in_layout(q, layout), kernel, stride, padding, dilation, ceil_mode)
    floats, _ = pool.max_pool2d(q.astype(np.float32), kernel, stride, padding, dilation, ceil_mode)
    np.testing.assert_array_equal(found, floats)


def everything(rng):
    qp, out_qp = random_qparams(rng, U8), random_qparams(rng, S8)
    q = in_layout(random_codes(rng, (3, 48, 40, 41), np.uint8), "channels-last")
    rows = q.reshape(-1, 120)
    ones = np.ones(120, np.float32)
    return (
        integer.add(q, qp, q, qp, out_qp),
        integer.lookup(q, integer.unary_table(np.tanh, qp, out_qp)),
        integer.max_pool2d(q, 3, 2, 1),
        integer.avg_pool2d(q, qp, out_qp, 3, 1, 1),
        integer.adaptive_avg_pool2d(q, qp, out_qp, 1),
        integer.resize_nearest(q, (77, 80)),
        integer.softmax(rows, qp, nq.QParams(1 / 256, 0, U8)),
        integer.layer_norm(rows, qp, out_qp, ones, ones),
        integer.matmul(rows[:500], qp, rows[:200].T, qp, out_qp),
    )


def test_threads_do_not_change_bits(backend, threads):
    wanted = None
    for count in (1, 2, 4):
        threads(count)
        found = everything(np.random.default_rng(1))
        wanted = wanted or found
        for a, b in zip(found, wanted, strict=True):
            assert_same_bits(a, b)


# ---- What is refused ----

QP = nq.QParams(0.5, 3, U8)
Q = np.zeros((1, 2, 4, 4), np.uint8)
PER_CHANNEL = nq.QParams(np.full(2, 0.5), 0, nq.QuantSpec(axis=1, signed=False, symmetric=False))
WINDOWS, ROW = np.int32([[0], [4], [4]]), integer.exp_table(QP)


@pytest.mark.parametrize(
    "function, arguments, error, words",
    [
        (integer.add, (Q.view(np.int8), QP, Q, QP, QP), TypeError, "a: expected codes of its QParams, uint8, got"),
        (integer.add, (Q, QP, Q[0], QP, QP), ValueError, r"b: shape must be \(1, 2, 4, 4\), got \(2, 4, 4\)"),
        (integer.add, (Q, PER_CHANNEL, Q, QP, QP), ValueError, "a_qparams: must be per tensor"),
        (integer.add, (Q, QP, Q, QP, QP, "gelu"), ValueError, "activation: must be None, 'relu' or 'relu6'"),
        (
            integer.multiply,
            (Q, QP, Q, QP, nq.QParams(0.5, 3, U8, profile="textbook")),
            ValueError,
            "out_qparams: there is no integer form for the rounding of its profile",
        ),
        (integer.add, (Q, QP, Q, QP, QP, None, np.zeros((1, 2, 4, 4))), ValueError, "out: dtype must be uint8"),
        (integer.lookup, (Q, np.zeros(255, np.uint8)), ValueError, r"table: shape must be \(256,\), got \(255,\)"),
        (integer.lookup, (Q.astype(int), np.zeros(256, np.uint8)), TypeError, "q: expected int8 or uint8"),
        (integer.max_pool2d, (Q[0], 2), ValueError, "q: expected 4 dimensions, got 3"),
        (integer.resize_nearest, (Q[0], 2), ValueError, "q: expected 4 dimensions, got 3"),
        (integer.max_pool2d, (Q, 5), ValueError, "kernel_size: a window of 5 does not fit into 4 with padding 0"),
        (integer.max_pool2d, (Q, 2, 0), ValueError, "kernel_size: a window"),
        (integer.avg_pool2d, (Q, QP, PER_CHANNEL, 2), ValueError, "out_qparams: must be per tensor"),
        (integer.resize_nearest, (Q[:, :, :0], (1, 1)), ValueError, "rows: must be 0 or more and less than 0, got 0"),
        (_core.pool_codes, (Q, WINDOWS, WINDOWS + 1, (1, 1), None, None, None), ValueError, "columns: window 0 from 1"),
        (_core.pool_codes, (Q, WINDOWS, WINDOWS[:2], (1, 1), None, None, None), ValueError, "columns: shape must be"),
        (_core.pool_codes, (Q, WINDOWS, WINDOWS, (0, 1), None, None, None), ValueError, "step: must be at least 1"),
        (integer.softmax, (np.uint8(3), QP, QP), ValueError, "q: expected rows, got a single code"),
        (integer.softmax, (Q, QP, QP, np.zeros(3, int)), ValueError, r"exponential: shape must be \(256,\)"),
        (integer.softmax, (Q, QP, QP, None, np.zeros((3, 4), bool)), ValueError, "broadcast"),
        (_core.softmax_codes, (Q, ROW, QP, np.zeros((3, 4), np.uint8), None), ValueError, "mask: expected rows of 4"),
        (_core.softmax_codes, (Q, ROW, QP, np.zeros((2, 3), np.uint8), None), ValueError, "mask: expected rows of 4"),
        (_core.softmax_codes, (Q, ROW, QP, np.zeros((0, 4), np.uint8), None), ValueError, "mask: expected rows of 4"),
        (_core.softmax_codes, (Q, ROW, QP, np.zeros((2, 4)), None), TypeError, "mask: expected int8 or uint8"),
        (integer.matmul, (Q[0, 0, 0], QP, Q, QP), ValueError, "matmul: expected 2 axes or more"),
        (integer.matmul, (Q, QP, Q[..., :3, :], QP), ValueError, "b: shape must be"),
        (integer.matmul, (Q, PER_CHANNEL, Q, QP), ValueError, "must be per tensor"),
        (integer.matmul, (Q, QP, Q, PER_CHANNEL), ValueError, "b_qparams: must be per tensor"),
        (integer.matmul, (Q.view(np.int8), QP, Q, QP), TypeError, "a: expected codes of its QParams, uint8"),
        (integer.matmul, (Q, QP, Q, QP, QP, "2"), TypeError, "factor"),
        (integer.matmul, (Q, QP, Q, QP, QP, 1, np.zeros(3, np.uint8)), ValueError, "out: "),
        (integer.layer_norm, (Q, QP, QP, np.ones(3), np.ones(4)), ValueError, r"gain: shape must be \(4,\)"),
        (integer.layer_norm, (Q, QP, QP, np.ones(4), np.ones(4, int)), TypeError, "offset: expected floating-point"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input(function, arguments, error, words):
    with pytest.raises(error, match=words):
        function(*arguments)


def test_windows_whose_sums_could_pass_int32():
    image = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (1, 1, 2**20, 2**20), (0,) * 4)
    with pytest.raises(nq.QuantizationError, match="windows of 1048576 x 1048576 pixels could pass the range of int32"):
        integer.adaptive_avg_pool2d(image, QP, QP, 1)


def test_out_must_not_overlap():
    memory = np.zeros(300, np.uint8)
    with pytest.raises(ValueError, match="out overlaps a"):
        integer.add(memory[1:201], QP, memory[:200], QP, QP, out=memory[:200])
    with pytest.raises(ValueError, match="out overlaps q"):
        integer.max_pool2d(Q, 1, out=Q)
