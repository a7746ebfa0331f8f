"""Op records, a file per family. Importing this package fills `OPS`."""

from . import (  # noqa: F401
    arithmetic,
    attention,
    attention_weights,
    conv,
    conv_transpose,
    dynamic,
    embedding,
    layer_norm,
    leaf,
    linear,
    matmul,
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
