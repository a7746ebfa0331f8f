"""Activations and pooling as functions, of arrays or of traced values inside ``forward``."""

from __future__ import annotations

from math import prod

import numpy as np

from ..graph import Node
from ..graph.tracing import Traced, apply
from ..ops import OPS
from ..ops.record import infer_shape


def call(name, x, **attributes):
    """Record the op called `name` on a traced value, or run it on an array of floats."""
    if isinstance(x, Traced):
        return apply(name, x, attributes=attributes)
    x = np.asarray(x)
    if x.dtype.kind != "f":
        raise TypeError(f"{name}: x must be an array of floats, not {x.dtype}")
    node = Node(name, OPS[name], ("x",), OPS[name].attributes(**attributes))
    node.shape = infer_shape(node, [x.shape[1:]])
    return node.op.forward(node, [x], None)[0]


def relu(x):
    """Rectified linear unit, ``max(x, 0)``.

    Parameters
    ----------
    x : ndarray of float, any shape

    Returns
    -------
    ndarray
        The shape and dtype of `x`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.relu(np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    return call("relu", x)


def relu6(x):
    """Rectified linear unit that stops at 6, ``min(max(x, 0), 6)``.

    Parameters
    ----------
    x : ndarray of float, any shape

    Returns
    -------
    ndarray
        The shape and dtype of `x`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.relu6(np.array([-1.0, 2.0, 7.0]))
    array([0., 2., 6.])
    """
    return call("relu6", x)


def leaky_relu(x, negative_slope=0.01):
    """Rectified linear unit that lets a share of negative values through.

    Parameters
    ----------
    x : ndarray of float, any shape
    negative_slope : float, default 0.01
        Factor of negative values.

    Returns
    -------
    ndarray
        The shape and dtype of `x`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.leaky_relu(np.array([-1.0, 2.0]), 0.25)
    array([-0.25,  2.  ])
    """
    return call("leaky_relu", x, negative_slope=negative_slope)


def sigmoid(x):
    """Logistic function, ``1 / (1 + exp(-x))``.

    Parameters
    ----------
    x : ndarray of float, any shape

    Returns
    -------
    ndarray
        The shape and dtype of `x`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.sigmoid(np.array([-1000.0, 0.0]))
    array([0. , 0.5])
    """
    return call("sigmoid", x)


def tanh(x):
    """Hyperbolic tangent.

    Parameters
    ----------
    x : ndarray of float, any shape

    Returns
    -------
    ndarray
        The shape and dtype of `x`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.tanh(np.array([0.0, 100.0]))
    array([0., 1.])
    """
    return call("tanh", x)


def hardswish(x):
    """Piecewise form of swish, ``x * relu6(x + 3) / 6`` (https://arxiv.org/abs/1905.02244).

    Parameters
    ----------
    x : ndarray of float, any shape

    Returns
    -------
    ndarray
        The shape and dtype of `x`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.hardswish(np.array([-4.0, 3.0]))
    array([-0.,  3.])
    """
    return call("hardswish", x)


def gelu(x, approximate="none"):
    """Gaussian error linear unit, ``x * P(X <= x)`` of the normal distribution (https://arxiv.org/abs/1606.08415).

    Parameters
    ----------
    x : ndarray of float, any shape
    approximate : {"none", "tanh"}, default "none"
        "tanh": by ``(1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) / 2`` for the probability.

    Returns
    -------
    ndarray
        The shape and dtype of `x`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.gelu(np.array([-1.0, 0.0, 2.0])).round(4)
    array([-0.1587,  0.    ,  1.9545])
    """
    return call("gelu", x, approximate=approximate)


def softmax(x, dim=-1):
    """Exponentials divided by their sum along an axis.

    Parameters
    ----------
    x : ndarray of float, two axes at least
    dim : int, default -1
        The axis, not that of the batch.

    Returns
    -------
    ndarray
        The shape and dtype of `x`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.softmax(np.array([[0.0, np.log(3.0)]]))
    array([[0.25, 0.75]])
    """
    rank = x.ndim if isinstance(x, Traced) else np.ndim(x)
    if not -rank <= dim < rank or dim % rank == 0:
        raise ValueError(f"dim must be an axis of {rank} other than that of the batch, not {dim}")
    return call("softmax", x, axis=dim % rank)


def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Largest value of each window; NaN wins, padding never does.

    Parameters
    ----------
    x : ndarray of float, shape (N, C, H, W)
    kernel_size : int or tuple of int
        Rows and columns of a window.
    stride : int or tuple of int, optional
        Distance of windows; by default `kernel_size`.
    padding : int or tuple of int, default 0
        On both sides, at most half the window.
    dilation : int or tuple of int, default 1
        Distance of the elements of a window.
    ceil_mode : bool, default False
        Whether the last window may leave the padded input.

    Returns
    -------
    ndarray, shape (N, C, OH, OW)

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.max_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    array([[[[ 5.,  7.],
             [13., 15.]]]])
    """
    attributes = {"kernel_size": kernel_size, "stride": stride, "padding": padding}
    return call("max_pool2d", x, **attributes, dilation=dilation, ceil_mode=ceil_mode)


def avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """Mean of each window.

    Parameters
    ----------
    x : ndarray of float, shape (N, C, H, W)
    kernel_size : int or tuple of int
        Rows and columns of a window.
    stride : int or tuple of int, optional
        Distance of windows; by default `kernel_size`.
    padding : int or tuple of int, default 0
        On both sides, at most half the window.
    ceil_mode : bool, default False
        Whether the last window may leave the padded input; what lies outside is not counted.
    count_include_pad : bool, default True
        Whether padding is counted, as zeros.

    Returns
    -------
    ndarray, shape (N, C, OH, OW)

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.avg_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    array([[[[ 2.5,  4.5],
             [10.5, 12.5]]]])
    """
    attributes = {"kernel_size": kernel_size, "stride": stride, "padding": padding}
    return call("avg_pool2d", x, **attributes, ceil_mode=ceil_mode, count_include_pad=count_include_pad)


def adaptive_avg_pool2d(x, output_size):
    """Mean of each of as many windows as are asked for; they cover the input evenly.

    Parameters
    ----------
    x : ndarray of float, shape (N, C, H, W)
    output_size : int or tuple of (int or None)
        Rows and columns of the output; None: as many as the input has.

    Returns
    -------
    ndarray, shape (N, C, OH, OW)

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.adaptive_avg_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 1)
    array([[[[7.5]]]])
    """
    return call("adaptive_avg_pool2d", x, output_size=output_size)


def flatten(x, start_dim=1, end_dim=-1):
    """Join axes behind the batch axis into one.

    Parameters
    ----------
    x : ndarray, shape (N, ...)
    start_dim, end_dim : int, default 1 and -1
        First and last axis to join.

    Returns
    -------
    ndarray

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.flatten(np.zeros((5, 2, 3, 4))).shape
    (5, 24)
    >>> nn.flatten(np.zeros((5, 2, 3, 4)), 2).shape
    (5, 2, 12)
    """
    return x.reshape(flattened(x, start_dim, end_dim))


def flattened(x, start_dim, end_dim):
    """Return the shape that `flatten` gives `x`."""
    start, end = (n + x.ndim if n < 0 else n for n in (start_dim, end_dim))
    if not 1 <= start <= end < x.ndim:
        raise ValueError(f"start_dim, end_dim: {start_dim}, {end_dim} are no axes behind the batch axis of {x.ndim}")
    return (*x.shape[:start], prod(x.shape[start : end + 1]), *x.shape[end + 1 :])
