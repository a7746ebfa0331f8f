"""Post-training quantization and quantization-aware training, as short functions over a graph."""

from .dynamic import quantize_dynamic
from .evaluate import evaluate
from .fuse import fuse
from .ptq import calibrate, convert, prepare, quantize_static
from .qat import prepare_qat
from .qconfig import QConfig

__all__ = [
    "QConfig",
    "calibrate",
    "convert",
    "evaluate",
    "fuse",
    "prepare",
    "prepare_qat",
    "quantize_dynamic",
    "quantize_static",
]
