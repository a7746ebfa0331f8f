"""LSQ+: step and offset are parameters (Bhalgat et al., 2020, https://arxiv.org/abs/2004.09576)."""

from __future__ import annotations

import numpy as np

from ..parameter import Parameter
from .lsq import LsqQuantizer


class LsqPlusQuantizer(LsqQuantizer):
    """A quantizer that learns its scale and its zero point, for values that are not centred.

    Asked for by ``learn="lsq+"``. The gradient of the scale is that of LSQ. The zero point is rounded to a code in the
    forward pass, as integer layers need it, and its gradient passes the rounding: the sum of ``-dy * scale`` over the
    values outside the range, times the factor of LSQ. With ``zero_aligned=False`` it is the float offset of the paper,
    whose gradient is the sum of these dy.
    """

    def _new_arrays(self):
        return {"scale": Parameter(np.nan), "zero_point": Parameter(0.0)}

    def _gradients(self, d_scale, d_zero_point):
        return super()._gradients(d_scale, d_zero_point) | {"zero_point": np.asarray(d_zero_point, np.float32)}
