"""relu_backward and the steps of SGD and Adam: every backend against the NumPy twins, bit for bit."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ndquant import nn, reference
from ndquant.functional import adam_step, relu_backward, sgd_step
from ndquant.ops.record import OPS, Codes
from ndquant.qparams import QParams, QuantSpec

from . import cases
from .cases import assert_same_bits
from .examples import examples

WITH_BACKEND = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60))
DTYPES = (np.float32, np.float64)
SHAPES = [shape for shape, _ in cases.SHAPES] + [(65537,), (300, 500)]


def check_relu(dy, y):
    assert_same_bits(relu_backward(dy, y), reference.relu_backward(dy, y))


def check_sgd(w, g, velocity, lr, momentum):
    w, g = w.copy(), g.copy()
    velocity = None if velocity is None else velocity.copy()
    with np.errstate(all="ignore"):
        expected = reference.sgd_step(w, g, lr, velocity, momentum)
    sgd_step(w, g, lr, velocity, momentum)
    assert_same_numbers(w, expected[0])
    if velocity is not None:
        assert_same_numbers(velocity, expected[1])


def check_adam(w, g, m, v, step, **options):
    w, m, v = w.copy(), m.copy(), np.asarray(np.abs(v))
    with np.errstate(all="ignore"):
        expected = reference.adam_step(w, g, m, v, step, **options)
    adam_step(w, g, m, v, step, **options)
    for found, twin in zip((w, m, v), expected, strict=True):
        assert_same_numbers(found, twin)


def assert_same_numbers(found, expected):
    """The same bits; but the sign of a NaN that arithmetic gives is nobody's contract."""
    expected = np.asarray(expected)
    assert_same_bits(np.where(np.isnan(found), 0, found), np.where(np.isnan(expected), 0, expected))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))


@pytest.mark.parametrize("dtype", DTYPES)
def test_twins_agree_on_all_shapes(backend, rng, dtype):
    for shape in SHAPES:
        w, g, m, v = (cases.values(rng, shape, dtype) for _ in range(4))
        check_relu(g, w)
        check_sgd(w, g, None, 0.1, 0.0)
        check_sgd(w, g, m, 0.1, 0.9)
        check_adam(w, g, m, v, 1)
        check_adam(w, g, m, v, 1000, lr=0.3, betas=(0.0, 0.5), eps=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_training_like_magnitudes_over_several_steps(backend, rng, dtype):
    w, m, v = rng.standard_normal(5000).astype(dtype), np.zeros(5000, dtype), np.zeros(5000, dtype)
    twin = w, m, v
    for step in range(1, 20):
        g = (rng.standard_normal(5000) * 10.0 ** rng.integers(-12, 2, 5000)).astype(dtype)
        twin = reference.adam_step(*twin[:1], g, *twin[1:], step)
        if step == 1:
            w, m, v = w.copy(), m.copy(), v.copy()
        adam_step(w, g, m, v, step)
        for found, expected in zip((w, m, v), twin, strict=True):
            assert_same_bits(found, expected)


def arrays(dtype, count):
    """`count` arrays of one shape with any values of `dtype`."""
    shapes = hnp.array_shapes(max_dims=3, max_side=40)
    return shapes.flatmap(lambda shape: st.tuples(*[hnp.arrays(dtype, shape) for _ in range(count)]))


@pytest.mark.parametrize("dtype", DTYPES)
@WITH_BACKEND
@given(data=st.data(), lr=st.floats(1e-6, 10), momentum=st.floats(0, 0.99), step=st.integers(1, 10**6))
def test_twins_agree_on_any_values(backend, dtype, data, lr, momentum, step):
    w, g, m, v = data.draw(arrays(dtype, 4))
    check_relu(g, w)
    check_sgd(w, g, None, lr, 0.0)
    check_sgd(w, g, m, lr, momentum)
    check_adam(w, g, m, v, step, lr=lr, betas=(momentum, 0.999))


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_relu_backward_selects(backend, dtype):
    y = np.array([np.nan, -np.inf, -0.0, 0.0, np.finfo(dtype).smallest_subnormal, 1, np.inf], dtype)
    for value in (np.nan, -np.inf, -0.0, 3.0):
        dy = np.full_like(y, value)
        assert_same_bits(relu_backward(dy, y), np.array([0, 0, 0, 0, value, value, value], dtype))


def test_relu_backward_of_two_dtypes_keeps_that_of_dy(backend):
    """A float64 that float32 would round to 0 is positive."""
    y = np.array([1e-300, -1e-300])
    for dtype in cases.FLOATS:
        assert_same_bits(relu_backward(np.ones(2, dtype), y), np.array([1, 0], dtype))


def test_relu_backward_in_place_and_of_strided_arrays(backend, rng):
    dy, y = rng.standard_normal((2, 30, 40))
    expected = reference.relu_backward(dy, y)
    assert_same_bits(relu_backward(dy[::-1, ::2], y[::-1, ::2]), expected[::-1, ::2])
    assert_same_bits(relu_backward(dy.T, np.asfortranarray(y).T), expected.T)
    assert_same_bits(relu_backward(dy.astype(">f8"), y), expected)
    for target in (dy.copy(), y.copy(), np.empty_like(y)):
        assert relu_backward(dy, y, out=target) is target
        assert_same_bits(target, expected)
    for target in (dy, y):
        copies = dy.copy(), y.copy()
        out = copies[0 if target is dy else 1]
        assert relu_backward(*copies, out=out) is out
        assert_same_bits(out, expected)


def test_gradients_of_any_layout_and_float_type(backend, rng):
    w, g = rng.standard_normal((2, 20, 30)).astype(np.float32)
    for same in (np.asfortranarray(g), g.astype(np.float64), g.astype(">f4"), g.tolist()):
        found = w.copy()
        sgd_step(found, same, 0.1)
        assert_same_bits(found, reference.sgd_step(w, g, 0.1)[0])
        found, m, v = w.copy(), np.zeros_like(w), np.zeros_like(w)
        adam_step(found, same, m, v, 1)
        assert_same_bits(found, reference.adam_step(w, g, np.zeros_like(w), np.zeros_like(w), 1)[0])


def test_threads_change_no_bit(backend, rng, threads):
    w, g, m, v = (cases.values(rng, (200_003,), np.float32) for _ in range(4))
    for count in (1, 2, 3):
        threads(count)
        check_relu(g, w)
        check_sgd(w, g, m, 0.1, 0.9)
        check_adam(w, g, m, v, 3)


class TestBadInput:
    W = np.ones((2, 3), np.float32)

    def calls(self, name):
        """Each function with the argument `name` left open."""
        w = {key: self.W.copy() for key in ("w", "g", "m", "v", "velocity")}
        functions = {
            "sgd_step": lambda a: sgd_step(a["w"], a["g"], 0.1, a["velocity"], 0.9),
            "adam_step": lambda a: adam_step(a["w"], a["g"], a["m"], a["v"], 1),
        }
        for function, names in (("sgd_step", ("w", "g", "velocity")), ("adam_step", ("w", "g", "m", "v"))):
            if name in names:
                yield lambda x, call=functions[function]: call({**w, name: x})

    def refused(self, name, value, error, message):
        calls = list(self.calls(name))
        assert calls
        for call in calls:
            with pytest.raises(error, match=f"^{name}: {message}"):
                call(value)

    @pytest.mark.parametrize("name", ["w", "m", "v", "velocity"])
    def test_what_is_changed_must_fit(self, name):
        self.refused(name, [[1.0] * 3] * 2, TypeError, "expected an ndarray")
        self.refused(name, np.ma.masked_array(self.W), TypeError, "expected an ndarray")
        self.refused(name, np.ones((3, 2), np.float32).T, ValueError, "must be C-contiguous")
        self.refused(name, np.ones((2, 6), np.float32)[:, ::2], ValueError, "must be C-contiguous")
        self.refused(name, self.W.astype(">f4"), ValueError, "dtype must be float32")
        readonly = self.W.copy()
        readonly.flags.writeable = False
        self.refused(name, readonly, ValueError, "must be writeable")
        unaligned = np.zeros(self.W.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(2, 3)
        self.refused(name, unaligned, ValueError, "must be aligned")

    @pytest.mark.parametrize("name", ["m", "v", "velocity"])
    def test_what_is_remembered_must_be_like_w(self, name):
        self.refused(name, self.W[:1], ValueError, r"shape must be \(2, 3\), got \(1, 3\)")
        self.refused(name, self.W.astype(np.float64), ValueError, "dtype must be float32, got float64")

    @pytest.mark.parametrize("dtype", [np.float16, np.longdouble, np.int32, bool, complex, object])
    def test_parameters_are_float32_or_float64(self, dtype):
        self.refused("w", self.W.astype(dtype), TypeError, "expected float32 or float64, got dtype")

    def test_gradients(self):
        self.refused("g", self.W.astype(int), TypeError, "expected floating-point data")
        self.refused("g", np.ma.masked_array(self.W), TypeError, "masked arrays")
        self.refused("g", self.W[0], ValueError, r"shape must be \(2, 3\), got \(3,\)")
        with pytest.raises(TypeError, match="^dy: expected floating-point data"):
            relu_backward(self.W.astype(int), self.W)
        with pytest.raises(ValueError, match="^y: shape must be"):
            relu_backward(self.W, self.W[:1])
        with pytest.raises(ValueError, match="^out: dtype must be float32"):
            relu_backward(self.W, self.W, out=self.W.astype(np.float64))

    def test_overlaps(self):
        a, b, c = np.ones((3, 5), np.float32)
        both = np.ones(6, np.float32)
        for call, message in (
            (lambda: sgd_step(a, a, 0.1), "g overlaps w"),
            (lambda: sgd_step(a, b, 0.1, a), "velocity overlaps w"),
            (lambda: sgd_step(a, b, 0.1, b), "velocity overlaps g"),
            (lambda: sgd_step(both[1:], both[:-1], 0.1), "g overlaps w"),
            (lambda: adam_step(a, b, a, c, 1), "m overlaps w"),
            (lambda: adam_step(a, b, c, c, 1), "v overlaps m"),
            (lambda: adam_step(a, b, c, b, 1), "v overlaps g"),
            (lambda: relu_backward(both[1:], a, out=both[:-1]), "out overlaps dy"),
            (lambda: relu_backward(a, both[1:], out=both[:-1]), "out overlaps y"),
        ):
            with pytest.raises(ValueError, match=message):
                call()

    def test_numbers(self):
        w, g, m, v = np.ones((4, 2))
        for call, error, message in (
            (lambda: sgd_step(w, g, "a"), TypeError, "lr: expected a number, got <class 'str'>"),
            (lambda: sgd_step(w, g, 0.1, m, None), TypeError, "momentum: expected a number"),
            (lambda: adam_step(w, g, m, v, 0), ValueError, "step: counts from 1, not 0"),
            (lambda: adam_step(w, g, m, v, 1, eps=None), TypeError, "eps: expected a number"),
            (lambda: adam_step(w, g, m, v, 1, lr=10**400), OverflowError, "integer division|too large"),
        ):
            with pytest.raises(error, match=message):
                call()
        np.testing.assert_array_equal([w, g, m, v], 1)


def sgd_by_numpy(data, grad, velocity, lr, momentum):
    velocity *= np.float32(momentum)
    velocity += grad
    data -= np.multiply(velocity, np.float32(lr))


class TestInOptimizers:
    def test_a_transposed_array_becomes_contiguous(self, rng):
        layer, weight = nn.Linear(5, 4, rng=0), rng.standard_normal((5, 4)).astype(np.float32).T
        layer.weight = weight
        for parameter in (layer.parameters()[0], nn.Parameter(weight)):
            assert parameter.data.flags.c_contiguous
            parameter.grad = np.asfortranarray(np.ones_like(weight))
            nn.SGD([parameter], lr=0.5).step()
            nn.Adam([parameter]).step()
            assert (parameter.data < weight).all()

    def test_momentum_gives_the_bits_of_the_separate_operations(self, backend, rng):
        parameter = nn.Parameter(rng.standard_normal((50, 30)))
        data, velocity = parameter.data.copy(), np.zeros_like(parameter.data)
        optimizer = nn.SGD([parameter], lr=0.01, momentum=0.9)
        for _ in range(5):
            parameter.grad = rng.standard_normal((50, 30)).astype(np.float32)
            sgd_by_numpy(data, parameter.grad, velocity, 0.01, 0.9)
            optimizer.step()
            assert_same_bits(parameter.data, data)

    def test_corrections_of_adam_are_computed_in_float64(self):
        w, g, m, v = np.ones(1), np.full(1, 0.5), np.zeros(1), np.zeros(1)
        adam_step(w, g, m, v, 1, lr=0.1, betas=(0.9, 0.999), eps=1e-8)
        root = math.sqrt(v[0]) * (1 / math.sqrt(1 - 0.999)) + 1e-8
        assert w[0] == 1 - (0.1 / (1 - 0.9)) * (m[0] / root)


def test_the_relu_of_codes_passes_gradients_above_the_zero_point(backend):
    qparams = QParams(np.float32(0.5), 3, QuantSpec(8, signed=False, symmetric=False))
    codes = np.array([[0, 2, 3, 4, 255]], np.uint8)
    op = OPS["relu"]
    y, saved = op.forward(None, (Codes(codes, qparams),), None)
    np.testing.assert_array_equal(y.codes, [[3, 3, 3, 4, 255]])
    (dx,), parameters = op.backward(None, np.full((1, 5), 2, np.float32), saved, (True,))
    assert_same_bits(dx, np.array([[0, 0, 0, 2, 2]], np.float32))
    assert parameters == {}


def test_the_gradient_of_relu_survives_a_change_of_its_output():
    """``y -= target`` before backward is what somebody writes."""
    model = nn.Sequential(nn.Linear(3, 2, rng=0), nn.ReLU())
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    y = model(x)
    dy = np.ones_like(y)
    model.backward(dy)
    expected = [p.grad.copy() for p in model.parameters()]
    y = model(x)
    y -= 1
    model.backward(dy)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert_same_bits(parameter.grad, gradient)
