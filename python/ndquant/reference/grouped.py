"""Products by weights that have a scale for each group of inputs, as they are defined.

Shape letters: M rows, N outputs, K inputs, G groups of K / G inputs. Floats are float32.
"""

from __future__ import annotations

import numpy as np

from .elementwise import quantize
from .ranges import choose_scale_zero_point

F32 = np.float32


def linear_grouped(xq, x_scale, x_zero_point, codes, w_scale, w_zero_point=0, w_offset=None, bias=None):
    """Return ``x @ w.T + bias``: integer sums of each group, scaled and added in ascending order of groups.

    Parameters
    ----------
    xq : ndarray of int8 or uint8, shape (M, K)
    x_scale : float32
    x_zero_point : int
    codes : ndarray of int8 or uint8, shape (N, K)
    w_scale : ndarray of float32, shape (N, G)
    w_zero_point : int or ndarray of int, shape (N, G), default 0
    w_offset : ndarray of float32, shape (N, G), optional
        Weights are ``w_scale * codes + w_offset``, and `w_zero_point` is 0.
    bias : ndarray of float32, shape (N,), optional

    Returns
    -------
    ndarray of float32, shape (M, N)

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> x, codes = np.uint8([[1, 2, 3, 4]]), np.int8([[1, 1, -1, 2]])
    >>> reference.linear_grouped(x, np.float32(0.5), 0, codes, np.float32([[1, 10]]))
    array([[26.5]], dtype=float32)
    """
    groups = w_scale.shape[1]
    size = groups, xq.shape[1] // max(groups, 1)
    x = (xq.astype(np.int64) - x_zero_point).reshape(len(xq), *size)
    w = codes.astype(np.int64).reshape(len(codes), *size)
    zero_point = np.broadcast_to(w_zero_point, w_scale.shape)
    total = np.zeros((len(x), len(w)), F32)
    for g in range(groups):
        part = (x[:, g] @ (w[:, g] - zero_point[:, g, None]).T).astype(F32) * w_scale[:, g]
        if w_offset is not None:
            part = part + x[:, g].sum(axis=1, keepdims=True).astype(F32) * w_offset[:, g]
        total = total + part
    y = total * F32(x_scale)
    return y if bias is None else y + bias


def linear_grouped_rows(x, codes, w_scale, w_zero_point=0, w_offset=None, bias=None):
    """Return the same of floats, each row of which is quantized to uint8 by its own range.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.linear_grouped_rows(np.float32([[0, 255], [0, 0]]), np.int8([[1, 2]]), np.float32([[0.5]]))
    array([[255.],
           [  0.]], dtype=float32)
    """
    y = np.empty((len(x), len(codes)), F32)
    for row, out in zip(x, y, strict=True):
        low, high = F32(row.min(initial=0)), F32(row.max(initial=0))
        scale, zero_point = choose_scale_zero_point(low, high, 0, 255, symmetric=False)
        q = quantize(row[None], scale, zero_point, 0, 255)
        out[:] = linear_grouped(q, scale, zero_point, codes, w_scale, w_zero_point, w_offset, bias)[0]
    return y
