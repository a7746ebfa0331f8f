"""Quantization for NumPy, with a C core."""

from . import datasets, formats, nn, passes
from .bits import conv2d_binary, matmul_binary, pack_codes, unpack_codes
from .convolution import (
    conv2d_integer,
    conv2d_requantized,
    conv_transpose2d_integer,
    conv_transpose2d_requantized,
)
from .errors import QuantizationError, QuantizationWarning
from .functional import (
    PackedWeight,
    dequantize,
    fake_quantize,
    fake_quantize_backward,
    fake_quantize_learnable_backward,
    fake_quantize_with_grad,
    linear_integer,
    matmul_integer,
    quantize,
    requantize,
)
from .graph.files import load
from .grouped import GroupedWeight, linear_grouped
from .metrics import mse, quantization_error, sqnr
from .observers import HistogramObserver, MinMaxObserver, MovingAverageMinMaxObserver, RowObserver, choose_qparams
from .ops.conv import conv2d, conv2d_backward
from .ops.linear import linear, linear_backward
from .qparams import QParams, QuantSpec
from .quantizers import Quantize
from .report import auto_bits, clip_errors, sensitivity
from .runtime import backend, get_num_threads, set_num_threads, show_config
from .workflows import (
    QConfig,
    calibrate,
    convert,
    evaluate,
    fuse,
    prepare,
    prepare_qat,
    quantize_dynamic,
    quantize_static,
)

__all__ = [
    "GroupedWeight",
    "HistogramObserver",
    "MinMaxObserver",
    "MovingAverageMinMaxObserver",
    "PackedWeight",
    "QConfig",
    "QParams",
    "QuantSpec",
    "QuantizationError",
    "QuantizationWarning",
    "Quantize",
    "RowObserver",
    "auto_bits",
    "backend",
    "calibrate",
    "choose_qparams",
    "clip_errors",
    "conv2d",
    "conv2d_backward",
    "conv2d_binary",
    "conv2d_integer",
    "conv2d_requantized",
    "conv_transpose2d_integer",
    "conv_transpose2d_requantized",
    "convert",
    "datasets",
    "dequantize",
    "evaluate",
    "fake_quantize",
    "fake_quantize_backward",
    "fake_quantize_learnable_backward",
    "fake_quantize_with_grad",
    "formats",
    "fuse",
    "get_num_threads",
    "linear",
    "linear_backward",
    "linear_grouped",
    "linear_integer",
    "load",
    "matmul_binary",
    "matmul_integer",
    "mse",
    "nn",
    "pack_codes",
    "passes",
    "prepare",
    "prepare_qat",
    "quantization_error",
    "quantize",
    "quantize_dynamic",
    "quantize_static",
    "requantize",
    "sensitivity",
    "set_num_threads",
    "show_config",
    "sqnr",
    "unpack_codes",
]
