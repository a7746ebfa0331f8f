"""The fully connected layer: in float, fake-quantized on integers, and as an integer op.

Shape letters: N examples, K input features, O output features.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from ..functional import (
    PackedWeight,
    fake_quantize_backward,
    linear_integer,
    matmul_f32,
    quantize,
    quantize_bias,
    quantize_weight,
    relu_backward,
)
from ..profiles import PROFILES
from ..qparams import QParams
from .integer_layer import IntegerLayer
from .record import Codes, array_of, real, register


def quantize_parameters(w, b, x_qparams, w_qparams):
    """Quantize weight and bias of a layer whose input is quantized by `x_qparams`; see `quantize_bias`.

    The one place where training and conversion get a layer's integers from.

    Parameters
    ----------
    w : ndarray of float, shape (O, K)
    b : ndarray of float, shape (O,), or None
    x_qparams, w_qparams : QParams

    Returns
    -------
    codes : ndarray of int8 or uint8, shape (O, K)
    w_qparams : QParams
        With the scale that was used.
    bias : ndarray of int32, shape (O,), or None
        float32 in a profile that keeps the bias in float.
    """
    if PROFILES[w_qparams.profile].bias == "float":
        return quantize(w, w_qparams), w_qparams, None if b is None else np.asarray(b, np.float32)
    bias, raised = quantize_bias(b, x_qparams.scale, w_qparams.scale)
    if raised is not None:
        w_qparams = QParams(raised[()], w_qparams.zero_point, w_qparams.spec, profile=w_qparams.profile)
    return quantize(w, w_qparams), w_qparams, bias


@dataclass(slots=True)
class LinearSaved:
    """What `linear_backward` needs of a forward pass; of the integer form also its operands."""

    x: np.ndarray | None  # None where the input came as codes: the quantizer in front masks the gradient
    w: np.ndarray
    has_bias: bool
    activation: str | None = None
    y: np.ndarray | None = None
    x_codes: Codes | None = None
    w_codes: Codes | None = None
    packed: PackedWeight | None = None
    w_is_inside: bool = False  # no weight lies outside the range of its codes, so all of its gradient passes


def linear(x, w, b=None, x_qparams=None, w_qparams=None):
    """Fully connected layer ``x @ w.T + b``, in float or exactly on integers.

    With both `QParams` the operands are quantized, multiplied and summed as integers, and the exact sums are scaled
    to float32: what a converted layer computes, so that a loop which trains with this function trains what will run.

    Parameters
    ----------
    x : ndarray of float, shape (N, K)
    w : ndarray of float, shape (O, K)
    b : ndarray of float, shape (O,), optional
    x_qparams, w_qparams : QParams, optional
        Both or neither. `x_qparams` per tensor; `w_qparams` per tensor or per channel on axis 0.

    Returns
    -------
    y : ndarray of float, shape (N, O)
    saved : LinearSaved
        For `linear_backward`.

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
    >>> x, w, b = np.float32([[1, 2]]), np.float32([[3, 4], [5, 6]]), np.float32([0.5, 0])
    >>> y, saved = nq.linear(x, w, b)
    >>> y
    array([[11.5, 17. ]], dtype=float32)
    >>> dx, dw, db = nq.linear_backward(np.ones_like(y), saved)
    >>> dx
    array([[ 8., 10.]], dtype=float32)
    """
    check_operands(x, w, b)
    check_layer_qparams(x_qparams, w_qparams)
    if x_qparams is None:
        y = x @ w.T
        return (y if b is None else np.add(y, b, out=y)), LinearSaved(x, w, b is not None)
    y, saved = linear_on_codes(Codes(quantize(x, x_qparams), x_qparams), w, b, w_qparams)
    saved.x = x
    return y, saved


def linear_on_codes(x, w, b, w_qparams):
    """Do what `linear` does with its `QParams`, on an input that is quantized already."""
    codes, w_qparams, bias = quantize_parameters(w, b, x.qparams, w_qparams)
    return _multiply(x, w, b, codes, PackedWeight(codes, w_qparams, bias))


def _multiply(x, w, b, w_codes, packed, activation=None, w_is_inside=False):
    y = linear_integer(x.codes, x.qparams, packed, activation=activation)
    w_codes = Codes(w_codes, packed.w_qparams)
    return y, LinearSaved(None, w, b is not None, activation, y, x, w_codes, packed, w_is_inside)


def linear_backward(dy, saved, *, need_dx=True):
    """Gradients of `linear`; straight-through where the forward pass was quantized.

    Parameters
    ----------
    dy : ndarray of float, shape (N, O)
    saved : LinearSaved
        Second result of `linear`.
    need_dx : bool, default True
        False skips the gradient of the input, which the first layer of a network does not need.

    Returns
    -------
    dx : ndarray of float, shape (N, K), or None
    dw : ndarray of float, shape (O, K)
    db : ndarray of float, shape (O,), or None where there was no bias

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> y, saved = nq.linear(np.float32([[1, 2]]), np.float32([[3, 4]]))
    >>> dx, dw, db = nq.linear_backward(np.float32([[1]]), saved)
    >>> dw, db
    (array([[1., 2.]], dtype=float32), None)
    """
    if saved.activation == "relu":
        dy = relu_backward(dy, saved.y)
    db = np.add.reduce(dy, axis=0) if saved.has_bias else None
    if saved.packed is None:
        return dy @ saved.w if need_dx else None, dy.T @ saved.x, db
    dw = matmul_f32(dy.T, saved.x_codes.codes, saved.x_codes.qparams)
    if not saved.w_is_inside:
        fake_quantize_backward(dw, saved.w, saved.w_codes.qparams, out=dw)
    dx = matmul_f32(dy, saved.w_codes.codes, saved.w_codes.qparams) if need_dx else None
    if dx is not None and saved.x is not None:
        fake_quantize_backward(dx, saved.x, saved.x_codes.qparams, out=dx)
    return dx, dw, db


def check_operands(x, w, b):
    """Raise unless x, w and b are float arrays of shapes (N, K), (O, K) and (O,)."""
    for name, array, rank in (("x", x, 2), ("w", w, 2), ("b", b, 1)):
        if array is None and name == "b":
            continue
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(f"linear: {name} must be an ndarray of floats, not {got}")
        if array.ndim != rank:
            raise ValueError(f"linear: {name} must have {rank} axes, not shape {array.shape}")
    if x.shape[1] != w.shape[1]:
        raise ValueError(f"linear: x of shape {x.shape} does not fit w of shape {w.shape}: expected (N, K), (O, K)")
    if b is not None and b.shape != w.shape[:1]:
        raise ValueError(f"linear: b must have shape {w.shape[:1]} for w of shape {w.shape}, not {b.shape}")


def check_layer_qparams(x_qparams, w_qparams):
    """Raise unless both are given, per tensor and per tensor or output, or neither."""
    if (x_qparams is None) != (w_qparams is None):
        missing = "x_qparams" if x_qparams is None else "w_qparams"
        raise TypeError(f"linear: {missing} is missing; give both x_qparams and w_qparams, or neither")
    for name, qparams, axes in (("x_qparams", x_qparams, (None,)), ("w_qparams", w_qparams, (None, -2, 0))):
        if qparams is not None and not isinstance(qparams, QParams):
            raise TypeError(f"linear: {name} must be a QParams, not {type(qparams).__name__}")
        if qparams is not None and qparams.spec.axis not in axes:
            raise ValueError(f"linear: {name} must have spec.axis in {axes}, not {qparams.spec.axis}")


def _quantized_weight(quantizer, w, b, x_qparams, training):
    if quantizer.in_one_call:
        return quantize_weight(w, b, x_qparams.scale, quantizer.config.spec, quantizer.profile)
    codes, w_qparams, bias = quantize_parameters(w, b, x_qparams, quantizer.qparams_for(w, training))
    return codes, PackedWeight(codes, w_qparams, bias)


def _parameters(node):
    """Weight and bias of a node, past the attribute protocols of Node and Module: training reads them often."""
    parameters = node.module._parameters
    bias = parameters.get("bias")
    return parameters["weight"].data, None if bias is None else bias.data


def _forward(node, inputs, run):
    (x,) = inputs
    activation = node.attributes.get("activation")
    w, b = _parameters(node)
    if isinstance(x, Codes) and node.weight_quantizer is not None:
        quantizer = node.weight_quantizer
        w_codes, packed = _quantized_weight(quantizer, w, b, x.qparams, run.training)
        return _multiply(x, w, b, w_codes, packed, activation, quantizer.holds_all)
    y, saved = linear(real(x), w, b)
    if activation == "relu":
        y = np.maximum(y, np.float32(0), out=y)
        saved.activation, saved.y = activation, y
    return y, saved


def _backward(node, dy, saved, need_input):
    dx, dw, db = linear_backward(dy, saved, need_dx=need_input[0])
    return (dx,), {"weight": dw} if db is None else {"weight": dw, "bias": db}


def fused_attributes(activation=None):
    """Return the attributes of a layer: the activation that is part of it, if there is one."""
    if activation not in (None, "relu"):
        raise ValueError(f"activation must be 'relu', not {activation!r}")
    return {} if activation is None else {"activation": activation}


def _shape(node, shapes):
    (shape,) = shapes
    out_features, in_features = array_of(node, "weight", 2).shape
    if node.bias is not None and node.bias.shape != (out_features,):
        raise ValueError(f"{node.name}: bias must have shape {(out_features,)}, not {node.bias.shape}")
    if len(shape) != 1 or shape[0] != in_features:
        raise ValueError(f"{node.name}: takes (batch, {in_features}), not (batch, {', '.join(map(str, shape))})")
    return (out_features,)


def _lower(node, input_qparams):
    w_qparams = node.weight_quantizer.qparams_for(node.weight)
    integers = quantize_parameters(node.weight, node.bias, *input_qparams, w_qparams)
    return "linear_integer", IntegerLayer(*integers, None)


LINEAR = register(
    name="linear",
    forward=_forward,
    backward=_backward,
    shape=_shape,
    attributes=fused_attributes,
    parameters=("weight", "bias"),
    takes_codes=True,
    lower=_lower,
    absorbs=("relu",),
)


def integer_output(node, saved, out_qparams):
    """Output codes of a `linear` node that ran on integers, by its integer output stage; None where it ran in float."""
    if saved.packed is None:
        return None
    x, activation = saved.x_codes, node.attributes.get("activation")
    return linear_integer(x.codes, x.qparams, saved.packed, out_qparams, activation)


def _integer_forward(node, inputs, run):
    (x,) = inputs
    layer, activation = node.module, node.attributes.get("activation")
    y = linear_integer(x.codes, x.qparams, layer.packed, layer.out_qparams, activation)
    return (y if layer.out_qparams is None else Codes(y, layer.out_qparams)), None


def _integer_step(node, inputs, steps):
    (x,) = inputs
    layer, is_relu = node.module, node.attributes.get("activation") == "relu"
    rows, (outputs, _) = prod(x.shape[:-1]), layer.weight.shape
    fbgemm = layer.out_qparams is not None and PROFILES[layer.out_qparams.profile].requantize == "fbgemm"
    constants = rows, x.qparams, layer.packed._packed, layer.out_qparams, fbgemm, is_relu
    return steps.add("linear", inputs, (*x.shape[:-1], outputs), layer.out_qparams, *constants)


#: Codes in; codes out, or float32 where the layer has no output `QParams`.
LINEAR_INTEGER = register(
    name="linear_integer",
    forward=_integer_forward,
    backward=None,
    shape=_shape,
    attributes=fused_attributes,
    takes_codes=True,
    step=_integer_step,
)
