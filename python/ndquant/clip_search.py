"""The search for the clip range whose error is smallest, in all channels at once.

An error is a function ``error(low, high)`` of ranges, arrays (channels, tries) of the dtype of the data, that gives an
array of their shape. `HistogramError` is the one that histograms give, `RowError` that of rows of logits.
"""

from __future__ import annotations

import itertools

import numpy as np

from . import _core

#: Clip ranges that are tried, as fractions of the whole range: evenly spaced, and down to tails that are a few values.
_SHRINK = np.unique(np.concatenate([np.linspace(1 / 64, 1, 64), np.geomspace(2.0**-12, 1 / 64, 16)]))[::-1]

#: Finer steps around the best one: fractions of the distance to its neighbours, in rounds.
_REFINE = np.linspace(-1, 1, 17)
_ROUNDS = 2

#: Each end of an affine range on its own, as fractions of the best range that both ends shrink to together.
_GRID = np.linspace(0, 2.4, 13)

#: The greedy search takes off this fraction of the values at a time, and looks at so many steps at once.
_STEP, _STEPS = 1e-5, 64


def code_levels(low, high, spec, profile):
    """Return base and scale, float64, of the values ``base + k * scale`` that codes of these ranges stand for."""
    scale, zero_point = profile.scale_zero_point(low, high, spec)
    scale = scale.astype(np.float64)
    if not spec.zero_aligned:
        return scale * spec.qmin + zero_point, scale
    return scale * (spec.qmin - zero_point), scale


class HistogramError:
    """The error ``sum |x - fake_quantize(x)|^p`` over what a histogram counted, each bin taken as its middle.

    Parameters
    ----------
    histogram : Histogram
    low, high : ndarray of float32 or float64, shape (channels,)
        The extremes of the data.
    spec : QuantSpec
    profile : Profile
    p : float
    """

    def __init__(self, histogram, low, high, spec, profile, p):
        start, _, counts = histogram.table
        low, high = low.astype(np.float64), high.astype(np.float64)
        # Powers of two, so that no square overflows and nothing is rounded.
        self.shift = -np.frexp(np.maximum(abs(low), abs(high)))[1]
        self.spec, self.profile, self.p = spec, profile, p
        self.start, self.weights = start, counts.astype(np.float64)
        self.values = np.ldexp(histogram.centres(low, high), np.repeat(self.shift, np.diff(start)))

    def __call__(self, low, high):
        """Return the error of each range, in units of its channel's own: only errors of one channel can be compared."""
        base, scale = (np.ldexp(a, self.shift[:, None]) for a in code_levels(low, high, self.spec, self.profile))
        levels = self.spec.qmax - self.spec.qmin
        return _core.clip_errors(self.start, self.values, self.weights, base, scale, levels, self.p)


class RowError:
    """The cross-entropy between the softmax of rows of logits and that of the quantized rows, summed over the rows.

    Parameters
    ----------
    rows : ndarray of float64, shape (rows, classes)
    spec : QuantSpec
    profile : Profile
    """

    def __init__(self, rows, spec, profile):
        self.rows, self.spec, self.profile = rows, spec, profile
        self.largest = rows.max(axis=1)
        p = np.exp(rows - self.largest[:, None])
        self.softmax = p / p.sum(axis=1, keepdims=True)

    def __call__(self, low, high):
        """Return the cross-entropy of each range, arrays (1, tries)."""
        base, scale = (a[0] for a in code_levels(low, high, self.spec, self.profile))
        levels = self.spec.qmax - self.spec.qmin
        return _core.cross_entropies(self.rows, self.softmax, self.largest, base, scale, levels)[None]


def least_error_range(error, low, high, centre, symmetric):
    """Return the range of each channel whose error is smallest.

    Parameters
    ----------
    error : callable
    low, high : ndarray of float32 or float64, shape (channels,)
        The extremes of the data: the range that all others must beat.
    centre : ndarray, shape (channels,)
        What ranges shrink towards.
    symmetric : bool
        Whether ranges reach as far below 0 as above.

    Returns
    -------
    low, high : of the dtype of `low`
    """
    if symmetric:
        high = np.maximum(abs(low), abs(high))
        low, centre = -high, np.zeros_like(high)
    best = _Best(error, low, high, centre)
    step = best.try_shrunk(_SHRINK)
    if symmetric:
        best.refine(step, ["both"])
    else:
        # The zero point is an integer, so the error jumps between ranges: a descent from one start would get stuck.
        best.try_pairs(_GRID)
        best.refine(4 * step, ["low", "high", "both"])
    return best.low, best.high


def percentile_range(histogram, low, high, fraction, symmetric):
    """Return the quantiles ``1 - fraction`` and ``fraction`` of each channel, or those of magnitudes.

    Parameters
    ----------
    histogram : Histogram
    low, high : ndarray of float32 or float64, shape (channels,)
        The extremes of the data.
    fraction : float
    symmetric : bool

    Returns
    -------
    low, high : of the dtype of `low`
    """
    if symmetric:
        limit = histogram.magnitudes().quantiles()(fraction).astype(low.dtype)
        limit = np.minimum(limit, np.maximum(abs(low), abs(high)))
        return -limit, limit
    quantile = histogram.quantiles()
    ends = (quantile(f).astype(low.dtype) for f in (1 - fraction, fraction))
    return tuple(np.clip(end, low, high) for end in ends)


def greedy_range(error, quantiles, low, high):
    """Return the range of one channel from which no further step lowers the error.

    A step takes a hundred-thousandth of the values, one at least, off the end where that shortens the range more: the
    search of PyTorch's HistogramObserver (``_non_linear_param_search``, from Caffe2's norm_minimization.cc), which
    counts bins of equal width where this one measures the distance.

    Parameters
    ----------
    error : callable
    quantiles : Quantiles
    low, high : ndarray of float32 or float64, shape (1,)
        The extremes of the data.

    Returns
    -------
    low, high : shape (1,), of the dtype of `low`
    """
    least = error(low[:, None], high[:, None])[0]
    walk = _walk(quantiles, float(low[0]), float(high[0]))
    while steps := list(itertools.islice(walk, _STEPS)):
        lows, highs = np.array(steps, low.dtype).T[:, None]
        errors = np.concatenate([least, error(lows, highs)[0]])
        taken = int(np.argmax(np.append(np.diff(errors), np.inf) > 0))
        if taken:
            low, high, least = lows[:, taken - 1], highs[:, taken - 1], errors[taken : taken + 1]
        if taken < len(steps):
            break
    return low, high


def _walk(quantiles, low, high):
    """Yield the ranges that the greedy search comes to, as long as the error falls."""
    step = max(_STEP, 1 / int(quantiles.count[0]))
    fractions = np.arange(1, int(1 / step) + 2) * step
    from_below, from_above = (quantiles(np.clip(f, 0, 1)).clip(low, high).tolist() for f in (fractions, 1 - fractions))
    below = above = 0
    while (below + above + 2) * step < 1:
        left, right = min(from_below[below], high), max(from_above[above], low)
        if left - low > high - right:
            low, below = left, below + 1
        else:
            high, above = right, above + 1
        yield low, high


class _Best:
    """The best range of each channel so far; it never gets worse than the first."""

    def __init__(self, error, low, high, centre):
        self.error, self.centre = error, centre.astype(np.float64)
        self.low, self.high = self.lowest, self.highest = low, high
        self.least = error(low[:, None], high[:, None])[:, 0]

    def try_shrunk(self, factors):
        """Try ranges shrunk on both sides; return how far the best factor is from its neighbours, relative to it."""
        i = self.try_widths(factors, factors)
        around = factors[np.maximum(i - 1, 0)] - factors[np.minimum(i + 1, len(factors) - 1)]
        return around / 2 / factors[i]

    def try_pairs(self, factors):
        """Try all pairs of ends, as multiples of the distance of the best range's ends from the centre."""
        self.try_widths(*(side.ravel() for side in np.meshgrid(factors, factors)))

    def refine(self, step, sides):
        """Move the ends of the best range, one after another and together, in ever smaller steps."""
        for _ in range(_ROUNDS):
            for side in sides:
                factors = 1 + _REFINE * np.minimum(step, 1)[:, None]
                ones = np.ones_like(factors)
                self.try_widths(ones if side == "high" else factors, ones if side == "low" else factors)
            step = step / 4

    def try_widths(self, low_factors, high_factors):
        """Try ranges whose ends lie these multiples of the present distance from the centre; return which was best."""
        centre = self.centre[:, None]
        low = centre + low_factors * (self.low.astype(np.float64)[:, None] - centre)
        high = centre + high_factors * (self.high.astype(np.float64)[:, None] - centre)
        low = np.maximum(low.astype(self.low.dtype), self.lowest[:, None])
        high = np.minimum(high.astype(self.high.dtype), self.highest[:, None])
        errors = self.error(low, high)
        i = np.argmin(errors, axis=1)
        channels = np.arange(len(i))
        better = errors[channels, i] < self.least
        self.low = np.where(better, low[channels, i], self.low)
        self.high = np.where(better, high[channels, i], self.high)
        self.least = np.where(better, errors[channels, i], self.least)
        return i
