"""Quantization for NumPy, with a C core."""

from .errors import QuantizationError, QuantizationWarning
from .functional import (
    PackedWeight,
    backend,
    dequantize,
    fake_quantize,
    fake_quantize_backward,
    fake_quantize_learnable_backward,
    fake_quantize_with_grad,
    get_num_threads,
    linear_integer,
    matmul_integer,
    quantize,
    set_num_threads,
    show_config,
)
from .observers import HistogramObserver, MinMaxObserver, MovingAverageMinMaxObserver, choose_qparams
from .qparams import QParams, QuantSpec

__all__ = [
    "HistogramObserver",
    "MinMaxObserver",
    "MovingAverageMinMaxObserver",
    "PackedWeight",
    "QParams",
    "QuantSpec",
    "QuantizationError",
    "QuantizationWarning",
    "backend",
    "choose_qparams",
    "dequantize",
    "fake_quantize",
    "fake_quantize_backward",
    "fake_quantize_learnable_backward",
    "fake_quantize_with_grad",
    "get_num_threads",
    "linear_integer",
    "matmul_integer",
    "quantize",
    "set_num_threads",
    "show_config",
]
