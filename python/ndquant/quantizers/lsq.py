"""LSQ: the step between codes is a parameter (Esser et al., 2020, https://arxiv.org/abs/1902.08153)."""

from __future__ import annotations

import numpy as np

from ..functional import fake_quantize_learnable_backward
from ..layout import in_memory_order
from ..parameter import Buffer, Parameter
from ..profiles import SMALLEST_SCALE
from ..qparams import QParams
from .learned import LearnedQuantizer


class LsqQuantizer(LearnedQuantizer):
    """A quantizer that learns its scale; ``zero_point`` stays where the first data put it, at 0 behind a ReLU.

    Asked for by ``learn="lsq"``, with one scale for the array, or of weights one for each output channel. With codes
    ``q = rint(x / scale) + zero_point``, the gradient of the scale is, for each x in range, dy times
    ``rint(x / scale) - x / scale``, and dy times the distance of the bound from the zero point for each x outside.
    Their sum is multiplied by ``1 / sqrt(N * qmax)``: N is the number of weights that share the scale, or of values of
    one example.
    """

    def _new_arrays(self):
        integer = self.config.spec.zero_aligned
        return {"scale": Parameter(np.nan), "zero_point": Buffer(0 if integer else 0.0)}

    def _begin(self, low, high):
        qparams = self._of_range(low, high)
        for array, value in ((self.scale, qparams.scale), (self.zero_point, qparams.zero_point)):
            array.data = np.array(value, array.data.dtype, order="C")

    def recorded_grid(self):
        """Return the scale and the zero point that were learned; a scale that training made negative counts as such."""
        scale, zero_point, spec = self.scale.data, self.zero_point.data, self.config.spec
        if spec.zero_aligned and zero_point.dtype.kind == "f":
            zero_point = np.clip(np.rint(zero_point), spec.qmin, spec.qmax).astype(np.int64)
        return np.maximum(np.abs(scale), np.float32(SMALLEST_SCALE)), zero_point

    def recorded_range(self, weight=None):
        """Return the values of the lowest and the highest code."""
        self.begin(weight)
        return self._grid().range

    def _grid(self):
        scale, zero_point = self.recorded_grid()
        return QParams(scale[()], zero_point[()], self.config.spec, profile=self.profile)

    def gradient(self, dy, x, qparams):
        """Return the straight-through gradient and those of the parameters."""
        factor, sums = self._factor(x), []

        def backward(dy, x):
            dx, *sums[:] = fake_quantize_learnable_backward(dy, x, qparams, factor)
            return dx

        dx = in_memory_order(backward, dy, x)
        return dx, self._gradients(*sums)

    def _factor(self, x):
        """Return the factor of the sums; None is that for weights."""
        return None if self.is_weight else 1 / np.sqrt(max(x[:1].size, 1) * self.config.spec.qmax)

    def _gradients(self, d_scale, d_zero_point):
        return {"scale": np.asarray(np.where(self.scale.data < 0, -d_scale, d_scale), np.float32)}
