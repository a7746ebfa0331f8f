"""Ranges to scale and zero point, and the extremes of data, as they are defined."""

from __future__ import annotations

import numpy as np


def choose_scale_zero_point(low, high, qmin, qmax, symmetric, profile="default"):
    """Return the scale and the zero point of a range, or of one range per channel.

    Parameters
    ----------
    low, high : float or ndarray of float32 or float64
    qmin, qmax : int
    symmetric : bool
    profile : {"default", "torch", "textbook"}, default "default"

    Returns
    -------
    scale : dtype of `low`
    zero_point : int64

    Examples
    --------
    >>> from ndquant import reference
    >>> scale, zero_point = reference.choose_scale_zero_point(-1.0, 3.0, 0, 255, symmetric=False)
    >>> float(scale), int(zero_point)
    (0.01568627450980392, 64)
    """
    low, high = np.asarray(low), np.asarray(high)
    pairs = [
        _one_range(a, b, qmin, qmax, symmetric, profile) for a, b in zip(low.reshape(-1), high.reshape(-1), strict=True)
    ]
    scale = np.array([s for s, _ in pairs], low.dtype).reshape(low.shape)
    zero_point = np.array([z for _, z in pairs], np.int64).reshape(low.shape)
    return scale[()], zero_point[()]


def _one_range(low, high, qmin, qmax, symmetric, profile):
    kind = low.dtype.type
    least = kind(np.finfo(np.float32).eps if profile == "torch" else 2.0**-126)
    narrow = profile == "textbook" and _divided(low, high, 1, kind) <= max(abs(low), abs(high)) * np.finfo(kind).eps
    if profile != "textbook" or narrow:
        low, high = min(low, kind(0)), max(high, kind(0))
    empty = low == high == 0 and profile != "torch"
    if symmetric:
        middle = 0 if qmin < 0 else (qmax + 1) // 2
        steps = {
            "default": min(qmax - middle, middle - qmin),
            "torch": (qmax - qmin) / 2,
            "textbook": qmax - middle,
        }[profile]
        scale = max(abs(low), abs(high)) / kind(steps)
        return (kind(1) if empty else max(scale, least)), middle
    levels = qmax - qmin
    scale = kind(1) if empty else max(_divided(low, high, levels, kind), least)
    zero_point = qmin - int(np.rint(low / scale))
    return scale, zero_point if profile == "textbook" else min(max(zero_point, qmin), qmax)


def _divided(low, high, levels, kind):
    """Return ``(high - low) / levels``, without an overflow of the difference."""
    with np.errstate(over="ignore"):
        span = high - low
    if np.isfinite(span):
        return span / kind(levels)
    return kind(np.float64(high) / levels - np.float64(low) / levels)


def minmax(x, axis=None):
    """Return the extremes of the finite values, per channel if there is an axis, and the counts of NaN and infinities.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> low, high, nans, infs = reference.minmax(np.array([1.0, np.nan, -2.0]))
    >>> float(low), float(high), nans, infs
    (-2.0, 1.0, 1, 0)
    """
    x = np.asarray(x).astype(np.float64)
    rest = None if axis is None else tuple(d for d in range(x.ndim) if d != axis % x.ndim)
    finite = np.isfinite(x)
    low = np.min(x, axis=rest, initial=np.inf, where=finite) + 0.0
    high = np.max(x, axis=rest, initial=-np.inf, where=finite) + 0.0
    return low, high, int(np.isnan(x).sum()), int(np.isinf(x).sum())
