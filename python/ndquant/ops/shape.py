"""Ops that only rearrange elements."""

from __future__ import annotations

from math import prod

from .record import Codes, register


def _forward(node, inputs, run):
    (x,) = inputs
    shape = (x.shape[0], *node.attributes["shape"])
    y = Codes(x.codes.reshape(shape), x.qparams) if isinstance(x, Codes) else x.reshape(shape)
    return y, x.shape


def _backward(node, dy, saved, need_input):
    return (dy.reshape(saved),), {}


def _shape(node, shapes):
    target = tuple(node.attributes["shape"])
    if prod(target) != prod(shapes[0]):
        raise ValueError(f"reshape: {prod(shapes[0])} elements per example, of shape {shapes[0]}, do not fill {target}")
    return target


def _step(node, inputs, steps):
    (x,) = inputs
    return steps.view(x, (x.shape[0], *node.attributes["shape"]))


#: Shapes are without the batch axis, which every op keeps in front.
RESHAPE = register(
    name="reshape",
    forward=_forward,
    backward=_backward,
    shape=_shape,
    takes_codes=True,
    keeps_codes=True,
    step=_step,
)
