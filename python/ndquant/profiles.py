"""The one table of numerics profiles.

Where references disagree, the choice is a profile. It fixes four things: how a range becomes (scale, zero point), how
values are rounded, how integer layers requantize, and what their bias is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

#: The smallest scale: its reciprocal and the smallest product of two scales stay finite in float32.
SMALLEST_SCALE = 2.0**-126

#: The epsilon below which PyTorch's observers do not let a scale fall.
TORCH_EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Profile:
    """One row of the table.

    Attributes
    ----------
    name : str
    range_rule : callable
        ``range_rule(low, high, spec) -> (scale, zero_point)`` for arrays of float32 or float64; the scale has their
        dtype, the zero point is int64.
    rounding : {"multiply", "textbook"}
        ``clamp(zp + rint(x * (1 / scale)))`` in the dtype of x, or ``clamp(rint(x / scale + zp))`` in float64.
    requantize : {"dequantize", "fbgemm"}
        Literally dequantize and quantize, or FBGEMM's one multiplication.
    bias : {"int32", "float"}
        What integer layers add: int32 at the scale of their sums, or a float.
    any_zero_point : bool
        Whether zero points may lie outside the codes.
    """

    name: str
    range_rule: Callable
    rounding: str
    requantize: str
    bias: str
    any_zero_point: bool = False


def symmetric_zero_point(spec):
    """Return the code of 0 in a symmetric spec."""
    return 0 if spec.signed else 2 ** (spec.bits - 1)


def _span(low, high, levels):
    """Return ``(high - low) / levels`` in the dtype of `low`; a difference that overflows is formed in wider steps."""
    levels = low.dtype.type(levels)
    with np.errstate(over="ignore"):
        span = (high - low) / levels
    if np.isfinite(span).all():
        return span
    wide = high.astype(np.float64) / levels - low.astype(np.float64) / levels
    return np.where(np.isfinite(span), span, wide.astype(low.dtype))


def _positive(scale, least):
    """Return `scale` raised to `least`, and 1 where the range is empty."""
    return np.where(scale == 0, scale.dtype.type(1), np.maximum(scale, scale.dtype.type(least)))


def _affine_zero_point(low, scale, spec):
    """Return ``clamp(qmin - rint(low / scale))``."""
    return np.clip(spec.qmin - np.rint(low / scale), spec.qmin, spec.qmax).astype(np.int64)


def _with_zero(low, high):
    return np.minimum(low, 0), np.maximum(high, 0)


def _magnitude(low, high):
    return np.maximum(np.abs(low), np.abs(high))


def default_range(low, high, spec):
    """Map the largest magnitude to a code, so that it is representable and no rounding tie."""
    low, high = _with_zero(low, high)
    if not spec.symmetric:
        scale = _positive(_span(low, high, spec.qmax - spec.qmin), SMALLEST_SCALE)
        return scale, _affine_zero_point(low, scale, spec)
    zero_point = symmetric_zero_point(spec)
    steps = low.dtype.type(min(spec.qmax - zero_point, zero_point - spec.qmin))
    scale = _positive(_magnitude(low, high) / steps, SMALLEST_SCALE)
    return scale, np.full(scale.shape, zero_point, np.int64)


def torch_range(low, high, spec):
    """PyTorch's observers: ``UniformQuantizationObserverBase._calculate_qparams``."""
    low, high = _with_zero(low, high)
    least = low.dtype.type(TORCH_EPS)
    if not spec.symmetric:
        scale = np.maximum(_span(low, high, spec.qmax - spec.qmin), least)
        return scale, _affine_zero_point(low, scale, spec)
    scale = np.maximum(_magnitude(low, high) / low.dtype.type((spec.qmax - spec.qmin) / 2), least)
    return scale, np.full(scale.shape, symmetric_zero_point(spec), np.int64)


def textbook_range(low, high, spec):
    """The tutorials' formula: the range as it is, without 0 if it does not include it."""
    if spec.symmetric:
        scale = _positive(_magnitude(low, high) / low.dtype.type(2 ** (spec.bits - 1) - 1), SMALLEST_SCALE)
        return scale, np.full(scale.shape, symmetric_zero_point(spec), np.int64)
    # A range that is narrow for its distance from 0 has no usable zero point: its steps are below the rounding of its
    # values. It takes in 0, which makes constant data representable.
    narrow = _span(low, high, 1) <= _magnitude(low, high) * np.finfo(low.dtype).eps
    low, high = np.where(narrow, np.minimum(low, 0), low), np.where(narrow, np.maximum(high, 0), high)
    scale = _positive(_span(low, high, 2**spec.bits - 1), SMALLEST_SCALE)
    return scale, (spec.qmin - np.rint(low / scale)).astype(np.int64)


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("default", default_range, rounding="multiply", requantize="dequantize", bias="int32"),
        Profile("torch", torch_range, rounding="multiply", requantize="fbgemm", bias="float"),
        Profile("textbook", textbook_range, rounding="textbook", requantize="dequantize", bias="int32",
                any_zero_point=True),
    )
}


def find_profile(name):
    """Return the `Profile` of that name."""
    if isinstance(name, str) and name in PROFILES:
        return PROFILES[name]
    raise ValueError(f"profile: must be one of {', '.join(PROFILES)}, got {name!r}")
