"""Integer layers as they are defined, in int64 and float32 of NumPy, and products of float32.

Shape letters: M rows, N outputs, K inputs. Nothing here uses the C core.
"""

from __future__ import annotations

import numpy as np

from .activation import bound_codes, bound_values

_INT32 = np.iinfo(np.int32)


def gemm_s32(a, w, a_zero_point=0, w_zero_point=0, bias=None):
    """Return ``(a - a_zero_point) @ (w - w_zero_point).T + bias`` as int32.

    Parameters
    ----------
    a : ndarray of int, shape (M, K)
    w : ndarray of int, shape (N, K)
    a_zero_point : int
    w_zero_point : int or ndarray of int, shape (N,)
    bias : ndarray of int, shape (N,), optional

    Returns
    -------
    ndarray of int32, shape (M, N)

    Raises
    ------
    OverflowError
        If a sum does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.gemm_s32(np.uint8([[200, 100]]), np.int8([[1, 3], [-2, 4]]), a_zero_point=100)
    array([[ 100, -200]], dtype=int32)
    """
    centred_a = a.astype(np.int64) - np.int64(a_zero_point)
    centred_w = w.astype(np.int64) - np.asarray(w_zero_point, np.int64).reshape(-1, 1)
    sums = centred_a @ centred_w.T
    if bias is not None:
        sums = sums + bias.astype(np.int64)
    return fit_int32(sums)


def fit_int32(sums):
    """Return integers as int32, or raise an OverflowError if one does not fit."""
    if sums.size and (sums.min() < _INT32.min or sums.max() > _INT32.max):
        raise OverflowError(f"a sum of {sums.min()}..{sums.max()} does not fit int32")
    return sums.astype(np.int32)


def raise_weight_scale(w_scale, bias, x_scale):
    """Return weight scales raised so that each bias fits: ``max(sw, max|b| / (sx * 2^30), 2^-126 / sx)``.

    Parameters
    ----------
    w_scale : float or ndarray, shape (N,)
        One scale serves all biases.
    bias : ndarray of float, shape (N,), or None
    x_scale : float

    Returns
    -------
    float or ndarray
        Shape and dtype of `w_scale`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.raise_weight_scale(np.array([1e-9, 1.0]), np.array([2.0**21, 0.0]), 1.0).tolist()
    [0.001953125, 1.0]
    """
    w_scale, sx = np.asarray(w_scale), float(x_scale)
    result = []
    for channel, scale in enumerate(w_scale.reshape(-1)):
        mine = [] if bias is None else [float(b) for b in (bias if w_scale.ndim == 0 else bias[channel : channel + 1])]
        largest = max((abs(b) for b in mine), default=0.0)
        with np.errstate(over="ignore"):
            least = w_scale.dtype.type(max(largest / (sx * 2.0**30), 2.0**-126 / sx))
        result.append(max(scale, least))
    return np.array(result, w_scale.dtype).reshape(w_scale.shape)[()]


def quantize_bias(bias, x_scale, w_scale):
    """Return a bias as int32 at the scale of the sums, ``rint(b / s)`` in float64 with the float32 product s.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.quantize_bias(np.float32([1.0, -0.3]), 0.5, 0.25)
    array([ 8, -2], dtype=int32)
    """
    s = product_scale(x_scale, w_scale).astype(np.float64)
    return np.rint(np.asarray(bias).astype(np.float64) / s).astype(np.int32)


def product_scale(a_scale, w_scale):
    """Return the scale of the sums, a float32 product of float32 scales, shape () or (N,)."""
    return np.float32(a_scale) * np.asarray(w_scale, np.float32)


def linear_f32(acc, a_scale, w_scale, float_bias=None, activation=None):
    """Return int32 sums as float32: ``float(acc) * (a_scale * w_scale) + float_bias``.

    Without a float bias 0 is added, so that a zero is never negative.

    Parameters
    ----------
    acc : ndarray of int32, shape (M, N)
    a_scale : float
    w_scale : float or ndarray, shape (N,)
    float_bias : ndarray of float32, shape (N,), optional
    activation : {"relu", "relu6"}, optional

    Returns
    -------
    ndarray of float32, shape (M, N)

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.linear_f32(np.int32([[100, -200]]), 0.5, np.float32([0.25, 0.125]))
    array([[ 12.5, -12.5]], dtype=float32)
    """
    bias = np.float32(0) if float_bias is None else np.asarray(float_bias, np.float32)
    y = acc.astype(np.float32) * product_scale(a_scale, w_scale) + bias
    return bound_values(y, activation)


def linear_codes(
    acc,
    a_scale,
    w_scale,
    out_scale,
    out_zero_point,
    qmin,
    qmax,
    float_bias=None,
    activation=None,
    requantize="dequantize",
):
    """Requantize int32 sums to codes.

    ``dequantize`` is literally that followed by quantizing, ``y = linear_f32(...)`` and
    ``clamp(zp + rint(y * (1 / out_scale)))``. ``fbgemm`` is
    ``clamp(zp + rint((acc + float_bias / s) * (s / out_scale)))`` with ``s = a_scale * w_scale``, and ``onnx`` adds
    ``zp`` before it rounds. All in float32.

    Parameters
    ----------
    acc : ndarray of int32, shape (M, N)
    a_scale, out_scale : float
    w_scale : float or ndarray, shape (N,)
    out_zero_point, qmin, qmax : int
    float_bias : ndarray of float32, shape (N,), optional
    activation : {"relu", "relu6"}, optional
    requantize : {"dequantize", "fbgemm", "onnx"}

    Returns
    -------
    ndarray of int8 or uint8, shape (M, N)

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.linear_codes(np.int32([[100, -200]]), 0.5, 0.25, 1.0, 128, 0, 255)
    array([[140, 103]], dtype=uint8)
    """
    out_scale = np.float32(out_scale)
    if requantize != "dequantize":
        s = product_scale(a_scale, w_scale)
        bias = np.float32(0) if float_bias is None else np.asarray(float_bias, np.float32) / s
        steps = (acc.astype(np.float32) + bias) * (s / out_scale)
    else:
        steps = linear_f32(acc, a_scale, w_scale, float_bias) * (np.float32(1) / out_scale)
    low, high = bound_codes(out_scale, out_zero_point, qmin, qmax, activation)
    if requantize == "onnx":
        codes = np.clip(np.rint(steps + np.float32(out_zero_point)), low, high)
        return codes.astype(np.int8 if qmin < 0 else np.uint8)
    codes = np.clip(np.rint(steps), low - out_zero_point, high - out_zero_point).astype(np.int64) + out_zero_point
    return codes.astype(np.int8 if qmin < 0 else np.uint8)


def fused_multiply_add(a, b, c):
    """Return ``a * b + c`` of float32 arrays, rounded once.

    The product is exact in float64. The sum is rounded there to odd: where it is inexact its last bit is set, so that
    rounding again, to float32, sees on which side of a tie it lies (Boldo and Melquiond 2008).

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> x = np.float32(1 + 2**-12)
    >>> float(reference.fused_multiply_add(x, x, np.float32(-1 - 2**-11)))  # 0 if the product were rounded first
    5.960464477539063e-08
    """
    product, c = np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)
    total = np.asarray(product + c)
    part = total - product
    error = (product - (total - part)) + (c - part)  # exactly what the sum lost (Knuth's two-sum)
    odd = total.view(np.int64) & 1 == 1
    outward = np.where(error > 0, np.inf, -np.inf)
    inexact = (error != 0) & np.isfinite(error)
    return np.where(inexact & ~odd, np.nextafter(total, outward), total).astype(np.float32)[()]


def matmul_f32(a, b):
    """Return ``a @ b`` of float32, each element one chain of fused multiply-adds over ascending k, from 0.

    Parameters
    ----------
    a : ndarray of float32, shape (M, K)
    b : ndarray of float32, shape (K, N)

    Returns
    -------
    ndarray of float32, shape (M, N)

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.matmul_f32(np.float32([[1, 2]]), np.float32([[3], [4]]))
    array([[11.]], dtype=float32)
    """
    sums = np.zeros((a.shape[0], b.shape[1]), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(a.shape[1]):
            sums = fused_multiply_add(a[:, k : k + 1], b[k], sums)
    return sums
