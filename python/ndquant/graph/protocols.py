"""What NumPy's functions and operators record when `forward` applies them to traced values.

Each handler takes the arguments of its NumPy function. An argument that it does not name is not supported.
"""

from __future__ import annotations

import operator

import numpy as np

#: Functions of one or two values that are ops of the same meaning.
UFUNCS = {
    np.add: "add",
    np.subtract: "subtract",
    np.multiply: "multiply",
    np.divide: "divide",
    np.matmul: "matmul",
    np.tanh: "tanh",
}


def record_ufunc(record, ufunc, inputs):
    """Record a universal function of `inputs`, or return NotImplemented."""
    if ufunc in UFUNCS:
        return record(UFUNCS[ufunc], *inputs)
    if ufunc is np.negative:
        return record("multiply", *inputs, -1.0)
    if ufunc is np.maximum:
        for x, other in (inputs, inputs[::-1]):
            if isinstance(other, int | float | np.number | np.ndarray) and np.ndim(other) == 0 and other == 0:
                return record("relu", x)
    return NotImplemented


def _axis(axis, rank):
    """Return an axis counted from the front."""
    axis = operator.index(axis)
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} is outside an array of {rank} axes")
    return axis % rank


def _reshape(record, a, /, shape):
    return a.reshape(shape)


def _transpose(record, a, axes=None):
    axes = range(a.ndim)[::-1] if axes is None else axes
    return record("transpose", a, attributes={"axes": tuple(_axis(axis, a.ndim) for axis in axes)})


def _swapaxes(record, a, axis1, axis2):
    axes = list(range(a.ndim))
    first, second = _axis(axis1, a.ndim), _axis(axis2, a.ndim)
    axes[first], axes[second] = second, first
    return _transpose(record, a, axes)


def _mean(record, a, axis=None, *, keepdims=False):
    axes = range(a.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    axes = tuple(_axis(axis, a.ndim) for axis in axes)
    return record("mean", a, attributes={"axes": axes, "keepdims": keepdims})


def _concatenate(record, arrays, axis=0):
    arrays = list(arrays)
    rank = next(x.ndim for x in arrays if hasattr(x, "_trace"))
    return record("concatenate", *arrays, attributes={"axis": _axis(axis, rank)})


def _pad(record, array, pad_width, mode="constant", *, constant_values=0):
    if mode != "constant" or np.ndim(constant_values):
        raise ValueError(f"pad: only mode 'constant' with one value is supported, not {mode!r}, {constant_values!r}")
    width = np.broadcast_to(np.asarray(pad_width), (array.ndim, 2)).tolist()
    return record("pad", array, attributes={"width": width, "value": constant_values})


FUNCTIONS = {
    np.shape: lambda record, a: a.shape,
    np.ndim: lambda record, a: a.ndim,
    np.reshape: _reshape,
    np.transpose: _transpose,
    np.swapaxes: _swapaxes,
    np.mean: _mean,
    np.concatenate: _concatenate,
    np.pad: _pad,
}


def basic_index(key, rank):
    """Return the attribute of `slice` for an index of an array of `rank` axes."""
    key = key if isinstance(key, tuple) else (key,)
    at = [i for i, part in enumerate(key) if part is Ellipsis] or [len(key)]
    before, after = key[: at[0]], key[at[0] + 1 :]
    if len(at) > 1 or len(before) + len(after) > rank:
        raise IndexError(f"too many indices for {rank} axes: {key!r}")
    key = (*before, *[slice(None)] * (rank - len(before) - len(after)), *after)
    return tuple(_part(part) for part in key)


def _part(part):
    if isinstance(part, slice):
        return part.start, part.stop, part.step
    if isinstance(part, bool) or not isinstance(part, int | np.integer):
        raise TypeError(f"only slices, integers and ... can index a traced array, not {part!r}")
    return int(part)
