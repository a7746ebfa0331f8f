"""The clip range that keeps most of the information: entropy calibration as TensorRT defines it.

S. Migacz, "8-bit Inference with TensorRT" (GTC 2017): the values are counted in 2,048 bins of equal width; for each
number of bins that could be kept, P are these bins with the rest added to the outermost one, Q the same bins quantized,
that is, with the counts of each code spread evenly over its bins that are not empty, and the range is that with the
least relative entropy KL(P || Q).

Zeros are left out, as NVIDIA's pytorch-quantization leaves them out: 0 is always a code, and the zeros of a ReLU would
outweigh all other values.
"""

from __future__ import annotations

import numpy as np

from . import _core

#: Bins of equal width from 0 to the largest magnitude.
BINS = 2048


def least_entropy_range(histogram, low, high, spec):
    """Return the range of each channel that loses the least information.

    Parameters
    ----------
    histogram : Histogram
    low, high : ndarray of float32 or float64, shape (channels,)
        The extremes of the data.
    spec : QuantSpec
        Symmetric codes see magnitudes, others both signs apart: then a threshold on the magnitude clips both ends.

    Returns
    -------
    low, high : of the dtype of `low`
    """
    limits = [_limit(histogram.channel_slice(c, c + 1), low[c], high[c], spec) for c in range(len(low))]
    limits = np.array(limits, low.dtype)
    if spec.symmetric:
        return -limits, limits
    return np.maximum(low, -limits), np.minimum(high, limits)


def _limit(histogram, low, high, spec):
    """Return the magnitude at which one channel is clipped."""
    largest = max(abs(float(low)), abs(float(high)))
    below, above = equal_bins(histogram, float(low), float(high), largest)
    levels = spec.qmax - spec.qmin + 1
    if spec.symmetric:
        below, above, levels = below[:0], below + above, (levels + 1) // 2
    divergence = divergences(below, above, levels)
    # Of ranges that are as good the widest; if there is none with more bins than codes, all.
    kept = BINS - int(np.argmin(divergence[::-1]))
    return largest * (kept / BINS)


def equal_bins(histogram, low, high, largest):
    """Spread the counts of one channel over bins of equal width on either side of 0; values that are 0 are left out.

    Returns
    -------
    below, above : ndarray of float64, shape (BINS,)
        Both from 0 outwards.
    """
    _, bins, counts = histogram.table
    lower, upper = (np.clip(edge, low, high) for edge in histogram.edges())
    sides = []
    for side in (bins < 0, bins > 0):
        near, far = np.sort(np.abs([lower[side], upper[side]]), axis=0) * (BINS / largest if largest else 0.0)
        sides.append(_spread(near, far, counts[side]))
    return tuple(sides)


def _spread(near, far, counts):
    """Return counts in the unit bins of 0 .. BINS, of values spread evenly over each [near, far]."""
    total = np.zeros(BINS + 1)
    narrow = far - near < 1e-9
    np.add.at(total, np.minimum(near[narrow].astype(np.int64), BINS - 1), counts[narrow])
    near, far, counts = near[~narrow], far[~narrow], counts[~narrow]
    density = counts / (far - near)
    first, last = near.astype(np.int64), far.astype(np.int64)
    for k in range(int((last - first).max(initial=-1)) + 1):
        inside = np.minimum(far, first + k + 1) - np.maximum(near, first + k)
        np.add.at(total, np.minimum(first + k, BINS), np.maximum(inside, 0) * density)
    return total[:BINS]


def divergences(below, above, levels):
    """Return KL(P || Q) for each number of bins that is kept on either side of 0, from 1 to that of `above`.

    Parameters
    ----------
    below, above : ndarray of float64
        Counts of equal bins from 0 outwards, of one length; `below` may be empty. A side that has no values in its
        outer bins keeps no more than it needs.
    levels : int
        How many codes the bins that are kept are quantized to; it is infinite for less bins than that.
    """
    counts = np.concatenate([below[::-1], above])
    kept = np.arange(1, len(above) + 1)
    first = len(below) - np.minimum(kept, np.flatnonzero(below).max(initial=-1) + 1)
    end = len(below) + np.minimum(kept, np.flatnonzero(above).max(initial=-1) + 1)
    enough = np.flatnonzero(end - first >= levels)
    result = np.full(len(kept), np.inf)
    result[enough] = _divergences_of(counts, first[enough], end[enough], levels)
    return result


def _divergences_of(counts, first, end, levels):
    """Return KL(P || Q) of windows [first, end) of the bins: ``sum P log P - sum P log Q``, from sums over prefixes."""
    before, filled_before, entropy_before = (_prefix_sums(a) for a in (counts, counts > 0, _times_log(counts)))
    total, kept = before[-1], before[end] - before[first]
    entropy = entropy_before[end] - entropy_before[first]
    for outside, at in ((before[first], first), (total - before[end], end - 1)):
        entropy += _times_log(counts[at] + outside) - _times_log(counts[at])
    cross = _core.entropies(before, filled_before, first, end, levels)
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = (entropy - cross) / total + np.log(kept / total)
    lost = [(before[first] > 0) & (counts[first] == 0), (total > before[end]) & (counts[end - 1] == 0)]
    return np.where(np.isnan(divergence) | lost[0] | lost[1], np.inf, np.maximum(divergence, 0))


def _prefix_sums(a):
    return np.concatenate([[0.0], np.cumsum(a)])


def _times_log(a):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(a > 0, a * np.log(a), 0.0)
