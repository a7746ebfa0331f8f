"""Integer convolutions as they are defined, in int64 of NumPy.

Shape letters: N images, C channels, H x W pixels, O outputs, windows of KH x KW taps. Pairs are (along y, along x).
"""

from __future__ import annotations

import numpy as np

from .gemm import fit_int32


def conv2d_s32(
    x, w, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, x_zero_point=0, w_zero_point=0, bias=None
):
    """Return the convolution of ``x - x_zero_point``, padded with zeros, by ``w - w_zero_point``, plus bias, as int32.

    Parameters
    ----------
    x : ndarray of int, shape (N, C, H, W)
    w : ndarray of int, shape (O, C / groups, KH, KW)
    stride, padding, dilation : tuple of two int
    groups : int
    x_zero_point : int
    w_zero_point : int or ndarray of int, shape (O,)
    bias : ndarray of int, shape (O,), optional

    Returns
    -------
    ndarray of int32, shape (N, O, OH, OW)

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.conv2d_s32(np.arange(9).reshape(1, 1, 3, 3), np.ones((1, 1, 2, 2), int))
    array([[[[ 8, 12],
             [20, 24]]]], dtype=int32)
    """
    w = w.astype(np.int64) - np.asarray(w_zero_point, np.int64).reshape(-1, 1, 1, 1)
    border = [(0, 0), (0, 0), *((p, p) for p in padding)]
    x = np.pad(x.astype(np.int64) - np.int64(x_zero_point), border)
    sizes = [(x.shape[2 + i] - dilation[i] * (w.shape[2 + i] - 1) - 1) // stride[i] + 1 for i in range(2)]
    y = np.zeros((x.shape[0], w.shape[0], *sizes), np.int64)
    for ky, kx in np.ndindex(w.shape[2:]):
        rows, columns = (
            slice(k * d, k * d + s * (n - 1) + 1, s)
            for k, d, s, n in zip((ky, kx), dilation, stride, sizes, strict=True)
        )
        y += _by_group(x[:, :, rows, columns], w[:, :, ky, kx], groups)
    if bias is not None:
        y += bias.astype(np.int64).reshape(-1, 1, 1)
    return fit_int32(y)


def conv_transpose2d_s32(
    x,
    w,
    stride=(1, 1),
    padding=(0, 0),
    output_padding=(0, 0),
    groups=1,
    dilation=(1, 1),
    x_zero_point=0,
    w_zero_point=0,
):
    """Return the transposed convolution: each pixel adds its multiple of the window to an output, which is cropped.

    Parameters
    ----------
    x : ndarray of int, shape (N, C, H, W)
    w : ndarray of int, shape (C, O / groups, KH, KW)
    stride, padding, output_padding, dilation : tuple of two int
    groups : int
    x_zero_point : int
    w_zero_point : int or ndarray of int, shape (O,)

    Returns
    -------
    ndarray of int32, shape (N, O, OH, OW)

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.conv_transpose2d_s32(np.int8([[[[1, 2]]]]), np.int8([[[[3, 4]]]]), stride=(1, 2))
    array([[[[3, 4, 6, 8]]]], dtype=int32)
    """
    w = np.concatenate(np.split(w.astype(np.int64), groups), axis=1).swapaxes(0, 1)
    w = w - np.asarray(w_zero_point, np.int64).reshape(-1, 1, 1, 1)
    x = x.astype(np.int64) - np.int64(x_zero_point)
    spans = [(x.shape[2 + i] - 1) * stride[i] + dilation[i] * (w.shape[2 + i] - 1) + 1 for i in range(2)]
    y = np.zeros((x.shape[0], w.shape[0], *(s + p for s, p in zip(spans, output_padding, strict=True))), np.int64)
    for ky, kx in np.ndindex(w.shape[2:]):
        rows, columns = (
            slice(k * d, k * d + s * (n - 1) + 1, s)
            for k, d, s, n in zip((ky, kx), dilation, stride, x.shape[2:], strict=True)
        )
        y[:, :, rows, columns] += _by_group(x, w[:, :, ky, kx], groups)
    py, px = padding
    return fit_int32(y[:, :, py : y.shape[2] - py, px : y.shape[3] - px])


def _by_group(x, w, groups):
    """Multiply the channels of each group, axis 1 of `x`, by its rows of `w`, shape (O, C / groups)."""
    x = x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    y = np.einsum("ngchw,goc->ngohw", x, w.reshape(groups, w.shape[0] // groups, w.shape[1]))
    return y.reshape(x.shape[0], w.shape[0], *x.shape[3:])
