"""TQT: scales are powers of 2, their thresholds parameters (Jain et al., 2020, https://arxiv.org/abs/1903.08066)."""

from __future__ import annotations

import numpy as np

from ..parameter import Parameter
from .lsq import LsqQuantizer


class TqtQuantizer(LsqQuantizer):
    """A quantizer that learns the logarithm of its threshold t, of which the scale is a power of 2.

    Asked for by ``learn="tqt"``, with a signed symmetric or an unsigned affine spec.
    ``scale = 2^ceil(log2 t) / 2^(bits - 1)``, for unsigned codes ``/ 2^bits``; the zero point is 0. The gradient of
    ``log2_t`` passes the ceiling: it is ``scale * ln 2`` times that which LSQ has for the scale, without its factor.
    """

    def __init__(self, config, profile, state, name, is_weight=False):
        spec = config.spec
        if spec.symmetric != spec.signed or not spec.zero_aligned:
            raise ValueError(f"learn='tqt' takes a signed symmetric or an unsigned affine spec, not {spec}")
        super().__init__(config, profile, state, name, is_weight)

    def _new_arrays(self):
        return {"log2_t": Parameter(np.nan)}

    def _begin(self, low, high):
        threshold = np.maximum(np.abs(low), np.abs(high))
        self.log2_t.data = np.array(np.log2(np.where(threshold > 0, threshold, 1)), np.float32)

    def recorded_grid(self):
        """Return the power of 2, and the zero point 0."""
        spec = self.config.spec
        power = np.ceil(self.log2_t.data).astype(np.int32) - (spec.bits - spec.signed)
        return np.ldexp(np.float32(1), power), np.int64(0)

    def _factor(self, x):
        return 1.0

    def _gradients(self, d_scale, d_zero_point):
        scale, _ = self.recorded_grid()
        return {"log2_t": np.asarray(d_scale * scale * np.log(2), np.float32)}
