"""The integers of a network worked out a second time, in NumPy, from float weights and recorded ranges.

Uses `ndquant.reference` for all that has integers: none of that runs C code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import reference
from ..dynamic import WEIGHT
from ..graph.graph import Run
from ..graph.lower import quantizer_behind
from ..grouped import GroupedWeight
from ..integer import even_windows, exp_table, pool_windows
from ..layout import swap_channels
from ..ops import Fixed
from ..ops.dynamic import DynamicLayer
from ..ops.integer_layer import IntegerLayer, StoredTable
from ..ops.recurrent import time_first
from ..profiles import PROFILES
from ..reference.activation import BOUNDS


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
    def recorded(cls, quantizer, weight=None):
        """Return the grid that a quantizer was given or learned, or the one that its profile makes of its range."""
        spec, profile = quantizer.config.spec, quantizer.profile
        found = quantizer.recorded_grid()
        if found is None:
            rule = spec.symmetric, profile, spec.zero_aligned
            found = reference.choose_scale_zero_point(
                *quantizer.recorded_range(weight), spec.qmin, spec.qmax, *rule
            )
        scale, zero_point = map(np.asarray, found)
        return cls(scale, np.broadcast_to(zero_point, scale.shape), spec.qmin, spec.qmax, spec.axis, profile)


@dataclass
class Layer:
    """The integers of one node: weights for a layer, a table for a function, an output grid for all that give codes."""

    out: Grid | None
    weight: np.ndarray | None = None
    weight_grid: Grid | None = None
    bias: np.ndarray | None = None
    table: np.ndarray | None = None
    affine: dict | None = None  # of a layer normalization: {"weight", "bias"} as floats
    rows: dict | None = None  # of a dynamic layer: {name of a weight: (codes, scales, bias)}, in groups and zero points

    def stored_arrays(self):
        """Return {what: array} of everything that a file would hold."""
        arrays = {}
        if self.weight is not None:
            arrays["weight codes"] = self.weight
            arrays["weight scales"] = self.weight_grid.scale
            arrays["weight zero points"] = self.weight_grid.zero_point
        if self.bias is not None:
            arrays["biases"] = self.bias
        for name, parts in (self.rows or {}).items():
            whats = ("codes", "scales", "bias", "zero points")[: len(parts)]
            arrays |= {f"{name} {what}": part for what, part in zip(whats, parts, strict=True) if part is not None}
        if self.table is not None:
            arrays["table"] = self.table
        arrays |= {name: array for name, array in (self.affine or {}).items() if array is not None}
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
        elif isinstance(node.module, DynamicLayer):
            layers[node.name] = Layer(None, rows={name: _rows(w) for name, w in node.module.weights.items()})
        elif node.op.stores is not None:
            table = node.table if isinstance(node.module, StoredTable) else None
            layers[node.name] = Layer(Grid.of(node.out_qparams), table=table, affine=_affine(node))
    return layers


def _rows(weight):
    """Return codes, scales and bias of a dynamic layer's weight, and the zero points of one in groups."""
    parts = weight.codes, np.asarray(weight.qparams.scale), weight.bias
    return (*parts, np.asarray(weight.qparams.zero_point)) if isinstance(weight, GroupedWeight) else parts


def rebuilt(graph):
    """Return {node name: `Layer`} rebuilt from the float weights and recorded ranges of ``graph.simulation``."""
    simulation, layers = graph.simulation, {}
    for node in graph.nodes:
        if node.op.stores is None:
            continue
        if node.op.name == "quantize":
            layers[node.name] = Layer(Grid.recorded(simulation[node.name].quantizer))
            continue
        if isinstance(node.module, DynamicLayer):
            layers[node.name] = Layer(None, rows=_rebuild_rows(simulation[node.name], node))
            continue
        behind = None if node.module.out_qparams is None else quantizer_behind(simulation, node.name)
        out = None if behind is None else Grid.recorded(behind.quantizer)
        if isinstance(node.module, IntegerLayer):
            layers[node.name] = _rebuild_layer(graph, simulation[node.name], node, out, layers)
        elif isinstance(node.module, StoredTable):
            layers[node.name] = Layer(out, table=_table(graph, simulation[node.name], node, out, layers))
        else:
            layers[node.name] = Layer(out, affine=_affine(simulation[node.name]))
    return layers


def _affine(node):
    """Return gain and offset of a layer normalization, float or integer; None for other nodes."""
    if not node.op.name.startswith("layer_norm"):
        return None
    return {name: a if a is None else np.asarray(a) for name, a in (("weight", node.weight), ("bias", node.bias))}


def _rebuild_rows(node, lowered):
    """Quantize the float weights of a dynamic layer by the largest magnitude of each output."""
    rows = {}
    for name in lowered.module.weights:
        w, bias = np.asarray(getattr(node, name)), getattr(node, DynamicLayer.BIASES[name])
        if isinstance(lowered.module.weights[name], GroupedWeight):
            rows[name] = _rebuild_groups(np.asarray(w, np.float32), bias, lowered.module)
            continue
        ends = w.min(axis=1, initial=0), w.max(axis=1, initial=0)
        scale, _ = reference.choose_scale_zero_point(*ends, WEIGHT.qmin, WEIGHT.qmax, symmetric=True)
        rows[name] = reference.quantize(w, scale, 0, WEIGHT.qmin, WEIGHT.qmax, 0), scale, bias
    return rows


def _rebuild_groups(w, bias, layer):
    """Quantize a weight on a grid per group of inputs: that of its extremes, or the one that a method has found."""
    codes, scale, _, zero_point = _rows(layer.weight)
    spec = layer.weight.qparams.spec
    if layer.method == "gptq":  # what it has found is the codes, on the grid of the extremes of the float weight
        rounded = reference.dequantize(codes, scale, zero_point, spec.axis, np.float32, group_size=spec.group_size)
    if layer.method in ("minmax", "gptq"):
        groups = w.reshape(len(w), -1, spec.group_size or w.shape[1])
        ends = groups.min(axis=2, initial=0), groups.max(axis=2, initial=0)
        grid = reference.choose_scale_zero_point(*ends, spec.qmin, spec.qmax, spec.symmetric)
        scale, zero_point = (a.reshape(scale.shape) for a in grid)
    w = rounded if layer.method == "gptq" else w
    codes = reference.quantize(w, scale, zero_point, spec.qmin, spec.qmax, spec.axis, group_size=spec.group_size)
    return codes, scale, bias, zero_point


def _table(graph, node, lowered, out, layers):
    """Tabulate a function of one code: computed in float64, rounded once."""
    g = input_grid(graph, lowered, layers)
    lowest = -128 if g.qmin < 0 else 0
    x = reference.dequantize(np.arange(lowest, lowest + 256), g.scale, g.zero_point, None, np.float64)
    with np.errstate(all="ignore"):
        y = node.op.forward(node, [x], Run(graph, training=False))[0]
    return reference.quantize(y, out.scale, out.zero_point, out.qmin, out.qmax, None, out.profile)


def _rebuild_layer(graph, node, lowered, out, layers):
    quantizer, w = node.weight_quantizer, np.asarray(node.weight)
    grid, profile = Grid.recorded(quantizer, w), quantizer.profile
    x_grid = input_grid(graph, lowered, layers)
    bias = node.bias
    if PROFILES[profile].bias == "int32":
        grid.scale = reference.raise_weight_scale(grid.scale, bias, x_grid.scale)
        bias = None if bias is None else reference.quantize_bias(bias, x_grid.scale, grid.scale)
    w = quantizer.transformed(w)
    codes = reference.quantize(w, grid.scale, grid.zero_point, grid.qmin, grid.qmax, grid.axis, profile)
    return Layer(out, codes, grid, bias)


def input_grid(graph, node, layers, number=0):
    """Return the grid of the codes that a node reads, by the number of the input."""
    name = node.inputs[number]
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
            read = [_real(graph, node, layers, value, number) for number, value in enumerate(read)]
            values[node.name] = node.op.forward(node, read, Run(graph, training=False))[0]
    return values


def _quantize(graph, node, layers, x):
    g = layers[node.name].out
    return reference.quantize(x, g.scale, g.zero_point, g.qmin, g.qmax, g.axis, g.profile)


def _layer_integer(graph, node, layers, x):
    layer, activation = layers[node.name], node.attributes.get("activation")
    acc, product_scales, float_bias = _sums(graph, node, layers, x)
    if layer.out is None:
        return _outputs_second(node, reference.linear_f32(acc, *product_scales, float_bias, activation))
    out, requantize = layer.out, PROFILES[layer.out.profile].requantize
    codes = reference.linear_codes(acc, *product_scales, *_grid(out), float_bias, activation, requantize)
    return _outputs_second(node, codes)


def _grid(out):
    return out.scale, out.zero_point, out.qmin, out.qmax


def _sums(graph, node, layers, x):
    """Return the exact sums of a layer with outputs last, the scales of its operands, and a bias if that is float."""
    layer, x_grid = layers[node.name], input_grid(graph, node, layers)
    w, bias = layer.weight_grid, layer.bias
    is_int = bias is not None and bias.dtype.kind == "i"
    if node.op.name == "linear_integer":
        acc = reference.gemm_s32(x, layer.weight, x_grid.zero_point, w.zero_point, bias if is_int else None)
    else:
        a, zeros = node.attributes, {"x_zero_point": x_grid.zero_point, "w_zero_point": w.zero_point}
        steps = {name: a[name] for name in ("stride", "padding", "dilation", "groups")}
        if node.op.name == "conv2d_integer":
            sums = reference.conv2d_s32(x, layer.weight, **steps, **zeros)
        else:
            weight, more = swap_channels(layer.weight, a["groups"]), {"output_padding": a["output_padding"]}
            sums = reference.conv_transpose2d_s32(x, weight, **steps, **more, **zeros)
        acc = np.moveaxis(sums, 1, -1) + (bias if is_int else np.int32(0))
    return acc, (x_grid.scale, w.scale), None if is_int else bias


def _outputs_second(node, y):
    return y if node.op.name == "linear_integer" else np.moveaxis(y, -1, 1)


def _combined(function):
    def step(graph, node, layers, a, b):
        grids = (input_grid(graph, node, layers, number) for number in range(2))
        operands = [part for q, g in zip((a, b), grids, strict=True) for part in (q, g.scale, g.zero_point)]
        return function(*operands, _grid(layers[node.name].out), node.attributes.get("activation"))

    return step


def _concatenated(graph, node, layers, *parts):
    out, codes = layers[node.name].out, []
    for number, part in enumerate(parts):
        values = _real(graph, node, layers, part, number)
        codes.append(reference.quantize(values, out.scale, out.zero_point, out.qmin, out.qmax, None, out.profile))
    return np.concatenate(codes, axis=node.attributes["axis"])


def _mean_of(windows_of):
    """Make the step of a mean of windows; `windows_of` gives those of an axis as `pool_windows` does."""

    def step(graph, node, layers, x):
        g, out = input_grid(graph, node, layers), layers[node.name].out
        windows = [windows_of(node.attributes, length, axis) for axis, length in enumerate(x.shape[2:])]
        return reference.avg_pool_codes(x, g.scale, g.zero_point, *windows, _grid(out)).reshape(len(x), *node.shape)

    return step


def _windows(a, length, axis):
    kernel, stride, padding = (a[name][axis] for name in ("kernel_size", "stride", "padding"))
    dilation = a["dilation"][axis] if "dilation" in a else 1
    return pool_windows(length, kernel, stride, padding, dilation, a["ceil_mode"], a.get("count_include_pad", False))


def _max_pool(graph, node, layers, x):
    if x.dtype.kind == "f":
        return node.op.forward(node, [x], Run(graph, training=False))[0]
    windows = [_windows(node.attributes, length, axis) for axis, length in enumerate(x.shape[2:])]
    return reference.max_pool_codes(x, *windows, node.attributes["dilation"])


def _clamp(graph, node, layers, x):
    """ReLU and ReLU6, of floats or codes."""
    ends = np.float32([0, 6])
    if x.dtype.kind != "f":
        g = input_grid(graph, node, layers)
        ends = reference.quantize(ends, g.scale, g.zero_point, g.qmin, g.qmax, None, g.profile)
    y = np.maximum(x, ends[0])
    return np.minimum(y, ends[1]) if node.op.name == "relu6" else y


def _pad(graph, node, layers, x):
    value = node.attributes["value"]
    if x.dtype.kind != "f":
        g = input_grid(graph, node, layers)
        value = np.clip(g.zero_point, g.qmin, g.qmax)
    return np.pad(x, node.attributes["width"], constant_values=value)


def _slice(graph, node, layers, x):
    return x[tuple(slice(*part) if isinstance(part, tuple) else part for part in node.attributes["index"])]


def _reshape(graph, node, layers, x):
    return x.reshape(node.shape if isinstance(node.shape, Fixed) else (len(x), *node.shape))


def _real(graph, node, layers, x, number=0):
    if isinstance(x, tuple) or x.dtype.kind == "f" or x.dtype == np.int64:
        return x  # parts are floats, and no codes have 64 bits: these are integers that the network reads
    g = input_grid(graph, node, layers, number)
    return reference.dequantize(x, g.scale, g.zero_point, g.axis, np.float32)


def _softmax(graph, node, layers, x, *masks):
    left_out = attention_mask(x.shape, node.attributes, masks) if "causal" in node.attributes else None
    table = exp_table(input_grid(graph, node, layers))
    return reference.softmax_codes(x, table, _grid(layers[node.name].out), left_out)


def attention_mask(shape, attributes, masks):
    """Return for each score whether a mask leaves it out, from what these are defined to be."""
    left_out = np.zeros(shape, bool)
    if attributes["padding"]:
        left_out |= masks[0].astype(bool)[:, None, None, :]
    if attributes["mask"]:
        left_out |= masks[-1] == -np.inf
    if attributes["causal"]:
        left_out |= np.arange(shape[-1]) > np.arange(shape[-2])[:, None]
    return left_out


def _layer_norm(graph, node, layers, x):
    layer, g, length = layers[node.name], input_grid(graph, node, layers), x.shape[-1]
    gain, offset = (layer.affine[name] for name in ("weight", "bias"))
    gain = np.ones(length, np.float32) if gain is None else gain
    offset = np.zeros(length, np.float32) if offset is None else offset
    eps = node.attributes["eps"] / float(g.scale) ** 2
    unsigned = (x.astype(int) - np.iinfo(x.dtype).min).astype(np.uint8)
    return reference.layer_norm_codes(unsigned, gain, offset, eps, _grid(layer.out))


def _matmul(graph, node, layers, a, b):
    (ga, gb), out = (input_grid(graph, node, layers, number) for number in range(2)), layers[node.name].out
    acc = reference.matmul_sums(a, b, ga.zero_point, gb.zero_point)
    scale = np.float32(gb.scale) * np.float32(node.attributes.get("factor", 1))
    return reference.linear_codes(acc, np.float32(ga.scale), scale, *_grid(out))


def _linear_dynamic(graph, node, layers, x):
    parts, flat = layers[node.name].rows["weight"], x.reshape(-1, x.shape[-1])
    y = _grouped_rows(flat, *parts) if len(parts) > 3 else reference.linear_rows(flat, *parts)
    low, high = BOUNDS[node.attributes.get("activation")]
    return np.clip(y, low, high).reshape(*x.shape[:-1], -1)


def _grouped_rows(x, codes, scale, bias, zero_point):
    """Return what a layer with a scale per group of inputs, or per output, gives; float zero points are offsets."""
    scale, zero_point = (a.reshape(len(codes), -1) for a in (scale, zero_point))
    grid = (0, zero_point) if zero_point.dtype.kind == "f" else (zero_point, None)
    return reference.linear_grouped_rows(x, codes, scale, *grid, bias)


def _recurrent_dynamic(graph, node, layers, x, *more):
    rows, a = layers[node.name].rows, node.attributes
    x = time_first(x, a)
    codes = rows["weight_hh"][0]
    count = 2 if node.op.name == "lstm_dynamic" else 1
    states = [np.zeros((x.shape[1], codes.shape[1]), np.float32)] * count
    if a["state"] is not None:
        states = [time_first(s, a)[a["state"]] for s in more[:count]]
    gx = reference.linear_rows(x.reshape(-1, x.shape[-1]), *rows["weight_ih"]).reshape(*x.shape[:2], -1)
    lengths = more[-1] if a["lengths"] else None
    y, states = reference.recurrence(gx, *rows["weight_hh"], tuple(states), lengths, a["reverse"])
    return tuple(time_first(part, a) for part in (y, *(state[None] for state in states)))


_STEPS = {
    "softmax_integer": _softmax,
    "attention_weights_integer": _softmax,
    "layer_norm_integer": _layer_norm,
    "matmul_integer": _matmul,
    "linear_dynamic": _linear_dynamic,
    "lstm_dynamic": _recurrent_dynamic,
    "gru_dynamic": _recurrent_dynamic,
    "quantize": _quantize,
    "linear_integer": _layer_integer,
    "conv2d_integer": _layer_integer,
    "conv_transpose2d_integer": _layer_integer,
    "add_integer": _combined(reference.add_codes),
    "multiply_integer": _combined(reference.multiply_codes),
    "concatenate_integer": _concatenated,
    "avg_pool2d_integer": _mean_of(_windows),
    "adaptive_avg_pool2d_integer": _mean_of(
        lambda attributes, length, axis: even_windows(length, attributes["output_size"][axis] or length)
    ),
    "mean_integer": _mean_of(lambda attributes, length, axis: even_windows(length, 1)),
    "lookup": lambda graph, node, layers, x: layers[node.name].table[x.astype(int) - np.iinfo(x.dtype).min],
    "max_pool2d": _max_pool,
    "relu": _clamp,
    "relu6": _clamp,
    "pad": _pad,
    "slice": _slice,
    "transpose": lambda graph, node, layers, x: x.transpose(node.attributes["axes"]),
    "reshape": _reshape,
    "dequantize": _real,
}


def textbook_codes(graph, node, layers, x):
    """Return output codes by the textbook formula: real numbers in float64, one division, one rounding."""
    layer = layers[node.name]
    acc, (x_scale, w_scale), float_bias = _sums(graph, node, layers, x)
    y = acc * (np.float64(x_scale) * w_scale.astype(np.float64))
    if float_bias is not None:
        y = y + float_bias
    g, (low, high) = layer.out, BOUNDS[node.attributes.get("activation")]
    y = np.clip(y, low, high)
    codes = np.clip(np.rint(y / np.float64(g.scale) + g.zero_point), g.qmin, g.qmax).astype(np.int64)
    return _outputs_second(node, codes)
