"""Histograms with fixed edges, one for each channel. As the edges never move, merging is adding.

Bins are those of the core: 0 holds what is as good as zero, ``i > 0`` the positive values whose float64 exponent and
first 9 bits of mantissa are ``i + 459263``, ``-i`` their negatives. So a bin is 2^-9 of the lower end of its binade
wide, and the order of bins is that of values.
"""

from __future__ import annotations

import numpy as np

from . import _core

#: Bins are numbered from here on, and each binade has 512 of them.
_BELOW = 897 * 512 - 1

#: Width of a bin in the bits of a float64.
_WIDTH = 2**43


class Histogram:
    """Counts of the finite values of each channel.

    Parameters
    ----------
    table : tuple of ndarray, optional
        Where each channel begins (int64), its bins that are not empty, ascending (int32), and their counts (int64). The
        arrays are never changed, so that copies may share them.
    """

    def __init__(self, table=None):
        self.table = table

    def add(self, x, axis=None, group_size=None):
        """Count the values of an array; one histogram for each index, or each group of indices, along `axis`."""
        self.merge(Histogram(_core.histogram(x, axis, group_size)))

    def merge(self, other):
        """Add the counts of another histogram of as many channels."""
        if self.table is None or other.table is None:
            self.table = self.table or other.table
        else:
            self.table = _core.add_histograms(*self.table, *other.table)

    @property
    def channels(self):
        """How many histograms these are."""
        return len(self.table[0]) - 1

    def channel_slice(self, first, end):
        """Return the histograms of channels first .. end - 1."""
        start, bins, counts = self.table
        inside = slice(start[first], start[end])
        return Histogram((start[first : end + 1] - start[first], bins[inside], counts[inside]))

    def magnitudes(self):
        """Return the histogram of absolute values."""
        start, bins, counts = self.table
        mirrored = np.repeat(start[:-1] + start[1:] - 1, np.diff(start)) - np.arange(bins.size)
        above = _from_bin(0, start, bins, counts)
        below = _from_bin(1, start, -bins[mirrored], counts[mirrored])
        return Histogram(_core.add_histograms(*above, *below))

    def edges(self):
        """Return lower and upper edges of the bins in `table`."""
        _, bins, _ = self.table
        near, far = (_value(bins, ends * _WIDTH) for ends in (0, 1))
        return np.minimum(near, far), np.maximum(near, far)

    def centres(self, low, high):
        """Return the middle of each bin, for channels whose extremes are known to be `low` and `high`.

        Parameters
        ----------
        low, high : float or ndarray, shape (channels,)

        Returns
        -------
        ndarray of float64
        """
        start, bins, _ = self.table
        low, high = (np.repeat(np.broadcast_to(end, self.channels), np.diff(start)) for end in (low, high))
        return np.clip(_value(bins, _WIDTH // 2), low, high)

    def quantiles(self):
        """Return the function ``quantile(fraction)`` of these histograms."""
        return Quantiles(self)


class Quantiles:
    """Quantiles of each channel as `numpy.quantile` defines them, to within the width of a bin.

    Attributes
    ----------
    count : ndarray of int64, shape (channels,)
        How many values there are.
    """

    def __init__(self, histogram):
        start, _, self.counts = histogram.table
        self.first, self.last = start[:-1], start[1:] - 1
        self.lower, upper = histogram.edges()
        self.width = upper - self.lower
        self.after = np.concatenate([[0], np.cumsum(self.counts)])
        self.count = self.after[start[1:]] - self.after[self.first]

    def __call__(self, fraction):
        """Return the quantile of each channel, float64; `fraction`, from 0 to 1, may be one number or one for each."""
        rank = self.after[self.first] + np.asarray(fraction) * (self.count - 1)
        i = np.clip(np.searchsorted(self.after, rank, side="right") - 1, self.first, self.last)
        return self.lower[i] + self.width[i] * np.minimum((rank - self.after[i] + 0.5) / self.counts[i], 1)


def _from_bin(least, start, bins, counts):
    """Return the table of bins `least` and above."""
    kept = bins >= least
    return np.concatenate([[0], np.cumsum(kept)])[start], bins[kept], counts[kept]


def _value(bins, inside):
    """Return the values that lie `inside` (of `_WIDTH`) bins as seen from 0, where that of bin 0 is 0."""
    bits = np.abs(bins).astype(np.int64)
    bits += _BELOW
    bits *= _WIDTH
    bits += inside
    return np.copysign(bits.view(np.float64), bins) * (bins != 0)
