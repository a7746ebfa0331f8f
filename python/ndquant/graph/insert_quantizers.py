"""Pass: a quantizer on every edge that an integer layer reads, once per edge, and one on the layer's weights."""

from __future__ import annotations

from ..ops import OPS
from .graph import Node


def insert_quantizers(graph, config_of, make_quantizer, output=None):
    """Return `graph` with quantizers placed.

    Parameters
    ----------
    graph : Graph
    config_of : callable
        ``config_of(node)`` gives the `QConfig` of a node that has an integer kernel, or None to leave it in float.
    make_quantizer : callable
        ``make_quantizer(config, role)`` gives the `Quantizer` for role "input" (of the whole graph), "activation",
        "output" or "weight".
    output : QConfig, optional
        Also quantizes the output of the graph, where an integer layer gives it.
    """
    nodes = [node.copy() for node in graph.nodes]
    configs = {node.name: config_of(node) for node in nodes if node.op.lower is not None}
    integer = [name for name, config in configs.items() if config is not None]
    quantizers = {}
    for node in nodes:
        if node.name in integer:
            node.weight_quantizer = make_quantizer(configs[node.name], "weight")
            source = _source(graph, node.inputs[0], integer)
            role = "input" if source in graph.inputs else "activation"
            quantizers.setdefault(source, lambda c=configs[node.name], r=role: make_quantizer(c, r))
    if output is not None:
        source = _source(graph, graph.output, integer, at_output=True)
        if source in integer:
            quantizers.setdefault(source, lambda: make_quantizer(output, "output"))
    return _insert(graph, nodes, {name: make() for name, make in quantizers.items()}, integer, output is not None)


def _insert(graph, nodes, quantizers, integer, output_too):
    """Put a quantizer node behind each edge named in `quantizers` and let those readers that want codes read it."""
    made = {}
    for source, quantizer in quantizers.items():
        made[source] = Node(f"{source}.quantizer", OPS["quantizer"], (source,), quantizer=quantizer)
    for node in nodes:
        if node.name in integer or _passes_codes(graph, node, integer):
            node.inputs = tuple(made[name].name if name in made else name for name in node.inputs)
    ordered = [made[name] for name in graph.inputs if name in made]
    for node in nodes:
        ordered += [node, made[node.name]] if node.name in made else [node]
    replaced = output_too and graph.output in made
    return graph.replace(ordered, output=made[graph.output].name if replaced else graph.output)


def _source(graph, name, integer, at_output=False):
    """Walk back from an edge, through ops that keep codes as they are, to the edge where the quantizer belongs."""
    node = graph.find(name)
    while node is not None and (_passes_codes(graph, node, integer) or at_output and node.op.keeps_codes):
        name = node.inputs[0]
        node = graph.find(name)
    return name


def _passes_codes(graph, node, integer):
    """Whether the node keeps codes, and everything that reads it wants codes."""
    readers = graph.consumers(node.name)
    return (
        node.op.keeps_codes
        and bool(readers)
        and all(reader.name in integer or _passes_codes(graph, reader, integer) for reader in readers)
    )
