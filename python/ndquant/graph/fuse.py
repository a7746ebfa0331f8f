"""Pass: an activation right after a layer becomes part of the layer."""

from __future__ import annotations


def fuse(graph):
    """Return `graph` with every activation that alone reads a node which absorbs it made that node's ``activation``.

    The integer kernel clamps at the zero point of its output anyway, so the ReLU then costs nothing, and no codes are
    spent on the negative values that it would cut off.
    """
    nodes, renamed = [], {}
    for node in graph.nodes:
        node = node.copy(inputs=tuple(renamed.get(name, name) for name in node.inputs))
        producer = next((n for n in nodes if n.name == node.inputs[0]), None) if node.inputs else None
        if producer is not None and _absorbs(graph, producer, node.op.name):
            producer.attributes["activation"] = node.op.name
            renamed[node.name] = producer.name
        else:
            nodes.append(node)
    return graph.replace(nodes, output=renamed.get(graph.output, graph.output))


def _absorbs(graph, node, activation):
    is_read_once = len(graph.consumers(node.name)) == 1 and graph.output != node.name
    return activation in node.op.absorbs and "activation" not in node.attributes and is_read_once
