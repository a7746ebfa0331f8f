"""What lies between products, on rows of float32: the same bits on every backend, whatever the rows beside.

Arrays of other floats are computed in float32. `ndquant.reference.rows` defines all of it.
"""

from __future__ import annotations

import numpy as np

from . import _core


def softmax(x, out=None):
    """Return ``exp(x) / sum(exp(x))`` along the last axis; 0 everywhere in a row of minus infinity.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import rows
    >>> rows.softmax(np.float32([[1, 1, -np.inf]]))
    array([[0.5, 0.5, 0. ]], dtype=float32)
    """
    return _core.softmax_f32(x, out)


def layer_norm(x, weight=None, bias=None, eps=1e-5, out=None):
    """Normalize each row along the last axis, then multiply by `weight` and add `bias`.

    Returns
    -------
    y : ndarray of float32, shape of `x`
    stats : ndarray of float32, shape (rows, 2)
        Mean of each row, and what it was multiplied by.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import rows
    >>> rows.layer_norm(np.float32([[1, 3]]), eps=0)[0]
    array([[-1.,  1.]], dtype=float32)
    """
    length = np.shape(x)[-1:]
    weight = np.ones(length, np.float32) if weight is None else weight
    bias = np.zeros(length, np.float32) if bias is None else bias
    return _core.layer_norm_f32(x, weight, bias, eps, out)


def gelu(x, approximate="none", out=None):
    """Return ``x * P(X <= x)`` of the normal distribution; the probability by tanh with ``approximate="tanh"``.

    Error at most 1e-6, of results beyond 4 a unit of the last place or two.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import rows
    >>> rows.gelu(np.float32([-1, 0, 1])).round(4)
    array([-0.1587,  0.    ,  0.8413], dtype=float32)
    """
    return _core.gelu_f32(x, approximate == "tanh", out)


def attention(q, k, v, heads, mask=None, out=None):
    """Return ``softmax(q @ k.T / sqrt(D) + mask) @ v`` of each head, with the features of all heads side by side.

    Parameters
    ----------
    q : array_like of float, shape (N, L, E)
    k, v : array_like of float, shape (N, S, E)
    heads : int
        Divides E; each has D features.
    mask : array_like of float, shape (1 or N, L, S), optional
        Minus infinity where a query must not look. One that may look nowhere gives 0.

    Returns
    -------
    y : ndarray of float32, shape (N, L, E)
    weights : ndarray of float32, shape (N, heads, L, S)

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import rows
    >>> x = np.float32([[[1, 0], [0, 1]]])
    >>> y, weights = rows.attention(x, x, x, heads=1, mask=np.float32([[[0, -np.inf], [0, 0]]]))
    >>> weights.round(2)
    array([[[[1.  , 0.  ],
             [0.33, 0.67]]]], dtype=float32)
    """
    return _core.attention_f32(q, k, v, heads, mask, out)
