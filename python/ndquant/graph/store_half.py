"""Pass: weights that files store in 16 bits, and that are computed with in float32."""

from __future__ import annotations

import copy

import numpy as np

from ..errors import QuantizationError
from ..parameter import HalfParameter
from .module import Module


def store_half(graph, wanted, dtype, made=None):
    """Return a float graph with the weights of nodes, arrays of two axes or more, rounded to 16 bits.

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
    return graph.replace(nodes)


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
