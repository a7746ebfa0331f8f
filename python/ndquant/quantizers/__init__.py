"""Quantizers: what sits on an edge of a graph and decides its range."""

from .config import Quantize
from .ste import Quantizer

__all__ = ["Quantize", "Quantizer"]
