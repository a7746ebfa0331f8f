"""Probabilities: exponentials divided by their sum."""

from __future__ import annotations

import numpy as np

from .record import register, whole_number


def softmax(x, axis=-1):
    """Return ``exp(x) / sum(exp(x))`` along an axis, in a form in which nothing overflows."""
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


#: The axis counts from the batch axis, 0.
SOFTMAX = register(
    name="softmax", forward=_forward, backward=_backward, shape=_shape, attributes=_attributes, keeps_output=True
)
