"""How one kind of value is quantized."""

from __future__ import annotations

from dataclasses import dataclass

from ..qparams import QuantSpec

#: How the range of an edge is found, with the observer that serves it.
METHODS = ("minmax", "moving_average", "percentile", "mse", "l2", "entropy", "cross_entropy")


@dataclass(frozen=True)
class Quantize:
    """The grid of a kind of value and how its range is found.

    Parameters
    ----------
    spec : QuantSpec
    method : {"minmax", "moving_average", "percentile", "mse", "l2", "entropy", "cross_entropy"}, default "minmax"
        "moving_average" follows the extremes of batches with a weight of 0.01; for the others see `choose_qparams`.

    Examples
    --------
    >>> import ndquant as nq
    >>> nq.Quantize(nq.QuantSpec(bits=4), method="mse").method
    'mse'
    """

    spec: QuantSpec
    method: str = "minmax"

    def __post_init__(self):
        if not isinstance(self.spec, QuantSpec):
            raise TypeError(f"spec must be a QuantSpec, not {type(self.spec).__name__}")
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {self.method!r}")
