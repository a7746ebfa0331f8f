"""Ranges to scale and zero point, and the extremes of data, as they are defined."""

from __future__ import annotations

import numpy as np


def choose_scale_zero_point(low, high, qmin, qmax, symmetric, profile="default", zero_aligned=True):
    """Return the scale and the zero point of a range, or of each range of an array.

    Parameters
    ----------
    low, high : float or ndarray of float32 or float64
    qmin, qmax : int
    symmetric : bool
    profile : {"default", "torch", "onnx", "textbook"}, default "default"
    zero_aligned : bool, default True

    Returns
    -------
    scale : dtype of `low`
    zero_point : int64; without `zero_aligned` the value of code 0, of the dtype of `low`

    Examples
    --------
    >>> from ndquant import reference
    >>> scale, zero_point = reference.choose_scale_zero_point(-1.0, 3.0, 0, 255, symmetric=False)
    >>> float(scale), int(zero_point)
    (0.01568627450980392, 64)
    """
    low, high = np.asarray(low), np.asarray(high)
    one = _one_range if zero_aligned else _one_offset
    pairs = [one(a, b, qmin, qmax, symmetric, profile) for a, b in zip(low.reshape(-1), high.reshape(-1), strict=True)]
    scale = np.array([s for s, _ in pairs], low.dtype).reshape(low.shape)
    zero_point = np.array([z for _, z in pairs], np.int64 if zero_aligned else low.dtype).reshape(low.shape)
    return scale[()], zero_point[()]


def _work_kind(dtype, qmin, qmax):
    """Return the type that computes: float64 for codes of more than 16 bits."""
    return np.float64 if qmax - qmin >= 2**16 else dtype.type


def _one_offset(low, high, qmin, qmax, symmetric, profile):
    dtype, kind = low.dtype, _work_kind(low.dtype, qmin, qmax)
    low, high = kind(low), kind(high)
    if symmetric:
        high = max(-low, high)
        low = -high
    scale = dtype.type(1 if low == high else max(_divided(low, high, qmax - qmin, kind), kind(2.0**-126)))
    with np.errstate(over="ignore", invalid="ignore"):
        return scale, dtype.type(low - kind(qmin) * kind(scale))


def _one_range(low, high, qmin, qmax, symmetric, profile):
    dtype, kind = low.dtype, _work_kind(low.dtype, qmin, qmax)
    low, high = kind(low), kind(high)
    least = kind(np.finfo(np.float32).eps if profile == "torch" else 2.0**-126)
    narrow = profile == "textbook" and _divided(low, high, 1, kind) <= max(abs(low), abs(high)) * np.finfo(kind).eps
    if profile != "textbook" or narrow:
        low, high = min(low, kind(0)), max(high, kind(0))
    empty = low == high == 0 and profile != "torch"
    if symmetric:
        middle = 0 if qmin < 0 else (qmax + 1) // 2
        steps = {"torch": (qmax - qmin) / 2, "textbook": qmax - middle}
        scale = max(abs(low), abs(high)) / kind(steps.get(profile, min(qmax - middle, middle - qmin)))
        return dtype.type(kind(1) if empty else max(scale, least)), middle
    levels = qmax - qmin
    scale = dtype.type(kind(1) if empty else max(_divided(low, high, levels, kind), least))
    return scale, _zero_point(low / kind(scale), qmin, qmax, profile)


def _zero_point(steps, qmin, qmax, profile):
    """Return the code of 0 for a lower end that lies `steps` of the scale above it."""
    if profile == "textbook":
        return qmin - int(np.rint(steps))
    if profile == "onnx":
        return int(np.rint(np.clip(type(steps)(qmin) - steps, qmin, qmax)))
    return min(max(qmin - int(np.rint(steps)), qmin), qmax)


def _divided(low, high, levels, kind):
    """Return ``(high - low) / levels``; the difference does not overflow, the quotient may."""
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
