"""Codes as bits side by side, as that is defined."""

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
