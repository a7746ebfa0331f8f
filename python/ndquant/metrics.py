"""Distances between arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import _core


def mse(x, y):
    """Mean squared difference of two arrays, added up in float64 and in an order that is fixed.

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
    noise, _, n = _sums(x, y)
    return noise / n if n else 0.0


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
    noise, signal, _ = _sums(x, y)
    return _decibels(signal, noise)


@dataclass(frozen=True)
class ErrorParts:
    """What `quantization_error` found; squared errors are means over all values, and ``mse = clipping + rounding``.

    Attributes
    ----------
    mse : float
        Mean squared error.
    clipping : float
        What values outside the range of the codes add to it.
    rounding : float
        What values inside add.
    clipped : float
        The share of values outside, 0 to 1.
    sqnr : float
        Signal to noise ratio in dB; see `sqnr`.
    """

    mse: float
    clipping: float
    rounding: float
    clipped: float
    sqnr: float

    def __repr__(self):
        return (
            f"ErrorParts(mse={self.mse:.4g}, clipping={self.clipping:.4g}, rounding={self.rounding:.4g}, "
            f"clipped={self.clipped:.3%}, sqnr={self.sqnr:.2f} dB)"
        )


def quantization_error(x, qparams):
    """Squared error of ``fake_quantize(x, qparams)``, with clipping and rounding apart.

    A value is clipped if it rounds to beyond the lowest or the highest code, where `fake_quantize_backward` is 0. All
    is added up in float64, in an order that depends neither on the backend nor on the number of threads.

    Parameters
    ----------
    x : array_like of float
        NaN and infinities make the errors NaN and infinite.
    qparams : QParams

    Returns
    -------
    ErrorParts

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> qp = nq.QParams(1.0, 0, nq.QuantSpec(bits=4))
    >>> nq.quantization_error(np.array([1.0, 2.5, 9.0, 3.0]), qp)
    ErrorParts(mse=1.062, clipping=1, rounding=0.0625, clipped=25.000%, sqnr=13.60 dB)
    """
    x = np.asanyarray(x)
    outside, inside, signal, clipped = _core.quantization_error(x, qparams)
    n = max(x.size, 1)
    noise = outside + inside
    return ErrorParts(noise / n, outside / n, inside / n, clipped / n, _decibels(signal, noise))


def _decibels(signal, noise):
    if noise == 0:
        return float("inf")
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(10 * np.log10(np.float64(signal) / noise))


def _sums(x, y):
    """Return ``sum((x - y)^2)``, ``sum(x^2)`` and the number of values."""
    x, y = _numbers(x, "x"), _numbers(y, "y")
    if x.shape != y.shape:
        raise ValueError(f"x and y must have one shape, not {x.shape} and {y.shape}")
    return *_core.square_sums(x, y), x.size


def _numbers(value, name):
    array = np.asanyarray(value)
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name}: masked arrays are not supported; fill or compress it first")
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}")
    return array if array.dtype == np.float32 else array.astype(np.float64)
