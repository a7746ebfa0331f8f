"""Op records, a file per family. Importing this package fills `OPS`."""

from . import (  # noqa: F401
    arithmetic,
    attention,
    conv,
    conv_transpose,
    dynamic,
    embedding,
    layer_norm,
    leaf,
    linear,
    norm,
    outputs,
    pointwise,
    pool,
    quantization,
    recurrent,
    shape,
    softmax,
    stubs,
)
from .record import OPS, Codes, Fixed, Indices, Op, full, real

__all__ = ["OPS", "Codes", "Fixed", "Indices", "Op", "full", "real"]
