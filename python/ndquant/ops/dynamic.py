"""Layers whose weights are codes and whose inputs are quantized as they come, row by row; outputs are floats.

Shape letters: N examples or sequences, T steps, H hidden features, G gates.
"""

from __future__ import annotations

import numpy as np

from ..dynamic import RowWeight, linear_rows, recurrence
from ..errors import QuantizationError
from ..grouped import GroupedWeight
from .layer import fused_attributes
from .record import StoredIntegers, register
from .recurrent import CELLS, initial_states, lengths_of, recurrent_attributes, recurrent_shape, time_first


class DynamicLayer(StoredIntegers):
    """The weights of a node as codes, under the names of its float weights.

    Attributes
    ----------
    weight : RowWeight or GroupedWeight
    weight_ih, weight_hh : RowWeight
        Of recurrent layers instead.
    """

    #: {name of a weight: name of its bias}
    BIASES = {"weight": "bias", "weight_ih": "bias_ih", "weight_hh": "bias_hh"}

    #: How weights of 4 bits were rounded, where that is known: see `workflows.four_bits`.
    method = None

    def __init__(self, **weights):
        for name, weight in weights.items():
            setattr(self, name, weight)

    @classmethod
    def of(cls, module):
        """Quantize the weights of a float node's module."""
        arrays = module._parameters
        made = {}
        for name, bias in cls.BIASES.items():
            if name in arrays:
                made[name] = RowWeight.of(arrays[name].data, arrays[bias].data if bias in arrays else None)
        return cls(**made)

    def integers(self):
        """Return codes, scales and float biases as plain arrays."""
        found = {}
        for name, weight in self.weights.items():
            found[name], found[f"{name}_scale"] = np.array(weight.codes), np.array(weight.qparams.scale)
            if isinstance(weight, GroupedWeight):
                found[f"{name}_zero_point"] = np.array(weight.qparams.zero_point)
            found[self.BIASES[name]] = None if weight.bias is None else np.array(weight.bias)
        return found

    @property
    def weights(self):
        """{name: `RowWeight` or `GroupedWeight`}."""
        return {name: self.__dict__[name] for name in self.BIASES if name in self.__dict__}


def _named(node, function, *arguments, **more):
    """Call a function; an error about the data names the layer."""
    try:
        return function(*arguments, **more)
    except ValueError as error:
        raise QuantizationError(f"{node.name}: {error}") from None


def _linear_forward(node, inputs, run):
    return _named(node, linear_rows, *inputs, node.module.weight, **node.attributes), None


def _linear_shape(node, shapes):
    (shape,), (outputs, features) = shapes, node.module.weight.shape
    if not shape or shape[-1] != features:
        raise ValueError(f"{node.name}: takes (batch, {features}), not (batch, {', '.join(map(str, shape))})")
    return (*shape[:-1], outputs)


def _linear_step(node, inputs, steps):
    return _named(node, steps.linear_rows, *inputs, node.module.weight, **node.attributes)


LINEAR_DYNAMIC = register(
    name="linear_dynamic",
    forward=_linear_forward,
    backward=None,
    stores=DynamicLayer,
    shape=_linear_shape,
    attributes=fused_attributes,
    step=_linear_step,
)


def _recurrent_forward(node, inputs, run):
    cell, layer = CELLS[_float_name(node)], node.module
    x = np.ascontiguousarray(time_first(inputs[0], node.attributes))
    steps, count, _ = x.shape
    states = initial_states(node, inputs, cell, count, layer.weight_hh.codes.shape[1], np.float32)
    lengths = lengths_of(node, inputs, steps, count)
    gx = _named(node, linear_rows, x, layer.weight_ih)
    y, states = _named(node, recurrence, gx, layer.weight_hh, states, lengths, node.attributes["reverse"])
    return tuple(time_first(a, node.attributes) for a in (y, *(state[None] for state in states))), None


def _float_name(node):
    return node.op.name.removesuffix("_dynamic")


def _recurrent_shape(node, shapes):
    layer = node.module
    return recurrent_shape(node, shapes, CELLS[_float_name(node)], layer.weight_ih.codes, layer.weight_hh.codes)


for _name in CELLS:
    register(
        name=f"{_name}_dynamic",
        forward=_recurrent_forward,
        backward=None,
        stores=DynamicLayer,
        shape=_recurrent_shape,
        attributes=recurrent_attributes,
        arity=None,
        takes_indices=True,
        keeps_output=True,
    )

#: {op: its dynamic form}
DYNAMIC = {name: f"{name}_dynamic" for name in ("linear", *CELLS)}
