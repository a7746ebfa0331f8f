"""Values that are tuples: several outputs of a network, which its last node makes one, and parts of a node's value."""

from __future__ import annotations

from .record import Parts, register, whole_number


def _forward(node, inputs, run):
    return tuple(inputs), None


def _backward(node, dy, saved, need_input):
    return dy, {}


def _shape(node, shapes):
    return tuple(shapes)


def _step(node, inputs, steps):
    return tuple(value if value.qparams is None else steps.dequantize(value) for value in inputs)


OUTPUTS = register(
    name="outputs", forward=_forward, backward=_backward, shape=_shape, arity=None, keeps_output=True, step=_step
)


def _part_attributes(index):
    return {"index": whole_number(index, "index")}


def _part_forward(node, inputs, run):
    return inputs[0][node.attributes["index"]], None


def _part_backward(node, dy, saved, need_input):
    return (Parts({node.attributes["index"]: dy}),), {}


def _part_shape(node, shapes):
    (parts,), index = shapes, node.attributes["index"]
    if index >= len(parts) or not isinstance(parts[index], tuple):
        raise ValueError(f"{node.name}: there is no part {index} of a value of shape {parts}")
    return parts[index]


def _part_step(node, inputs, steps):
    return inputs[0][node.attributes["index"]]


#: One of the values that a node gives as a tuple; its gradient is a `Parts`.
PART = register(
    name="part",
    forward=_part_forward,
    backward=_part_backward,
    shape=_part_shape,
    attributes=_part_attributes,
    is_view=True,
    step=_part_step,
)
