"""AdaRound: whether each weight is rounded up or down is learned."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..ops.record import whole_number
from .hessians import round_weights

#: The ends to which the sigmoid is stretched, the exponents of the penalty, and the share of steps without it.
STRETCH, EXPONENTS, WARM_UP = (-0.1, 1.1), (20.0, 2.0), 0.2


def adaround(prepared, batches, *, steps=1000, penalty=0.1, damping=0.01):
    """Choose for every weight whether to round it up or down, so that outputs change least (Nagel et al., 2020).

    A weight is ``scale * (floor(w / scale) + h)`` with h between 0 and 1, a stretched sigmoid of what Adam learns: the
    mean squared error of the layer's outputs, and a penalty ``1 - |2 h - 1|^b`` that drives h to 0 or 1 as b falls,
    https://arxiv.org/abs/2004.10568. The error is the quadratic form of `gptq`, for the same outputs.

    Parameters
    ----------
    prepared : Graph
        Of `prepare` after `calibrate`; it stays as it is.
    batches : iterable
        Each item an array, or a tuple of arrays for several inputs.
    steps : int, default 1000
        Of Adam for each layer.
    penalty : float, default 0.1
        Weight of the penalty, beside the squared error in steps of the weights, over inputs of mean square 1.
    damping : float, default 0.01
        See `gptq`.

    Returns
    -------
    Graph
        Of kind "prepared", with weights that are codes times scales.

    Raises
    ------
    QuantizationError
        As `gptq`.

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
    >>> errors = [nq.mse(nq.convert(g)(x), model(x)) for g in (prepared, nq.passes.adaround(prepared, [x]))]
    >>> errors[1] < 0.7 * errors[0]
    True
    """
    steps = whole_number(steps, "steps", least=1)
    return round_weights(prepared, batches, damping, partial(_learn_rounding, steps, penalty), "adaround")


def _learn_rounding(steps, penalty, target, qparams, h):
    """Round weights of shape (O, K) up or down."""
    scale = np.reshape(qparams.scale, (-1, 1)).astype(np.float64)
    zero_point = np.reshape(qparams.zero_point, (-1, 1))
    lowest, highest = qparams.spec.qmin - zero_point, qparams.spec.qmax - zero_point
    place = np.clip(target / scale, lowest, highest)
    below = np.minimum(np.floor(place), highest - 1)
    logits = _logits(place - below)
    quadratic = 2 * h / np.trace(h) * len(h)
    unit = np.mean(scale) ** 2
    first, second = np.zeros_like(logits), np.zeros_like(logits)
    for step in range(1, steps + 1):
        up, slope = _stretched(logits)
        gradient = ((scale * (below + up) - target) @ quadratic) * scale / unit
        gradient = (gradient + penalty * _penalty_slope(up, step / steps)) * slope
        first += 0.1 * (gradient - first)
        second += 0.001 * (gradient**2 - second)
        logits -= 0.01 * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    codes = below + (_stretched(logits)[0] >= 0.5) + zero_point
    return codes.astype(qparams.spec.dtype)


def _logits(share):
    low, high = STRETCH
    return -np.log((high - low) / (np.clip(share, 0, 1) - low) - 1)


def _stretched(logits):
    """Return the stretched sigmoid between 0 and 1, and its slope."""
    low, high = STRETCH
    sigmoid = 1 / (1 + np.exp(-logits))
    value = sigmoid * (high - low) + low
    inside = (value > 0) & (value < 1)
    return np.clip(value, 0, 1), np.where(inside, (high - low) * sigmoid * (1 - sigmoid), 0)


def _penalty_slope(up, progress):
    if progress < WARM_UP:
        return 0.0
    first, last = EXPONENTS
    exponent = last + (first - last) * (1 - (progress - WARM_UP) / (1 - WARM_UP))
    distance = 2 * up - 1
    return -2 * exponent * np.abs(distance) ** (exponent - 1) * np.sign(distance)
