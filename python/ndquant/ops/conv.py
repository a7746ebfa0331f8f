"""Two-dimensional convolution: in float, and fake-quantized on integers.

Shape letters: N images, C channels, H x W pixels, O outputs, windows of KH x KW taps.
"""

from __future__ import annotations

import numpy as np

from .. import reference
from ..channels import channel_sums
from ..convolution import conv2d_f32, conv2d_f32_input_grad, conv2d_f32_weight_grad, conv2d_requantized
from ..functional import PackedWeight, fake_quantize_backward, quantize
from ..layout import in_memory_order
from .integer_layer import IntegerLayer
from .layer import (
    LayerForm,
    LayerSaved,
    activation_backward,
    check_floats,
    check_layer_qparams,
    fused_attributes,
    quantize_parameters,
)
from .pool import output_length, pair
from .record import Codes, array_of, register, whole_number


def conv2d_attributes(stride=1, padding=0, dilation=1, groups=1, activation=None):
    """Return the attributes of a convolution, checked and completed."""
    return {
        "stride": pair(stride, "stride", least=1),
        "padding": pair(padding, "padding"),
        "dilation": pair(dilation, "dilation", least=1),
        "groups": whole_number(groups, "groups", least=1),
        **fused_attributes(activation),
    }


def conv2d(x, w, b=None, stride=1, padding=0, dilation=1, groups=1, x_qparams=None, w_qparams=None):
    """Convolution of images with windows of weights, in float or exactly on integers.

    With both `QParams` the operands are quantized, multiplied and summed as integers, and the exact sums are scaled
    to float32: what a converted layer computes, so that a loop which trains with this function trains what will run.

    Parameters
    ----------
    x : ndarray of float, shape (N, C, H, W)
        In any memory layout; channels-last, as the result is, is the fastest.
    w : ndarray of float, shape (O, C / groups, KH, KW)
    b : ndarray of float, shape (O,), optional
    stride, padding, dilation : int or tuple of two int, default 1, 0 and 1
        Along y and x. Padding is with zeros, on both sides.
    groups : int, default 1
        Outputs and channels are divided into so many groups; an output sees the channels of its group.
    x_qparams, w_qparams : QParams, optional
        Both or neither. `x_qparams` per tensor; `w_qparams` per tensor or per channel on axis 0.

    Returns
    -------
    y : ndarray of float, shape (N, O, OH, OW)
    saved : LayerSaved
        For `conv2d_backward`.

    Raises
    ------
    TypeError
        If an operand is no array of floats, or only one of the two `QParams` is given.
    ValueError
        If shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> x, w = np.ones((1, 1, 2, 3), np.float32), np.ones((1, 1, 3, 3), np.float32)
    >>> y, saved = nq.conv2d(x, w, np.float32([0.5]), padding=1)
    >>> y
    array([[[[4.5, 6.5, 4.5],
             [4.5, 6.5, 4.5]]]], dtype=float32)
    >>> dx, dw, db = nq.conv2d_backward(np.ones_like(y), saved)
    >>> db
    array([6.], dtype=float32)
    """
    check_layer_qparams("conv2d", x_qparams, w_qparams, rank=4)
    check_floats("conv2d", x=(x, 4), w=(w, 4), b=(b, 1))
    attributes = conv2d_attributes(stride, padding, dilation, groups)
    output_shape("conv2d", x.shape[1:], w, b, attributes)
    if x_qparams is None:
        return _convolve(x, w, b, attributes)
    codes, w_qparams, bias = quantize_parameters(w, b, x_qparams, w_qparams)
    x_codes = Codes(quantize(x, x_qparams), x_qparams)
    y, saved = _convolve_codes(x_codes, w, b, codes, PackedWeight(codes, w_qparams, bias), attributes)
    saved.x = x
    return y, saved


def output_shape(name, shape, w, b, attributes):
    """Return (O, OH, OW) for images of `shape`, (C, H, W); raise ValueError where the arrays do not fit."""
    groups = attributes["groups"]
    if len(shape) != 3:
        raise ValueError(f"{name}: takes (batch, C, H, W), not (batch, {', '.join(map(str, shape))})")
    outputs, channels, *window = w.shape
    if outputs % groups:
        raise ValueError(f"{name}: groups must divide the {outputs} outputs of the weight, not be {groups}")
    if shape[0] != channels * groups:
        wanted = f"takes {channels * groups} channels, not {shape[0]}"
        raise ValueError(f"{name}: a weight of shape {w.shape} in {groups} groups {wanted}")
    if b is not None and b.shape != (outputs,):
        raise ValueError(f"{name}: the bias must have shape {(outputs,)}, not {b.shape}")
    steps = (attributes[step] for step in ("stride", "padding", "dilation"))
    try:
        return (outputs, *(output_length(*axis) for axis in zip(shape[1:], window, *steps, strict=True)))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def steps_of(attributes):
    """Return stride, padding, dilation and groups."""
    return tuple(attributes[name] for name in ("stride", "padding", "dilation", "groups"))


def functions_for(*arrays):
    """Return the convolution and its gradients for these arrays; for dtypes wider than float32, the definition."""
    if np.result_type(*arrays).itemsize <= np.dtype(np.float32).itemsize:
        return conv2d_f32, conv2d_f32_input_grad, conv2d_f32_weight_grad
    return reference.conv2d_float, reference.conv2d_float_input_grad, reference.conv2d_float_weight_grad


def _convolve(x, w, b, attributes):
    forward, _, _ = functions_for(x, w)
    y = forward(x, w, b, *steps_of(attributes)).astype(np.result_type(x, w), copy=False)
    return y, LayerSaved(x, w, b is not None, attributes=attributes)


def _convolve_codes(x, w, b, w_codes, packed, attributes, activation=None, w_is_inside=False):
    y = conv2d_requantized(x.codes, x.qparams, packed, None, *steps_of(attributes), activation=activation)
    w_codes = Codes(w_codes, packed.w_qparams)
    return y, LayerSaved(None, w, b is not None, activation, y, x, w_codes, packed, w_is_inside, attributes)


def conv2d_backward(dy, saved, *, need_dx=True):
    """Gradients of `conv2d`; straight-through where the forward pass was quantized.

    Parameters
    ----------
    dy : ndarray of float, shape (N, O, OH, OW)
    saved : LayerSaved
        Second result of `conv2d`.
    need_dx : bool, default True
        False skips the gradient of the input, which the first layer of a network does not need.

    Returns
    -------
    dx : ndarray of float, shape (N, C, H, W), or None
    dw : ndarray of float, shape (O, C / groups, KH, KW)
    db : ndarray of float, shape (O,), or None where there was no bias

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> y, saved = nq.conv2d(np.float32([[[[1, 2]]]]), np.float32([[[[3]]]]))
    >>> dx, dw, db = nq.conv2d_backward(np.float32([[[[1, 1]]]]), saved)
    >>> dx, dw, db
    (array([[[[3., 3.]]]], dtype=float32), array([[[[3.]]]], dtype=float32), None)
    """
    dy = activation_backward(dy, saved.y, saved.activation)
    db = channel_sums(dy)[0].astype(dy.dtype) if saved.has_bias else None
    x, w = operands(saved)
    _, input_grad, weight_grad = functions_for(dy, x, w)
    steps = steps_of(saved.attributes)
    dw = weight_grad(dy, x, w.shape[2:], *steps).astype(saved.w.dtype, copy=False)
    dx = input_grad(dy, w, x.shape[2:], *steps).astype(dy.dtype, copy=False) if need_dx else None
    return *straight_through(dx, dw, saved), db


def operands(saved):
    """Return what was multiplied, as floats."""
    return (saved.x, saved.w) if saved.packed is None else (saved.x_codes.dequantize(), saved.w_codes.dequantize())


def straight_through(dx, dw, saved):
    """Return gradients of codes as those of the floats that were quantized, if some were."""
    if saved.packed is None:
        return dx, dw
    if not saved.w_is_inside:
        dw = in_memory_order(lambda d, a: fake_quantize_backward(d, a, saved.w_codes.qparams), dw, saved.w)
    if dx is not None and saved.x is not None:
        dx = in_memory_order(lambda d, a: fake_quantize_backward(d, a, saved.x_codes.qparams), dx, saved.x)
    return dx, dw


def _on_integers(x, packed, out_qparams, attributes, activation):
    return conv2d_requantized(x.codes, x.qparams, packed, out_qparams, *steps_of(attributes), activation=activation)


def _shape(node, shapes):
    return output_shape(node.name, shapes[0], array_of(node, "weight", 4), node.bias, node.attributes)


FORM = LayerForm(_convolve, _convolve_codes, conv2d_backward, _on_integers, "conv2d_integer")

CONV2D = register(
    name="conv2d",
    forward=FORM.forward,
    backward=FORM.gradients,
    shape=_shape,
    attributes=conv2d_attributes,
    parameters=("weight", "bias"),
    takes_codes=True,
    quantizes_weight=True,
    lower=FORM.lower,
    integer_output=FORM.integer_output,
    absorbs=("batch_norm", "relu", "relu6"),
)


def _integer_step(node, inputs, steps):
    return steps.conv2d(*inputs, node.module.packed, node.module.out_qparams, **node.attributes)


#: Codes in; codes out, or float32 where the layer has no output `QParams`.
CONV2D_INTEGER = register(
    name="conv2d_integer",
    forward=FORM.integer_forward,
    backward=None,
    stores=IntegerLayer,
    shape=_shape,
    attributes=conv2d_attributes,
    takes_codes=True,
    step=_integer_step,
)
