"""The one table of numerics profiles.

Where references disagree, the choice is a profile. It fixes four things: how a range becomes (scale, zero point), how
values are rounded, how integer layers requantize, and what their bias is.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    range_rule: int
    rounding: str
    requantize: str
    bias: str
    any_zero_point: bool = False

    @property
    def is_fast(self):
        """Whether the functions serve it that do several steps in one call."""
        return self.rounding == "multiply"

    def scale_zero_point(self, low, high, spec):
        """Return scale (dtype of `low`) and zero point (int64) of ranges, float32 or float64 arrays of any shape."""
        return _core.scale_zero_point(low, high, *spec._grid, self.range_rule)


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("default", _core.RANGE_DEFAULT, rounding="multiply", requantize="dequantize", bias="int32"),
        Profile("torch", _core.RANGE_TORCH, rounding="multiply", requantize="fbgemm", bias="float"),
        Profile("textbook", _core.RANGE_TEXTBOOK, "textbook", "dequantize", "int32", any_zero_point=True),
    )
}


def find_profile(name):
    """Return the `Profile` of that name."""
    if isinstance(name, str) and name in PROFILES:
        return PROFILES[name]
    raise ValueError(f"profile: must be one of {', '.join(PROFILES)}, got {name!r}")
