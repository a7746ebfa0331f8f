"""Mixed precision: bits of weights for a size, or for an SQNR."""

import itertools

import numpy as np
import pytest

import ndquant as nq
from ndquant import nn

from .networks import inputs, mlp
from .test_residual import images, small_resnet


def size_of(found):
    graph = nq.quantize_static(mlp(), [inputs()], found.qconfig)
    layers = [graph.integers(name) for name in found.chosen.bits]
    bits = {name: graph[name].w_qparams.spec.bits for name in found.chosen.bits}
    assert bits == found.chosen.bits
    return sum(-(-layer["weight"].size * b // 8) for layer, b in zip(layers, bits.values(), strict=True))


@pytest.mark.parametrize("size", [336, 200, 150, 84])
def test_the_size_is_not_passed(size):
    found = nq.auto_bits(mlp(), [inputs()], size=size)
    assert size_of(found) == found.chosen.size <= size
    larger = [point for point in found.curve if point.size > found.chosen.size]
    assert all(point.size > size for point in larger)


def test_the_sqnr_is_reached_by_the_network_itself():
    x = inputs()
    for least in (30, 18, 8):
        found = nq.auto_bits(mlp(), [x], sqnr=least)
        graph = nq.quantize_static(mlp(), [x], found.qconfig)
        assert nq.sqnr(mlp()(x), graph(x)) == pytest.approx(found.sqnr)
        assert found.sqnr >= least and graph.verify(x)


def test_the_curve_falls_from_most_to_fewest_bits():
    curve = nq.auto_bits(mlp(), [inputs()], size=200).curve
    assert set(curve[0].bits.values()) == {8} and set(curve[-1].bits.values()) == {2}
    assert len(curve) == 1 + 3 * 2
    for before, after in itertools.pairwise(curve):
        assert after.size < before.size
        assert sum(before.bits[name] != after.bits[name] for name in before.bits) == 1


def test_the_layer_that_hurts_least_goes_first():
    model = mlp()
    model[2].weight = np.sign(model[2].weight) * 0.2  # two values: nothing is lost with 2 bits
    found = nq.auto_bits(model, [inputs()], sqnr=25)
    assert found.chosen.bits["2"] == 2


def test_convolutions_and_what_a_configuration_keeps():
    x = images(8)
    config = nq.QConfig(
        nq.Quantize(nq.QuantSpec(8, axis=0)),
        nq.Quantize(nq.QuantSpec(8, signed=False, symmetric=False), "mse"),
        overrides={np.add: None, "linear": None},
    )
    found = nq.auto_bits(small_resnet(), [x], sqnr=40, choices=(8, 4), qconfig=config)
    assert "linear" not in found.chosen.bits and set(found.chosen.bits.values()) == {4, 8}
    graph = nq.quantize_static(small_resnet(), [x], found.qconfig)
    assert graph.verify(x) and graph["linear"].op.name == "linear"


def test_table_and_plot():
    found = nq.auto_bits(mlp(), [inputs()], size=200)
    assert "all together" in str(found) and "<td>0</td>" in found._repr_html_()
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    matplotlib.use("agg")
    ax = found.plot()
    assert list(ax.lines[0].get_xdata()) == [point.size for point in found.curve]
    assert list(ax.lines[0].get_ydata()) == [point.sqnr for point in found.curve]
    above, (least, most) = ax.child_axes[0], (found.curve[-1].size, found.curve[0].size)
    ax.set_xlim(least, most)
    ax.figure.canvas.draw()
    np.testing.assert_allclose(above.get_xlim(), (2, 8))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "give either size, in bytes, or sqnr"),
        ({"size": 100, "sqnr": 20}, "give either size, in bytes, or sqnr"),
        ({"size": 10}, r"size: 84 bytes is the least that \(8, 4, 2\) bits give, not 10"),
        ({"sqnr": 99}, "sqnr: .* dB is what 8 bits in all layers reach, not 99"),
        ({"size": 100, "choices": (9, 4)}, "choices must be numbers of bits from 2 to 8"),
        ({"size": 100, "choices": ()}, "choices must be numbers of bits from 2 to 8"),
    ],
)
def test_bad_arguments_are_named(fields, text):
    with pytest.raises(ValueError, match=text):
        nq.auto_bits(nn.Sequential(*mlp()), [inputs()], **fields)


def test_no_batch_is_an_error():
    with pytest.raises(ValueError, match="at least one batch"):
        nq.auto_bits(mlp(), [], size=100)
