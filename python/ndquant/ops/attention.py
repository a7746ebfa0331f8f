"""Scaled dot-product attention with several heads (Vaswani et al., 2017, https://arxiv.org/abs/1706.03762).

Shape letters: N examples, L queries, S keys, E features, of which each of the heads has D.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import rows
from .pointwise import dropout_attributes
from .record import Fixed, Indices, register, whole_number


@dataclass(slots=True)
class AttentionSaved:
    """What `attention_backward` needs of a forward pass."""

    q: np.ndarray  # (N, heads, L, D)
    k: np.ndarray
    v: np.ndarray
    weights: np.ndarray
    kept: np.ndarray | None  # factors of dropout


def _heads(x, heads):
    """Return (N, heads, L, D) of (N, L, E)."""
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads).transpose(0, 2, 1, 3)


def _joined(x):
    """Return (N, L, E) of (N, heads, L, D)."""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], x.shape[1] * x.shape[3])


def attention(q, k, v, heads, mask=None, kept=None):
    """Return ``softmax(q @ k.T / sqrt(D) + mask) @ v`` for each head, and what `attention_backward` needs.

    float32 without `kept` by `rows.attention`.

    Parameters
    ----------
    q : ndarray of float, shape (N, L, E)
    k, v : ndarray of float, shape (N, S, E)
    heads : int
        Divides E.
    mask : ndarray of float, optional
        Broadcast to (N, 1, L, S); minus infinity where a query must not look. One that may look nowhere gives 0.
    kept : ndarray, shape (N, heads, L, S), optional
        Factors of the weights.
    """
    if kept is None and q.dtype == np.float32:
        y, weights = rows.attention(q, k, v, heads, None if mask is None else rows_mask(mask, q, k))
        return y, AttentionSaved(*(_heads(x, heads) for x in (q, k, v)), weights, None)
    q, k, v = (_heads(x, heads) for x in (q, k, v))
    scores = (q @ k.swapaxes(2, 3)) * q.dtype.type(q.shape[3] ** -0.5)
    if mask is not None:
        scores += mask.astype(scores.dtype)
    weights = _probabilities(scores)
    if kept is not None:
        return _joined((weights * kept) @ v), AttentionSaved(q, k, v, weights, kept)
    return _joined(weights @ v), AttentionSaved(q, k, v, weights, None)


def rows_mask(mask, q, k):
    """Return a mask as (1 or N, L, S)."""
    mask = mask if mask.ndim == 4 else mask.reshape(*(1,) * (4 - mask.ndim), *mask.shape)
    return np.broadcast_to(mask, (len(mask), 1, q.shape[1], k.shape[1]))[:, 0]


def _probabilities(scores):
    top = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    e = np.exp(scores - np.where(np.isneginf(top), 0, top))
    total = e.sum(axis=-1, keepdims=True)
    return e / np.where(total == 0, 1, total)


def attention_backward(dy, saved):
    """Return the gradients of q, k and v."""
    heads, depth = saved.q.shape[1], saved.q.shape[3]
    dy = _heads(dy, heads)
    used = saved.weights if saved.kept is None else saved.weights * saved.kept
    d_weights = dy @ saved.v.swapaxes(2, 3)
    if saved.kept is not None:
        d_weights = d_weights * saved.kept
    d_scores = saved.weights * (d_weights - (d_weights * saved.weights).sum(axis=-1, keepdims=True))
    d_scores *= dy.dtype.type(depth**-0.5)
    dq = d_scores @ saved.k
    return tuple(map(_joined, (dq, d_scores.swapaxes(2, 3) @ saved.q, used.swapaxes(2, 3) @ dy)))


def attention_attributes(heads, batch_first=True, causal=False, padding=False, mask=False, weights=None, p=0.0):
    """Return the attributes of `attention`, checked.

    `padding` and `mask` say which masks the node reads behind q, k and v; `weights` is None, "average" or "heads": what
    its second output is.
    """
    if weights not in (None, "average", "heads"):
        raise ValueError(f"weights must be None, 'average' or 'heads', not {weights!r}")
    flags = {"batch_first": batch_first, "causal": causal, "padding": padding, "mask": mask}
    flags = {name: bool(value) for name, value in flags.items()}
    return {"heads": whole_number(heads, "heads", least=1), **flags, "weights": weights, **dropout_attributes(p)}


def _batch_first(x, attributes):
    return x if attributes["batch_first"] else x.swapaxes(0, 1)


def _mask(node, inputs, queries, keys):
    """Join the masks of a node to one that is added to the scores, or None."""
    a, found = node.attributes, []
    if a["padding"]:
        if inputs[3].shape[-1] != keys:
            raise ValueError(f"{node.name}: key_padding_mask of shape {inputs[3].shape} does not fit {keys} keys")
        found.append(np.where(inputs[3] != 0, -np.inf, 0)[:, None, None, :])
    if a["mask"]:
        if inputs[-1].shape != (queries, keys):
            raise ValueError(f"{node.name}: attn_mask must have shape {(queries, keys)}, not {inputs[-1].shape}")
        found.append(inputs[-1])
    if a["causal"]:
        found.append(np.triu(np.full((queries, keys), -np.inf), 1))
    return sum(found[1:], found[0]) if found else None


def _kept(node, shape, training):
    p = node.attributes["p"]
    if not training or p == 0:
        return None
    rng = np.random.default_rng(getattr(node.module, "rng", None))
    return (rng.random(shape, np.float32) >= p) * np.float32(1 / (1 - p) if p < 1 else 0)


def _forward(node, inputs, run):
    a = node.attributes
    q, k, v = (_batch_first(x, a) for x in inputs[:3])
    if not len(q) == len(k) == len(v) or k.shape[1] != v.shape[1]:
        raise ValueError(f"{node.name}: queries, keys and values of {q.shape}, {k.shape}, {v.shape} do not fit")
    mask = _mask(node, inputs, q.shape[1], k.shape[1])
    kept = _kept(node, (len(q), a["heads"], q.shape[1], k.shape[1]), run.training)
    y, saved = attention(q, k, v, a["heads"], mask, kept)
    y = _batch_first(y, a)
    if a["weights"] is None:
        return (y,), saved
    return (y, saved.weights.mean(axis=1) if a["weights"] == "average" else saved.weights), saved


def _backward(node, dy, saved, need_input):
    a = node.attributes
    if 1 in dy:
        raise ValueError(f"{node.name}: there is no gradient through attention weights, only through the output")
    d = attention_backward(_batch_first(dy[0], a), saved)
    return (*(_batch_first(x, a) for x in d), *[None] * (a["padding"] + a["mask"])), {}


def _shape(node, shapes):
    a = node.attributes
    if len(shapes) != 3 + a["padding"] + a["mask"]:
        raise ValueError(f"{node.name}: reads {len(shapes)} values where its attributes say otherwise")
    q, k, v = shapes[:3]
    if any(isinstance(s, Fixed | Indices) or len(s) != 2 or s[1] != q[1] for s in (q, k, v)) or q[1] % a["heads"]:
        raise ValueError(f"{node.name}: {a['heads']} heads cannot share queries, keys and values of {q}, {k}, {v}")
    if a["padding"] and not (isinstance(shapes[3], Indices) and len(shapes[3]) == 1):
        raise TypeError(f"{node.name}: key_padding_mask must be booleans of shape (N, S)")
    if a["mask"] and not isinstance(shapes[-1], Fixed):
        raise TypeError(f"{node.name}: attn_mask must be an array of shape (L, S), no traced value")
    if a["weights"] is None:
        return (q,)
    if not a["batch_first"]:
        raise ValueError(f"{node.name}: weights are given with batch_first=True only")
    return q, (q[0], k[0]) if a["weights"] == "average" else (a["heads"], q[0], k[0])


def _step(node, inputs, steps):
    a, (q, k) = node.attributes, inputs[:2]
    if a["padding"] or a["weights"] is not None or not a["batch_first"]:
        return None
    mask = _mask(node, inputs, q.shape[1], k.shape[1])
    return (steps.attention(*inputs[:3], a["heads"], None if mask is None else rows_mask(mask, q, k)),)


#: The value is a tuple: the output, and weights if they are asked for.
ATTENTION = register(
    name="attention",
    forward=_forward,
    backward=_backward,
    shape=_shape,
    attributes=attention_attributes,
    arity=None,
    takes_fixed=True,
    takes_indices=True,
    keeps_output=True,
    step=_step,
    step_takes_arrays=True,
)
