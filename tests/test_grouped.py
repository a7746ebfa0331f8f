"""Layers on weights of at most 4 bits with a scale for each group of inputs, against the twin, bit for bit."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ndquant as nq
from ndquant import _core, reference

from .cases import assert_same_bits

U8 = nq.QuantSpec(signed=False, symmetric=False)
S8 = nq.QuantSpec(symmetric=False)

#: (M, N, K, group size): nothing, one, sizes around tiles, panels and words, groups that are no multiple of a word.
SHAPES = (
    (0, 3, 8, 4),
    (3, 0, 8, 4),
    (2, 3, 0, 4),
    (1, 1, 1, 1),
    (1, 5, 6, 3),
    (2, 8, 32, 32),
    (3, 15, 64, 32),
    (4, 16, 96, 32),
    (5, 17, 128, 64),
    (7, 33, 130, 65),
    (9, 40, 60, 5),
    (1, 100, 784, 98),
    (13, 31, 48, 48),
    (2, 6, 2050, 1025),
    (40, 20, 1024, 32),
)


def spec_of(bits=4, signed=True, symmetric=True, group_size=32, offset=False):
    return nq.QuantSpec(bits, signed, symmetric, axis=1, group_size=group_size, zero_aligned=not offset)


SPECS = {
    "int4": {},
    "uint4 affine": {"signed": False, "symmetric": False},
    "int4 affine": {"symmetric": False},
    "int3": {"bits": 3},
    "uint2 affine": {"bits": 2, "signed": False, "symmetric": False},
    "uint1 affine": {"bits": 1, "signed": False, "symmetric": False},
    "uint4 with offsets": {"signed": False, "symmetric": False, "offset": True},
    "int4 with offsets": {"offset": True},
}


class Layer:
    """Random operands of one layer, and what the twin says of them."""

    def __init__(self, rng, shape, spec, x_spec=U8, bias=True, extremes=False):
        self.rows, outputs, inputs, group_size = shape
        groups = outputs, inputs // group_size
        scale = rng.uniform(0.01, 0.1, groups).astype(np.float32)
        if not spec.zero_aligned:
            zero_point = rng.uniform(-1, 1, groups).astype(np.float32)
        elif spec.symmetric:
            zero_point = 0
        else:
            zero_point = rng.integers(spec.qmin, spec.qmax, groups, endpoint=True)
        self.w_qp = nq.QParams(scale, zero_point, spec)
        self.codes = rng.integers(spec.qmin, spec.qmax, (outputs, inputs), endpoint=True).astype(spec.dtype)
        self.bias = rng.standard_normal(outputs).astype(np.float32) if bias else None
        zero = rng.integers(x_spec.qmin, x_spec.qmax, endpoint=True)
        self.x_qp = nq.QParams(np.float32(0.03), zero, x_spec)
        self.xq = rng.integers(x_spec.qmin, x_spec.qmax, (self.rows, inputs), endpoint=True).astype(x_spec.dtype)
        if extremes:
            self.codes = rng.choice([spec.qmin, spec.qmax], self.codes.shape).astype(spec.dtype)
            self.xq = np.full_like(self.xq, x_spec.qmin)
        self.x = rng.standard_normal((self.rows, inputs)).astype(np.float32)

    @property
    def weight(self):
        return nq.GroupedWeight(self.codes, self.w_qp, self.bias)

    def of_twin(self, function, *x):
        zero_point, offset = self.w_qp.zero_point, None
        if not self.w_qp.spec.zero_aligned:
            zero_point, offset = 0, self.w_qp.zero_point
        return function(*x, self.codes, self.w_qp.scale, zero_point, offset, self.bias)

    def check(self):
        weight = self.weight
        expected = self.of_twin(reference.linear_grouped, self.xq, self.x_qp.scale, int(self.x_qp.zero_point))
        assert_same_bits(nq.linear_grouped(self.xq, weight, self.x_qp), expected)
        assert_same_bits(nq.linear_grouped(self.x, weight), self.of_twin(reference.linear_grouped_rows, self.x))


@pytest.mark.parametrize("kind", SPECS)
def test_is_what_the_twin_gives(backend, rng, kind):
    for shape in SHAPES:
        for x_spec in (U8, S8):
            Layer(rng, shape, spec_of(**SPECS[kind], group_size=shape[3]), x_spec, bias=x_spec is U8).check()


def test_extreme_codes_do_not_saturate(backend, rng):
    for x_spec in (U8, S8):
        Layer(
            rng, (5, 35, 512, 256), spec_of(signed=False, symmetric=False, group_size=256), x_spec, extremes=True
        ).check()


@given(data=st.data())
def test_any_shape(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows, outputs, groups, group_size = (
        data.draw(st.integers(*limits)) for limits in ((0, 9), (0, 70), (0, 20), (1, 70))
    )
    kind = data.draw(st.sampled_from(sorted(SPECS)))
    with nq.backend(data.draw(st.sampled_from(_core.available_backends()))):
        Layer(
            rng, (rows, outputs, groups * group_size, group_size), spec_of(**SPECS[kind], group_size=group_size)
        ).check()


def test_one_scale_for_each_output_is_one_group(backend, rng):
    layer = Layer(rng, (3, 20, 70, 70), spec_of(group_size=70))
    qp = nq.QParams(layer.w_qp.scale[:, 0], 0, nq.QuantSpec(4, axis=0))
    assert_same_bits(
        nq.linear_grouped(layer.x, nq.GroupedWeight(layer.codes, qp, layer.bias)),
        nq.linear_grouped(layer.x, layer.weight),
    )


def test_bits_are_the_same_on_any_number_of_threads(backend, rng, threads):
    for shape in ((1, 3000, 512, 64), (130, 200, 256, 32)):
        layer, found = Layer(rng, shape, spec_of(group_size=shape[3])), set()
        for count in (1, 2, 4):
            threads(count)
            found.add(nq.linear_grouped(layer.x, layer.weight).tobytes())
        assert len(found) == 1


def test_a_row_does_not_depend_on_its_neighbours(backend, rng):
    layer = Layer(rng, (11, 40, 128, 32), spec_of())
    together = nq.linear_grouped(layer.x, layer.weight)
    for row, expected in zip(layer.x, together, strict=True):
        assert_same_bits(nq.linear_grouped(row, layer.weight), expected)


def test_is_near_the_product_of_floats(rng):
    w, x = (rng.standard_normal((n, 512)).astype(np.float32) for n in (64, 10))
    errors = []
    for spec in (nq.QuantSpec(4, axis=0), spec_of(group_size=128), spec_of(group_size=32)):
        weight = nq.GroupedWeight.of(w, spec)
        exact = x @ nq.dequantize(weight.codes, weight.qparams).T
        np.testing.assert_allclose(nq.linear_grouped(x, weight), exact, atol=0.02 * np.abs(exact).max())
        errors.append(nq.mse(nq.linear_grouped(x, weight), x @ w.T))
    assert errors[0] > errors[1] > errors[2]


def test_offsets_of_hqq(rng):
    spec = nq.QuantSpec(4, signed=False, symmetric=False, axis=1, group_size=32, zero_aligned=False)
    w, x = rng.standard_t(3, (16, 64)).astype(np.float32), rng.standard_normal((5, 64)).astype(np.float32)
    qp = nq.passes.hqq(w, spec)
    weight = nq.GroupedWeight(nq.quantize(w, qp), qp)
    exact = x @ nq.dequantize(weight.codes, qp).T
    np.testing.assert_allclose(nq.linear_grouped(x, weight), exact, atol=0.02 * np.abs(exact).max())


class TestWeight:
    def test_codes_are_packed_in_memory(self, rng):
        layer = Layer(rng, (1, 64, 4096, 128), spec_of(group_size=128))
        weight = layer.weight
        np.testing.assert_array_equal(weight.codes, layer.codes)
        assert weight.shape == (64, 4096)
        assert weight.nbytes == 64 * 4096 // 2 + 64 * 32 * 4
        assert weight.packed.nbytes < 0.57 * layer.codes.nbytes

    def test_a_change_of_backend_does_not_misread_it(self, rng):
        layer = Layer(rng, (3, 40, 64, 32), spec_of())
        with nq.backend("portable"):
            weight = layer.weight
        assert weight.packed.kernel == "portable"
        assert_same_bits(nq.linear_grouped(layer.x, weight), nq.linear_grouped(layer.x, layer.weight))

    def test_pickles(self, rng):
        layer = Layer(rng, (3, 40, 64, 32), spec_of())
        assert_same_bits(
            nq.linear_grouped(layer.x, pickle.loads(pickle.dumps(layer.weight))),
            nq.linear_grouped(layer.x, layer.weight),
        )

    def test_keeps_copies(self, rng):
        layer = Layer(rng, (3, 4, 64, 32), spec_of())
        weight, expected = layer.weight, nq.linear_grouped(layer.x, layer.weight)
        layer.codes[:], layer.bias[:] = 0, 0
        assert_same_bits(nq.linear_grouped(layer.x, weight), expected)
        with pytest.raises(ValueError, match="read-only"):
            weight.bias[0] = 1


GOOD = np.zeros((4, 64), np.int8)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda w: nq.GroupedWeight.of(np.ones((4, 70)), spec_of()), ValueError, "group_size: 32 does not divide"),
        (lambda w: nq.GroupedWeight(GOOD[:, :48], w.qparams), ValueError, "group_size: 32 does not divide the 48"),
        (lambda w: nq.GroupedWeight(GOOD, 3), TypeError, "qparams: expected a QParams, got int"),
        (lambda w: nq.GroupedWeight(GOOD, nq.QParams(1.0, 0, nq.QuantSpec())), ValueError, "at most 4 bits"),
        (lambda w: nq.GroupedWeight(GOOD, nq.QParams(1.0, 0, nq.QuantSpec(4))), ValueError, "one scale per output"),
        (lambda w: nq.GroupedWeight(GOOD[0], w.qparams), ValueError, "w: expected 2 dimensions, got 1"),
        (lambda w: nq.GroupedWeight(GOOD + np.int8(8), w.qparams), ValueError, "w: codes must be -8 to 7"),
        (
            lambda w: nq.GroupedWeight(GOOD.astype(np.uint8), w.qparams),
            TypeError,
            "w: expected .*int8, got dtype uint8",
        ),
        (lambda w: nq.GroupedWeight(GOOD, w.qparams, np.ones(3)), ValueError, "bias: shape"),
        (lambda w: nq.GroupedWeight(GOOD, w.qparams, np.arange(4)), TypeError, "bias: expected floating-point"),
        (lambda w: nq.linear_grouped(np.ones((2, 63)), w), ValueError, "x: its last axis must have the 64 inputs"),
        (lambda w: nq.linear_grouped(np.float32(1), w), ValueError, "x: its last axis"),
        (lambda w: nq.linear_grouped(GOOD, w), TypeError, "x: expected floating-point data"),
        (lambda w: nq.linear_grouped(np.full((3, 64), np.nan), w), ValueError, "x: row 0 holds NaN or infinity"),
        (lambda w: nq.linear_grouped(np.ones((3, 64)), GOOD), TypeError, "weight: expected a GroupedWeight"),
        (lambda w: nq.linear_grouped(GOOD, w, nq.QParams([1.0], 0, nq.QuantSpec(axis=0))), ValueError, "per tensor"),
        (lambda w: nq.linear_grouped(np.ones((3, 64)), w, out=np.ones((3, 3), np.float32)), ValueError, "out: shape"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call(nq.GroupedWeight.of(np.ones((4, 64), np.float32), spec_of()))
