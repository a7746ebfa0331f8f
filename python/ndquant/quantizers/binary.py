"""Binary weights with a scale (XNOR-Net: Rastegari et al., 2016, https://arxiv.org/abs/1603.05279)."""

from __future__ import annotations

import numpy as np

from ..channels import channel_sums
from .statistics import StatisticsQuantizer, check_ternary


class BinaryQuantizer(StatisticsQuantizer):
    """A quantizer of weights to ``a * sign(w)``, a the mean of ``|w|``, the scale that is best in least squares.

    Asked for by ``method="binary"`` with ``QuantSpec(2, narrow_range=True)``, for the array or per channel. Codes are
    -1 and +1, sign(0) is +1. The gradient is that of the formula with sign taken as the identity where ``|w| <= 1``:
    ``a * dy * (|w| <= 1) + sign(w) / n * sum(dy * sign(w))``, n the number of weights that share a.
    """

    _check_spec = staticmethod(check_ternary)

    def _means(self, weight):
        rows = self._rows(weight)
        return channel_sums(np.abs(rows))[0] / max(rows.shape[2], 1)

    def recorded_range(self, weight=None):
        """Return the range of these weights."""
        return self._both_sides(self._means(weight))

    def transformed(self, weight):
        """Return the weights with their signs alone."""
        means = self._means(weight).astype(weight.dtype).reshape(-1, *(1,) * (weight.ndim - 1))
        return np.where(weight < 0, -means, means)

    def gradient(self, dy, x, qparams):
        """Return the gradient through sign and scale."""
        signs = np.where(x < 0, dy.dtype.type(-1), dy.dtype.type(1))
        rows, shape = self._rows(x).shape, (-1, *(1,) * (x.ndim - 1))
        sums = channel_sums(np.ascontiguousarray(dy * signs).reshape(rows))[0] / max(rows[2], 1)
        means = self._means(x).astype(dy.dtype).reshape(shape)
        through_sign = np.where(np.abs(x) <= 1, means * dy, dy.dtype.type(0))
        return through_sign + signs * sums.astype(dy.dtype).reshape(shape), {}
