"""Ops that enter and leave the integers: the quantizer on an edge, and its forms in an integer graph."""

from __future__ import annotations

import numpy as np

from ..functional import quantize
from ..profiles import PROFILES
from .integer_layer import StoredGrid
from .record import Codes, register


def _quantizer_forward(node, inputs, run):
    (x,) = inputs
    found = node.quantizer.quantize(x, run.training)
    if found is None:
        return x, None
    codes, qparams = found
    integers = _integer_output(node, run, qparams)
    return Codes(codes if integers is None else integers, qparams), (x, qparams)


def _integer_output(node, run, qparams):
    """Return the codes that the integer form of the op in front gives, if they may be others than those of its floats.

    Where several nodes read that op, it stays float in the integer graph, or gives floats.
    """
    producer = run.graph.find(node.inputs[0])
    if producer is None or producer.op.integer_output is None:
        return None
    inputs = [run.values[name] for name in producer.inputs]
    codes = producer.op.integer_output(producer, inputs, run.saved[producer.name], qparams)
    return None if codes is None or len(run.graph.consumers(producer.name)) > 1 else codes


def _quantizer_backward(node, dy, saved, need_input):
    if saved is None:
        return (dy,), {}
    x, qparams = saved
    dx, d_parameters = node.quantizer.gradient(dy, x, qparams)
    return (dx,), d_parameters


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
    name="quantize", forward=_quantize_forward, backward=None, stores=StoredGrid, shape=_same_shape, step=_quantize_step
)
DEQUANTIZE = register(
    name="dequantize",
    forward=_dequantize_forward,
    backward=None,
    shape=_same_shape,
    takes_codes=True,
    step=_dequantize_step,
)
