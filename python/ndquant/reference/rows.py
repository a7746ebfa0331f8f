"""Rows of floats between products, as they are defined: each operation in float32, rounded by itself; sums in float64.

Shape letters: N examples, L queries, S keys, E features, of which each of the heads has D.
"""

from __future__ import annotations

import numpy as np

from .dynamic import F32, exp_parts, tanh
from .gemm import matmul_f32

_PARTS = 16
_GELU = tuple(
    F32(float.fromhex(x))
    for x in (
        "0x1.49ecd6p-15 0x1.0f3732p-15 -0x1.99eff6p-12 -0x1.c7a0d6p-11 0x1.ec5254p-10 "
        "0x1.eec21ep-7 0x1.7e01b8p-5 0x1.8c6dcap-4 0x1.373e32p-3 0x1.82b4bcp-3"
    ).split()
)
_INNER = F32(float.fromhex("0x1.988454p-1"))


def sum_rows(x):
    """Return the float64 sums of rows: 16 partial ones by index mod 16, then these in order.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.sum_rows(np.ones((2, 40)))
    array([40., 40.])
    """
    length = -(-x.shape[-1] // _PARTS) * _PARTS
    wide = np.zeros((*x.shape[:-1], length))
    wide[..., : x.shape[-1]] = x
    parts = np.zeros((*x.shape[:-1], _PARTS))
    for first in range(0, length, _PARTS):
        parts += wide[..., first : first + _PARTS]
    sums = np.zeros(x.shape[:-1])
    for lane in range(_PARTS):
        sums += parts[..., lane]
    return sums


def softmax_rows(x):
    """Return ``exp(x) / sum(exp(x))`` along the last axis; 0 where exp is below that of -87.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.softmax_rows(np.float32([[0, 0], [-np.inf, -np.inf]]))
    array([[0.5, 0.5],
           [0. , 0. ]], dtype=float32)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        top = np.fmax.reduce(x, axis=-1, keepdims=True, initial=F32(-np.inf))
        d = x - np.where(np.isneginf(top), F32(0), top)
        s, p = exp_parts(d)
        e = np.where(d >= -87, s * p + s, np.where(d < -87, F32(0), d))
        total = sum_rows(e).astype(F32)[..., None]
        return e / np.where(total == 0, F32(1), total)


def layer_norm_rows(x, weight, bias, eps):
    """Normalize along the last axis; see `ndquant.rows.layer_norm`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.layer_norm_rows(np.float32([[1, 3]]), np.ones(2, np.float32), np.zeros(2, np.float32), 0)
    array([[-1.,  1.]], dtype=float32)
    """
    count = x.shape[-1]
    away = x - (sum_rows(x) / count).astype(F32)[..., None]
    squares = sum_rows(away.astype(np.float64) ** 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = F32(1) / np.sqrt((squares / count).astype(F32) + F32(eps))
        return (away * inverse[..., None]) * weight + bias


def gelu(x, approximate="none"):
    """Return ``x * P(X <= x)``; ``P(X <= -|x|) = exp(-x^2 / 2) * t * series(2 t - 1)`` with ``t = 4 / (4 + |x|)``.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.gelu(np.float32([0, 1])).round(4)
    array([0.    , 0.8413], dtype=float32)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if approximate == "tanh":
            near = np.where(x > -20, x, F32(-20))
            near = np.where(near < 20, near, F32(20))
            cube = F32(0.044715) * near * near * near
            return x * (F32(0.5) * (F32(1) + tanh(_INNER * (near + cube))))
        u = F32(8) / (F32(4) + np.abs(x)) - F32(1)
        series = np.full_like(u, _GELU[0])
        for term in _GELU[1:]:
            series = series * u + term
        s, p = exp_parts((x * x) * F32(-0.5))
        below = (s * p + s) * ((u + F32(1)) * F32(0.5) * series)
        return x * np.where(x < 0, below, F32(1) - below)


def attention(q, k, v, heads, mask=None):
    """Return ``softmax(q @ k.T / sqrt(D) + mask) @ v`` of each head, and the weights; see `ndquant.rows.attention`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> x = np.ones((1, 2, 4), np.float32)
    >>> reference.attention(x, x, x, 2)[0][0, 0]
    array([1., 1., 1., 1.], dtype=float32)
    """
    depth = q.shape[2] // heads
    factor = F32(1 / np.sqrt(np.float64(max(depth, 1))))
    y, weights = np.zeros(q.shape, F32), np.zeros((len(q), heads, q.shape[1], k.shape[1]), F32)
    for n, h in np.ndindex(len(q), heads):
        part = slice(h * depth, (h + 1) * depth)
        scores = matmul_f32(q[n, :, part], k[n, :, part].T) * factor
        if mask is not None:
            scores = scores + mask[n if len(mask) > 1 else 0]
        weights[n, h] = softmax_rows(scores)
        y[n, :, part] = matmul_f32(weights[n, h], v[n, :, part])
    return y, weights
