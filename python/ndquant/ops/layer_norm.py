"""Layer normalization (Ba et al., 2016, https://arxiv.org/abs/1607.06450), over the last axes of each example."""

from __future__ import annotations

from math import prod

import numpy as np

from .. import integer, rows
from .integer_layer import StoredNorm, have_integer_form
from .record import Codes, finite, real, register, whole_number


def layer_norm_attributes(axes=1, eps=1e-5):
    """Return the attributes of `layer_norm`, checked: over how many of the last axes, and what the variance gets."""
    eps = finite(eps, "eps")
    if eps < 0:
        raise ValueError(f"eps must be at least 0, not {eps}")
    return {"axes": whole_number(axes, "axes", least=1), "eps": eps}


def layer_norm(x, weight, bias, axes=1, eps=1e-5):
    """Return ``(x - mean) / sqrt(var + eps) * weight + bias``, and what `layer_norm_backward` needs.

    `weight` and `bias` have the shape of the last `axes` axes of `x`, or are None: 1 and 0.
    float32 is computed by `rows.layer_norm`.
    """
    if x.dtype == np.float32:
        return _layer_norm_rows(x, weight, bias, axes, eps)
    mean = _mean(x, axes)
    normal = x - mean
    inverse = 1 / np.sqrt(_mean(normal * normal, axes) + x.dtype.type(eps))
    normal *= inverse
    y = normal.copy() if weight is None else normal * weight
    if bias is not None:
        y += bias
    return y, (x, mean, inverse)


def _layer_norm_rows(x, weight, bias, axes, eps):
    length = prod(x.shape[-axes:])
    flat, *affine = (None if a is None else a.reshape(-1, length) for a in (x, weight, bias))
    y, stats = rows.layer_norm(flat, *(None if a is None else a[0] for a in affine), eps)
    shape = *x.shape[:-axes], *(1,) * axes
    mean, inverse = stats[:, 0].reshape(shape), stats[:, 1].reshape(shape)
    return y.reshape(x.shape), (x, mean, inverse)


def _mean(x, axes):
    """Return the mean over the last axes, which stay as axes of length 1; at short rows quicker than that of NumPy."""
    sums = np.add.reduce(x, axis=tuple(range(-axes, 0)), keepdims=True)
    sums /= x.dtype.type(prod(x.shape[-axes:]))
    return sums


def layer_norm_backward(dy, weight, saved, axes=1):
    """Return the gradients of x, the weight and the bias.

    With x' = (x - mean) * inverse and d = dy * weight that of x is ``inverse * (d - mean(d) - x' * mean(d * x'))``.
    """
    x, mean, inverse = saved
    normal = (x - mean) * inverse
    examples = tuple(range(dy.ndim - axes))
    d = dy if weight is None else dy * weight
    dx = inverse * (d - _mean(d, axes) - normal * _mean(d * normal, axes))
    return dx, (dy * normal).sum(axis=examples), dy.sum(axis=examples)


def _affine(node):
    parameters = node.module._parameters
    return tuple(parameters[name].data if name in parameters else None for name in ("weight", "bias"))


def _forward(node, inputs, run):
    return layer_norm(*map(real, inputs), *_affine(node), **node.attributes)


def _backward(node, dy, saved, need_input):
    weight, bias = _affine(node)
    dx, dweight, dbias = layer_norm_backward(dy, weight, saved, node.attributes["axes"])
    gradients = {} if weight is None else {"weight": dweight}
    return (dx,), gradients if bias is None else gradients | {"bias": dbias}


def _shape(node, shapes):
    (shape,) = shapes
    axes = node.attributes["axes"]
    if axes > len(shape) or 0 in shape[-axes:]:
        raise ValueError(f"{node.name}: cannot normalize the last {axes} of the axes {shape} behind the batch axis")
    for name in ("weight", "bias"):
        array = getattr(node, name)
        if array is not None and array.shape != shape[-axes:]:
            raise ValueError(f"{node.name}: {name} of shape {array.shape} does not fit {shape} behind the batch axis")
    return shape


def _step(node, inputs, steps):
    (x,), axes = inputs, node.attributes["axes"]
    affine = (a if a is None else a.reshape(-1) for a in _affine(node))
    return steps.layer_norm_floats(x, prod(x.shape[-axes:]), *affine, node.attributes["eps"])


#: The kernel takes rows of so many codes at most.
LONGEST_ROW = 2**23


def _of_rows(node, shapes):
    if node.attributes["axes"] > 1:
        return "only a normalization over the last axis alone has an integer form"
    return f"rows of more than {LONGEST_ROW:,} codes have no integer form" if shapes[0][-1] > LONGEST_ROW else None


def _lower(node, input_qparams, out_qparams):
    if not have_integer_form(*input_qparams, out_qparams):
        return None
    return "layer_norm_integer", StoredNorm(*_affine(node), out_qparams)


def _on_codes(x, weight, bias, out_qparams, eps):
    length = x.shape[-1:]
    weight = np.ones(length, np.float32) if weight is None else weight
    bias = np.zeros(length, np.float32) if bias is None else bias
    return integer.layer_norm(x.codes, x.qparams, out_qparams, weight, bias, eps)


def _integer_output(node, inputs, saved, out_qparams):
    (x,) = inputs
    if not isinstance(x, Codes) or not have_integer_form(x.qparams, out_qparams) or _of_rows(node, [x.shape[1:]]):
        return None
    return _on_codes(x, *_affine(node), out_qparams, node.attributes["eps"])


def _integer_forward(node, inputs, run):
    (x,), stored = inputs, node.module
    return Codes(
        _on_codes(x, stored.weight, stored.bias, stored.out_qparams, node.attributes["eps"]), stored.out_qparams
    ), None


def _integer_step(node, inputs, steps):
    (x,), stored = inputs, node.module
    return steps.layer_norm(x, stored.out_qparams, stored.weight, stored.bias, node.attributes["eps"])


LAYER_NORM = register(
    name="layer_norm",
    forward=_forward,
    backward=_backward,
    shape=_shape,
    attributes=layer_norm_attributes,
    parameters=("weight", "bias"),
    takes_codes=True,
    lower=_lower,
    no_integers=_of_rows,
    integer_output=_integer_output,
    step=_step,
)
LAYER_NORM_INTEGER = register(
    name="layer_norm_integer",
    forward=_integer_forward,
    backward=None,
    stores=StoredNorm,
    shape=_shape,
    attributes=layer_norm_attributes,
    takes_codes=True,
    step=_integer_step,
)
