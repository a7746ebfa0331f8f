"""Pass: a normalization that became part of a layer goes into its weight and bias."""

from __future__ import annotations

from ..ops.norm import fold


def fold_batchnorm(graph):
    """Return `graph` with each ``norm`` of a layer, by its running statistics, folded into weight and bias.

    The layer gets a module of its own for them: the arrays of the model stay as they are, and a module that several
    nodes share may be folded with several normalizations.
    """
    return graph.replace([node if node.norm is None else _folded(node) for node in graph.nodes])


def _folded(node):
    found = fold(node.weight, node.bias, node.norm)
    return node.copy(module=node.module.with_arrays(weight=found.weight, bias=found.bias), norm=None)
