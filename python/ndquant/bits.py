"""Codes of fewer than 8 bits as they lie in little memory, side by side in bytes; and products of those of one bit."""

from __future__ import annotations

from . import _core
from .convolution import pair
from .errors import QuantizationError
from .qparams import QuantSpec


def pack_codes(q, spec, out=None):
    """Lay codes of a few bits side by side along the last axis: 8 codes of 1 bit in a byte, 2 of 4 bits.

    Each is stored as its distance from the lowest code, the first in the most significant bits of the first byte, as
    `numpy.packbits` does. Model files and this function share the format.

    Parameters
    ----------
    q : ndarray of int8 or uint8, shape (..., n)
        Codes of `spec`, in any strides; those of ml_dtypes (int4, uint4, int2, uint2) too.
    spec : QuantSpec
        Of at most 8 bits.
    out : ndarray of uint8, shape (..., ceil(n * bits / 8)), optional
        C-contiguous. Filled and returned.

    Returns
    -------
    ndarray of uint8, shape (..., ceil(n * bits / 8))
        Bits that are left of the last byte of a row are 0.

    Raises
    ------
    TypeError, ValueError
        If a dtype or a shape does not fit, or a value is no code of `spec`.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> nq.pack_codes(np.int8([-8, 7, 0]), nq.QuantSpec(bits=4))
    array([ 15, 128], dtype=uint8)
    """
    return _core.pack_codes(q, *_grid(spec), out)


def unpack_codes(packed, spec, length, out=None):
    """Return the codes that `pack_codes` laid side by side.

    Parameters
    ----------
    packed : ndarray of uint8, shape (..., ceil(length * bits / 8))
    spec : QuantSpec
        Of at most 8 bits.
    length : int
        Number of codes in a row: their bytes alone do not tell.
    out : ndarray, shape (..., length), optional
        C-contiguous, of ``spec.dtype``. Filled and returned.

    Returns
    -------
    ndarray of int8 or uint8, shape (..., length)
        Of ``spec.dtype``.

    Raises
    ------
    TypeError, ValueError
        If a dtype or a shape does not fit, or what is stored is no code of `spec`.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> nq.unpack_codes(np.uint8([15, 128]), nq.QuantSpec(bits=4), 3)
    array([-8,  7,  0], dtype=int8)
    """
    return _core.unpack_codes(packed, length, *_grid(spec), out)


def matmul_binary(a, w, length, out=None):
    """Multiply signs that are packed to bits: 1 stands for +1, 0 for -1. Exact.

    A product of signs is the XNOR of bits, so that a sum is ``length - 2 * popcount(a ^ w)`` (XNOR-Net: Rastegari et
    al., 2016, https://arxiv.org/abs/1603.05279).

    Parameters
    ----------
    a : ndarray of uint8, shape (..., ceil(length / 8))
        Bits as `pack_codes` lays codes of one bit, in any strides.
    w : ndarray of uint8, shape (N, ceil(length / 8))
        As many bits for each of N outputs.
    length : int
        Number of signs in a row. What is left of the last byte is not looked at.
    out : ndarray of int32, shape (..., N), optional
        C-contiguous. Filled and returned.

    Returns
    -------
    ndarray of int32, shape (..., N)

    Raises
    ------
    TypeError, ValueError
        If a dtype or a shape does not fit.
    QuantizationError
        If a sum could pass the range of int32.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> signs, spec = np.int8([[1, -1, 1], [-1, -1, 1]]), nq.QuantSpec(1, signed=False, symmetric=False)
    >>> bits = nq.pack_codes((signs > 0).astype(np.uint8), spec)
    >>> nq.matmul_binary(bits, bits, 3)
    array([[3, 1],
           [1, 3]], dtype=int32)
    """
    try:
        return _core.matmul_binary(a, w, length, out)
    except OverflowError as error:
        raise QuantizationError(str(error)) from None


def conv2d_binary(x, w, channels, stride=1, padding=0, dilation=1, out=None):
    """Convolve images of signs that are packed to bits along the channels. Exact; padding adds nothing to a sum.

    Parameters
    ----------
    x : ndarray of uint8, shape (N, H, W, ceil(channels / 8))
        Bits as `pack_codes` lays codes of one bit: 1 stands for +1, 0 for -1.
    w : ndarray of uint8, shape (O, KH, KW, ceil(channels / 8))
    channels : int
        What is left of the last byte of a pixel is not looked at.
    stride, padding, dilation : int or tuple of int, default 1, 0 and 1
        Along y and x.
    out : ndarray of int32, shape (N, OH, OW, O), optional
        C-contiguous. Filled and returned.

    Returns
    -------
    ndarray of int32, shape (N, OH, OW, O)
        Channels last, as the input: ``transpose(0, 3, 1, 2)`` views it as the other functions lay images.

    Raises
    ------
    TypeError, ValueError
        If a dtype or a shape does not fit.
    QuantizationError
        If a sum could pass the range of int32.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> x, w = np.full((1, 3, 3, 1), 0x80, np.uint8), np.full((1, 3, 3, 1), 0x80, np.uint8)
    >>> nq.conv2d_binary(x, w, 1, padding=1)[0, :, :, 0]
    array([[4, 6, 4],
           [6, 9, 6],
           [4, 6, 4]], dtype=int32)
    """
    geometry = pair(stride, "stride"), pair(padding, "padding"), pair(dilation, "dilation")
    try:
        return _core.conv2d_binary(x, w, channels, geometry, out)
    except OverflowError as error:
        raise QuantizationError(str(error)) from None


def _grid(spec):
    if not isinstance(spec, QuantSpec):
        raise TypeError(f"spec: expected a QuantSpec, got {type(spec).__name__}")
    if spec.bits > 8:
        raise ValueError(f"spec: codes of at most 8 bits can be packed, got {spec.bits}")
    return spec.bits, spec.qmin, spec.qmax
