"""The integers of a network worked out a second time, in NumPy, from float weights and recorded ranges.

Uses `ndquant.reference` for all that has integers: none of that runs C code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import reference
from ..graph.graph import Run
from ..ops.integer_layer import IntegerLayer
from ..profiles import PROFILES


@dataclass
class Grid:
    """Scale and zero point of codes, with their bounds."""

    scale: np.ndarray
    zero_point: np.ndarray
    qmin: int
    qmax: int
    axis: int | None
    profile: str

    @classmethod
    def of(cls, qparams):
        """Return the grid that a `QParams` describes."""
        spec = qparams.spec
        scale, zero_point = np.asarray(qparams.scale), np.asarray(qparams.zero_point)
        return cls(scale, zero_point, spec.qmin, spec.qmax, spec.axis, qparams.profile)

    @classmethod
    def from_range(cls, low, high, spec, profile):
        """Return the grid that the range rule of `profile` gives."""
        scale, zero_point = reference.choose_scale_zero_point(low, high, spec.qmin, spec.qmax, spec.symmetric, profile)
        return cls(np.asarray(scale), np.asarray(zero_point), spec.qmin, spec.qmax, spec.axis, profile)


@dataclass
class Layer:
    """The integers of one node: an input grid and weights for a layer, an output grid for a step that gives codes."""

    out: Grid | None
    weight: np.ndarray | None = None
    weight_grid: Grid | None = None
    bias: np.ndarray | None = None

    def stored_arrays(self):
        """Return {what: array} of everything that a file would hold."""
        arrays = {}
        if self.weight is not None:
            arrays["weight codes"] = self.weight
            arrays["weight scales"] = self.weight_grid.scale
            arrays["weight zero points"] = self.weight_grid.zero_point
        if self.bias is not None:
            arrays["biases"] = self.bias
        if self.out is not None:
            arrays["output scale"] = self.out.scale
            arrays["output zero point"] = self.out.zero_point
        return arrays


def stored(graph):
    """Return {node name: `Layer`} with what an integer graph stores."""
    layers = {}
    for node in graph.nodes:
        if isinstance(node.module, IntegerLayer):
            m = node.module
            out = None if m.out_qparams is None else Grid.of(m.out_qparams)
            layers[node.name] = Layer(out, m.weight, Grid.of(m.w_qparams), m.bias)
        elif node.op.name == "quantize":
            layers[node.name] = Layer(Grid.of(node.out_qparams))
    return layers


def rebuilt(graph):
    """Return {node name: `Layer`} rebuilt from the float weights and recorded ranges of ``graph.simulation``."""
    simulation, layers = graph.simulation, {}
    grids = {node.name: _edge_grid(node.quantizer) for node in simulation.nodes if node.quantizer is not None}
    for node in graph.nodes:
        if node.op.name == "quantize":
            layers[node.name] = Layer(grids[node.name])
        elif isinstance(node.module, IntegerLayer):
            layers[node.name] = _rebuild_layer(graph, simulation[node.name], node, grids, layers)
    return layers


def _edge_grid(quantizer):
    low, high = quantizer.recorded_range()
    return Grid.from_range(low, high, quantizer.config.spec, quantizer.profile)


def _rebuild_layer(graph, node, lowered, grids, layers):
    quantizer, w = node.weight_quantizer, np.asarray(node.weight)
    spec, profile = quantizer.config.spec, quantizer.profile
    low, high = quantizer.recorded_range(w)
    grid = Grid.from_range(low, high, spec, profile)
    x_grid = input_grid(graph, lowered, layers)
    bias = node.bias
    if PROFILES[profile].bias == "int32":
        grid.scale = reference.raise_weight_scale(grid.scale, bias, x_grid.scale)
        bias = None if bias is None else reference.quantize_bias(bias, x_grid.scale, grid.scale)
    codes = reference.quantize(w, grid.scale, grid.zero_point, grid.qmin, grid.qmax, grid.axis, profile)
    out = grids.get(f"{node.name}.quantizer") if lowered.module.out_qparams is not None else None
    return Layer(out, codes, grid, bias)


def input_grid(graph, node, layers):
    """Return the grid of the codes that a node reads."""
    name = node.inputs[0]
    while name not in layers:
        name = graph[name].inputs[0]
    return layers[name].out


def run_twin(graph, layers, x):
    """Run the integer graph in NumPy with the integers of `layers`; returns {node name: codes or floats}."""
    values = dict(zip(graph.inputs, x, strict=True))
    for node in graph.nodes:
        read = [values[name] for name in node.inputs]
        if node.op.name in _STEPS:
            values[node.name] = _STEPS[node.op.name](graph, node, layers, *read)
        else:  # an op without integers is no part of the proof, only of the way there
            values[node.name] = node.op.forward(node, read, Run(graph, training=False))[0]
    return values


def _quantize(graph, node, layers, x):
    g = layers[node.name].out
    return reference.quantize(x, g.scale, g.zero_point, g.qmin, g.qmax, g.axis, g.profile)


def _linear_integer(graph, node, layers, x):
    layer, x_grid = layers[node.name], input_grid(graph, node, layers)
    w, activation = layer.weight_grid, node.attributes.get("activation")
    is_int = layer.bias is not None and layer.bias.dtype.kind == "i"
    acc = reference.gemm_s32(x, layer.weight, x_grid.zero_point, w.zero_point, layer.bias if is_int else None)
    float_bias = None if is_int else layer.bias
    if layer.out is None:
        return reference.linear_f32(acc, x_grid.scale, w.scale, float_bias, activation)
    out, requantize = layer.out, PROFILES[layer.out.profile].requantize
    grid = (out.scale, out.zero_point, out.qmin, out.qmax)
    return reference.linear_codes(acc, x_grid.scale, w.scale, *grid, float_bias, activation, requantize)


def _linear(graph, node, layers, x):
    y = x @ np.asarray(node.weight).T
    y = y if node.bias is None else y + node.bias
    return np.maximum(y, np.float32(0)) if node.attributes.get("activation") == "relu" else y


def _relu(graph, node, layers, x):
    zero = 0 if x.dtype.kind == "f" else input_grid(graph, node, layers).zero_point
    return np.maximum(x, np.asarray(zero, x.dtype))


def _dequantize(graph, node, layers, x):
    g = input_grid(graph, node, layers)
    return reference.dequantize(x, g.scale, g.zero_point, g.axis, np.float32)


_STEPS = {
    "quantize": _quantize,
    "linear_integer": _linear_integer,
    "linear": _linear,
    "relu": _relu,
    "reshape": lambda graph, node, layers, x: x.reshape(len(x), *node.attributes["shape"]),
    "dequantize": _dequantize,
}


def textbook_codes(graph, node, layers, x):
    """Return output codes by the textbook formula: real numbers in float64, one division, one rounding."""
    layer, x_grid = layers[node.name], input_grid(graph, node, layers)
    acc = reference.gemm_s32(x, layer.weight, x_grid.zero_point, layer.weight_grid.zero_point)
    s = np.float64(x_grid.scale) * layer.weight_grid.scale.astype(np.float64)
    y = acc * s
    if layer.bias is not None:
        y = y + (layer.bias * s if layer.bias.dtype.kind == "i" else layer.bias)
    if node.attributes.get("activation") == "relu":
        y = np.maximum(y, 0)
    g = layer.out
    return np.clip(np.rint(y / np.float64(g.scale) + g.zero_point), g.qmin, g.qmax).astype(np.int64)
