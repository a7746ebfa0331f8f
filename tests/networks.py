"""Small networks and data that several test files use."""

import numpy as np

import ndquant as nq
from ndquant import nn

PRESETS = ("int8", "int8_per_tensor", "int4", "torch_default")


def mlp(sizes=(6, 16, 12, 4), rng=0):
    """A multilayer perceptron; its layers are "0", "2", "4"."""
    rng = np.random.default_rng(rng)
    layers = [nn.Linear(k, o, rng=rng) for k, o in zip(sizes[:-1], sizes[1:], strict=True)]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def inputs(count=64, features=6, rng=0):
    """Normal values, with some far out so that ranges clip."""
    x = np.random.default_rng(rng).standard_normal((count, features)).astype(np.float32)
    x[::17] *= 4
    return x


def quantized(preset="int8", model=None, calibration=None):
    """A converted network."""
    return nq.quantize_static(model or mlp(), [inputs(rng=1) if calibration is None else calibration], preset)


def trained_qat(preset="int4", steps=20):
    """A graph of prepare_qat after some steps of training."""
    qat = nq.prepare_qat(mlp(), inputs(), preset)
    opt, x, labels = nn.Adam(qat.parameters(), lr=1e-2), inputs(), np.arange(64) % 4
    for _ in range(steps):
        _, dlogits = nn.cross_entropy(qat(x), labels)
        qat.backward(dlogits)
        opt.step()
    return qat
