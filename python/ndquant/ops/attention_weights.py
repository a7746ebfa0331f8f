"""The weights of an attention by themselves: softmax of scores of which masks leave some out, whose weight is 0.

Shape letters: N examples, L queries, S keys.
"""

from __future__ import annotations

import numpy as np

from .. import integer, rows
from .integer_layer import StoredGrid, have_integer_form, lower_to
from .record import Codes, Fixed, Indices, register
from .softmax import softmax_backward


def weights_attributes(causal=False, padding=False, mask=False, adds=False):
    """Return the attributes, checked: which masks the node reads behind the scores, and whether one adds numbers.

    `padding` says that it reads a mask of keys (N, S), true where a key is left out; `mask` that it reads an array
    (L, S) which is added, minus infinity to leave out a key, and `adds` that this holds other numbers than 0 too.
    """
    flags = {"causal": causal, "padding": padding, "mask": mask, "adds": adds}
    return {name: bool(value) for name, value in flags.items()}


def _left_out(node, inputs):
    """Join the masks of a node to one that is true where a key is left out; None if there is none."""
    a, (queries, keys), found = node.attributes, inputs[0].shape[-2:], []
    if a["padding"]:
        if inputs[1].shape[-1] != keys:
            raise ValueError(f"{node.name}: key_padding_mask of shape {inputs[1].shape} does not fit {keys} keys")
        found.append((inputs[1] != 0)[:, None, None, :])
    if a["mask"]:
        found.append(np.isneginf(inputs[-1]))
    if a["causal"]:
        found.append(np.triu(np.ones((queries, keys), bool), 1))
    mask = found[0] if found else None
    for other in found[1:]:
        mask = mask | other
    return mask


def _forward(node, inputs, run):
    scores, mask = inputs[0], _left_out(node, inputs)
    if isinstance(scores, Codes):
        scores = scores.dequantize()
    if node.attributes["adds"]:
        scores = scores + inputs[-1]
    y = rows.softmax(scores if mask is None else np.where(mask, scores.dtype.type(-np.inf), scores))
    return y, y


def _backward(node, dy, saved, need_input):
    masks = [None] * (node.attributes["padding"] + node.attributes["mask"])
    return (softmax_backward(dy, saved), *masks), {}


def _shape(node, shapes):
    a, scores = node.attributes, shapes[0]
    if len(shapes) != 1 + a["padding"] + a["mask"]:
        raise ValueError(f"{node.name}: reads {len(shapes)} values where its attributes say otherwise")
    if isinstance(scores, Fixed | Indices) or len(scores) != 3 or scores[-1] == 0:
        raise ValueError(f"{node.name}: takes scores (batch, heads, L, S), not (batch, {', '.join(map(str, scores))})")
    if a["padding"] and not (isinstance(shapes[1], Indices) and len(shapes[1]) == 1):
        raise TypeError(f"{node.name}: key_padding_mask must be booleans of shape (N, S)")
    if a["mask"] and shapes[-1] != Fixed(scores[1:]):
        raise TypeError(f"{node.name}: attn_mask must be an array of shape {scores[1:]}, not {shapes[-1]}")
    return scores


def _no_integers(node, shapes):
    return "its mask adds numbers to the scores" if node.attributes["adds"] else None


def _on_codes(node, inputs, out_qparams):
    scores = inputs[0]
    return integer.softmax(scores.codes, scores.qparams, out_qparams, mask=_left_out(node, inputs))


def _integer_output(node, inputs, saved, out_qparams):
    on_codes = isinstance(inputs[0], Codes) and have_integer_form(inputs[0].qparams, out_qparams)
    return _on_codes(node, inputs, out_qparams) if on_codes and not node.attributes["adds"] else None


def _integer_forward(node, inputs, run):
    return Codes(_on_codes(node, inputs, node.out_qparams), node.out_qparams), None


def _integer_step(node, inputs, steps):
    if node.attributes["padding"]:
        return None
    return steps.softmax(inputs[0], node.out_qparams, mask=_left_out(node, inputs))


def _lower(node, input_qparams, out_qparams):
    return lower_to("attention_weights_integer")(node, input_qparams[:1], out_qparams)


WEIGHTS = register(
    name="attention_weights",
    forward=_forward,
    backward=_backward,
    shape=_shape,
    attributes=weights_attributes,
    arity=None,
    takes_fixed=True,
    takes_indices=True,
    keeps_output=True,
    takes_codes=True,
    lower=_lower,
    quantized_inputs=1,
    no_integers=_no_integers,
    integer_output=_integer_output,
)
WEIGHTS_INTEGER = register(
    name="attention_weights_integer",
    forward=_integer_forward,
    backward=None,
    stores=StoredGrid,
    shape=_shape,
    attributes=weights_attributes,
    arity=None,
    takes_fixed=True,
    takes_indices=True,
    takes_codes=True,
    quantized_inputs=1,
    step=_integer_step,
    step_takes_arrays=True,
)
