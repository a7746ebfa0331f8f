"""Probabilities: exponentials divided by their sum."""

from __future__ import annotations

import numpy as np

from .. import integer, rows
from .integer_layer import StoredGrid, have_integer_form, lower_to
from .record import Codes, register, same_shape, whole_number


def softmax(x, axis=-1):
    """Return ``exp(x) / sum(exp(x))`` along an axis, in which nothing overflows; float32 by `rows.softmax`."""
    if x.dtype == np.float32:
        return np.moveaxis(rows.softmax(np.moveaxis(x, axis, -1)), -1, axis)
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def softmax_backward(dy, y, axis=-1):
    """Gradient of `softmax`, from its output."""
    return y * (dy - (dy * y).sum(axis=axis, keepdims=True))


def _attributes(axis):
    return {"axis": whole_number(axis, "axis", least=1)}


def _forward(node, inputs, run):
    y = softmax(*inputs, **node.attributes)
    return y, y


def _backward(node, dy, saved, need_input):
    return (softmax_backward(dy, saved, **node.attributes),), {}


def _shape(node, shapes):
    (shape,) = shapes
    if node.attributes["axis"] > len(shape) or 0 in shape:
        raise ValueError(f"softmax: axis {node.attributes['axis']} of (batch, {', '.join(map(str, shape))})")
    return shape


def _of_rows(node, shapes):
    is_last = node.attributes["axis"] == len(shapes[0])
    return None if is_last else "only a softmax along the last axis has an integer form"


def _integer_output(node, inputs, saved, out_qparams):
    (x,) = inputs
    on_codes = isinstance(x, Codes) and have_integer_form(x.qparams, out_qparams)
    return integer.softmax(x.codes, x.qparams, out_qparams) if on_codes else None


def _integer_forward(node, inputs, run):
    (x,) = inputs
    return Codes(integer.softmax(x.codes, x.qparams, node.out_qparams), node.out_qparams), None


def _integer_step(node, inputs, steps):
    return steps.softmax(*inputs, node.out_qparams)


def _step(node, inputs, steps):
    (x,) = inputs
    return steps.softmax_floats(x) if node.attributes["axis"] == len(x.shape) - 1 else None


#: The axis counts from the batch axis, 0.
SOFTMAX = register(
    name="softmax",
    forward=_forward,
    backward=_backward,
    shape=_shape,
    attributes=_attributes,
    keeps_output=True,
    lower=lower_to("softmax_integer"),
    no_integers=_of_rows,
    integer_output=_integer_output,
    step=_step,
)
SOFTMAX_INTEGER = register(
    name="softmax_integer",
    forward=_integer_forward,
    backward=None,
    stores=StoredGrid,
    shape=same_shape,
    attributes=_attributes,
    takes_codes=True,
    step=_integer_step,
)
