"""What an op is: one record that the graph runs forward and backward, and the values that flow between ops."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..functional import dequantize


class Codes:
    """Integer codes with the `QParams` that give them real values: what a quantized edge of a graph carries."""

    __slots__ = ("codes", "qparams", "_real")

    def __init__(self, codes, qparams):
        self.codes = codes
        self.qparams = qparams
        self._real = None

    @property
    def shape(self):
        """Shape of the array."""
        return self.codes.shape

    def dequantize(self):
        """Return the real values, float32; computed once."""
        if self._real is None:
            self._real = dequantize(self.codes, self.qparams, dtype=np.float32)
        return self._real

    def __repr__(self):
        return f"Codes({self.codes.dtype}{list(self.shape)}, {self.qparams!r})"


def real(value):
    """Return the real values of an edge, whether it carries codes or floats."""
    return value.dequantize() if isinstance(value, Codes) else value


class StoredIntegers:
    """Base of what a node of an integer graph stores; assigning an attribute takes effect at once.

    Attributes
    ----------
    version : int
        Of the class: changes with every assignment, so that what was built from stored integers can be built anew.
    """

    version = 0
    _versions = itertools.count(1)

    def __setattr__(self, name, value):
        StoredIntegers.version = next(self._versions)
        object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Op:
    """One kind of node.

    Attributes
    ----------
    name : str
        What a graph prints and a file stores.
    forward : callable
        ``forward(node, inputs, run) -> (y, saved)``; `run` is the `Run` that the node is part of.
    backward : callable or None
        ``backward(node, dy, saved, need_input) -> (gradients of the inputs, {parameter: gradient})``. An input whose
        `need_input` is False may get None. None for the ops of integer graphs.
    shape : callable
        ``shape(node, input_shapes) -> shape`` without the batch axis; raises `ValueError` where shapes do not fit.
    takes_codes : bool
        Whether forward understands `Codes`; otherwise it is given their real values.
    keeps_codes : bool
        Whether the op maps codes to codes of the same `QParams` (it moves or selects them), so that a quantizer in
        front of it serves what follows too.
    lower : callable or None
        ``lower(node, input_qparams) -> (op, stored)``: name of the integer op that does the same on codes, and the
        `StoredIntegers` that it runs on. Quantizers are placed on the inputs of such ops. None: the op stays float.
    absorbs : tuple of str
        Names of the activations that may become part of the op, as its attribute ``activation``.
    step : callable or None
        ``step(node, inputs, steps) -> Value``: appends what the core does for this node of an integer graph to a
        `graph.plan.Steps`; None, or the answer None, if it does nothing for it, so that Python runs the graph.
    """

    name: str
    forward: Callable
    backward: Callable | None
    shape: Callable
    takes_codes: bool = False
    keeps_codes: bool = False
    lower: Callable | None = None
    absorbs: tuple = ()
    step: Callable | None = None

    def __repr__(self):
        return f"<op {self.name}>"


OPS: dict[str, Op] = {}


def register(**fields):
    """Make an `Op` and enter it into `OPS`, the table by which files and tracing name ops."""
    op = Op(**fields)
    OPS[op.name] = op
    return op
