"""Transposed convolution in two dimensions: the gradient of a convolution as a layer.

Shape letters: N images, C channels, H x W pixels, O outputs, windows of KH x KW taps.
"""

from __future__ import annotations

import numpy as np

from ..channels import channel_sums
from .conv import conv2d_attributes, functions_for, steps_of
from .pool import pair
from .record import array_of, register


def conv_transpose2d_attributes(stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Return the attributes of a transposed convolution, checked and completed."""
    attributes = conv2d_attributes(stride, padding, dilation, groups)
    extra = pair(output_padding, "output_padding")
    if any(e >= s for e, s in zip(extra, attributes["stride"], strict=True)):
        raise ValueError(f"output_padding must be below stride, {attributes['stride']}, not {extra}")
    return {**attributes, "output_padding": extra}


def _output_size(size, window, a):
    axes = zip(size, window, a["stride"], a["padding"], a["dilation"], a["output_padding"], strict=True)
    return tuple((n - 1) * stride - 2 * pad + step * (k - 1) + extra + 1 for n, k, stride, pad, step, extra in axes)


def _forward(node, inputs, run):
    (x,), parameters = inputs, node.module._parameters
    w, b = parameters["weight"].data, parameters.get("bias")
    _, input_grad, _ = functions_for(x, w)
    size = _output_size(x.shape[2:], w.shape[2:], node.attributes)
    y = input_grad(x, w, size, *steps_of(node.attributes)).astype(np.result_type(x, w), copy=False)
    return (y if b is None else y + b.data[:, None, None]), x


def _backward(node, dy, saved, need_input):
    x, w = saved, node.module._parameters["weight"].data
    convolve, _, weight_grad = functions_for(dy, x, w)
    steps = steps_of(node.attributes)
    gradients = {"weight": weight_grad(x, dy, w.shape[2:], *steps).astype(w.dtype, copy=False)}
    if "bias" in node.module._parameters:
        gradients["bias"] = channel_sums(dy)[0].astype(dy.dtype)
    dx = convolve(dy, w, None, *steps).astype(dy.dtype, copy=False) if need_input[0] else None
    return (dx,), gradients


def _shape(node, shapes):
    (shape,), w, groups = shapes, array_of(node, "weight", 4), node.attributes["groups"]
    if len(shape) != 3 or shape[0] != len(w) or len(w) % groups:
        wanted = f"(batch, {len(w)}, H, W) in {groups} groups"
        raise ValueError(f"{node.name}: takes {wanted}, not (batch, {', '.join(map(str, shape))})")
    outputs, size = w.shape[1] * groups, _output_size(shape[1:], w.shape[2:], node.attributes)
    if min(size) < 1:
        raise ValueError(f"{node.name}: images of {shape[1:]} pixels would have {size} pixels after it")
    if node.bias is not None and node.bias.shape != (outputs,):
        raise ValueError(f"{node.name}: bias must have shape {(outputs,)}, not {node.bias.shape}")
    return (outputs, *size)


#: Weights of shape (C, O / groups, KH, KW).
CONV_TRANSPOSE2D = register(
    name="conv_transpose2d",
    forward=_forward,
    backward=_backward,
    shape=_shape,
    attributes=conv_transpose2d_attributes,
    parameters=("weight", "bias"),
)
