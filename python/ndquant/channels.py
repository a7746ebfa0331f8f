"""What batch normalization does with channels: one short function per entry point of the C core.

Arrays have examples on axis 0 and channels on axis 1. Images that lie channels last in memory are read in place, and so
is the result.
"""

from __future__ import annotations

import numpy as np

from . import _core
from .layout import is_channels_last, to_channels_first, to_channels_last


def channel_sums(u, v=None):
    """Sum over each channel, in float64 and in an order that depends on the shape and layout alone.

    Parameters
    ----------
    u : ndarray of float, shape (N, C, ...)
    v : ndarray of float, shape of `u`, optional
        By default `u`.

    Returns
    -------
    sums : ndarray of float64, shape (C,)
        Of `u`.
    products : ndarray of float64, shape (C,)
        Of ``u * v``.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant.channels import channel_sums
    >>> channel_sums(np.array([[1.0, 2.0], [3.0, 4.0]]))
    (array([4., 6.]), array([10., 20.]))
    """
    view = _view_for(u)
    sums, products = _core.channel_sums(view(u), view(u if v is None else v))
    return sums, products


def scale_channels(x, centre, scale, shift):
    """Return ``(x - centre) * scale + shift`` with constants of each channel, each operation rounded.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (N, C, ...)
    centre, scale, shift : array_like of float, shape (C,)
        None stands for zeros. They are rounded to the dtype of `x`.

    Returns
    -------
    ndarray, shape and dtype of `x`

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant.channels import scale_channels
    >>> scale_channels(np.array([[1.0, 2.0]]), [1.0, 1.0], [10.0, 10.0], None)
    array([[ 0., 10.]])
    """
    view = _view_for(x)
    return _like(x, _core.scale_channels(view(x), centre, scale, None, shift))


def mix_channels(dy, x, centre, scale, slope, shift):
    """Return ``(dy * scale + (x - centre) * slope) + shift`` with constants of each channel, each operation rounded.

    Parameters
    ----------
    dy, x : ndarray of float32 or float64, shape (N, C, ...)
    centre, scale, slope, shift : array_like of float, shape (C,)
        None stands for zeros. They are rounded to the dtype of the arrays.

    Returns
    -------
    ndarray, shape and dtype of `x`

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant.channels import mix_channels
    >>> mix_channels(np.array([[1.0]]), np.array([[2.0]]), None, [3.0], [10.0], [0.5])
    array([[23.5]])
    """
    view = _view_for(x)
    return _like(x, _core.mix_channels(view(dy), view(x), centre, scale, slope, shift))


def _view_for(x):
    """Return the function that views arrays as (outer, channels, inner), in the layout that `x` has."""
    channels = x.shape[1]
    if x.ndim == 2 or is_channels_last(x):
        return lambda a: np.moveaxis(a, 1, -1).reshape(-1 if channels else 0, channels, 1)
    inner = int(np.prod(x.shape[2:]))
    return lambda a: a.reshape(x.shape[0], channels, inner)


def _like(x, result):
    """Bring a result of the core back into the shape and layout of `x`."""
    if is_channels_last(x):
        return to_channels_first(result.reshape(to_channels_last(x).shape))
    return result.reshape(x.shape)
