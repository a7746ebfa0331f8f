"""Distances between arrays."""

from __future__ import annotations

import numpy as np


def mse(x, y):
    """Mean squared difference of two arrays, in float64.

    Parameters
    ----------
    x, y : array_like of numbers, one shape

    Returns
    -------
    float
        0 for empty arrays.

    Examples
    --------
    >>> import ndquant as nq
    >>> nq.mse([1.0, 2.0], [1.0, 4.0])
    2.0
    """
    x, y = _pair(x, y)
    return float(np.mean(np.square(x - y))) if x.size else 0.0


def sqnr(x, y):
    """Signal to quantization noise ratio of `y` as an approximation of `x`: ``10 log10(sum(x^2) / sum((x - y)^2))``.

    Parameters
    ----------
    x, y : array_like of numbers, one shape

    Returns
    -------
    float
        In dB; infinite where the arrays are equal.

    Examples
    --------
    >>> import ndquant as nq
    >>> round(nq.sqnr([3.0, 4.0], [3.0, 4.5]), 6)
    20.0
    """
    x, y = _pair(x, y)
    noise, signal = float(np.sum(np.square(x - y))), float(np.sum(np.square(x)))
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal else float("-inf")


def _pair(x, y):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.shape != y.shape:
        raise ValueError(f"x and y must have one shape, not {x.shape} and {y.shape}")
    return x, y
