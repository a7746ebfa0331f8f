"""Transposed convolutional layers on every backend against their twins: alone, as steps of a plan, in networks."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ndquant as nq
from ndquant import _core, nn, passes, reference

from .cases import assert_same_bits
from .examples import examples
from .test_conv import LAYOUTS, TRANSPOSED, ConvLayer, in_layout
from .test_linear_integer import REQUANTIZE, S8, U8


def inputs_first(w, groups):
    """Weights (O, C / groups, ...) as (C, O / groups, ...)."""
    return np.concatenate([part.swapaxes(0, 1) for part in np.split(w, groups)])


class TransposedLayer(ConvLayer):
    """Random operands of one layer, and what its twins say of them; weights have their outputs first."""

    def __init__(self, rng, case, *arguments, **more):
        *ordinary, output_padding, dilation, groups = case
        super().__init__(rng, (*ordinary, dilation, groups), *arguments, **more)
        self.geometry["output_padding"] = output_padding

    def _sums(self, bias):
        w, zeros = inputs_first(self.w, self.geometry["groups"]), (self.x_qp.zero_point, self.w_qp.zero_point)
        sums = reference.conv_transpose2d_s32(
            self.x, w, **self.geometry, x_zero_point=zeros[0], w_zero_point=zeros[1]
        )
        return sums if bias is None else sums + bias[:, None, None]

    def run(self, packed, *arguments, layout="nchw", **more):
        x = in_layout(self.x, layout)
        return nq.conv_transpose2d_requantized(x, self.x_qp, packed, *arguments, **self.geometry, **more)


@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
@pytest.mark.parametrize("profile", REQUANTIZE)
def test_layers_match_their_twins(backend, rng, case, profile):
    for number in range(8):
        x_signed, w_signed, out_signed = (bool(number >> bit & 1) for bit in range(3))
        layer = TransposedLayer(rng, case, x_signed, w_signed, profile, (8, 4)[number % 2], number != 3)
        packed, layout = layer.packed(), LAYOUTS[number % 3]
        activation = {2: "relu", 4: "relu6", 5: "relu"}.get(number)
        out_qp = layer.out_qparams(rng, S8 if out_signed else U8, profile)
        assert_same_bits(layer.run(packed, layout=layout, activation=activation), layer.floats(activation))
        found = layer.run(packed, out_qp, layout=layout, activation=activation)
        assert_same_bits(found, layer.codes(out_qp, activation))


@pytest.mark.parametrize("backend_name", _core.available_backends())
@given(data=st.data())
@settings(max_examples=examples(60), deadline=None)
def test_any_transposed_convolution(backend_name, data):
    draw = data.draw
    groups, axes = draw(st.sampled_from((1, 1, 2, 6))), []
    for _ in range(2):
        size, taps, stride, dilation = (draw(st.integers(1, most)) for most in (7, 4, 4, 3))
        more = draw(st.integers(0, max(stride, dilation) - 1))
        most = ((size - 1) * stride + dilation * (taps - 1) + more) // 2
        axes.append((size, taps, stride, draw(st.integers(0, min(most, 6))), more, dilation))
    sizes, *pairs = zip(*axes, strict=True)
    channels, outputs = (groups * draw(st.integers(1, 24 // groups)) for _ in range(2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    case = (draw(st.integers(1, 2)), channels, *sizes), outputs, *pairs, groups
    layer = TransposedLayer(rng, case, draw(st.booleans()), draw(st.booleans()), bits=draw(st.integers(2, 8)))
    out_qp = layer.out_qparams(rng, nq.QuantSpec(8, draw(st.booleans()), symmetric=False))
    with nq.backend(backend_name):
        packed, layout = layer.packed(), draw(st.sampled_from(LAYOUTS))
        assert_same_bits(layer.run(packed, out_qp, layout=layout), layer.codes(out_qp))
        assert_same_bits(layer.run(packed, layout=layout), layer.floats())


def test_outputs_that_no_pixel_reaches_are_their_bias():
    x_qp = nq.QParams(0.5, 3, U8)
    weight = nq.PackedWeight(np.ones((2, 1, 1, 1), np.int8), nq.QParams(0.5, 0, S8), np.int32([4, -8]))
    y = nq.conv_transpose2d_requantized(np.full((1, 1, 2, 2), 4, np.uint8), x_qp, weight, stride=2, output_padding=1)
    assert y.shape == (1, 2, 4, 4)
    np.testing.assert_array_equal(y[0, :, ::2, ::2], np.float32([1.25, -1.75])[:, None, None] + np.zeros((2, 2)))
    np.testing.assert_array_equal(y[0, :, 1::2], np.float32([1, -2])[:, None, None] + np.zeros((2, 4)))


def test_threads_do_not_change_bits(backend, rng, threads):
    layer = TransposedLayer(rng, ((2, 24, 20, 19), 40, (4, 4), (2, 2), (1, 1), (0, 1), (1, 1), 1))
    out_qp = layer.out_qparams(rng, U8)
    packed, wanted = layer.packed(), layer.codes(out_qp)
    for count in (1, 2, 4):
        threads(count)
        assert_same_bits(layer.run(packed, out_qp), wanted)


def test_sums_that_could_pass_int32_are_refused_with_their_channel():
    w = np.zeros((3, 40000, 1, 1), np.uint8)
    w[1] = 255
    qp = nq.QParams(np.ones(3), np.full(3, 0), nq.QuantSpec(signed=False, symmetric=False, axis=0))
    with pytest.raises(nq.QuantizationError, match=r"channel 1"):
        nq.conv_transpose2d_requantized(
            np.zeros((1, 40000, 1, 1), np.uint8), nq.QParams(1.0, 0, U8), nq.PackedWeight(w, qp)
        )


WEIGHT = nq.PackedWeight(np.ones((4, 3, 2, 2), np.int8), nq.QParams(1.0, 0, S8))
IMAGES = np.zeros((1, 3, 5, 5), np.uint8)
QP = nq.QParams(1.0, 0, U8)


@pytest.mark.parametrize(
    "change, error, text",
    (
        ({"xq": IMAGES[:, :2]}, ValueError, "axis 1 must have the 3 channels of the weight, got 2"),
        ({"xq": IMAGES[0]}, ValueError, "xq"),
        ({"weight": WEIGHT._codes}, TypeError, "weight: expected a PackedWeight"),
        ({"weight": nq.PackedWeight(np.ones((2, 3), np.int8), nq.QParams(1.0, 0, S8))}, ValueError, "4 dimensions"),
        ({"groups": 3}, ValueError, "groups: must divide the 4 outputs, got 3"),
        ({"stride": 0}, ValueError, "stride: must be at least 1"),
        ({"padding": 9}, ValueError, "give an output of"),
        ({"output_padding": 2}, ValueError, "output_padding: must be less than stride"),
        ({"out": np.zeros((1, 4, 6, 7), np.uint8)}, ValueError, "out"),
    ),
)
def test_wrong_arguments_are_named(change, error, text):
    arguments = {"xq": IMAGES, "x_qparams": QP, "weight": WEIGHT, "out_qparams": QP}
    with pytest.raises(error, match=text):
        nq.conv_transpose2d_requantized(**{**arguments, **change})


class Decoder(nn.Module):
    """Two layers that enlarge images: one with normalization and ReLU, one with outputs that no pixel reaches."""

    def __init__(self, groups):
        self.a = nn.Conv2d(3, 8, 3, padding=1, rng=0)
        self.up = nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1, groups=groups, rng=1)
        self.norm = nn.BatchNorm2d(6)
        self.last = nn.ConvTranspose2d(6, 3, 2, stride=3, rng=2)

    def forward(self, x):
        return self.last(nn.relu(self.norm(self.up(nn.relu(self.a(x))))))


def images(rng=0):
    return np.random.default_rng(rng).standard_normal((4, 3, 6, 5)).astype(np.float32)


@pytest.mark.parametrize("groups", (1, 2))
def test_networks_run_on_integers(backend, groups, tmp_path):
    model, x = Decoder(groups), images()
    graph = nq.quantize_static(model, [x])
    names = [node.op.name for node in graph.nodes]
    assert names == ["quantize", "conv2d_integer", "conv_transpose2d_integer", "conv_transpose2d_integer"]
    assert nq.sqnr(model.eval()(x), graph(x)) > 25
    assert graph.verify(images(1))
    graph.save(tmp_path / "m.npz")
    for other in (nq.load(tmp_path / "m.npz"), pickle.loads(pickle.dumps(graph))):
        assert_same_bits(other(x), graph(x))
    for index in ((0, 0, 0, 0), (1, 5, 11, 9), (3, 2, 4, 7)):
        assert "exactly what the network gives" in graph.explain("up", index, x)
    assert "over 0 products" in graph.explain("last", (0, 0, 2, 2), x)


@pytest.mark.parametrize("groups", (1, 2))
def test_networks_train_as_they_will_run(groups):
    model, x = Decoder(groups), images()
    model(x)
    qat = nq.prepare_qat(model, x)
    optimizer, losses = nn.SGD(qat.parameters(), lr=0.3), []
    for _ in range(12):
        y = qat(x)
        losses.append(np.mean(y * y))
        qat.backward(2 * y / np.float32(y.size))
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    graph = nq.convert(qat)
    assert_same_bits(graph(x), qat.eval()(x))
    assert graph.verify(x)


@pytest.mark.parametrize("groups", (1, 2))
def test_weights_keep_the_layout_of_pytorch_in_the_module(groups):
    model, x = Decoder(groups), images()
    model(x)
    shape = (8, 6 // groups, 3, 3)
    assert model.up.weight.shape == model.state_dict()["up.weight"].shape == shape
    before = model(x)
    model.up.weight = model.up.weight * 2
    assert not np.array_equal(model(x), before)
    node = nq.prepare(model, x)["up"]
    assert node.weight.shape == (6, 8 // groups, 3, 3)


@pytest.mark.parametrize("groups", (1, 2))
def test_passes_know_what_the_weights_meet(groups):
    model, x = Decoder(groups).eval(), images()
    graph = nq.calibrate(nq.prepare(model, x, "int4"), [x])
    plain = nq.sqnr(model(x), nq.convert(graph)(x))
    for change in (passes.gptq, lambda *a: passes.adaround(*a, steps=200)):
        changed = nq.convert(change(graph, [x]))
        assert changed.verify(x)
        assert nq.sqnr(model(x), changed(x)) > plain
