"""Convolutions of floats and their gradients: within the error of a chain of float32, and the same bits everywhere."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ndquant as nq
from ndquant import _core, reference
from ndquant.convolution import conv2d_f32, conv2d_f32_input_grad, conv2d_f32_weight_grad

from .cases import CONV_SHAPES
from .examples import examples
from .test_conv import LAYOUTS, in_layout, is_channels_last

F32 = np.float32


class Operands:
    """Random operands of a case, and the three functions on them."""

    def __init__(self, rng, case, layout="nchw"):
        shape, outputs, self.window, *steps, self.groups = case
        self.size = shape[2:]
        self.geometry = (*steps, self.groups)
        x = rng.standard_normal(shape).astype(F32)
        self.x = in_layout(x, layout)
        self.w = rng.standard_normal((outputs, shape[1] // self.groups, *self.window)).astype(F32)
        self.b = rng.standard_normal(outputs).astype(F32)
        y = reference.conv2d_float(x, self.w, None, *self.geometry)
        self.dy = in_layout(rng.standard_normal(y.shape).astype(F32), layout)

    def results(self):
        """The output and the two gradients, by the core."""
        return (
            conv2d_f32(self.x, self.w, self.b, *self.geometry),
            conv2d_f32_input_grad(self.dy, self.w, self.size, *self.geometry),
            conv2d_f32_weight_grad(self.dy, self.x, self.window, *self.geometry),
        )

    def expected(self, change=lambda a: a):
        """The same by definition, in float64, from operands that `change` was applied to."""
        x, w, b, dy = (change(a.astype(np.float64)) for a in (self.x, self.w, self.b, self.dy))
        return (
            reference.conv2d_float(x, w, b, *self.geometry),
            reference.conv2d_float_input_grad(dy, w, self.size, *self.geometry),
            reference.conv2d_float_weight_grad(dy, x, self.window, *self.geometry),
        )

    def check(self):
        """Each result differs by no more than the roundings of its chain, of which each is half an ulp of a sum."""
        terms = self.w[:1].size, self.w.size, self.dy.size
        for found, exact, size, count in zip(
            self.results(), self.expected(), self.expected(np.abs), terms, strict=True
        ):
            assert found.dtype == F32 and found.shape == exact.shape
            assert (np.abs(found - exact) <= size * (count + 2) * 2.0**-24).all()


@pytest.mark.parametrize("case", CONV_SHAPES, ids=str)
def test_each_layout_against_the_definition(backend, rng, case):
    for layout in LAYOUTS:
        Operands(rng, case, layout).check()


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_shapes_against_the_definition(data):
    def draw(least, most):
        return data.draw(st.integers(least, most))

    groups = draw(1, 3)
    dilation, window, padding, stride = ((draw(a, b), draw(a, b)) for a, b in ((1, 3), (1, 4), (0, 4), (1, 5)))
    size = [max(1, d * (k - 1) + 1 - 2 * p) + draw(0, 6) for d, k, p in zip(dilation, window, padding, strict=True)]
    case = (draw(0, 3), groups * draw(1, 9), *size), groups * draw(1, 18), window, stride, padding, dilation, groups
    Operands(np.random.default_rng(draw(0, 99)), case, data.draw(st.sampled_from(LAYOUTS))).check()


def test_every_backend_number_of_threads_and_layout_gives_the_same_bits(rng, threads):
    for stride, groups in ((1, 1), (2, 2)):
        operands, seen = Operands(rng, ((9, 16, 12, 11), 24, (3, 3), (stride,) * 2, (1, 1), (1, 1), groups)), []
        for name in _core.available_backends():
            for count in (1, 2, 5):
                threads(count)
                with nq.backend(name):
                    seen.append(operands.results())
        operands.x, operands.dy = (in_layout(a, "channels-last") for a in (operands.x, operands.dy))
        seen.append(operands.results())
        for results in seen[1:]:
            for a, b in zip(results, seen[0], strict=True):
                np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))


def test_an_image_does_not_depend_on_the_others(rng):
    operands = Operands(rng, ((5, 7, 9, 8), 6, (3, 3), (2, 1), (1, 1), (1, 1), 1))
    whole = operands.results()
    operands.x, operands.dy = operands.x[3:4], operands.dy[3:4]
    for a, b in zip(operands.results()[:2], whole[:2], strict=True):
        np.testing.assert_array_equal(a, b[3:4])


def test_results_are_channels_last(rng):
    y, dx, dw = Operands(rng, CONV_SHAPES[1]).results()
    assert is_channels_last(y) and is_channels_last(dx)
    assert dw.flags.c_contiguous


def test_nan_and_infinity_reach_the_windows_that_see_them():
    x = np.zeros((1, 1, 5, 5), F32)
    x[0, 0, 2, 2] = np.nan
    seen = np.isnan(conv2d_f32(x, np.ones((1, 1, 3, 3)), None, 1, 1))[0, 0]
    assert seen[1:4, 1:4].all() and seen.sum() == 9


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"x": np.zeros((2, 4, 5), F32)}, ValueError, "x"),
        ({"x": np.zeros((2, 4, 5, 5), int)}, TypeError, "x"),
        ({"w": np.zeros((3, 5, 3, 3), F32)}, ValueError, r"w: axis 1 must have 4 channels.*got 5"),
        ({"w": np.zeros((3, 4, 3, 6), F32)}, ValueError, "a window of 6 columns"),
        ({"w": np.zeros((3, 4, 0, 3), F32)}, ValueError, "a window of 0 rows"),
        ({"b": np.zeros(4, F32)}, ValueError, "bias"),
        ({"b": np.zeros(3, int)}, TypeError, "bias"),
        ({"groups": 2}, ValueError, "groups: must divide the 3 outputs of w"),
        ({"groups": 0}, ValueError, "groups"),
        ({"groups": 3}, ValueError, "groups: must divide the 4 channels of x"),
        ({"groups": "1"}, TypeError, None),
        ({"stride": 0}, ValueError, "stride: must be at least 1"),
        ({"stride": (1, 1, 1)}, TypeError, "stride"),
        ({"padding": -1}, ValueError, "padding"),
        ({"dilation": 2.0}, TypeError, "dilation"),
        ({"padding": 2**31}, ValueError, "padding"),
        ({"padding": 2**31 - 1}, MemoryError, None),
    ],
)
def test_bad_arguments_are_named(change, kind, message):
    given = {"x": np.zeros((2, 4, 5, 5), F32), "w": np.zeros((3, 4, 3, 3), F32), "b": np.zeros(3, F32)}
    with pytest.raises(kind, match=message):
        conv2d_f32(**{**given, **change})


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 3, 5), (2, 3, 6, 5)])
def test_gradients_of_another_shape_are_refused(shape):
    x, w, dy = np.zeros((2, 4, 5, 5), F32), np.zeros((3, 4, 3, 3), F32), np.zeros(shape, F32)
    with pytest.raises(ValueError, match="dy"):
        conv2d_f32_input_grad(dy, w, (5, 5), 1, 1)
    with pytest.raises(ValueError, match="dy"):
        conv2d_f32_weight_grad(dy, x, (3, 3), 1, 1)


@pytest.mark.parametrize("size", [(5,), (5, -1), (2**31, 5), 5, ("a", 5)])
def test_sizes_that_no_array_has_are_refused(size):
    with pytest.raises((ValueError, TypeError)):
        _core.conv2d_f32_input_grad(np.zeros((2, 3, 5, 5), F32), np.zeros((3, 4, 3, 3), F32), size, ((1, 1),) * 3, 1)
