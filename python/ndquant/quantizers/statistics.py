"""Base of the quantizers of weights whose grid follows from the weights alone."""

from __future__ import annotations

import numpy as np

from .ste import Quantizer


class StatisticsQuantizer(Quantizer):
    """A quantizer of weights that finds their range by a formula, whenever it is asked for.

    A subclass gives `recorded_range` and `gradient`, and checks the spec in `_check_spec`.
    """

    has_own_gradient = True

    def __init__(self, config, profile, state, name, is_weight=False):
        if not is_weight:
            raise ValueError(f"method {config.method!r} is for weights")
        self._check_spec(config.method, config.spec)
        super().__init__(config, profile, state, name, is_weight)
        self.in_one_call = self.holds_all = False

    @property
    def has_seen_data(self):
        """Whether there is a range: weights always have one."""
        return True

    def qparams_for(self, weight, training=False):
        """Return the `QParams` of a weight."""
        return self._of_range(*self.recorded_range(weight))

    def _rows(self, weight):
        """Return the weights as (1, number of scales, weights that share one), after a check of the values."""
        self._update(weight)
        return weight.reshape(1 if self.config.spec.axis is None else len(weight), -1)[None]

    def _both_sides(self, clip):
        """Return the range from -clip to clip, of one number for each row, in the shape that scales have."""
        clip = clip.astype(np.float32)
        return (-clip, clip) if self.config.spec.axis is not None else (-clip[0], clip[0])


def check_ternary(method, spec):
    """Raise unless codes are -1, 0 and 1."""
    if (spec.qmin, spec.qmax, spec.symmetric) != (-1, 1, True):
        raise ValueError(f"method {method!r} takes QuantSpec(bits=2, narrow_range=True), codes -1 to 1, not {spec}")
