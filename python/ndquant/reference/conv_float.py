"""Convolution of floats and its gradients, as they are defined: a sum over the taps of the window, in the dtype given.

Shape letters: N images, C channels, H x W pixels, O outputs, windows of KH x KW taps. All steps are (along y, along x).
"""

from __future__ import annotations

import numpy as np


def conv2d_float(x, w, b=None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    """Convolve images (N, C, H, W) with weights (O, C / groups, KH, KW) and add `b`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.conv2d_float(np.ones((1, 1, 2, 3)), np.ones((1, 1, 3, 3)), padding=(1, 1))
    array([[[[4., 6., 4.],
             [4., 6., 4.]]]])
    """
    y = 0
    padded = _padded(x, padding)
    for tap, pixels in _taps(padded.shape, w.shape[2:], stride, dilation):
        y = y + np.einsum("ngcij,goc->ngoij", _grouped(padded[pixels], groups), _split(w[:, :, *tap], groups))
    y = y.reshape(y.shape[0], w.shape[0], *y.shape[3:])
    return y if b is None else y + b[:, None, None]


def conv2d_float_input_grad(dy, w, size, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    """Return the gradient of `conv2d_float` to its images, of (H, W) `size`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.conv2d_float_input_grad(np.ones((1, 1, 1, 2)), np.float64([[[[1, 2]]]]), (1, 4), stride=(1, 2))
    array([[[[1., 2., 1., 2.]]]])
    """
    (height, width), (top, left) = size, padding
    shape = dy.shape[0], w.shape[1] * groups, height + 2 * top, width + 2 * left
    dx = np.zeros(shape, np.result_type(dy, w))
    for tap, pixels in _taps(shape, w.shape[2:], stride, dilation):
        part = np.einsum("ngoij,goc->ngcij", _grouped(dy, groups), _split(w[:, :, *tap], groups))
        dx[pixels] += part.reshape(dx[pixels].shape)
    return dx[:, :, top : top + height, left : left + width]


def conv2d_float_weight_grad(dy, x, size, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    """Return the gradient of `conv2d_float` to its weights, windows of (KH, KW) `size`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> x = np.float64([[[[1, 2, 3, 4]]]])
    >>> reference.conv2d_float_weight_grad(np.ones((1, 1, 1, 2)), x, (1, 2), stride=(1, 2))
    array([[[[4., 6.]]]])
    """
    dw = np.zeros((dy.shape[1], x.shape[1] // groups, *size), np.result_type(dy, x))
    padded = _padded(x, padding)
    for tap, pixels in _taps(padded.shape, size, stride, dilation):
        part = np.einsum("ngoij,ngcij->goc", _grouped(dy, groups), _grouped(padded[pixels], groups))
        dw[:, :, *tap] = part.reshape(dw.shape[:2])
    return dw


def _padded(x, padding):
    return np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))


def _taps(shape, size, stride, dilation):
    """Yield (ky, kx) and the index of the pixels of padded images that this tap of every window meets."""
    for ky, kx in np.ndindex(*size):
        pixels = [slice(None), slice(None)]
        for n, k, taps, step, spread in zip(shape[2:], (ky, kx), size, stride, dilation, strict=True):
            last = k * spread + n - (taps - 1) * spread
            pixels.append(slice(k * spread, last, step))
        yield (ky, kx), tuple(pixels)


def _grouped(x, groups):
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])


def _split(w, groups):
    return w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
