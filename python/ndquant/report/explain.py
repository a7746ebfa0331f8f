"""One output value of an integer layer, worked out step by step."""

from __future__ import annotations

import numpy as np

from .. import reference
from ..errors import QuantizationError
from ..graph.inputs import as_inputs
from ..graph.lower import edge_qparams
from ..grouped import GroupedWeight
from ..ops import Codes
from ..ops.dynamic import DynamicLayer
from ..ops.integer_layer import IntegerLayer
from ..profiles import PROFILES
from ..reference.activation import BOUNDS

#: So many products of a sum are written out.
_PRODUCTS = 12


def explain(graph, name, index, batch):
    """Work out one output value of a converted layer in integers.

    Parameters
    ----------
    graph : Graph
        Of kind "integer".
    name : str
        Name of a layer with weights.
    index : tuple of int
        Of the value: (n, feature) of a linear layer, (n, c, h, w) of a convolution. A linear layer that quantizes its
        input as it comes is worked out from the range of the row that it reads.
    batch : ndarray or tuple of ndarray
        Input(s) of the network.

    Returns
    -------
    str

    Raises
    ------
    QuantizationError
        If the graph is not converted or the layer has no integers.
    IndexError
        If there is no such value.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import nn
    >>> model = nn.Sequential(nn.Linear(2, 1))
    >>> model[0].weight, model[0].bias = [[1.0, -0.5]], [0.25]
    >>> x = np.float32([[1.0, 0.5], [-1.0, 0.25]])
    >>> print(nq.quantize_static(model, [x]).explain("0", (0, 0), x))
    0[0, 0]: float32, exactly what the network gives
      reads codes qx of 0.00783931 * (qx - 127), multiplies with codes qw of 0.00787402 * (qw - 0)
      sum of (qx - 127) * (qw - 0) over 2 products:
        (255 - 127) * (127 - 0) + (191 - 127) * (-64 - 0) = 12160
      bias: 12160 + 4050 = 16210
      to real: 16210 * 6.17268e-05 = 1.00059
    """
    if graph.kind != "integer":
        raise QuantizationError(f"explain: expected a converted graph, not one of kind {graph.kind!r}")
    inputs = as_inputs(batch if isinstance(batch, tuple) else (batch,))
    graph = graph.fitting(inputs)
    node = _explained(graph, name)
    values = graph.run(*inputs).values
    y = values[name]
    if isinstance(node.module, DynamicLayer):
        index = _checked_index(index, y.shape, name)
        return "\n".join(_lines_of_row(node, index, values[node.inputs[0]][index[:-1]], y[index]))
    y = y.codes if isinstance(y, Codes) else y
    index = _checked_index(index, y.shape, name)
    qx, qw = _operands(node, index, values[node.inputs[0]].codes)
    return "\n".join(_lines(node, index, qx, qw, edge_qparams(graph, node.inputs[0]), y[index]))


def _explained(graph, name):
    """Return the node of that name if it is a layer whose sums are of integers, and of one product each."""
    node = graph[name]
    if isinstance(node.module, DynamicLayer) and "weight" not in node.module.weights:
        raise QuantizationError(f"explain: {name!r} ({node.op.name}) gives what many steps made in a row")
    if isinstance(node.module, DynamicLayer) and isinstance(node.module.weight, GroupedWeight):
        raise QuantizationError(f"explain: {name!r} adds up groups of inputs, each of which has a scale of its own")
    if not isinstance(node.module, IntegerLayer | DynamicLayer):
        layers = ", ".join(n.name for n in graph.nodes if isinstance(n.module, IntegerLayer | DynamicLayer))
        raise QuantizationError(f"explain: {name!r} ({node.op.name}) has no weights in integers; these have: {layers}")
    return node


def _checked_index(index, shape, name):
    index = tuple(index)
    if len(index) != len(shape) or not all(0 <= i < n for i, n in zip(index, shape, strict=True)):
        raise IndexError(f"explain: {name!r} gives values of shape {shape}, among which {index} is not")
    return index


def _operands(node, index, codes):
    """Return the input codes and the weight codes whose products are summed; what lies in the padding is left out."""
    if node.op.name == "linear_integer":
        return codes[index[:-1]], node.weight[index[-1]]
    n, o, *place = index
    a = node.attributes
    weight = node.weight[o]
    first = (o // (len(node.weight) // a["groups"])) * len(weight)
    image = codes[n, first : first + len(weight)]
    axes = zip(place, image.shape[1:], weight.shape[1:], a["stride"], a["padding"], a["dilation"], strict=True)
    inside = _inside if node.op.name == "conv2d_integer" else _reaching
    rows, columns = (inside(*axis) for axis in axes)
    return image[:, rows[0]][:, :, columns[0]].ravel(), weight[:, rows[1]][:, :, columns[1]].ravel()


def _inside(at, length, kernel, stride, padding, dilation):
    """Return the pixels of a window along an axis that lie in the image, and which taps they meet."""
    pixels = at * stride - padding + dilation * np.arange(kernel)
    taps = np.flatnonzero((pixels >= 0) & (pixels < length))
    return pixels[taps], taps


def _reaching(at, length, kernel, stride, padding, dilation):
    """Return the same of a transposed convolution: the pixels that reach an output, and through which taps."""
    steps = at + padding - dilation * np.arange(kernel)
    taps = np.flatnonzero((steps % stride == 0) & (steps >= 0) & (steps < length * stride))
    return steps[taps] // stride, taps


def _lines(node, index, qx, qw, x_qparams, found):
    layer, channel = node.module, index[1] if len(index) == 4 else index[-1]
    w_scale, w_zero = (
        np.broadcast_to(v, len(layer.weight))[channel] for v in (layer.w_qparams.scale, layer.w_qparams.zero_point)
    )
    acc, lines = _sum(qx, qw, x_qparams.scale, int(x_qparams.zero_point), w_scale, int(w_zero))
    bias = None if layer.bias is None else layer.bias[channel]
    if bias is not None and layer.bias.dtype.kind == "i":
        lines.append(f"  bias: {acc} + {bias} = {acc + int(bias)}")
        acc, bias = acc + int(bias), None
    tail, value = _end(node, acc, bias, x_qparams.scale, w_scale)
    kind = "float32" if layer.out_qparams is None else f"code {value}"
    return [_head(node, index, kind, value, found), *lines, *tail]


def _lines_of_row(node, index, row, found):
    weight, channel = node.module.weight, index[-1]
    low, high = row.min(initial=0), row.max(initial=0)
    scale, zero = reference.choose_scale_zero_point(low, high, 0, 255, symmetric=False)
    qx, w_scale = reference.quantize(row[None], scale, zero, 0, 255)[0], weight.qparams.scale[channel]
    acc, lines = _sum(qx, weight.codes[channel], scale, int(zero), w_scale, 0)
    bias = None if weight.bias is None else weight.bias[channel]
    tail, value = _end(node, acc, bias, scale, w_scale)
    begin = f"  its row of {len(row)} floats lies between {low:.6g} and {high:.6g}"
    return [_head(node, index, "float32", value, found), begin, *lines, *tail]


def _head(node, index, kind, value, found):
    agrees = "exactly what the network gives" if value == found else f"but the network gives {found!r}"
    return f"{node.name}[{', '.join(map(str, index))}]: {kind}, {agrees}"


def _sum(qx, qw, x_scale, zero, w_scale, w_zero):
    """Return the sum of the products of codes, and lines that show it."""
    acc = int(((qx.astype(np.int64) - zero) * (qw.astype(np.int64) - w_zero)).sum())
    products = [f"({x} - {zero}) * ({w} - {w_zero})" for x, w in zip(qx[:_PRODUCTS], qw[:_PRODUCTS], strict=True)]
    rest = f" + {len(qx) - _PRODUCTS} more" if len(qx) > _PRODUCTS else ""
    return acc, [
        f"  reads codes qx of {x_scale:.6g} * (qx - {zero}), multiplies with codes qw of "
        f"{w_scale:.6g} * (qw - {w_zero})",
        f"  sum of (qx - {zero}) * (qw - {w_zero}) over {len(qx)} products:",
        f"    {' + '.join(products) or 0}{rest} = {acc}",
    ]


def _end(node, acc, float_bias, x_scale, w_scale):
    """Return lines from the sum to the output, and that output."""
    activation, out = node.attributes.get("activation"), getattr(node.module, "out_qparams", None)
    sums, s = np.array([[acc]]), reference.product_scale(x_scale, w_scale)
    bias = None if float_bias is None else np.float32([float_bias])
    real = reference.linear_f32(sums, x_scale, w_scale, bias)[0, 0]
    plus = "" if float_bias is None else f" + {float_bias:.6g}"
    lines = [f"  to real: {acc} * {s:.6g}{plus} = {real:.6g}"]
    if activation is not None:
        lines.append(f"  {activation}: between {BOUNDS[activation][0]} and {BOUNDS[activation][1]}")
    if out is None:
        return lines, reference.linear_f32(sums, x_scale, w_scale, bias, activation)[0, 0]
    rule, spec = PROFILES[out.profile].requantize, out.spec
    grid = out.scale, out.zero_point, spec.qmin, spec.qmax
    code = reference.linear_codes(sums, x_scale, w_scale, *grid, bias, activation, rule)[0, 0]
    how = "" if rule == "dequantize" else f" (in one multiplication, as {rule} does)"
    lines.append(f"  to a code: clamp({out.zero_point} + rint({real:.6g} / {out.scale:.6g})){how} = {code}")
    stands_for = float(out.scale) * (int(code) - int(out.zero_point))
    return [*lines, f"  which stands for {stands_for:.6g}"], code
