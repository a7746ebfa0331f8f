"""Rows of a table, chosen by integers.

Shape letters: N examples, V rows of the table, E features.
"""

from __future__ import annotations

import numpy as np

from .record import Indices, array_of, register, whole_number


def embedding_attributes(padding_idx=None):
    """Return the attributes of `embedding`, checked."""
    return {"padding_idx": None if padding_idx is None else whole_number(padding_idx, "padding_idx")}


def check_indices(x, length, name):
    """Raise unless all integers of `x` are rows of a table of this length."""
    if x.size and not 0 <= x.min() <= x.max() < length:
        worst = x.min() if x.min() < 0 else x.max()
        raise ValueError(f"{name}: index {worst} is outside a table of {length} rows")


def _forward(node, inputs, run):
    (x,) = inputs
    table = node.module._parameters["weight"].data
    check_indices(x, len(table), node.name)
    return table[x], x


def _backward(node, dy, saved, need_input):
    table, padding = node.module._parameters["weight"].data, node.attributes["padding_idx"]
    dw = np.zeros(table.shape, dy.dtype)
    np.add.at(dw, saved, dy)
    if padding is not None:
        dw[padding] = 0
    return (None,), {"weight": dw}


def _shape(node, shapes):
    (shape,) = shapes
    rows, features = array_of(node, "weight", 2).shape
    padding = node.attributes["padding_idx"]
    if not isinstance(shape, Indices):
        raise TypeError(f"{node.name}: expected an array of integers, not of floats")
    if padding is not None and padding >= rows:
        raise ValueError(f"{node.name}: padding_idx must be below {rows}, not {padding}")
    return (*shape, features)


#: x of integers (N, ...) gives (N, ..., E); the row `padding_idx` is not trained.
EMBEDDING = register(
    name="embedding",
    forward=_forward,
    backward=_backward,
    shape=_shape,
    attributes=embedding_attributes,
    parameters=("weight",),
    takes_indices=True,
)
