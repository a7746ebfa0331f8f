"""How the error of an array depends on where its values are clipped, and where each method clips them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..metrics import ErrorParts, quantization_error
from ..observers import HistogramObserver
from ..qparams import QParams, QuantSpec
from .axes import FLOAT, LINES, MARK, new_axes

#: How many clip values are looked at, unless the caller says which.
_COUNT = 100

_MARKERS = "os^Dv"


@dataclass(frozen=True)
class Choice:
    """The range that a method chooses.

    Attributes
    ----------
    clip : float
        The larger magnitude of its ends.
    low, high : float
        The range itself; it need not be one of the curve, as its ends may move independently.
    error : ErrorParts
    """

    clip: float
    low: float
    high: float
    error: ErrorParts


@dataclass(frozen=True, repr=False)
class ClipErrors:
    """What `clip_errors` found: squared errors, means over all values, for each clip value and for each method.

    Attributes
    ----------
    clip : ndarray of float64, shape (clips,)
        Clip values, in the unit of the array.
    mse, clipping, rounding : ndarray of float64, shape (clips,)
        The error, and what values outside and inside the range add to it.
    methods : dict of str to Choice
    """

    clip: np.ndarray
    mse: np.ndarray
    clipping: np.ndarray
    rounding: np.ndarray
    methods: dict

    def plot(self, ax=None):
        """Draw the curves of error against clip value, with a mark for the range of each method.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            None makes a figure.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = new_axes() if ax is None else ax
        for label, error, color, style in (
            ("clipping + rounding", self.mse, FLOAT, "-"),
            ("clipping", self.clipping, LINES[1][0], "--"),
            ("rounding", self.rounding, LINES[3][0], ":"),
        ):
            ax.plot(self.clip, error, style, color=color, label=label)
        for number, (name, choice) in enumerate(self.methods.items()):
            # Some methods choose the same range: open marks of growing size leave all of them visible.
            ax.plot(
                choice.clip,
                choice.error.mse,
                _MARKERS[number % len(_MARKERS)],
                markersize=6 + 2.5 * number,
                color=MARK,
                markerfacecolor="none",
                label=f"{name}: {choice.low:.3g} .. {choice.high:.3g}",
            )
        if (self.mse > 0).any():
            ax.set_yscale("log")
        ax.set(xlabel="clip value (unit of x)", ylabel="mean squared error (unit of x, squared)")
        ax.legend()
        return ax

    def __repr__(self):
        best, chosen = int(np.argmin(self.mse)), self.methods.items()
        found = "".join(f", {name} {choice.error.mse:.4g} at {choice.clip:.4g}" for name, choice in chosen)
        return f"ClipErrors({len(self.clip)} clips, least mse {self.mse[best]:.4g} at {self.clip[best]:.4g}{found})"


def clip_errors(x, spec, clip=None, methods=HistogramObserver.methods):
    """Return the quantization error of an array for many clip values, and for the ranges that methods choose.

    A clip value cuts the range of the data on both sides of 0, to ``max(min(x), -clip) .. min(max(x), clip)``.

    Parameters
    ----------
    x : array_like of float
        Not empty, and finite.
    spec : QuantSpec
        One with a single range, ``axis=None``: for a channel pass that channel of `x`.
    clip : array_like of float, optional
        Clip values to look at; by default 100 of equal distance, the last of which clips nothing.
    methods : sequence of str, default ("mse", "l2", "entropy", "percentile", "minmax")
        Methods of `choose_qparams`, those of `HistogramObserver`.

    Returns
    -------
    ClipErrors
        With arrays of errors, and ``plot(ax=None)``, which needs matplotlib.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> x = np.random.default_rng(0).standard_normal(10000)
    >>> found = nq.clip_errors(x, nq.QuantSpec(bits=4), methods=["mse", "minmax"])
    >>> found
    ClipErrors(100 clips, least mse 0.01108 at 2.301, mse 0.01108 at 2.3, minmax 0.026 at 3.899)
    >>> found.mse.shape, np.allclose(found.mse, found.clipping + found.rounding)
    ((100,), True)
    """
    if not isinstance(spec, QuantSpec):
        raise TypeError(f"spec: expected a QuantSpec, got {type(spec).__name__}")
    if spec.axis is not None:
        raise ValueError(f"spec: must have axis=None, as a curve is of one range, got axis={spec.axis}")
    x = np.asanyarray(x)
    observer = HistogramObserver().update(x)
    low, high = observer.range(spec, "minmax")
    clip = _checked_clips(clip, low, high)
    errors = [_error(x, max(low, -c), min(high, c), spec) for c in clip.astype(low.dtype)]
    chosen = {name: _choice(x, *observer.range(spec, name), spec) for name in methods}
    curves = (np.array([getattr(e, part) for e in errors]) for part in ("mse", "clipping", "rounding"))
    return ClipErrors(clip, *curves, chosen)


def _checked_clips(clip, low, high):
    """Return the clip values as float64: none may leave out all of the range."""
    least, most = max(float(low), -float(high), 0.0), max(-float(low), float(high))
    if clip is None:
        return np.linspace(most, least, _COUNT, endpoint=False)[::-1]
    clip = np.asarray(clip, np.float64)
    if clip.ndim != 1 or not clip.size:
        raise ValueError(f"clip: expected a list of numbers, got shape {clip.shape}")
    bad = ~(np.isfinite(clip) & (clip >= least))
    if bad.any():
        raise ValueError(
            f"clip: must be finite and at least {least:g} for values of {low:g} to {high:g}, got {clip[bad][0]:g}"
        )
    return clip


def _error(x, low, high, spec):
    return quantization_error(x, QParams.from_range(low, high, spec))


def _choice(x, low, high, spec):
    clip = max(abs(float(low)), abs(float(high)))
    return Choice(clip, float(low), float(high), _error(x, low, high, spec))
