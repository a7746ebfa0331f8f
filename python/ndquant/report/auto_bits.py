"""Mixed precision: how many bits the weights of each layer get."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np

from ..graph.inputs import as_inputs
from ..metrics import sqnr as sqnr_of
from ..passes.scaling import foldable_graph
from ..tables import html_table, text_table
from ..workflows.prepare import example_inputs
from ..workflows.ptq import calibrate, check_batches, convert, prepare
from ..workflows.qconfig import QConfig, find_config, resolve_overrides
from .axes import FLOAT, MARK, new_axes
from .sensitivity import sensitivity


@dataclass(frozen=True)
class Choice:
    """One point of the curve.

    Attributes
    ----------
    bits : dict of str to int
        {layer: bits of its weights}.
    size : int
        Bytes of all their codes.
    sqnr : float
        Of the output in dB, as the sum of what the layers do alone predicts it.
    """

    bits: dict
    size: int
    sqnr: float


@dataclass(frozen=True)
class AutoBits:
    """What `auto_bits` chose; printing it gives a table.

    Attributes
    ----------
    chosen : Choice
    sqnr : float
        What the network quantized like this has on the batches, in dB.
    qconfig : QConfig
        For `prepare`, `quantize_static` or `prepare_qat`.
    curve : tuple of Choice
        From the most bits to the fewest.
    """

    chosen: Choice
    sqnr: float
    qconfig: QConfig
    curve: tuple

    def _cells(self):
        cells = [(name, str(bits), "") for name, bits in self.chosen.bits.items()]
        return [*cells, ("all together", f"{self.chosen.size:,} bytes", f"{self.sqnr:.1f} dB")]

    def __str__(self):
        return text_table(("layer", "bits", "SQNR output"), self._cells())

    def __repr__(self):
        return str(self)

    def _repr_html_(self):
        return html_table(("layer", "bits", "SQNR output"), self._cells())

    def plot(self, ax=None):
        """Plot the predicted SQNR of the output against the size of the weights, in bytes and in bits per weight.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default new ones.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = new_axes() if ax is None else ax
        sizes, decibels = zip(*[(point.size, point.sqnr) for point in self.curve], strict=True)
        ax.plot(sizes, decibels, ".-", color=FLOAT, label="predicted")
        ax.plot([self.chosen.size], [self.sqnr], "o", color=MARK, label="chosen, measured")
        ax.set_xlabel("bytes of weights")
        ax.locator_params(axis="x", nbins=6)
        ax.xaxis.set_major_formatter("{x:,.0f}")
        weights = 8 * sizes[0] / max(self.curve[0].bits.values())
        above = ax.secondary_xaxis("top", functions=(lambda size: 8 * size / weights, lambda bits: bits * weights / 8))
        above.set_xlabel("bits per weight, on average")
        ax.set_ylabel("SQNR of the output, dB")
        ax.legend()
        return ax


def auto_bits(model, batches, *, size=None, sqnr=None, choices=(8, 4, 2), qconfig="int8"):
    """Choose the bits of each layer's weights, for a size that must not be passed or an SQNR that must be reached.

    The error that each layer causes alone is measured for every number of bits, see `sensitivity`. All layers begin
    with the most bits; then, one step at a time, the layer goes down for which the least noise is added for each byte
    saved, as if the errors of layers simply added up.

    Parameters
    ----------
    model : Module or Graph
        A float network; it stays as it is.
    batches : iterable
        Each item an array, or a tuple of arrays for several inputs: for calibration, and to measure on.
    size : int, optional
        The most bytes that the codes of all weights may take.
    sqnr : float, optional
        The least SQNR of the output in dB, measured on the batches. Either `size` or `sqnr` is given.
    choices : tuple of int, default (8, 4, 2)
        Bits to choose from.
    qconfig : str or QConfig, default "int8"
        Everything but the bits of weights; a layer that it keeps in float is left out.

    Returns
    -------
    AutoBits

    Raises
    ------
    ValueError
        If not exactly one of `size` and `sqnr` is given, or no choice of bits satisfies it: the error names what does.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import nn
    >>> model = nn.Sequential(nn.Linear(16, 32, rng=0), nn.ReLU(), nn.Linear(32, 4, rng=1))
    >>> x = np.random.default_rng(0).standard_normal((200, 16))
    >>> found = nq.auto_bits(model, [x], size=400)
    >>> found.chosen.bits, found.chosen.size
    ({'0': 4, '2': 8}, 384)
    >>> nq.quantize_static(model, [x], found.qconfig).integers("0")["weight"].max()
    np.int8(7)
    """
    if (size is None) == (sqnr is None):
        raise ValueError("give either size, in bytes, or sqnr, in dB")
    check_batches(batches)
    batches = [example_inputs(batch) for batch in batches]
    if not batches:
        raise ValueError("batches: at least one batch is needed, got none")
    choices = _checked_choices(choices)
    graph, config = foldable_graph(model, batches[0]), find_config(qconfig, training=False)
    layers = {name: c for name, c in resolve_overrides(config, graph).items() if c and graph[name].op.quantizes_weight}
    counts = {name: graph[name].weight.size for name in layers}
    noise = {b: _noise(graph, batches, _with_bits(config, layers, dict.fromkeys(layers, b))) for b in choices}
    curve = _curve(counts, noise, choices)
    if size is not None:
        chosen = next((point for point in curve if point.size <= size), None)
        if chosen is None:
            raise ValueError(f"size: {curve[-1].size} bytes is the least that {choices} bits give, not {size}")
        found = _with_bits(config, layers, chosen.bits)
        return AutoBits(chosen, _measured(graph, batches, found), found, curve)
    for chosen in reversed([point for point in curve if point is curve[0] or point.sqnr >= sqnr]):
        found = _with_bits(config, layers, chosen.bits)
        reached = _measured(graph, batches, found)
        if reached >= sqnr:
            return AutoBits(chosen, reached, found, curve)
    raise ValueError(f"sqnr: {reached:.1f} dB is what {choices[0]} bits in all layers reach, not {sqnr}")


def _checked_choices(choices):
    found = tuple(sorted(set(choices), reverse=True))
    if not found or not all(isinstance(bits, int) and 2 <= bits <= 8 for bits in found):
        raise ValueError(f"choices must be numbers of bits from 2 to 8, not {choices!r}")
    return found


def _with_bits(config, layers, bits):
    """Return the configuration with these bits for the weights of layers, whose own configurations are `layers`."""
    overrides = dict(config.overrides)
    for name, own in layers.items():
        weight = replace(own.weight, spec=replace(own.weight.spec, bits=bits[name]))
        overrides[name] = replace(own, weight=weight, overrides={}, first_last=None)
    return replace(config, overrides=overrides)


def _noise(graph, batches, config):
    """Return {layer: power of its noise in the output, with that of the signal as 1}."""
    return {name: 10 ** (-decibels / 10) for name, decibels in sensitivity(graph, batches, config).layers.items()}


def _curve(counts, noise, choices):
    """Lower the bits of one layer after the other and return every state passed."""
    bits = dict.fromkeys(counts, choices[0])
    below = dict(zip(choices, choices[1:], strict=False))
    curve = [_choice(bits, counts, noise)]
    while prices := {name: _price(name, b, below[b], counts, noise) for name, b in bits.items() if b in below}:
        name = min(prices, key=prices.get)
        bits = {**bits, name: below[bits[name]]}
        curve.append(_choice(bits, counts, noise))
    return tuple(curve)


def _price(name, bits, fewer, counts, noise):
    """Return the noise that a layer adds for each bit saved."""
    return (noise[fewer][name] - noise[bits][name]) / (max(counts[name], 1) * (bits - fewer))


def _choice(bits, counts, noise):
    # Not sum(): from Python 3.12 on it compensates rounding.
    total = reduce(add, (noise[b][name] for name, b in bits.items()), 0.0)
    size = sum(-(-counts[name] * b // 8) for name, b in bits.items())
    return Choice(bits, size, float(-10 * np.log10(total)) if total else float("inf"))


def _measured(graph, batches, config):
    quantized = convert(calibrate(prepare(graph, batches[0], config), batches))
    pairs = [(graph(*x), quantized(*x)) for x in (as_inputs(batch) for batch in batches)]
    return sqnr_of(*(np.concatenate(side) for side in zip(*pairs, strict=True)))
