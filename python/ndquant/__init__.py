"""Quantization for NumPy, with a C core."""

from .functional import quantize

__all__ = ["quantize"]
