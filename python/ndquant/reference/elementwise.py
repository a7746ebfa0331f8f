"""Elementwise kernels, as they are defined."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np

BLOCK, LANES = 4096, 16


def _work_dtype(dtype, profile, wide=False):
    """Return the dtype that computes: float16 goes through float32; `textbook` and wide codes are float64 always."""
    narrow = profile != "textbook" and not wide and np.dtype(dtype) in (np.float16, np.float32)
    return np.float32 if narrow else np.float64


def _is_wide(qmin, qmax):
    """Return whether codes have more than 16 bits."""
    return qmax > 2**15 - 1 if qmin < 0 else qmax > 2**16 - 1


def _code_dtype(qmin, qmax):
    """Return the smallest integer dtype of the codes."""
    dtypes = (np.int8, np.int16, np.int32) if qmin < 0 else (np.uint8, np.uint16, np.uint32)
    return next(dtype for dtype in dtypes if qmin >= np.iinfo(dtype).min and qmax <= np.iinfo(dtype).max)


def _is_offset(zero_point):
    """Return whether this is a float offset: the value of code 0 instead of the code of value 0."""
    return np.asarray(zero_point).dtype.kind == "f"


def _along(values, ndim, axis, dtype, group_size=None):
    """Return one value per channel, or per group, in a shape that broadcasts against an array of `ndim` dimensions."""
    values = np.asarray(values).astype(dtype)
    if group_size is not None:
        return np.repeat(values, group_size, axis=axis)
    if axis is None or values.ndim == 0:
        return values
    shape = [1] * ndim
    shape[axis] = values.size
    return values.reshape(shape)


def _grid(x, scale, zero_point, qmin, qmax, axis, profile, group_size):
    """Return x, scale and zero point in the dtype that computes, ready to broadcast."""
    x = np.asarray(x)
    dtype = _work_dtype(x.dtype, profile, _is_wide(qmin, qmax))
    zero_point = _along(zero_point, x.ndim, axis, np.float64, group_size).astype(dtype)
    return x.astype(dtype), _along(scale, x.ndim, axis, dtype, group_size), zero_point


def _unclamped(x, scale, zero_point, qmin, qmax, axis, profile, group_size):
    """Return the code of each value before the clamp, as a float; NaN stays NaN."""
    is_offset = _is_offset(zero_point)
    x, scale, zero_point = _grid(x, scale, zero_point, qmin, qmax, axis, profile, group_size)
    with np.errstate(over="ignore", invalid="ignore"):
        if is_offset:
            return np.rint((x - zero_point) / scale)
        if profile == "textbook":
            return np.rint(x / scale + zero_point)
        steps = np.rint(x / scale if profile == "onnx" else x * (1 / scale))
        # Further away every value is far outside the codes, and adding the zero point could round.
        limit = 2.0**20 if x.dtype == np.float32 else 2.0**40
        return zero_point + np.clip(steps, -limit, limit).astype(x.dtype)


def quantize(x, scale, zero_point, qmin, qmax, axis=None, profile="default", group_size=None):
    """Return the codes of floats.

    Parameters
    ----------
    x : ndarray of float
    scale, zero_point : array, shape () or (channels,) or that of the groups
        A zero point of floats is an offset: the value of code 0.
    qmin, qmax : int
    axis : int, optional
    profile : {"default", "torch", "onnx", "textbook"}, default "default"
    group_size : int, optional
        How many elements along `axis` share a scale.

    Returns
    -------
    ndarray of the smallest integer dtype that holds the codes

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.quantize(np.array([-1.0, 0.5, 9.0]), 0.25, 1, 0, 15)
    array([ 0,  3, 15], dtype=uint8)
    """
    codes = _unclamped(x, scale, zero_point, qmin, qmax, axis, profile, group_size)
    codes = np.clip(np.where(np.isnan(codes), qmin, codes), qmin, qmax)
    return codes.astype(_code_dtype(qmin, qmax))


def dequantize(q, scale, zero_point, axis=None, dtype=None, profile="default", group_size=None, wide=False):
    """Return what codes stand for: ``scale * (q - zero_point)``, or ``scale * q + zero_point`` with a float offset.

    Parameters
    ----------
    q : ndarray of int
    scale, zero_point : array, shape () or (channels,) or that of the groups
    axis : int, optional
    dtype : dtype, optional
        By default that of `scale`.
    profile : {"default", "torch", "onnx", "textbook"}, default "default"
    group_size : int, optional
    wide : bool, default False
        Whether codes have more than 16 bits: this is computed in float64 then.

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
    work = _work_dtype(dtype, profile, wide)
    q = np.asarray(q)
    scale = _along(scale, q.ndim, axis, work, group_size)
    if _is_offset(zero_point):
        return (scale * q.astype(work) + _along(zero_point, q.ndim, axis, work, group_size)).astype(dtype)
    steps = q.astype(np.int64) - _along(zero_point, q.ndim, axis, np.int64, group_size)
    return (scale * steps.astype(work)).astype(dtype)


def fake_quantize(x, scale, zero_point, qmin, qmax, axis=None, profile="default", group_size=None):
    """Return floats rounded to what their codes stand for.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.fake_quantize(np.array([-1.0, 0.5, 9.0]), 0.25, 1, 0, 15)
    array([-0.25,  0.5 ,  3.5 ])
    """
    codes = quantize(x, scale, zero_point, qmin, qmax, axis, profile, group_size)
    wide = _is_wide(qmin, qmax)
    return dequantize(codes, scale, zero_point, axis, np.asarray(x).dtype, profile, group_size, wide)


def fake_quantize_backward(dy, x, scale, zero_point, qmin, qmax, axis=None, profile="default", group_size=None):
    """Return the straight-through gradient.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.fake_quantize_backward(np.array([1.0, 2.0, 3.0]), np.array([-1.0, 0.5, 9.0]), 0.25, 1, 0, 15)
    array([0., 2., 0.])
    """
    codes = _unclamped(x, scale, zero_point, qmin, qmax, axis, profile, group_size)
    dtype = np.asarray(x).dtype
    return np.where((codes >= qmin) & (codes <= qmax), np.asarray(dy).astype(dtype), dtype.type(0))


def fake_quantize_learnable_backward(
    dy, x, scale, zero_point, qmin, qmax, axis=None, profile="default", group_size=None, grad_factor=None
):
    """Return the gradients with respect to `x`, scale and zero point, the last two in float64.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.fake_quantize_learnable_backward(np.array([1.0]), np.array([9.0]), 0.25, 1, 0, 15, grad_factor=1)
    (array([0.]), np.float64(14.0), np.float64(-0.25))
    """
    grid = scale, zero_point, qmin, qmax, axis, profile, group_size
    dx = fake_quantize_backward(dy, x, *grid)
    of_scale, of_zero = _learnable_terms(dy, x, *grid)
    if grad_factor is None:
        n = np.asarray(x).size / max(np.asarray(scale).size, 1)
        grad_factor = 1 / np.sqrt(n * max(qmax, 1)) if n else 1.0
    sums = [sum_in_blocks(terms, axis, group_size) * grad_factor for terms in (of_scale, of_zero)]
    return dx, *sums


def _learnable_terms(dy, x, scale, zero_point, qmin, qmax, axis, profile, group_size):
    """Return what each element adds to the gradients of scale and zero point, in float64."""
    is_offset = _is_offset(zero_point)
    codes = _unclamped(x, scale, zero_point, qmin, qmax, axis, profile, group_size)
    x, scale, zero_point = _grid(x, scale, zero_point, qmin, qmax, axis, profile, group_size)
    inside, middle = (codes >= qmin) & (codes <= qmax), np.float64(0) if is_offset else zero_point.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        y = (scale * codes + zero_point if is_offset else scale * (codes - zero_point)).astype(np.float64)
        dy = np.asarray(dy).astype(x.dtype).astype(np.float64)
        in_range = dy * (y - x.astype(np.float64)) * (1 / scale).astype(np.float64)
        bound = np.where(codes > qmax, qmax - middle, qmin - middle)
        of_zero = dy if is_offset else -(dy * scale.astype(np.float64))
        return np.where(inside, in_range, dy * bound), np.where(inside, 0.0, of_zero)


def quantization_error(x, scale, zero_point, qmin, qmax, axis=None, profile="default", group_size=None):
    """Return squared errors of values outside the range and inside it, the sum of squares, and how many are outside.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.quantization_error(np.array([1.0, 2.5, 9.0]), 1.0, 0, -8, 7)
    (4.0, 0.25, 88.25, 1.0)
    """
    grid = scale, zero_point, qmin, qmax, axis, profile, group_size
    codes = _unclamped(x, *grid)
    inside = (codes >= qmin) & (codes <= qmax)
    work, wide = codes.dtype, _is_wide(qmin, qmax)
    y = dequantize(quantize(x, *grid), scale, zero_point, axis, work, profile, group_size, wide)
    with np.errstate(over="ignore", invalid="ignore"):
        x = np.asarray(x).astype(work).astype(np.float64)
        square = np.square(y.astype(np.float64) - x)
        terms = np.where(inside, 0.0, square), np.where(inside, square, 0.0), np.square(x), np.where(inside, 0.0, 1.0)
        totals = [np.atleast_1d(sum_in_blocks(term, axis, group_size)).reshape(-1) for term in terms]
        # Not sum(): from Python 3.12 on it compensates rounding.
        return tuple(reduce(add, total.tolist(), 0.0) for total in totals)


def _rows(terms, axis, group_size):
    """Return terms as rows of one channel or group each, and the shape in which these lie in an array."""
    if axis is None:
        return terms.reshape(1, -1), ()
    axis %= terms.ndim
    first = np.moveaxis(terms, axis, 0)
    if group_size is None:
        return first.reshape(len(first), -1 if first.size else 0), first.shape[:1]
    shape = (*terms.shape[:axis], terms.shape[axis] // group_size, *terms.shape[axis + 1 :])
    split = terms.reshape(*shape[: axis + 1], group_size, *shape[axis + 1 :])
    return np.moveaxis(split, axis + 1, -1).reshape(-1 if split.size else 0, group_size), shape


def sum_in_blocks(terms, axis=None, group_size=None):
    """Add up float64 terms, per channel or group if there is an axis, in the order that is fixed for all kernels.

    Blocks of 4,096 terms in index order; in each, 16 partial sums by index mod 16 and these added in order; then the
    blocks.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant.reference import sum_in_blocks
    >>> sum_in_blocks(np.ones((2, 3)), axis=0)
    array([3., 3.])
    """
    rows, shape = _rows(np.asarray(terms, np.float64), axis, group_size)
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
    return total.reshape(shape)[()]
