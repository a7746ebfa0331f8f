"""A histogram with fixed edges, and the ranges that are read from it: percentiles, and the least squared error.

Bins are those of the core's kernel: an index of 12 bits for sign and float64 exponent (the binade), then 9 bits of
mantissa. Bins within a binade are equally wide, 2^-9 of its lower end. As the edges never move, merging is adding.
"""

from __future__ import annotations

import numpy as np

from . import _core

#: Clip ranges that are tried, as fractions of the whole range: evenly spaced, and down to tails that are a few values.
_SHRINK = np.unique(np.concatenate([np.linspace(1 / 96, 1, 96), np.geomspace(2.0**-12, 1 / 96, 32)]))[::-1]

#: Finer steps around the best one: fractions of the distance to its neighbours, in rounds.
_REFINE = np.linspace(-1, 1, 17)
_ROUNDS = 3

#: Each end of an affine range on its own, as fractions of the best range that both ends shrink to together.
_GRID = np.linspace(0, 2.5, 21)


class Histogram:
    """Counts of values in fixed bins, stored per binade.

    Attributes
    ----------
    binades : dict of int to ndarray of int64, shape (512,)
    """

    def __init__(self):
        self.binades = {}

    def add(self, x):
        """Count the finite values of an array."""
        keys, counts = _core.histogram(x)
        self._add_binades(zip(keys.tolist(), counts, strict=True))

    def merge(self, other):
        """Add the counts of another histogram."""
        self._add_binades((key, row.copy()) for key, row in other.binades.items())

    def _add_binades(self, rows):
        for key, row in rows:
            if key in self.binades:
                self.binades[key] += row
            else:
                self.binades[key] = row

    def bins(self):
        """Return lower edges, upper edges and counts of the bins that are not empty, in ascending order of value."""
        if not self.binades:
            return np.zeros(0), np.zeros(0), np.zeros(0, np.int64)
        keys, counts = np.array(list(self.binades), np.int64), np.concatenate(list(self.binades.values()))
        filled = np.flatnonzero(counts)
        index, counts = keys[filled // 512] * 512 + filled % 512, counts[filled]
        near, far = ((i << 43).view(np.float64) for i in (index, index + (index != 0)))
        order = np.argsort(near + far)
        return np.minimum(near, far)[order], np.maximum(near, far)[order], counts[order]

    def percentile(self, percents):
        """Return percentiles as `numpy.percentile` defines them, to within the width of a bin."""
        low, high, counts = self.bins()
        after = np.cumsum(counts)
        rank = np.asarray(percents) / 100 * (after[-1] - 1)
        i = np.minimum(np.searchsorted(after, rank, side="right"), len(counts) - 1)
        inside = (rank - (after[i] - counts[i]) + 0.5) / counts[i]
        return low[i] + (high[i] - low[i]) * np.minimum(inside, 1)

    def magnitudes(self):
        """Return the histogram of absolute values."""
        folded = Histogram()
        folded._add_binades((key % 2048, row.copy()) for key, row in self.binades.items())
        return folded


class SquaredError:
    """The squared error of quantizing what a histogram counted, each bin taken as its middle.

    If all values got the code nearest to 0, the error would be known at once. Each rounding threshold t between codes a
    scale s apart that a value x lies beyond lowers its error by ``2 s |x - t|``; the sums over all x beyond a threshold
    come from prefix sums, for many ranges at once. No difference of large numbers is formed but the last.
    """

    def __init__(self, histogram, low, high, rule, spec):
        bin_low, bin_high, counts = histogram.bins()
        with np.errstate(over="ignore"):
            self.values = np.clip((bin_low + bin_high) / 2, low, high)
        self.rule, self.spec = rule, spec
        self.moments = [float((counts * self.values**k).sum()) for k in range(3)]
        # Behind each other: number and sum of the values below a cut, negated, and of those above it.
        self.numbers, self.sums = (self._both_sides(counts * self.values**k) for k in range(2))

    @staticmethod
    def _both_sides(weights):
        below = np.concatenate([[0.0], np.cumsum(weights, dtype=np.float64)])
        above = np.concatenate([np.cumsum(weights[::-1], dtype=np.float64)[::-1], [0.0]])
        return np.concatenate([-below, above])

    def __call__(self, low, high):
        """Return the error of each of the ranges, which are arrays of the dtype of the data."""
        scale, zero_point = (a.astype(np.float64) for a in self.rule(low, high, self.spec))
        base = np.clip(zero_point, self.spec.qmin, self.spec.qmax)
        codes = np.arange(self.spec.qmin, self.spec.qmax) + 0.5
        thresholds = scale[:, None] * (codes - zero_point[:, None])
        cuts = np.searchsorted(self.values, thresholds)
        cuts += (codes > base[:, None]) * (len(self.values) + 1)
        gains = (self.sums[cuts] - thresholds * self.numbers[cuts]).sum(axis=1)
        level = scale * (base - zero_point)
        number, total, squares = self.moments
        return squares - 2 * level * total + level**2 * number - 2 * scale * gains


def least_squares_range(histogram, low, high, rule, spec):
    """Return the range (low, high) whose quantization error over the histogram is smallest.

    Parameters
    ----------
    histogram : Histogram
    low, high : float32 or float64
        The extremes of the data: the range that all others must beat.
    rule : callable
        ``rule(low, high, spec) -> (scale, zero_point)``.
    spec : QuantSpec

    Returns
    -------
    low, high : of the dtype of `low`
    """
    error = SquaredError(histogram, float(low), float(high), rule, spec)
    if spec.symmetric:
        high = np.maximum(abs(low), abs(high))
        low = -high
    search = _Search(error, low, high)
    step = search.line(low, high, _SHRINK)
    if spec.symmetric:
        search.refine(step, ("both",))
    else:
        # The zero point is an integer, so the error jumps between ranges: a descent from one start would get stuck.
        search.grid(_GRID)
        search.refine(step, ("low", "high", "both"))
    return search.low, search.high


class _Search:
    """The best range so far; every range tried is compared with it, so it never gets worse than the first."""

    def __init__(self, error, low, high):
        self.error, self.kind = error, np.asarray(low).dtype.type
        self.low, self.high = self.lowest, self.highest = low, high
        self.least = error(np.array([low]), np.array([high]))[0]
        # A range shrinks towards the value in it that is nearest to 0.
        self.centre = np.clip(0.0, float(low), float(high))

    def line(self, low, high, factors):
        """Try ranges shrunk on both sides; returns the distance of the best factor from its neighbours."""
        lows, highs = (self.centre + factors * (float(end) - self.centre) for end in (low, high))
        best = self.try_all(lows, highs)
        if best is None:
            return 1 - factors[1]
        around = factors[max(best - 1, 0)] - factors[min(best + 1, len(factors) - 1)]
        return around / 2 / factors[best]

    def grid(self, factors):
        """Try all pairs of ends, as multiples of the best range's."""
        width_low, width_high = float(self.low) - self.centre, float(self.high) - self.centre
        lows, highs = np.unique(width_low * factors), np.unique(width_high * factors)
        lows, highs = np.meshgrid(self.centre + lows, self.centre + highs)
        self.try_all(lows.ravel(), highs.ravel())

    def refine(self, step, sides):
        """Move the ends of the best range, one after another and together, in ever smaller steps."""
        for _ in range(_ROUNDS):
            for side in sides:
                factors = 1 + (_REFINE * min(step * (4 if len(sides) > 1 else 1), 1))
                width_low, width_high = float(self.low) - self.centre, float(self.high) - self.centre
                lows = self.centre + width_low * (factors if side != "high" else np.ones_like(factors))
                highs = self.centre + width_high * (factors if side != "low" else np.ones_like(factors))
                self.try_all(lows, highs)
            step /= 4

    def try_all(self, lows, highs):
        """Keep the best of these ranges, clipped to the first one, if it beats the best so far; returns its index."""
        lows = np.clip(lows, self.lowest, self.highest).astype(self.kind)
        highs = np.clip(highs, self.lowest, self.highest).astype(self.kind)
        errors = self.error(lows, highs)
        best = int(np.argmin(errors))
        if not errors[best] < self.least:
            return None
        self.low, self.high, self.least = lows[best], highs[best], errors[best]
        return best
