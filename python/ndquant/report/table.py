"""A table of a network's layers: how many bits, how large, how far from float."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import QuantizationError
from ..functional import dequantize
from ..graph.lower import edge_qparams
from ..metrics import sqnr
from ..ops import real
from ..ops.integer_layer import IntegerLayer

_HEAD = ("layer", "runs in", "weight", "in", "out", "parameters", "bytes", "SQNR weight", "SQNR output", "clipped")


@dataclass(frozen=True)
class Row:
    """One layer of a `Report`.

    Attributes
    ----------
    layer, kernel : str
        Name of the node; "integers", or "float" with the reason.
    weight_bits, in_bits, out_bits : int or None
        None: float.
    parameters, bytes : int
        Weights and biases, and what they take in a file (without its own overhead).
    weight_sqnr, output_sqnr : float or None
        In dB against the float network; None where there is nothing to compare with.
    clipped : float or None
        Share of the layer's output values that lie outside the range of its codes.
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

    def __str__(self):
        cells = [_HEAD, *(_cells(row) for row in self.rows)]
        cells.append(("total", "", "", "", "", f"{self.parameters:,}", f"{self.bytes:,}", "", "", ""))
        widths = [max(len(row[i]) for row in cells) for i in range(len(_HEAD))]
        return "\n".join(_line(row, widths) for row in cells)

    def __repr__(self):
        return str(self)


def _line(row, widths):
    left = [cell.ljust(w) for cell, w in zip(row[:2], widths[:2], strict=True)]
    return "  ".join([*left, *(cell.rjust(w) for cell, w in zip(row[2:], widths[2:], strict=True))]).rstrip()


def _cells(row):
    bits = ["float" if b is None else f"{b} bits" for b in (row.weight_bits, row.in_bits, row.out_bits)]
    decibels = ["-" if v is None else f"{v:.1f} dB" for v in (row.weight_sqnr, row.output_sqnr)]
    clipped = "-" if row.clipped is None else f"{100 * row.clipped:.2f} %"
    return (row.layer, row.kernel, *bits, f"{row.parameters:,}", f"{row.bytes:,}", *decibels, clipped)


def report(graph, batch=None):
    """Describe the layers of a converted network.

    Parameters
    ----------
    graph : Graph
        Of kind "integer".
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
    if graph.kind != "integer":
        raise QuantizationError(f"report: expected a converted graph, not one of kind {graph.kind!r}")
    values, floats, ranges = {}, {}, {}
    if batch is not None:
        inputs = batch if isinstance(batch, tuple) else (batch,)
        values = graph.run(*inputs).values
        if graph.simulation is not None:
            floats = float_values(graph.simulation, inputs)
            ranges = graph.simulation.run(*inputs).values
    layers = [node for node in graph.nodes if node.op.parameters or isinstance(node.module, IntegerLayer)]
    return Report(tuple(_row(graph, node, values, floats, ranges) for node in layers))


def float_values(simulation, inputs):
    """Run the simulation with its quantizers passing everything through; returns {node name: floats}."""
    plain = simulation.copy()
    for _, quantizer in plain.quantizers():
        quantizer.state = "off"
    return plain.run(*inputs).values


def _row(graph, node, values, floats, simulated):
    if not isinstance(node.module, IntegerLayer):
        count = sum(parameter.data.size for parameter in node.module._parameters.values())
        error = _sqnr(floats, values, node.name)
        why = "float: kept by qconfig" if node.op.lower is not None else "float: has no integer form"
        return Row(node.name, why, None, None, None, count, 4 * count, None, error, None)
    layer, spec = node.module, node.module.w_qparams.spec
    original = graph.simulation[node.name].weight if graph.simulation is not None else None
    weight_error = None if original is None else sqnr(original, dequantize(layer.weight, layer.w_qparams))
    biases = 0 if layer.bias is None else layer.bias.size
    size = -(-layer.weight.size * spec.bits // 8) + 4 * biases + np.asarray(layer.w_qparams.scale).nbytes
    in_bits, out = edge_qparams(graph, node.inputs[0]).spec.bits, layer.out_qparams
    return Row(
        node.name,
        "integers",
        spec.bits,
        in_bits,
        None if out is None else out.spec.bits,
        layer.weight.size + biases,
        size,
        weight_error,
        _sqnr(floats, values, node.name),
        None if out is None or node.name not in simulated else _clipped(real(simulated[node.name]), out),
    )


def _sqnr(floats, values, name):
    return None if name not in floats or name not in values else sqnr(real(floats[name]), real(values[name]))


def _clipped(y, qparams):
    low, high = (float(v) for v in qparams.range)
    half = 0.5 * float(qparams.scale)
    return float(np.mean((y < low - half) | (y > high + half))) if y.size else 0.0
