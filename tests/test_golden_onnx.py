"""Profile onnx against the reference evaluator of the `onnx` package: golden/make_golden_onnx.py."""

from pathlib import Path

import numpy as np
import pytest

import ndquant as nq

with np.load(Path(__file__).parent / "golden" / "onnx.npz") as file:
    GOLDEN = {key: file[key] for key in file.files}
CASES = sorted({key.rpartition("/")[0] for key in GOLDEN if not key.startswith("dynamic")})
DYNAMIC = sorted({key.rpartition("/")[0] for key in GOLDEN if key.startswith("dynamic")})


def of(case):
    return {key.rpartition("/")[2]: value for key, value in GOLDEN.items() if key.rpartition("/")[0] == case}


@pytest.mark.parametrize("case", CASES)
def test_quantize_and_dequantize_linear(backend, case):
    golden, kind = of(case), case.partition("/")[0]
    axis, block = int(golden["axis"]), int(golden["block_size"])
    bits, signed = int(kind.removeprefix("u").removeprefix("int")), kind.startswith("int")
    where = {"axis": None if axis < 0 else axis, "group_size": block or None}
    spec = nq.QuantSpec(bits, signed, symmetric=False, **where)
    qp = nq.QParams(golden["scale"][()], golden["zero_point"], spec, profile="onnx")
    q = nq.quantize(golden["x"], qp)
    np.testing.assert_array_equal(q, golden["q"])
    np.testing.assert_array_equal(nq.dequantize(q, qp), golden["y"])


@pytest.mark.parametrize("case", DYNAMIC)
def test_dynamic_quantize_linear(backend, case):
    golden = of(case)
    qp = nq.choose_qparams(golden["x"], nq.QuantSpec(signed=False, symmetric=False), profile="onnx")
    assert (qp.scale, qp.zero_point) == (golden["scale"], golden["zero_point"])
    np.testing.assert_array_equal(nq.quantize(golden["x"], qp), golden["q"])
