"""Integer forms of what lies between products, as they are defined: values in float32, each operation rounded.

Codes of 8 bits are int8 or uint8, as qmin says. Shape letters: N images, C channels, H x W pixels.
"""

from __future__ import annotations

import numpy as np

from .activation import bound_codes


def code_values(q, scale, zero_point):
    """Return the float32 values of codes."""
    return (q.astype(np.int64) - zero_point).astype(np.float32) * np.float32(scale)


def codes_of_values(y, scale, zero_point, qmin, qmax, activation=None):
    """Return float32 values as codes, ``clamp(zero_point + rint(y * (1 / scale)))``, between those of an activation.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant.reference.codes import codes_of_values
    >>> codes_of_values(np.float32([-1, 0.5, 99]), 0.25, 3, 0, 255)
    array([  0,   5, 255], dtype=uint8)
    """
    v = y * (np.float32(1) / np.float32(scale))
    low, high = np.float32(bound_codes(scale, zero_point, qmin, qmax, activation)) - np.float32(zero_point)
    v = np.where(v > low, v, low)
    steps = np.rint(np.where(v < high, v, high))
    return (steps.astype(np.int64) + zero_point).astype(np.int8 if qmin < 0 else np.uint8)


def add_codes(a, a_scale, a_zero_point, b, b_scale, b_zero_point, out, activation=None):
    """Return the codes of the sum; `out` is scale, zero point, qmin and qmax of the result.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.add_codes(np.int8([4, 8]), 0.5, 0, np.int8([1, 1]), 2, 0, (1, 0, -128, 127))
    array([4, 6], dtype=int8)
    """
    y = code_values(a, a_scale, a_zero_point) + code_values(b, b_scale, b_zero_point)
    return codes_of_values(y, *out, activation)


def multiply_codes(a, a_scale, a_zero_point, b, b_scale, b_zero_point, out, activation=None):
    """Return the codes of the product; `out` is scale, zero point, qmin and qmax of the result.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.multiply_codes(np.int8([4, 8]), 0.5, 0, np.int8([1, 1]), 2, 0, (1, 0, -128, 127))
    array([4, 8], dtype=int8)
    """
    y = code_values(a, a_scale, a_zero_point) * code_values(b, b_scale, b_zero_point)
    return codes_of_values(y, *out, activation)


def max_pool_codes(q, rows, columns, steps=(1, 1)):
    """Return the largest code of each window.

    Parameters
    ----------
    q : ndarray of int8 or uint8, shape (N, C, H, W)
    rows, columns : ndarray of int, shape (3, outputs)
        First pixel, the one after the last, and the count of each window.
    steps : tuple of two int
        From pixel to pixel of a window.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> rows, columns = np.array([[0], [1], [1]]), np.array([[0, 1], [2, 3], [2, 2]])
    >>> reference.max_pool_codes(np.int8([[[[1, 5, 3]]]]), rows, columns)
    array([[[[5, 5]]]], dtype=int8)
    """
    y = np.empty((*q.shape[:2], rows.shape[1], columns.shape[1]), q.dtype)
    for i, j in np.ndindex(y.shape[2:]):
        y[:, :, i, j] = _window(q, rows[:, i], columns[:, j], steps).max(axis=(2, 3))
    return y


def avg_pool_codes(q, scale, zero_point, rows, columns, out):
    """Return the codes of the mean of each window: ``float(sum) * (scale / float(count))``.

    Parameters are those of `max_pool_codes`; counts may be larger than the windows. `out` is scale, zero point, qmin
    and qmax of the result.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> one = np.array([[0], [1], [1]])
    >>> reference.avg_pool_codes(np.int8([[[[1, 5]]]]), 1.0, 0, one, np.array([[0], [2], [2]]), (0.5, 0, -128, 127))
    array([[[[6]]]], dtype=int8)
    """
    y = np.empty((*q.shape[:2], rows.shape[1], columns.shape[1]), np.float32)
    for i, j in np.ndindex(y.shape[2:]):
        window = _window(q, rows[:, i], columns[:, j], (1, 1)).astype(np.int64) - zero_point
        factor = np.float32(scale) / np.float32(rows[2, i] * columns[2, j])
        y[:, :, i, j] = window.sum(axis=(2, 3)).astype(np.float32) * factor
    return codes_of_values(y, *out)


def _window(q, rows, columns, steps):
    return q[:, :, rows[0] : rows[1] : steps[0], columns[0] : columns[1] : steps[1]]


def softmax_codes(q, exponential, out, mask=None):
    """Return the codes of the softmax of rows, ``e * (1 / float(sum(e)))``.

    Parameters
    ----------
    q : ndarray of int8 or uint8, shape (..., K)
    exponential : ndarray of uint32, shape (256,)
        ``exp(-scale * d)`` in units of 2^-23, for each distance d of a code from the largest of its row.
    out : tuple
        Scale, zero point, qmin and qmax of the result.
    mask : ndarray of bool, broadcast to the shape of `q`, optional
        True where a code is left out; its probability is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> halves = (2.0 ** (23 - np.arange(256))).astype(np.uint32)
    >>> reference.softmax_codes(np.int8([[5, 5, 4]]), halves, (1 / 256, 0, 0, 255))
    array([[102, 102,  51]], dtype=uint8)
    """
    wide, left_out = q.astype(np.int64), np.broadcast_to(False if mask is None else mask, q.shape)
    top = np.where(left_out, np.iinfo(q.dtype).min, wide).max(axis=-1, keepdims=True, initial=-128)
    e = np.where(left_out, 0, exponential[np.where(left_out, 0, top - wide)].astype(np.int64))
    total = e.sum(axis=-1, keepdims=True)
    factor = np.where(total == 0, np.float32(0), np.float32(1) / np.maximum(total, 1).astype(np.float32))
    return codes_of_values(e.astype(np.float32) * factor, *out)


def layer_norm_codes(q, gain, offset, eps, out):
    """Return the codes of normalized rows.

    With K codes of a row, S their sum and ``V = K * sum(q^2) - S^2``, both exact,
    ``float(K * q - S) * (1 / sqrt(float(V) + K^2 * eps)) * gain + offset``. The zero point cancels. Codes of int8 are
    moved to uint8 first, which changes nothing but the size of the sums.

    Parameters
    ----------
    q : ndarray of int8 or uint8, shape (..., K)
    gain, offset : ndarray of float32, shape (K,)
    eps : float
        In squares of the scale of `q`.
    out : tuple
        Scale, zero point, qmin and qmax of the result.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> ones = np.ones(2, np.float32)
    >>> reference.layer_norm_codes(np.int8([[3, 7]]), ones, 0 * ones, 0.0, (0.5, 0, -128, 127))
    array([[-2,  2]], dtype=int8)
    """
    wide, length = q.astype(np.int64), np.int64(q.shape[-1])
    total = wide.sum(axis=-1, keepdims=True)
    variance = length * (wide * wide).sum(axis=-1, keepdims=True) - total * total
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = np.float32(length) * np.float32(length) * np.float32(eps)
        inv = np.float32(1) / np.sqrt(variance.astype(np.float32) + squares)
        y = (length * wide - total).astype(np.float32) * inv * gain + offset
    return codes_of_values(y, *out)


def matmul_sums(a, b, a_zero_point, b_zero_point):
    """Return ``(a - a_zero_point) @ (b - b_zero_point)`` of codes (..., M, K) and (..., K, N) as int32.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.matmul_sums(np.uint8([[1, 2]]), np.int8([[3], [4]]), 1, 0)
    array([[4]], dtype=int32)
    """
    sums = (a.astype(np.int64) - int(a_zero_point)) @ (b.astype(np.int64) - int(b_zero_point))
    if sums.size and np.abs(sums).max() > np.iinfo(np.int32).max:
        raise OverflowError("a sum does not fit int32")
    return sums.astype(np.int32)
