"""Layers that quantize each row of their input as it comes, and the cells of recurrent ones, as they are defined.

Shape letters: M rows, N outputs, K inputs; T steps, H hidden features, G = 4 H or 3 H gates. All in float32.
"""

from __future__ import annotations

import numpy as np

from .elementwise import quantize
from .gemm import gemm_s32, linear_f32
from .ranges import choose_scale_zero_point

F32 = np.float32
_LOG2E, _LN2, _LN2_REST = (F32(float.fromhex(x)) for x in ("0x1.715476p+0", "0x1.62e4p-1", "0x1.7f7d1cp-20"))
_MAGIC = F32(12582912)


def linear_rows(x, codes, w_scale, bias=None):
    """Return ``x @ w.T + bias`` on integers, each row of x as uint8 of its own range, weights symmetric.

    Parameters
    ----------
    x : ndarray of float32, shape (M, K)
    codes : ndarray of int8, shape (N, K)
    w_scale : ndarray of float32, shape (N,)
    bias : ndarray of float32, shape (N,), optional

    Returns
    -------
    ndarray of float32, shape (M, N)

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.linear_rows(np.float32([[0, 255], [0, 0]]), np.int8([[1, 2]]), np.float32([0.5]))
    array([[255.],
           [  0.]], dtype=float32)
    """
    y = np.empty((len(x), len(codes)), F32)
    for row, out in zip(x, y, strict=True):
        low, high = F32(row.min(initial=0)), F32(row.max(initial=0))
        scale, zero_point = choose_scale_zero_point(low, high, 0, 255, symmetric=False)
        q = quantize(row[None], scale, zero_point, 0, 255)
        out[:] = linear_f32(gemm_s32(q, codes, zero_point), scale, w_scale, bias)[0]
    return y


def exp_parts(x):
    """Return s and p of ``exp(x) = s * p + s`` for x <= 0, s a power of two."""
    x = np.where(x > -87, x, F32(-87))
    shifted = x * _LOG2E + _MAGIC
    n = shifted - _MAGIC
    r = (x - n * _LN2) - n * _LN2_REST
    series = np.full_like(r, F32(1) / F32(5040))
    for term in (720, 120, 24, 6, 2):
        series = series * r + F32(1) / F32(term)
    s = ((shifted.view(np.uint32) << np.uint32(23)) + np.uint32(0x3F800000)).view(F32)
    return s, (series * r) * r + r


def sigmoid(x):
    """Return ``1 / (1 + exp(-x))`` by a fixed sequence of float32 operations; error below 2e-7.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.sigmoid(np.float32([-200, 0]))
    array([1.6458115e-38, 5.0000000e-01], dtype=float32)
    """
    s, p = exp_parts(-np.abs(x))
    e = s * p + s
    return np.where(x < 0, e, F32(1)) / (F32(1) + e)


def tanh(x):
    """Return the hyperbolic tangent by a fixed sequence of float32 operations; error below 2e-7.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.tanh(np.float32([-200, 0]))
    array([-1.,  0.], dtype=float32)
    """
    s, p = exp_parts(F32(-2) * np.abs(x))
    m = s * p + (s - F32(1))
    t = (F32(0) - m) / (F32(2) + m)
    return np.where(x < 0, -t, t)


def _lstm_cell(gx, gh, states):
    _, c = states
    i, f, g, o = np.split(gx + gh, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def _gru_cell(gx, gh, states):
    (h,) = states
    (rx, zx, nx), (rh, zh, nh) = np.split(gx, 3, axis=-1), np.split(gh, 3, axis=-1)
    n = tanh(nx + sigmoid(rx + rh) * nh)
    return ((h - n) * sigmoid(zx + zh) + n,)


def recurrence(gx, codes, w_scale, bias, states, lengths=None, reverse=False):
    """Run the steps of an LSTM layer, or, with one state, of a GRU layer.

    Parameters
    ----------
    gx : ndarray of float32, shape (T, N, G)
        What the inputs give to the gates.
    codes, w_scale, bias
        Of the product with the hidden state, as of `linear_rows`; codes (G, H).
    states : tuple of ndarray of float32, shape (N, H)
        h, and c of an LSTM.
    lengths : ndarray of int, shape (N,), optional
        Steps of each sequence.
    reverse : bool, default False

    Returns
    -------
    y : ndarray of float32, shape (T, N, H)
    states : tuple of ndarray

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> gx, h = np.zeros((2, 1, 3), np.float32), np.ones((1, 1), np.float32)
    >>> y, _ = reference.recurrence(gx, np.zeros((3, 1), np.int8), np.ones(3, np.float32), None, (h,))
    >>> y.ravel()
    array([0.5 , 0.25], dtype=float32)
    """
    steps, count, _ = gx.shape
    cell = _lstm_cell if len(states) == 2 else _gru_cell
    y = np.zeros((steps, count, codes.shape[1]), F32)
    for t in range(steps)[::-1] if reverse else range(steps):
        new = cell(gx[t], linear_rows(states[0], codes, w_scale, bias), states)
        alive = np.ones((count, 1), bool) if lengths is None else t < np.reshape(lengths, (-1, 1))
        y[t] = np.where(alive, new[0], F32(0))
        states = tuple(np.where(alive, a, b) for a, b in zip(new, states, strict=True))
    return y, states
