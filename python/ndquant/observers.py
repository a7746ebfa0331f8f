"""Range estimators: they see arrays, in parts if need be, and give a `QParams`.

All of them merge exactly: observers that saw parts of the data, merged in any order, give what one observer gives that
saw it all.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from . import _core
from .clip_search import HistogramError, RowError, greedy_range, least_error_range, percentile_range
from .entropy import least_entropy_range
from .errors import QuantizationError
from .functional import quantize
from .histogram import Histogram
from .profiles import find_profile
from .qparams import QParams, QuantSpec, check_axis
from .torch_histogram import TorchHistogram

_NONFINITE = ("error", "ignore")
#: Channels whose ranges are searched at a time: this bounds the memory of the search.
_CHANNELS = 512

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


class Observer:
    """What observers share: looking at a batch, numbering it, and the checks.

    Attributes
    ----------
    count : int
        Batches seen.
    """

    def __init__(self, axis=None, profile="default", nonfinite="error", group_size=None):
        check_axis(axis)
        find_profile(profile)
        if group_size is not None:
            axis = QuantSpec(axis=axis, group_size=group_size).axis
        if nonfinite not in _NONFINITE:
            raise ValueError(f"nonfinite: must be one of {', '.join(_NONFINITE)}, got {nonfinite!r}")
        self.axis, self.profile, self.nonfinite, self.group_size = axis, profile, nonfinite, group_size
        self.count = 0
        self.low = self.high = self.dtype = None
        self._next = 0

    def update(self, x, number=None):
        """Take in an array.

        Parameters
        ----------
        x : array_like of float
            Not empty.
        number : int, optional
            The position of this batch in the whole data; by default after the last one seen.

        Returns
        -------
        self
        """
        x = np.asanyarray(x)
        low, high = self._extremes(x)
        number = self._numbered(number)
        self._take(x, low, high, number)
        self.count += 1
        self._next = max(self._next, number + 1)
        dtype = _FLOAT32 if x.dtype.itemsize <= 4 else _FLOAT64
        if self.dtype is None:
            self.dtype = dtype
        elif dtype != self.dtype:
            self.dtype = _FLOAT64
        return self

    def _extremes(self, x):
        """Return the extremes of `x` after all checks."""
        low, high, nans, infs = _core.minmax(x, self.axis, self.group_size)
        if not x.size:
            raise ValueError(f"x: is empty, shape {x.shape}")
        if self.nonfinite == "error" and (nans or infs):
            raise ValueError(
                f'x: has {nans} NaN and {infs} infinite of {x.size} values; nonfinite="ignore" would skip them'
            )
        if self.low is not None and self.low.shape != low.shape:
            raise ValueError(f"x: must have {self.low.size} channels on axis {self.axis} as before, got {low.size}")
        return low, high

    def _numbered(self, number):
        if number is None:
            return self._next
        if isinstance(number, (bool, np.bool_)) or not isinstance(number, (int, np.integer)):
            raise TypeError(f"number: must be an int or None, got {number!r}")
        if number < 0:
            raise ValueError(f"number: must not be negative, got {number}")
        return int(number)

    def _take(self, x, low, high, number):
        """Remember what matters of a batch."""
        self._widen(low, high)

    def _widen(self, low, high):
        if self.low is None:
            self.low, self.high = low, high
        else:
            self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)

    def merge(self, other):
        """Take in all that another observer of the same kind has seen.

        Parameters
        ----------
        other : observer of the same class and settings

        Returns
        -------
        self
        """
        if type(other) is not type(self):
            raise TypeError(f"other: expected a {type(self).__name__}, got {type(other).__name__}")
        if other._settings() != self._settings():
            raise ValueError(f"other: was made with {other._settings()}, this one with {self._settings()}")
        if other.count == 0:
            return self
        if self.low is not None and self.low.shape != other.low.shape:
            raise ValueError(f"other: must have {self.low.size} channels, got {other.low.size}")
        self._take_all(other)
        self.count += other.count
        self._next = max(self._next, other._next)
        self.dtype = other.dtype if self.dtype is None else np.promote_types(self.dtype, other.dtype)
        return self

    def fresh(self, batches=0, rows=0):
        """Return an empty observer with these settings, for what comes after so many more batches, or rows of logits.

        Other processes look at parts of the data with it, which `merge` then puts together.
        """
        other = type(self)(**{name: value for name, value in self._settings().items() if value is not None})
        other._next = self._next + (rows if self.numbers_rows else batches)
        return other

    #: Whether the numbers of `update` are those of rows, not of batches.
    numbers_rows = False

    def _settings(self):
        names = ("axis", "profile", "nonfinite", "group_size")
        return {name: getattr(self, name) for name in names}

    def _take_all(self, other):
        """Remember what another observer does."""
        self._widen(other.low, other.high)

    def range(self, spec):
        """Return the range of values that `qparams` lays the codes of `spec` over.

        Parameters
        ----------
        spec : QuantSpec
            With the axis of this observer.

        Returns
        -------
        low, high : float32 or float64, shape () or (channels,) or that of the groups
        """
        self._check(spec)
        return self._typed(self.low, self.high)

    def _check(self, spec):
        if not isinstance(spec, QuantSpec):
            raise TypeError(f"spec: expected a QuantSpec, got {type(spec).__name__}")
        if spec.axis != self.axis:
            raise ValueError(f"spec: axis must be {self.axis} as this observer's, got {spec.axis}")
        if spec.group_size != self.group_size:
            raise ValueError(f"spec: group_size must be {self.group_size} as this observer's, got {spec.group_size}")
        if self.count == 0:
            raise QuantizationError(f"{type(self).__name__} has seen no data: call update(x) first")
        unseen = () if self.nonfinite == "error" else np.flatnonzero(~np.isfinite(self.low))
        if len(unseen):
            where = f"channel {unseen[0]}" if self.axis is not None else "x"
            raise QuantizationError(f"{type(self).__name__}: {where} had no finite value")

    def _typed(self, low, high):
        """Return the range in the dtype that the data had; it fits, as it lies within the data."""
        return low.astype(self.dtype)[()], high.astype(self.dtype)[()]

    def qparams(self, spec):
        """Return scale and zero point for the data seen.

        Parameters
        ----------
        spec : QuantSpec
            With the axis of this observer.

        Returns
        -------
        QParams
            Its scale is float64 if any data were, else float32.
        """
        return QParams._of_range(*self.range(spec), spec, find_profile(self.profile))

    def __repr__(self):
        return f"{type(self).__name__}(axis={self.axis}, {self.count} batches)"


class MinMaxObserver(Observer):
    """The smallest and the largest value seen.

    Parameters
    ----------
    axis : int, optional
        One range for each index along this axis; None is one for all.
    profile : {"default", "torch", "onnx", "textbook"}, default "default"
    nonfinite : {"error", "ignore"}, default "error"
        What to do with NaN and infinities.
    group_size : int, optional
        One range for each run of so many elements along `axis`, by default along the last one.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> observer = nq.MinMaxObserver()
    >>> for batch in np.array([[-1.0, 3.0], [0.0, 6.35]]):
    ...     observer.update(batch)
    MinMaxObserver(axis=None, 1 batches)
    MinMaxObserver(axis=None, 2 batches)
    >>> observer.qparams(nq.QuantSpec())
    QParams(int8, scale=0.05, zero_point=0)
    """


class MovingAverageMinMaxObserver(Observer):
    """Extremes of the batches, averaged in their order: the first initialises, then ``m += c * (extreme - m)``.

    Keeps two numbers for each batch and channel, so that parts of the data merge exactly.

    Parameters
    ----------
    axis : int, optional
        One range for each index along this axis; None is one for all.
    profile : {"default", "torch", "onnx", "textbook"}, default "default"
    nonfinite : {"error", "ignore"}, default "error"
        What to do with NaN and infinities. A batch, or a channel of it, without a finite value does not count.
    averaging_constant : float, default 0.01
        The weight c of a batch.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> observer = nq.MovingAverageMinMaxObserver(averaging_constant=0.5)
    >>> for batch in np.array([[0.0, 1.0], [0.0, 3.0]]):
    ...     _ = observer.update(batch)
    >>> observer.range(nq.QuantSpec())
    (np.float64(0.0), np.float64(2.0))
    """

    def __init__(self, axis=None, profile="default", nonfinite="error", averaging_constant=0.01):
        super().__init__(axis, profile, nonfinite)
        if not 0 < averaging_constant <= 1:
            raise ValueError(f"averaging_constant: must be above 0 and at most 1, got {averaging_constant}")
        self.averaging_constant = averaging_constant
        self._numbers, self._lows, self._highs = [], [], []
        self._folded, self._running = 0, None
        self._in_one_call = axis is None and nonfinite == "error" and find_profile(profile).is_fast

    def _settings(self):
        return super()._settings() | {"averaging_constant": self.averaging_constant}

    def _take(self, x, low, high, number):
        i = bisect_left(self._numbers, number) if number < self._next else len(self._numbers)
        if i < len(self._numbers) and self._numbers[i] == number:
            raise ValueError(f"number: batch {number} was seen before")
        self._numbers.insert(i, number)
        self._lows.insert(i, low)
        self._highs.insert(i, high)
        if i < self._folded:
            self._folded, self._running = 0, None
        # The extremes of all batches only tell whether there was a finite value.
        if self.low is None or self.nonfinite == "ignore":
            self._widen(low, high)

    def _take_all(self, other):
        both = set(self._numbers) & set(other._numbers)
        if both:
            raise ValueError(f"other: batch {min(both)} was seen by both")
        for number, low, high in zip(other._numbers, other._lows, other._highs, strict=True):
            self._take(None, low, high, number)
            self._next = max(self._next, number + 1)

    def _average(self):
        """Fold in the batches that came since the last call: none or one, if they come in order."""
        kind = self.dtype.type
        if self._running is not None and self._running[0].dtype != self.dtype:
            self._folded, self._running = 0, None
        for low, high in zip(self._lows[self._folded :], self._highs[self._folded :], strict=True):
            seen = (kind(low), kind(high)) if self.axis is None else (low.astype(kind), high.astype(kind))
            self._running = seen if self._running is None else self._step(*self._running, *seen)
        self._folded = len(self._numbers)
        return self._running

    def _step(self, low, high, seen_low, seen_high):
        weight = self.dtype.type(self.averaging_constant)
        if self.nonfinite == "error":
            return low + weight * (seen_low - low), high + weight * (seen_high - high)
        with np.errstate(invalid="ignore"):
            moved = low + weight * (seen_low - low), high + weight * (seen_high - high)
        first, none = ~np.isfinite(low), ~np.isfinite(seen_low)
        pairs = zip(moved, (low, high), (seen_low, seen_high), strict=True)
        return tuple(np.where(first, seen, np.where(none, old, new))[()] for new, old, seen in pairs)

    def update_quantize(self, x, spec):
        """Do what `update`, `qparams` and `quantize` do one after another, for what training sees in a single call.

        Parameters
        ----------
        x : ndarray of float
        spec : QuantSpec

        Returns
        -------
        codes : ndarray of int8 or uint8
        qparams : QParams
        """
        number = self._next
        in_order = number == self._folded == len(self._numbers)
        is_float32 = x.dtype == _FLOAT32 and (self.dtype is None or self.dtype == _FLOAT32)
        if not (in_order and is_float32 and self._in_one_call and spec.axis is None and spec.is_byte_grid):
            return self._update_then_quantize(x, spec)
        low, high = self._running or (None, None)
        rule = find_profile(self.profile).range_rule
        seen_low, seen_high, low, high, scale, zero_point, params, codes = _core.observe_quantize(
            x, low, high, self.averaging_constant, *spec._grid, rule
        )
        self._numbers.append(number)
        self._lows.append(seen_low)
        self._highs.append(seen_high)
        self._running = np.float32(low), np.float32(high)
        self._next = self._folded = self.count = number + 1
        if self.dtype is None:
            self.dtype, self.low, self.high = _FLOAT32, np.float64(seen_low), np.float64(seen_high)
        return codes, QParams._of_core(scale, zero_point, spec, self.profile, params)

    def _update_then_quantize(self, x, spec):
        qparams = self.update(x).qparams(spec)
        return quantize(x, qparams), qparams

    def range(self, spec):
        """Return the averaged range; see `MinMaxObserver.range`."""
        self._check(spec)
        return self._average()


class HistogramObserver(Observer):
    """All values, counted in fixed bins: every method that looks at single values reads this one histogram.

    Bins have a relative width of 2^-9, so results are those of the data to within that.

    In profile "torch", unless there is an axis, PyTorch's histogram is kept besides, for the method "l2": to the bit
    that of its HistogramObserver. Its bins move as the range grows; so it depends on the order of the batches, and
    `merge` raises.

    Parameters
    ----------
    axis : int, optional
        One range for each index along this axis; None is one for all.
    profile : {"default", "torch", "onnx", "textbook"}, default "default"
    nonfinite : {"error", "ignore"}, default "error"
        What to do with NaN and infinities.
    group_size : int, optional
        One range for each run of so many elements along `axis`, by default along the last one.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> x = np.random.default_rng(0).standard_normal(10000).astype(np.float32)
    >>> observer = nq.HistogramObserver().update(x)
    >>> spec = nq.QuantSpec(bits=4)
    >>> for method in ("minmax", "percentile", "mse", "l2", "entropy"):
    ...     low, high = observer.range(spec, method=method, percentile=99)
    ...     print(f"{method:10} {low:.1f} {high:.1f}")
    minmax     -3.9 3.5
    percentile -2.6 2.6
    mse        -2.3 2.3
    l2         -2.3 2.0
    entropy    -3.4 3.4
    """

    #: What `range` and `qparams` take.
    methods = ("mse", "l2", "entropy", "percentile", "minmax")

    def __init__(self, axis=None, profile="default", nonfinite="error", group_size=None):
        super().__init__(axis, profile, nonfinite, group_size)
        self._histogram = Histogram()
        self._torch = TorchHistogram() if profile == "torch" and axis is None else None

    def _take(self, x, low, high, number):
        if self._torch and low <= high:
            self._torch.add(x if self.nonfinite == "error" else x[np.isfinite(x)], low, high)
        self._widen(low, high)
        self._histogram.add(x, self.axis, self.group_size)

    def _take_all(self, other):
        if self._torch:
            raise QuantizationError(
                "other: PyTorch's histogram depends on the order of batches, so in profile 'torch' it cannot merge"
            )
        self._widen(other.low, other.high)
        self._histogram.merge(other._histogram)

    def range(self, spec, method=None, percentile=99.99, p=2.0):
        """Return the range of values that `qparams` lays the codes of `spec` over.

        Parameters
        ----------
        spec : QuantSpec
            With the axis of this observer.
        method : {"mse", "l2", "entropy", "percentile", "minmax"}, optional
            See `choose_qparams`; by default "mse", but "l2" where PyTorch's histogram is kept.
        percentile : float, default 99.99
            For the method of that name.
        p : float, default 2
            For the method "mse".

        Returns
        -------
        low, high : float32 or float64, shape () or (channels,) or that of the groups
        """
        self._check(spec)
        method = method or ("l2" if self._torch else "mse")
        if method not in self.methods:
            raise ValueError(f"method: must be one of {', '.join(self.methods)}, got {method!r}")
        if not 50 <= percentile <= 100:
            raise ValueError(f"percentile: must be 50 to 100, got {percentile}")
        if not 0 < p < np.inf:
            raise ValueError(f"p: must be positive and finite, got {p}")
        low, high = self._typed(self.low, self.high)
        if method == "minmax":
            return low, high
        if method == "l2" and self._torch:
            # PyTorch lays as many codes over the range as the dtype has, whatever the bits.
            return self._typed(*self._torch.range(2 ** (8 * spec.dtype.itemsize)))
        ends = np.reshape(low, -1), np.reshape(high, -1)
        found = [self._range_of(c, *ends, spec, method, percentile, p) for c in range(0, ends[0].size, _CHANNELS)]
        return tuple(np.concatenate(end).reshape(low.shape)[()] for end in zip(*found, strict=True))

    def _range_of(self, first, low, high, spec, method, percentile, p):
        """Return the range of some of the channels."""
        low, high = low[first : first + _CHANNELS], high[first : first + _CHANNELS]
        histogram = self._histogram.channel_slice(first, first + low.size)
        if method == "percentile":
            return percentile_range(histogram, low, high, percentile / 100, spec.symmetric)
        if method == "entropy":
            return least_entropy_range(histogram, low, high, spec)
        profile = find_profile(self.profile)
        if method == "l2":
            return self._greedy_ranges(histogram, low, high, spec, profile)
        middle = 0 if _holds_zero(spec, profile) else histogram.quantiles()(0.5)
        error = HistogramError(histogram, low, high, spec, profile, p)
        return least_error_range(error, low, high, np.clip(middle, low, high), spec.symmetric)

    @staticmethod
    def _greedy_ranges(histogram, low, high, spec, profile):
        ranges = []
        for c in range(low.size):
            part, ends = histogram.channel_slice(c, c + 1), (low[c : c + 1], high[c : c + 1])
            ranges.append(greedy_range(HistogramError(part, *ends, spec, profile, 2.0), part.quantiles(), *ends))
        return tuple(np.concatenate(end) for end in zip(*ranges, strict=True))

    def qparams(self, spec, method=None, percentile=99.99, p=2.0):
        """Return scale and zero point for the data seen; for the arguments see `range`.

        Returns
        -------
        QParams
            Its scale is float64 if any data were, else float32.
        """
        return QParams._of_range(*self.range(spec, method, percentile, p), spec, find_profile(self.profile))


class RowObserver(Observer):
    """A sample of rows of logits, for the range that changes their softmax least.

    The cross-entropy of ``softmax(x)`` against ``softmax(fake_quantize(x))`` couples the values of a row, so that no
    histogram can serve it. What is kept are the 4,096 rows whose numbers have the smallest hashes: a random sample that
    does not depend on how the data are split, or in what order the parts come.

    Parameters
    ----------
    axis : None
        The values of a row share one scale.
    profile : {"default", "torch", "onnx", "textbook"}, default "default"
    nonfinite : {"error", "ignore"}, default "error"
        What to do with NaN and infinities: "ignore" skips the rows that hold any.
    seed : int, default 0
        Another seed, another sample.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> logits = np.random.default_rng(0).standard_normal((1000, 10)) * 4
    >>> logits[:, 0] -= 50
    >>> observer = nq.RowObserver().update(logits[:500]).update(logits[500:])
    >>> low, high = observer.range(nq.QuantSpec(bits=4, symmetric=False))
    >>> print(f"{logits.min():.1f} {logits.max():.1f}, kept: {low:.1f} {high:.1f}")
    -62.5 13.9, kept: -6.1 8.9
    """

    #: How many rows are kept.
    capacity = 4096
    numbers_rows = True

    def __init__(self, axis=None, profile="default", nonfinite="error", seed=0):
        if axis is not None:
            raise ValueError(f"axis: must be None, as a softmax couples the values of a row, got {axis!r}")
        if isinstance(seed, (bool, np.bool_)) or not isinstance(seed, (int, np.integer)):
            raise TypeError(f"seed: must be an int, got {seed!r}")
        super().__init__(axis, profile, nonfinite)
        self.seed = int(seed)
        self._hashes, self._rows = np.zeros(0, np.uint64), None

    def _settings(self):
        return super()._settings() | {"seed": self.seed}

    def update(self, x, number=None):
        """Take in rows of logits.

        Parameters
        ----------
        x : array_like of float, shape (..., classes)
            Not empty.
        number : int, optional
            The position of the first row in the whole data; by default after the last row seen.

        Returns
        -------
        self
        """
        return super().update(x, number)

    def _extremes(self, x):
        """Return the extremes of the rows that count, after all checks."""
        extremes = super()._extremes(x)
        if x.ndim == 0:
            raise ValueError("x: must be rows of logits, got a single number")
        if self._rows is not None and self._rows.shape[1] != x.shape[-1]:
            raise ValueError(f"x: must have {self._rows.shape[1]} classes as before, got {x.shape[-1]}")
        rows, good = _finite_rows(x)
        if good.all():
            return extremes
        return super()._extremes(rows[good]) if good.any() else (np.float64(np.inf), np.float64(-np.inf))

    def _take(self, x, low, high, number):
        rows, good = _finite_rows(x)
        numbers = np.arange(len(rows), dtype=np.uint64) + np.uint64(number % 2**64)
        self._sample(
            _hashes(numbers, self.seed)[good], rows[good].astype(np.float64), "number: this batch has rows that were"
        )
        self._widen(low, high)
        self._next = max(self._next, number + len(rows))

    def _take_all(self, other):
        self._sample(other._hashes, other._rows, "other: has rows that were")
        self._widen(other.low, other.high)

    def _sample(self, hashes, rows, twice):
        """Keep those of these rows, and of the ones kept so far, that have the smallest hashes, in their order."""
        if self._rows is not None:
            if rows.shape[1] != self._rows.shape[1]:
                raise ValueError(f"other: must have {self._rows.shape[1]} classes, got {rows.shape[1]}")
            hashes, rows = np.concatenate([self._hashes, hashes]), np.concatenate([self._rows, rows])
        kept = np.argsort(hashes, kind="stable")[: self.capacity]
        if (np.diff(hashes[kept]) == 0).any():
            raise ValueError(f"{twice} seen before: rows are known by their numbers")
        self._hashes, self._rows = hashes[kept], rows[kept]

    def range(self, spec):
        """Return the range with the least cross-entropy over the sample; see `MinMaxObserver.range`."""
        self._check(spec)
        low, high = (np.reshape(end, 1) for end in self._typed(self.low, self.high))
        profile = find_profile(self.profile)
        middle = 0 if _holds_zero(spec, profile) else np.median(self._rows)
        error = RowError(self._rows, spec, profile)
        low, high = least_error_range(error, low, high, np.clip(middle, low, high), spec.symmetric)
        return low[0], high[0]


def _finite_rows(x):
    """Return the rows of `x`, and which of them hold finite values only."""
    rows = x.reshape(-1, x.shape[-1])
    return rows, np.isfinite(rows).all(axis=1)


def _hashes(numbers, seed):
    """Return a hash of each number, different ones for different numbers.

    It is the output function of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
    2014).
    """
    z = numbers + np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return z ^ (z >> np.uint64(31))


def _holds_zero(spec, profile):
    """Whether ranges hold 0 whatever the data are."""
    return spec.zero_aligned and not profile.any_zero_point


def choose_qparams(x, spec, method="minmax", profile="default", nonfinite="error", percentile=99.99, p=2.0):
    """Return scale and zero point for one array: an observer that saw it.

    Parameters
    ----------
    x : array_like of float
        Not empty.
    spec : QuantSpec
        Per channel if it has an axis, per group if it has a group size.
    method : {"minmax", "percentile", "mse", "l2", "entropy", "cross_entropy"}, default "minmax"
        How the range is chosen:

        - "minmax": the extremes.
        - "percentile": what leaves the same part of the values out at both ends; of magnitudes if `spec` is symmetric.
        - "mse": the range with the least ``sum |x - fake_quantize(x)|^p``, found by trying many.
        - "l2": from the extremes inwards, a hundred-thousandth of the values at a time, as long as the squared error
          falls: PyTorch's search, which ends at the first minimum that it meets. In profile "torch" it reads PyTorch's
          own histogram, too, unless `spec` has an axis.
        - "entropy": the threshold that keeps most of the information, as TensorRT's calibration defines it.
        - "cross_entropy": `x` is rows of logits; the range that changes their softmax least. See `RowObserver`.
    profile : {"default", "torch", "onnx", "textbook"}, default "default"
    nonfinite : {"error", "ignore"}, default "error"
        What to do with NaN and infinities.
    percentile : float, default 99.99
        From 50 to 100: how much lies below the upper end, and above the lower end.
    p : float, default 2
        The power of the error that "mse" minimises; 2.4 weighs large errors more, as BRECQ (Li et al., 2021) does.

    Returns
    -------
    QParams
        Its scale has the dtype of `x`, but float32 for float16 data.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> nq.choose_qparams(np.array([-1.0, 6.35]), nq.QuantSpec())
    QParams(int8, scale=0.05, zero_point=0)
    """
    if not isinstance(spec, QuantSpec):
        raise TypeError(f"spec: expected a QuantSpec, got {type(spec).__name__}")
    if method == "cross_entropy":
        return RowObserver(spec.axis, profile, nonfinite).update(x).qparams(spec)
    settings = spec.axis, profile, nonfinite, spec.group_size
    if method == "minmax":
        return MinMaxObserver(*settings).update(x).qparams(spec)
    if method not in HistogramObserver.methods:
        known = (*HistogramObserver.methods, "cross_entropy")
        raise ValueError(f"method: must be one of {', '.join(known)}, got {method!r}")
    return HistogramObserver(*settings).update(x).qparams(spec, method, percentile, p)
