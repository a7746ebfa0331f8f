"""LSTM and GRU: names and parameters. What they compute stands in `ndquant.ops.recurrent`."""

from __future__ import annotations

from math import sqrt

import numpy as np

from ..graph.module import Module, Parameter, View
from ..graph.tracing import Traced, apply, parts
from ..ops.pointwise import dropout_attributes
from ..ops.record import whole_number
from ..ops.recurrent import CELLS


class _Recurrent(Module):
    """Layers of one kind of cell, each in one direction or both, whose outputs are then joined."""

    op = None

    def __init__(
        self,
        input_size,
        hidden_size,
        num_layers=1,
        bias=True,
        batch_first=False,
        dropout=0.0,
        bidirectional=False,
        *,
        rng=None,
    ):
        self.input_size = whole_number(input_size, "input_size", least=1)
        self.hidden_size = whole_number(hidden_size, "hidden_size", least=1)
        self.num_layers = whole_number(num_layers, "num_layers", least=1)
        self.bias, self.batch_first, self.bidirectional = bool(bias), bool(batch_first), bool(bidirectional)
        self.dropout = dropout_attributes(dropout)["p"]
        self.rng = np.random.default_rng(rng)
        self.views = {}
        self._cells = CELLS[self.op]
        for layer in range(self.num_layers):
            for end in ("", "_reverse")[: 1 + self.bidirectional]:
                self.views[f"l{layer}{end}"] = self._direction(layer, f"_l{layer}{end}")

    def _direction(self, layer, end):
        """Make the parameters of one layer in one direction; return them as a node's module."""
        hidden, gates = self.hidden_size, self._cells.gates * self.hidden_size
        features = self.input_size if layer == 0 else hidden * (1 + self.bidirectional)
        shapes = {"weight_ih": (gates, features), "weight_hh": (gates, hidden)}
        shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)} if self.bias else {}
        limit, made = 1 / sqrt(hidden), dict.fromkeys(("bias_ih", "bias_hh"))
        for name, shape in shapes.items():
            made[name] = Parameter(self.rng.uniform(-limit, limit, shape))
            setattr(self, name + end, made[name])
        return View(type(self), **made)

    def __call__(self, x, hx=None, lengths=None):
        """Run the layers on arrays, or record them inside another ``forward``; see the class."""
        if isinstance(x, Traced):
            return self.forward(x, hx, lengths)
        given = [*self._as_states(hx), *(() if lengths is None else (lengths,))]
        y, *states = super().__call__(x, *given)
        return y, tuple(states) if self._cells.states > 1 else states[0]

    def _as_states(self, hx):
        if hx is None:
            return ()
        states = hx if isinstance(hx, tuple | list) else (hx,)
        if len(states) != self._cells.states:
            raise ValueError(f"hx must be {' and '.join('hc'[: self._cells.states])}, not {len(states)} arrays")
        return tuple(states)

    def forward(self, x, hx=None, *more, lengths=None):
        """Record the layers; states and lengths may also come one after another, as the inputs of a graph do."""
        if more or isinstance(hx, Traced):
            hx, lengths = self._sorted((hx, *more), lengths)
        states, last = self._as_states(hx), []
        for layer in range(self.num_layers):
            made = [self._run(name, x, states, lengths) for name in self._names(layer)]
            x = made[0][0] if len(made) == 1 else np.concatenate([y for y, *_ in made], axis=2)
            last += [directions for _, *directions in made]
            if self.dropout and self.training and layer < self.num_layers - 1:
                x = apply("dropout", x, module=self, attributes={"p": self.dropout})
        joined = tuple(self._joined(list(kind)) for kind in zip(*last, strict=True))
        return x, joined if len(joined) > 1 else joined[0]

    def _sorted(self, given, lengths):
        """Tell lengths, which are integers, from states."""
        values = [x for part in given for x in (part if isinstance(part, tuple | list) else (part,)) if x is not None]
        integers = [x for x in values if x.dtype.kind == "i"]
        states = tuple(x for x in values if x.dtype.kind == "f")
        return states or None, integers[0] if integers else lengths

    def _names(self, layer):
        return [f"l{layer}", f"l{layer}_reverse"][: 1 + self.bidirectional]

    def _run(self, name, x, states, lengths):
        attributes = {
            "reverse": name.endswith("_reverse"),
            "batch_first": self.batch_first,
            "state": list(self.views).index(name) if states else None,
            "lengths": lengths is not None,
        }
        values = (x, *states, *(() if lengths is None else (lengths,)))
        return parts(apply(self.op, *values, module=self.views[name], attributes=attributes))

    def _joined(self, states):
        attributes = {"batch_first": self.batch_first}
        return states[0] if len(states) == 1 else apply("stack_states", *states, attributes=attributes)

    def extra_repr(self):
        """Return sizes and options."""
        names = ("num_layers", "bias", "batch_first", "dropout", "bidirectional")
        return ", ".join([f"{self.input_size}, {self.hidden_size}", *(f"{n}={getattr(self, n)}" for n in names)])


class LSTM(_Recurrent):
    """Long short-term memory: layers, in one direction or both.

    Inside ``forward``, ``y, (h, c) = self.lstm(x)``, or with initial states ``self.lstm(x, (h, c))``; with `lengths`,
    integers of shape (N,), sequences are padded, and numbers are those that PyTorch has for packed ones: outputs behind
    an end are 0, states are those at the end, and in reverse a sequence begins at its end. A sequence may be empty.

    As the first axis of all that flows through a network is the only one whose length is free, states have the shape
    (layers and directions, N, hidden_size) with ``batch_first=False``, as in PyTorch, and
    (N, layers and directions, hidden_size) with ``batch_first=True``.

    Parameters
    ----------
    input_size, hidden_size : int
    num_layers : int, default 1
    bias : bool, default True
    batch_first : bool, default False
        Whether x and y are (N, T, features) instead of (T, N, features).
    dropout : float, default 0
        Share of the outputs of each layer but the last that training sets to 0.
    bidirectional : bool, default False
        Whether each layer also runs from the end, its outputs joined behind those of the other direction.
    rng : None, int or numpy.random.Generator, default None
        For the initial weights: uniform in +-1/sqrt(hidden_size), as in PyTorch. None takes fresh entropy.

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, weight_ih_l0_reverse, ... : ndarray of float32
        Gates i, f, g, o one behind the other, as in PyTorch.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> lstm = nn.LSTM(4, 8, batch_first=True, rng=0)
    >>> y, (h, c) = lstm(np.zeros((2, 5, 4)))
    >>> y.shape, h.shape
    ((2, 5, 8), (2, 1, 8))
    >>> y, (h, c) = lstm(np.zeros((2, 5, 4)), (h, c), lengths=np.array([5, 3]))
    >>> bool((y[1, 3:] == 0).all())
    True
    """

    op = "lstm"


class GRU(_Recurrent):
    """Gated recurrent units: layers, in one direction or both. As `LSTM`, with h alone for a state.

    Parameters
    ----------
    input_size, hidden_size : int
    num_layers : int, default 1
    bias : bool, default True
    batch_first : bool, default False
        Whether x and y are (N, T, features) instead of (T, N, features).
    dropout : float, default 0
        Share of the outputs of each layer but the last that training sets to 0.
    bidirectional : bool, default False
        Whether each layer also runs from the end, its outputs joined behind those of the other direction.
    rng : None, int or numpy.random.Generator, default None
        For the initial weights: uniform in +-1/sqrt(hidden_size), as in PyTorch. None takes fresh entropy.

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, weight_ih_l0_reverse, ... : ndarray of float32
        Gates r, z, n one behind the other, as in PyTorch.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> y, h = nn.GRU(4, 8, num_layers=2, rng=0)(np.zeros((5, 2, 4)))
    >>> y.shape, h.shape
    ((5, 2, 8), (2, 2, 8))
    """

    op = "gru"
