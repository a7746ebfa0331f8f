"""Pass: an activation right after a layer becomes part of the layer."""

from __future__ import annotations


def fuse(graph):
    """Return `graph` with every ReLU that alone reads a linear node folded into that node as its ``activation``.

    The integer kernel clamps at the zero point of its output anyway, so the ReLU then costs nothing, and no codes are
    spent on the negative values that it would cut off.
    """
    nodes, renamed = [], {}
    for node in graph.nodes:
        node = node.copy(inputs=tuple(renamed.get(name, name) for name in node.inputs))
        producer = next((n for n in nodes if node.op.name == "relu" and n.name == node.inputs[0]), None)
        if producer is not None and _can_take_activation(graph, producer):
            producer.attributes["activation"] = "relu"
            renamed[node.name] = producer.name
        else:
            nodes.append(node)
    return graph.replace(nodes, output=renamed.get(graph.output, graph.output))


def _can_take_activation(graph, node):
    readers = graph.consumers(node.name)
    return (
        node.op.name == "linear"
        and "activation" not in node.attributes
        and len(readers) == 1
        and graph.output != node.name
    )
