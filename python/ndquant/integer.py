"""Integer forms of what lies between convolutions and products, on codes of 8 bits.

Each computes in integers or float32 and rounds once to the codes of its output, whose QParams are per tensor. In
`max_pool2d` and `resize_nearest` the output has the QParams of the input. Images are (N, C, H, W) in any strides; a
result is channels-last if its input is. Errors are in steps of the output, from what float64 gives for the same codes:
rounding to the nearest code alone is 0.5, and where it says 0.501 some ties go to the other side. Unless told otherwise
that is with input scales of up to 16 times that of the output.
"""

from __future__ import annotations

from math import prod

import numpy as np

from . import _core
from .convolution import pair
from .errors import QuantizationError
from .functional import activation_number, dequantize, quantize

#: The table of exp holds 2^23 for exp(0): the largest power of two of which float32 holds all smaller integers too.
EXP_ONE = 2**23


def add(a, a_qparams, b, b_qparams, out_qparams, activation=None, out=None):
    """Add two arrays of codes of one shape; error at most 0.501 steps.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import integer
    >>> half, one = (nq.QParams(s, 0, nq.QuantSpec()) for s in (0.5, 1.0))
    >>> integer.add(np.int8([4, -9]), half, np.int8([1, 1]), one, one, activation="relu")
    array([3, 0], dtype=int8)
    """
    return _core.combine_codes(a, a_qparams, b, b_qparams, out_qparams, False, activation_number(activation), out)


def multiply(a, a_qparams, b, b_qparams, out_qparams, activation=None, out=None):
    """Multiply two arrays of codes of one shape; error at most 0.501 steps.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import integer
    >>> half, one = (nq.QParams(s, 0, nq.QuantSpec()) for s in (0.5, 1.0))
    >>> integer.multiply(np.int8([4, -9]), half, np.int8([3, 4]), one, one)
    array([  6, -18], dtype=int8)
    """
    return _core.combine_codes(a, a_qparams, b, b_qparams, out_qparams, True, activation_number(activation), out)


def all_codes(qparams):
    """Return all 256 codes of the dtype of `qparams`, the lowest first."""
    dtype = qparams.spec.dtype
    return np.arange(np.iinfo(dtype).min, np.iinfo(dtype).max + 1).astype(dtype)


def unary_table(function, qparams, out_qparams):
    """Tabulate ``quantize(function(dequantize(q)))``, computed in float64, for `lookup`; error at most 0.5 steps.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import integer
    >>> x_qp, y_qp = nq.QParams(0.1, 0, nq.QuantSpec()), nq.QParams(1 / 128, 0, nq.QuantSpec())
    >>> table = integer.unary_table(np.tanh, x_qp, y_qp)
    >>> integer.lookup(np.int8([-128, 0, 5]), table)
    array([-128,    0,   59], dtype=int8)
    """
    with np.errstate(all="ignore"):
        y = function(dequantize(all_codes(qparams), qparams, dtype=np.float64))
    return quantize(np.asarray(y, np.float64), out_qparams)


def lookup(q, table, out=None):
    """Return ``table[q - lowest code]``; exact.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import integer
    >>> integer.lookup(np.uint8([0, 2]), np.arange(255, -1, -1).astype(np.uint8))
    array([255, 253], dtype=uint8)
    """
    return _core.lookup_codes(q, table, out)


def concatenate(arrays, qparams, out_qparams, axis=1):
    """Join arrays of codes, each of its own QParams, along an axis; error at most 0.501 steps.

    Codes that already have the QParams of the output are copied.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import integer
    >>> half, one = (nq.QParams(s, 0, nq.QuantSpec()) for s in (0.5, 1.0))
    >>> integer.concatenate([np.int8([[4]]), np.int8([[4]])], [half, one], one)
    array([[2, 4]], dtype=int8)
    """
    parts = []
    for q, own in zip(arrays, qparams, strict=True):
        if own == out_qparams:
            parts.append(q)
            continue
        parts.append(lookup(q, requantization_table(own, out_qparams)))
    return np.concatenate(parts, axis=axis)


def requantization_table(qparams, out_qparams):
    """Tabulate the codes of `out_qparams` for what the codes of `qparams` stand for, for `lookup`.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import integer
    >>> half, one = (nq.QParams(s, 0, nq.QuantSpec()) for s in (0.5, 1.0))
    >>> integer.lookup(np.int8([-128, 8]), integer.requantization_table(half, one))
    array([-64,   4], dtype=int8)
    """
    return quantize(dequantize(all_codes(qparams), qparams, dtype=np.float32), out_qparams)


def max_pool2d(q, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, out=None):
    """Largest code of each window, the border left out; exact.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import integer
    >>> integer.max_pool2d(np.int8([[[[1, 5, 3, 2]]]]), (1, 2))
    array([[[[5, 3]]]], dtype=int8)
    """
    kernel, steps = pair(kernel_size, "kernel_size"), pair(dilation, "dilation")
    strides, paddings = pair(kernel if stride is None else stride, "stride"), pair(padding, "padding")
    windows = [
        pool_windows(*axis, ceil_mode) for axis in zip(image_size(q), kernel, strides, paddings, steps, strict=True)
    ]
    return _core.pool_codes(q, *windows, steps, None, None, out)


def avg_pool2d(
    q,
    qparams,
    out_qparams,
    kernel_size,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    out=None,
):
    """Mean of each window; error at most 0.501 steps.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import integer
    >>> qp = nq.QParams(1.0, 0, nq.QuantSpec())
    >>> integer.avg_pool2d(np.int8([[[[1, 5, 3, 2]]]]), qp, nq.QParams(0.5, 0, nq.QuantSpec()), (1, 2))
    array([[[[6, 5]]]], dtype=int8)
    """
    kernel, paddings = pair(kernel_size, "kernel_size"), pair(padding, "padding")
    strides = pair(kernel if stride is None else stride, "stride")
    windows = [
        pool_windows(*axis, 1, ceil_mode, count_include_pad)
        for axis in zip(image_size(q), kernel, strides, paddings, strict=True)
    ]
    return _pool_means(q, windows, qparams, out_qparams, out)


def adaptive_avg_pool2d(q, qparams, out_qparams, output_size, out=None):
    """Mean of windows that divide each axis evenly, (1, 1) for the whole image; error at most 0.501 steps.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import integer
    >>> qp = nq.QParams(1.0, 0, nq.QuantSpec())
    >>> integer.adaptive_avg_pool2d(np.int8([[[[1, 5], [3, 7]]]]), qp, qp, 1)
    array([[[[4]]]], dtype=int8)
    """
    windows = [even_windows(n, m) for n, m in zip(image_size(q), pair(output_size, "output_size"), strict=True)]
    return _pool_means(q, windows, qparams, out_qparams, out)


def _pool_means(q, windows, qparams, out_qparams, out):
    try:
        return _core.pool_codes(q, *windows, (1, 1), qparams, out_qparams, out)
    except OverflowError as error:
        raise QuantizationError(str(error)) from None


def image_size(q):
    """Return rows and columns of images."""
    if np.ndim(q) != 4:
        raise ValueError(f"q: expected 4 dimensions, got {np.ndim(q)}")
    return q.shape[2:]


def pool_windows(length, kernel, stride, padding, dilation=1, ceil_mode=False, count_include_pad=True):
    """Return first pixel, the one after the last, and count of each window along an axis, shape (3, outputs).

    A window that leaves the image begins at its first pixel inside; with `count_include_pad` those in the padding
    count, though not those that `ceil_mode` adds behind it. These are PyTorch's rules.

    Examples
    --------
    >>> from ndquant.integer import pool_windows
    >>> pool_windows(5, kernel=3, stride=2, padding=1)
    array([[0, 1, 3],
           [2, 4, 5],
           [3, 3, 3]], dtype=int32)
    """
    reach = dilation * (kernel - 1) + 1
    room = length + 2 * padding - reach
    if min(kernel, stride, dilation) < 1 or padding < 0 or room < 0:
        raise ValueError(f"kernel_size: a window of {reach} does not fit into {length} with padding {padding}")
    outputs = room // stride + 1
    if ceil_mode:
        outputs = -(-room // stride) + 1
        outputs -= stride * (outputs - 1) >= length + padding
    start = np.arange(outputs) * stride - padding
    end = np.minimum(start + reach, length + padding)
    inside = start + np.maximum(-(start // dilation), 0) * dilation
    stop = np.minimum(end, length)
    taps = (end - start if count_include_pad else stop - inside) + dilation - 1
    return np.stack([inside, stop, taps // dilation]).astype(np.int32)


def even_windows(length, outputs):
    """Return the windows of adaptive pooling, as `pool_windows` does.

    Examples
    --------
    >>> from ndquant.integer import even_windows
    >>> even_windows(5, 2)
    array([[0, 2],
           [3, 5],
           [3, 3]], dtype=int32)
    """
    index = np.arange(outputs)
    start, end = index * length // outputs, -(-(index + 1) * length // outputs)
    return np.stack([start, end, end - start]).astype(np.int32)


def resize_nearest(q, size, out=None):
    """Resize images to (rows, columns) by repeating or leaving out pixels, ``floor(i * H / rows)``; exact.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import integer
    >>> integer.resize_nearest(np.int8([[[[1, 2]]]]), (1, 4))
    array([[[[1, 1, 2, 2]]]], dtype=int8)
    """
    return _core.resize_codes(q, *nearest_pixels(image_size(q), pair(size, "size")), out)


def nearest_pixels(lengths, size):
    """Return for each axis the pixel that each of `size` is, ``floor(i * length / size)``, shape (1, size).

    Examples
    --------
    >>> from ndquant.integer import nearest_pixels
    >>> nearest_pixels((2,), (5,))
    [array([[0, 0, 0, 1, 1]], dtype=int32)]
    """
    return [
        (np.arange(m, dtype=np.int64) * n // max(m, 1)).astype(np.int32)[None]
        for n, m in zip(lengths, size, strict=True)
    ]


def exp_table(qparams):
    """Return ``exp(-scale * d)`` in units of 2^-23 for distances d = 0 .. 255 of codes, for `softmax`.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant.integer import exp_table
    >>> exp_table(nq.QParams(np.log(2), 0, nq.QuantSpec()))[:3]
    array([8388608, 4194304, 2097152], dtype=uint32)
    """
    steps = np.exp(-np.float64(np.float32(qparams.scale)) * np.arange(256))
    return np.rint(steps * EXP_ONE).astype(np.uint32)


def matmul(a, a_qparams, b, b_qparams, out_qparams=None, factor=1.0, out=None):
    """Multiply matrices of codes, exact sums times `factor`; error at most 0.501 steps.

    Without `out_qparams` the result is float32. Leading axes broadcast. Sums are of at most 33,025 products, so that
    none passes the range of int32.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import integer
    >>> half, one = (nq.QParams(s, 0, nq.QuantSpec()) for s in (0.5, 1.0))
    >>> integer.matmul(np.int8([[4, -9]]), half, np.int8([[3], [1]]), one, one)
    array([[2]], dtype=int8)
    """
    if np.ndim(a) < 2 or np.ndim(b) < 2:
        raise ValueError(f"matmul: expected 2 axes or more, got shapes {np.shape(a)} and {np.shape(b)}")
    if a.shape[:-2] != b.shape[:-2]:
        leading = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a, b = (np.broadcast_to(x, (*leading, *x.shape[-2:])) for x in (a, b))
    return _core.matmul_codes(a, a_qparams, b, b_qparams, factor, out_qparams, out)


def softmax(q, qparams, out_qparams, table=None, mask=None, out=None):
    """Softmax over the last axis by a table of exp, an integer sum and one division; error at most 0.501 steps.

    That is with an output scale of 2^-16 or more. `table` is what `exp_table` gives for `qparams`. `mask`, booleans
    that broadcast to `q`, is true for what is left out and gets the code of 0, as does all of a row with nothing left.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import integer
    >>> qp, out_qp = nq.QParams(0.5, 0, nq.QuantSpec()), nq.QParams(1 / 256, 0, nq.QuantSpec(signed=False))
    >>> integer.softmax(np.int8([[2, 2, 0]]), qp, out_qp)
    array([[108, 108,  40]], dtype=uint8)
    """
    table = exp_table(qparams) if table is None else table
    return _core.softmax_codes(q, table, out_qparams, None if mask is None else mask_rows(mask, np.shape(q)), out)


def mask_rows(mask, shape):
    """Return a mask for an array of `shape` as rows of bytes that repeat: without leading axes of length 1.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant.integer import mask_rows
    >>> mask_rows(np.array([[False, True]]), (5, 3, 2)).shape
    (1, 2)
    """
    mask = np.asarray(mask, bool)
    mask = mask.reshape(*(1,) * (len(shape) - mask.ndim), *mask.shape)
    while mask.ndim > 2 and len(mask) == 1:
        mask, shape = mask[0], shape[1:]
    if mask.ndim == 2 and len(mask) == 1:
        shape = (1, shape[-1])
    whole = np.empty(shape, np.uint8)
    whole[...] = mask
    return whole.reshape(prod(shape[:-1]), shape[-1])


def layer_norm(q, qparams, out_qparams, weight, bias, eps=1e-5, out=None):
    """Layer normalization over the last axis by integer sums; error at most 0.501 steps.

    That is with rows of at most 65,536 codes and results of at most 256 steps before they are clamped.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import integer
    >>> qp, out_qp = nq.QParams(0.5, 7, nq.QuantSpec(symmetric=False)), nq.QParams(0.5, 0, nq.QuantSpec())
    >>> integer.layer_norm(np.int8([[3, 7]]), qp, out_qp, np.ones(2), np.zeros(2))
    array([[-2,  2]], dtype=int8)
    """
    return _core.layer_norm_codes(q, weight, bias, eps / float(qparams.scale) ** 2, out_qparams, out)
