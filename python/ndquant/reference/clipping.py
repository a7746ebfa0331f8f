"""What the search for a clip range reads and compares, as it is defined: histograms, errors, divergences."""

from __future__ import annotations

import numpy as np


def histogram(x):
    """Return {bin: count} of the finite values.

    Values below 2^-126 in magnitude are in bin 0. Each binade 2^e .. 2^(e+1) above has 512 bins of equal width,
    numbered from 1 at 2^-126 on; those of negative values have the negative numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.histogram(np.array([0.0, 2.0**-126, -(2.0**-126), 1.0, 1.0]))
    {-1: 1, 0: 1, 1: 1, 64513: 2}
    """
    x = np.asarray(x).astype(np.float64).reshape(-1)
    x = x[np.isfinite(x)]
    mantissa, exponent = np.frexp(abs(x))
    number = (exponent + 125) * 512 + np.floor((2 * mantissa - 1) * 512) + 1
    bins = np.where(abs(x) < 2.0**-126, 0, np.copysign(number, x)).astype(np.int64)
    keys, counts = np.unique(bins, return_counts=True)
    return dict(zip(keys.tolist(), counts.tolist(), strict=True))


def clip_error(values, weights, base, scale, levels, p=2.0):
    """Return ``sum weights * |values - y|^p``, where y is the nearest of ``base + scale * k`` for ``k = 0 .. levels``.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> float(reference.clip_error(np.array([-1.0, 0.25, 9.0]), np.ones(3), 0.0, 1.0, 7))
    5.0625
    """
    k = np.clip(np.rint((values - base) / scale), 0, levels)
    return np.sum(weights * abs(values - (base + scale * k)) ** p)


def entropy_divergence(counts, first, end, levels):
    """Return KL(P || Q) of entropy calibration, if bins ``first .. end - 1`` are kept: see `ndquant.entropy`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> float(reference.entropy_divergence(np.array([4.0, 2.0, 1.0, 1.0]), 0, 4, 2)).__round__(4)
    0.0425
    """
    kept = np.asarray(counts, np.float64)[first:end]
    p = kept.copy()
    p[0] += np.sum(counts[:first])
    p[-1] += np.sum(counts[end:])
    q = np.zeros_like(p)
    code = np.arange(len(p)) * levels // len(p)
    for k in range(levels):
        filled = (code == k) & (kept > 0)
        if filled.any():
            q[filled] = kept[code == k].sum() / filled.sum()
    p, q = p / p.sum(), q / q.sum()
    if (q[p > 0] == 0).any():
        return np.inf
    return np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0]))


def cross_entropy(x, y):
    """Return the sum over rows of ``-sum softmax(x) log softmax(y)``.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> float(reference.cross_entropy(np.zeros((1, 2)), np.zeros((1, 2)))).__round__(4)
    0.6931
    """
    return -np.sum(np.exp(_log_softmax(x)) * _log_softmax(y))


def _log_softmax(x):
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))
