"""Numbers of 16 bits, as they are defined: a multiple of a power of two, rounded to the nearest, ties to even."""

from __future__ import annotations

import numpy as np

#: {dtype: (bits of the significand, smallest exponent, largest number)}
_FORMATS = {"float16": (11, -14, 65504.0), "bfloat16": (8, -126, float.fromhex("0x1.fep127"))}


def round_to_half(x, dtype):
    """Return float32 numbers rounded to those that 16 bits hold; infinite beyond the largest.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.round_to_half(np.float32([1 + 2**-8, 1 + 3 * 2**-8]), "bfloat16")
    array([1.      , 1.015625], dtype=float32)
    """
    bits, least, largest = _FORMATS[dtype]
    wide = x.astype(np.float64)
    _, exponents = np.frexp(wide)
    steps = np.ldexp(1.0, np.maximum(exponents - 1, least) - (bits - 1))
    y = np.rint(wide / steps) * steps
    return np.where(np.abs(y) > largest, np.copysign(np.inf, y), y).astype(np.float32)
