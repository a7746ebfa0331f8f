"""Layer normalization (Ba et al., 2016, https://arxiv.org/abs/1607.06450), over the last axes of each example."""

from __future__ import annotations

from math import prod

import numpy as np

from .. import rows
from .record import finite, register, whole_number


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
    return layer_norm(*inputs, *_affine(node), **node.attributes)


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


LAYER_NORM = register(
    name="layer_norm",
    forward=_forward,
    backward=_backward,
    shape=_shape,
    attributes=layer_norm_attributes,
    parameters=("weight", "bias"),
    step=_step,
)
