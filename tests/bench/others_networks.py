"""The same networks on codes done by other libraries, where they are installed, on one thread each.

Both read ONNX models that say in QuantizeLinear and DequantizeLinear what a `networks.Network` computes, from the same
codes and scales.
"""

from __future__ import annotations

import itertools

import numpy as np

from . import networks
from .others import _library

OPSETS = {"": 19, "com.microsoft": 1}


class Model:
    """Nodes and constants of an ONNX graph, from "x" to "y", as they are appended."""

    def __init__(self):
        self.make, self.nodes, self.constants = _library("onnx").helper, [], []

    def node(self, operator, inputs, output=None, **attributes):
        """Append a node and return the name of its output."""
        output = output or f"v{len(self.nodes)}"
        self.nodes.append(self.make.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, array):
        """Append a constant and return its name."""
        name = f"c{len(self.constants)}"
        self.constants.append(_library("onnx").numpy_helper.from_array(np.asarray(array), name))
        return name

    def grid(self, qparams):
        """Return the names of scale and zero point of an activation."""
        return [self.constant(np.float32(qparams.scale)), self.constant(np.uint8(qparams.zero_point))]

    def real(self, codes, scale, **axis):
        """Return what constant codes with zero point 0 stand for."""
        return self.node("DequantizeLinear", [self.constant(codes), self.constant(np.float32(scale))], **axis)

    def layer(self, x, layer):
        """Append a layer on codes and return its output: codes, unless it gives floats."""
        x = self.node("DequantizeLinear", [x, *self.grid(layer.x_qparams)])
        scale = np.float32(layer.w_qparams.scale)
        parameters = [self.real(layer.codes, scale, axis=0)]
        parameters.append(self.real(layer.bias, np.float32(layer.x_qparams.scale) * scale, axis=0))
        if layer.w.ndim == 2:
            y = self.node("Gemm", [x, *parameters], transB=1)
        else:
            strides, padding, _, groups = layer.geometry
            y = self.node("Conv", [x, *parameters], strides=strides, pads=padding * 2, group=groups)
        return self.codes(self.activation(y, layer.activation), layer.out_qparams)

    def activation(self, y, name):
        """Append "relu", "relu6" or nothing."""
        if name == "relu6":
            return self.node("Clip", [y, self.constant(np.float32(0)), self.constant(np.float32(6))])
        return self.node("Relu", [y]) if name else y

    def codes(self, y, qparams):
        """Append the quantizer of an activation, if it has one."""
        return self.node("QuantizeLinear", [y, *self.grid(qparams)]) if qparams else y

    def chain(self, x, layers, x_qparams):
        """Append layers on codes and return the output."""
        for layer in layers:
            if isinstance(layer, networks.Sum):
                sides = [(self.chain(x, c, x_qparams), g) for c, g in ((layer.body, layer.a), (layer.skip, layer.b))]
                reals = [self.node("DequantizeLinear", [side, *self.grid(grid)]) for side, grid in sides]
                x = self.codes(self.activation(self.node("Add", reals), layer.activation), layer.out_qparams)
            elif isinstance(layer, networks.Mean):
                mean = self.node("GlobalAveragePool", [self.node("DequantizeLinear", [x, *self.grid(x_qparams)])])
                x = self.codes(self.node("Flatten", [mean]), layer.out_qparams)
            else:
                x = self.layer(x, layer)
            x_qparams = layer.out_qparams
        return x

    def serialized(self, x, y_type):
        """Return the model for arrays like `x`; the last output becomes "y"."""
        self.nodes[-1].output[0] = "y"
        types = self.make.np_dtype_to_tensor_dtype
        ends = [("x", types(x.dtype), x.shape), ("y", types(np.dtype(y_type)), None)]
        values = [[self.make.make_tensor_value_info(*end)] for end in ends]
        graph = self.make.make_graph(self.nodes, "g", *values, self.constants)
        opsets = [self.make.make_opsetid(*opset) for opset in OPSETS.items()]
        return self.make.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def installed(name):
    """Return whether there are a library that reads ONNX models and the package that writes them."""
    return bool(_library("onnx") and _library(name))


def onnx_runtime(model, inputs):
    """Return the call of ONNX Runtime on the inputs in turn. What is bound does not keep its memory alive."""
    runtime = _library("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session, bindings = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"]), []
    for x in inputs:
        binding = session.io_binding()
        values = [runtime.OrtValue.ortvalue_from_numpy(a) for a in (x, session.run(None, {"x": x})[0])]
        binding.bind_ortvalue_input("x", values[0])
        binding.bind_ortvalue_output("y", values[1])
        bindings.append((binding, values))
    turns = itertools.cycle(bindings)

    def call():
        binding, values = next(turns)
        session.run_with_iobinding(binding)
        return values[1]

    return call


def openvino(model, inputs):
    """Return the call of OpenVINO on the inputs in turn."""
    library = _library("openvino")
    core = library.Core()
    hints = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    request = core.compile_model(core.read_model(model), "CPU", hints).create_infer_request()
    tensors = [library.Tensor(x, shared_memory=True) for x in inputs]
    request.set_input_tensor(tensors[0])
    turns = itertools.cycle(tensors)

    def call():
        if len(tensors) > 1:
            request.set_input_tensor(next(turns))
        return request.infer(share_outputs=True)

    return call


def network(net, inputs):
    """Return {name: call} for a network, from floats to floats."""
    runs = {name: run for name, run in (("onnxruntime", onnx_runtime), ("openvino", openvino)) if installed(name)}
    if not runs:
        return {}
    model = Model()
    model.chain(model.node("QuantizeLinear", ["x", *model.grid(net.x_qparams)]), net.layers, net.x_qparams)
    serialized = model.serialized(inputs[0], np.float32)
    return {name: run(serialized, inputs) for name, run in runs.items()}
