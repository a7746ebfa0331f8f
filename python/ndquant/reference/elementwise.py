"""Elementwise kernels, as they are defined."""

from __future__ import annotations

import numpy as np

BLOCK, LANES = 4096, 16


def _work_dtype(dtype, profile):
    """Return the dtype that computes: float16 goes through float32, `textbook` is float64 always."""
    narrow = profile != "textbook" and np.dtype(dtype) in (np.float16, np.float32)
    return np.float32 if narrow else np.float64


def _along(values, ndim, axis, dtype):
    """Return one value per channel in a shape that broadcasts against an array of `ndim` dimensions."""
    values = np.asarray(values)
    if axis is None or values.ndim == 0:
        return values.astype(dtype)
    shape = [1] * ndim
    shape[axis] = values.size
    return values.reshape(shape).astype(dtype)


def _grid(x, scale, zero_point, axis, profile):
    """Return x, scale and zero point in the dtype that computes, ready to broadcast."""
    x = np.asarray(x)
    dtype = _work_dtype(x.dtype, profile)
    zero_point = _along(zero_point, x.ndim, axis, np.float64).astype(dtype)
    return x.astype(dtype), _along(scale, x.ndim, axis, dtype), zero_point


def _unclamped(x, scale, zero_point, axis, profile):
    """Return the code of each value before the clamp, as a float; NaN stays NaN."""
    x, scale, zero_point = _grid(x, scale, zero_point, axis, profile)
    with np.errstate(over="ignore", invalid="ignore"):
        if profile == "textbook":
            return np.rint(x / scale + zero_point)
        # Beyond 2^20 every value is far outside the codes, and adding the zero point could round.
        steps = np.clip(np.rint(x * (1 / scale)), -(2.0**20), 2.0**20)
        return zero_point + steps.astype(x.dtype)


def quantize(x, scale, zero_point, qmin, qmax, axis=None, profile="default"):
    """Return the codes of floats.

    Parameters
    ----------
    x : ndarray of float
    scale, zero_point : array, shape () or (channels,)
    qmin, qmax : int
    axis : int, optional
    profile : {"default", "torch", "textbook"}, default "default"

    Returns
    -------
    ndarray of int8 or uint8

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.quantize(np.array([-1.0, 0.5, 9.0]), 0.25, 1, 0, 15)
    array([ 0,  3, 15], dtype=uint8)
    """
    codes = _unclamped(x, scale, zero_point, axis, profile)
    codes = np.clip(np.where(np.isnan(codes), qmin, codes), qmin, qmax)
    return codes.astype(np.int8 if qmin < 0 else np.uint8)


def dequantize(q, scale, zero_point, axis=None, dtype=None, profile="default"):
    """Return what codes stand for: ``scale * (q - zero_point)``.

    Parameters
    ----------
    q : ndarray of int
    scale, zero_point : array, shape () or (channels,)
    axis : int, optional
    dtype : dtype, optional
        By default that of `scale`.
    profile : {"default", "torch", "textbook"}, default "default"

    Returns
    -------
    ndarray of `dtype`

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.dequantize(np.array([0, 3, 15]), 0.25, 1)
    array([-0.25,  0.5 ,  3.5 ])
    """
    dtype = np.asarray(scale).dtype if dtype is None else np.dtype(dtype)
    work = _work_dtype(dtype, profile)
    q = np.asarray(q)
    steps = q.astype(np.int64) - _along(zero_point, q.ndim, axis, np.int64)
    return (_along(scale, q.ndim, axis, work) * steps.astype(work)).astype(dtype)


def fake_quantize(x, scale, zero_point, qmin, qmax, axis=None, profile="default"):
    """Return floats rounded to what their codes stand for.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.fake_quantize(np.array([-1.0, 0.5, 9.0]), 0.25, 1, 0, 15)
    array([-0.25,  0.5 ,  3.5 ])
    """
    codes = quantize(x, scale, zero_point, qmin, qmax, axis, profile)
    return dequantize(codes, scale, zero_point, axis, np.asarray(x).dtype, profile)


def fake_quantize_backward(dy, x, scale, zero_point, qmin, qmax, axis=None, profile="default"):
    """Return the straight-through gradient.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.fake_quantize_backward(np.array([1.0, 2.0, 3.0]), np.array([-1.0, 0.5, 9.0]), 0.25, 1, 0, 15)
    array([0., 2., 0.])
    """
    codes = _unclamped(x, scale, zero_point, axis, profile)
    dtype = np.asarray(x).dtype
    return np.where((codes >= qmin) & (codes <= qmax), np.asarray(dy).astype(dtype), dtype.type(0))


def fake_quantize_learnable_backward(
    dy, x, scale, zero_point, qmin, qmax, axis=None, profile="default", grad_factor=None
):
    """Return the gradients with respect to `x`, scale and zero point, the last two in float64.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.fake_quantize_learnable_backward(np.array([1.0]), np.array([9.0]), 0.25, 1, 0, 15, grad_factor=1)
    (array([0.]), np.float64(14.0), np.float64(-0.25))
    """
    dx = fake_quantize_backward(dy, x, scale, zero_point, qmin, qmax, axis, profile)
    of_scale, of_zero = _learnable_terms(dy, x, scale, zero_point, qmin, qmax, axis, profile)
    channels = 1 if axis is None else np.asarray(x).shape[axis]
    if grad_factor is None:
        n = np.asarray(x).size / max(channels, 1)
        grad_factor = 1 / np.sqrt(n * max(qmax, 1)) if n else 1.0
    sums = [sum_in_blocks(terms, axis) * grad_factor for terms in (of_scale, of_zero)]
    return dx, *sums


def _learnable_terms(dy, x, scale, zero_point, qmin, qmax, axis, profile):
    """Return what each element adds to the gradients of scale and zero point, in float64."""
    codes = _unclamped(x, scale, zero_point, axis, profile)
    x, scale, zero_point = _grid(x, scale, zero_point, axis, profile)
    inside = (codes >= qmin) & (codes <= qmax)
    with np.errstate(invalid="ignore", over="ignore"):
        y = (scale * (codes - zero_point)).astype(np.float64)
        dy = np.asarray(dy).astype(x.dtype).astype(np.float64)
        in_range = dy * (y - x.astype(np.float64)) * (1 / scale).astype(np.float64)
        bound = np.where(codes > qmax, qmax - zero_point.astype(np.float64), qmin - zero_point.astype(np.float64))
        return np.where(inside, in_range, dy * bound), np.where(inside, 0.0, -(dy * scale.astype(np.float64)))


def sum_in_blocks(terms, axis=None):
    """Add up float64 terms, per channel if there is an axis, in the order that is fixed for all kernels.

    Blocks of 4,096 terms in index order; in each, 16 partial sums by index mod 16 and these added in order; then the
    blocks.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant.reference import sum_in_blocks
    >>> sum_in_blocks(np.ones((2, 3)), axis=0)
    array([3., 3.])
    """
    terms = np.asarray(terms, np.float64)
    first = terms[None] if axis is None else np.moveaxis(terms, axis, 0)
    rows = first.reshape(len(first), -1 if first.size else 0)
    total = np.zeros(len(rows))
    for start in range(0, rows.shape[1], BLOCK):
        block = rows[:, start : start + BLOCK]
        padded = np.zeros((len(rows), -(-block.shape[1] // LANES) * LANES))
        padded[:, : block.shape[1]] = block
        lanes = np.zeros((len(rows), LANES))
        for step in range(0, padded.shape[1], LANES):
            lanes += padded[:, step : step + LANES]
        in_block = np.zeros(len(rows))
        for lane in lanes.T:
            in_block += lane
        total += in_block
    return total[0] if axis is None else total
