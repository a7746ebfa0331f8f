"""Op records, a file per family. Importing this package fills `OPS`."""

from . import linear, pointwise, quantization, shape  # noqa: F401
from .record import OPS, Codes, Op, real

__all__ = ["OPS", "Codes", "Op", "real"]
