"""What batch normalization does with channels, as it is defined. Arrays are (outer, channels, inner)."""

from __future__ import annotations

import numpy as np


def channel_sums(u, v):
    """Return the sums of `u` and of ``u * v`` over each channel, shape (2, channels), in float64.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.channel_sums(np.ones((2, 3, 4)), np.full((2, 3, 4), 0.5))
    array([[8., 8., 8.],
           [4., 4., 4.]])
    """
    u, v = u.astype(np.float64), v.astype(np.float64)
    return np.stack([u.sum(axis=(0, 2)), (u * v).sum(axis=(0, 2))])


def scale_channels(x, centre, scale, shift):
    """Return ``(x - centre) * scale + shift`` with constants of each channel, of the dtype of `x`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.scale_channels(np.float64([[[1], [2]]]), *np.float64([[1, 1], [10, 10], [0, 0]]))
    array([[[ 0.],
            [10.]]])
    """
    centre, scale, shift = (a.astype(x.dtype)[:, None] for a in (centre, scale, shift))
    return (x - centre) * scale + shift


def mix_channels(dy, x, centre, scale, slope, shift):
    """Return ``(dy * scale + (x - centre) * slope) + shift`` with constants of each channel, of the dtype of `x`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.mix_channels(np.float64([[[1]]]), np.float64([[[2]]]), *np.float64([[0], [3], [10], [0.5]]))
    array([[[23.5]]])
    """
    centre, scale, slope, shift = (a.astype(x.dtype)[:, None] for a in (centre, scale, slope, shift))
    return (dy * scale + (x - centre) * slope) + shift
