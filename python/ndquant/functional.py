"""One short function per entry point of the C core: arrays in, arrays out."""

from . import _core


def quantize(x, qparams, out=None):
    """Codes of `x`."""
    return _core.quantize(x, qparams._params, out)
