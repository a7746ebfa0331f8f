"""How one kind of value is quantized."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..qparams import QuantSpec

#: How the range of an edge is found, with the observer that serves it.
METHODS = ("minmax", "moving_average", "percentile", "mse", "l2", "entropy", "cross_entropy")

#: How the grid of a weight follows from the weight alone.
WEIGHT_METHODS = ("sawb", "sawb+", "dorefa", "binary", "ternary")

#: What training can learn of a quantizer.
LEARN = (None, "pact", "lsq", "lsq+", "tqt")


@dataclass(frozen=True)
class Quantize:
    """The grid of a kind of value and how its range is found.

    Parameters
    ----------
    spec : QuantSpec
    method : str, default "minmax"
        "minmax", "moving_average" (follows the extremes of batches with a weight of 0.01), "percentile", "mse", "l2",
        "entropy" or "cross_entropy" (see `choose_qparams`); for weights also "sawb" and "sawb+", statistics-aware
        binning (Choi et al., 2018, https://arxiv.org/abs/1807.06964), the latter with the gradient of all weights,
        "dorefa" (Zhou et al., 2016, https://arxiv.org/abs/1606.06160), and with ``QuantSpec(2, narrow_range=True)``
        "binary" (Rastegari et al., 2016, https://arxiv.org/abs/1603.05279) and "ternary" (Li and Liu, 2016,
        https://arxiv.org/abs/1605.04711).
    learn : {"pact", "lsq", "lsq+", "tqt"}, optional
        What training learns, beginning where `method` finds it in the first batch, or at `range`: with "pact" the ends
        of the range (Choi et al., 2018, https://arxiv.org/abs/1805.06085); with "lsq" the scale (Esser et al., 2020,
        https://arxiv.org/abs/1902.08153); with "lsq+" the scale and the zero point (Bhalgat et al., 2020,
        https://arxiv.org/abs/2004.09576); with "tqt" the power of 2 that is the scale (Jain et al., 2020,
        https://arxiv.org/abs/1903.08066).
    range : tuple of two float, optional
        The range, given instead of found.

    Examples
    --------
    >>> import ndquant as nq
    >>> nq.Quantize(nq.QuantSpec(bits=4), method="mse").method
    'mse'
    >>> nq.Quantize(nq.QuantSpec(bits=4), learn="pact", range=(-2.5, 2.5)).range
    (-2.5, 2.5)
    """

    spec: QuantSpec
    method: str = "minmax"
    learn: str | None = None
    range: tuple | None = None

    def __post_init__(self):
        if not isinstance(self.spec, QuantSpec):
            raise TypeError(f"spec must be a QuantSpec, not {type(self.spec).__name__}")
        if self.method not in METHODS + WEIGHT_METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS + WEIGHT_METHODS)}, not {self.method!r}")
        if self.learn not in LEARN:
            raise ValueError(f"learn must be one of {', '.join(map(repr, LEARN))}, not {self.learn!r}")
        if self.learn is not None and self.method in WEIGHT_METHODS:
            raise ValueError(f"learn={self.learn!r} learns what method={self.method!r} computes: give one of them")
        if self.learn == "pact" and self.spec.axis is not None:
            wanted = f"so spec.axis must be None, not {self.spec.axis}; 'lsq', 'lsq+' and 'tqt' learn per channel"
            raise ValueError(f"learn={self.learn!r} learns one range, {wanted}")
        if self.range is not None:
            object.__setattr__(self, "range", self._checked_range())

    def _checked_range(self):
        try:
            low, high = (float(end) for end in self.range)
        except (TypeError, ValueError):
            raise TypeError(f"range must be two numbers, not {self.range!r}") from None
        if not -np.inf < low <= high < np.inf:
            raise ValueError(f"range must be finite and rising, not {self.range!r}")
        if self.spec.axis is not None:
            raise ValueError(f"range is that of a whole array, so spec.axis must be None, not {self.spec.axis}")
        return low, high
