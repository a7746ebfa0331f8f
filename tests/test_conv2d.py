"""nq.conv2d and its gradients as functions on bare arrays, and Conv2d in networks."""

import numpy as np
import pytest

import ndquant as nq
from ndquant import nn, reference

from .cases import CONV_SHAPES

F32 = np.float32
U8 = nq.QuantSpec(8, signed=False, symmetric=False)
SHAPES = [case for case in CONV_SHAPES if case[0][0] and case[0][1] and case[1]]


class Operands:
    """Random operands of a case, with the steps and groups as keywords."""

    def __init__(self, rng, case, dtype=F32):
        shape, outputs, window, *steps = case
        self.steps = dict(zip(("stride", "padding", "dilation", "groups"), steps, strict=True))
        self.x = rng.standard_normal(shape).astype(dtype)
        self.w = rng.standard_normal((outputs, shape[1] // self.steps["groups"], *window)).astype(dtype)
        self.b = rng.standard_normal(outputs).astype(dtype)


def reals(qparams, a):
    """What codes stand for, in float64."""
    return nq.fake_quantize(a, qparams).astype(np.float64)


@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_on_integers_it_is_the_convolution_of_the_codes(rng, case):
    o = Operands(rng, case)
    x_qp, w_qp = nq.choose_qparams(o.x, U8), nq.choose_qparams(o.w, nq.QuantSpec(8, axis=0))
    y, saved = nq.conv2d(o.x, o.w, o.b, **o.steps, x_qparams=x_qp, w_qparams=w_qp)
    scale = np.float64(x_qp.scale) * saved.w_codes.qparams.scale.astype(np.float64)
    bias = np.rint(o.b / scale) * scale
    exact = reference.conv2d_float(reals(x_qp, o.x), reals(saved.w_codes.qparams, o.w), bias, *o.steps.values())
    np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-5)
    dy = rng.standard_normal(y.shape).astype(F32)
    dx, dw, db = nq.conv2d_backward(dy, saved)
    steps, w_qp = tuple(o.steps.values()), saved.w_codes.qparams
    inside = nq.fake_quantize_backward(np.ones_like(o.x), o.x, x_qp)
    expected = reference.conv2d_float_input_grad(dy, reals(w_qp, o.w), o.x.shape[2:], *steps)
    np.testing.assert_allclose(dx, expected * inside, rtol=1e-4, atol=1e-4)
    expected = reference.conv2d_float_weight_grad(dy, reals(x_qp, o.x), o.w.shape[2:], *steps)
    np.testing.assert_allclose(dw, expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(db, dy.sum(axis=(0, 2, 3)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_dtype_of_the_operands_is_kept(rng, dtype):
    o = Operands(rng, CONV_SHAPES[1], dtype)
    y, saved = nq.conv2d(o.x, o.w, o.b, **o.steps)
    exact = reference.conv2d_float(o.x.astype(float), o.w.astype(float), o.b.astype(float), *o.steps.values())
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(y, exact, rtol=20 * eps, atol=20 * eps)
    dx, dw, db = nq.conv2d_backward(np.ones_like(y), saved)
    assert [a.dtype for a in (y, dx, dw, db)] == [dtype] * 4


def test_the_gradient_of_the_input_can_be_left_out(rng):
    o = Operands(rng, CONV_SHAPES[1])
    y, saved = nq.conv2d(o.x, o.w, **o.steps)
    dx, dw, db = nq.conv2d_backward(np.ones_like(y), saved, need_dx=False)
    assert dx is None and db is None and dw.shape == o.w.shape


X, W, B = np.zeros((2, 4, 5, 5), F32), np.zeros((6, 2, 3, 3), F32), np.zeros(6, F32)
QP = nq.QParams(1.0, 0, nq.QuantSpec(8))


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"x": X[0]}, ValueError, "x must have 4 axes"),
        ({"x": X.astype(int)}, TypeError, "x must be an ndarray of floats"),
        ({"x": X.tolist()}, TypeError, "x must be an ndarray of floats, not list"),
        ({"w": W[0]}, ValueError, "w must have 4 axes"),
        ({"b": B[:5]}, ValueError, r"the bias must have shape \(6,\), not \(5,\)"),
        ({"groups": 1}, ValueError, r"in 1 groups takes 2 channels, not 4"),
        ({"groups": 4}, ValueError, "groups must divide the 6 outputs"),
        ({"groups": 0}, ValueError, "groups must be at least 1"),
        ({"stride": 0}, ValueError, "stride must be at least 1"),
        ({"stride": (1, 2, 3)}, ValueError, "stride must be one integer or two"),
        ({"padding": "same"}, TypeError, "padding must be an integer"),
        ({"dilation": 3}, ValueError, "a window of 7 does not fit into 5 with a padding of 0"),
        ({"x_qparams": QP}, TypeError, "w_qparams is missing"),
        ({"x_qparams": QP, "w_qparams": 0.5}, TypeError, "w_qparams must be a QParams"),
        (
            {"x_qparams": QP, "w_qparams": nq.QParams(np.ones(3), 0, nq.QuantSpec(8, axis=2))},
            ValueError,
            r"w_qparams must have spec.axis in \(None, -4, 0\), not 2",
        ),
    ],
)
def test_bad_arguments_are_named(change, kind, message):
    with pytest.raises(kind, match=message):
        nq.conv2d(**{"x": X, "w": W, "b": B, "groups": 2, **change})


class TestLayer:
    def test_initial_weights_are_uniform_within_one_over_root_of_the_window(self):
        layer = nn.Conv2d(16, 64, (5, 5), groups=2, rng=0)
        for array in (layer.weight, layer.bias):
            assert np.abs(array).max() <= 1 / np.sqrt(200)
        assert np.std(layer.weight) == pytest.approx(1 / np.sqrt(600), rel=0.02)

    def test_state_has_the_names_and_shapes_of_pytorch(self):
        state = nn.Conv2d(4, 6, (3, 2), groups=2).state_dict()
        assert {name: a.shape for name, a in state.items()} == {"weight": (6, 2, 3, 2), "bias": (6,)}
        assert list(nn.Conv2d(4, 6, 3, bias=False).state_dict()) == ["weight"]

    def test_it_does_what_the_function_does(self, rng):
        layer = nn.Conv2d(4, 6, 3, 2, 1, rng=0)
        x = rng.standard_normal((3, 4, 9, 8)).astype(F32)
        y, saved = nq.conv2d(x, layer.weight, layer.bias, stride=2, padding=1)
        np.testing.assert_array_equal(layer(x), y)
        layer.backward(y)
        _, dw, db = nq.conv2d_backward(y, saved)
        np.testing.assert_array_equal(layer.parameters()[0].grad, dw)
        np.testing.assert_array_equal(layer.parameters()[1].grad, db)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((0, 4, 3), "in_channels"),
            ((4, 2.5, 3), "out_channels"),
            ((4, 4, 0), "kernel_size"),
            ((4, 4, 3, 0), "stride"),
            ((4, 4, 3, 1, -1), "padding"),
            ((4, 6, 3, 1, 0, 1, 4), "groups must divide in_channels and out_channels, 4 and 6"),
        ],
    )
    def test_bad_arguments_are_named(self, arguments, message):
        with pytest.raises((ValueError, TypeError), match=message):
            nn.Conv2d(*arguments)

    @pytest.mark.parametrize("shape", [(1, 5, 8, 8), (1, 4, 8), (1, 4, 2, 8), (1, 4, 8, 8, 1)])
    def test_an_input_that_does_not_fit_names_the_layer_and_the_line(self, shape):
        class Net(nn.Module):
            def __init__(self):
                self.first = nn.Conv2d(4, 4, 3)

            def forward(self, x):
                return self.first(x)

        with pytest.raises(ValueError, match=r"test_conv2d\.py:\d+: first: "):
            Net()(np.zeros(shape))

    def test_shared_weights_and_a_residual_stream_train(self, rng):
        class Net(nn.Module):
            def __init__(self):
                self.conv = nn.Conv2d(4, 4, 3, padding=1, rng=0)

            def forward(self, x):
                return x + self.conv(nn.relu(self.conv(x)))

        model, x = Net(), rng.standard_normal((2, 4, 6, 6)).astype(F32)
        y = model(x)
        first, saved_1 = nq.conv2d(x, model.conv.weight, model.conv.bias, padding=1)
        second, saved_2 = nq.conv2d(nn.relu(first), model.conv.weight, model.conv.bias, padding=1)
        np.testing.assert_array_equal(y, x + second)
        model.backward(y)
        dx, dw, _ = nq.conv2d_backward(y, saved_2)
        _, dw_1, _ = nq.conv2d_backward(np.where(first > 0, dx, F32(0)), saved_1)
        np.testing.assert_array_equal(model.conv._parameters["weight"].grad, dw + dw_1)

    def test_files_copies_and_quantizing_around_it(self, rng, tmp_path):
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, rng=0), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(32, 5, rng=1)
        )
        x = rng.standard_normal((20, 3, 8, 8)).astype(F32)
        y = model(x)
        model.save(tmp_path / "float.npz")
        loaded = nq.load(tmp_path / "float.npz")
        np.testing.assert_array_equal(loaded(x), y)
        assert repr(loaded) == repr(model.graph(x))
        int8 = nq.quantize_static(model, [x])
        assert nq.sqnr(y, int8(x)) > 25
        assert int8.verify(x)
        int8.save(tmp_path / "int8.npz")
        np.testing.assert_array_equal(nq.load(tmp_path / "int8.npz")(x), int8(x))

    def test_a_file_whose_weight_does_not_fit_is_refused(self, tmp_path):
        model = nn.Sequential(nn.Conv2d(3, 8, 3, rng=0))
        model.save(tmp_path / "m.npz", example=np.zeros((1, 3, 8, 8)))
        for name, value in (
            ("weight", np.zeros((8, 3, 3), F32)),
            ("weight", np.zeros((8, 4, 3, 3), F32)),
            ("bias", np.zeros(7, F32)),
            ("weight", np.zeros((8, 3, 3, 3))),
        ):
            with np.load(tmp_path / "m.npz") as archive:
                arrays = {**archive, f"0/{name}": value}
            np.savez(tmp_path / "bad.npz", **arrays)
            with pytest.raises(nq.QuantizationError, match="0"):
                nq.load(tmp_path / "bad.npz")
