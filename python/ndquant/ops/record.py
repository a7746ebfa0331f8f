"""What an op is: one record that the graph runs forward and backward, and the values that flow between ops."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import QuantizationError
from ..functional import dequantize
from ..layout import in_memory_order


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
            self._real = in_memory_order(lambda q: dequantize(q, self.qparams, dtype=np.float32), self.codes)
        return self._real

    def like(self, codes):
        """Return other codes of the same `QParams`."""
        return Codes(codes, self.qparams)

    def __repr__(self):
        return f"Codes({self.codes.dtype}{list(self.shape)}, {self.qparams!r})"


def real(value):
    """Return the real values of an edge, whether it carries codes or floats."""
    return value.dequantize() if isinstance(value, Codes) else value


class Fixed(tuple):
    """The shape of a value without a batch axis: a parameter or a constant that `forward` computes with."""

    __slots__ = ()


class Indices(tuple):
    """The shape of an input of integers (tokens, lengths, masks) without the batch axis; few ops read such."""

    __slots__ = ()


class Parts(dict):
    """The gradients of some parts of a value that is a tuple, by number; those of several readers add up."""

    def __add__(self, other):
        joined = Parts(self)
        for number, d in other.items():
            joined[number] = joined[number] + d if number in joined else d
        return joined


#: Stands for the length of the batch axis in the shapes that `full` gives.
BATCH = "batch"


def full(shape):
    """Return the lengths of all axes of a value, `BATCH` for the batch axis if it has one."""
    return tuple(shape) if isinstance(shape, Fixed) else (BATCH, *shape)


def without_batch(lengths, op):
    """Return the shape of which `full` gives `lengths`; the batch axis may be nowhere but in front."""
    if BATCH in lengths[1:]:
        raise ValueError(f"{op}: the batch axis would move or meet another axis: {shape_text(lengths)}")
    return lengths[1:] if lengths[:1] == (BATCH,) else Fixed(lengths)


def shape_text(lengths):
    """Return lengths of axes as text."""
    return f"({', '.join(map(str, lengths))}{',' if len(lengths) == 1 else ''})"


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


def no_attributes():
    """Return the attributes of an op that has none."""
    return {}


def never(node):
    """Return False, whatever the node."""
    return False


def fits_any(node, shapes):
    """Return None: no reason against integers, whatever the shapes."""
    return None


def in_layer(node, error):
    """Return an error about what a node stores, with the name of the node in front if it is not there yet."""
    text = str(error)
    return QuantizationError(text if text.startswith(f"{node.name}.") else f"{node.name}: {text}")


def always(node):
    """Return True, whatever the node."""
    return True


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
        ``shape(node, input_shapes) -> shape`` without the batch axis; raises `ValueError` where shapes do not fit. The
        shape of a value that has no batch axis is a `Fixed`; only ops with `takes_fixed` are given such.
    attributes : callable
        ``attributes(**given) -> dict`` of plain values, completed and checked; raises `ValueError` or `TypeError`.
    arity : int or None
        How many values the op reads; None: any number, at least one.
    parameters, buffers : tuple of str
        Names of the arrays that a node's module may hold, as files store them.
    takes_fixed : bool
        Whether the op understands values without a batch axis.
    takes_indices : bool
        Whether the op reads integers; what of its inputs may be such is for its shape rule to say.
    is_view : bool
        Whether the result may share memory with the first input.
    keeps_output : bool
        Whether backward reads the output of forward, which the caller of a graph must then not get to change.
    takes_codes : bool
        Whether forward understands `Codes`; otherwise it is given their real values.
    keeps_codes : callable
        ``keeps_codes(node) -> bool``: whether the op maps codes to codes of the same `QParams` (it moves or selects
        them), so that a quantizer in front of it serves what follows too.
    quantized_inputs : int or None
        How many of the values that its integer form reads, the first ones, are codes; None: all.
    quantizes_weight : bool
        Whether the integer form multiplies by a weight as codes, so that it can give floats too.
    lower : callable or None
        ``lower(node, input_qparams, out_qparams) -> (op, stored)``: name of the integer op that does the same on
        codes, and the `StoredIntegers` that it runs on. `out_qparams` is None where the output is read as floats; an
        op without weights is not lowered then. None: the op stays float.
    no_integers : callable
        ``no_integers(node, input_shapes)``: why this node has no integer form though its op may have one, or None.
    integer_output : callable or None
        ``integer_output(node, inputs, saved, out_qparams)``: the output codes of the integer form, for an op where
        they are not always its float output quantized; None where they are.
    absorbs : tuple of str
        Names of the ops that may become part of this one: activations as its attribute ``activation``, a
        normalization as ``norm`` of its node.
    stores : type or None
        Which `StoredIntegers` the module of a node is; None for ops of float graphs.
    step : callable or None
        ``step(node, inputs, steps) -> Value``: appends what the core does for this node of an integer graph to a
        `graph.plan.Steps`; None, or the answer None, if it does nothing for it, so that Python runs the graph.
    step_takes_arrays : bool
        Whether that understands an array among its inputs: a constant.
    """

    name: str
    forward: Callable
    backward: Callable | None
    shape: Callable
    attributes: Callable = no_attributes
    arity: int | None = 1
    parameters: tuple = ()
    buffers: tuple = ()
    takes_fixed: bool = False
    takes_indices: bool = False
    is_view: bool = False
    keeps_output: bool = False
    takes_codes: bool = False
    keeps_codes: Callable = never
    quantized_inputs: int | None = None
    quantizes_weight: bool = False
    lower: Callable | None = None
    no_integers: Callable = fits_any
    integer_output: Callable | None = None
    absorbs: tuple = ()
    stores: type | None = None
    step: Callable | None = None
    step_takes_arrays: bool = False

    def __repr__(self):
        return f"<op {self.name}>"

    def __reduce__(self):
        return op_named, (self.name,)


OPS: dict[str, Op] = {}


def op_named(name):
    """Return the op called `name`: what a pickled graph holds of it."""
    return OPS[name]


def register(**fields):
    """Make an `Op` and enter it into `OPS`, the table by which files and tracing name ops."""
    op = Op(**fields)
    OPS[op.name] = op
    return op


def infer_shape(node, shapes):
    """Return the shape of a node's value from those of its inputs, by the rule of its op."""
    op, count = node.op, len(shapes)
    if count != op.arity and (op.arity is not None or not count):
        raise ValueError(f"node {node.name!r} reads {count} values, {op.name} takes {op.arity or 'at least 1'}")
    fixed = next((shape for shape in shapes if isinstance(shape, Fixed)), None)
    if fixed is not None and not op.takes_fixed:
        raise ValueError(f"{op.name}: takes values with a batch axis, not a parameter or constant of shape {fixed}")
    if not op.takes_indices and any(isinstance(shape, Indices) for shape in shapes):
        raise TypeError(f"{node.name}: expected an array of floats, not of integers")
    if op.name != "part" and any(isinstance(n, tuple) for shape in shapes for n in shape[:1]):
        raise ValueError(f"{node.name}: reads a value of several parts; it takes one of them")
    shape = op.shape(node, shapes)
    return shape if isinstance(shape, Fixed) else tuple(shape)


def same_shape(node, shapes):
    """Shape rule of ops that treat every element by itself."""
    return shapes[0]


def array_of(node, name, ndim):
    """Return an array of a node's module, for a shape rule: it must be there and have that many axes."""
    array = getattr(node, name)
    if array is None or array.ndim != ndim:
        raise ValueError(f"{node.name}: {name} must have {ndim} axes, not {None if array is None else array.shape}")
    return array


def whole_numbers(values, name, least=0):
    """Return a list or tuple of integers of at least `least` as a tuple of int."""
    if not isinstance(values, tuple | list):
        raise TypeError(f"{name} must be integers in a list or tuple, not {values!r}")
    return tuple(whole_number(value, name, least) for value in values)


def whole_number(value, name, least=0):
    """Return an integer of at least `least` as an int."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    return int(value)


def finite(value, name):
    """Return `value` as a float, which must be finite."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not np.isfinite(value):
        raise ValueError(f"{name} must be finite, not {value!r}")
    return float(value)
