"""Ops that treat every element by itself."""

from __future__ import annotations

import numpy as np

from ..functional import relu_backward
from .record import Codes, register


def relu(x):
    """Return ``max(x, 0)``, dtype of `x` kept."""
    return np.maximum(x, x.dtype.type(0))


def _forward(node, inputs, run):
    (x,) = inputs
    if isinstance(x, Codes):
        zero = x.codes.dtype.type(x.qparams.zero_point)
        return Codes(np.maximum(x.codes, zero), x.qparams), (x.codes > zero).astype(np.float32)
    return relu(x), x  # not the output, which may be the caller's to change


def _backward(node, dy, saved, need_input):
    return (relu_backward(dy, saved),), {}


def _step(node, inputs, steps):
    (x,) = inputs
    if x.qparams is None:
        return None
    return steps.add("floor_codes", inputs, x.shape, x.qparams, int(x.qparams.zero_point), x.qparams.spec.signed)


RELU = register(
    name="relu",
    forward=_forward,
    backward=_backward,
    shape=lambda node, shapes: shapes[0],
    takes_codes=True,
    keeps_codes=True,
    step=_step,
)
