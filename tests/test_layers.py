"""Layers against PyTorch in float64 (golden/layers.npz, written by golden/make_golden_layers.py), and by themselves."""

from pathlib import Path

import numpy as np
import pytest

import ndquant as nq
from ndquant import nn
from ndquant.graph.graph import Run
from ndquant.graph.tracing import graph_for

from .golden.layer_cases import CASES, EXPRESSIONS, name_of
from .gradients import assert_gradients, by_ops

F32 = np.float32
GOLDEN = np.load(Path(__file__).parent / "golden" / "layers.npz")
STEPS = ("stride", "padding", "dilation", "groups")


class Case:
    """A layer with the state that PyTorch's had, and what PyTorch computed."""

    def __init__(self, number):
        self.number = number
        kind, self.arguments, _ = CASES[number]
        self.layer = getattr(nn, kind)(**self.arguments)
        self.layer.load_state_dict(self.group("state"))

    def array(self, name):
        return GOLDEN[f"{self.number}/{name}"]

    def group(self, name):
        prefix = f"{self.number}/{name}/"
        return {key.removeprefix(prefix): GOLDEN[key] for key in GOLDEN.files if key.startswith(prefix)}


@pytest.fixture(params=range(len(CASES)), ids=name_of)
def case(request):
    return Case(request.param)


def test_outputs_and_gradients_are_those_of_pytorch(case):
    x, dy = case.array("x"), case.array("dy")
    y = case.layer(x)
    assert y.dtype == F32
    np.testing.assert_allclose(y, case.array("y"), rtol=1e-5, atol=1e-6)
    graph = graph_for(case.layer, (x,))
    run = Run(graph, True, {"input": x})
    (node,) = graph.nodes
    _, saved = node.op.forward(node, [x], run)
    (dx,), gradients = node.op.backward(node, dy, saved, [True])
    np.testing.assert_allclose(dx, case.array("dx"), rtol=1e-4, atol=1e-6)
    assert gradients.keys() == case.group("grad").keys()
    for name, expected in case.group("grad").items():
        np.testing.assert_allclose(gradients[name], expected, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("number", [i for i, (kind, *_) in enumerate(CASES) if kind in ("Conv2d", "Linear")])
def test_functions_on_arrays_give_what_pytorch_gives(number):
    case = Case(number)
    steps = {name: case.arguments[name] for name in STEPS if name in case.arguments}
    forward, backward = (
        (nq.conv2d, nq.conv2d_backward) if CASES[number][0] == "Conv2d" else (nq.linear, nq.linear_backward)
    )
    state = case.group("state")
    y, saved = forward(case.array("x"), state["weight"], state.get("bias"), **steps)
    np.testing.assert_allclose(y, case.array("y"), rtol=1e-5, atol=1e-6)
    dx, dw, db = backward(case.array("dy"), saved)
    np.testing.assert_allclose(dx, case.array("dx"), rtol=1e-4, atol=1e-6)
    for name, expected in case.group("grad").items():
        np.testing.assert_allclose({"weight": dw, "bias": db}[name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expressions_in_forward_give_what_pytorch_gives(name):
    expression, shapes = EXPRESSIONS[name]

    class Net(nn.Module):
        def forward(self, *x):
            return expression(np, *x)

    xs = [GOLDEN[f"{name}/x{number}"] for number in range(len(shapes))]
    y = Net()(*xs)
    assert y.dtype == F32
    np.testing.assert_allclose(y, GOLDEN[f"{name}/y"], rtol=1e-5, atol=1e-6)
    graph = Net().graph(*xs)
    gradients = by_ops(graph, xs, GOLDEN[f"{name}/dy"])
    for number, key in enumerate(graph.inputs):
        np.testing.assert_allclose(gradients[key], GOLDEN[f"{name}/dx{number}"], rtol=1e-4, atol=1e-6)


def test_buffers_change_as_in_pytorch(case):
    after = case.group("after")
    case.layer(case.array("x"))
    found = case.layer.state_dict()
    assert {name for name in found if name not in case.layer._parameters} == after.keys()
    for name, expected in after.items():
        assert found[name].dtype == expected.dtype
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_gradients_are_those_of_finite_differences(case):
    rng = np.random.default_rng(case.number)
    shape = case.array("x").shape
    x = rng.permutation(np.arange(np.prod(shape)) / 50 - 0.5 * np.prod(shape) / 50 + 1e-3).reshape(shape)
    assert_gradients(case.layer.graph(x), x[:1] if x.ndim == 4 else x[:2])


def test_channels_last_arrays_give_the_same_numbers_channels_last(case):
    x, dy = case.array("x"), case.array("dy")
    if x.ndim != 4 or case.array("y").ndim != 4:
        pytest.skip("only images have two layouts")
    results = []
    for order in (lambda a: a, lambda a: np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)):
        graph = case.layer.graph(x)
        (node,) = graph.nodes
        y, saved = node.op.forward(node, [order(x)], Run(graph, True))
        (dx,), _ = node.op.backward(node, order(dy), saved, [True])
        results.append((y, dx))
    for planar, last in zip(*results, strict=True):
        np.testing.assert_allclose(last, planar, rtol=1e-5, atol=1e-6)
        assert last.transpose(0, 2, 3, 1).flags.c_contiguous or last.shape[2:] == (1, 1)


class TestFunctions:
    @pytest.mark.parametrize(
        ("function", "layer"),
        [
            (nn.relu, nn.ReLU(inplace=True)),
            (nn.relu6, nn.ReLU6(inplace=True)),
            (lambda x: nn.leaky_relu(x, 0.2), nn.LeakyReLU(0.2)),
            (nn.sigmoid, nn.Sigmoid()),
            (nn.tanh, nn.Tanh()),
            (nn.hardswish, nn.Hardswish()),
            (lambda x: nn.max_pool2d(x, 3, 2, 1), nn.MaxPool2d(3, 2, 1)),
            (lambda x: nn.avg_pool2d(x, (2, 3), padding=1), nn.AvgPool2d((2, 3), padding=1)),
            (lambda x: nn.adaptive_avg_pool2d(x, (2, None)), nn.AdaptiveAvgPool2d((2, None))),
            (nn.flatten, nn.Flatten()),
            (lambda x: nn.flatten(x, 2, 3), nn.Flatten(2, 3)),
        ],
    )
    def test_functions_on_arrays_and_in_forward_do_what_layers_do(self, function, layer):
        class Net(nn.Module):
            def forward(self, x):
                return function(x)

        x = np.random.default_rng(0).standard_normal((2, 3, 5, 6)).astype(F32)
        np.testing.assert_array_equal(function(x), layer(x))
        np.testing.assert_array_equal(Net()(x), layer(x))
        assert function(x.astype(np.float64)).dtype == np.float64

    def test_integers_are_refused(self):
        with pytest.raises(TypeError, match="relu6: x must be an array of floats, not int64"):
            nn.relu6(np.arange(3))

    def test_nan_wins_a_maximum_and_its_gradient_goes_there(self):
        x = np.arange(4.0).reshape(1, 1, 2, 2)
        x[0, 0, 0, 1] = np.nan
        assert np.isnan(nn.max_pool2d(x, 2)).all()

    def test_the_first_of_equal_values_takes_the_gradient(self):
        model, x = nn.Sequential(nn.MaxPool2d(2)), np.ones((1, 1, 2, 2), F32)
        (node,) = model.graph(x).nodes
        _, saved = node.op.forward(node, [x], None)
        (dx,), _ = node.op.backward(node, np.ones((1, 1, 1, 1), F32), saved, [True])
        np.testing.assert_array_equal(dx, [[[[1, 0], [0, 0]]]])

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: nn.MaxPool2d(0), "kernel_size must be at least 1"),
            (lambda: nn.MaxPool2d(2.0), "kernel_size must be an integer"),
            (lambda: nn.MaxPool2d((1, 2, 3)), "kernel_size must be one integer or two"),
            (lambda: nn.MaxPool2d(2, stride=0), "stride must be at least 1"),
            (lambda: nn.MaxPool2d(2, padding=2), "padding must be at most half of the window"),
            (lambda: nn.MaxPool2d(2, dilation=0), "dilation"),
            (lambda: nn.AvgPool2d(3, padding=(1, 2)), "padding must be at most half of the window, not 2"),
            (lambda: nn.AdaptiveAvgPool2d(0), "output_size"),
            (lambda: nn.AdaptiveAvgPool2d((1, 2, 3)), "output_size"),
            (lambda: nn.Dropout(1.5), r"p must be in \[0, 1\]"),
            (lambda: nn.Dropout("0.5"), "p must be a number"),
            (lambda: nn.MaxPool2d(5)(np.zeros((1, 1, 4, 4))), "a window of 5 does not fit into 4"),
            (lambda: nn.MaxPool2d(2)(np.zeros((1, 4, 4))), r"takes \(batch, C, H, W\)"),
            (lambda: nn.avg_pool2d(np.zeros((1, 1, 0, 4)), 1), r"takes \(batch, C, H, W\)"),
            (lambda: nn.Flatten(0)(np.zeros((1, 4))), "start_dim"),
            (lambda: nn.flatten(np.zeros((1, 4)), 2), "start_dim"),
            (lambda: nn.leaky_relu(np.zeros(3), float("nan")), "negative_slope must be finite"),
        ],
    )
    def test_bad_arguments_are_named(self, make, message):
        with pytest.raises((TypeError, ValueError), match=message):
            make()

    def test_an_empty_batch_passes(self):
        for layer in (nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Sigmoid(), nn.Dropout()):
            assert layer(np.zeros((0, 3, 4, 4))).shape[0] == 0


class TestDropout:
    def test_a_share_is_zero_and_the_mean_stays(self):
        y = nn.Dropout(0.25, rng=0)(np.ones((100, 400)))
        assert np.unique(y).tolist() == [0, F32(1 / 0.75)]
        assert np.mean(y == 0) == pytest.approx(0.25, abs=0.01)

    def test_the_gradient_passes_where_the_value_did(self):
        model, x = nn.Sequential(nn.Linear(8, 8, rng=0), nn.Dropout(0.5, rng=0)), np.ones((4, 8), F32)
        y = model(x)
        model.backward(np.ones_like(y))
        np.testing.assert_array_equal(model[0]._parameters["bias"].grad, 2 * (y != 0).sum(axis=0))

    def test_outside_training_nothing_happens(self):
        model, x = nn.Sequential(nn.Dropout(0.9), nn.ReLU()), np.ones((4, 8), F32)
        graph = model.graph(x)
        assert (graph(x) == 0).any()
        np.testing.assert_array_equal(graph.eval()(x), x)
        np.testing.assert_array_equal(model.eval()(x), x)

    @pytest.mark.parametrize(("p", "value"), [(0, 1), (1, 0)])
    def test_ends_of_the_range(self, p, value):
        np.testing.assert_array_equal(nn.Dropout(p)(np.ones((2, 3))), np.full((2, 3), value))

    def test_a_seed_repeats_and_calls_differ(self):
        a, b, x = nn.Dropout(rng=3), nn.Dropout(rng=3), np.ones((4, 50))
        first = a(x)
        np.testing.assert_array_equal(first, b(x))
        assert not np.array_equal(first, a(x))

    def test_a_part_in_evaluation_mode_stays_there(self):
        model, x = nn.Sequential(nn.Linear(4, 4, rng=0), nn.Dropout(0.9, rng=0)), np.ones((3, 4))
        assert (model(x) == 0).any()
        model[1].eval()
        assert not (model(x) == 0).any()
        model.train()
        assert (model(x) == 0).any()

    def test_it_survives_files(self, tmp_path):
        model, x = nn.Sequential(nn.Dropout(0.5, rng=0), nn.ReLU()), np.ones((10, 20))
        model(x)
        model.save(tmp_path / "m.npz")
        loaded = nq.load(tmp_path / "m.npz")
        np.testing.assert_array_equal(loaded(x), x)
        assert (loaded.train()(x) == 0).any()
