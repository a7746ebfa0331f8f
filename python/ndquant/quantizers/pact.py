"""PACT: the ends of the range are parameters (Choi et al., 2018, https://arxiv.org/abs/1805.06085)."""

from __future__ import annotations

import numpy as np

from ..channels import channel_sums
from ..functional import quantize
from ..layout import in_memory_order
from ..parameter import Parameter
from .ste import Quantizer


class PactQuantizer(Quantizer):
    """A quantizer that learns where to clip.

    The parameters ``alpha``, the upper end, and ``alpha_n``, the lower end, begin at the range that the method of the
    configuration finds in the first batch, or at the one given. A lower end that begins at 0, as behind a ReLU, stays.
    """

    has_own_gradient = True

    def __init__(self, config, profile, state, name, is_weight=False):
        super().__init__(config, profile, state, name, is_weight)
        self.in_one_call = self.holds_all = False
        self.alpha, self.alpha_n = Parameter(np.nan), Parameter(np.nan)
        if config.range is not None:
            self._begin(*config.range)

    def _begin(self, low, high):
        self.alpha_n.data, self.alpha.data = np.array(low, np.float32), np.array(high, np.float32)
        self._stays_at_0 = low >= 0 and self.config.spec.zero_aligned

    def parameters(self):
        """Return both ends."""
        return {"alpha": self.alpha, "alpha_n": self.alpha_n}

    @property
    def has_seen_data(self):
        """Whether there is a range."""
        return bool(np.isfinite(self.alpha.data))

    def _learn_from(self, x):
        if not self.has_seen_data:
            self._update(x)
            self._begin(*(float(end) for end in self.observer.range(self.config.spec, **self._method())))

    def recorded_range(self, weight=None):
        """Return the range that was learned."""
        ends = np.float32([self.alpha_n.data, self.alpha.data])
        if self.config.spec.zero_aligned:
            ends = np.float32([min(ends[0], 0), max(ends[1], 0)])
        return ends.min(), ends.max()

    @property
    def qparams(self):
        """The `QParams` of the range that was learned so far."""
        if not self.has_seen_data:
            return super().qparams
        return self._of_range(*self.recorded_range())

    def _update_quantize(self, x):
        self._learn_from(x)
        qparams = self.qparams
        return quantize(x, qparams), qparams

    def qparams_for(self, weight, training=False):
        """Return the `QParams` of a weight."""
        self._learn_from(weight)
        return self.qparams

    def gradient(self, dy, x, qparams):
        """Return the gradient inside the range; the sums of those above and below it are the gradients of its ends."""
        low, high = self.recorded_range()
        above, below, zero = x >= high, x <= low, dy.dtype.type(0)
        sums = {"alpha": _sum(np.where(above, dy, zero)), "alpha_n": _sum(np.where(below, dy, zero))}
        if self._stays_at_0:
            sums["alpha_n"] = np.zeros((), np.float32)
        return in_memory_order(lambda d, a: np.where(a, zero, d), dy, above | below), sums


def _sum(values):
    """Sum in float64, in an order that does not depend on the processor."""
    return channel_sums(np.ascontiguousarray(values).reshape(1, 1, -1))[0].astype(np.float32).reshape(())
