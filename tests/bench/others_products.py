"""The same layers on codes done by other libraries, where they are installed, on one thread each.

Weights have one scale, and no bias: what every library takes. Each function returns {name: call}, empty without the
library.
"""

from __future__ import annotations

import warnings

import numpy as np

from .others import _library


def pytorch(codes, weights, x_qp, out_qp):
    """A layer of its quantized engine, and a product to int32, which packs at every call and needs VNNI to be fast."""
    torch = _library("torch")
    if not torch:
        return {}
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*quantized tensor.*|.*torch.ao.quantization.*")
    a = torch.from_numpy((codes ^ 128).view(np.int8))
    b, result = torch.from_numpy(weights).t(), torch.empty(codes.shape[0], weights.shape[0], dtype=torch.int32)
    torch.backends.quantized.engine = "x86"
    x = torch._make_per_tensor_quantized_tensor(torch.from_numpy(codes), float(x_qp.scale), int(x_qp.zero_point))
    w = torch._make_per_tensor_quantized_tensor(torch.from_numpy(weights), 0.01, 0)
    packed = torch.ops.quantized.linear_prepack(w, None)
    out = float(out_qp.scale), int(out_qp.zero_point)
    calls = {"torch": lambda: torch.ops.quantized.linear(x, packed, *out)}
    if "AVX512" in torch.backends.cpu.get_cpu_capability():
        calls["torch _int_mm"] = lambda: torch._int_mm(a, b, out=result)
    return calls


def _onnx_model(codes, weights, x_qp, out_qp, operator):
    """Return the serialized model of QLinearMatMul, or of a product between quantizing operators."""
    onnx = _library("onnx")
    make, shape = onnx.helper, (codes.shape[0], weights.shape[0])
    constants = {
        "w": np.ascontiguousarray(weights.T),
        "w_scale": np.float32(0.01),
        "w_zero": np.int8(0),
        "x_scale": np.float32(x_qp.scale),
        "x_zero": np.uint8(x_qp.zero_point),
        "y_scale": np.float32(out_qp.scale),
        "y_zero": np.uint8(out_qp.zero_point),
    }
    x, w, y = (f"{name} {name}_scale {name}_zero".split() for name in "xwy")
    nodes = [make.make_node("QLinearMatMul", [*x, *w, *y[1:]], ["y"])]
    if operator == "MatMul":
        nodes = [
            make.make_node("DequantizeLinear", x, ["a"]),
            make.make_node("DequantizeLinear", w, ["b"]),
            make.make_node("MatMul", ["a", "b"], ["c"]),
            make.make_node("QuantizeLinear", ["c", *y[1:]], ["y"]),
        ]
    byte = onnx.TensorProto.UINT8
    ends = [make.make_tensor_value_info("x", byte, codes.shape), make.make_tensor_value_info("y", byte, shape)]
    values = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = make.make_graph(nodes, "g", ends[:1], ends[1:], values)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 19)], ir_version=9)
    return model.SerializeToString()


def onnx_runtime(codes, weights, x_qp, out_qp):
    runtime = _library("onnxruntime")
    if not runtime or not _library("onnx"):
        return {}
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = _onnx_model(codes, weights, x_qp, out_qp, "QLinearMatMul")
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding, result = session.io_binding(), np.empty((codes.shape[0], weights.shape[0]), np.uint8)
    binding.bind_ortvalue_input("x", runtime.OrtValue.ortvalue_from_numpy(codes))
    binding.bind_ortvalue_output("y", runtime.OrtValue.ortvalue_from_numpy(result))
    return {"onnxruntime": lambda: session.run_with_iobinding(binding)}


def openvino(codes, weights, x_qp, out_qp):
    library = _library("openvino")
    if not library or not _library("onnx"):
        return {}
    core = library.Core()
    hints = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    model = core.read_model(_onnx_model(codes, weights, x_qp, out_qp, "MatMul"))
    request = core.compile_model(model, "CPU", hints).create_infer_request()
    request.set_input_tensor(library.Tensor(codes, shared_memory=True))
    return {"openvino": lambda: request.infer(share_outputs=True)}


def candidates(codes, weights, x_qp, out_qp):
    """Return {name: call} of all that are installed."""
    calls = {}
    for library in (pytorch, onnx_runtime, openvino):
        calls |= library(codes, weights, x_qp, out_qp)
    return calls
