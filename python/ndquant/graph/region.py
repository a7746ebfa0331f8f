"""Pass: stubs that a network places by hand say which part of it is quantized."""

from __future__ import annotations


def find_region(graph):
    """Return which nodes stubs mark for quantization, and which edges leave the marked region.

    Returns
    -------
    graph : Graph
        Without the stubs at the beginning, whose readers read what they read. Those at the end are still there.
    inside : set of str or None
        Names of nodes behind a `QuantStub` and before a `DeQuantStub`; None where there is no `QuantStub`: all.
    leaving : set of str
        Names of the edges that `DeQuantStub` reads; the outputs of the graph where there are no stubs.
    """
    renamed, nodes, inside, leaving = {}, [], set(), set()
    for node in graph.nodes:
        is_inside = any(name in inside for name in node.inputs)
        node = node.copy(inputs=tuple(renamed.get(name, name) for name in node.inputs))
        if node.op.name == "quant_stub":
            inside.add(node.name)
            renamed[node.name] = node.inputs[0]
            continue
        if node.op.name == "dequant_stub":
            leaving.update(node.inputs)
        elif is_inside:
            inside.add(node.name)
        nodes.append(node)
    found = graph.replace(nodes, output=renamed.get(graph.output, graph.output))
    if not renamed and not leaving:
        last = found.find(found.output)
        leaving = set(last.inputs) if last is not None and last.op.name == "outputs" else {found.output}
    return found, inside if renamed else None, leaving
