"""What passes over the layers of a calibrated graph share: each layer with what it reads, in float and quantized."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import QuantizationError
from ..functional import dequantize, matmul_f32, quantize
from ..graph.graph import Run
from ..graph.inputs import as_inputs
from ..graph.originals import restore_originals
from ..ops.record import Codes, real
from ..quantizers.given import GivenQuantizer
from ..workflows.prepare import example_inputs
from ..workflows.ptq import check_batches, check_kind


@dataclass
class Moments:
    """Sums over all rows that the weights of a layer meet: x in the float network, z quantized.

    Shape letters: G groups of a convolution (1 elsewhere), K inputs of an output.

    Attributes
    ----------
    count : int
        Number of rows.
    x, z : ndarray of float64, shape (G, K)
        Their sums.
    zz, xz : ndarray of float64, shape (G, K, K), or None
        Sums of products ``z[i] * z[j]`` and ``x[i] * z[j]``.
    """

    count: int
    x: np.ndarray
    z: np.ndarray
    zz: np.ndarray | None = None
    xz: np.ndarray | None = None


def refine_layers(prepared, batches, refine, caller, *, products=True, inherited=True):
    """Return `prepared` after ``refine(node, moments)`` of every layer with quantized weights, in their order.

    `refine` may change weight, bias and weight quantizer of the node by `set_weight` and `set_bias`; the layers behind
    read what the changed layer gives.

    Parameters
    ----------
    prepared : Graph
        Of `prepare` after `calibrate`; it stays as it is.
    batches : iterable
        Each item an array, or a tuple of arrays for several inputs.
    refine : callable
    caller : str
        What errors call the pass.
    products : bool, default True
        Whether `refine` reads ``zz`` and ``xz`` of the moments.
    inherited : bool, default True
        Whether z is what a layer reads in the quantized network; otherwise it is x, quantized: without the errors of
        the layers in front.
    """
    check_kind(prepared, "prepared", caller, "prepare")
    check_batches(batches)
    inputs = [as_inputs(example_inputs(batch)) for batch in batches]
    if not inputs:
        raise ValueError("batches: at least one batch is needed, got none")
    quantized, plain = prepared.copy(), prepared.copy()
    states = [(quantizer, quantizer.state) for _, quantizer in quantized.quantizers()]
    for quantizer, _ in states:
        quantizer.freeze()
    for _, quantizer in restore_originals(plain).quantizers():
        quantizer.state = "off"
    walks = [_Walk(graph, inputs) for graph in (plain, quantized)]
    for node in quantized.nodes:
        if node.weight_quantizer is not None:
            x, z = (walk.read_by(node) for walk in walks)
            refine(node, _moments(node, x, z if inherited else list(map(_quantized_like, z, x)), products))
        for walk in walks:
            walk.run(node.name)
    for quantizer, state in states:
        quantizer.state = state
    return quantized


class _Walk:
    """A graph that runs node by node over several batches, and forgets the values that no later node reads."""

    def __init__(self, graph, inputs):
        self.graph = graph
        self.runs = [Run(graph, False, dict(zip(graph.inputs, arrays, strict=True))) for arrays in inputs]
        self.last_reader = {name: node.name for node in graph.nodes for name in self._needed_by(node)}

    def _needed_by(self, node):
        """Return the values that a node reads; a quantizer may look at what the op in front of it has read."""
        producer = self.graph.find(node.inputs[0]) if node.quantizer is not None else None
        return {*node.inputs, *(producer.inputs if producer is not None else ())}

    def read_by(self, node):
        """Return the values that a layer reads, one array for each batch."""
        return [run.values[node.inputs[0]] for run in self.runs]

    def run(self, name):
        node = self.graph[name]
        for run in self.runs:
            read = [run.values[source] for source in node.inputs]
            if not node.op.takes_codes:
                read = [real(value) for value in read]
            run.values[name], run.saved[name] = node.op.forward(node, read, run)
            for source in self._needed_by(node):
                if self.last_reader[source] == name:
                    del run.values[source]
                    run.saved.pop(source, None)


def _quantized_like(read, x):
    """Return what becomes of `x` in front of a layer that reads `read` in the quantized network."""
    return Codes(quantize(real(x), read.qparams), read.qparams) if isinstance(read, Codes) else x


def _moments(node, floats, quantized, products):
    total = None
    for x, z in zip(floats, quantized, strict=True):
        found = _batch_moments(_rows(node, real(x)), _rows(node, real(z)), products)
        if not np.isfinite(found[1]).all():
            raise QuantizationError(f"{node.name}: a row that it reads is NaN or infinite")
        total = found if total is None else [a + b for a, b in zip(total, found, strict=True)]
    return Moments(*total)


def _batch_moments(x, z, products):
    sums = [x.shape[1], x.sum(axis=1, dtype=np.float64), z.sum(axis=1, dtype=np.float64)]
    if products:
        pairs = (z, z), (x, z)
        sums += [np.stack([matmul_f32(p.T, q) for p, q in zip(*pair, strict=True)]).astype(float) for pair in pairs]
    return sums


def _spread(x, reach, a):
    """Return the image of which a transposed convolution is an ordinary one of stride 1, its window in reverse."""
    spread = np.zeros((*x.shape[:2], *(n * s for n, s in zip(x.shape[2:], a["stride"], strict=True))), x.dtype)
    spread[:, :, :: a["stride"][0], :: a["stride"][1]] = x
    border, inside = [(0, 0), (0, 0)], [slice(None)] * 2
    axes = zip(x.shape[2:], reach, a["stride"], a["padding"], a["output_padding"], strict=True)
    for length, r, stride, pad, more in axes:
        before, size = r - 1 - pad, (length - 1) * stride - 2 * pad + 2 * r - 1 + more
        border.append((max(before, 0), r + more))
        inside.append(slice(max(-before, 0), max(-before, 0) + size))
    return np.pad(spread, border)[tuple(inside)]


def _rows(node, x):
    """Return what the weights meet as (G, rows, K): of images each window, with zeros in the padding."""
    if "stride" not in node.attributes:
        return x.reshape(1, -1, x.shape[-1])
    a, (_, channels, *window) = node.attributes, node.weight.shape
    reach = [1 + (k - 1) * d for k, d in zip(window, a["dilation"], strict=True)]
    stride, order = a["stride"], 1
    if "output_padding" in a:
        x, stride, order = _spread(x, reach, a), (1, 1), -1
    else:
        x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in a["padding"])))
    views = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(2, 3))
    views = views[:, :, :: stride[0], :: stride[1], :: a["dilation"][0], :: a["dilation"][1]][..., ::order, ::order]
    views = views.reshape(len(x), a["groups"], channels, *views.shape[2:])
    rows = np.ascontiguousarray(views.transpose(1, 0, 3, 4, 2, 5, 6))
    return rows.reshape(a["groups"], -1, channels * window[0] * window[1])


def set_weight(node, codes, qparams):
    """Give a layer the weight that these codes stand for, and their grid."""
    weight = dequantize(codes.reshape(node.weight.shape), qparams, dtype=np.float32)
    _change(node, weight, node.bias)
    node.weight_quantizer = GivenQuantizer(node.weight_quantizer, qparams)


def set_bias(node, bias):
    """Give a layer a bias."""
    _change(node, node.weight, bias.astype(np.float32))


def original_weight(node):
    """Return the weight of a layer in the float network."""
    original = node.weight_quantizer.original
    return node.weight if original is None else original[0]


def _change(node, weight, bias):
    if node.weight_quantizer.original is None:
        node.weight_quantizer.original = node.weight, node.bias
    node.module = node.module.with_arrays(weight=weight, bias=bias)


def rounded_weight(node):
    """Return the weight that the quantizer of a layer makes of its own."""
    quantizer, weight = node.weight_quantizer, node.weight
    qparams = quantizer.qparams_for(weight)
    return dequantize(quantize(quantizer.transformed(weight), qparams), qparams, dtype=np.float32)
