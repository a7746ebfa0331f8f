"""Pass: dequantize -> op -> quantize becomes the integer op."""

from __future__ import annotations

import numpy as np

from ..errors import QuantizationError
from ..ops import OPS
from ..ops.dynamic import DynamicLayer
from ..ops.integer_layer import IntegerLayer, StoredGrid
from ..ops.record import in_layer
from ..profiles import PROFILES
from .fold_batchnorm import fold_batchnorm
from .graph import Node
from .insert_quantizers import has_integer_form


def lower(graph):
    """Return the integer graph of a calibrated or trained `graph`, which becomes its ``simulation``."""
    simulation = fold_batchnorm(without_dropout(graph.copy().eval()))
    for _, quantizer in simulation.quantizers():
        quantizer.freeze()
    nodes, edges = [], {}
    for node in simulation.nodes:
        edges[node.name] = _lower_node(simulation, node, nodes, edges)
    output = edges[simulation.output]
    if _edge_qparams(nodes, output) is not None:
        nodes.append(Node("output", OPS["dequantize"], (output,)))
        output = "output"
    return simulation.replace(nodes, output=output, kind="integer", simulation=simulation)


def without_dropout(graph):
    """Return the graph without the nodes that only do something in training."""
    renamed, nodes = {}, []
    for node in graph.nodes:
        node.inputs = tuple(renamed.get(name, name) for name in node.inputs)
        if node.op.name == "dropout":
            renamed[node.name] = node.inputs[0]
        else:
            nodes.append(node)
    return graph.replace(nodes, output=renamed.get(graph.output, graph.output))


def _lower_node(graph, node, nodes, edges):
    """Append the lowered form of `node` and return the name under which its value is read."""
    inputs = tuple(edges.get(name, name) for name in node.inputs)
    if node.op.name == "quantizer":
        return _lower_quantizer(graph, node, nodes, inputs)
    qparams, lowered = [_edge_qparams(nodes, name) for name in inputs], None
    if has_integer_form(graph, node) and any(q is not None for q in qparams):
        try:
            lowered = node.op.lower(node, qparams, _output_qparams(graph, node))
        except ValueError as error:
            raise in_layer(node, error) from None
    node = node.copy(inputs=inputs)
    if lowered is not None:
        op, module = lowered
        node = node.copy(op=OPS[op], module=module)
    nodes.append(node.copy(weight_quantizer=None))
    return node.name


def quantizer_behind(graph, name):
    """Return the quantizer node that alone reads a value, or None."""
    readers = graph.consumers(name)
    return readers[0] if len(readers) == 1 and readers[0].op.name == "quantizer" else None


def _output_qparams(graph, node):
    """Return the `QParams` of the quantizer that becomes the output stage of an integer op, or None."""
    behind = quantizer_behind(graph, node.name)
    if behind is None or PROFILES[behind.quantizer.profile].rounding == "textbook":
        return None
    qparams = behind.quantizer.qparams
    return qparams if qparams.spec.is_byte_grid else None


def _lower_quantizer(graph, node, nodes, inputs):
    """Leave out a quantizer that became the output stage of the op in front; elsewhere it is a step of its own."""
    producer = next((n for n in nodes if n.name == inputs[0] == node.inputs[0]), None)
    if producer is not None and getattr(producer.module, "out_qparams", None) is not None:
        return producer.name
    nodes.append(Node(node.name, OPS["quantize"], inputs, module=StoredGrid(node.quantizer.qparams)))
    return node.name


def _edge_qparams(nodes, name):
    """Return the `QParams` of the codes on an edge that `nodes` make, or None where it carries floats."""
    node = next((n for n in nodes if n.name == name), None)
    while node is not None and node.keeps_codes:
        node = next((n for n in nodes if n.name == node.inputs[0]), None)
    return None if node is None else getattr(node.module, "out_qparams", None)


def edge_qparams(graph, name):
    """Return the `QParams` of the codes on an edge of an integer graph, or None where it carries floats."""
    return _edge_qparams(graph.nodes, name)


def integers(graph, node):
    """Return the stored integers of `node` as plain arrays; see `Graph.integers`."""
    if isinstance(node.module, DynamicLayer):
        return node.module.integers()
    if not isinstance(node.module, IntegerLayer):
        layers = ", ".join(n.name for n in graph.nodes if isinstance(n.module, IntegerLayer | DynamicLayer))
        known = f"the integer layers are {layers}" if layers else "the graph is not converted"
        raise QuantizationError(f"integers: {node.name!r} ({node.op.name}) stores none; {known}")
    x_qparams, layer = edge_qparams(graph, node.inputs[0]), node.module
    result = {
        "weight": np.array(layer.weight),
        "weight_scale": np.array(layer.w_qparams.scale),
        "weight_zero_point": np.array(layer.w_qparams.zero_point),
        "bias": None if layer.bias is None else np.array(layer.bias),
        "input_scale": np.array(x_qparams.scale),
        "input_zero_point": np.array(x_qparams.zero_point),
    }
    if layer.out_qparams is not None:
        result["output_scale"] = np.array(layer.out_qparams.scale)
        result["output_zero_point"] = np.array(layer.out_qparams.zero_point)
    return result
