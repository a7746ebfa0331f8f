"""Post-training passes, each optional: a graph in, a graph out; and `hqq`, which takes a weight."""

from .adaround import adaround
from .bias_correction import correct_bias
from .equalize import equalize
from .gptq import gptq
from .hqq import hqq
from .smooth_quant import smooth_quant

__all__ = ["adaround", "correct_bias", "equalize", "gptq", "hqq", "smooth_quant"]
