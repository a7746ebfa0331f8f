"""A layer on codes done by LiteRT, whose kernels are those of XNNPACK: signed codes by signed weights.

Its converter needs TensorFlow, so the model of one operator is written here, by the tables of the file format that come
with the interpreter.
"""

from __future__ import annotations

import numpy as np

from .others import _library

DEPTHWISE_AXIS = 3  # that of the outputs in the weight of a depthwise convolution, 0 in others


def installed():
    return bool(_library("ai_edge_litert.interpreter") and _library("flatbuffers"))


class Model:
    """Tensors of a model and the bytes of those that are constant; the tensors are the operator's x, w, bias and y."""

    def __init__(self):
        self.schema = _library("ai_edge_litert.schema_py_generated")
        self.tensors, self.buffers = [], [self.schema.BufferT()]

    def tensor(self, like, scale, zero_point=0, axis=0, constant=False):
        """Append a tensor of the shape and dtype of an array, or the array itself."""
        scale = np.atleast_1d(np.float32(scale))
        grid = self.schema.QuantizationParametersT(
            scale=scale, zeroPoint=np.full(scale.shape, zero_point, np.int64), quantizedDimension=axis
        )
        buffer = len(self.buffers) if constant else 0
        if constant:
            self.buffers.append(self.schema.BufferT(data=np.frombuffer(like.tobytes(), np.uint8)))
        kind = {"int8": self.schema.TensorType.INT8, "int32": self.schema.TensorType.INT32}[like.dtype.name]
        name = f"t{len(self.tensors)}"
        self.tensors.append(
            self.schema.TensorT(shape=list(like.shape), type=kind, buffer=buffer, name=name, quantization=grid)
        )

    def serialized(self, operator, kind, **options):
        """Return the model of one operator with options of a kind, from the first tensor to the last."""
        schema, last = self.schema, len(self.tensors) - 1
        number = getattr(schema.BuiltinOperator, operator)
        node = schema.OperatorT(
            inputs=list(range(last)),
            outputs=[last],
            builtinOptionsType=getattr(schema.BuiltinOptions, kind),
            builtinOptions=getattr(schema, f"{kind}T")(**options),
        )
        graph = schema.SubGraphT(tensors=self.tensors, inputs=[0], outputs=[last], operators=[node])
        code = schema.OperatorCodeT(builtinCode=number)
        model = schema.ModelT(version=3, operatorCodes=[code], subgraphs=[graph], buffers=self.buffers)
        builder = _library("flatbuffers").Builder()
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def _call(model, x):
    """Return the call of a model on signed codes; it returns the interpreter, which has the output."""
    interpreter = _library("ai_edge_litert.interpreter").Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)

    def call():
        interpreter.invoke()
        return interpreter

    return call


def _signed(codes):
    """Return codes and their zero point as int8."""
    return (codes ^ 128).view(np.int8)


def product(codes, weights, w_scale, x_qp, out_qp):
    """Return the call of rows of codes by weights (N, K)."""
    x, model = _signed(codes), Model()
    model.tensor(x, x_qp.scale, x_qp.zero_point - 128)
    model.tensor(weights, w_scale, constant=True)
    model.tensor(np.zeros(len(weights), np.int32), x_qp.scale * w_scale, constant=True)
    model.tensor(np.empty((len(x), len(weights)), np.int8), out_qp.scale, out_qp.zero_point - 128)
    return _call(model.serialized("FULLY_CONNECTED", "FullyConnectedOptions"), x)


def convolution(x, layer):
    """Return the call of a `networks.Layer` with one group or a group for each channel, on channels-last images.

    Padding has no numbers here: "same" is ours, but at even sizes with stride 2, where windows lie one pixel further.
    """
    (stride, _), _, _, groups = layer.geometry
    w_scale, grids = layer.w_qparams.scale, [layer.x_qparams, layer.out_qparams]
    axes, axis = ((1, 2, 3, 0), DEPTHWISE_AXIS) if groups > 1 else ((0, 2, 3, 1), 0)
    x, weights, model = np.ascontiguousarray(_signed(x).transpose(0, 2, 3, 1)), layer.codes.transpose(axes), Model()
    y_shape = (len(x), *(-(-size // stride) for size in x.shape[1:3]), len(layer.codes))
    model.tensor(x, grids[0].scale, grids[0].zero_point - 128)
    model.tensor(weights, w_scale, axis=axis, constant=True)
    model.tensor(layer.bias, grids[0].scale * w_scale, constant=True)
    model.tensor(np.empty(y_shape, np.int8), grids[1].scale, grids[1].zero_point - 128)
    options = {"padding": model.schema.Padding.SAME, "strideW": stride, "strideH": stride}
    if groups > 1:
        options["depthMultiplier"] = 1
        return _call(model.serialized("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions", **options), x)
    return _call(model.serialized("CONV_2D", "Conv2DOptions", **options), x)
