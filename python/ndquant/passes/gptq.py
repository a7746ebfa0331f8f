"""GPTQ: weights rounded one input after the other, the rest making up for the error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..functional import dequantize, quantize
from ..qparams import QParams
from .hessians import damped, round_weights, warn_of_few_rows


def gptq(prepared, batches, *, damping=0.01):
    """Round the weights of every layer so that its outputs change least (Frantar et al., 2022).

    The squared error of a layer's outputs is quadratic in its weights, with the Hessian ``H = sum z z^T`` over the rows
    z that the layer reads. The weights of one input are rounded at a time, those of the largest activations first, and
    the weights of the inputs that are left move by the solution of least squares for the error made,
    https://arxiv.org/abs/2210.17323. Where layers in front are quantized, so that z is not what the layer reads in the
    float network, its weights first move to those that give the float outputs best.

    Parameters
    ----------
    prepared : Graph
        Of `prepare` after `calibrate`; it stays as it is.
    batches : iterable
        Each item an array, or a tuple of arrays for several inputs.
    damping : float, default 0.01
        This share of the mean of H's diagonal is added to it. With a very large one H is the identity, and weights are
        rounded to nearest.

    Returns
    -------
    Graph
        Of kind "prepared", with weights that are codes times scales.

    Raises
    ------
    QuantizationError
        If the graph is not of `prepare` or not calibrated, or a Hessian is singular: with too little data and no
        damping.

    Warns
    -----
    QuantizationWarning
        If a layer reads fewer rows than it has inputs.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import nn
    >>> rng, model = np.random.default_rng(0), nn.Sequential(nn.Linear(16, 8, rng=0))
    >>> x = rng.standard_normal((500, 16)) @ rng.standard_normal((16, 16))
    >>> prepared = nq.calibrate(nq.prepare(model, x, "int4"), [x])
    >>> errors = [nq.mse(nq.convert(g)(x), model(x)) for g in (prepared, nq.passes.gptq(prepared, [x]))]
    >>> errors[1] < 0.6 * errors[0]
    True
    """
    return round_weights(prepared, batches, damping, _round_in_order, "gptq")


def round_weight(w, qparams, count, h, name):
    """Return the codes that GPTQ gives a weight (O, K) on a grid per output or per group of inputs.

    Parameters
    ----------
    w : ndarray of float, shape (O, K)
    qparams : QParams
    count : int
        Number of rows that the layer reads.
    h : ndarray of float64, shape (K, K)
        Sum of their outer products.
    name : str
        Of the layer, for warnings.

    Returns
    -------
    ndarray of int, shape (O, K)
    """
    warn_of_few_rows(name, count, len(h))
    return _round_in_order(w.astype(np.float64), qparams, damped(h, 0.01))


def _of_input(qparams, i):
    """Return the `QParams` that input i of each output has."""
    spec = qparams.spec
    if spec.group_size is None:
        return qparams
    scale, zero_point = qparams.scale[:, i // spec.group_size], qparams.zero_point[:, i // spec.group_size]
    return QParams(scale, zero_point, replace(spec, axis=0, group_size=None), profile=qparams.profile)


def _round_in_order(target, qparams, h):
    """Round weights of shape (O, K), the inputs with the largest diagonal of `h` first."""
    order = np.argsort(-np.diag(h), kind="stable")
    inverse = np.linalg.inv(h[order][:, order])
    upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
    w, codes = target[:, order], np.empty(target.shape, qparams.spec.dtype)
    for i, row in enumerate(upper):
        column = w[:, i : i + 1].astype(np.float32)
        own = _of_input(qparams, order[i])
        rounded = quantize(column, own)
        codes[:, order[i]] = rounded[:, 0]
        error = (column - dequantize(rounded, own, dtype=np.float32)) / row[i]
        w[:, i + 1 :] -= error * row[i + 1 :]
    return codes
