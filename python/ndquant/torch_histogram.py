"""The histogram of PyTorch's HistogramObserver: 2,048 equal bins over the range seen so far, moved when that grows.

Profile `torch` reads it, to the bit: all arithmetic is in float32 and in the order in which PyTorch 2.13 does it on x86
with AVX2, on one thread. It depends on the order of the batches, so it cannot be merged.
"""

from __future__ import annotations

import numpy as np

BINS = 2048

#: An old bin is cut into so many before its parts are assigned to new bins.
_UPSAMPLE = 16

#: The search takes this fraction of the values off an end at a time.
_STEP = 1e-5

_F32 = np.float32


class TorchHistogram:
    """Counts of values between the extremes seen so far.

    Attributes
    ----------
    low, high : float32 or None
    counts : ndarray of float32, shape (2048,)
    """

    def __init__(self):
        self.low = self.high = None
        self.counts = np.zeros(BINS, _F32)

    def add(self, x, low, high):
        """Count the values of a batch, which are finite, and whose extremes are `low` and `high`.

        Raises
        ------
        ValueError
            If float32 cannot hold the numbers of bins; then nothing is counted.
        """
        with np.errstate(over="ignore"):
            low, high = (_F32(end) for end in (low, high))
            new_low, new_high = (low, high) if self.low is None else (min(self.low, low), max(self.high, high))
            if not np.isfinite((new_high - new_low) * _F32(BINS)):
                raise ValueError(f"x: {new_low} to {new_high} is too wide for PyTorch's histogram, which is in float32")
        counts = _histc(np.asarray(x, _F32).reshape(-1), new_low, new_high)
        self.counts = counts if self.low is None else counts + self._moved_to(new_low, new_high)
        self.low, self.high = new_low, new_high

    def _moved_to(self, low, high):
        """Return the counts so far in bins over a range that contains the old one."""
        if (low, high) == (self.low, self.high):
            return self.counts
        if self.low == self.high:
            return _histc(self.low[None], low, high) * _cascade_sum(self.counts)
        weights = np.repeat(self.counts, _UPSAMPLE) / _F32(_UPSAMPLE)
        width = (self.high - self.low) / _F32(BINS * _UPSAMPLE)
        middles = _linspace(self.low, self.high, BINS * _UPSAMPLE + 1)[:-1] + _F32(0.5) * width
        bins = np.searchsorted(_linspace(low, high, BINS + 1), middles, side="right") - 1
        moved = np.zeros(BINS, _F32)
        np.add.at(moved, np.clip(bins, 0, BINS - 1), weights)
        return moved

    def range(self, codes):
        """Return the range that PyTorch's search ends at, float32.

        From the whole range on, bins are taken off whichever end loses more of them to the same fraction of the values,
        as long as the error of quantizing what is left to `codes` values gets smaller.
        """
        total = float(_cascade_sum(self.counts))
        before = np.cumsum(self.counts, dtype=np.float64).astype(_F32).tolist()
        start, end = 0, BINS - 1
        least, alpha, beta = np.inf, 0.0, 1.0
        while alpha < beta:
            next_alpha, next_beta = alpha + _STEP, beta - _STEP
            left, right = start, end
            lower, upper = float(_F32(next_alpha * total)), float(_F32(next_beta * total))
            while left < end and before[left] < lower:
                left += 1
            while right > start and before[right] > upper:
                right -= 1
            next_start, next_end = start, end
            if left - start > end - right:
                next_start, alpha = left, next_alpha
            else:
                next_end, beta = right, next_beta
            if (next_start, next_end) == (start, end):
                continue
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                error = self._error(next_start, next_end, codes)
            if error > least:
                break
            least, start, end = error, next_start, next_end
        width = (self.high - self.low) / _F32(BINS)
        return self.low + width * _F32(start), self.low + width * _F32(end + 1)

    def _error(self, start, end, codes):
        """Return the squared error of laying `codes` values over bins start .. end; values are even within a bin.

        A width that is 0 in float32 gives NaN, as in PyTorch, and ends no search.
        """
        width = (float(self.high) - float(self.low)) / BINS
        step = width * (end - start + 1) / codes
        if step == 0:
            return 0.0
        begins = (np.arange(BINS) - start).astype(_F32) * _F32(width)
        ends = begins + _F32(width)
        first, last = (np.clip(np.floor_divide(edge, _F32(step)), 0, codes - 1) for edge in (begins, ends))
        density = self.counts / _F32(width)
        half = _F32(step / 2)
        first_middles, last_middles = (first + _F32(0.5)) * _F32(step), last * _F32(step) + half
        norm = _integral(begins - first_middles, half, density)
        norm += (last - first - _F32(1)) * _integral(-half, half, density)
        norm += _integral(-half, ends - last_middles, density)
        return float(_cascade_sum(norm))


def _integral(begin, end, density):
    """Return the integral of ``density * x^2``."""
    return density * ((end * end * end - begin * begin * begin) / _F32(3))


def _histc(x, low, high):
    """Return counts in equal bins, as torch.histc."""
    if low == high:
        low, high = low - _F32(1), high + _F32(1)
    bins = ((x - low) * _F32(BINS) / (high - low)).astype(np.int64)
    return np.bincount(np.minimum(bins, BINS - 1), minlength=BINS).astype(_F32)


def _linspace(start, end, count):
    """Return evenly spaced values, as torch.linspace: from either end to the middle, by fused multiply-adds."""
    step = np.float64((end - start) / _F32(count - 1))
    i = np.arange(count)
    # The product is exact in float64, and the sum rounded to float32 there is what a fused operation gives.
    return np.where(i < count // 2, start + step * i, end - step * (count - 1 - i)).astype(_F32)


def _cascade_sum(a):
    """Return the sum of 2,048 float32 in the order of torch.sum: four rows of vectors of eight, in levels of 16."""
    lanes = a.reshape(-1, 16, 4, 8)
    level = lanes[:, 0].copy()
    for k in range(1, 16):
        level += lanes[:, k]
    rows = level[0]
    for more in level[1:]:
        rows = rows + more
    vector = rows[0] + rows[1] + rows[2] + rows[3]
    total = _F32(0)
    for lane in vector:
        total += lane
    return total
