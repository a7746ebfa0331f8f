"""Base of the quantizers whose grid is made of parameters, which the optimizer of the network trains."""

from __future__ import annotations

import numpy as np

from ..functional import quantize
from .ste import Quantizer


class LearnedQuantizer(Quantizer):
    """A quantizer with parameters, which begin where the method of the configuration puts the range of the first data.

    A subclass makes the arrays in `_new_arrays`, fills them in `_begin`, and gives `_grid` and `gradient`.
    """

    has_own_gradient = True

    def __init__(self, config, profile, state, name, is_weight=False):
        super().__init__(config, profile, state, name, is_weight)
        self.in_one_call = self.holds_all = False
        self._arrays = self._new_arrays()
        if config.range is not None:
            self._begin(*np.float32(config.range))

    def __getattr__(self, name):
        """Give the arrays by name."""
        if name != "_arrays" and name in self.__dict__.get("_arrays", ()):
            return self._arrays[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def parameters(self):
        """Return {name: `Parameter` or `Buffer`} of what is learned, and of what is kept with it."""
        return self._arrays

    @property
    def has_seen_data(self):
        """Whether the parameters have begun."""
        return bool(np.isfinite(next(iter(self._arrays.values())).data).all())

    def begin(self, x):
        """Let the parameters begin at the range of `x`, if they have not begun."""
        if not self.has_seen_data:
            self._update(x)
            self._begin(*self.observer.range(self.config.spec, **self._method()))

    @property
    def qparams(self):
        """The `QParams` that were learned so far."""
        return self._grid() if self.has_seen_data else super().qparams

    def _update_quantize(self, x):
        self.begin(x)
        qparams = self.qparams
        return quantize(x, qparams), qparams

    def qparams_for(self, weight, training=False):
        """Return the `QParams` of a weight."""
        self.begin(weight)
        return self.qparams
