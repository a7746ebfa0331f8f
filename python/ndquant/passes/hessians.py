"""What GPTQ and AdaRound share: the squared error of a layer's outputs as a quadratic form of its weights.

With z what the layer reads in the quantized network and x in the float network, the error of weights V is
``sum |V z - W x|^2 = (V - T) H (V - T)^T + constant``: ``H = sum z z^T``, and T, the best float weights,
``T = W (sum x z^T) H^-1``.
"""

from __future__ import annotations

import warnings

import numpy as np

from ..errors import QuantizationError, QuantizationWarning
from ..ops.record import finite
from ..qparams import QParams
from .layers import original_weight, refine_layers, set_weight


def round_weights(prepared, batches, damping, round_rows, caller):
    """Return `prepared` with weights rounded by ``round_rows(T, qparams, H)``, of arrays (O, K), to codes.

    `damping` times the mean of H's diagonal is added to it.
    """
    damping = finite(damping, "damping")
    if damping < 0:
        raise ValueError(f"damping must be at least 0, not {damping}")

    def refine(node, moments):
        groups, inputs = moments.z.shape
        warn_of_few_rows(node.name, moments.count, inputs)
        weight = original_weight(node).reshape(groups, len(node.weight) // groups, -1).astype(np.float64)
        qparams = node.weight_quantizer.qparams_for(node.weight)
        codes = np.empty(weight.shape, qparams.spec.dtype)
        for group, rows in enumerate(weight):
            h = _invertible(node, damped(moments.zz[group], damping))
            target = rows + rows @ np.linalg.solve(h, (moments.xz[group] - moments.zz[group]).T).T
            codes[group] = round_rows(target, _of_group(qparams, group, groups), h)
        set_weight(node, codes, qparams)

    return refine_layers(prepared, batches, refine, caller)


def warn_of_few_rows(name, count, inputs):
    """Warn if a Hessian comes from fewer rows than a layer has inputs."""
    if count < inputs:
        text = f"{name}: {count} rows are few for the Hessian of {inputs} inputs; give more batches"
        warnings.warn(text, QuantizationWarning, stacklevel=6)


def _of_group(qparams, group, groups):
    """Return the `QParams` of the outputs of one group."""
    if qparams.spec.axis is None or groups == 1:
        return qparams
    count = len(qparams.scale) // groups
    part = slice(group * count, (group + 1) * count)
    return QParams(qparams.scale[part], qparams.zero_point[part], qparams.spec, profile=qparams.profile)


def damped(h, damping):
    """Return H with its diagonal raised; where an input is always 0, to the mean, so that its weights stay apart."""
    diagonal = np.diag(h)
    mean = diagonal.mean() or 1.0
    return h + np.diag(np.where(diagonal == 0, mean, damping * mean))


def _invertible(node, h):
    try:
        np.linalg.cholesky(h)
    except np.linalg.LinAlgError:
        text = f"{node.name}: the Hessian of {len(h)} inputs is singular: give more batches, or damping above 0"
        raise QuantizationError(text) from None
    return h
