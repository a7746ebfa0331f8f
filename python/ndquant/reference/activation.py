"""Activations that a layer ends in: bounds of its values and of its codes."""

from __future__ import annotations

import numpy as np

BOUNDS = {None: (-np.inf, np.inf), "relu": (0, np.inf), "relu6": (0, 6)}


def bound_values(y, activation):
    """Return float32 values between the bounds of an activation, never -0 if it has any."""
    low, high = np.float32(BOUNDS[activation])
    y = np.where(y > low, y, low)
    return np.where(y < high, y, high)


def bound_codes(scale, zero_point, qmin, qmax, activation):
    """Return the lowest and the highest code that a layer gives: those of the bounds, or of the grid.

    Examples
    --------
    >>> from ndquant.reference.activation import bound_codes
    >>> bound_codes(0.1, 10, 0, 255, "relu6")
    (10, 70)
    """
    low, high = BOUNDS[activation]
    if low == 0:
        qmin = max(qmin, zero_point)
    if high < np.inf:
        qmax = min(qmax, zero_point + int(np.rint(np.float32(high) * (np.float32(1) / np.float32(scale)))))
    return qmin, qmax
