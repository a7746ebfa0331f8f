"""Ops that enter and leave the integers: the quantizer on an edge, and its forms in an integer graph."""

from __future__ import annotations

import numpy as np

from ..functional import fake_quantize_backward, quantize
from ..profiles import PROFILES
from .linear import integer_output
from .record import Codes, register


def _quantizer_forward(node, inputs, run):
    (x,) = inputs
    found = node.quantizer.quantize(x, run.training)
    if found is None:
        return x, None
    codes, qparams = found
    if node.quantizer.has_own_stage:
        codes = _requantized(node, run, codes, qparams)
    return Codes(codes, qparams), (x, qparams)


def _requantized(node, run, codes, qparams):
    """Return the codes that the integer layer in front would give, or `codes` if there is none."""
    producer = run.graph.find(node.inputs[0])
    if producer is None or producer.op.name != "linear" or len(run.graph.consumers(producer.name)) > 1:
        return codes
    integer = integer_output(producer, run.saved[producer.name], qparams)
    return codes if integer is None else integer


def _quantizer_backward(node, dy, saved, need_input):
    if saved is None:
        return (dy,), {}
    x, qparams = saved
    return (fake_quantize_backward(dy, x, qparams),), {}


def _same_shape(node, shapes):
    return shapes[0]


def _quantize_forward(node, inputs, run):
    (x,) = inputs
    return Codes(quantize(x, node.out_qparams), node.out_qparams), None


def _dequantize_forward(node, inputs, run):
    (x,) = inputs
    return (x.dequantize() if isinstance(x, Codes) else np.asarray(x, np.float32)), None


def _quantize_step(node, inputs, steps):
    (x,) = inputs
    qparams = node.out_qparams
    is_fast = PROFILES[qparams.profile].rounding != "textbook" and qparams.spec.axis is None
    return steps.quantize(x, qparams) if x.qparams is None and is_fast else None


def _dequantize_step(node, inputs, steps):
    (x,) = inputs
    return x if x.qparams is None else steps.dequantize(x)


#: A quantizer on an edge: observes, fake-quantizes with the straight-through gradient, or both.
QUANTIZER = register(
    name="quantizer", forward=_quantizer_forward, backward=_quantizer_backward, shape=_same_shape
)
QUANTIZE = register(
    name="quantize", forward=_quantize_forward, backward=None, shape=_same_shape, step=_quantize_step
)
DEQUANTIZE = register(
    name="dequantize",
    forward=_dequantize_forward,
    backward=None,
    shape=_same_shape,
    takes_codes=True,
    step=_dequantize_step,
)
