"""From a model to a graph with quantizers: what post-training quantization and training have in common."""

from __future__ import annotations

from contextlib import contextmanager

from ..errors import QuantizationError
from ..graph import Graph, Module, find_region, fold_batchnorm, insert_quantizers, split_attention
from ..graph import fuse as fuse_graph
from ..graph.module import set_modes
from ..ops.norm import fold
from ..quantizers import make_quantizer
from .qconfig import find_config, quantizer_factory


@contextmanager
def in_mode(model, training):
    """Put a model or graph into training or evaluation mode, and each of its modules back into its own."""
    parts = [module for _, module in model.named_modules()] if isinstance(model, Module) else [model]
    modes = [part.training for part in parts]
    model.train(training)
    try:
        yield
    finally:
        set_modes(zip(parts, modes, strict=True))


def float_graph(model, example, training):
    """Return an unshared float `Graph` of a model or graph, for inputs of the shape of `example`."""
    if isinstance(model, Graph):
        if model.kind != "float":
            raise QuantizationError(f"model: expected a float network, not a graph of kind {model.kind!r}")
        graph = model
    elif isinstance(model, Module):
        with in_mode(model, training):
            graph = model.graph(*example_inputs(example))
    else:
        raise TypeError(f"model must be a Module or a Graph, not {type(model).__name__}")
    return graph.copy().train(training)


def example_inputs(example):
    """Return the inputs of one call: `example` is an array, or a tuple of several."""
    return example if isinstance(example, tuple) else (example,)


def _begin_weights(graph):
    """Let what is learned of weights begin now: its shape is then known, and a state can be loaded."""
    for node in graph.nodes:
        if node.weight_quantizer is not None:
            weight = node.weight if node.norm is None else fold(node.weight, node.bias, node.norm).weight
            node.weight_quantizer.begin(weight)


def with_quantizers(model, example, qconfig, *, training, fuse):
    """Trace, fuse and place quantizers."""
    config = find_config(qconfig, training)
    graph, inside, leaving = find_region(split_attention(float_graph(model, example, training)))
    if fuse and getattr(model, "fused_chains", None) in (None, "all"):
        graph = fuse_graph(graph)
    if not training:
        graph = fold_batchnorm(graph)
    config_of, outputs = quantizer_factory(config, graph, inside, leaving)
    state = "train" if training else "observe"

    def make(config, role):
        return make_quantizer(config.for_role(role), config.profile, state, role, is_weight=role == "weight")

    graph = insert_quantizers(graph, config_of, make, outputs)
    for name, quantizer in graph.quantizers():
        quantizer.name = name
    if training:
        _begin_weights(graph)
    return graph.replace(graph.nodes, kind="qat" if training else "prepared")
