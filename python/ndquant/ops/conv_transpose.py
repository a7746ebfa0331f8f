"""Transposed convolution in two dimensions: the gradient of a convolution as a layer, in float and on integers.

Shape letters: N images, C channels, H x W pixels, O outputs, windows of KH x KW taps. Weights have their outputs first,
as those of all layers, so that what goes by output (scales, normalizations, factors) lies on axis 0.
"""

from __future__ import annotations

import numpy as np

from ..channels import channel_sums
from ..convolution import conv_transpose2d_requantized
from ..layout import swap_channels
from .conv import conv2d_attributes, functions_for, operands, steps_of, straight_through
from .integer_layer import IntegerLayer
from .layer import LayerForm, LayerSaved, activation_backward
from .pool import pair, transposed_size
from .record import Codes, array_of, register


def conv_transpose2d_attributes(stride=1, padding=0, output_padding=0, groups=1, dilation=1, activation=None):
    """Return the attributes of a transposed convolution, checked and completed."""
    attributes = conv2d_attributes(stride, padding, dilation, groups, activation)
    extra = pair(output_padding, "output_padding")
    if any(e >= s for e, s in zip(extra, attributes["stride"], strict=True)):
        raise ValueError(f"output_padding must be below stride, {attributes['stride']}, not {extra}")
    return {**attributes, "output_padding": extra}


def _size(shape, w, attributes):
    steps = (attributes[name] for name in ("stride", "padding", "dilation", "output_padding"))
    return transposed_size(shape, w.shape[2:], *steps)


def _on_floats(x, w, b, attributes):
    _, input_grad, _ = functions_for(x, w)
    inputs_first, size = swap_channels(w, attributes["groups"]), _size(x.shape[2:], w, attributes)
    y = input_grad(x, inputs_first, size, *steps_of(attributes)).astype(np.result_type(x, w), copy=False)
    y = y if b is None else y + b[:, None, None]
    return y, LayerSaved(x, w, b is not None, attributes=attributes)


def _on_integers(x, packed, out_qparams, attributes, activation):
    steps = (attributes[name] for name in ("stride", "padding", "output_padding", "groups", "dilation"))
    return conv_transpose2d_requantized(x.codes, x.qparams, packed, out_qparams, *steps, activation=activation)


def _on_codes(x, w, b, w_codes, packed, attributes, activation=None, w_is_inside=False):
    y = _on_integers(x, packed, None, attributes, activation)
    w_codes = Codes(w_codes, packed.w_qparams)
    return y, LayerSaved(None, w, b is not None, activation, y, x, w_codes, packed, w_is_inside, attributes)


def _backward(dy, saved, *, need_dx=True):
    dy = activation_backward(dy, saved.y, saved.activation)
    db = channel_sums(dy)[0].astype(dy.dtype) if saved.has_bias else None
    x, w = operands(saved)
    convolve, _, weight_grad = functions_for(dy, x, w)
    steps, groups = steps_of(saved.attributes), saved.attributes["groups"]
    dw = swap_channels(weight_grad(x, dy, w.shape[2:], *steps), groups).astype(saved.w.dtype, copy=False)
    dx = convolve(dy, swap_channels(w, groups), None, *steps).astype(dy.dtype, copy=False) if need_dx else None
    return *straight_through(dx, dw, saved), db


def _shape(node, shapes):
    (shape,), w, groups = shapes, array_of(node, "weight", 4), node.attributes["groups"]
    channels = w.shape[1] * groups
    if len(shape) != 3 or shape[0] != channels or len(w) % groups:
        wanted = f"(batch, {channels}, H, W) in {groups} groups"
        raise ValueError(f"{node.name}: takes {wanted}, not (batch, {', '.join(map(str, shape))})")
    size = _size(shape[1:], w, node.attributes)
    if min(size) < 1:
        raise ValueError(f"{node.name}: images of {shape[1:]} pixels would have {size} pixels after it")
    if node.bias is not None and node.bias.shape != w.shape[:1]:
        raise ValueError(f"{node.name}: bias must have shape {w.shape[:1]}, not {node.bias.shape}")
    return (len(w), *size)


FORM = LayerForm(_on_floats, _on_codes, _backward, _on_integers, "conv_transpose2d_integer")

#: Weights of shape (O, C / groups, KH, KW).
CONV_TRANSPOSE2D = register(
    name="conv_transpose2d",
    forward=FORM.forward,
    backward=FORM.gradients,
    shape=_shape,
    attributes=conv_transpose2d_attributes,
    parameters=("weight", "bias"),
    takes_codes=True,
    quantizes_weight=True,
    lower=FORM.lower,
    integer_output=FORM.integer_output,
    absorbs=("batch_norm", "relu", "relu6"),
)


def _integer_step(node, inputs, steps):
    return steps.conv_transpose2d(*inputs, node.module.packed, node.module.out_qparams, **node.attributes)


#: Codes in; codes out, or float32 where the layer has no output `QParams`.
CONV_TRANSPOSE2D_INTEGER = register(
    name="conv_transpose2d_integer",
    forward=FORM.integer_forward,
    backward=None,
    stores=IntegerLayer,
    shape=_shape,
    attributes=conv_transpose2d_attributes,
    takes_codes=True,
    step=_integer_step,
)
