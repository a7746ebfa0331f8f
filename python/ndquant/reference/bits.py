"""Codes as bits side by side, and products of signs, as they are defined."""

from __future__ import annotations

import numpy as np


def pack_codes(q, bits, qmin):
    """Return the distances of codes from the lowest one as `bits` bits each, along the last axis, the first bit first.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.pack_codes(np.int8([-8, 7, 0]), 4, -8)
    array([ 15, 128], dtype=uint8)
    """
    distance = (q.astype(np.int16) - qmin).astype(np.uint8)
    unpacked = np.unpackbits(distance[..., None], axis=-1)[..., 8 - bits :]
    return np.packbits(unpacked.reshape(*q.shape[:-1], q.shape[-1] * bits), axis=-1)


def unpack_codes(packed, bits, qmin, length):
    """Return what `pack_codes` has packed, as int16.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.unpack_codes(np.uint8([15, 128]), 4, -8, 3)
    array([-8,  7,  0], dtype=int16)
    """
    unpacked = np.unpackbits(packed, axis=-1, count=length * bits).reshape(*packed.shape[:-1], length, bits)
    return unpacked @ (1 << np.arange(bits)[::-1]).astype(np.int16) + np.int16(qmin)


def signs(bits, length):
    """Return bits along the last axis as int64, -1 for 0 and +1 for 1.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.signs(np.uint8([0b10100000]), 3)
    array([ 1, -1,  1])
    """
    return 2 * np.unpackbits(bits, axis=-1, count=length).astype(np.int64) - 1


def matmul_binary(a, w, length):
    """Return the products of packed signs, (..., B) by (N, B), as int32.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.matmul_binary(np.uint8([[0b10100000]]), np.uint8([[0b11100000]]), 3)
    array([[1]], dtype=int32)
    """
    return (signs(a, length) @ signs(w, length).T).astype(np.int32)


def conv2d_binary(x, w, channels, stride, padding, dilation):
    """Return the convolution of packed signs, channels last, as int32; what lies outside an image is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> x, w = np.full((1, 1, 2, 1), 0x80, np.uint8), np.full((1, 1, 3, 1), 0x80, np.uint8)
    >>> reference.conv2d_binary(x, w, 1, (1, 1), (0, 1), (1, 1)).ravel()
    array([2, 2], dtype=int32)
    """
    taps = signs(w, channels)
    (ph, pw), (dh, dw) = padding, dilation
    image = np.pad(signs(x, channels), ((0, 0), (ph, ph), (pw, pw), (0, 0)))
    reach = 1 + (taps.shape[1] - 1) * dh, 1 + (taps.shape[2] - 1) * dw
    windows = np.lib.stride_tricks.sliding_window_view(image, reach, axis=(1, 2))
    windows = windows[:, :: stride[0], :: stride[1], :, ::dh, ::dw]
    return np.einsum("nyxcij,oijc->nyxo", windows, taps).astype(np.int32)
