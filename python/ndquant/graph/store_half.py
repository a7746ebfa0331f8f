"""Pass: weights that files store in 16 bits, and that are computed with in float32."""

from __future__ import annotations

import copy

import numpy as np

from ..errors import QuantizationError
from ..parameter import HalfParameter
from .module import Module


def store_half(graph, wanted, dtype, made=None):
    """Return a float graph with the weights of nodes, arrays of two axes or more, rounded to 16 bits.

    The graph as it was becomes its ``simulation``.

    Parameters
    ----------
    graph : Graph
    wanted : callable
        ``wanted(node)`` tells for which nodes.
    dtype : {"float16", "bfloat16"}
    made : dict, optional
        What was made of parameters before, {id: (`Parameter`, `HalfParameter`)}; it is added to.
    """
    made = {} if made is None else made
    nodes = []
    for node in graph.nodes:
        if isinstance(node.module, Module) and node.module._parameters and wanted(node):
            node = node.copy(module=_halved(node, dtype, made))
        nodes.append(node)
    return graph.replace(nodes, simulation=graph)


def half_parameters(node):
    """Return {name: `HalfParameter`} of a node: its weights that files store in 16 bits."""
    parameters = node.module._parameters if isinstance(node.module, Module) else {}
    return {name: parameter for name, parameter in parameters.items() if isinstance(parameter, HalfParameter)}


def _halved(node, dtype, made):
    module = copy.copy(node.module)
    module.__dict__.update(_parameters=dict(module._parameters), _graphs={}, _last_graph=None)
    for name, parameter in module._parameters.items():
        if parameter.data.ndim < 2:
            continue
        if id(parameter) not in made:
            half = HalfParameter(parameter.data, dtype)
            if not np.isfinite(half.data).all():
                raise QuantizationError(f"{node.name}: {name} holds numbers outside the range of {dtype}")
            made[id(parameter)] = parameter, half
        module._parameters[name] = made[id(parameter)][1]
    return module
