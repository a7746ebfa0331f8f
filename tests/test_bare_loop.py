"""The network of the main job trained with bare arrays: no Module, no Graph, the same bits."""

import numpy as np

import ndquant as nq
from ndquant import nn

F32 = np.float32
SIZES = [64, 32, 32, 10]


def initial_weights():
    rng = np.random.default_rng(0)
    limits = [1 / np.sqrt(k) for k in SIZES[:-1]]
    return [
        [rng.uniform(-a, a, (o, k)).astype(F32), rng.uniform(-a, a, o).astype(F32)]
        for a, k, o in zip(limits, SIZES[:-1], SIZES[1:], strict=True)
    ]


def make_network():
    rng = np.random.default_rng(0)
    layers = [nn.Linear(k, o, rng=rng) for k, o in zip(SIZES[:-1], SIZES[1:], strict=True)]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def data():
    digits = nq.datasets.digits()
    return ((digits.train_images.reshape(-1, 64) - F32(8)) / F32(8)).astype(F32), digits.train_labels


class BareAdam:
    """Adam as its paper writes it, on a list of arrays."""

    def __init__(self, arrays):
        self.t, self.m, self.v = 0, [np.zeros_like(a) for a in arrays], [np.zeros_like(a) for a in arrays]

    def step(self, arrays, gradients):
        self.t += 1
        for a, g, m, v in zip(arrays, gradients, self.m, self.v, strict=True):
            m[:] = F32(0.9) * m + F32(1 - 0.9) * g
            v[:] = F32(0.999) * v + F32(1 - 0.999) * (g * g)
            root = np.sqrt(v) * F32(1 / np.sqrt(1 - 0.999**self.t)) + F32(1e-8)
            a -= m / root * F32(1e-3 / (1 - 0.9**self.t))


def train_bare(observers=None):
    """Two epochs in float, or of 4-bit quantization-aware training when given observers of the layer inputs."""
    layers, (images, labels) = initial_weights(), data()
    arrays = [a for layer in layers for a in layer]
    adam = BareAdam(arrays)
    weight_spec = nq.QuantSpec(4, axis=0)
    for epoch in range(2):
        for x, y in nn.batches(images, labels, size=64, rng=epoch):
            saved, masks = [], []
            for i, (w, b) in enumerate(layers):
                qparams = (None, None)
                if observers is not None:
                    observers[i].update(x)
                    spec = nq.QuantSpec(8 if i == 0 else 4, signed=False, symmetric=False)
                    qparams = observers[i].qparams(spec), nq.choose_qparams(w, weight_spec)
                x, s = nq.linear(x, w, b, *qparams)
                saved.append(s)
                if i < 2:
                    x = np.maximum(x, F32(0))
                    masks.append(x > 0)
            _, dx = nn.cross_entropy(x, y)
            gradients = []
            for i in (2, 1, 0):
                dx, dw, db = nq.linear_backward(dx, saved[i])
                gradients = [dw, db, *gradients]
                if i:
                    dx = np.where(masks[i - 1], dx, F32(0))
            adam.step(arrays, gradients)
    return arrays


def train_module(model):
    images, labels = data()
    adam = nn.Adam(model.parameters(), lr=1e-3)
    for epoch in range(2):
        for x, y in nn.batches(images, labels, size=64, rng=epoch):
            _, dlogits = nn.cross_entropy(model(x), y)
            model.backward(dlogits)
            adam.step()
    return [p.data for p in model.parameters()]


def assert_same_bits(a, b):
    assert len(a) == len(b) == 6
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype == np.float32
        np.testing.assert_array_equal(x.view(np.uint32), y.view(np.uint32))


def test_float_training_with_bare_arrays_gives_the_weights_of_the_modules():
    assert_same_bits(train_bare(), train_module(make_network()))


def test_quantization_aware_training_with_bare_arrays_gives_the_weights_of_the_graph():
    observers = [nq.MovingAverageMinMaxObserver() for _ in range(3)]
    qat = nq.prepare_qat(make_network(), data()[0][:1], "int4")
    assert_same_bits(train_bare(observers), train_module(qat))


def test_training_changes_the_weights():
    assert not np.array_equal(train_bare()[0], initial_weights()[0][0])
