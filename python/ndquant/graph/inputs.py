"""What may enter a network."""

from __future__ import annotations

import numpy as np

from ..formats import of_numpy_type
from ..ops import Indices

_FLOAT32 = np.dtype(np.float32)


def as_inputs(inputs):
    """Cast the arrays that enter a network to float32, integers and booleans to int64."""
    if not inputs:
        raise TypeError("a network needs at least one input array")
    return tuple(_as_input(x) for x in inputs)


def _as_input(x):
    if type(x) is np.ndarray and x.dtype == _FLOAT32 and x.ndim > 1 and x.flags.c_contiguous:
        return x
    array = of_numpy_type(np.asarray(x))
    if isinstance(x, np.ma.MaskedArray) or array.dtype.kind not in "fiub":
        got = "a masked array" if isinstance(x, np.ma.MaskedArray) else array.dtype
        raise TypeError(f"input: expected an array of floats, not {got}")
    if array.dtype.kind != "f" and array.ndim:
        return np.ascontiguousarray(array, np.int64)
    if array.ndim < 2:
        raise ValueError(f"input: the first axis is the batch, so an array of shape {array.shape} lacks one")
    return np.ascontiguousarray(array, np.float32)


def input_shape(x):
    """Return the shape of an array of `as_inputs` without the batch axis."""
    return x.shape[1:] if x.dtype == _FLOAT32 else Indices(x.shape[1:])
