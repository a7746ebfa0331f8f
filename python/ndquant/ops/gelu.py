"""GELU and the error function that it needs, which NumPy lacks."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from .. import rows

#: Terms of the series of `_scaled_erfc` that float32 and float64 need.
_TERMS = {2: 14, 4: 14, 8: 30}


def _scaled_erfc(x):
    """Return ``exp(x^2) * erfc(x)`` for x >= 0; from 20 on by the first terms of its asymptotic series."""
    if x < 20:
        return math.exp(x * x) * math.erfc(x)
    u = 1 / (2 * x * x)
    return (1 - u + 3 * u * u - 15 * u**3) / (x * math.sqrt(math.pi))


@lru_cache(None)
def _coefficients(itemsize):
    """Return the Chebyshev series of `_scaled_erfc` in ``t = 2 / (2 + x)``, from 0 at infinity to 1 at 0."""

    def of_place(place):
        return [_scaled_erfc(4 / (1 + p) - 2) if p > -1 else 0.0 for p in place]

    return np.polynomial.chebyshev.chebinterpolate(of_place, _TERMS[itemsize])


def erf(x):
    """Return the error function of floats: error at most 2e-14, of float32 one unit of the last place of 1."""
    size = np.abs(x).astype(np.float64)
    place = 4 / (2 + size) - 1
    first, *rest = _coefficients(x.dtype.itemsize)
    later = last = np.zeros_like(place)
    for c in reversed(rest):  # Clenshaw's recurrence
        last, later = 2 * place * last - later + c, last
    series = place * last - later + first
    return np.copysign(1 - np.exp(-size * size) * series, x).astype(x.dtype)


_INNER, _CUBE = math.sqrt(2 / math.pi), 0.044715


def gelu(x, approximate="none"):
    """Return ``x * P(X <= x)`` of the normal distribution (Hendrycks and Gimpel, https://arxiv.org/abs/1606.08415).

    With ``approximate="tanh"`` the probability is ``(1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) / 2``. float32 by
    `rows.gelu`.
    """
    if x.dtype == np.float32:
        return rows.gelu(x, approximate)
    return x * _probability(x, approximate)


def _probability(x, approximate):
    kind, half = x.dtype.type, x.dtype.type(0.5)
    if approximate == "tanh":
        x = np.clip(x, kind(-20), kind(20))  # beyond, the cube could overflow, and nothing changes
        return half * (1 + np.tanh(kind(_INNER) * (x + kind(_CUBE) * x * x * x)))
    return half * (1 + erf(x * kind(math.sqrt(0.5))))


def gelu_backward(dy, x, approximate="none"):
    """Gradient of `gelu`."""
    kind, probability = x.dtype.type, _probability(x, approximate)
    near = np.clip(x, kind(-20), kind(20))
    if approximate == "tanh":
        inner = kind(_INNER) * (1 + kind(3 * _CUBE) * near * near)
        density = 2 * probability * (1 - probability) * inner
    else:
        density = np.exp(kind(-0.5) * near * near) * kind(1 / math.sqrt(2 * math.pi))
    return dy * (probability + x * density)


def gelu_attributes(approximate="none"):
    """Return the attributes of `gelu`, checked."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate must be 'none' or 'tanh', not {approximate!r}")
    return {"approximate": approximate}
