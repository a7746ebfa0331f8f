"""Pass: an attention becomes the products and the softmax that it consists of, each of which has an integer form."""

from __future__ import annotations

import numpy as np

from ..ops import OPS
from ..ops.attention_weights import weights_attributes
from ..ops.pointwise import dropout_attributes
from .graph import Node


def split_attention(graph):
    """Return `graph` with every batch-first attention as nodes of their own: scores, weights, and what these give.

    Shape letters: L queries, S keys, H heads of D features.
    """
    nodes, renamed = [], {}
    for node in graph.nodes:
        node = node.copy(inputs=tuple(renamed.get(name, name) for name in node.inputs))
        if node.op.name == "attention" and node.attributes["batch_first"]:
            parts, outputs = _split(graph, node)
            nodes += parts
            readers = graph.consumers(node.name)
            renamed |= {reader.name: outputs[reader.attributes["index"]] for reader in readers}
        elif node.name not in renamed:
            nodes.append(node)
    return graph.replace(nodes, output=renamed.get(graph.output, graph.output), free=() if renamed else graph.free)


def _split(graph, node):
    """Return the nodes of an attention, and the names of its two values."""
    a, made = node.attributes, []
    shapes = [graph.shape_of(name) for name in graph[node.name].inputs[:3]]
    heads, depth = a["heads"], shapes[0][1] // a["heads"]

    def add(name, op, *inputs, **attributes):
        made.append(Node(f"{node.name}.{name}", OPS[op], inputs, OPS[op].attributes(**attributes), node.module))
        return made[-1].name

    def of_heads(name, number, axes):
        whole = add(name, "reshape", node.inputs[number], shape=(shapes[number][0], heads, depth))
        return add(f"{name}_heads", "transpose", whole, axes=axes)

    q, k, v = (of_heads(*part) for part in (("q", 0, (0, 2, 1, 3)), ("k", 1, (0, 2, 3, 1)), ("v", 2, (0, 2, 1, 3))))
    scores = add("scores", "matmul", q, k, factor=depth**-0.5)
    weights = add("weights", "attention_weights", scores, *node.inputs[3:], **_masks(graph, node))
    kept = add("dropout", "dropout", weights, **dropout_attributes(a["p"])) if a["p"] else weights
    values = add("transpose", "transpose", add("values", "matmul", kept, v), axes=(0, 2, 1, 3))
    joined = add("join", "reshape", values, shape=shapes[0])
    if a["weights"] == "average":
        weights = add("average", "mean", weights, axes=(1,))
    return made, (joined, weights)


def _masks(graph, node):
    """Return the attributes that say which masks there are."""
    a = node.attributes
    adds = a["mask"] and bool(np.any(~np.isin(graph[node.inputs[-1]].value, (0, -np.inf))))
    return weights_attributes(a["causal"], a["padding"], a["mask"], adds)
