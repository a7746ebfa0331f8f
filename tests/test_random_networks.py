"""Random networks: whatever a forward computes, simulation, integers, files and NumPy twins agree."""

import numpy as np
import pytest

import ndquant as nq
from ndquant import nn

from .networks import PRESETS
from .test_shapes_of_nets import parts

AFFINE = nq.Quantize(nq.QuantSpec(8, signed=False, symmetric=False))
WEIGHT = nq.Quantize(nq.QuantSpec(8, axis=0))
CONFIGS = {name: name for name in PRESETS} | {
    "onnx": nq.QConfig(WEIGHT, AFFINE, profile="onnx"),
    "textbook": nq.QConfig(WEIGHT, AFFINE, output=AFFINE, profile="textbook"),
    "12 bits": nq.QConfig(WEIGHT, nq.Quantize(nq.QuantSpec(12))),
    "float offsets": nq.QConfig(WEIGHT, nq.Quantize(nq.QuantSpec(6, False, False, zero_aligned=False))),
    "overrides": nq.QConfig(WEIGHT, AFFINE, overrides={nn.Conv2d: nq.QConfig(AFFINE, AFFINE), "l0": None}),
}

#: Functions of one value that keep its shape.
UNARY = (nn.relu, nn.relu6, nn.sigmoid, nn.tanh, nn.hardswish, nn.leaky_relu, lambda x: x / 1.7)


def convolution(net, rng, shapes, at):
    channels, rows, columns = shapes[at]
    kernel = 3 if min(rows, columns) >= 3 and rng.random() < 0.6 else 1
    groups = int(rng.choice([g for g in (1, 2, channels) if channels % g == 0]))
    steps = int(rng.integers(1, 3)), kernel // 2
    conv = nn.Conv2d(channels, 2 * groups, kernel, *steps, groups=groups, bias=bool(rng.random() < 0.5), rng=rng)
    bn = nn.BatchNorm2d(2 * groups)
    bn.running_mean, bn.running_var = rng.normal(0, 0.3, 2 * groups), rng.uniform(0.5, 2, 2 * groups)
    layers = [net.add(conv)] + [net.add(bn)] * bool(rng.random() < 0.5)
    return lambda values: net.chain(layers, values[at])


def unary(net, rng, shapes, at):
    function = UNARY[rng.integers(len(UNARY))]
    return lambda values: function(values[at])


def dropout(net, rng, shapes, at):
    layer = net.add(nn.Dropout(0.3, rng=int(rng.integers(99))))
    return lambda values: net.chain([layer], values[at])


def combine(net, rng, shapes, at):
    function = np.add if rng.random() < 0.5 else np.multiply
    other = int(rng.choice([i for i, shape in enumerate(shapes) if shape == shapes[at]]))
    return lambda values: function(values[at], values[other])


def concatenate(net, rng, shapes, at):
    other = int(rng.choice([i for i, shape in enumerate(shapes) if shape[1:] == shapes[at][1:]]))
    return lambda values: np.concatenate([values[at], values[other]], axis=1)


def excite(net, rng, shapes, at):
    return lambda values: values[at] * nn.sigmoid(values[at].mean((2, 3), keepdims=True))


def pool(net, rng, shapes, at):
    if min(shapes[at][1:]) < 2:
        return lambda values: nn.adaptive_avg_pool2d(values[at], 1)
    function = nn.max_pool2d if rng.random() < 0.5 else nn.avg_pool2d
    return lambda values: function(values[at], 2)


def move(net, rng, shapes, at):
    kind = rng.integers(3)
    if kind == 0:
        return lambda values: values[at].transpose(0, 1, 3, 2)
    if kind == 1:
        return lambda values: np.pad(values[at], ((0, 0), (1, 0), (0, 1), (1, 1)))
    return lambda values: values[at][:, : max(1, shapes[at][0] - 1)]


STEPS = (convolution, convolution, unary, unary, dropout, combine, concatenate, excite, pool, move)


class Net(nn.Module):
    """Steps that each read values that came before, with a fully connected layer at the end of some."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.steps, self.head, self.has_two_outputs, shapes = [], None, False, [(3, 8, 8)]
        self.eval()
        for number in rng.integers(len(STEPS), size=rng.integers(4, 10)):
            at = int(rng.integers(len(shapes))) if rng.random() < 0.3 else len(shapes) - 1
            self.steps = [*self.steps, STEPS[number](self, rng, shapes, at)]
            shapes.append(self(np.zeros((1, *shapes[0]), np.float32)).shape[1:])
        if seed % 4 > 0:
            self.head = nn.Linear(int(np.prod(shapes[-1])), 4, rng=rng)
        self.has_two_outputs = seed % 6 == 0
        self.train()

    def add(self, layer):
        """Register a layer and return its name."""
        name = f"l{len(self._modules)}"
        setattr(self, name, layer.eval())
        return name

    def chain(self, names, x):
        for name in names:
            x = getattr(self, name)(x)
        return x

    def forward(self, x):
        values = [x]
        for step in self.steps:
            values.append(step(values))
        y = values[-1] if self.head is None else self.head(nn.flatten(values[-1]))
        return (y, values[1]) if self.has_two_outputs else y


def images(rng):
    return np.random.default_rng(rng).standard_normal((4, 3, 8, 8)).astype(np.float32)


def assert_same(found, expected):
    for a, b in zip(parts(found), parts(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def prepared(prepare, seed):
    """Return a graph of a random network, or skip where nothing of it could run on integers."""
    name = list(CONFIGS)[seed % len(CONFIGS)]
    try:
        return prepare(Net(seed), images(seed), CONFIGS[name], fuse=seed % 5 > 0)
    except ValueError as error:
        assert "no layer that could run" in str(error) or "matches no layer" in str(error)
        pytest.skip("no layer has an integer form")


@pytest.mark.parametrize("seed", range(24))
def test_after_calibration(seed, tmp_path):
    graph, x = nq.convert(nq.calibrate(prepared(nq.prepare, seed), [images(seed), images(0)])), images(1)
    assert_same(graph(x), graph.simulation(x))
    assert graph.verify(x)
    assert len(str(graph.report(x)).splitlines()) == len(graph.report(x).rows) + 2
    graph.save(tmp_path / "m.npz")
    loaded = nq.load(tmp_path / "m.npz")
    assert_same(loaded(x), graph(x))
    assert loaded.verify(x)


@pytest.mark.parametrize("seed", range(24))
def test_in_training(seed):
    qat, x = prepared(nq.prepare_qat, seed), images(seed)
    if not qat.parameters():
        pytest.skip("what has weights does not reach the output")
    opt = nn.SGD(qat.parameters(), lr=1e-3)
    for step in range(3):
        y = qat(x)
        qat.backward(tuple(1e-2 * part for part in y) if isinstance(y, tuple) else 1e-2 * y)
        assert all(p.grad is None or np.isfinite(p.grad).all() for p in qat.parameters())
        opt.step()
        graph = nq.convert(qat)
        assert_same(graph(images(1)), qat.copy().eval()(images(1)))
        assert graph.verify(images(1))
        if step == 1:
            qat.freeze_batchnorm()
