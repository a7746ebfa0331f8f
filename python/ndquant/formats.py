"""Floating-point formats of 8 to 64 bits: values rounded to them, their bits, and how a number is written in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .tables import html_table, text_table

__all__ = ["FORMATS", "Explanation", "Format", "decode", "encode", "explain", "fake_quantize", "fake_quantize_backward"]


@dataclass(frozen=True)
class Format:
    """A binary floating-point format: a sign bit, a biased exponent and a mantissa.

    Attributes
    ----------
    name : str
    exponent_bits, mantissa_bits : int
    has_infinity : bool
        False for float8_e4m3fn: its largest exponent holds numbers too, only the mantissa of ones is NaN.

    Examples
    --------
    >>> import ndquant as nq
    >>> [(f.name, f.bias, f.largest) for f in nq.formats.FORMATS.values() if f.bits == 8]
    [('float8_e4m3fn', 7, 448.0), ('float8_e5m2', 15, 57344.0)]
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    has_infinity: bool = True

    @property
    def bits(self):
        """Width of a code."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bias(self):
        """What is added to the power of 2 to get the exponent that is stored."""
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def smallest_power(self):
        """The power of 2 of the smallest normal number; the numbers below it have the same step."""
        return 1 - self.bias

    @property
    def largest(self):
        """The largest finite number."""
        power, steps = self.bias + (not self.has_infinity), 2 ** (self.mantissa_bits + 1) - 1 - (not self.has_infinity)
        return float(np.ldexp(float(steps), power - self.mantissa_bits))

    @property
    def dtype(self):
        """The smallest unsigned integer that holds a code."""
        return np.dtype(f"uint{self.bits}")


#: The formats by name; the names are those of NumPy and ml_dtypes.
FORMATS = {
    f.name: f
    for f in (
        Format("float64", 11, 52),
        Format("float32", 8, 23),
        Format("float16", 5, 10),
        Format("bfloat16", 8, 7),
        Format("float8_e4m3fn", 4, 3, has_infinity=False),
        Format("float8_e5m2", 5, 2),
    )
}


def fake_quantize(x, fmt, *, saturate=False):
    """Round floats to the nearest numbers of a format, ties to the even one.

    Parameters
    ----------
    x : array_like of float
    fmt : str
        "float64", "float32", "float16", "bfloat16", "float8_e4m3fn" or "float8_e5m2" (Micikevicius et al., 2022,
        https://arxiv.org/abs/2209.05433).
    saturate : bool, default False
        What is too large becomes the largest finite number; otherwise infinity, in float8_e4m3fn NaN.

    Returns
    -------
    ndarray, shape and dtype of `x`
        Rounded once, from the float64 value of `x`. What that dtype cannot hold becomes infinity. Arrays of the types
        of ml_dtypes give float32.

    Raises
    ------
    TypeError
        If `x` is no array of floats.
    ValueError
        If the format is not known.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> nq.formats.fake_quantize(np.array([3.14159, 0.1, 500.0]), "float8_e5m2")
    array([3.000e+00, 9.375e-02, 5.120e+02])
    >>> nq.formats.fake_quantize(np.array([500.0]), "float8_e4m3fn", saturate=True)
    array([448.])
    """
    x, fmt = _floats(x, "x"), find_format(fmt)
    with np.errstate(over="ignore"):
        return _rounded(x.astype(np.float64), fmt, saturate).astype(x.dtype)


def fake_quantize_backward(dy, x, fmt):
    """Straight-through gradient of `fake_quantize`: `dy` where `x` is no larger than the format's largest, else 0.

    Parameters
    ----------
    dy : array_like of float, shape of `x`
    x : array_like of float
    fmt : str
        See `fake_quantize`.

    Returns
    -------
    ndarray, shape and dtype of `dy`

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> nq.formats.fake_quantize_backward(np.array([1.0, 1.0]), np.array([3.14159, 500.0]), "float8_e4m3fn")
    array([1., 0.])
    """
    dy, x, fmt = _floats(dy, "dy"), _floats(x, "x"), find_format(fmt)
    if dy.shape != x.shape:
        raise ValueError(f"dy must have the shape {x.shape} of x, not {dy.shape}")
    return np.where(np.abs(x.astype(np.float64)) <= fmt.largest, dy, dy.dtype.type(0))


def encode(x, fmt, *, saturate=False):
    """Return the bits of `fake_quantize`, as unsigned integers.

    Parameters
    ----------
    x : array_like of float
    fmt : str
        See `fake_quantize`.
    saturate : bool, default False
        See `fake_quantize`.

    Returns
    -------
    ndarray of uint8, uint16, uint32 or uint64, shape of `x`

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> [f"{code:08b}" for code in nq.formats.encode(np.array([1.0, -0.5]), "float8_e4m3fn")]
    ['00111000', '10110000']
    """
    x, fmt = _floats(x, "x"), find_format(fmt)
    y = _rounded(x.astype(np.float64), fmt, saturate)
    finite = np.where(np.isfinite(y), np.abs(y), 0)
    power = _power(finite, fmt)
    steps = np.ldexp(finite, fmt.mantissa_bits - power).astype(np.uint64)
    # A normal number has 1 in front of its mantissa: added to the exponent below, it gives the exponent as stored.
    code = steps + ((power - fmt.smallest_power).astype(np.uint64) << np.uint64(fmt.mantissa_bits))
    special = np.uint64(2**fmt.exponent_bits - 1) << np.uint64(fmt.mantissa_bits)
    nan = special | np.uint64(2 ** (fmt.mantissa_bits - 1) if fmt.has_infinity else 2**fmt.mantissa_bits - 1)
    code = np.where(np.isinf(y), special, np.where(np.isnan(y), nan, code))
    return (code | (np.signbit(y).astype(np.uint64) << np.uint64(fmt.bits - 1))).astype(fmt.dtype)


def decode(codes, fmt):
    """Return the numbers that bits of a format stand for.

    Parameters
    ----------
    codes : ndarray of uint8, uint16, uint32 or uint64
        Of the width of the format.
    fmt : str
        See `fake_quantize`.

    Returns
    -------
    ndarray of float32, shape of `codes`
        float64 for that format.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> nq.formats.decode(np.uint8([0b00111000, 0b10110000]), "float8_e4m3fn")
    array([ 1. , -0.5], dtype=float32)
    """
    codes, fmt = np.asarray(codes), find_format(fmt)
    if codes.dtype != fmt.dtype:
        raise TypeError(f"codes of {fmt.name} must be {fmt.dtype}, not {codes.dtype}")
    codes = codes.astype(np.uint64)
    mantissa = codes & np.uint64(2**fmt.mantissa_bits - 1)
    exponent = (codes >> np.uint64(fmt.mantissa_bits)) & np.uint64(2**fmt.exponent_bits - 1)
    steps = mantissa + (exponent > 0) * np.uint64(2**fmt.mantissa_bits)
    power = np.maximum(exponent.astype(np.int64), 1) - fmt.bias - fmt.mantissa_bits
    with np.errstate(over="ignore"):
        value = np.ldexp(steps.astype(np.float64), power.astype(np.int32))
    if fmt.has_infinity:
        special = exponent == 2**fmt.exponent_bits - 1
        value = np.where(special, np.where(mantissa == 0, np.inf, np.nan), value)
    else:
        value = np.where(value > fmt.largest, np.nan, value)
    value = np.where(codes >> np.uint64(fmt.bits - 1), -value, value)
    return value.astype(np.float64 if fmt.bits == 64 else np.float32)


@dataclass(frozen=True)
class Explanation:
    """How a number is written in a format; printing it gives a table.

    Attributes
    ----------
    given : float
    format : Format
    sign, exponent, mantissa : str
        Their bits.
    value : float
        The number that is stored.
    error : float
        ``value - given``.
    """

    given: float
    format: Format
    sign: str
    exponent: str
    mantissa: str
    value: float
    error: float

    @property
    def bits(self):
        """All bits, the three parts apart."""
        return f"{self.sign} {self.exponent} {self.mantissa}"

    def _cells(self):
        stored, fmt = int(self.exponent, 2), self.format
        steps, count, leading = int(self.mantissa, 2), 2**fmt.mantissa_bits, int(stored > 0)
        power = max(stored, 1) - fmt.bias
        finite = np.isfinite(self.value)
        significand = f"{leading} + {steps}/{count} = {leading + steps / count!r}"
        return [
            ("sign", self.sign, "-" if self.sign == "1" else "+"),
            ("exponent", self.exponent, f"2^({max(stored, 1)} - {fmt.bias}) = 2^{power}" if finite else "all ones"),
            ("mantissa", self.mantissa, significand if finite else "no number"),
            ("value", "", repr(self.value)),
            ("error", "", f"{self.error:.3g}"),
        ]

    def __str__(self):
        head = f"{self.given!r} in {self.format.name}", "bits", "means"
        return text_table(head, self._cells(), left=3)

    def __repr__(self):
        return str(self)

    def _repr_html_(self):
        return html_table((f"{self.given!r} in {self.format.name}", "bits", "means"), self._cells())


def explain(value, fmt):
    """Show how a number is written in a format: sign, exponent, mantissa, the value stored, and the error.

    Parameters
    ----------
    value : float
    fmt : str
        See `fake_quantize`.

    Returns
    -------
    Explanation
        Printing it gives a table; its attributes are the parts.

    Examples
    --------
    >>> import ndquant as nq
    >>> nq.formats.explain(3.14159, "float16")
    3.14159 in float16  bits        means
    sign                0           +
    exponent            10000       2^(16 - 15) = 2^1
    mantissa            1001001000  1 + 584/1024 = 1.5703125
    value                           3.140625
    error                           -0.000965
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"value must be a number, not {value!r}")
    fmt = find_format(fmt)
    given = float(value)
    code = encode(np.float64(given), fmt.name)
    text = f"{int(code):0{fmt.bits}b}"
    split = 1 + fmt.exponent_bits
    stored = float(decode(code, fmt.name))
    error = stored - given if np.isfinite(stored) or np.isfinite(given) else 0.0
    return Explanation(given, fmt, text[0], text[1:split], text[split:], stored, error)


def find_format(name):
    """Return the `Format` of this name."""
    if not isinstance(name, str) or name not in FORMATS:
        raise ValueError(f"fmt must be one of {', '.join(FORMATS)}, not {name!r}")
    return FORMATS[name]


def of_numpy_type(array):
    """Return an array of one of the formats that ml_dtypes adds to NumPy as float32, any other as it is."""
    is_theirs = array.dtype.isbuiltin == 2 and array.dtype.name in FORMATS
    return array.astype(np.float32) if is_theirs else array


def _floats(x, name):
    array = of_numpy_type(np.asarray(x))
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise TypeError(f"{name} must be an array of float16, float32 or float64, not {array.dtype}")
    return array


def _power(magnitudes, fmt):
    """Return the powers of 2 that finite values have in a format: that of the smallest normal number below it."""
    powers = np.frexp(magnitudes)[1] - 1
    return np.where(magnitudes > 0, np.maximum(powers, fmt.smallest_power), fmt.smallest_power)


def _rounded(x, fmt, saturate):
    """Round float64 values to a format."""
    finite = np.where(np.isfinite(x), x, 0)
    step = _power(np.abs(finite), fmt) - fmt.mantissa_bits
    with np.errstate(over="ignore"):
        y = np.ldexp(np.rint(np.ldexp(finite, -step)), step)
    y = np.where(np.isfinite(x), y, x)
    too_large = np.abs(y) > fmt.largest
    if saturate:
        limit = fmt.largest
    else:
        limit = np.inf if fmt.has_infinity else np.nan
    return np.where(too_large, np.copysign(limit, y), y)
