"""What equalization and SmoothQuant share: a factor for every channel, taken out of one layer and put into the next."""

from __future__ import annotations

import numpy as np

from ..graph import fold_batchnorm, fuse
from ..workflows.prepare import float_graph

_LAYERS = ("linear", "conv2d")


def foldable_graph(model, example):
    """Return a float graph of its own, with activations fused and normalizations folded."""
    return fold_batchnorm(fuse(float_graph(model, example, training=False)))


def pairs(graph):
    """Return [(layer, [layers that alone read it])] where factors can move from one to the others unseen.

    Only activations that commute with positive factors may lie between them: none, or ReLU.
    """
    found = []
    for node in graph.nodes:
        readers = graph.consumers(node.name)
        scales = node.op.name in _LAYERS and node.attributes.get("activation") in (None, "relu")
        if scales and node.name != graph.output and readers and all(r.op.name in _LAYERS for r in readers):
            found.append((node, readers))
    return found


def weight_sizes(readers):
    """Return the largest ``|w|`` of each channel that layers read, (C,)."""
    return np.max([np.abs(_by_channel(node)).max(axis=(1, 3), initial=0).ravel() for node in readers], axis=0)


def _by_channel(node):
    """Return the weight of a layer as (groups, outputs of each, channels of each, taps)."""
    groups = node.attributes.get("groups", 1)
    return node.weight.reshape(groups, len(node.weight) // groups, node.weight.shape[1], -1)


def move_factors(layer, readers, factors):
    """Divide the outputs of a layer by positive factors, and multiply the weights that read them."""
    factors = factors.astype(np.float32)
    weight = layer.weight / factors.reshape(-1, *(1,) * (layer.weight.ndim - 1))
    bias = None if layer.bias is None else layer.bias / factors
    layer.module = layer.module.with_arrays(weight=weight, bias=bias)
    for node in readers:
        grouped = _by_channel(node)
        weight = (grouped * factors.reshape(len(grouped), 1, -1, 1)).reshape(node.weight.shape)
        node.module = node.module.with_arrays(weight=weight, bias=node.bias)
