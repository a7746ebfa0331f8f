"""Post-training quantization and quantization-aware training, as short functions over a graph."""

from .evaluate import evaluate
from .ptq import calibrate, convert, prepare, quantize_static
from .qat import prepare_qat
from .qconfig import QConfig

__all__ = ["QConfig", "calibrate", "convert", "evaluate", "prepare", "prepare_qat", "quantize_static"]
