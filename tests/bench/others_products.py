"""The same layers on codes done by other libraries, where they are installed, on one thread each.

Weights have one scale, and no bias: what every library takes. Each function returns {form: function that returns its
call}, empty without the library. LiteRT computes with signed codes. Two forms give the sums in int32 and leave it to
others to quantize these.
"""

from __future__ import annotations

import numpy as np

from . import forms, others_litert
from .others import _torch
from .others_networks import Model, installed, onnx_runtime, openvino

W_SCALE = 0.01


def pytorch_forms(codes, weights, x_qp, out_qp):
    torch = _torch()
    if not torch:
        return {}
    x, w = torch.from_numpy(codes), torch.from_numpy(weights)
    x_grid, out_grid = ((float(qp.scale), int(qp.zero_point)) for qp in (x_qp, out_qp))

    def linear():
        torch.backends.quantized.engine = "x86"  # its products are those of FBGEMM or oneDNN, as it sees fit
        packed = torch.ops.quantized.linear_prepack(torch._make_per_tensor_quantized_tensor(w, W_SCALE, 0), None)
        rows = torch._make_per_tensor_quantized_tensor(x, *x_grid)
        return lambda: torch.ops.quantized.linear(rows, packed, *out_grid)

    def pointwise():
        packed = torch.ops.onednn.qlinear_prepack(w, list(codes.shape))
        w_grid = torch.tensor([W_SCALE]), torch.tensor([0], dtype=torch.int32)
        rest = None, *out_grid, torch.uint8, "none", [], ""
        return lambda: torch.ops.onednn.qlinear_pointwise(x, *x_grid, packed, *w_grid, *rest)

    def int_mm():
        a, b = torch.from_numpy((codes ^ 128).view(np.int8)), w.t()
        result = torch.empty(len(codes), len(weights), dtype=torch.int32)
        return lambda: torch._int_mm(a, b, out=result)

    builders = {"torch: linear": linear, "torch: qlinear_pointwise": pointwise}
    if "AVX512" in torch.backends.cpu.get_cpu_capability():  # without VNNI it is a loop
        builders["torch: _int_mm"] = int_mm  # packs at every call
    return builders


def _onnx_model(codes, weights, x_qp, out_qp, operator):
    """Return the serialized model of an operator on codes, or of a product between quantizing operators."""
    model = Model()
    w = model.constant(np.ascontiguousarray(weights.T))
    if operator == "MatMulInteger":
        model.node(operator, ["x", w, model.constant(np.uint8(x_qp.zero_point))])
        return model.serialized(codes, np.int32)
    x, y = ["x", *model.grid(x_qp)], model.grid(out_qp)
    w = [w, model.constant(np.float32(W_SCALE)), model.constant(np.int8(0))]
    if operator == "QLinearMatMul":
        model.node(operator, [*x, *w, *y])
    else:
        reals = [model.node("DequantizeLinear", operand) for operand in (x, w)]
        model.node("QuantizeLinear", [model.node(operator, reals), *y])
    return model.serialized(codes, np.uint8)


def onnx_runtime_forms(*layer):
    if not installed("onnxruntime"):
        return {}
    return {
        f"onnxruntime: {operator}": lambda operator=operator: onnx_runtime(_onnx_model(*layer, operator), [layer[0]])
        for operator in ("QLinearMatMul", "MatMulInteger")
    }


def openvino_forms(*layer):
    if not installed("openvino"):
        return {}
    return {"openvino": lambda: openvino(_onnx_model(*layer, "MatMul"), [layer[0]])}


def litert_forms(codes, weights, x_qp, out_qp):
    if not others_litert.installed():
        return {}
    return {"litert": lambda: others_litert.product(codes, weights, W_SCALE, x_qp, out_qp)}


def candidates(codes, weights, x_qp, out_qp):
    """Return {form: call} of all that are installed."""
    builders = {}
    for library in (pytorch_forms, onnx_runtime_forms, openvino_forms, litert_forms):
        builders |= library(codes, weights, x_qp, out_qp)
    return forms.candidates(builders)
