"""Fusing by hand, as PyTorch's eager mode does it."""

from __future__ import annotations

import copy

from ..graph import Graph, Module
from ..graph import fuse as fuse_graph


def fuse(model, chains=None):
    """Return a copy of a network in which normalizations and activations are part of the layers in front of them.

    `prepare` and `prepare_qat` do this by themselves for all that they find, unless the model was fused with a list.

    Parameters
    ----------
    model : Module or Graph
        A float network; it stays as it is.
    chains : list of list of str, optional
        Names of nodes, as printing a graph shows them: each list a layer and what becomes part of it. By default all
        that is found.

    Returns
    -------
    Module or Graph
        As `model` is. A Module checks the names when it is first called.

    Raises
    ------
    ValueError
        If a name is that of no node, or nodes cannot be fused.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import nn
    >>> model = nn.Sequential(nn.Conv2d(3, 3, 1, rng=0), nn.BatchNorm2d(3), nn.ReLU())
    >>> print(nq.fuse(model, [["0", "1", "2"]]).graph(np.zeros((1, 3, 4, 4))))
    Graph (float), output 0
      name   op                      reads  shape             quantizer
      input  input                          (batch, 3, 4, 4)
      0      conv2d+batch_norm+relu  input  (batch, 3, 4, 4)
    """
    if isinstance(model, Graph):
        return fuse_graph(model, chains).copy()
    if not isinstance(model, Module):
        raise TypeError(f"model must be a Module or a Graph, not {type(model).__name__}")
    fused = copy.deepcopy(model)
    fused.fused_chains = "all" if chains is None else [list(chain) for chain in chains]
    return fused
