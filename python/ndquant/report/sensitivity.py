"""Which layer hurts: the error of the output when one layer alone is quantized."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..metrics import sqnr
from ..tables import html_table, text_table
from ..workflows.prepare import example_inputs
from ..workflows.ptq import calibrate, check_batches, prepare, saying_what_batches_are
from .axes import new_axes


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
        ax = new_axes() if ax is None else ax
        ax.barh(list(self.layers), list(self.layers.values()))
        ax.axvline(self.together, linestyle="--", label="all together")
        ax.set_xlabel("SQNR of the output, dB")
        ax.legend()
        return ax


def sensitivity(model, batches, qconfig="int8"):
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
        prepared = calibrate(prepare(model, batches[0], qconfig), batches)
    parts = {node.name: _quantizers_of(prepared, node) for node in prepared.nodes}
    everything = [quantizer for _, quantizer in prepared.quantizers()]
    for quantizer in everything:
        quantizer.freeze()
    truth = _outputs(prepared, batches, everything, on=())
    found = {
        name: sqnr(truth, _outputs(prepared, batches, everything, on=quantizers))
        for name, quantizers in parts.items()
        if quantizers
    }
    together = sqnr(truth, _outputs(prepared, batches, everything, on=everything))
    return Sensitivity(dict(sorted(found.items(), key=lambda item: item[1])), together)


def _quantizers_of(graph, node):
    """Return the quantizers of a node's weights and of what it reads; none for nodes that only pass codes on."""
    if node.keeps_codes or node.quantizer is not None:
        return []
    found = [] if node.weight_quantizer is None else [node.weight_quantizer]
    for name in node.inputs:
        source = graph.find(name)
        while source is not None and source.keeps_codes:
            source = graph.find(source.inputs[0])
        if source is not None and source.quantizer is not None:
            found.append(source.quantizer)
    return found


def _outputs(graph, batches, everything, on):
    """Run all batches with some quantizers on and the others off."""
    for quantizer in everything:
        quantizer.state = "frozen" if any(quantizer is other for other in on) else "off"
    return np.concatenate([_flat(graph(*inputs)) for inputs in batches])


def _flat(outputs):
    """Return one row for each example, of all outputs."""
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return np.concatenate([y.reshape(len(y), -1) for y in outputs], axis=1)
