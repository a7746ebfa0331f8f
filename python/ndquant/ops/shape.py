"""Ops that only rearrange elements. In attributes, axes count from the batch axis, which every op keeps in front."""

from __future__ import annotations

from math import prod

import numpy as np

from .. import integer
from .integer_layer import StoredGrid, code_of_zero, lower_to
from .record import (
    BATCH,
    Codes,
    Fixed,
    always,
    finite,
    full,
    register,
    shape_text,
    whole_number,
    whole_numbers,
    without_batch,
)


def _reshape_attributes(shape):
    return {"shape": whole_numbers(shape, "shape")}


def _reshape_forward(node, inputs, run):
    (x,) = inputs
    shape = _reshaped(node, x)
    return _moved(x, lambda a: a.reshape(shape)), x.shape


def _moved(x, function):
    """Apply a function that only moves elements to floats or to codes."""
    return x.like(function(x.codes)) if isinstance(x, Codes) else function(x)


def _reshaped(node, x):
    """Return the target with the batch length of `x` in front, if it has one."""
    shape = node.attributes["shape"]
    return shape if isinstance(node.shape, Fixed) else (x.shape[0], *shape)


def _reshape_backward(node, dy, saved, need_input):
    return (dy.reshape(saved),), {}


def _reshape_shape(node, shapes):
    target = node.attributes["shape"]
    if prod(target) != prod(shapes[0]):
        raise ValueError(f"reshape: {prod(shapes[0])} elements per example, of shape {shapes[0]}, do not fill {target}")
    return type(shapes[0])(target)


def _reshape_step(node, inputs, steps):
    (x,) = inputs
    return steps.reshape(x, _reshaped(node, x))


#: The shape in its attributes is without the batch axis.
RESHAPE = register(
    name="reshape",
    forward=_reshape_forward,
    backward=_reshape_backward,
    shape=_reshape_shape,
    attributes=_reshape_attributes,
    takes_fixed=True,
    is_view=True,
    takes_codes=True,
    keeps_codes=always,
    step=_reshape_step,
)


def _transpose_attributes(axes):
    return {"axes": whole_numbers(axes, "axes")}


def _transpose_forward(node, inputs, run):
    (x,) = inputs
    return _moved(x, lambda a: a.transpose(node.attributes["axes"])), None


def _transpose_step(node, inputs, steps):
    (x,) = inputs
    return steps.permute(x, node.attributes["axes"])


def _transpose_backward(node, dy, saved, need_input):
    return (dy.transpose(np.argsort(node.attributes["axes"])),), {}


def _transpose_shape(node, shapes):
    lengths, axes = full(shapes[0]), node.attributes["axes"]
    if sorted(axes) != list(range(len(lengths))):
        raise ValueError(f"transpose: axes {axes} are no order of the axes of {shape_text(lengths)}")
    return without_batch(tuple(lengths[axis] for axis in axes), "transpose")


TRANSPOSE = register(
    name="transpose",
    forward=_transpose_forward,
    backward=_transpose_backward,
    shape=_transpose_shape,
    attributes=_transpose_attributes,
    takes_fixed=True,
    is_view=True,
    takes_codes=True,
    keeps_codes=always,
    step=_transpose_step,
)


def _slice_attributes(index):
    """Check an index: for each axis an integer, or (start, stop, step)."""
    return {"index": tuple(_checked_index(part) for part in index)}


def _checked_index(part):
    if not isinstance(part, tuple | list):
        return whole_number(part, "index", least=-(2**62))
    start, stop, step = (None if n is None else whole_number(n, "index", least=-(2**62)) for n in part)
    if step == 0:
        raise ValueError("index: a step must not be 0")
    return start, stop, step


def _index(node):
    return tuple(slice(*part) if isinstance(part, tuple) else part for part in node.attributes["index"])


def _slice_forward(node, inputs, run):
    (x,) = inputs
    return _moved(x, lambda a: a[_index(node)]), x.codes if isinstance(x, Codes) else x


def _slice_step(node, inputs, steps):
    (x,) = inputs
    return steps.slice(x, _index(node))


def _slice_backward(node, dy, saved, need_input):
    dx = np.zeros_like(saved, dtype=dy.dtype)
    dx[_index(node)] = dy
    return (dx,), {}


def _slice_shape(node, shapes):
    lengths, index = full(shapes[0]), _index(node)
    if len(index) != len(lengths):
        raise ValueError(f"slice: an index of {len(index)} parts for {shape_text(lengths)}")
    result = [_sliced(n, part) for n, part in zip(lengths, index, strict=True)]
    return without_batch(tuple(n for n in result if n is not None), "slice")


def _sliced(length, part):
    """Return the length that an index leaves of an axis, None if it takes the axis away."""
    if length == BATCH:
        if part != slice(None):
            raise ValueError("slice: the batch axis can only be taken whole (:)")
        return BATCH
    if isinstance(part, slice):
        return len(range(*part.indices(length)))
    if not -length <= part < length:
        raise ValueError(f"slice: index {part} is outside an axis of length {length}")
    return None


SLICE = register(
    name="slice",
    forward=_slice_forward,
    backward=_slice_backward,
    shape=_slice_shape,
    attributes=_slice_attributes,
    takes_fixed=True,
    is_view=True,
    takes_codes=True,
    keeps_codes=always,
    step=_slice_step,
)


def _pad_attributes(width, value=0.0):
    width = tuple(whole_numbers(pair, "width") for pair in width)
    if any(len(pair) != 2 for pair in width):
        raise ValueError(f"width must hold a pair for each axis, not {width}")
    return {"width": width, "value": finite(value, "value")}


def _inside(width, shape):
    return tuple(slice(before, before + n) for (before, _), n in zip(width, shape, strict=True))


def _pad_forward(node, inputs, run):
    (x,) = inputs
    value = code_of_zero(x.qparams) if isinstance(x, Codes) else node.attributes["value"]
    return _moved(x, lambda a: _padded(a, node.attributes["width"], value)), x.shape


def _padded(x, width, value):
    shape = tuple(before + n + after for (before, after), n in zip(width, x.shape, strict=True))
    y = np.full_like(x, value, shape=shape)
    y[_inside(width, x.shape)] = x
    return y


def _pads_with_zeros(node):
    return node.attributes["value"] == 0


def _pad_step(node, inputs, steps):
    (x,) = inputs
    return None if x.qparams is None else steps.pad(x, node.attributes["width"])


def _pad_backward(node, dy, saved, need_input):
    return (dy[_inside(node.attributes["width"], saved)],), {}


def _pad_shape(node, shapes):
    lengths, width = full(shapes[0]), node.attributes["width"]
    if len(width) != len(lengths):
        raise ValueError(f"pad: {len(width)} pairs for {shape_text(lengths)}")
    if lengths[:1] == (BATCH,) and width[0] != (0, 0):
        raise ValueError("pad: the batch axis cannot be padded")
    padded = (n if n == BATCH else before + n + after for (before, after), n in zip(width, lengths, strict=True))
    return without_batch(tuple(padded), "pad")


PAD = register(
    name="pad",
    forward=_pad_forward,
    backward=_pad_backward,
    shape=_pad_shape,
    attributes=_pad_attributes,
    takes_fixed=True,
    takes_codes=True,
    keeps_codes=_pads_with_zeros,
    step=_pad_step,
)


def _concatenate_attributes(axis):
    return {"axis": whole_number(axis, "axis")}


def _concatenate_forward(node, inputs, run):
    axis, lengths = node.attributes["axis"], [x.shape[node.attributes["axis"]] for x in inputs]
    shape = list(inputs[0].shape)
    shape[axis] = sum(lengths)
    y = np.concatenate(inputs, axis=axis, out=np.empty_like(inputs[0], shape=tuple(shape)))
    return y, np.cumsum(lengths[:-1])


def _concatenate_backward(node, dy, saved, need_input):
    return tuple(np.split(dy, saved, axis=node.attributes["axis"])), {}


def _concatenate_shape(node, shapes):
    axis, lengths = node.attributes["axis"], [full(shape) for shape in shapes]
    first = lengths[0]
    if axis >= len(first) or first[axis] == BATCH:
        raise ValueError(f"concatenate: axis {axis} of {shape_text(first)} is none that can grow")
    rest = [n[:axis] + n[axis + 1 :] for n in lengths]
    if any(other != rest[0] for other in rest):
        raise ValueError(f"concatenate: {', '.join(map(shape_text, lengths))} differ in other axes than axis {axis}")
    joined = (*first[:axis], sum(n[axis] for n in lengths), *first[axis + 1 :])
    return without_batch(joined, "concatenate")


def _has_fixed_part(node, shapes):
    return "a part is a parameter or constant" if any(isinstance(s, Fixed) for s in shapes) else None


CONCATENATE = register(
    name="concatenate",
    forward=_concatenate_forward,
    backward=_concatenate_backward,
    shape=_concatenate_shape,
    attributes=_concatenate_attributes,
    arity=None,
    takes_fixed=True,
    lower=lower_to("concatenate_integer"),
    no_integers=_has_fixed_part,
)


def _concatenate_integer_forward(node, inputs, run):
    parts, grids = [x.codes for x in inputs], [x.qparams for x in inputs]
    codes = integer.concatenate(parts, grids, node.out_qparams, node.attributes["axis"])
    return Codes(codes, node.out_qparams), None


def _concatenate_step(node, inputs, steps):
    return steps.concatenate(inputs, node.out_qparams, node.attributes["axis"])


CONCATENATE_INTEGER = register(
    name="concatenate_integer",
    forward=_concatenate_integer_forward,
    backward=None,
    stores=StoredGrid,
    shape=_concatenate_shape,
    attributes=_concatenate_attributes,
    arity=None,
    takes_codes=True,
    step=_concatenate_step,
)
