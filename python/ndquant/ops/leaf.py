"""Values that no input gives: parameters and constants that `forward` computes with, outside any layer."""

from __future__ import annotations

from .record import Fixed, register


def _parameter_forward(node, inputs, run):
    return node.module._parameters["value"].data, None


def _parameter_backward(node, dy, saved, need_input):
    return (), {"value": dy}


def _constant_forward(node, inputs, run):
    return node.module._buffers["value"].data, None


def _constant_backward(node, dy, saved, need_input):
    return (), {}


def _constant_step(node, inputs, steps):
    return node.value


def _shape(node, shapes):
    return Fixed(node.value.shape)


#: The module of such a node holds the array as its only one, "value".
PARAMETER = register(
    name="parameter",
    forward=_parameter_forward,
    backward=_parameter_backward,
    shape=_shape,
    arity=0,
    parameters=("value",),
)
CONSTANT = register(
    name="constant",
    forward=_constant_forward,
    backward=_constant_backward,
    shape=_shape,
    arity=0,
    buffers=("value",),
    step=_constant_step,
)
