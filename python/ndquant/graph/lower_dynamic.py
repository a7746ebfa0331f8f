"""Pass: layers whose weights become codes, and which quantize their inputs as they come."""

from __future__ import annotations

from ..ops import OPS
from ..ops.dynamic import DYNAMIC, DynamicLayer
from .fold_batchnorm import fold_batchnorm
from .fuse import fuse
from .lower import without_dropout


def lower_dynamic(graph, wanted, made=None, layer_of=None):
    """Return the integer graph of a float one in evaluation mode, which, fused, becomes its ``simulation``.

    Parameters
    ----------
    graph : Graph
    wanted : callable
        ``wanted(node)`` tells which of the nodes that have a dynamic form take it.
    made : dict, optional
        What was made of the weights of a module before, {id of the module: (module, `DynamicLayer`)}: graphs of one
        network for other shapes share it. It is added to.
    layer_of : callable, optional
        ``layer_of(node)`` makes the `DynamicLayer` of a node; by default with weights in 8 bits.
    """
    made = {} if made is None else made
    simulation = fold_batchnorm(fuse(without_dropout(graph)))
    nodes = []
    for node in simulation.nodes:
        if node.op.name in DYNAMIC and wanted(node):
            if id(node.module) not in made:
                layer = DynamicLayer.of(node.module) if layer_of is None else layer_of(node)
                made[id(node.module)] = node.module, layer
            node = node.copy(op=OPS[DYNAMIC[node.op.name]], module=made[id(node.module)][1])
        nodes.append(node)
    return simulation.replace(nodes, kind="integer", simulation=simulation)
