"""The fully connected layer: in float, fake-quantized on integers, and as an integer op.

Shape letters: N examples, K input features, O output features.
"""

from __future__ import annotations

from math import prod

import numpy as np

from ..functional import (
    PackedWeight,
    fake_quantize_backward,
    linear_integer,
    matmul_f32,
    quantize,
)
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
from .record import Codes, array_of, register


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
        Of float32 operands by `matmul_f32`: its bits depend neither on the processor nor on the other rows.
    saved : LayerSaved
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
    check_layer_qparams("linear", x_qparams, w_qparams, rank=2)
    if x_qparams is None:
        y = product(x, w.T)
        return (y if b is None else np.add(y, b, out=y)), LayerSaved(x, w, b is not None)
    y, saved = linear_on_codes(Codes(quantize(x, x_qparams), x_qparams), w, b, w_qparams)
    saved.x = x
    return y, saved


def product(a, b):
    """Return ``a @ b``; of float32 by `matmul_f32`, whose bits depend neither on the processor nor on other rows."""
    return matmul_f32(a, b) if a.dtype == b.dtype == np.float32 else a @ b


def linear_on_codes(x, w, b, w_qparams):
    """Do what `linear` does with its `QParams`, on an input that is quantized already."""
    codes, w_qparams, bias = quantize_parameters(w, b, x.qparams, w_qparams)
    return _multiply(x, w, b, codes, PackedWeight(codes, w_qparams, bias))


def _multiply(x, w, b, w_codes, packed, attributes=None, activation=None, w_is_inside=False):
    y = linear_integer(x.codes, x.qparams, packed, activation=activation)
    w_codes = Codes(w_codes, packed.w_qparams)
    return y, LayerSaved(None, w, b is not None, activation, y, x, w_codes, packed, w_is_inside)


def linear_backward(dy, saved, *, need_dx=True):
    """Gradients of `linear`; straight-through where the forward pass was quantized.

    Parameters
    ----------
    dy : ndarray of float, shape (N, O)
    saved : LayerSaved
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
    dy = activation_backward(dy, saved.y, saved.activation)
    db = np.add.reduce(dy, axis=0) if saved.has_bias else None
    if saved.packed is None:
        return product(dy, saved.w) if need_dx else None, product(dy.T, saved.x), db
    dw = matmul_f32(dy.T, saved.x_codes.codes, saved.x_codes.qparams)
    if not saved.w_is_inside:
        fake_quantize_backward(dw, saved.w, saved.w_codes.qparams, out=dw)
    dx = matmul_f32(dy, saved.w_codes.codes, saved.w_codes.qparams) if need_dx else None
    if dx is not None and saved.x is not None:
        fake_quantize_backward(dx, saved.x, saved.x_codes.qparams, out=dx)
    return dx, dw, db


def check_operands(x, w, b):
    """Raise unless x, w and b are float arrays of shapes (N, K), (O, K) and (O,)."""
    check_floats("linear", x=(x, 2), w=(w, 2), b=(b, 1))
    if x.shape[1] != w.shape[1]:
        raise ValueError(f"linear: x of shape {x.shape} does not fit w of shape {w.shape}: expected (N, K), (O, K)")
    if b is not None and b.shape != w.shape[:1]:
        raise ValueError(f"linear: b must have shape {w.shape[:1]} for w of shape {w.shape}, not {b.shape}")


def _shape(node, shapes):
    (shape,) = shapes
    out_features, in_features = array_of(node, "weight", 2).shape
    if node.bias is not None and node.bias.shape != (out_features,):
        raise ValueError(f"{node.name}: bias must have shape {(out_features,)}, not {node.bias.shape}")
    if not shape or shape[-1] != in_features:
        raise ValueError(f"{node.name}: takes (batch, {in_features}), not (batch, {', '.join(map(str, shape))})")
    return (*shape[:-1], out_features)


def _on_floats(x, w, b, attributes):
    y, saved = linear(_rows(x), w, b)
    return y.reshape(*x.shape[:-1], len(w)), saved


def _rows(x):
    """Return an array of several axes as a matrix: a layer treats every row along the last axis by itself."""
    return x if x.ndim == 2 else x.reshape(prod(x.shape[:-1]), x.shape[-1])


def _on_codes(x, w, b, w_codes, packed, attributes, activation, w_is_inside):
    y, saved = _multiply(x.like(_rows(x.codes)), w, b, w_codes, packed, attributes, activation, w_is_inside)
    return y.reshape(*x.shape[:-1], len(w)), saved


def _gradients(dy, saved, *, need_dx=True):
    saved.y = saved.y if saved.y is None else _rows(saved.y)
    dx, dw, db = linear_backward(_rows(dy), saved, need_dx=need_dx)
    return (dx if dx is None else dx.reshape(*dy.shape[:-1], dx.shape[-1])), dw, db


def _on_integers(x, packed, out_qparams, attributes, activation):
    return linear_integer(x.codes, x.qparams, packed, out_qparams, activation)


FORM = LayerForm(_on_floats, _on_codes, _gradients, _on_integers, "linear_integer")

LINEAR = register(
    name="linear",
    forward=FORM.forward,
    backward=FORM.gradients,
    shape=_shape,
    attributes=fused_attributes,
    parameters=("weight", "bias"),
    takes_codes=True,
    quantizes_weight=True,
    lower=FORM.lower,
    integer_output=FORM.integer_output,
    absorbs=("batch_norm", "relu", "relu6"),
)


def _integer_step(node, inputs, steps):
    layer = node.module
    return steps.linear(*inputs, layer.packed, layer.out_qparams, node.attributes.get("activation"))


#: Codes in; codes out, or float32 where the layer has no output `QParams`.
LINEAR_INTEGER = register(
    name="linear_integer",
    forward=FORM.integer_forward,
    backward=None,
    stores=IntegerLayer,
    shape=_shape,
    attributes=fused_attributes,
    takes_codes=True,
    step=_integer_step,
)
