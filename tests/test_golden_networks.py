"""Whole networks against PyTorch: golden/networks.npz, written by golden/make_golden_networks.py."""

from pathlib import Path

import numpy as np
import pytest

import ndquant as nq
from ndquant import nn

from .test_qconfig import TinyNN

GOLDEN = np.load(Path(__file__).parent / "golden" / "networks.npz")


def group(name):
    return {key.removeprefix(f"{name}/"): GOLDEN[key] for key in GOLDEN.files if key.startswith(f"{name}/")}


def edges(network):
    """Return {edge: (scale, zero point)} of PyTorch's."""
    return {edge: (scale, GOLDEN[f"{network}/zero_point/{edge}"]) for edge, scale in group(f"{network}/scale").items()}


def node_of(graph, edge):
    return graph["input.quantizer" if edge == "input" else edge]


def steps_apart(y, network, edge):
    """How many steps of the output's grid lie between what PyTorch gives and `y`."""
    scale, _ = edges(network)[edge]
    return np.abs(np.rint(y / scale) - np.rint(GOLDEN[f"{network}/y"] / scale))


class TestTinyNN:
    """The tutorial of TinyNeuralNetwork: the same state and batches give PyTorch's scales and zero points."""

    @pytest.fixture(params=["by hand", "in one line"])
    def converted(self, request):
        model = TinyNN(stubs=request.param == "by hand")
        model.load_state_dict(group("tinynn/state"))
        if request.param == "by hand":
            model = nq.fuse(model, [["conv", "bn", "relu"]])
        batches = GOLDEN["tinynn/batches"]
        qat = nq.prepare_qat(model, batches[0], "qnnpack")
        for batch in batches:
            qat(batch)
        for name, value in group("tinynn/after").items():
            np.testing.assert_allclose(qat.state_dict()[name], value, rtol=1e-5, atol=1e-7)
        return nq.convert(qat)

    def test_scales_and_zero_points_are_pytorchs_bit_for_bit(self, converted):
        expected = edges("tinynn")
        integers = converted.integers("conv")
        assert (integers["weight_scale"], integers["weight_zero_point"]) == expected.pop("weight")
        for edge, (scale, zero_point) in expected.items():
            found = node_of(converted, edge).out_qparams
            assert (found.scale, found.zero_point) == (scale, zero_point), edge

    def test_integers_are_at_most_a_step_apart(self, converted):
        """PyTorch observes the weight once more while it converts, which moves its average of ranges."""
        found, expected = converted.integers("conv")["weight"], GOLDEN["tinynn/codes/conv"]
        steps = np.abs(found.astype(int) - expected)
        assert steps.max() <= 1 and steps.sum() <= 1
        steps = steps_apart(converted(GOLDEN["tinynn/x"]), "tinynn", "add")
        assert steps.max() <= 1 and (steps > 0).mean() <= 0.05


class Residual(nn.Module):
    def __init__(self):
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.conv3, self.linear = nn.Conv2d(8, 6, 3, stride=2), nn.Linear(24, 10)

    def forward(self, x):
        x = nn.relu(self.conv1(x))
        x = nn.relu(x + self.conv2(x))
        x = nn.max_pool2d(nn.relu(self.conv3(x)), 2)
        return self.linear(nn.flatten(x))


@pytest.mark.parametrize("preset", ["fbgemm", "qnnpack"])
class TestPresets:
    @pytest.fixture
    def graph(self, preset):
        model = Residual().eval()
        model.load_state_dict(group(f"{preset}/state"))
        return nq.quantize_static(model, list(GOLDEN[f"{preset}/batches"]), preset)

    def test_grids_are_pytorchs(self, graph, preset):
        """That of the input bit for bit; sums of floats before the others end differently in the last bits."""
        for edge, (scale, zero_point) in edges(preset).items():
            found = node_of(graph, edge).out_qparams
            np.testing.assert_allclose(found.scale, scale, rtol=0 if edge == "input" else 1e-3, err_msg=edge)
            assert found.zero_point == zero_point, edge

    def test_weights_are_pytorchs(self, graph, preset):
        for name, codes in group(f"{preset}/codes").items():
            np.testing.assert_array_equal(graph.integers(name)["weight"], codes)

    def test_outputs_are_pytorchs(self, graph, preset):
        steps = steps_apart(graph(GOLDEN[f"{preset}/x"]), preset, "linear")
        assert steps.max() <= 1 and (steps > 0).mean() <= 0.05

    def test_with_its_grids_every_code_is_that_of_fbgemm(self, graph, preset):
        """After calibration PyTorch uses the codes over 127 too, which reduce_range left out; QNNPACK rounds apart."""
        spec = nq.QuantSpec(8, signed=False, symmetric=False)
        for edge, grid in edges(preset).items():
            scale, zero_point = grid
            node_of(graph, edge).out_qparams = nq.QParams(scale[()], int(zero_point), spec, profile="torch")
        steps = steps_apart(graph(GOLDEN[f"{preset}/x"]), preset, "linear")
        assert steps.max() <= (0 if preset == "fbgemm" else 1) and (steps > 0).mean() <= 0.05
