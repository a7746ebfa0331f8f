"""Pass: a normalization or an activation right behind a layer becomes part of the layer."""

from __future__ import annotations


def fuse(graph, chains=None):
    """Return `graph` with every node that alone reads a node which absorbs it made part of that node.

    A normalization becomes the ``norm`` of the layer's node, an activation its ``activation``: the integer kernel
    clamps at the zero point of its output anyway, so a ReLU then costs nothing, and no codes are spent on the negative
    values that it would cut off.

    Parameters
    ----------
    graph : Graph
    chains : list of list of str, optional
        Names of nodes, each list a layer and what becomes part of it; by default all that is found.

    Raises
    ------
    ValueError
        If a chain names no node, or nodes that do not follow each other or cannot be fused.
    """
    pairs = None if chains is None else _pairs(graph, chains)
    nodes, renamed = [], {}
    for node in graph.nodes:
        node = node.copy(inputs=tuple(renamed.get(name, name) for name in node.inputs))
        producer = next((n for n in nodes if n.name in node.inputs[:1]), None)
        wanted = pairs is None or pairs.pop(node.name, None) is not None
        if producer is not None and wanted and _absorbs(graph, producer, node):
            _absorb(producer, node)
            renamed[node.name] = producer.name
        elif wanted and pairs is not None:
            raise ValueError(f"fuse: {node.name!r} ({node.op.name}) cannot become part of the node in front of it")
        else:
            nodes.append(node)
    return graph.replace(nodes, output=renamed.get(graph.output, graph.output))


def _pairs(graph, chains):
    """Return {node: the one in front of it} of lists of names."""
    pairs = {}
    for chain in chains:
        for name, following in zip(chain, chain[1:], strict=False):
            for wanted in (name, following):
                if wanted not in graph:
                    known = ", ".join(node.name for node in graph.nodes)
                    raise ValueError(f"fuse: no node {wanted!r}; the nodes are {known}")
            if graph[following].inputs[:1] != (name,):
                raise ValueError(f"fuse: {following!r} reads {', '.join(graph[following].inputs)}, not {name!r}")
            pairs[following] = name
    return pairs


def _absorbs(graph, layer, node):
    """Whether `node` can become part of `layer`, which may have absorbed others already."""
    (read,) = node.inputs if len(node.inputs) == 1 else (None,)
    last = graph[_last_name(graph, layer)] if read == layer.name else None
    if last is None or node.op.name not in layer.op.absorbs or "activation" in layer.attributes:
        return False
    if node.op.name == "batch_norm" and (layer.norm is not None or node.running_mean is None):
        return False
    if node.op.name == "batch_norm" and layer.op.name == "linear" and len(layer.shape) > 1:
        return False  # its channels are on axis 1, the features of the layer on the last
    return len(graph.consumers(last.name)) == 1 and graph.output != last.name


def _last_name(graph, layer):
    """Return the name under which `graph` knows what the layer gives: a norm that it had before is no node there."""
    return layer.norm.name if layer.norm is not None and layer.norm.name in graph else layer.name


def _absorb(layer, node):
    if node.op.name == "batch_norm":
        layer.norm = node
    else:
        layer.attributes["activation"] = node.op.name
