"""Tracing: `forward` runs once on stand-ins that record what is done to them."""

from __future__ import annotations

import sys
from math import prod
from pathlib import Path

import numpy as np

from ..ops import OPS
from .graph import Graph, Node
from .inputs import as_inputs
from .module import Module

_PACKAGE = str(Path(__file__).parents[1])


def caller_line():
    """Return "file:line" of the nearest frame outside this package: the line of the user's `forward`."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "unknown line"


class BatchSize:
    """The length of the batch axis while tracing: known only when the graph runs, so it is good for reshape alone."""

    def _refuse(self, *args):
        raise TypeError(
            f"{caller_line()}: the batch size is not a number while forward is traced; it may only be passed on to "
            "reshape, where -1 does as well"
        )

    __index__ = __int__ = __float__ = __bool__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __floordiv__ = __rfloordiv__ = __truediv__ = __rtruediv__ = __mod__ = __rmod__ = __neg__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = _refuse

    def __repr__(self):
        return "batch"


class Traced:
    """Stand-in for an array while `forward` is traced."""

    dtype = np.dtype(np.float32)

    def __init__(self, trace, name, shape):
        self._trace, self._name, self._shape = trace, name, shape

    @property
    def shape(self):
        """The batch size and the other lengths."""
        return (self._trace.batch, *self._shape)

    @property
    def ndim(self):
        """Number of axes, the batch axis among them."""
        return 1 + len(self._shape)

    def reshape(self, *shape):
        """Reshape; the batch axis stays in front, given as -1 or as ``x.shape[0]``."""
        shape = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        return reshape(self, tuple(shape))

    def __bool__(self):
        raise TypeError(f"{caller_line()}: forward branches on the data; a traced graph must be the same for all data")

    def __len__(self):
        return self._trace.batch._refuse()

    def __iter__(self):
        raise TypeError(f"{caller_line()}: forward iterates over the batch; a traced array cannot be iterated")

    def __array__(self, *args, **kwargs):
        raise TypeError(f"{caller_line()}: forward turns a traced array into a NumPy array, which cannot be traced")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if ufunc is np.maximum and method == "__call__" and not kwargs:
            x, other = inputs if inputs[0] is self else inputs[::-1]
            if np.ndim(other) == 0 and not isinstance(other, Traced) and other == 0:
                return apply("relu", x)
        raise TypeError(f"{caller_line()}: numpy.{ufunc.__name__} of a traced array is not supported")

    def __array_function__(self, function, types, args, kwargs):
        if function is np.reshape and not kwargs:
            return args[0].reshape(args[1])
        raise TypeError(f"{caller_line()}: numpy.{function.__name__} of a traced array is not supported")

    def _no_operator(self, *args):
        raise TypeError(f"{caller_line()}: this operator on a traced array is not supported")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _no_operator
    __matmul__ = __rmatmul__ = __neg__ = __pow__ = __getitem__ = _no_operator
    __lt__ = __le__ = __gt__ = __ge__ = _no_operator

    def __repr__(self):
        return f"Traced({self._name}, shape=({', '.join(['batch', *map(str, self._shape)])}))"


def reshape(x, shape):
    """Record a reshape of `x`, which keeps the batch axis in front."""
    size, rest = prod(x._shape), list(shape[1:])
    if not shape or not (shape[0] is x._trace.batch or shape[0] == -1):
        raise ValueError(f"{caller_line()}: reshape to {shape}: the batch axis (-1, x.shape[0]) must lead")
    if shape[0] is x._trace.batch and rest.count(-1) == 1:
        known = -prod(rest)
        rest[rest.index(-1)] = size // known if known > 0 and size % known == 0 else 0
    if prod(rest) != size or any(n < 0 for n in rest):
        raise ValueError(f"{caller_line()}: reshape of {x!r} to {shape}: the batch axis would change its length")
    return apply("reshape", x, attributes={"shape": tuple(int(n) for n in rest)})


class Trace:
    """One run of `forward` on stand-ins: collects nodes under unique names."""

    def __init__(self, root):
        self.batch = BatchSize()
        self.nodes = []
        self.taken = set()
        self.module_names = {id(module): name for name, module in root.named_modules()}

    def unique(self, base):
        """Return `base`, with a number behind it if it is taken."""
        name, number = base, 0
        while name in self.taken:
            number += 1
            name = f"{base}_{number}"
        self.taken.add(name)
        return name

    def record(self, op, inputs, module, attributes):
        """Append a node and return the stand-in for its value."""
        if module is not None and id(module) not in self.module_names:
            raise ValueError(
                f"{caller_line()}: this {type(module).__name__} is no attribute of the network, so its weights would "
                "not be trained or saved; assign it to an attribute (nn.Sequential holds a list of layers)"
            )
        name = self.unique(self.module_names.get(id(module)) or op.name)
        node = Node(name, op, tuple(x._name for x in inputs), attributes or {}, module)
        try:
            node.shape = op.shape(node, [x._shape for x in inputs])
        except ValueError as error:
            raise ValueError(f"{caller_line()}: {error}") from None
        self.nodes.append(node)
        return Traced(self, name, node.shape)


def apply(op, *inputs, module=None, attributes=None):
    """Record a node of the op called `op` on traced inputs; what a layer's `forward` calls."""
    for x in inputs:
        if not isinstance(x, Traced):
            raise TypeError(f"{caller_line()}: {op} takes a traced array here, not {type(x).__name__}")
    return inputs[0]._trace.record(OPS[op], inputs, module, attributes)


def graph_for(module, inputs):
    """Return the graph of `module` for inputs like these, traced at the first call for each kind of input."""
    shapes = tuple(x.shape[1:] for x in as_inputs(inputs))
    key = (module.training, shapes)
    version, graph = module._graphs.get(key, (None, None))
    if version != Module.structure_version:
        graph = trace(module, shapes)
        module._graphs[key] = (Module.structure_version, graph)
    return graph


def trace(module, shapes):
    """Run `module.forward` on stand-ins of these shapes (without the batch axis) and return the `Graph`."""
    recorder = Trace(module)
    names = ["input"] if len(shapes) == 1 else [f"input_{i}" for i in range(len(shapes))]
    inputs = [Traced(recorder, recorder.unique(name), shape) for name, shape in zip(names, shapes, strict=True)]
    output = module.forward(*inputs)
    if not isinstance(output, Traced):
        raise TypeError(f"{type(module).__name__}.forward must return one traced array, not {type(output).__name__}")
    shape_of = dict(zip(names, shapes, strict=True))
    return Graph(shape_of, recorder.nodes, output._name, training=module.training)
