"""The same elementwise work done by other libraries, where they are installed, on one thread each.

`CANDIDATES` maps a name to a function that takes an operation and its data (`elementwise.Data`) and returns the call to
be timed, or None if the library is absent or does not have that operation.
"""

from __future__ import annotations

import importlib
import logging
import warnings

import numpy as np

QMIN, QMAX = -128, 127


def _library(name):
    """Import a library, or return None if it is absent or unusable."""
    logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except (ImportError, OSError):
            return None


def _torch():
    """Return PyTorch on one thread, or None."""
    torch = _library("torch")
    if torch:
        torch.set_num_threads(1)
        warnings.filterwarnings("ignore", message=".*quantized tensor.*|.*torch.ao.quantization.*")
    return torch


def pytorch(operation, d):
    torch = _torch()
    if not torch:
        return None
    x, dy = torch.from_numpy(d.x), torch.from_numpy(d.dy)
    if d.axis is not None:
        scale, zero = torch.from_numpy(d.scale), torch.full(d.scale.shape, d.zero_point)
        if operation == "quantize":
            return lambda: torch.quantize_per_channel(x, scale, zero, d.axis, torch.qint8)
        zero = zero.to(torch.int32)
        return lambda: torch.fake_quantize_per_channel_affine(x, scale, zero, d.axis, QMIN, QMAX)
    scale, zero, aten = float(d.scale), d.zero_point, torch.ops.aten

    def forward():
        return aten.fake_quantize_per_tensor_affine_cachemask(x, scale, zero, QMIN, QMAX)

    mask = forward()[1] if "backward" in operation else None
    return {
        "quantize": lambda: torch.quantize_per_tensor(x, scale, zero, torch.qint8),
        "dequantize": torch.quantize_per_tensor(x, scale, zero, torch.qint8).dequantize,
        "fake_quantize": lambda: torch.fake_quantize_per_tensor_affine(x, scale, zero, QMIN, QMAX),
        "backward": lambda: aten.fake_quantize_per_tensor_affine_cachemask_backward(dy, mask),
        "forward+backward": lambda: aten.fake_quantize_per_tensor_affine_cachemask_backward(dy, forward()[1]),
    }[operation]


#: {operation: ONNX operators that do it}; ONNX has no gradients.
ONNX_OPERATORS = {
    "quantize": ["QuantizeLinear"],
    "dequantize": ["DequantizeLinear"],
    "fake_quantize": ["QuantizeLinear", "DequantizeLinear"],
}


def _onnx_model(operation, d):
    """Return (serialized model, its input), or None without the package onnx or the operators."""
    onnx = _library("onnx")
    if not onnx or operation not in ONNX_OPERATORS:
        return None
    source, result = (d.q, d.x) if operation == "dequantize" else (d.x, d.q)
    result = d.x if operation == "fake_quantize" else result
    names = ["x", *(f"v{i}" for i in range(1, len(ONNX_OPERATORS[operation]))), "y"]
    axis = {} if d.axis is None else {"axis": d.axis}
    zero = np.full(np.shape(d.scale), d.zero_point, np.int8)
    make, to_type = onnx.helper, onnx.helper.np_dtype_to_tensor_dtype
    nodes = [
        make.make_node(operator, [names[i], "scale", "zero"], [names[i + 1]], **axis)
        for i, operator in enumerate(ONNX_OPERATORS[operation])
    ]
    ends = [
        make.make_tensor_value_info(name, to_type(array.dtype), array.shape)
        for name, array in (("x", source), ("y", result))
    ]
    constants = [onnx.numpy_helper.from_array(np.asarray(a), n) for a, n in ((d.scale, "scale"), (zero, "zero"))]
    graph = make.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 19)], ir_version=9)
    return model.SerializeToString(), source


def onnx_runtime(operation, d):
    runtime, model = _library("onnxruntime"), _onnx_model(operation, d)
    if not runtime or not model:
        return None
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(model[0], options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    values = [runtime.OrtValue.ortvalue_from_numpy(a) for a in (model[1], session.run(None, {"x": model[1]})[0])]
    binding.bind_ortvalue_input("x", values[0])
    binding.bind_ortvalue_output("y", values[1])

    def call():
        session.run_with_iobinding(binding)
        return values  # what is bound does not keep its memory alive

    return call


def openvino(operation, d):
    library, model = _library("openvino"), _onnx_model(operation, d)
    if not library or not model:
        return None
    core = library.Core()
    hints = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    request = core.compile_model(core.read_model(model[0]), "CPU", hints).create_infer_request()
    x = library.Tensor(model[1], shared_memory=True)
    request.set_input_tensor(x)

    def call():
        request.infer(share_outputs=True)
        return x  # its memory has to stay

    return call


CANDIDATES = {"torch": pytorch, "onnxruntime": onnx_runtime, "openvino": openvino}
