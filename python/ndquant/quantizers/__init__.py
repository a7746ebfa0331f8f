"""Quantizers: what sits on an edge of a graph and decides its range."""

from .binary import BinaryQuantizer
from .config import Quantize
from .dorefa import DorefaQuantizer
from .lsq import LsqQuantizer
from .lsq_plus import LsqPlusQuantizer
from .pact import PactQuantizer
from .sawb import SawbQuantizer
from .ste import Quantizer
from .ternary import TernaryQuantizer
from .tqt import TqtQuantizer

__all__ = [
    "BinaryQuantizer",
    "DorefaQuantizer",
    "LsqPlusQuantizer",
    "LsqQuantizer",
    "PactQuantizer",
    "Quantize",
    "Quantizer",
    "SawbQuantizer",
    "TernaryQuantizer",
    "TqtQuantizer",
    "make_quantizer",
]

_BY_METHOD = {
    "sawb": SawbQuantizer,
    "sawb+": SawbQuantizer,
    "dorefa": DorefaQuantizer,
    "binary": BinaryQuantizer,
    "ternary": TernaryQuantizer,
}
_BY_WHAT_IS_LEARNED = {"pact": PactQuantizer, "lsq": LsqQuantizer, "lsq+": LsqPlusQuantizer, "tqt": TqtQuantizer}


def make_quantizer(config, profile, state, name, is_weight=False):
    """Return the kind of quantizer that a `Quantize` asks for; what is to be learned is fixed outside of training."""
    kind = _BY_METHOD.get(config.method, Quantizer)
    if state == "train":
        kind = _BY_WHAT_IS_LEARNED.get(config.learn, kind)
    return kind(config, profile, state, name, is_weight)
