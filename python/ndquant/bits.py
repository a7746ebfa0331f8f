"""Codes of fewer than 8 bits as they lie in little memory: side by side in bytes."""

from __future__ import annotations

from . import _core
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


def _grid(spec):
    if not isinstance(spec, QuantSpec):
        raise TypeError(f"spec: expected a QuantSpec, got {type(spec).__name__}")
    if spec.bits > 8:
        raise ValueError(f"spec: codes of at most 8 bits can be packed, got {spec.bits}")
    return spec.bits, spec.qmin, spec.qmax
