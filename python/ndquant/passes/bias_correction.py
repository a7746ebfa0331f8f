"""Bias correction (Nagel et al., 2019, https://arxiv.org/abs/1906.04721, section 4.2)."""

from __future__ import annotations

import numpy as np

from .layers import original_weight, refine_layers, rounded_weight, set_bias


def correct_bias(prepared, batches, *, inherited=False):
    """Move the bias of every layer so that rounding does not shift the means of its outputs.

    Rounding the weights and what they meet shifts the mean of an output by ``E[w_q q(x)] - E[w x]``, x what the layer
    reads in the float network. That is measured on the batches and subtracted from the bias. What remains is the
    rounding of the bias to integers, at most half of ``scale of the input * scale of the weight``.

    Parameters
    ----------
    prepared : Graph
        Of `prepare` after `calibrate`; it stays as it is.
    batches : iterable
        Each item an array, or a tuple of arrays for several inputs.
    inherited : bool, default False
        Correct the shifts that come from layers in front, too: what the layer reads in the quantized network, whose
        layers in front are corrected already, takes the place of q(x). Means of whole networks are then those of the
        float network; but where activations are sparse, what shifts them is noise between the peaks, and peaks shrink
        when it is taken off everywhere.

    Returns
    -------
    Graph
        Of kind "prepared". A layer that had no bias has one.

    Raises
    ------
    QuantizationError
        If the graph is not of `prepare`, or has not been calibrated.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import nn
    >>> model = nn.Sequential(nn.Linear(64, 8, rng=0))
    >>> x = np.random.default_rng(0).standard_normal((500, 64)) + 1
    >>> prepared = nq.calibrate(nq.prepare(model, x, "int4"), [x])
    >>> corrected = nq.passes.correct_bias(prepared, [x])
    >>> shifts = [abs((nq.convert(graph)(x) - model(x)).mean(axis=0)).max() for graph in (prepared, corrected)]
    >>> bool(shifts[1] < 0.01 * shifts[0])
    True
    """
    return refine_layers(prepared, batches, _correct, "correct_bias", products=False, inherited=inherited)


def _correct(node, moments):
    groups, original = len(moments.x), original_weight(node)
    before, after = (
        w.astype(np.float64).reshape(groups, len(w) // groups, -1) for w in (original, rounded_weight(node))
    )
    shift = np.einsum("gok,gk->go", after, moments.z) - np.einsum("gok,gk->go", before, moments.x)
    _, bias = node.weight_quantizer.original or (None, node.bias)
    set_bias(node, (0 if bias is None else bias) - shift.ravel() / moments.count)
