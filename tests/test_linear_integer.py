"""Integer layers: packed weights and `linear_integer` on every backend against their twins."""

from __future__ import annotations

import gc
import pickle
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ndquant as nq
from ndquant import _core, reference

from .cases import GEMM_SHAPES, GEMM_SHAPES_IN_HALVES, PACKED_SHAPES, ZERO_POINTS, assert_same_bits
from .examples import examples
from .test_gemm import LAYOUTS, in_strides, random_codes

U8 = nq.QuantSpec(signed=False, symmetric=False)
S8 = nq.QuantSpec()
BITS = (8, 4)
REQUANTIZE = {"default": "dequantize", "torch": "fbgemm", "onnx": "onnx"}


class Layer:
    """Random operands of one layer, and what its twins say of them."""

    def __init__(self, rng, shape, x_signed, w_signed, profile="default", bits=8, per_channel=True, bias=True):
        rows, outputs, inputs = shape
        self.x_qp = random_qparams(rng, nq.QuantSpec(bits, x_signed, symmetric=False), None)
        w_spec = nq.QuantSpec(bits, w_signed, symmetric=False, axis=0 if per_channel else None)
        self.w_qp = weight_qparams(rng, w_spec, outputs if per_channel else None, profile)
        self.x, self.w = codes_of(rng, (rows, inputs), self.x_qp), codes_of(rng, (outputs, inputs), self.w_qp)
        self.bias = None
        if bias:
            floats = profile == "torch"
            self.bias = np.float32(rng.normal(size=outputs)) if floats else rng.integers(-5000, 5000, outputs, np.int32)
        self.scales = (np.float32(self.x_qp.scale), np.asarray(self.w_qp.scale, np.float32))

    def packed(self, layout="c"):
        return nq.PackedWeight(in_strides(self.w, layout), self.w_qp, self.bias)

    def sums(self):
        integer_bias = self.bias if self.bias is not None and self.bias.dtype == np.int32 else None
        return reference.gemm_s32(self.x, self.w, self.x_qp.zero_point, self.w_qp.zero_point, integer_bias)

    def float_bias(self):
        return self.bias if self.bias is not None and self.bias.dtype == np.float32 else None

    def floats(self, activation=None):
        return reference.linear_f32(self.sums(), *self.scales, self.float_bias(), activation)

    def codes(self, out_qp, activation=None):
        spec = out_qp.spec
        return reference.linear_codes(
            self.sums(), *self.scales, out_qp.scale, int(out_qp.zero_point), spec.qmin, spec.qmax, self.float_bias(),
            activation, REQUANTIZE[out_qp.profile],
        )

    def out_qparams(self, rng, spec, profile):
        """A range that the outputs fill, so that few codes are clamped."""
        y = self.floats()
        span = float(np.ptp(y)) if y.size else 1.0
        scale = np.float32(max(span, 1e-3) / (spec.qmax - spec.qmin))
        zero = int(rng.integers(spec.qmin, spec.qmax, endpoint=True))
        return nq.QParams(scale, zero, spec, profile=profile)


def random_qparams(rng, spec, channels, profile="default"):
    scale = rng.uniform(0.001, 0.01, channels)
    zero = rng.integers(spec.qmin, spec.qmax, channels, np.int32, endpoint=True)
    return nq.QParams(np.float32(scale), zero, spec, profile=profile)


def weight_qparams(rng, spec, channels, profile="default"):
    """The same for weights, with zero points that often are all where kernels want them, and nothing is to correct."""
    qparams = random_qparams(rng, spec, channels, profile)
    if rng.integers(2):
        middle = 0 if spec.signed else min(128, spec.qmax)
        qparams = nq.QParams(qparams.scale, np.full_like(qparams.zero_point, middle), spec, profile=profile)
    return qparams


def codes_of(rng, shape, qparams):
    spec = qparams.spec
    if spec.bits == 8:
        return random_codes(rng, shape, spec.dtype)
    return rng.integers(spec.qmin, spec.qmax, shape, spec.dtype, endpoint=True)


@pytest.mark.parametrize("shape", GEMM_SHAPES, ids=str)
@pytest.mark.parametrize("profile", REQUANTIZE)
def test_outputs_match_their_twins(backend, rng, shape, profile):
    for number in range(8):
        x_signed, w_signed, out_signed = (bool(number >> bit & 1) for bit in range(3))
        layer = Layer(rng, shape, x_signed, w_signed, profile, BITS[number % 2], number != 3, number != 4)
        packed = layer.packed(LAYOUTS[number % len(LAYOUTS)])
        out_qp = layer.out_qparams(rng, S8 if out_signed else U8, profile)
        for activation in (None, "relu", "relu6"):
            found = nq.linear_integer(layer.x, layer.x_qp, packed, activation=activation)
            assert_same_bits(found, layer.floats(activation))
            found = nq.linear_integer(layer.x, layer.x_qp, packed, out_qp, activation)
            assert_same_bits(found, layer.codes(out_qp, activation))


@pytest.mark.parametrize("shape", GEMM_SHAPES_IN_HALVES, ids=str)
@pytest.mark.parametrize("profile", REQUANTIZE)
def test_outputs_of_halves_match_their_twins(backend, rng, threads, shape, profile):
    threads(1)
    for number in range(2):
        layer = Layer(rng, shape, number == 0, number == 1, profile, bias=number == 0)
        packed, out_qp = layer.packed(), layer.out_qparams(rng, S8 if number else U8, profile)
        assert_same_bits(nq.linear_integer(layer.x, layer.x_qp, packed, activation="relu"), layer.floats("relu"))
        assert_same_bits(nq.linear_integer(layer.x, layer.x_qp, packed, out_qp), layer.codes(out_qp))


@pytest.mark.parametrize("backend_name", _core.available_backends())
@given(data=st.data())
@settings(max_examples=examples(60))
def test_any_layer(backend_name, data):
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = tuple(draw(st.integers(0, most)) for most in (30, 50, 90))
    signs = draw(st.tuples(st.booleans(), st.booleans()))
    profiles = draw(st.tuples(*[st.sampled_from(tuple(REQUANTIZE))] * 2))
    layer = Layer(rng, shape, *signs, profiles[0], draw(st.integers(2, 8)), draw(st.booleans()), draw(st.booleans()))
    spec = nq.QuantSpec(draw(st.integers(2, 8)), draw(st.booleans()), symmetric=False)
    out_qp = layer.out_qparams(rng, spec, profiles[1])
    activation = draw(st.sampled_from((None, "relu", "relu6")))
    with nq.backend(backend_name):
        packed = layer.packed(draw(st.sampled_from(LAYOUTS)))
        found = nq.linear_integer(layer.x, layer.x_qp, packed, out_qp, activation)
    assert_same_bits(found, layer.codes(out_qp, activation))


@pytest.mark.parametrize("zero_point", ZERO_POINTS)
def test_requantization_ties(backend, zero_point):
    """Sums halfway between two codes, and the scales one ulp up and down, go where the definition says."""
    steps = np.arange(-600, 600, dtype=np.int32)
    x_qp = nq.QParams(np.float32(1), 0, S8)
    half = np.float32(0.5)
    for scale in (half, np.nextafter(half, np.float32(0)), np.nextafter(half, np.float32(1))):
        packed = nq.PackedWeight(np.zeros((steps.size, 1), np.int8), nq.QParams(scale, 0, S8), steps)
        for profile, requantize in REQUANTIZE.items():
            out_qp = nq.QParams(np.float32(1), zero_point, U8, profile=profile)
            found = nq.linear_integer(np.zeros((1, 1), np.int8), x_qp, packed, out_qp)
            wanted = reference.linear_codes(steps[None], 1, scale, 1, zero_point, 0, 255, requantize=requantize)
            assert_same_bits(found, wanted)
            if scale == half:
                zero_first = np.rint(zero_point + steps / 2)  # 0.5 + 17 goes to 18, but 17 + rint(0.5) is 17
                codes = zero_first if profile == "onnx" else zero_point + np.rint(steps / 2)
                assert_same_bits(found, np.clip(codes, 0, 255).astype(np.uint8)[None])


def test_large_sums_round_to_float32_first(backend):
    """Sums above 2^24 are rounded when they become float32, and outputs far outside the codes are clamped."""
    bias = np.int32([2**31 - 1, -(2**31) + 1, 2**24 + 1, -(2**24) - 1, 2**30 + 65, 0])
    x_qp, w_qp = nq.QParams(np.float32(3e-5), 0, S8), nq.QParams(np.float32(0.7), 0, S8)
    packed = nq.PackedWeight(np.zeros((6, 2), np.int8), w_qp, bias)
    x = np.zeros((1, 2), np.int8)
    assert_same_bits(nq.linear_integer(x, x_qp, packed), reference.linear_f32(bias[None], 3e-5, 0.7))
    for spec in (S8, U8):
        out_qp = nq.QParams(np.float32(1e-30), 3, spec)
        wanted = reference.linear_codes(bias[None], 3e-5, 0.7, 1e-30, 3, spec.qmin, spec.qmax)
        assert_same_bits(nq.linear_integer(x, x_qp, packed, out_qp), wanted)


@pytest.mark.parametrize("largest", [0, 20, 39])
def test_one_channel_far_outside_the_codes_is_clamped(backend, largest):
    scale = np.full(40, 1e-6, np.float32)
    scale[largest] = 1e30
    sums = np.arange(-20, 20, dtype=np.int32)
    packed = nq.PackedWeight(np.zeros((40, 8), np.int8), nq.QParams(scale, 0, nq.QuantSpec(axis=0)), sums)
    for rows in (1, 7):
        x_qp, out_qp = (nq.QParams(np.float32(1), zero_point, spec) for zero_point, spec in ((0, S8), (3, U8)))
        wanted = reference.linear_codes(np.tile(sums, (rows, 1)), 1, scale, 1, 3, 0, 255)
        assert_same_bits(nq.linear_integer(np.zeros((rows, 8), np.int8), x_qp, packed, out_qp), wanted)


def test_zero_is_never_negative(backend):
    packed = nq.PackedWeight(np.int8([[0], [-1]]), nq.QParams(2.0**-126, 0, S8))
    y = nq.linear_integer(np.int8([[1]]), nq.QParams(2.0**-126, 0, S8), packed)
    assert not np.signbit(y).any()


def test_leading_axes_and_row_strides(backend, rng):
    layer = Layer(rng, (24, 10, 33), False, True)
    packed = layer.packed()
    wanted = layer.floats()
    cube = layer.x.reshape(2, 3, 4, 33)
    assert_same_bits(nq.linear_integer(cube, layer.x_qp, packed), wanted.reshape(2, 3, 4, 10))
    assert_same_bits(nq.linear_integer(cube[1, 2, 3], layer.x_qp, packed), wanted[23])
    for layout in LAYOUTS:
        assert_same_bits(nq.linear_integer(in_strides(layer.x, layout), layer.x_qp, packed), wanted)


def test_weight_keeps_the_kernel_it_was_packed_for(backend, rng):
    layer = Layer(rng, (9, 40, 50), False, True)
    out_qp = layer.out_qparams(rng, U8, "default")
    for other in _core.available_backends():
        with nq.backend(other):
            packed = layer.packed()
        assert packed._packed.kernel in _core.all_backends()
        assert_same_bits(nq.linear_integer(layer.x, layer.x_qp, packed, out_qp), layer.codes(out_qp))


@pytest.mark.parametrize("shape", [(300, 120, 400), (388, 128, 520), (5, 1100, 1000), (1, 1500, 2100)], ids=str)
def test_threads_do_not_change_bits(backend, rng, threads, shape):
    layer = Layer(rng, shape, True, False)
    out_qp = layer.out_qparams(rng, U8, "default")
    packed, wanted, floats = layer.packed(), layer.codes(out_qp), layer.floats()
    for count in (1, 2, 4):
        threads(count)
        assert_same_bits(nq.linear_integer(layer.x, layer.x_qp, packed, out_qp), wanted)
        assert_same_bits(nq.linear_integer(layer.x, layer.x_qp, packed), floats)


def test_out_is_filled_and_returned(backend, rng):
    layer = Layer(rng, (5, 7, 20), False, True)
    out_qp = layer.out_qparams(rng, U8, "default")
    for qparams, dtype, wanted in ((out_qp, np.uint8, layer.codes(out_qp)), (None, np.float32, layer.floats())):
        room = np.full((7, 7), 77, dtype)
        found = nq.linear_integer(layer.x, layer.x_qp, layer.packed(), qparams, out=room[1:6])
        assert found.base is room
        assert_same_bits(found, wanted)
        assert (room[[0, 6]] == 77).all()


# ---- What is refused ----

X_QP, W_QP = nq.QParams(0.5, 3, U8), nq.QParams(0.25, 0, S8)
OFFSET = nq.QParams(0.5, -0.3, nq.QuantSpec(8, signed=False, zero_aligned=False))
GROUPED = nq.QParams(np.full((2, 6), 0.5), 0, nq.QuantSpec(8, axis=0, group_size=2))
TORCH_QP = nq.QParams(0.25, 0, S8, profile="torch")
PER_CHANNEL = nq.QParams(np.full(4, 0.25), 0, nq.QuantSpec(axis=0))
W = np.zeros((4, 6), np.int8)
X = np.zeros((2, 6), np.uint8)
PACKED = nq.PackedWeight(W, W_QP)


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ((X.astype(np.int8), X_QP, PACKED), TypeError, "xq: expected codes of its QParams, uint8, got dtype int8"),
        ((X.astype(np.float32), X_QP, PACKED), TypeError, "xq: expected codes"),
        ((X.astype(np.int64), X_QP, PACKED), TypeError, "xq: expected codes"),
        ((X[:, :5], X_QP, PACKED), ValueError, r"xq: its last axis must have the 6 inputs .* got shape \(2, 5\)"),
        ((X[0, 0], X_QP, PACKED), ValueError, "xq: its last axis"),
        ((X, PER_CHANNEL, PACKED), ValueError, "x_qparams: must be per tensor"),
        ((X, X_QP, PACKED, PER_CHANNEL), ValueError, "out_qparams: must be per tensor"),
        ((X, 0.5, PACKED), TypeError, "x_qparams: expected a QParams, got float"),
        ((X, X_QP, W), TypeError, "weight: expected a PackedWeight, got ndarray"),
        ((X, X_QP, PACKED, U8), TypeError, "out_qparams: expected a QParams, got QuantSpec"),
        ((X, X_QP, PACKED, None, "gelu"), ValueError, "activation: must be None, 'relu' or 'relu6', got 'gelu'"),
        ((X, X_QP, PACKED, X_QP, None, np.zeros((2, 4), np.int8)), ValueError, "out: dtype must be uint8, got int8"),
        ((X, X_QP, PACKED, None, None, np.zeros((2, 4))), ValueError, "out: dtype must be float32"),
        ((X, X_QP, PACKED, X_QP, None, np.zeros((4, 2), np.uint8)), ValueError, r"out: shape must be \(2, 4\)"),
        ((X, X_QP, PACKED, X_QP, None, np.zeros((2, 8), np.uint8)[:, ::2]), ValueError, "out: must be C-contiguous"),
        ((X, nq.QParams(0.5, -7, U8, profile="textbook"), PACKED), ValueError, "x_qparams: zero point -7 .* uint8"),
        ((X, X_QP, PACKED, nq.QParams(0.5, 300, U8, profile="textbook")), ValueError, "out_qparams: zero point 300"),
        ((X, nq.QParams(0.5, 3, nq.QuantSpec(9)), PACKED), ValueError, "x_qparams: has codes of more than 8 bits"),
        ((X, nq.QParams(0.5, 3, nq.QuantSpec(32)), PACKED), ValueError, "x_qparams: has codes of more than 8 bits"),
        ((X, OFFSET, PACKED), ValueError, r"x_qparams: has a float offset \(zero_aligned=False\), so there is no"),
        ((X, X_QP, PACKED, OFFSET), ValueError, "out_qparams: has a float offset"),
        ((X, GROUPED, PACKED), ValueError, "x_qparams: must be per tensor"),
        ((X, nq.QParams(1e300, 3, U8), PACKED), ValueError, "x_qparams: a scale is outside the range of float32"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input(arguments, error, words):
    with pytest.raises(error, match=words):
        nq.linear_integer(*arguments)


def test_out_must_not_overlap_the_input():
    memory = np.zeros((4, 6), np.uint8)
    packed = nq.PackedWeight(np.zeros((6, 6), np.int8), W_QP)
    with pytest.raises(ValueError, match="out overlaps xq"):
        nq.linear_integer(memory, X_QP, packed, X_QP, out=memory)


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ((W.astype(np.uint8), W_QP), TypeError, "w: expected codes of its QParams, int8, got dtype uint8"),
        ((W.astype(np.float32), W_QP), TypeError, "w: expected codes"),
        ((W[0], W_QP), ValueError, "w: expected 2 dimensions, got 1"),
        ((W[:3], PER_CHANNEL), ValueError, "w: axis 0 must have 4 elements"),
        ((W, nq.QParams(np.ones(6), 0, nq.QuantSpec(axis=1))), ValueError, "w_qparams: axis must be None or 0"),
        ((W, 0.25), TypeError, "w_qparams: expected a QParams, got float"),
        ((W.astype(np.int16), nq.QParams(0.5, 0, nq.QuantSpec(12))), ValueError, "w_qparams: has codes of more than 8"),
        ((W, nq.QParams(0.5, 0.1, nq.QuantSpec(8, zero_aligned=False))), ValueError, "w_qparams: has a float offset"),
        ((W, GROUPED), ValueError, "w_qparams: has a scale per group"),
        ((W, W_QP, np.zeros(3, np.int32)), ValueError, r"bias: shape must be \(4,\), got \(3,\)"),
        ((W, W_QP, np.zeros(4)), TypeError, "bias: profile 'default' adds integers"),
        ((W, TORCH_QP, np.zeros(4, np.int32)), TypeError, "bias: profile 'torch' adds floats"),
        ((W, W_QP, np.int64([0, 2**31, 0, 0])), ValueError, "bias: must be within the range of int32, got 2147483648"),
        ((W, nq.QParams(0.25, 128, S8, profile="textbook")), ValueError, "w_qparams: zero point 128 .* int8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_weight(arguments, error, words):
    with pytest.raises(error, match=words):
        nq.PackedWeight(*arguments)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("signed", (False, True))
def test_overflow_is_refused_from_the_first_step(backend, rng, layout, signed):
    """The sizes of weights less their zero points are added exactly: one more in the bias is one too many."""
    for outputs, inputs in PACKED_SHAPES[::3]:
        qp = random_qparams(rng, nq.QuantSpec(signed=signed, symmetric=False, axis=0), outputs)
        w = random_codes(rng, (outputs, inputs), qp.spec.dtype)
        size = np.abs(w.astype(np.int64) - qp.zero_point[:, None]).sum(axis=1)
        largest = 2**31 - 1 - 128 * size  # activations with zero point 0 reach -128
        nq.PackedWeight(in_strides(w, layout), qp, largest)
        largest[outputs // 2] += 1
        with pytest.raises(nq.QuantizationError, match=f"w: channel {outputs // 2} could pass"):
            nq.PackedWeight(in_strides(w, layout), qp, largest)


def test_overflow_is_refused_by_channel(backend):
    """Where no zero point could make a sum fit, the weight is refused; else the call whose zero point is too far."""
    bias = np.int32([0, 0, 2**31 - 1, 0])
    assert nq.PackedWeight(W, W_QP, bias).shape == (4, 6)
    w = W.copy()
    w[2, 5] = -1
    with pytest.raises(nq.QuantizationError, match="w: channel 2 could pass the range of int32"):
        nq.PackedWeight(w, W_QP, bias)
    bias[2] -= 128
    packed = nq.PackedWeight(w, W_QP, bias)
    centred = nq.QParams(0.5, 128, U8)
    y = nq.linear_integer(np.full((1, 6), 0, np.uint8), centred, packed)
    assert y[0, 2] == np.float32(2**31 - 1) * np.float32(0.125)
    with pytest.raises(nq.QuantizationError, match="w: channel 2 .* inputs with zero point 0 reach 255"):
        nq.linear_integer(X, nq.QParams(0.5, 0, U8), packed)


def test_packed_weight_is_immutable_and_shows_itself():
    bias = np.arange(4, dtype=np.int64)
    packed = nq.PackedWeight(W, PER_CHANNEL, bias)
    bias[0] = 9
    assert (packed.shape, packed.w_qparams, packed.bias.tolist()) == ((4, 6), PER_CHANNEL, [0, 1, 2, 3])
    assert repr(packed) == "PackedWeight(4 x 6, QParams(int8, axis=0, 4 channels, scale 0.25..0.25), bias)"
    with pytest.raises(AttributeError, match="no setter|can't set"):
        packed.bias = None
    with pytest.raises(ValueError, match="read-only"):
        packed.bias[0] = 1
    with pytest.raises(TypeError, match="pack them again"):
        pickle.dumps(packed)
    with pytest.raises(TypeError):
        _core.PackedMatrix()


def _failing_calls():
    matmul = nq.matmul_integer
    b, long = np.zeros((6, 3), np.int8), np.zeros((2, 40000), np.uint8)
    yield lambda: nq.PackedWeight(W, W_QP, np.int64([0, 2**31, 0, 0]))
    yield lambda: nq.PackedWeight(W[:3], PER_CHANNEL, np.zeros(3, np.int32))
    yield lambda: nq.PackedWeight(W + np.int8(1), W_QP, np.full(4, 2**31 - 1))
    yield lambda: nq.PackedWeight(np.ones((4, 1, 3, 3), np.int8), W_QP, np.full(4, 2**31 - 1))
    yield lambda: nq.linear_integer(X[:, :5], X_QP, PACKED)
    yield lambda: nq.linear_integer(X, X_QP, PACKED, PER_CHANNEL)
    yield lambda: nq.linear_integer(X, X_QP, PACKED, X_QP, None, np.zeros((4, 2), np.uint8))
    yield lambda: matmul(X, b[:5])
    yield lambda: matmul(X, b, 300)
    yield lambda: matmul(X, b, 0, np.full(3, 300))
    yield lambda: matmul(long, np.full((40000, 3), -128, np.int8), b_zero_point=127)


@pytest.mark.parametrize("call", [*_failing_calls(), lambda: nq.linear_integer(X, X_QP, nq.PackedWeight(W, W_QP))],
                         ids=lambda call: "")
def test_nothing_is_leaked(call):
    def run():
        try:
            call()
        except (ValueError, TypeError):
            pass

    inputs = (X, W, X_QP, W_QP, PER_CHANNEL, PACKED)
    for _ in range(50):
        run()
    gc.collect()
    before, counts = sys.getallocatedblocks(), [sys.getrefcount(value) for value in inputs]
    for _ in range(300):
        run()
    gc.collect()
    assert [sys.getrefcount(value) for value in inputs] == counts
    assert sys.getallocatedblocks() - before < 150
