"""Ternary weights (Li and Liu, 2016, https://arxiv.org/abs/1605.04711)."""

from __future__ import annotations

import numpy as np

from ..channels import channel_sums
from .statistics import StatisticsQuantizer, check_ternary


class TernaryQuantizer(StatisticsQuantizer):
    """A quantizer of weights to -a, 0 and a: 0 where ``|w| <= 0.7 * mean|w|``, a the mean of the others.

    Asked for by ``method="ternary"`` with ``QuantSpec(2, narrow_range=True)``, for the array or per channel. The
    gradient is straight-through for all weights.
    """

    _check_spec = staticmethod(check_ternary)

    def _thresholds(self, weight):
        """Return d and a, one of each for every scale."""
        rows = np.abs(self._rows(weight))
        threshold = (0.7 * channel_sums(rows)[0] / max(rows.shape[2], 1)).astype(weight.dtype)
        is_large = rows > threshold[:, None]
        large = channel_sums(np.where(is_large, rows, rows.dtype.type(0)))[0]
        return threshold, (large / np.maximum(is_large.sum(axis=2)[0], 1)).astype(weight.dtype)

    def recorded_range(self, weight=None):
        """Return the range of these weights."""
        return self._both_sides(self._thresholds(weight)[1])

    def transformed(self, weight):
        """Return the three values."""
        threshold, size = (v.reshape(-1, *(1,) * (weight.ndim - 1)) for v in self._thresholds(weight))
        return np.where(np.abs(weight) > threshold, np.copysign(size, weight), weight.dtype.type(0))

    def gradient(self, dy, x, qparams):
        """Return the gradient as it is."""
        return dy, {}
