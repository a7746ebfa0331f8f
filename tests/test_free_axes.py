"""Files of networks on sequences: what is loaded takes any number of steps, if the network that was saved does."""

import json

import numpy as np
import pytest

import ndquant as nq
from ndquant import nn

from .cases import assert_same_bits
from .test_dynamic import MODELS, Encoder, normal, outputs_of
from .test_sequences import Attend


def saved(model, folder, *inputs):
    model(*inputs)
    model.save(folder / "m.npz")
    return nq.load(folder / "m.npz").eval()


@pytest.mark.parametrize("name", [name for name, (_, shape) in MODELS.items() if len(shape) == 3])
@pytest.mark.parametrize("dtype", ["int8", "bfloat16", None])
def test_other_lengths(name, dtype, tmp_path):
    net = MODELS[name][0]().eval()
    model = net if dtype is None else nq.quantize_dynamic(net, dtype=dtype)
    loaded = saved(model, tmp_path, normal((6, 9, 12)))
    for steps in (1, 9, 14):
        x = normal((3, steps, 12), steps)
        for y, truth in zip(outputs_of(loaded, x), outputs_of(model.graph(x), x), strict=True):
            assert_same_bits(np.ascontiguousarray(y), np.ascontiguousarray(truth))
        assert loaded.kind == "float" or loaded.verify(x) and loaded.report(x).rows
    with pytest.raises(ValueError, match=r"input: expected shape \(batch, 9, 12\), not \(3, 9, 13\)"):
        loaded(normal((3, 9, 13)))
    with pytest.raises(ValueError, match="input: expected shape"):
        loaded(normal((3, 12)))


def test_axes_of_one_length_change_together(tmp_path):
    net = Attend(nn.MultiheadAttention(12, 3, batch_first=True, rng=0), {"padding": True})
    model, mask = nq.quantize_dynamic(net), np.arange(9)[None] >= np.array([[9], [5]])
    loaded = saved(model, tmp_path, normal((2, 9, 12)), mask)
    assert loaded.free == ((("input_0", 0), ("input_1", 0)),)
    x, mask = normal((2, 5, 12)), mask[:, 4:]
    for y, truth in zip(loaded(x, mask), model(x, mask), strict=True):
        assert_same_bits(np.ascontiguousarray(y), np.ascontiguousarray(truth))
    with pytest.raises(ValueError, match="input_0: expected shape"):
        loaded(x, np.zeros((2, 9), bool))
    with pytest.raises(TypeError, match="input_1: expected an array of integers"):
        loaded(normal((2, 9, 12)), np.zeros((2, 9)))
    with pytest.raises(TypeError, match="takes 2 inputs, 1 were given"):
        loaded(x)


class Loop(nn.Module):
    """Takes one step after the other by itself, so that its graph has as many parts as there were steps."""

    def __init__(self):
        self.layer = nn.Linear(4, 4, rng=0)

    def forward(self, x):
        y = self.layer(x[:, 0])
        for t in range(1, x.shape[1]):
            y = y + self.layer(x[:, t])
        return y


class Positions(nn.Module):
    """Adds what it has learned of each position."""

    def __init__(self):
        self.layer, self.places = nn.Linear(4, 4, rng=0), nn.Parameter(normal((20, 4)))

    def forward(self, x):
        return self.layer(x + self.places[: x.shape[1]])


class Divided(nn.Module):
    """Divides by the number of steps, a number that is the same in no other graph."""

    def __init__(self):
        self.layer = nn.Linear(4, 4, rng=0)

    def forward(self, x):
        return self.layer(x) * np.float32(1 / x.shape[1])


@pytest.mark.parametrize("make", [Loop, Positions, Divided])
def test_a_network_that_depends_on_its_length_keeps_it(make, tmp_path):
    loaded = saved(nq.quantize_dynamic(make()), tmp_path, normal((2, 5, 4)))
    assert loaded.free == () and loaded(normal((3, 5, 4))).shape[0] == 3
    with pytest.raises(ValueError, match=r"expected shape \(batch, 5, 4\), not \(2, 6, 4\)"):
        loaded(normal((2, 6, 4)))


def test_a_loaded_network_trains_with_other_lengths(tmp_path):
    net = Encoder(8, 2, 16, np.random.default_rng(0))
    loaded = saved(net, tmp_path, normal((2, 5, 8))).train()
    x, dy = normal((3, 7, 8)), normal((3, 7, 8), 1)
    loaded(x)
    loaded.backward(dy)
    net.train()(x)
    net.backward(dy)
    assert all(parameter.grad is not None for parameter in loaded.parameters())
    found, truth = (layer._parameters["weight"].grad for layer in (loaded["linear1"].module, net.linear1))
    np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-6)


def test_images_of_any_size(tmp_path):
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, rng=0), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2, rng=1)
    )
    loaded = saved(net.eval(), tmp_path, normal((1, 3, 8, 8)))
    assert_same_bits(loaded(normal((2, 3, 12, 12))), net(normal((2, 3, 12, 12))))


@pytest.mark.parametrize(
    "free", [[[["x", 0]]], [[["input", 2]]], [[["input", -1]]], [[["input", True]]], [[]], 3, [["a"]]]
)
def test_files_that_are_wrong_are_refused(free, tmp_path):
    saved(nq.quantize_dynamic(MODELS["gru"][0]()), tmp_path, normal((2, 5, 12)))
    with np.load(tmp_path / "m.npz") as archive:
        arrays = dict(archive)
    header = json.loads(arrays["header"].tobytes())
    header["free"] = free
    np.savez(tmp_path / "bad.npz", **{**arrays, "header": np.frombuffer(json.dumps(header).encode(), np.uint8)})
    with pytest.raises(nq.QuantizationError, match="is no usable ndquant model"):
        nq.load(tmp_path / "bad.npz")
