"""Half-quadratic quantization (Badri and Shaji, 2023, https://mobiusml.github.io/hqq_blog)."""

from __future__ import annotations

import numpy as np

from ..functional import dequantize, quantize
from ..observers import choose_qparams
from ..ops.record import finite, whole_number
from ..qparams import QParams


def hqq(weight, spec, *, power=0.7, steps=20, beta=10.0, growth=1.01):
    """Choose the offsets of a weight's grid without data, by a norm that lets a few large errors be.

    The scale is that of min-max. The offset z and the error e of outliers are found in turns: e shrinks the error of
    rounding by the proximal step of ``|e|^power``, ``max(|r| - |r|^(power - 1) / beta, 0)``, and z is the mean of
    ``w - e - scale * code``. Each group keeps the offset with which its norm was least.

    Parameters
    ----------
    weight : array_like of float
    spec : QuantSpec
        With ``zero_aligned=False``: offsets are floats. Per group if ``group_size`` is given.
    power : float, default 0.7
        In (0, 1]: of the norm.
    steps : int, default 20
    beta, growth : float, default 10 and 1.01
        Sharpness of the proximal step, and its factor for each step. Errors are measured in steps of the grid.

    Returns
    -------
    QParams

    Raises
    ------
    ValueError
        If the spec has no float offsets, or `group_size` does not divide the weight.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> w = np.random.default_rng(0).standard_t(3, (16, 64)).astype(np.float32)
    >>> spec = nq.QuantSpec(4, signed=False, symmetric=False, axis=1, group_size=32, zero_aligned=False)
    >>> errors = [abs(nq.fake_quantize(w, q) - w) ** 0.7 for q in (nq.choose_qparams(w, spec), nq.passes.hqq(w, spec))]
    >>> bool(errors[1].mean() < errors[0].mean())
    True
    """
    if spec.zero_aligned:
        raise ValueError("spec must have zero_aligned=False: the offsets that hqq finds are no codes")
    weight = np.asarray(weight)
    power, beta, growth = finite(power, "power"), finite(beta, "beta"), finite(growth, "growth")
    if not 0 < power <= 1:
        raise ValueError(f"power must be in (0, 1], not {power}")
    qparams = choose_qparams(weight, spec)
    best, least = qparams.zero_point, _errors(weight, qparams, power)
    for _ in range(whole_number(steps, "steps", least=1)):
        qparams = _with_better_offsets(weight, qparams, power, beta)
        errors = _errors(weight, qparams, power)
        best, least = np.where(errors < least, qparams.zero_point, best), np.minimum(errors, least)
        beta *= growth
    return QParams(qparams.scale, best.astype(qparams.scale.dtype)[()], spec)


def _errors(weight, qparams, power):
    """Return the mean of ``|error|^power`` for each scale."""
    return _means(np.abs(weight - dequantize(quantize(weight, qparams), qparams)) ** power, qparams.spec)


def _with_better_offsets(weight, qparams, power, beta):
    rounded = dequantize(quantize(weight, qparams), qparams)
    scale = _spread(qparams.scale, weight.ndim, qparams.spec)
    residual = (weight - rounded) / scale
    size = np.abs(residual)
    shrunk = np.maximum(size - np.where(size > 0, size, 1) ** (power - 1) / beta, 0)
    shift = (residual - np.sign(residual) * shrunk) * scale
    offsets = qparams.zero_point + _means(shift, qparams.spec)
    return QParams(qparams.scale, np.asarray(offsets, qparams.scale.dtype)[()], qparams.spec)


def _spread(values, ndim, spec):
    """Return one value for each scale so that it broadcasts with the array."""
    if spec.axis is None:
        return values
    if spec.group_size is not None:
        return np.repeat(values, spec.group_size, axis=spec.axis)
    return values.reshape([-1 if axis == spec.axis % ndim else 1 for axis in range(ndim)])


def _means(array, spec):
    """Return the means of the values that share a scale."""
    if spec.axis is None:
        return array.mean()
    axis = spec.axis % array.ndim
    if spec.group_size is None:
        return array.mean(axis=tuple(i for i in range(array.ndim) if i != axis))
    shape = array.shape
    return array.reshape(*shape[:axis], -1, spec.group_size, *shape[axis + 1 :]).mean(axis=axis + 1)
