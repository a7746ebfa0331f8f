"""Which layer hurts: the error of the output when one layer alone is quantized."""

from __future__ import annotations

import pickle
from dataclasses import dataclass

import numpy as np

from ..metrics import sqnr
from ..tables import html_table, text_table
from ..workflows.executors import spread
from ..workflows.prepare import example_inputs
from ..workflows.ptq import calibrate, check_batches, prepare, saying_what_batches_are
from .axes import MARK, QUANTIZED, new_axes


@dataclass(frozen=True)
class Sensitivity:
    """SQNR of a network's output for each layer quantized alone; printing it gives a table, the worst layer first.

    Attributes
    ----------
    layers : dict of str to float
        {layer: SQNR in dB}, the worst first.
    together : float
        SQNR with all of them quantized.
    """

    layers: dict
    together: float

    def _cells(self):
        named = [*self.layers.items(), ("all together", self.together)]
        return [(name, f"{value:.1f} dB") for name, value in named]

    def __str__(self):
        return text_table(("quantized", "SQNR output"), self._cells())

    def __repr__(self):
        return str(self)

    def _repr_html_(self):
        return html_table(("quantized", "SQNR output"), self._cells())

    def plot(self, ax=None):
        """Plot the SQNR of each layer as a bar.

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
        ax = new_axes(height=0.25 * len(self.layers)) if ax is None else ax
        ax.barh(list(self.layers), list(self.layers.values()), color=QUANTIZED)
        ax.axvline(self.together, color=MARK, linestyle="--", label="all together")
        ax.set_ylim(len(self.layers) - 0.5, -0.5)  # the worst on top, as in the table
        ax.set_xlabel("SQNR of the output, dB")
        ax.legend()
        return ax


def sensitivity(model, batches, qconfig="int8", *, executor=None):
    """Quantize one layer at a time and measure the output against that of the float network.

    A layer is quantized with its weights and all that it reads; everything else stays float.

    Parameters
    ----------
    model : Module or Graph
        A float network; it stays as it is.
    batches : iterable
        Each item an array, or a tuple of arrays for several inputs: for calibration, and to measure on.
    qconfig : str or QConfig, default "int8"
        See `prepare`.
    executor : object with ``submit`` or ``map``, optional
        Runs the batches elsewhere, with the same result; see `calibrate`.

    Returns
    -------
    Sensitivity

    Raises
    ------
    ValueError
        If there is no batch.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import nn
    >>> model = nn.Sequential(nn.Linear(4, 8, rng=0), nn.ReLU(), nn.Linear(8, 2, rng=1))
    >>> x = np.random.default_rng(0).standard_normal((32, 4))
    >>> found = nq.sensitivity(model, [x], "int4")
    >>> sorted(found.layers)
    ['0', '2']
    """
    check_batches(batches)
    given, batches = batches, [example_inputs(batch) for batch in batches]
    if not batches:
        raise ValueError("batches: at least one batch is needed, got none")
    with saying_what_batches_are(given):
        prepared = calibrate(prepare(model, batches[0], qconfig), batches, executor=executor)
    for _, quantizer in prepared.quantizers():
        quantizer.freeze()
    variants = _variants(prepared)
    if executor is None:
        found = [_outputs(prepared, variants, inputs) for inputs in batches]
    else:
        sent = pickle.dumps(prepared)
        found = list(spread(executor, _outputs_elsewhere, ((sent, variants, inputs) for inputs in batches)))
    truth, together, *rest = (np.concatenate(parts) for parts in zip(*found, strict=True))
    layers = dict(zip(list(variants)[2:], (sqnr(truth, y) for y in rest), strict=True))
    return Sensitivity(dict(sorted(layers.items(), key=lambda item: item[1])), sqnr(truth, together))


def _variants(graph):
    """Return the names of the quantizers that are on: none, all of them, and for each layer those of it alone."""
    variants = {"": [], "all together": [name for name, _ in graph.quantizers()]}
    for node in graph.nodes:
        if not node.keeps_codes and node.quantizer is None and (names := _quantizers_of(graph, node)):
            variants[node.name] = names
    return variants


def _quantizers_of(graph, node):
    """Return the names of the quantizers of a node's weights and of what it reads."""
    found = [] if node.weight_quantizer is None else [f"{node.name}.weight"]
    for name in node.inputs:
        source = graph.find(name)
        while source is not None and source.keeps_codes:
            source = graph.find(source.inputs[0])
        if source is not None and source.quantizer is not None:
            found.append(source.name)
    return found


def _outputs(graph, variants, inputs):
    """Run a batch with some quantizers on and the others off, for each variant."""
    quantizers, outputs = dict(graph.quantizers()), []
    for on in variants.values():
        for name, quantizer in quantizers.items():
            quantizer.state = "frozen" if name in on else "off"
        outputs.append(_flat(graph(*inputs)))
    return outputs


def _outputs_elsewhere(graph, variants, inputs):
    return _outputs(pickle.loads(graph), variants, inputs)


def _flat(outputs):
    """Return one row for each example, of all outputs."""
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return np.concatenate([y.reshape(len(y), -1) for y in outputs], axis=1)
