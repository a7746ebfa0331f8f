"""The types that say how values are quantized: `QuantSpec`, the grid of codes, and `QParams`, where it lies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from . import _core
from .profiles import SMALLEST_SCALE, find_profile
from .tables import html_table

#: The rule of the core by rounding and `QuantSpec.zero_aligned`.
_RULES = {
    ("multiply", True): _core.MULTIPLY,
    ("divide", True): _core.DIVIDE,
    ("textbook", True): _core.TEXTBOOK,
    ("multiply", False): _core.OFFSET,
    ("textbook", False): _core.OFFSET_F64,
}

#: Zero points are kept exactly in float64.
_LARGEST_ZERO_POINT = 2**53


@dataclass(frozen=True)
class QuantSpec:
    """The codes that values are mapped to, and how a range is laid over them.

    Parameters
    ----------
    bits : int, default 8
        1 to 32. With more than 16, all is computed in float64 whatever the data are.
    signed : bool, default True
        Codes -2^(bits-1) .. 2^(bits-1)-1, or 0 .. 2^bits-1.
    symmetric : bool, default True
        Ranges are chosen symmetric around 0, with the zero point in the middle of the codes.
    axis : int, optional
        One scale for each index along this axis; None is one for the whole array. May count from the end.
    group_size : int, optional
        One scale for each run of so many elements along `axis`, by default along the last one; scales have the shape of
        the array with that axis divided by `group_size`, as in ONNX's blocked quantization.
    narrow_range : bool, default False
        Leave out the lowest code, so that symmetric codes are -127 .. 127.
    zero_aligned : bool, default True
        Whether 0 is a code exactly. If not, a float offset takes the place of the zero point,
        ``code = clamp(rint((x - offset) / scale))``, and the ends of a range are the lowest and the highest code.
        Integer layers cannot compute with such codes.

    Examples
    --------
    >>> import ndquant as nq
    >>> spec = nq.QuantSpec(bits=4, axis=0)
    >>> spec.qmin, spec.qmax, spec.dtype
    (-8, 7, dtype('int8'))
    """

    bits: int = 8
    signed: bool = True
    symmetric: bool = True
    axis: int | None = None
    group_size: int | None = None
    narrow_range: bool = False
    zero_aligned: bool = True

    def __post_init__(self):
        for name in ("signed", "symmetric", "narrow_range", "zero_aligned"):
            value = getattr(self, name)
            if not isinstance(value, (bool, np.bool_)):
                raise TypeError(f"{name}: must be True or False, got {value!r}")
            object.__setattr__(self, name, bool(value))
        if not _is_int(self.bits):
            raise TypeError(f"bits: must be an int, got {self.bits!r}")
        if not 1 <= self.bits <= 32:
            raise ValueError(f"bits: must be 1 to 32, got {self.bits}")
        check_axis(self.axis)
        if self.group_size is not None:
            self._check_group_size()
        if self.bits == 1:
            self._check_one_bit()

    def _check_group_size(self):
        if not _is_int(self.group_size):
            raise TypeError(f"group_size: must be an int or None, got {self.group_size!r}")
        if self.group_size < 1:
            raise ValueError(f"group_size: must be at least 1, got {self.group_size}")
        if self.axis is None:
            object.__setattr__(self, "axis", -1)

    def _check_one_bit(self):
        if self.symmetric and self.zero_aligned:
            raise ValueError(
                "bits=1 with symmetric=True has no code on one side of 0: "
                "that is a binary quantizer (-1, +1), which this grid cannot express; use symmetric=False"
            )
        if self.narrow_range:
            raise ValueError("bits=1 with narrow_range=True leaves a single code")

    @property
    def qmin(self):
        """The lowest code."""
        return (-(2 ** (self.bits - 1)) if self.signed else 0) + self.narrow_range

    @property
    def qmax(self):
        """The highest code."""
        return 2 ** (self.bits - self.signed) - 1

    @cached_property
    def _grid(self):
        """What the core wants to know of a spec."""
        return self.qmin, self.qmax, self.bits, self.symmetric

    @property
    def dtype(self):
        """The smallest NumPy dtype that holds the codes."""
        size = 8 if self.bits <= 8 else 16 if self.bits <= 16 else 32
        return np.dtype(f"{'' if self.signed else 'u'}int{size}")

    @cached_property
    def is_byte_grid(self):
        """Whether integer layers can take such codes: up to 8 bits, an integer zero point, none per group."""
        return self.bits <= 8 and self.zero_aligned and self.group_size is None

    def _shape_fits(self, shape):
        """Whether scales may have this shape: one, one for each channel, or an array that has the axis."""
        if self.axis is None:
            return shape == ()
        if self.group_size is None:
            return len(shape) == 1
        return -len(shape) <= self.axis < len(shape)

    @property
    def _shape_text(self):
        """Which shapes of scales `_shape_fits` allows, for an error message."""
        if self.axis is None:
            return "a single number (spec.axis is None)"
        if self.group_size is None:
            return f"1-D, as spec.axis is {self.axis}"
        return f"an array that has axis {self.axis}, as there is one for each group on it"


def check_axis(axis):
    """Raise unless `axis` is an int or None."""
    if axis is not None and not _is_int(axis):
        raise TypeError(f"axis: must be an int or None, got {axis!r}")


def _is_int(value):
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))


class QParams:
    """Scale and zero point: ``real = scale * (code - zero_point)``. Immutable.

    Parameters
    ----------
    scale : float or array, shape () or (channels,) or that of the groups
        Finite, at least 2^-126. Keeps its dtype if it is a float32 or float64 of NumPy; numbers of Python are float64.
    zero_point : int or array of int
        The code of 0, of the shape of `scale` or one for all channels. One of the codes, except in profile `textbook`.
        With ``spec.zero_aligned=False`` a float, kept in the dtype of `scale`: the value of code 0,
        ``real = scale * code + zero_point``.
    spec : QuantSpec
        Per channel if `spec.axis` is not None, per group if `spec.group_size` is not None.
    profile : {"default", "torch", "onnx", "textbook"}, default "default"

    Examples
    --------
    >>> import ndquant as nq
    >>> qp = nq.QParams(0.5, 3, nq.QuantSpec(bits=4, signed=False, symmetric=False))
    >>> qp
    QParams(uint4, scale=0.5, zero_point=3)
    >>> qp.range
    (np.float64(-1.5), np.float64(6.0))
    """

    def __init__(self, scale, zero_point, spec, *, profile="default"):
        if not isinstance(spec, QuantSpec):
            raise TypeError(f"spec: expected a QuantSpec, got {type(spec).__name__}")
        row = find_profile(profile)
        row.check_spec(spec)
        scale = _checked_scale(scale, spec)
        check = _checked_zero_point if spec.zero_aligned else _checked_offset
        zero_point = check(zero_point, scale, spec, row)
        self.__dict__.update(scale=_frozen(scale), zero_point=_frozen(zero_point), spec=spec, profile=row.name)

    @classmethod
    def from_range(cls, low, high, spec, *, profile="default"):
        """Return the `QParams` that the profile gives to a range of values.

        Parameters
        ----------
        low, high : float or array, shape () or (channels,) or that of the groups
            Finite, ``low <= high``. The scale is float32 if both are float32 or float16 of NumPy, else float64.
        spec : QuantSpec
        profile : {"default", "torch", "onnx", "textbook"}, default "default"

        Returns
        -------
        QParams

        Examples
        --------
        >>> import ndquant as nq
        >>> nq.QParams.from_range(-2.5, 2.5, nq.QuantSpec(bits=8, signed=False, symmetric=False))
        QParams(uint8, scale=0.0196078, zero_point=128)
        """
        if not isinstance(spec, QuantSpec):
            raise TypeError(f"spec: expected a QuantSpec, got {type(spec).__name__}")
        low, high = _checked_range(low, high)
        if not spec._shape_fits(low.shape):
            raise ValueError(f"low, high: must be {spec._shape_text}, got shape {low.shape}")
        return cls._of_range(low, high, spec, find_profile(profile))

    @classmethod
    def _of_range(cls, low, high, spec, profile):
        """Do what `from_range` does for a range that is known to be good: quantization-aware training does it often."""
        scale, zero_point = profile.scale_zero_point(low, high, spec)
        largest = scale.max(initial=0) if scale.ndim else scale
        if not largest < np.inf:
            limits = f"{low.min():g} to {high.max():g}"
            raise ValueError(f"low, high: the scale of {limits} passes the range of {scale.dtype}")
        qparams = cls.__new__(cls)
        if spec.zero_aligned:
            is_int32 = spec.bits <= 16 and not profile.any_zero_point
            zero_point = zero_point.astype(np.int32) if is_int32 else _narrowed(zero_point)
        qparams.__dict__.update(scale=_frozen(scale), zero_point=_frozen(zero_point), spec=spec, profile=profile.name)
        return qparams

    @classmethod
    def _of_core(cls, scale, zero_point, spec, profile, params):
        """Wrap what a function of the core has chosen, with the `_core.Params` that it made."""
        qparams = cls.__new__(cls)
        fields = qparams.__dict__
        fields["scale"], fields["zero_point"], fields["spec"] = scale, zero_point, spec
        fields["profile"], fields["_params"] = profile, params
        return qparams

    @property
    def range(self):
        """The smallest and the largest value that codes stand for, each of the shape and dtype of `scale`."""
        kind = self.scale.dtype.type
        if not self.spec.zero_aligned:
            return tuple((self.scale * kind(q) + self.zero_point)[()] for q in (self.spec.qmin, self.spec.qmax))
        zero_point = self.zero_point.astype(np.int64)
        steps = (np.asarray(q - zero_point).astype(kind) for q in (self.spec.qmin, self.spec.qmax))
        return tuple((self.scale * n)[()] for n in steps)

    @cached_property
    def _params(self):
        """The same for the kernels."""
        scale, zero_point, spec = np.asarray(self.scale), np.asarray(self.zero_point), self.spec
        rule, group_size = _RULES[find_profile(self.profile).rounding, spec.zero_aligned], spec.group_size or 0
        return _core.Params(scale, zero_point, spec.qmin, spec.qmax, spec.axis, group_size, rule)

    def __setattr__(self, name, value):
        raise AttributeError(f"QParams is immutable: make a new one to change {name}")

    def __delattr__(self, name):
        raise AttributeError(f"QParams is immutable: {name} cannot be deleted")

    def __eq__(self, other):
        if not isinstance(other, QParams):
            return NotImplemented
        return (
            (self.spec, self.profile, self.scale.dtype) == (other.spec, other.profile, other.scale.dtype)
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )

    __hash__ = None

    def __reduce__(self):
        return _restore, (self.scale, self.zero_point, self.spec, self.profile)

    def _repr_html_(self):
        spec = self.spec
        kind = f"{'' if spec.signed else 'u'}int{spec.bits}, codes {spec.qmin} to {spec.qmax}"
        low, high = self.range
        rows = [("integers", kind), ("scale", _span(self.scale)), ("zero point", _span(self.zero_point))]
        rows += [("range", f"{np.min(low):.6g} to {np.max(high):.6g}"), ("profile", self.profile)]
        if spec.axis is not None:
            rows.insert(1, ("scales", f"{self.scale.size}, on axis {spec.axis}"))
        return html_table(("QParams", ""), rows)

    def __repr__(self):
        kind = f"{'' if self.spec.signed else 'u'}int{self.spec.bits}"
        profile = "" if self.profile == "default" else f", {self.profile}"
        axis, group_size, n = self.spec.axis, self.spec.group_size, self.scale.size
        if axis is None:
            zero_point = f"{self.zero_point:d}" if self.spec.zero_aligned else f"{self.zero_point:.6g}"
            return f"QParams({kind}, scale={self.scale:.6g}, zero_point={zero_point}{profile})"
        scales = f"scale {self.scale.min():.3g}..{self.scale.max():.3g}" if n else "no scale"
        where = f"axis={axis}, {n} channels" if group_size is None else f"{n} groups of {group_size} on axis {axis}"
        return f"QParams({kind}, {where}, {scales}{profile})"


def _span(values):
    """Return a number, or the smallest and the largest of several."""
    low, high = np.min(values), np.max(values)
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"


def _restore(scale, zero_point, spec, profile):
    return QParams(scale, zero_point, spec, profile=profile)


def _frozen(array):
    """Return a NumPy scalar, or an array that nobody can write to."""
    if array.ndim:
        array.flags.writeable = False
    return array[()]


def _float_type(*values):
    """Return float32 if all values are float32 or float16 of NumPy, else float64."""
    narrow = all(getattr(value, "dtype", None) in (np.float32, np.float16) for value in values)
    return np.float32 if narrow else np.float64


def _numbers(value, name, kinds, what):
    """Return a new array of `value`, whose dtype must be of one of the `kinds`."""
    array = np.array(value)
    if array.dtype.kind not in kinds or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: must be {what}, got {array.dtype} {value!r}")
    return array


def _first_bad(array, bad, name):
    """Return the argument and the first value that is bad, for an error message."""
    index = int(np.flatnonzero(bad)[0])
    return (f"{name}[{index}]" if array.ndim else name), array.reshape(-1)[index]


def _checked_scale(scale, spec):
    array = _numbers(scale, "scale", "fiu", "a real number or an array of them").astype(_float_type(scale))
    if not spec._shape_fits(array.shape):
        raise ValueError(f"scale: must be {spec._shape_text}, got shape {array.shape}")
    bad = ~(np.isfinite(array) & (array >= SMALLEST_SCALE))
    if bad.any():
        name, value = _first_bad(array, bad, "scale")
        raise ValueError(f"{name}: must be finite and at least 2**-126, got {value}")
    return array


def _checked_zero_point(zero_point, scale, spec, profile):
    array = _numbers(zero_point, "zero_point", "iu", "an integer or an array of them")
    low, high = spec.qmin, spec.qmax
    if profile.any_zero_point:
        low, high = -_LARGEST_ZERO_POINT, _LARGEST_ZERO_POINT
    bad = (array < low) | (array > high)
    if bad.any():
        name, value = _first_bad(array, bad, "zero_point")
        raise ValueError(f"{name}: must be {low} to {high}, got {value}")
    return _narrowed(_like_scale(array, scale).astype(np.int64))


def _checked_offset(offset, scale, spec, profile):
    with np.errstate(over="ignore"):
        array = _numbers(offset, "zero_point", "fiu", "a real number or an array of them").astype(scale.dtype)
    bad = ~np.isfinite(array)
    if bad.any():
        name, value = _first_bad(array, bad, "zero_point")
        raise ValueError(f"{name}: must be a finite {scale.dtype} as scale, got {value}")
    return _like_scale(array, scale).copy()


def _like_scale(zero_point, scale):
    """Return zero points in the shape of `scale`: one may serve all."""
    if zero_point.ndim and zero_point.shape != scale.shape:
        raise ValueError(
            f"zero_point: must have shape {scale.shape} as scale, or be one number, got shape {zero_point.shape}"
        )
    return np.broadcast_to(zero_point, scale.shape)


def _narrowed(zero_point):
    """Return zero points as int32 if they fit."""
    fits = not zero_point.size or (abs(zero_point) < 2**31).all()
    return zero_point.astype(np.int32) if fits else zero_point


def _checked_range(low, high):
    kind = _float_type(low, high)
    ends = (low, "low"), (high, "high")
    arrays = [_numbers(value, name, "fiu", "a real number or an array of them") for value, name in ends]
    for array, name in zip(arrays, ("low", "high"), strict=True):
        bad = ~np.isfinite(array)
        if bad.any():
            name, value = _first_bad(array, bad, name)
            raise ValueError(f"{name}: must be finite, got {value}")
    low, high = np.broadcast_arrays(*(np.asarray(array, kind) for array in arrays))
    bad = low > high
    if bad.any():
        name, value = _first_bad(low, bad, "low")
        raise ValueError(f"{name}: must not be above high, got {value} > {high[bad].flat[0]}")
    return low, high
