"""Attention: names and parameters. What it computes stands in `ndquant.ops.attention` and `ndquant.ops.linear`."""

from __future__ import annotations

from math import sqrt

import numpy as np

from ..graph.module import Module, Parameter, View
from ..graph.tracing import apply, parts
from ..ops.attention import attention_attributes
from ..ops.record import whole_number
from ..parameter import ParameterView
from .layers import Linear


class MultiheadAttention(Module):
    """Attention with several heads, each with projections of its own of queries, keys and values.

    Inside ``forward``, ``y, weights = self.attention(query, key, value)``, of arrays (N, L, embed_dim) with
    ``batch_first=True``, else (L, N, embed_dim). A key_padding_mask is an input of integers or booleans, (N, S),
    true where a key is no part of an example; attn_mask is an array of the network, (L, S), true or minus infinity
    where a query must not look. A query that may look nowhere gives zeros.

    Weights are (N, L, S), or (N, heads, L, S) with ``average_attn_weights=False``; they are None with
    ``need_weights=False`` or ``batch_first=False``, as only the first axis of what flows through a network may have
    any length.

    Parameters
    ----------
    embed_dim, num_heads : int
        `num_heads` divides `embed_dim`.
    dropout : float, default 0
        Share of the weights that training sets to 0.
    bias : bool, default True
    kdim, vdim : int, optional
        Features of keys and of values, by default `embed_dim`.
    batch_first : bool, default False
    rng : None, int or numpy.random.Generator, default None
        For the initial weights: uniform in +-sqrt(6 / (inputs + outputs)), as in PyTorch. None takes fresh entropy.

    Attributes
    ----------
    in_proj_weight : ndarray of float32, shape (3 embed_dim, embed_dim)
        Or, with `kdim` or `vdim`, q_proj_weight, k_proj_weight and v_proj_weight.
    in_proj_bias : ndarray of float32, shape (3 embed_dim,), or None
    out_proj : Linear

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> class SelfAttention(nn.Module):
    ...     def __init__(self):
    ...         self.attention = nn.MultiheadAttention(8, 2, batch_first=True, rng=0)
    ...     def forward(self, x):
    ...         return self.attention(x, x, x)
    >>> y, weights = SelfAttention()(np.zeros((3, 5, 8)))
    >>> y.shape, weights.shape
    ((3, 5, 8), (3, 5, 5))
    """

    def __init__(
        self, embed_dim, num_heads, dropout=0.0, bias=True, *, kdim=None, vdim=None, batch_first=False, rng=None
    ):
        self.embed_dim = whole_number(embed_dim, "embed_dim", least=1)
        self.num_heads = whole_number(num_heads, "num_heads", least=1)
        self.kdim = self.embed_dim if kdim is None else whole_number(kdim, "kdim", least=1)
        self.vdim = self.embed_dim if vdim is None else whole_number(vdim, "vdim", least=1)
        if embed_dim % num_heads:
            raise ValueError(f"num_heads must divide embed_dim, {embed_dim}, not be {num_heads}")
        self.dropout = attention_attributes(num_heads, p=dropout)["p"]
        self.batch_first, rng = bool(batch_first), np.random.default_rng(rng)
        self._make_parameters(bias, rng)
        self.out_proj = Linear(embed_dim, embed_dim, bias, rng=rng)
        if bias:
            self.out_proj.bias = np.zeros(embed_dim)
        out = self.out_proj._parameters
        self.views["out_proj"] = View(MultiheadAttention, weight=out["weight"], bias=out.get("bias"))
        self.views["attention"] = View(MultiheadAttention)
        self.views["attention"].rng = rng

    def _make_parameters(self, bias, rng):
        """Make the projections; as views also that of all three, where they have one weight, and each by itself."""
        width, features = self.embed_dim, (self.embed_dim, self.kdim, self.vdim)
        self.in_proj_bias = Parameter(np.zeros(3 * width)) if bias else None
        joined = self._parameters.get("in_proj_bias")
        rows = [(slice(i * width, (i + 1) * width),) for i in range(3)]
        biases = [ParameterView(joined, part) if bias else None for part in rows]
        if features == (width,) * 3:
            self.in_proj_weight = whole = _uniform((3 * width, width), rng)
            weights = [ParameterView(whole, part) for part in rows]
            self.views = {"in_proj": View(MultiheadAttention, weight=whole, bias=joined)}
        else:
            weights = [_uniform((width, count), rng) for count in features]
            self.q_proj_weight, self.k_proj_weight, self.v_proj_weight = weights
            self.views = {}
        for letter, weight, part in zip("qkv", weights, biases, strict=True):
            self.views[f"{letter}_proj"] = View(MultiheadAttention, weight=weight, bias=part)

    def forward(
        self,
        query,
        key,
        value,
        key_padding_mask=None,
        need_weights=True,
        attn_mask=None,
        average_attn_weights=True,
        is_causal=False,
    ):
        """Record the projections, the attention and the projection of its output; return output and weights."""
        how = ("average" if average_attn_weights else "heads") if need_weights and self.batch_first else None
        attributes = attention_attributes(
            self.num_heads,
            self.batch_first,
            is_causal,
            key_padding_mask is not None,
            attn_mask is not None,
            how,
            self.dropout,
        )
        masks = [] if key_padding_mask is None else [key_padding_mask]
        masks += [] if attn_mask is None else [_as_floats(attn_mask)]
        values = (*self._projected(query, key, value), *masks)
        y, *weights = parts(apply("attention", *values, module=self.views["attention"], attributes=attributes))
        y = apply("linear", y, module=self.views["out_proj"])
        return y, weights[0] if weights else None

    def _projected(self, query, key, value):
        """Record the projections: of one input all three at once."""
        if query is key is value and "in_proj" in self.views:
            joined = apply("linear", query, module=self.views["in_proj"])
            return [joined[:, :, i * self.embed_dim : (i + 1) * self.embed_dim] for i in range(3)]
        values = zip("qkv", (query, key, value), strict=True)
        return [apply("linear", x, module=self.views[f"{letter}_proj"]) for letter, x in values]

    def extra_repr(self):
        """Return sizes and options."""
        return f"{self.embed_dim}, {self.num_heads}, dropout={self.dropout}, batch_first={self.batch_first}"


def _uniform(shape, rng):
    limit = sqrt(6 / sum(shape))
    return Parameter(rng.uniform(-limit, limit, shape))


def _as_floats(mask):
    """Return a mask as what is added to the scores."""
    mask = np.asarray(mask)
    return np.where(mask, -np.inf, 0).astype(np.float32) if mask.dtype.kind == "b" else mask
