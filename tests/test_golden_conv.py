"""Convolutions against the reference evaluator of the `onnx` package: golden/make_golden_conv.py."""

from pathlib import Path

import numpy as np
import pytest

import ndquant as nq

with np.load(Path(__file__).parent / "golden" / "conv.npz") as file:
    GOLDEN = {key: file[key] for key in file.files}


def cases(kind):
    return sorted({key.split("/")[1] for key in GOLDEN if key.startswith(kind)})


def of(kind, case):
    golden = {key.split("/")[2]: value for key, value in GOLDEN.items() if key.startswith(f"{kind}/{case}/")}
    steps = [tuple(golden[name].tolist()) for name in ("stride", "padding", "dilation")]
    return golden, (*steps, int(golden["groups"]))


@pytest.mark.parametrize("case", cases("integer"))
def test_sums(backend, case):
    golden, geometry = of("integer", case)
    zeros = int(golden["x_zero_point"]), int(golden["w_zero_point"])
    np.testing.assert_array_equal(nq.conv2d_integer(golden["x"], golden["w"], *geometry, *zeros), golden["y"])


@pytest.mark.parametrize("case", cases("requantized"))
def test_requantized_layers(backend, case):
    golden, geometry = of("requantized", case)

    def qparams(name):
        zero = golden[f"{name}_zero_point"]
        spec = nq.QuantSpec(signed=zero.dtype == np.int8, symmetric=False)
        return nq.QParams(golden[f"{name}_scale"][()], int(zero), spec, profile="onnx")

    w_qp = nq.QParams(golden["w_scale"], 0, nq.QuantSpec(axis=0))
    weight = nq.PackedWeight(golden["w"], w_qp, golden["bias"])
    y = nq.conv2d_requantized(golden["x"], qparams("x"), weight, qparams("y"), *geometry)
    np.testing.assert_array_equal(y, golden["y"])
    assert np.unique(y).size > 20
