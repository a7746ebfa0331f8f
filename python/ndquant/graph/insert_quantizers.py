"""Pass: a quantizer on every edge that a node reads which will run on integers, once per edge, and one on weights."""

from __future__ import annotations

from ..ops import OPS
from .graph import Node


def insert_quantizers(graph, config_of, make_quantizer, outputs=None):
    """Return `graph` with quantizers placed.

    Parameters
    ----------
    graph : Graph
    config_of : callable
        ``config_of(node)`` gives the `QConfig` of a node that has an integer form, or None to leave it in float.
    make_quantizer : callable
        ``make_quantizer(config, role)`` gives the `Quantizer` for role "input" (of the whole graph), "activation",
        "output" or "weight".
    outputs : dict, optional
        {name of an edge: `QConfig`} of what leaves the graph and is to be quantized, where an integer node gives it.
    """
    outputs = outputs or {}
    configs = {node.name: config_of(node) for node in graph.nodes if has_integer_form(graph, node)}
    integer, passing = _integer_nodes(graph, configs, outputs)
    nodes = [node.copy() for node in graph.nodes]
    wanted = {}
    for node in nodes:
        node.kept_float = configs.get(node.name, True) is None
        if node.name in integer:
            config = configs[node.name]
            if node.op.quantizes_weight:
                node.weight_quantizer = make_quantizer(config, "weight")
            for name in node.inputs[: node.op.quantized_inputs]:
                source = _source(graph, name, passing)
                wanted.setdefault(source, []).append((config, "input" if source in graph.inputs else "activation"))
    for name, config in outputs.items():
        source = _source(graph, name, passing)
        if source in integer:
            wanted.setdefault(source, []).append((config, "output"))
    without_weights = {node.name for node in nodes if node.name in integer and not node.op.quantizes_weight}
    for name in without_weights:  # they give nothing but codes, whoever reads them
        wanted.setdefault(name, [(configs[name], "activation")])
    quantizers = {source: make_quantizer(*_finest(readers)) for source, readers in wanted.items()}
    return _insert(graph, nodes, quantizers, integer | passing, outputs.keys() | without_weights)


def has_integer_form(graph, node):
    """Whether a node could run on integers."""
    return node.op.lower is not None and why_float(graph, node) is None


def why_float(graph, node):
    """Return why a node has no integer form, or None if it has one."""
    if node.op.lower is None:
        return "has no integer form"
    return node.op.no_integers(node, [graph.shape_of(name) for name in node.inputs])


def _integer_nodes(graph, configs, outputs):
    """Return the names of the nodes that will run on integers, and of those that pass codes on.

    A layer with weights can give floats. Anything else runs on integers where nothing asks for its result in floats; an
    op without integer form does not, it takes what codes stand for.
    """
    integer, passing, formless = set(), set(), set()
    may_pass = all(config is None or config.passes_codes for config in configs.values())
    for node in reversed(graph.nodes):
        readers = [reader.name for reader in graph.consumers(node.name)]
        leaves = node.name in outputs
        taken = {name for name in readers if graph[name].op.name not in ("dequant_stub", "outputs") or leaves}
        as_codes = (readers or leaves) and set(readers) == taken & (integer | passing | formless)
        if configs.get(node.name) is not None:
            if node.op.quantizes_weight or as_codes:
                integer.add(node.name)
        elif node.keeps_codes and as_codes and may_pass:
            passing.add(node.name)
        elif node.name not in configs and not node.keeps_codes:
            formless.add(node.name)
    return integer, passing


def _source(graph, name, passing):
    """Walk back from an edge, through nodes that pass codes on, to the edge where the quantizer belongs."""
    while name in passing:
        name = graph[name].inputs[0]
    return name


def _finest(readers):
    """Return the (config, role) whose grid has the most bits: all that read an edge share its quantizer."""
    return max(readers, key=lambda reader: reader[0].for_role(reader[1]).spec.bits)


def _insert(graph, nodes, quantizers, on_codes, for_all):
    """Put a quantizer behind each edge named in `quantizers`: for readers in `on_codes` or, in `for_all`, for all."""
    made = {}
    for source, quantizer in quantizers.items():
        made[source] = Node(f"{source}.quantizer", OPS["quantizer"], (source,), quantizer=quantizer)
    for node in nodes:
        if node.kept_float:
            continue
        readable = made if node.name in on_codes else made.keys() & for_all
        node.inputs = tuple(made[name].name if name in readable else name for name in node.inputs)
    ordered = [made[name] for name in graph.inputs if name in made]
    for node in nodes:
        ordered += [node, made[node.name]] if node.name in made else [node]
    replaced = graph.output in for_all and graph.output in made
    return graph.replace(ordered, output=made[graph.output].name if replaced else graph.output)
