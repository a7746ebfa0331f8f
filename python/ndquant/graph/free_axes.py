"""Which axes of a network's inputs may have other lengths than those that it was traced with."""

from __future__ import annotations

import numpy as np

from ..ops import Indices


def find_free_axes(trace, graph):
    """Return groups of axes, each of one length that may be any other.

    An axis is free if tracing with other lengths gives the same nodes with the same attributes and constants: then
    nothing in the graph says which length it had.

    Parameters
    ----------
    trace : callable
        Gives the graph for example inputs.
    graph : Graph
        What it gave for inputs of the lengths at hand.

    Returns
    -------
    tuple of tuple of (str, int)
        Names of inputs and axes, counted behind the batch axis.
    """
    found, taken = [], set()
    for group in _candidates(graph.inputs):
        if not taken & set(group) and all(_is_free(trace, graph, group, more) for more in (1, 2)):
            found.append(group)
            taken |= set(group)
    return tuple(found)


def _candidates(inputs):
    """Yield all axes of one length; then those of them right behind the batch axis, the steps of sequences."""
    for length in sorted({n for shape in inputs.values() for n in shape}):
        axes = tuple((name, axis) for name, shape in inputs.items() for axis, n in enumerate(shape) if n == length)
        yield axes
        yield tuple(axis for axis in axes if axis[1] == 0)


def with_lengths(inputs, group, length):
    """Return the shapes of inputs with the axes of a group of that length."""
    changed = {}
    for name, shape in inputs.items():
        lengths = [length if (name, axis) in group else n for axis, n in enumerate(shape)]
        changed[name] = type(shape)(lengths)
    return changed


def _is_free(trace, graph, group, more):
    if not group:
        return False
    (name, axis), *_ = group
    shapes = with_lengths(graph.inputs, group, graph.inputs[name][axis] + more)
    examples = [
        np.zeros((1, *shape), np.int64 if isinstance(shape, Indices) else np.float32) for shape in shapes.values()
    ]
    try:
        return _are_alike(graph, trace(*examples))
    except Exception:  # noqa: BLE001 - whatever `forward` raises where lengths do not suit it
        return False


def _are_alike(a, b):
    return a.output == b.output and len(a.nodes) == len(b.nodes) and all(map(_are_alike_nodes, a.nodes, b.nodes))


def _are_alike_nodes(a, b):
    same = (a.name, a.op, a.inputs, a.attributes) == (b.name, b.op, b.inputs, b.attributes)
    return same and (a.op.name != "constant" or np.array_equal(a.value, b.value, equal_nan=True))
