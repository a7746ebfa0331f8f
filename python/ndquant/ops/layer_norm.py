"""Layer normalization (Ba et al., 2016, https://arxiv.org/abs/1607.06450), over the last axes of each example."""

from __future__ import annotations

import numpy as np

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
    """
    over = tuple(range(-axes, 0))
    centred = x - x.mean(axis=over, keepdims=True)
    variance = np.square(centred).mean(axis=over, keepdims=True)
    inverse = 1 / np.sqrt(variance + x.dtype.type(eps))
    normal = centred * inverse
    y = normal if weight is None else normal * weight
    return (y if bias is None else y + bias), (normal, inverse)


def layer_norm_backward(dy, weight, saved, axes=1):
    """Return the gradients of x, the weight and the bias.

    With x' = (x - mean) * inverse and d = dy * weight that of x is ``inverse * (d - mean(d) - x' * mean(d * x'))``.
    """
    normal, inverse = saved
    over, examples = tuple(range(-axes, 0)), tuple(range(dy.ndim - axes))
    d = dy if weight is None else dy * weight
    products = (d * normal).mean(axis=over, keepdims=True)
    dx = inverse * (d - d.mean(axis=over, keepdims=True) - normal * products)
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


LAYER_NORM = register(
    name="layer_norm",
    forward=_forward,
    backward=_backward,
    shape=_shape,
    attributes=layer_norm_attributes,
    parameters=("weight", "bias"),
)
