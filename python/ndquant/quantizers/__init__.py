"""Quantizers: what sits on an edge of a graph and decides its range."""

from .config import Quantize
from .pact import PactQuantizer
from .sawb import SawbQuantizer
from .ste import Quantizer

__all__ = ["PactQuantizer", "Quantize", "Quantizer", "SawbQuantizer", "make_quantizer"]


def make_quantizer(config, profile, state, name, is_weight=False):
    """Return the kind of quantizer that a `Quantize` asks for; what is to be learned is fixed outside of training."""
    kind = Quantizer
    if config.method.startswith("sawb"):
        kind = SawbQuantizer
    elif config.learn == "pact" and state == "train":
        kind = PactQuantizer
    return kind(config, profile, state, name, is_weight)
