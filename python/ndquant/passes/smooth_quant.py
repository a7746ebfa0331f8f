"""SmoothQuant (Xiao et al., 2022, https://arxiv.org/abs/2211.10438)."""

from __future__ import annotations

import numpy as np

from ..graph.inputs import as_inputs
from ..ops.record import finite
from ..workflows.prepare import example_inputs
from ..workflows.ptq import check_batches
from .scaling import foldable_graph, move_factors, pairs, weight_sizes


def smooth_quant(model, batches, *, alpha=0.5):
    """Move the outliers of activations into the weights that read them, where they cost less.

    A channel whose largest activation on the batches is a, and whose largest weight behind it is w, is divided by
    ``a^alpha / w^(1 - alpha)`` in the layer that gives it and multiplied by it in those that read it. What the network
    computes stays the same.

    Parameters
    ----------
    model : Module or Graph
        A float network; it stays as it is.
    batches : iterable
        Each item an array, or a tuple of arrays for several inputs.
    alpha : float, default 0.5
        In [0, 1]: how much of the differences goes into the weights.

    Returns
    -------
    Graph
        Of kind "float", normalizations folded.

    Raises
    ------
    ValueError
        If there is no batch, or an activation is NaN or infinite.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import nn
    >>> model, x = nn.Sequential(nn.Linear(4, 8, rng=0), nn.ReLU(), nn.Linear(8, 2, rng=1)), np.ones((9, 4), np.float32)
    >>> model[0].weight *= np.geomspace(0.01, 100, 8)[:, None]
    >>> graph = nq.passes.smooth_quant(model, [x])
    >>> bool(np.allclose(graph(x), model(x), rtol=1e-5))
    True
    """
    alpha = finite(alpha, "alpha")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], not {alpha}")
    check_batches(batches)
    inputs = [as_inputs(example_inputs(batch)) for batch in batches]
    if not inputs:
        raise ValueError("batches: at least one batch is needed, got none")
    graph = foldable_graph(model, inputs[0])
    sizes = _activation_sizes(graph, inputs)
    for layer, readers in pairs(graph):
        activations, weights = sizes[layer.name].astype(np.float64), weight_sizes(readers).astype(np.float64)
        used = (activations > 0) & (weights > 0)
        factors = np.where(used, activations, 1) ** alpha / np.where(used, weights, 1) ** (1 - alpha)
        move_factors(layer, readers, np.where(used, factors, 1))
    return graph


def _activation_sizes(graph, inputs):
    """Return {layer: largest size of each of its channels}."""
    sizes = {}
    for arrays in inputs:
        values = graph.run(*arrays).values
        for layer, _ in pairs(graph):
            y = np.abs(values[layer.name])
            largest = y.max(axis=tuple(i for i in range(y.ndim) if i != 1), initial=0)
            if not np.isfinite(largest).all():
                raise ValueError(f"batches: an activation of {layer.name!r} is NaN or infinite")
            sizes[layer.name] = np.maximum(sizes.get(layer.name, 0), largest)
    return sizes
