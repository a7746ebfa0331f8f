"""PACT: the ends of the range are parameters (Choi et al., 2018, https://arxiv.org/abs/1805.06085)."""

from __future__ import annotations

import numpy as np

from ..channels import channel_sums
from ..layout import in_memory_order
from ..parameter import Parameter
from .learned import LearnedQuantizer


class PactQuantizer(LearnedQuantizer):
    """A quantizer that learns where to clip: ``y = fake_quantize(clip(x, alpha_n, alpha))``.

    Asked for by ``learn="pact"``, with one range for the array. The gradient is dy inside the range and 0 from its ends
    on; that of alpha is the sum of dy over the values at or above it, that of alpha_n the sum over those at or below.
    The parameters ``alpha``, the upper end, and ``alpha_n``, the lower end, begin at the range that the method of the
    configuration finds in the first batch, or at the one given. A lower end that is at 0, as behind a ReLU, stays: that
    is the one-sided form of the paper.
    """

    def _new_arrays(self):
        return {"alpha": Parameter(np.nan), "alpha_n": Parameter(np.nan)}

    def _begin(self, low, high):
        self.alpha_n.data, self.alpha.data = np.array(low, np.float32), np.array(high, np.float32)

    def recorded_range(self, weight=None):
        """Return the range that was learned."""
        ends = np.float32([self.alpha_n.data, self.alpha.data])
        if self.config.spec.zero_aligned:
            ends = np.float32([min(ends[0], 0), max(ends[1], 0)])
        return ends.min(), ends.max()

    def _grid(self):
        return self._of_range(*self.recorded_range())

    def gradient(self, dy, x, qparams):
        """Return the gradient inside the range; the sums of those above and below it are the gradients of its ends."""
        low, high = self.recorded_range()
        above, below, zero = x >= high, x <= low, dy.dtype.type(0)
        sums = {"alpha": _sum(np.where(above, dy, zero)), "alpha_n": _sum(np.where(below, dy, zero))}
        if self.config.spec.zero_aligned and self.alpha_n.data >= 0:
            sums["alpha_n"] = np.zeros((), np.float32)
        return in_memory_order(lambda d, a: np.where(a, zero, d), dy, above | below), sums


def _sum(values):
    """Sum in float64, in an order that does not depend on the processor."""
    return channel_sums(np.ascontiguousarray(values).reshape(1, 1, -1))[0].astype(np.float32).reshape(())
