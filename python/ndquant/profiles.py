"""The one table of numerics profiles.

Where references disagree, the choice is a profile. It fixes four things: how a range becomes (scale, zero point), how
values are rounded, how integer layers requantize, and what their bias is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import _core

#: The smallest scale: its reciprocal and the smallest product of two scales stay finite in float32.
SMALLEST_SCALE = 2.0**-126


@dataclass(frozen=True)
class Profile:
    """One row of the table.

    Attributes
    ----------
    name : str
    range_rule : int
        Which rule of the core makes a range a scale and a zero point; `reference.choose_scale_zero_point` defines them.
    rounding : {"multiply", "divide", "textbook"}
        ``clamp(zp + rint(x * (1 / scale)))`` or ``clamp(zp + rint(x / scale))`` in the dtype of x, or
        ``clamp(rint(x / scale + zp))`` in float64.
    requantize : {"dequantize", "fbgemm", "onnx"}
        Literally dequantize and quantize, or one multiplication, after whose rounding the zero point is added as in
        FBGEMM, or before it as in ONNX's QLinearMatMul.
    bias : {"int32", "float"}
        What integer layers add: int32 at the scale of their sums, or a float.
    any_zero_point : bool
        Whether zero points may lie outside the codes.
    float_offset : bool
        Whether specs may have ``zero_aligned=False``.
    """

    name: str
    range_rule: int
    rounding: str
    requantize: str
    bias: str
    any_zero_point: bool = False
    float_offset: bool = False

    @property
    def is_fast(self):
        """Whether the functions serve it that do several steps in one call."""
        return self.rounding == "multiply"

    def check_spec(self, spec):
        """Raise unless the profile can express what `spec` asks for."""
        if not spec.zero_aligned and not self.float_offset:
            others = " or ".join(repr(name) for name, profile in PROFILES.items() if profile.float_offset)
            raise ValueError(
                f"spec: profile {self.name!r} knows integer zero points only, so zero_aligned must be True; "
                f"profile {others} takes a float offset"
            )

    def scale_zero_point(self, low, high, spec):
        """Return scale (dtype of `low`) and zero point of ranges, float32 or float64 arrays of any shape.

        The zero point is int64, or with ``zero_aligned=False`` of the dtype of `low`.
        """
        if spec.zero_aligned:
            return _core.scale_zero_point(low, high, *spec._grid, self.range_rule)
        self.check_spec(spec)
        return _scale_offset(low, high, spec)


def _scale_offset(low, high, spec):
    """Return the scale, and the value of code 0, of ranges whose ends become the lowest and the highest code.

    A range need not include 0: nothing is gained by that where 0 need not be a code. One of no width has scale 1.
    """
    dtype = low.dtype
    low, high = (np.asarray(end, np.float64 if spec.bits > 16 else dtype) for end in (low, high))
    if spec.symmetric:
        high = np.maximum(-low, high)
        low = -high
    levels = spec.qmax - spec.qmin
    with np.errstate(over="ignore", invalid="ignore"):
        step = (high - low) / low.dtype.type(levels)
        if not np.isfinite(step).all():
            step = np.where(np.isfinite(step), step, high.astype(float) / levels - low.astype(float) / levels)
        scale = np.where(high == low, 1, np.maximum(step, SMALLEST_SCALE)).astype(dtype)
        return scale, np.asarray(low - low.dtype.type(spec.qmin) * scale, dtype)


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("default", _core.RANGE_DEFAULT, "multiply", "dequantize", "int32", float_offset=True),
        Profile("torch", _core.RANGE_TORCH, "multiply", "fbgemm", "float"),
        Profile("onnx", _core.RANGE_ONNX, "divide", "onnx", "int32"),
        Profile("textbook", _core.RANGE_TEXTBOOK, "textbook", "dequantize", "int32", True, True),
    )
}


def find_profile(name):
    """Return the `Profile` of that name."""
    if isinstance(name, str) and name in PROFILES:
        return PROFILES[name]
    raise ValueError(f"profile: must be one of {', '.join(PROFILES)}, got {name!r}")
