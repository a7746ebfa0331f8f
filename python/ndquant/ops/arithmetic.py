"""Arithmetic between values: elementwise with broadcasting, means.

Gradients of what was broadcast are summed back. A value without a batch axis (`Fixed`) meets one that has it as NumPy
aligns them, from the last axis; it may not move the batch axis.
"""

from __future__ import annotations

from math import prod

import numpy as np

from .. import integer
from .integer_layer import StoredGrid, have_integer_form, lower_to
from .layer import activate, activation_backward, fused_attributes
from .record import (
    BATCH,
    Codes,
    Fixed,
    full,
    no_attributes,
    register,
    shape_text,
    whole_numbers,
    without_batch,
)


def sum_to(d, shape):
    """Sum a gradient over the axes along which an operand of this shape was broadcast."""
    if d.shape == shape:
        return d
    d = d.sum(axis=tuple(range(d.ndim - len(shape))))
    axes = tuple(i for i, (n, m) in enumerate(zip(shape, d.shape, strict=True)) if n != m)
    return d.sum(axis=axes, keepdims=True) if axes else d


def broadcast_lengths(op, a, b):
    """Return the lengths to which NumPy broadcasts two lists of lengths."""
    rank = max(len(a), len(b))
    pairs = zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True)
    lengths = []
    for n, m in pairs:
        if n != m and 1 not in (n, m):
            raise ValueError(f"{op}: shapes {shape_text(a)} and {shape_text(b)} do not broadcast")
        lengths.append(m if n == 1 else n)
    return tuple(lengths)


def _elementwise_shape(node, shapes):
    a, b = (full(shape) for shape in shapes)
    return without_batch(broadcast_lengths(node.op.name, a, b), node.op.name)


#: name: (function, gradient of its first operand, of its second), of dy and both operands
_ELEMENTWISE = {
    "add": (np.add, lambda dy, a, b: dy, lambda dy, a, b: dy),
    "subtract": (np.subtract, lambda dy, a, b: dy, lambda dy, a, b: -dy),
    "multiply": (np.multiply, lambda dy, a, b: dy * b, lambda dy, a, b: dy * a),
    "divide": (np.divide, lambda dy, a, b: dy / b, lambda dy, a, b: -(dy / b) * (a / b)),
}


#: Those that have an integer form.
_INTEGER = {"add": integer.add, "multiply": integer.multiply}


def _register_elementwise(name, function, *gradients):
    def forward(node, inputs, run):
        activation = node.attributes.get("activation")
        y = activate(function(*inputs), activation)
        return y, (*inputs, None if activation is None else y)

    def backward(node, dy, saved, need_input):
        *operands, y = saved
        dy = activation_backward(dy, y, node.attributes.get("activation"))
        return tuple(
            sum_to(gradient(dy, *operands), operand.shape) if needed else None
            for gradient, operand, needed in zip(gradients, operands, need_input, strict=True)
        ), {}

    def add_step(node, inputs, steps):
        a, b = inputs
        return steps.add_floats(a, b) if a.shape == b.shape and not node.attributes else None

    has_integers = name in _INTEGER
    register(
        name=name,
        forward=forward,
        backward=backward,
        shape=_elementwise_shape,
        attributes=fused_attributes if has_integers else no_attributes,
        arity=2,
        takes_fixed=True,
        lower=lower_to(f"{name}_integer") if has_integers else None,
        no_integers=_has_fixed_operand,
        absorbs=("relu", "relu6") if has_integers else (),
        step=add_step if name == "add" else None,
    )


def _has_fixed_operand(node, shapes):
    return "an operand is a parameter or constant" if any(isinstance(shape, Fixed) for shape in shapes) else None


def _register_integer(name, function):
    def forward(node, inputs, run):
        a, b = inputs
        qparams, activation = node.out_qparams, node.attributes.get("activation")
        codes = (a.codes, b.codes) if a.shape == b.shape else np.broadcast_arrays(a.codes, b.codes)
        return Codes(function(codes[0], a.qparams, codes[1], b.qparams, qparams, activation), qparams), None

    def step(node, inputs, steps):
        append, operands = steps.add if name == "add" else steps.multiply, steps.broadcast(*inputs)
        return None if None in operands else append(*operands, node.out_qparams, node.attributes.get("activation"))

    register(
        name=f"{name}_integer",
        forward=forward,
        backward=None,
        stores=StoredGrid,
        shape=_elementwise_shape,
        attributes=fused_attributes,
        arity=2,
        takes_codes=True,
        step=step,
    )


for _name, _functions in _ELEMENTWISE.items():
    _register_elementwise(_name, *_functions)
for _name, _function in _INTEGER.items():
    _register_integer(_name, _function)


def _mean_attributes(axes, keepdims=False):
    return {"axes": whole_numbers(axes, "axes"), "keepdims": bool(keepdims)}


def _mean_forward(node, inputs, run):
    (x,) = inputs
    return x.mean(axis=node.attributes["axes"], keepdims=node.attributes["keepdims"]), x.shape


def _mean_backward(node, dy, saved, need_input):
    axes = node.attributes["axes"]
    if not node.attributes["keepdims"]:
        dy = np.expand_dims(dy, axes)
    count = prod(saved[axis] for axis in axes)
    return (np.broadcast_to(dy / dy.dtype.type(count), saved),), {}


def _mean_shape(node, shapes):
    lengths, axes = full(shapes[0]), node.attributes["axes"]
    if any(axis >= len(lengths) or lengths[axis] in (BATCH, 0) for axis in axes):
        raise ValueError(f"mean: axes {axes} of {shape_text(lengths)}: there is no mean over the batch or over nothing")
    keepdims = node.attributes["keepdims"]
    kept = [1 if i in axes else n for i, n in enumerate(lengths) if keepdims or i not in axes]
    return without_batch(tuple(kept), "mean")


def _mean_of_images(node, shapes):
    is_image = node.attributes["axes"] == (2, 3) and len(shapes[0]) == 3 and not isinstance(shapes[0], Fixed)
    return None if is_image else "only means of whole images (axes 2 and 3 of 4) have an integer form"


def _mean_codes(node, x, out_qparams):
    codes = integer.adaptive_avg_pool2d(x.codes, x.qparams, out_qparams, 1)
    return codes if node.attributes["keepdims"] else codes.reshape(codes.shape[:2])


def _mean_integer_output(node, inputs, saved, out_qparams):
    (x,) = inputs
    on_codes = isinstance(x, Codes) and have_integer_form(x.qparams, out_qparams)
    return _mean_codes(node, x, out_qparams) if on_codes else None


def _mean_integer_forward(node, inputs, run):
    return Codes(_mean_codes(node, *inputs, node.out_qparams), node.out_qparams), None


def _mean_integer_step(node, inputs, steps):
    y = steps.adaptive_avg_pool2d(*inputs, node.out_qparams, 1)
    return steps.reshape(y, (y.shape[0], *node.shape))


register(
    name="mean",
    forward=_mean_forward,
    backward=_mean_backward,
    shape=_mean_shape,
    attributes=_mean_attributes,
    takes_fixed=True,
    lower=lower_to("mean_integer"),
    no_integers=_mean_of_images,
    integer_output=_mean_integer_output,
)
register(
    name="mean_integer",
    forward=_mean_integer_forward,
    backward=None,
    stores=StoredGrid,
    shape=_mean_shape,
    attributes=_mean_attributes,
    takes_codes=True,
    step=_mean_integer_step,
)
