"""DoReFa-Net: weights go through tanh before they are rounded (Zhou et al., 2016, https://arxiv.org/abs/1606.06160)."""

from __future__ import annotations

import numpy as np

from .statistics import StatisticsQuantizer


class DorefaQuantizer(StatisticsQuantizer):
    """A quantizer of weights that rounds ``m * tanh(w) / tanh(m)`` on the range from -m to m, m the largest ``|w|``.

    Asked for by ``method="dorefa"`` with a symmetric spec of 2 or more bits, for the whole array. That draws weights
    that lie far out closer. The paper has 1 in place of the factor m, and leaves the size of outputs to the batch
    normalization behind; its odd number of steps, of which 0 is none, is here the grid of the spec. For activations the
    paper clips to 0 .. 1: a `Quantize` with ``range=(0, 1)``. The gradient is ``dy * m / tanh(m) * (1 - tanh(w)^2)``,
    with m as a constant.
    """

    @staticmethod
    def _check_spec(method, spec):
        if spec.bits < 2 or not spec.symmetric or spec.axis is not None:
            raise ValueError(f"method {method!r} takes a symmetric spec of 2 or more bits with axis=None, not {spec}")

    def recorded_range(self, weight=None):
        """Return the range of these weights."""
        return self._both_sides(np.abs(self._rows(weight)).max(axis=2, initial=0)[0])

    def transformed(self, weight):
        """Return the weights after tanh."""
        largest = np.abs(weight).max(initial=0)
        if largest == 0:
            return weight
        w = weight.astype(np.float64)  # float32 forms of tanh differ between processors
        return (largest * (np.tanh(w) / np.tanh(np.float64(largest)))).astype(weight.dtype)

    def gradient(self, dy, x, qparams):
        """Return the gradient through tanh, with the largest weight as a constant."""
        largest = np.float64(np.abs(x).max(initial=0))
        if largest == 0:
            return dy, {}
        slope = largest / np.tanh(largest) * (1 - np.tanh(x.astype(np.float64)) ** 2)
        return (dy * slope).astype(dy.dtype), {}
