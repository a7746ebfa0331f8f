"""Ops that treat every element by itself."""

from __future__ import annotations

import numpy as np

from .record import Codes, register


def relu(x):
    """Return ``max(x, 0)``, dtype of `x` kept."""
    return np.maximum(x, x.dtype.type(0))


def relu_backward(dy, y):
    """Gradient of `relu`: `dy` where the output `y` is positive, else 0 (a select: a NaN in `dy` stays out)."""
    return np.where(y > 0, dy, dy.dtype.type(0))


def _forward(node, inputs, run):
    (x,) = inputs
    if isinstance(x, Codes):
        zero = x.codes.dtype.type(x.qparams.zero_point)
        y = Codes(np.maximum(x.codes, zero), x.qparams)
        return y, y.codes > zero
    y = relu(x)
    return y, y > 0


def _backward(node, dy, saved, need_input):
    return (np.where(saved, dy, dy.dtype.type(0)),), {}


RELU = register(
    name="relu",
    forward=_forward,
    backward=_backward,
    shape=lambda node, shapes: shapes[0],
    takes_codes=True,
    keeps_codes=True,
)
