"""The same convolutions on codes done by other libraries, where they are installed, on one thread each.

Each function takes images (N, C, H, W) whose channels lie last and a `networks.Layer`, and returns {form: function that
returns its call}, empty without the library.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from . import forms, others_litert
from .others import _torch
from .others_networks import Model, installed, onnx_runtime, openvino

TORCH_ENGINES = ("fbgemm", "x86", "onednn")


def pytorch_forms(x, layer):
    torch = _torch()
    if not torch:
        return {}
    x_grid, out_grid = ((float(qp.scale), int(qp.zero_point)) for qp in (layer.x_qparams, layer.out_qparams))
    images, w, bias = (torch.from_numpy(a) for a in (x, layer.codes, layer.b))
    scales = torch.from_numpy(np.array(layer.w_qparams.scale, np.float32))
    *geometry, groups = layer.geometry
    geometry = *map(list, geometry), groups

    def conv2d(engine):
        torch.backends.quantized.engine = engine
        zeros = torch.zeros(len(w), dtype=torch.long)
        weight = torch._make_per_channel_quantized_tensor(w, scales, zeros, 0)
        packed = torch.ops.quantized.conv2d_prepack(weight, bias, *geometry)
        codes = torch._make_per_tensor_quantized_tensor(images, *x_grid)
        return lambda: torch.ops.quantized.conv2d(codes, packed, *out_grid)

    def pointwise():
        packed = torch.ops.onednn.qconv_prepack(w, scales, *x_grid, *geometry, list(x.shape))
        w_grid = scales, torch.zeros(len(w), dtype=torch.int32)
        rest = bias, *geometry, *out_grid, torch.uint8, "none", [], None
        return lambda: torch.ops.onednn.qconv_pointwise(images, *x_grid, packed, *w_grid, *rest)

    builders = {f"torch: conv2d {engine}": partial(conv2d, engine) for engine in TORCH_ENGINES}
    return builders | {"torch: qconv_pointwise": pointwise}


def _between_quantizers(x, layer):
    """Return the call's model and inputs: a convolution of floats between quantizing operators."""
    model = Model()
    model.layer("x", layer)
    return model.serialized(x, np.uint8), [np.ascontiguousarray(x)]


def _channels_last(x, layer):
    """Return the same of ONNX Runtime's own operator, on images (N, H, W, C)."""
    model = Model()
    w = [model.constant(a) for a in (layer.codes, layer.w_qparams.scale, np.zeros(len(layer.codes), np.int8))]
    operands = ["x", *model.grid(layer.x_qparams), *w, *model.grid(layer.out_qparams), model.constant(layer.bias)]
    strides, padding, _, groups = layer.geometry
    geometry = {"kernel_shape": layer.w.shape[2:], "strides": strides, "pads": padding * 2, "group": groups}
    model.node("QLinearConv", operands, domain="com.microsoft", channels_last=1, **geometry)
    images = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    return model.serialized(images, np.uint8), [images]


def onnx_runtime_forms(x, layer):
    if not installed("onnxruntime"):
        return {}
    models = {"between quantizers": _between_quantizers, "QLinearConv, channels last": _channels_last}
    return {
        f"onnxruntime: {form}": lambda model=model: onnx_runtime(*model(x, layer)) for form, model in models.items()
    }


def openvino_forms(x, layer):
    if not installed("openvino"):
        return {}
    return {"openvino": lambda: openvino(*_between_quantizers(x, layer))}


def litert_forms(x, layer):
    if not others_litert.installed() or layer.geometry[3] not in (1, x.shape[1]):
        return {}
    return {"litert": lambda: others_litert.convolution(x, layer)}


def candidates(x, layer):
    """Return {form: call} of all that are installed."""
    builders = {}
    for library in (pytorch_forms, onnx_runtime_forms, openvino_forms, litert_forms):
        builders |= library(x, layer)
    return forms.candidates(builders)
