"""Arrays under a name of a module or quantizer."""

from __future__ import annotations

import numpy as np

from .layout import swap_channels


class _Array:
    """An array under a name of a module."""

    __slots__ = ("data",)

    def assign(self, value, name):
        """Replace the array by a copy of `value`, which must have its shape."""
        value = np.asarray(value)
        if value.dtype.kind not in "fiu":
            raise TypeError(f"{name}: expected numbers, not {value.dtype}")
        if value.shape != self.data.shape:
            raise ValueError(f"{name}: expected shape {self.data.shape}, not {value.shape}")
        self.data = value.astype(self.data.dtype, order="C")

    def __repr__(self):
        return f"{type(self).__name__}({self.data.dtype}{list(self.data.shape)})"


class Parameter(_Array):
    """An array that training changes, with its gradient.

    Parameters
    ----------
    data : array_like
        Copied to float32.

    Attributes
    ----------
    data : ndarray of float32
    grad : ndarray of float32 or None
        Written by ``backward``.

    Examples
    --------
    >>> from ndquant import nn
    >>> class Scaled(nn.Module):
    ...     def __init__(self):
    ...         self.weight = nn.Parameter([1.0, 2.0])
    >>> Scaled().weight
    array([1., 2.], dtype=float32)
    """

    __slots__ = ("grad",)

    def __init__(self, data):
        self.data = np.array(data, np.float32, order="C")
        self.grad = None

    @property
    def storage(self):
        """The parameter whose array changes when elements of this one do: itself."""
        return self


def to_half(x, dtype):
    """Return float32 as what a file stores of it: float16, or the upper 16 bits, rounded to even, for bfloat16."""
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return x.astype(np.float16)
    bits = x.view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def from_half(stored):
    """Return what `to_half` made as float32."""
    if stored.dtype == np.float16:
        return stored.astype(np.float32)
    return (stored.astype(np.uint32) << 16).view(np.float32)


class HalfParameter(Parameter):
    """A parameter that files store in 16 bits; the array holds the float32 numbers that these stand for.

    Parameters
    ----------
    data : array_like
    dtype : {"float16", "bfloat16"}
    """

    __slots__ = ("dtype",)

    def __init__(self, data, dtype):
        super().__init__(data)
        self.dtype = dtype
        self.data = from_half(to_half(self.data, dtype))

    def assign(self, value, name):
        """Replace the array by `value`, rounded to 16 bits."""
        super().assign(value, name)
        self.data = from_half(to_half(self.data, self.dtype))


class Buffer(_Array):
    """An array of a layer's state that gradients do not change, such as running statistics.

    Parameters
    ----------
    data : array_like
        Copied: integers to int64, anything else to float32.

    Attributes
    ----------
    data : ndarray of float32 or int64

    Examples
    --------
    >>> from ndquant import nn
    >>> class Centred(nn.Module):
    ...     def __init__(self, mean):
    ...         self.mean = nn.Buffer(mean)
    ...     def forward(self, x):
    ...         return x - self.mean
    >>> Centred([1.0, 2.0]).state_dict()
    {'mean': array([1., 2.], dtype=float32)}
    """

    __slots__ = ()

    def __init__(self, data):
        data = np.asarray(data)
        self.data = np.array(data, np.int64 if data.dtype.kind in "iu" else np.float32, order="C")


class ParameterView(Parameter):
    """Part of another parameter, or the same elements in another shape, for an op that wants them so.

    Parameters
    ----------
    base : Parameter
    index : tuple
        A basic index of its array, such as ``(slice(0, 4),)``.
    """

    __slots__ = ("base", "index")

    def __init__(self, base, index):
        self.base, self.index = base, index

    @property
    def data(self):
        """The part of the array."""
        return self.base.data[self.index]

    @data.setter
    def data(self, value):
        whole = self.base.data.astype(value.dtype)
        whole[self.index] = value
        self.base.data = whole

    @property
    def grad(self):
        """The part of the gradient; setting it leaves the other parts as they are, at first 0."""
        return None if self.base.grad is None else self.base.grad[self.index]

    @grad.setter
    def grad(self, value):
        if value is None:
            self.base.grad = None
            return
        if self.base.grad is None:
            self.base.grad = np.zeros_like(self.base.data)
        self.base.grad[self.index] = value

    def __reduce__(self):
        return ParameterView, (self.base, self.index)


class SwappedParameter(Parameter):
    """A weight (C, O / groups, ...) as (O, C / groups, ...), for an op that wants its outputs first.

    Parameters
    ----------
    base : Parameter
    groups : int
    """

    __slots__ = ("base", "groups")

    def __init__(self, base, groups):
        self.base, self.groups = base, groups

    def _swapped(self, array):
        swapped = None if array is None else swap_channels(array, self.groups)
        if self.groups > 1 and swapped is not None:
            swapped.flags.writeable = False  # a copy: what is written into it would be lost
        return swapped

    @property
    def storage(self):
        """The parameter that has the elements in memory."""
        return self.base

    @property
    def data(self):
        """The array with its axes exchanged."""
        return self._swapped(self.base.data)

    @data.setter
    def data(self, value):
        self.base.data = np.ascontiguousarray(self._swapped(value))

    @property
    def grad(self):
        """The gradient, likewise."""
        return self._swapped(self.base.grad)

    @grad.setter
    def grad(self, value):
        self.base.grad = None if value is None else np.ascontiguousarray(self._swapped(value))

    def __reduce__(self):
        return SwappedParameter, (self.base, self.groups)
