"""SAWB, statistics-aware weight binning (Choi et al., 2018, https://arxiv.org/abs/1807.06964)."""

from __future__ import annotations

import numpy as np

from ..channels import channel_sums
from .ste import Quantizer

#: bits: (c1, c2) of ``clip = c1 * sqrt(E[x^2]) + c2 * E|x|`` for codes symmetric around 0.
COEFFICIENTS = {2: (2.6, -1.71), 4: (12.035, -12.03), 8: (31.76, -35.04)}


class SawbQuantizer(Quantizer):
    """A quantizer of weights that clips where their first and second moment say.

    "sawb+" passes the gradients of clipped weights on, "sawb" does not.
    """

    has_own_gradient = True

    def __init__(self, config, profile, state, name, is_weight=False):
        if not is_weight:
            raise ValueError(f"method {config.method!r} is for weights")
        if config.spec.bits not in COEFFICIENTS or not config.spec.symmetric:
            known = ", ".join(map(str, COEFFICIENTS))
            raise ValueError(f"method {config.method!r} takes a symmetric spec with {known} bits, not {config.spec}")
        super().__init__(config, profile, state, name, is_weight)
        self.in_one_call = self.holds_all = False

    @property
    def has_seen_data(self):
        """Whether there is a range: weights always have one."""
        return True

    def recorded_range(self, weight=None):
        """Return the range of these weights."""
        self._update(weight)  # for its check of the values
        rows = weight.reshape(1 if self.config.spec.axis is None else len(weight), -1)[None]
        c1, c2 = COEFFICIENTS[self.config.spec.bits]
        count = max(rows.shape[2], 1)
        magnitudes, squares = channel_sums(np.abs(rows), np.abs(rows))
        clip = c1 * np.sqrt(squares / count) + c2 * magnitudes / count
        largest = np.abs(rows).max(axis=2, initial=0)[0]
        clip = np.where(clip > 0, clip, largest).astype(np.float32)  # where all have one size it can be negative
        return (-clip, clip) if self.config.spec.axis is not None else (-clip[0], clip[0])

    def qparams_for(self, weight, training=False):
        """Return the `QParams` of a weight."""
        return self._of_range(*self.recorded_range(weight))

    def gradient(self, dy, x, qparams):
        """Return the gradient, with "sawb" that of clipped weights as 0."""
        if self.config.method == "sawb+":
            return dy, {}
        _, clip = self.recorded_range(x)
        return np.where(np.abs(x) < np.reshape(clip, (-1, *(1,) * (x.ndim - 1))), dy, dy.dtype.type(0)), {}
