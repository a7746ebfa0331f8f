"""SAWB, statistics-aware weight binning (Choi et al., 2018, https://arxiv.org/abs/1807.06964)."""

from __future__ import annotations

import numpy as np

from ..channels import channel_sums
from .statistics import StatisticsQuantizer

#: bits: (c1, c2) of ``clip = c1 * sqrt(E[x^2]) + c2 * E|x|`` for codes symmetric around 0.
COEFFICIENTS = {2: (2.6, -1.71), 4: (12.035, -12.03), 8: (31.76, -35.04)}


class SawbQuantizer(StatisticsQuantizer):
    """A quantizer of weights that clips where their first and second moment say.

    Asked for by ``method="sawb"`` or ``"sawb+"``, with a symmetric spec of 2, 4 or 8 bits:
    ``clip = c1 * sqrt(E[w^2]) + c2 * E|w|``, (c1, c2) = (2.6, -1.71) for 2 bits, (12.035, -12.03) for 4 and (31.76,
    -35.04) for 8, and ``scale = clip / qmax``. "sawb+" passes the gradients of clipped weights on, "sawb" does not.
    """

    @staticmethod
    def _check_spec(method, spec):
        if spec.bits not in COEFFICIENTS or not spec.symmetric:
            known = ", ".join(map(str, COEFFICIENTS))
            raise ValueError(f"method {method!r} takes a symmetric spec with {known} bits, not {spec}")

    def recorded_range(self, weight=None):
        """Return the range of these weights."""
        rows = self._rows(weight)
        c1, c2 = COEFFICIENTS[self.config.spec.bits]
        count = max(rows.shape[2], 1)
        magnitudes, squares = channel_sums(np.abs(rows), np.abs(rows))
        clip = c1 * np.sqrt(squares / count) + c2 * magnitudes / count
        largest = np.abs(rows).max(axis=2, initial=0)[0]
        return self._both_sides(np.where(clip > 0, clip, largest))  # where all have one size it can be negative

    def gradient(self, dy, x, qparams):
        """Return the gradient, with "sawb" that of clipped weights as 0."""
        if self.config.method == "sawb+":
            return dy, {}
        _, clip = self.recorded_range(x)
        return np.where(np.abs(x) < np.reshape(clip, (-1, *(1,) * (x.ndim - 1))), dy, dy.dtype.type(0)), {}
