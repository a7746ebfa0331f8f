"""A table of a network's layers: how many bits, how large, how far from float."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2
from pathlib import Path

import numpy as np

from ..errors import QuantizationError
from ..functional import dequantize
from ..graph.inputs import as_inputs
from ..graph.insert_quantizers import why_float
from ..graph.lower import edge_qparams
from ..graph.originals import restore_originals
from ..graph.store_half import half_parameters
from ..metrics import sqnr
from ..ops import real
from ..ops.dynamic import DynamicLayer
from ..ops.integer_layer import IntegerLayer, StoredNorm, zero_is_a_code
from ..qparams import QParams
from ..tables import html_table, text_table
from .axes import FLOAT, QUANTIZED, new_axes
from .page import report_page

_HEAD = ("layer", "runs in", "weight", "in", "out", "parameters", "bytes", "SQNR weight", "SQNR output", "clipped")
_HEAD += ("headroom",)

#: Ops that compute nothing: they move values, or turn floats into codes and back.
_NO_ROW = {"quantize", "dequantize", "dequant_stub", "constant", "outputs", "part", "stack_states"}


@dataclass(frozen=True)
class Row:
    """One layer of a `Report`.

    Attributes
    ----------
    layer, kernel : str
        Name of the node; "integers", or "float" with the reason.
    weight_bits, in_bits, out_bits : int or None
        None: float, or no weights.
    parameters, bytes : int
        Weights and biases, and what they take in a file (without its own overhead).
    weight_sqnr, output_sqnr : float or None
        In dB against the float network; None where there is nothing to compare with.
    clipped : float or None
        Share of the layer's output values that lie outside the range of its codes.
    headroom : float or None
        Bits between the largest sum that the weights allow and the end of int32.
    """

    layer: str
    kernel: str
    weight_bits: int | None
    in_bits: int | None
    out_bits: int | None
    parameters: int
    bytes: int
    weight_sqnr: float | None
    output_sqnr: float | None
    clipped: float | None
    headroom: float | None


@dataclass(frozen=True)
class Report:
    """Rows of a network's layers; printing it gives the table.

    Attributes
    ----------
    rows : tuple of Row
    """

    rows: tuple

    @property
    def parameters(self):
        """Number of weights and biases."""
        return sum(row.parameters for row in self.rows)

    @property
    def bytes(self):
        """What all layers take in a file, without its overhead."""
        return sum(row.bytes for row in self.rows)

    @property
    def stayed_float(self):
        """{layer: reason} of what does not run on integers."""
        return {row.layer: row.kernel.removeprefix("float: ") for row in self.rows if row.kernel != "integers"}

    def _cells(self):
        total = ("total", "", "", "", "", f"{self.parameters:,}", f"{self.bytes:,}", "", "", "", "")
        return [*map(_cells, self.rows), total]

    def __str__(self):
        return text_table(_HEAD, self._cells(), left=2)

    def __repr__(self):
        return str(self)

    def _repr_html_(self):
        return html_table(_HEAD, self._cells())

    def save_html(self, path, title="Quantization report"):
        """Write the report as one HTML page that needs no other file, light or dark as its reader has chosen.

        Parameters
        ----------
        path : str or path-like
        title : str, default "Quantization report"
        """
        Path(path).write_text(report_page(self, title), encoding="utf-8")

    def plot(self, ax=None):
        """Plot the SQNR of the outputs of each layer as bars, that of the weights as marks.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default new ones.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = new_axes(width=0.3 * len(self.rows)) if ax is None else ax
        places = np.arange(len(self.rows))
        outputs, weights = (
            [np.nan if getattr(row, field) is None else getattr(row, field) for row in self.rows]
            for field in ("output_sqnr", "weight_sqnr")
        )
        ax.bar(places, outputs, color=QUANTIZED, label="output")
        ax.plot(places, weights, "s", color=FLOAT, markerfacecolor="none", label="weight")
        ax.set_xticks(places, [row.layer for row in self.rows], rotation=90)
        ax.set_ylabel("SQNR, dB")
        ax.legend()
        return ax


def _cells(row):
    weight = "-" if row.weight_bits is None else f"{row.weight_bits} bits"
    bits = [weight, *("float" if b is None else f"{b} bits" for b in (row.in_bits, row.out_bits))]
    decibels = ["-" if v is None else f"{v:.1f} dB" for v in (row.weight_sqnr, row.output_sqnr)]
    clipped = "-" if row.clipped is None else f"{100 * row.clipped:.2f} %"
    headroom = "-" if row.headroom is None else f"{row.headroom:.1f} bits"
    return (row.layer, row.kernel, *bits, f"{row.parameters:,}", f"{row.bytes:,}", *decibels, clipped, headroom)


def report(graph, batch=None):
    """Describe the layers of a converted network.

    Parameters
    ----------
    graph : Graph
        Of kind "integer", or with weights in 16 bits.
    batch : ndarray or tuple of ndarray, optional
        Input(s) on which outputs are compared with the float network; without it those columns stay empty.

    Returns
    -------
    Report

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import nn
    >>> x = np.random.default_rng(0).standard_normal((32, 4))
    >>> int8 = nq.quantize_static(nn.Sequential(nn.Linear(4, 2, rng=0)), [x])
    >>> int8.report(x).rows[0].weight_bits
    8
    """
    if graph.kind != "integer" and not any(map(half_parameters, graph.nodes)):
        raise QuantizationError(f"report: expected a converted graph, not one of kind {graph.kind!r}")
    values, floats, ranges = {}, {}, {}
    if batch is not None:
        inputs = as_inputs(batch if isinstance(batch, tuple) else (batch,))
        graph = graph.fitting(inputs)
        values = graph.run(*inputs).values
        if graph.simulation is not None:
            floats = float_values(graph.simulation, inputs)
            ranges = graph.simulation.run(*inputs).values
    layers = [node for node in graph.nodes if not node.keeps_codes and node.op.name not in _NO_ROW]
    return Report(tuple(_row(graph, node, values, floats, ranges) for node in layers))


def float_values(simulation, inputs):
    """Run the simulation with its quantizers passing everything through; returns {node name: floats}."""
    plain = restore_originals(simulation.copy())
    for _, quantizer in plain.quantizers():
        quantizer.state = "off"
    return plain.run(*inputs).values


def _row(graph, node, values, floats, simulated):
    is_dynamic = isinstance(node.module, DynamicLayer)
    is_integer, out = node.op.stores is not None, getattr(node.module, "out_qparams", None)
    in_qparams = edge_qparams(graph, node.inputs[0]) if node.inputs else None
    weights = _weights(graph, node)
    return Row(
        layer=node.name,
        kernel="integers" if is_integer else _float_kernel(graph, node),
        in_bits=8 if is_dynamic else None if in_qparams is None else in_qparams.spec.bits,
        out_bits=None if out is None else out.spec.bits,
        output_sqnr=_sqnr(floats, values, node.name),
        clipped=None if out is None or node.name not in simulated else _clipped(real(simulated[node.name]), out),
        **weights,
    )


def _weights(graph, node):
    """Return the fields of a row that are about weights."""
    layer = node.module
    if isinstance(layer, DynamicLayer):
        return _row_weights(graph, node)
    if half_parameters(node):
        return _half_weights(graph, node)
    if not isinstance(layer, IntegerLayer):
        arrays = [parameter.data for _, parameter in graph._node_parameters(node)]
        arrays += [a for a in (layer.weight, layer.bias) if a is not None] if isinstance(layer, StoredNorm) else []
        count = sum(array.size for array in arrays)
        return {"parameters": count, "bytes": 4 * count, "headroom": None, **_fake_quantized(graph, node)}
    spec, biases = layer.w_qparams.spec, 0 if layer.bias is None else layer.bias.size
    original = restore_originals(graph.simulation.copy())[node.name].weight if graph.simulation is not None else None
    return {
        "weight_bits": spec.bits,
        "parameters": layer.weight.size + biases,
        "bytes": -(-layer.weight.size * spec.bits // 8) + 4 * biases + np.asarray(layer.w_qparams.scale).nbytes,
        "weight_sqnr": None if original is None else sqnr(original, dequantize(layer.weight, layer.w_qparams)),
        "headroom": _headroom(layer, edge_qparams(graph, node.inputs[0])),
    }


def _fake_quantized(graph, node):
    """Return bits and error of a weight that is float, but lies on the grid of codes that have no integer form."""
    origin = None if graph.simulation is None else graph.simulation.find(node.name)
    if origin is None or origin.weight_quantizer is None:
        return {"weight_bits": None, "weight_sqnr": None}
    return {"weight_bits": origin.weight_quantizer.config.spec.bits, "weight_sqnr": sqnr(origin.weight, node.weight)}


def _row_weights(graph, node):
    """Return these fields of a layer that quantizes its input as it comes: of all its weights together."""
    weights, floats = node.module.weights, graph.simulation and graph.simulation[node.name]
    biases = [w.bias for w in weights.values() if w.bias is not None]
    errors = [
        sqnr(getattr(floats, name), dequantize(w.codes, w.qparams)) for name, w in weights.items() if floats is not None
    ]
    largest = max(int(np.abs(w.codes.astype(np.int64)).sum(axis=1).max(initial=0)) for w in weights.values())
    return {
        "weight_bits": max(w.qparams.spec.bits for w in weights.values()),
        "parameters": sum(w.codes.size for w in weights.values()) + sum(bias.size for bias in biases),
        "bytes": sum(a.nbytes for a in (*weights.values(), *biases)),
        "weight_sqnr": min(errors, default=None),
        "headroom": _bits_below_the_end(255 * largest),
    }


def _half_weights(graph, node):
    """Return these fields of a layer that computes with weights of 16 bits."""
    halves, floats = half_parameters(node), graph.simulation and graph.simulation[node.name]
    sizes = {name: parameter.data.size for name, parameter in node.module._parameters.items()}
    errors = [sqnr(getattr(floats, name), parameter.data) for name, parameter in halves.items() if floats is not None]
    return {
        "weight_bits": 16,
        "parameters": sum(sizes.values()),
        "bytes": sum((2 if name in halves else 4) * size for name, size in sizes.items()),
        "weight_sqnr": min(errors, default=None),
        "headroom": None,
    }


def _bits_below_the_end(largest):
    return 31.0 if largest == 0 else log2((2**31 - 1) / largest)


def _headroom(layer, x_qparams):
    """Return the bits between the largest sum that the codes allow and 2^31 - 1."""
    zero_point = int(x_qparams.zero_point)
    reach = max(x_qparams.spec.qmax - zero_point, zero_point - x_qparams.spec.qmin)
    weights = layer.weight.reshape(len(layer.weight), -1).astype(np.int64)
    sums = np.abs(weights - np.reshape(layer.w_qparams.zero_point, (-1, 1))).sum(axis=1) * reach
    if layer.bias is not None and layer.bias.dtype.kind == "i":
        sums = sums + np.abs(layer.bias.astype(np.int64))
    return _bits_below_the_end(int(sums.max(initial=0)))


def _float_kernel(graph, node):
    return f"float: {_why_float(graph, node)}" if graph.kind == "integer" else "float"


def _why_float(graph, node):
    reason = why_float(graph, node)
    if reason is not None:
        return reason
    if node.kept_float:
        return "kept by qconfig"
    readers = list(_readers(graph, node.name))
    grids = [edge_qparams(graph, name) for name in node.inputs]
    grids += [reader.out_qparams for reader in readers if reader is not None and reader.op.name == "quantize"]
    if graph.simulation is not None and graph.simulation[node.name].weight_quantizer is not None:
        grids.append(graph.simulation[node.name].weight_quantizer.config)
    specs = [grid.spec for grid in grids if grid is not None]
    if any(not spec.zero_aligned for spec in specs):
        return "0 is no code (zero_aligned=False)"
    if any(isinstance(grid, QParams) and not zero_is_a_code(grid) for grid in grids):
        return "0 is no code of what it reads"
    if any(not spec.is_byte_grid for spec in specs):
        return "codes of more than 8 bits"
    if None in readers:
        return "its result leaves the network as floats"
    floats = [reader.name for reader in readers if reader.op.stores is None]
    return f"read as floats by {', '.join(floats)}" if floats else _without_integer_form(grids)


def _readers(graph, name):
    """Yield the nodes that read a value, past those that only move it; None for whoever gets the output."""
    if name == graph.output:
        yield None
    for reader in graph.consumers(name):
        if reader.op.name == "outputs":
            yield None
        elif reader.keeps_codes:
            yield from _readers(graph, reader.name)
        else:
            yield reader


def _without_integer_form(grids):
    profiles = sorted({grid.profile for grid in grids if isinstance(grid, QParams)})
    return f"no integer form in profile {' or '.join(profiles)}"


def _sqnr(floats, values, name):
    if name not in floats or name not in values:
        return None
    sides = (side[name] for side in (floats, values))
    return sqnr(*(real(y[0] if isinstance(y, tuple) else y) for y in sides))


def _clipped(y, qparams):
    low, high = (float(v) for v in qparams.range)
    half = 0.5 * float(qparams.scale)
    return float(np.mean((y < low - half) | (y > high + half))) if y.size else 0.0
