"""The definition of every kernel in plain NumPy: the oracle of the tests. No C code of the core runs here."""

from .bits import conv2d_binary, matmul_binary, pack_codes, signs, unpack_codes
from .channels import channel_sums, mix_channels, scale_channels
from .clipping import clip_error, cross_entropy, entropy_divergence, histogram
from .codes import (
    add_codes,
    avg_pool_codes,
    layer_norm_codes,
    matmul_sums,
    max_pool_codes,
    multiply_codes,
    softmax_codes,
)
from .conv import conv2d_s32, conv_transpose2d_s32
from .conv_float import conv2d_float, conv2d_float_input_grad, conv2d_float_weight_grad
from .dynamic import linear_rows, recurrence, sigmoid, tanh
from .elementwise import (
    dequantize,
    fake_quantize,
    fake_quantize_backward,
    fake_quantize_learnable_backward,
    quantization_error,
    quantize,
    sum_in_blocks,
)
from .gemm import (
    fused_multiply_add,
    gemm_s32,
    linear_codes,
    linear_f32,
    matmul_f32,
    product_scale,
    quantize_bias,
    raise_weight_scale,
)
from .grouped import linear_grouped, linear_grouped_rows
from .half import round_to_half
from .ranges import choose_scale_zero_point, minmax
from .rows import attention, gelu, layer_norm_rows, softmax_rows, sum_rows
from .update import adam_step, relu_backward, sgd_step

__all__ = [
    "adam_step",
    "add_codes",
    "attention",
    "avg_pool_codes",
    "channel_sums",
    "choose_scale_zero_point",
    "clip_error",
    "conv2d_binary",
    "conv2d_float",
    "conv2d_float_input_grad",
    "conv2d_float_weight_grad",
    "conv2d_s32",
    "conv_transpose2d_s32",
    "cross_entropy",
    "dequantize",
    "entropy_divergence",
    "fake_quantize",
    "fake_quantize_backward",
    "fake_quantize_learnable_backward",
    "fused_multiply_add",
    "gelu",
    "gemm_s32",
    "histogram",
    "layer_norm_codes",
    "layer_norm_rows",
    "linear_codes",
    "linear_f32",
    "linear_grouped",
    "linear_grouped_rows",
    "linear_rows",
    "matmul_binary",
    "matmul_f32",
    "matmul_sums",
    "max_pool_codes",
    "minmax",
    "mix_channels",
    "multiply_codes",
    "pack_codes",
    "product_scale",
    "quantization_error",
    "quantize",
    "quantize_bias",
    "raise_weight_scale",
    "recurrence",
    "relu_backward",
    "round_to_half",
    "scale_channels",
    "sgd_step",
    "sigmoid",
    "signs",
    "softmax_codes",
    "softmax_rows",
    "sum_in_blocks",
    "sum_rows",
    "tanh",
    "unpack_codes",
]
