"""Cross-layer equalization (Nagel et al., 2019, https://arxiv.org/abs/1906.04721, section 4.1)."""

from __future__ import annotations

import numpy as np

from ..ops.record import whole_number
from .scaling import foldable_graph, move_factors, pairs, weight_sizes


def equalize(model, example, *, rounds=20):
    """Give the channels between two layers weights of one size in both, so that one scale per array serves them.

    A channel whose largest weight is r1 in the layer that gives it and r2 in those that read it is divided by
    ``sqrt(r1 / r2)`` in the first and multiplied by it in the others; a ReLU between them lets that pass. What the
    network computes stays the same.

    Parameters
    ----------
    model : Module or Graph
        A float network; it stays as it is.
    example : ndarray or tuple of ndarray
        Input(s) of the network; only the shape counts.
    rounds : int, default 20
        How often all pairs are visited: a layer can be second in one and first in another.

    Returns
    -------
    Graph
        Of kind "float", normalizations folded.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import nn
    >>> model, x = nn.Sequential(nn.Linear(4, 8, rng=0), nn.ReLU(), nn.Linear(8, 2, rng=1)), np.ones((1, 4))
    >>> model[0].weight *= np.geomspace(0.01, 100, 8)[:, None]
    >>> graph = nq.passes.equalize(model, x)
    >>> bool(np.allclose(abs(graph["0"].weight).max(axis=1), abs(graph["2"].weight).max(axis=0)))
    True
    """
    graph = foldable_graph(model, example)
    found = pairs(graph)
    for _ in range(whole_number(rounds, "rounds", least=1)):
        for layer, readers in found:
            first = np.abs(layer.weight.reshape(len(layer.weight), -1)).max(axis=1, initial=0)
            second = weight_sizes(readers)
            used = (first > 0) & (second > 0)
            factors = np.sqrt(np.divide(first, second, out=np.ones_like(first), where=used))
            move_factors(layer, readers, factors)
    return graph
