"""Products of two values: in float, and on codes of both, each of which has a grid of its own.

Shape letters: M rows, N columns, K terms; leading axes broadcast.
"""

from __future__ import annotations

import numpy as np

from .. import integer
from .arithmetic import broadcast_lengths, sum_to
from .integer_layer import StoredGrid, have_products, lower_to
from .record import BATCH, Codes, Fixed, finite, full, real, register, shape_text, without_batch

#: So many products of two codes cannot pass the range of int32.
LONGEST_SUM = (2**31 - 1) // 255**2


def _attributes(factor=1.0):
    factor = finite(factor, "factor")
    return {} if factor == 1 else {"factor": factor}


def _factor(node):
    return node.attributes.get("factor", 1.0)


def _forward(node, inputs, run):
    a, b = inputs
    saved = real(a), real(b)
    on_codes = all(isinstance(x, Codes) and have_products(x.qparams) for x in inputs)
    if on_codes and a.shape[-1] <= LONGEST_SUM:
        return integer.matmul(a.codes, a.qparams, b.codes, b.qparams, factor=_factor(node)), saved
    y = saved[0] @ saved[1]
    return (y * y.dtype.type(_factor(node)) if node.attributes else y), saved


def _backward(node, dy, saved, need_input):
    a, b = saved
    dy = dy * dy.dtype.type(_factor(node)) if node.attributes else dy
    da = sum_to(dy @ b.swapaxes(-1, -2), a.shape) if need_input[0] else None
    if not need_input[1]:
        return (da, None), {}
    if b.ndim == 2:
        rows = list(range(a.ndim - 1))
        return (da, np.tensordot(a, dy, (rows, rows))), {}
    return (da, sum_to(a.swapaxes(-1, -2) @ dy, b.shape)), {}


def _shape(node, shapes):
    a, b = (full(shape) for shape in shapes)
    if min(len(a), len(b)) < 2 or a[-1] != b[-2] or a[-1] == BATCH:
        raise ValueError(f"matmul: shapes {shape_text(a)} and {shape_text(b)} are not (..., M, K) and (..., K, N)")
    return without_batch((*broadcast_lengths("matmul", a[:-2], b[:-2]), a[-2], b[-1]), "matmul")


def _no_integers(node, shapes):
    if any(isinstance(shape, Fixed) for shape in shapes):
        return "an operand is a parameter or constant"
    if full(shapes[0])[-1] > LONGEST_SUM:
        return f"sums of more than {LONGEST_SUM:,} products could pass the range of int32"
    return None


def _integer_forward(node, inputs, run):
    a, b = inputs
    codes = integer.matmul(a.codes, a.qparams, b.codes, b.qparams, node.out_qparams, _factor(node))
    return Codes(codes, node.out_qparams), None


def _integer_step(node, inputs, steps):
    a, b = inputs
    return steps.matmul(a, b, node.out_qparams, _factor(node)) if a.shape[:-2] == b.shape[:-2] else None


#: Its attribute `factor` multiplies the result.
MATMUL = register(
    name="matmul",
    forward=_forward,
    backward=_backward,
    shape=_shape,
    attributes=_attributes,
    arity=2,
    takes_fixed=True,
    takes_codes=True,
    lower=lower_to("matmul_integer"),
    no_integers=_no_integers,
)
MATMUL_INTEGER = register(
    name="matmul_integer",
    forward=_integer_forward,
    backward=None,
    stores=StoredGrid,
    shape=_shape,
    attributes=_attributes,
    arity=2,
    takes_codes=True,
    step=_integer_step,
)
