"""The float network of a graph whose weights and biases a pass has changed."""

from __future__ import annotations


def restore_originals(graph):
    """Give every layer of `graph` the weight and bias that it had before any pass; returns the graph."""
    for node in graph.nodes:
        original = None if node.weight_quantizer is None else node.weight_quantizer.original
        if original is not None:
            weight, bias = original
            node.module = node.module.with_arrays(weight=weight, bias=bias)
    return graph
