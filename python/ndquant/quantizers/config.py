"""How one kind of value is quantized."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..qparams import QuantSpec

#: How the range of an edge is found, with the observer that serves it.
METHODS = ("minmax", "moving_average", "percentile", "mse", "l2", "entropy", "cross_entropy", "sawb", "sawb+")

#: What training can learn of a quantizer.
LEARN = (None, "pact")


@dataclass(frozen=True)
class Quantize:
    """The grid of a kind of value and how its range is found.

    Parameters
    ----------
    spec : QuantSpec
    method : str, default "minmax"
        "minmax", "moving_average" (follows the extremes of batches with a weight of 0.01), "percentile", "mse", "l2",
        "entropy" or "cross_entropy" (see `choose_qparams`); for weights also "sawb" and "sawb+", statistics-aware
        binning (Choi et al., 2018, https://arxiv.org/abs/1807.06964), the latter with the gradient of all weights.
    learn : {"pact"}, optional
        In training the ends of the range are parameters (Choi et al., 2018, https://arxiv.org/abs/1805.06085), which
        begin where `method` finds them in the first batch, or at `range`.
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
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {self.method!r}")
        if self.learn not in LEARN:
            raise ValueError(f"learn must be one of {', '.join(map(repr, LEARN))}, not {self.learn!r}")
        if self.learn is not None and self.spec.axis is not None:
            raise ValueError(f"learn={self.learn!r} learns one range, so spec.axis must be None, not {self.spec.axis}")
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
