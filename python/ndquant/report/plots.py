"""Pictures of arrays and their grids. Each function draws into the axes that it is given, and returns them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..functional import fake_quantize
from ..metrics import quantization_error
from ..observers import choose_qparams
from .axes import FLOAT, LINES, MARK, QUANTIZED, new_axes

#: Columns between two heat maps.
_GAP = 2

#: Height of a distribution's axes, in that of its highest bar: the legend stands above.
_ROOM = 1.45


def plot_distribution(x, qparams, ax=None, bins=64):
    """Draw the distribution of an array, that of its quantized values, and the ends of the range.

    Parameters
    ----------
    x : array_like of float
    qparams : QParams
        Of the whole array: with one scale.
    ax : matplotlib Axes, optional
        By default new ones.
    bins : int, default 64
        Of the histogram of `x`.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant.report import plot_distribution
    >>> x = np.random.default_rng(0).standard_normal(1000)
    >>> ax = plot_distribution(x, nq.choose_qparams(x, nq.QuantSpec(bits=4)))  # doctest: +SKIP
    """
    _check_scalar(qparams)
    x = np.asarray(x).ravel()
    ax = new_axes() if ax is None else ax
    step = float(qparams.scale)
    levels, counts = np.unique(fake_quantize(x, qparams), return_counts=True)
    label = f"quantized: {len(levels)} of {2**qparams.spec.bits} levels"
    ax.bar(levels, counts / (x.size * step), width=0.8 * step, color=QUANTIZED, label=label)
    ax.hist(x, bins=bins, density=True, histtype="step", linewidth=1.5, color=FLOAT, label="float")
    for end, label in zip(qparams.range, ("range of the codes", None), strict=True):
        ax.axvline(float(end), color=MARK, linestyle="--", label=label)
    ax.set(xlabel="value", ylabel="density", ylim=(0, _ROOM * ax.get_ylim()[1]))
    ax.legend(loc="upper right", fontsize="small")
    return ax


def plot_weights(w, qparams, ax=None):
    """Draw an array of weights before quantization and after it, side by side in the same shades.

    Parameters
    ----------
    w : array_like of float, shape (rows, columns)
    qparams : QParams
    ax : matplotlib Axes, optional
        By default new ones.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant.report import plot_weights
    >>> w = np.random.default_rng(0).standard_normal((8, 16))
    >>> ax = plot_weights(w, nq.choose_qparams(w, nq.QuantSpec(bits=2)))  # doctest: +SKIP
    """
    w = np.asarray(w)
    if w.ndim != 2:
        raise ValueError(f"w: must be rows and columns, got shape {w.shape}")
    ax = new_axes() if ax is None else ax
    gap = np.full((len(w), _GAP), np.nan)
    reach = float(np.abs(w).max(initial=0))
    both = np.concatenate([w, gap, fake_quantize(w, qparams)], axis=1)
    image = ax.imshow(both, cmap="gray", vmin=-reach, vmax=reach, aspect="auto", interpolation="nearest")
    ax.figure.colorbar(image, ax=ax)
    middle = (w.shape[1] - 1) / 2
    ax.set_xticks([middle, middle + w.shape[1] + _GAP], ["before", f"after, {qparams.spec.bits} bits"])
    ax.set_ylabel("row")
    return ax


def plot_bits(x, spec, method="minmax", bits=range(2, 9), ax=None):
    """Draw the signal to noise ratio of an array against the number of bits.

    Parameters
    ----------
    x : array_like of float
    spec : QuantSpec
        Its number of bits does not count.
    method : str or sequence of str, default "minmax"
        Of `choose_qparams`; a line each, for up to 6.
    bits : sequence of int, default 2 to 8
    ax : matplotlib Axes, optional
        By default new ones.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant.report import plot_bits
    >>> x = np.random.default_rng(0).standard_normal(1000)
    >>> ax = plot_bits(x, nq.QuantSpec(), ["minmax", "mse"])  # doctest: +SKIP
    """
    ax = new_axes() if ax is None else ax
    bits, methods = list(bits), [method] if isinstance(method, str) else method
    for name, (color, style) in zip(methods, LINES, strict=False):
        found = [choose_qparams(x, replace(spec, bits=b), method=name) for b in bits]
        decibels = [quantization_error(x, qp).sqnr for qp in found]
        ax.plot(bits, decibels, style, color=color, markerfacecolor="none", label=name)
    ax.set(xlabel="bits", ylabel="SQNR, dB", xticks=bits)
    ax.legend()
    return ax


def _check_scalar(qparams):
    if qparams.spec.axis is not None:
        raise ValueError(f"qparams: must have one scale, axis=None, got axis={qparams.spec.axis}")
