"""A quantizer of weights whose scale and zero point a pass has chosen."""

from __future__ import annotations

import numpy as np

from .ste import Quantizer


class GivenQuantizer(Quantizer):
    """The grid that a pass has moved the weights of a layer to: they are codes times scale already."""

    has_own_gradient = True

    def __init__(self, quantizer, qparams):
        super().__init__(quantizer.config, quantizer.profile, quantizer.state, quantizer.name, is_weight=True)
        self.in_one_call = self.holds_all = False
        self._qparams, self.original = qparams, quantizer.original

    def recorded_grid(self):
        """Return scale and zero point."""
        return np.asarray(self._qparams.scale), np.asarray(self._qparams.zero_point)

    def recorded_range(self, weight=None):
        """Return the values of the lowest and the highest code."""
        return self._qparams.range

    def qparams_for(self, weight, training=False):
        """Return the `QParams` that were chosen."""
        return self._qparams
