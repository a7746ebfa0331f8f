"""verify finds what differs, and names it."""

import numpy as np
import pytest

import ndquant as nq

from .networks import PRESETS, inputs, mlp, quantized, trained_qat

LAYERS = ("0", "2", "4")


def changed(array, by):
    array = np.array(array)
    array.flat[array.size // 2] += by
    return array


def with_zero_point(qparams, zero_point):
    return nq.QParams(qparams.scale, zero_point, qparams.spec, profile=qparams.profile)


def with_scale(qparams, scale):
    return nq.QParams(scale, qparams.zero_point, qparams.spec, profile=qparams.profile)


def one_ulp_up(scale):
    scale = np.array(scale)
    flat = scale.reshape(-1)
    flat[flat.size // 2] = np.nextafter(flat[flat.size // 2], flat.dtype.type(np.inf))
    return scale[()]


@pytest.mark.parametrize("preset", PRESETS)
def test_everything_agrees_after_calibration(preset):
    found = quantized(preset).verify(inputs())
    assert found and found.first is None
    assert found.layers == 3
    assert found.values == 64 * (6 + 16 + 12 + 4)
    assert found.codes == 64 * (16 + 12 + (4 if preset in ("torch_default", "fbgemm", "qnnpack") else 0))
    assert found.has_simulation
    assert f"0 of {found.values} values of 3 layers differ" in str(found)


@pytest.mark.parametrize("preset", PRESETS)
def test_everything_agrees_after_training(preset):
    assert nq.convert(trained_qat(preset)).verify(inputs())


@pytest.mark.parametrize("profile", ["default", "torch", "onnx", "textbook"])
def test_everything_agrees_in_every_profile(profile):
    affine = nq.Quantize(nq.QuantSpec(8, signed=False, symmetric=False), "mse")
    config = nq.QConfig(nq.Quantize(nq.QuantSpec(8, axis=0)), affine, output=affine, profile=profile)
    assert nq.quantize_static(mlp(), [inputs(rng=1)], qconfig=config).verify(inputs())


def assert_found(graph, layer, what):
    found = graph.verify(inputs())
    assert not found
    assert found.first == layer
    assert found.differences[0].what.startswith(what)
    assert found.differences[0].count == 1
    assert f"the first in {layer}: 1 of the {what}" in found.summary()
    return found.differences[0]


EVERY_LAYER = [(preset, layer) for preset in PRESETS for layer in LAYERS]
EVERY_LAYER_WITH_CODES_OUT = [(p, layer) for p, layer in EVERY_LAYER if layer != "4" or p == "torch_default"]


@pytest.mark.parametrize(("preset", "layer"), EVERY_LAYER)
class TestOneChangedParameterIsFound:
    def test_weight_code(self, preset, layer):
        graph = quantized(preset)
        by = -1 if graph[layer].weight.flat[graph[layer].weight.size // 2] > 0 else 1
        graph[layer].weight = changed(graph[layer].weight, by)
        assert assert_found(graph, layer, "weight codes").largest == 1

    def test_bias(self, preset, layer):
        graph = quantized(preset)
        graph[layer].bias = changed(graph[layer].bias, 1)
        assert assert_found(graph, layer, "biases").largest == pytest.approx(1)

    def test_weight_scale_by_an_ulp(self, preset, layer):
        graph = quantized(preset)
        w_qparams = graph[layer].w_qparams
        graph[layer].w_qparams = with_scale(w_qparams, one_ulp_up(w_qparams.scale))
        assert_found(graph, layer, "weight scales")


@pytest.mark.parametrize(("preset", "layer"), EVERY_LAYER_WITH_CODES_OUT)
class TestOneChangedOutputGridIsFound:
    def test_zero_point(self, preset, layer):
        graph = quantized(preset)
        qparams = graph[layer].out_qparams
        graph[layer].out_qparams = with_zero_point(qparams, int(qparams.zero_point) + 1)
        assert assert_found(graph, layer, "output zero point").largest == 1

    def test_scale_by_an_ulp(self, preset, layer):
        graph = quantized(preset)
        qparams = graph[layer].out_qparams
        graph[layer].out_qparams = with_scale(qparams, one_ulp_up(qparams.scale))
        assert_found(graph, layer, "output scale")


@pytest.mark.parametrize("change", ["scale", "zero_point"])
def test_a_changed_input_grid_is_found(change):
    graph = quantized()
    node = graph["input.quantizer"]
    qparams = node.out_qparams
    if change == "scale":
        node.out_qparams = with_scale(qparams, one_ulp_up(qparams.scale))
    else:
        node.out_qparams = with_zero_point(qparams, int(qparams.zero_point) - 1)
    assert graph.verify(inputs()).first == "input.quantizer"


def test_a_removed_bias_is_found():
    graph = quantized()
    graph["2"].bias = None
    assert graph.verify(inputs()).first == "2"


@pytest.mark.parametrize("layer", ["0", "2", "4"])
def test_a_kernel_that_computes_something_else_is_found(layer):
    graph = quantized()
    stored = graph[layer].module
    codes = stored.weight.copy()
    codes.flat[0] ^= 1
    stored.__dict__["_packed"] = nq.PackedWeight(codes, stored.w_qparams, stored.bias)
    found = graph.verify(inputs())
    assert found.first == layer
    assert all("converted against NumPy" in d.what for d in found.differences)


def test_a_change_of_the_float_weights_after_conversion_is_not_a_change_of_the_model():
    model = mlp()
    graph = quantized(model=model)
    model[0].weight = np.zeros_like(model[0].weight)
    assert graph.verify(inputs())


def test_codes_that_differ_from_the_float64_formula_are_counted_not_blamed():
    graph = quantized()
    layer = graph["0"]
    x = inputs(4096, rng=3)
    found = graph.verify(x)
    assert found and found.textbook < 0.001 * found.codes
    assert layer.out_qparams.scale.dtype == np.float32


def test_a_loaded_model_is_verified_without_float_weights(tmp_path):
    quantized("int4").save(tmp_path / "model.npz")
    found = nq.load(tmp_path / "model.npz").verify(inputs())
    assert found and not found.has_simulation
    assert "integers and NumPy agree" in found.summary()


def test_only_converted_graphs_are_verified():
    with pytest.raises(nq.QuantizationError, match="'prepared'"):
        nq.prepare(mlp(), inputs()).verify(inputs())
