"""Ops that treat every element by itself."""

from __future__ import annotations

import numpy as np

from .. import integer
from ..functional import quantize, relu_backward
from ..layout import in_memory_order
from ..qparams import QParams
from .gelu import gelu, gelu_attributes, gelu_backward
from .integer_layer import StoredTable, code_of_zero, have_integer_form, zero_is_a_code
from .record import Codes, always, finite, no_attributes, real, register, same_shape


def relu(x):
    """Return ``max(x, 0)``, dtype of `x` kept."""
    return np.maximum(x, x.dtype.type(0))


def _relu_forward(node, inputs, run):
    (x,) = inputs
    if isinstance(x, Codes):
        zero = code_of_zero(x.qparams)
        return Codes(np.maximum(x.codes, zero), x.qparams), (x.codes > zero).astype(np.float32)
    return relu(x), x  # not the output, which may be the caller's to change


def _relu_backward(node, dy, saved, need_input):
    return (in_memory_order(relu_backward, dy, saved),), {}


def _clamp_step(node, inputs, steps):
    (x,) = inputs
    return None if x.qparams is None else steps.clamp(x, node.op.name)


RELU = register(
    name="relu",
    forward=_relu_forward,
    backward=_relu_backward,
    shape=same_shape,
    takes_fixed=True,
    takes_codes=True,
    keeps_codes=always,
    step=_clamp_step,
)


def relu6(x):
    """Return ``min(max(x, 0), 6)``, dtype of `x` kept."""
    return np.clip(x, x.dtype.type(0), x.dtype.type(6))


def relu6_backward(dy, x):
    """Gradient of `relu6`: 0 where it clips, the bounds included."""
    return np.where((x > 0) & (x < 6), dy, dy.dtype.type(0))


def leaky_relu(x, negative_slope=0.01):
    """Return `x` where it is positive, else ``negative_slope * x``."""
    return np.where(x > 0, x, x * x.dtype.type(negative_slope))


def leaky_relu_backward(dy, x, negative_slope=0.01):
    """Gradient of `leaky_relu`."""
    return np.where(x > 0, dy, dy * dy.dtype.type(negative_slope))


def sigmoid(x):
    """Return ``1 / (1 + exp(-x))``, in a form in which nothing overflows."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, x.dtype.type(1)) / (e + x.dtype.type(1))


def sigmoid_backward(dy, y):
    """Gradient of `sigmoid`, from its output."""
    return dy * (y * (y.dtype.type(1) - y))


def tanh(x):
    """Return the hyperbolic tangent."""
    return np.tanh(x)


def tanh_backward(dy, y):
    """Gradient of `tanh`, from its output."""
    return dy * (y.dtype.type(1) - y * y)


def hardswish(x):
    """Return ``x * relu6(x + 3) / 6`` (Howard et al., 2019, https://arxiv.org/abs/1905.02244)."""
    kind = x.dtype.type
    return x * (relu6(x + kind(3)) / kind(6))


def hardswish_backward(dy, x):
    """Gradient of `hardswish`; at the kinks that of the constant side, as in PyTorch."""
    kind = x.dtype.type
    inside = x / kind(3) + kind(0.5)
    return dy * np.where(x <= -3, kind(0), np.where(x >= 3, kind(1), inside))


def _relu6_forward(node, inputs, run):
    (x,) = inputs
    if not isinstance(x, Codes):
        return relu6(x), x
    low, high = quantize(np.float32([0, 6]), x.qparams)
    return x.like(np.clip(x.codes, low, high)), x.dequantize() if run.training else None


def _relu6_backward(node, dy, saved, need_input):
    return (relu6_backward(dy, saved),), {}


RELU6 = register(
    name="relu6",
    forward=_relu6_forward,
    backward=_relu6_backward,
    shape=same_shape,
    takes_fixed=True,
    takes_codes=True,
    keeps_codes=always,
    step=_clamp_step,
)


def _register_unary(name, function, gradient, keeps_output=False, attributes=no_attributes, step=None):
    """Enter an op whose gradient needs its input, or its output; on codes it is a table."""

    def forward(node, inputs, run):
        (x,) = inputs
        y = function(x, **node.attributes)
        return y, y if keeps_output else x

    def backward(node, dy, saved, need_input):
        return (gradient(dy, saved, **node.attributes),), {}

    def table(node, qparams, out_qparams):
        return integer.unary_table(lambda x: function(x, **node.attributes), qparams, out_qparams)

    def lower(node, input_qparams, out_qparams):
        if not have_integer_form(*input_qparams, out_qparams):
            return None
        return "lookup", StoredTable(table(node, *input_qparams, out_qparams), out_qparams)

    def integer_output(node, inputs, saved, out_qparams):
        (x,) = inputs
        if not isinstance(x, Codes) or not have_integer_form(x.qparams, out_qparams):
            return None
        return integer.lookup(x.codes, table(node, x.qparams, out_qparams))

    register(
        name=name,
        forward=forward,
        backward=backward,
        shape=same_shape,
        attributes=attributes,
        takes_fixed=True,
        keeps_output=keeps_output,
        lower=lower,
        integer_output=integer_output,
        step=step,
    )


def _lookup_forward(node, inputs, run):
    (x,) = inputs
    return Codes(integer.lookup(x.codes, node.table), node.out_qparams), None


def _lookup_step(node, inputs, steps):
    return steps.lookup(*inputs, node.table, node.out_qparams)


def _any_attributes(**attributes):
    return attributes


#: A function of one code. Its attributes are those of the float op that it stands for.
LOOKUP = register(
    name="lookup",
    forward=_lookup_forward,
    backward=None,
    stores=StoredTable,
    shape=same_shape,
    attributes=_any_attributes,
    takes_codes=True,
    step=_lookup_step,
)


def _leaky_relu_attributes(negative_slope=0.01):
    return {"negative_slope": finite(negative_slope, "negative_slope")}


_register_unary("leaky_relu", leaky_relu, leaky_relu_backward, attributes=_leaky_relu_attributes)
_register_unary("sigmoid", sigmoid, sigmoid_backward, keeps_output=True)
_register_unary("tanh", tanh, tanh_backward, keeps_output=True)
_register_unary("hardswish", hardswish, hardswish_backward)


def _gelu_step(node, inputs, steps):
    return steps.gelu(*inputs, **node.attributes)


_register_unary("gelu", gelu, gelu_backward, attributes=gelu_attributes, step=_gelu_step)


def dropout_attributes(p=0.5):
    """Return the attributes of `dropout`, checked."""
    p = finite(p, "p")
    if not 0 <= p <= 1:
        raise ValueError(f"p must be in [0, 1], not {p}")
    return {"p": p}


def _dropout_forward(node, inputs, run):
    """Zero a share p of the elements and scale the rest, so that the mean stays; outside training pass them on."""
    (x,) = inputs
    p = node.attributes["p"]
    if not run.training or p == 0:
        return x, None
    rng = np.random.default_rng(getattr(node.module, "rng", None))
    kept = rng.random(x.shape, np.float32) >= p
    rest = np.float32(1 / (1 - p) if p < 1 else 0)
    factor = kept * rest
    if isinstance(x, Codes) and p < 1 and zero_is_a_code(x.qparams):
        return _dropout_of_codes(x, kept, rest), factor
    return real(x) * factor, factor


def _dropout_of_codes(x, kept, rest):
    """Return codes with what is dropped at 0 and the others as they are: their scale grows."""
    qparams = x.qparams
    grown = QParams(qparams.scale * rest, qparams.zero_point, qparams.spec, profile=qparams.profile)
    return Codes(np.where(kept, x.codes, code_of_zero(qparams)), grown)


def _dropout_backward(node, dy, saved, need_input):
    return (dy if saved is None else dy * saved,), {}


DROPOUT = register(
    name="dropout",
    forward=_dropout_forward,
    backward=_dropout_backward,
    shape=same_shape,
    attributes=dropout_attributes,
    is_view=True,
    takes_codes=True,
    keeps_codes=always,
)
