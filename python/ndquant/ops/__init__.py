"""Op records, a file per family. Importing this package fills `OPS`."""

from . import arithmetic, conv, leaf, linear, norm, outputs, pointwise, pool, quantization, shape, stubs  # noqa: F401
from .record import OPS, Codes, Fixed, Op, full, real

__all__ = ["OPS", "Codes", "Fixed", "Op", "full", "real"]
