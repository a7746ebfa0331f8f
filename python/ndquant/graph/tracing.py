"""Tracing: `forward` runs once on stand-ins that record what is done to them."""

from __future__ import annotations

import contextlib
import inspect
import sys
from math import prod
from pathlib import Path

import numpy as np

from ..ops import OPS, Fixed, Indices, full
from ..ops.record import BATCH, infer_shape, shape_text
from .fuse import fuse
from .graph import Graph, Node
from .inputs import as_inputs, input_shape
from .module import Buffer, Module, Parameter, tracing
from .protocols import FUNCTIONS, basic_index, record_ufunc

#: Folders and files whose frames stand between a line of `forward` and what it records.
_BETWEEN = (str(Path(__file__).parents[1]), str(Path(np.__file__).parent), contextlib.__file__)


def caller_line():
    """Return "file:line" of the nearest frame outside this package and NumPy: the line of the user's `forward`."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_BETWEEN):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "unknown line"


_COMPARISONS = {np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal}


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


class Traced(np.lib.mixins.NDArrayOperatorsMixin):
    """Stand-in for an array while `forward` is traced."""

    def __init__(self, trace, name, shape):
        self._trace, self._name, self._shape = trace, name, shape

    @property
    def dtype(self):
        """int64 for an input of integers, else float32."""
        return np.dtype(np.int64 if isinstance(self._shape, Indices) else np.float32)

    @property
    def shape(self):
        """The lengths of the axes, the batch size in front; a parameter has none."""
        return tuple(self._trace.batch if n is BATCH else n for n in full(self._shape))

    @property
    def ndim(self):
        """Number of axes, the batch axis among them."""
        return len(full(self._shape))

    def reshape(self, *shape):
        """Reshape; the batch axis stays in front, given as -1 or as ``x.shape[0]``."""
        shape = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        return reshape(self, tuple(shape))

    def transpose(self, *axes):
        """Reorder the axes; the batch axis stays in front."""
        axes = axes[0] if len(axes) == 1 and isinstance(axes[0], tuple | list) else axes
        return np.transpose(self, axes or None)

    @property
    def T(self):
        """The axes in reverse order."""
        return self.transpose()

    def swapaxes(self, axis1, axis2):
        """Exchange two axes, neither the batch axis."""
        return np.swapaxes(self, axis1, axis2)

    def mean(self, axis=None, *, keepdims=False):
        """Mean along axes other than the batch axis."""
        return np.mean(self, axis, keepdims=keepdims)

    def __getitem__(self, key):
        with naming_the_line():
            return apply("slice", self, attributes={"index": basic_index(key, self.ndim)})

    def __bool__(self):
        raise TypeError(f"{caller_line()}: forward branches on the data; a traced graph must be the same for all data")

    def _refuse_as_number(self):
        raise TypeError(f"{caller_line()}: forward takes a traced array for one number; it has no value yet")

    __float__ = __int__ = __index__ = __complex__ = _refuse_as_number

    def __len__(self):
        return self._trace.batch._refuse()

    def __iter__(self):
        raise TypeError(f"{caller_line()}: forward iterates over the batch; a traced array cannot be iterated")

    def __array__(self, *args, **kwargs):
        raise TypeError(f"{caller_line()}: forward turns a traced array into a NumPy array, which cannot be traced")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if method == "__call__" and not kwargs:
            found = record_ufunc(apply, ufunc, inputs)
            if found is not NotImplemented:
                return found
        why = " (what depends on a comparison branches on the data)" if ufunc in _COMPARISONS else ""
        raise TypeError(f"{caller_line()}: numpy.{ufunc.__name__} of a traced array is not supported{why}")

    def __array_function__(self, function, types, args, kwargs):
        handler = FUNCTIONS.get(function)
        if handler is None:
            raise TypeError(f"{caller_line()}: numpy.{function.__name__} of a traced array is not supported")
        with naming_the_line():
            inspect.signature(handler).bind(apply, *args, **kwargs)
            return handler(apply, *args, **kwargs)

    def __getattr__(self, name):
        raise AttributeError(f"{caller_line()}: {name} of a traced array is not supported")

    def __repr__(self):
        return f"Traced({self._name}, shape={shape_text(full(self._shape))})"


@contextlib.contextmanager
def naming_the_line():
    """Put the line of `forward` before the message of an error that does not name one yet."""
    try:
        yield
    except (TypeError, ValueError, IndexError) as error:
        line = caller_line()
        if str(error).startswith(line):
            raise
        raise type(error)(f"{line}: {error}") from None


def reshape(x, shape):
    """Record a reshape of `x`, which keeps the batch axis in front."""
    if isinstance(x._shape, Fixed):
        return apply("reshape", x, attributes={"shape": np.empty(x.shape, bool).reshape(shape).shape})
    size, rest = prod(x._shape), list(shape[1:])
    if not shape or not (shape[0] is x._trace.batch or shape[0] == -1):
        raise ValueError(f"{caller_line()}: reshape to {shape}: the batch axis (-1, x.shape[0]) must lead")
    if shape[0] is x._trace.batch and rest.count(-1) == 1:
        known = -prod(rest)
        rest[rest.index(-1)] = size // known if known > 0 and size % known == 0 else 0
    if prod(rest) != size or any(n < 0 for n in rest):
        raise ValueError(f"{caller_line()}: reshape of {x!r} to {shape}: the batch axis would change its length")
    return apply("reshape", x, attributes={"shape": rest})


class Trace:
    """One run of `forward` on stand-ins: collects nodes under unique names."""

    def __init__(self, root):
        self.batch = BatchSize()
        self.training = root.training
        self.nodes = []
        self.taken = set()
        self.leaves = {}
        self.module_names = {id(module): name for name, module in root.named_modules()}
        for prefix, module in root.named_modules():
            names = {key: ".".join(part for part in (prefix, key) if part) for key in module.views}
            self.module_names |= {id(view): names[key] for key, view in module.views.items()}

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
                f"this {type(module).__name__} is no attribute of the network, so its weights would not be trained or "
                "saved; assign it to an attribute (nn.Sequential holds a list of layers)"
            )
        name = (self.module_names.get(id(module)) if module is not None else None) or op.name
        return self._append(name, op, inputs, module, op.attributes(**attributes))

    def parts(self, value):
        """Return a stand-in for each part of a value that is a tuple."""
        part, shapes = OPS["part"], value._shape
        return tuple(self._append("part", part, [value], None, {"index": i}) for i in range(len(shapes)))

    def _append(self, name, op, inputs, module, attributes):
        node = Node(self.unique(name), op, tuple(x._name for x in inputs), attributes, module)
        node.shape = infer_shape(node, [x._shape for x in inputs])
        self.nodes.append(node)
        return Traced(self, node.name, node.shape)

    def leaf(self, module, name, array):
        """Return the stand-in for a parameter or buffer that `forward` computes with itself, a node of its own."""
        if id(array) not in self.leaves:
            prefix = self.module_names.get(id(module), "")
            self.leaves[id(array)] = self._leaf(f"{prefix}.{name}" if prefix else name, array)
        return self.leaves[id(array)]

    def constant(self, value):
        """Return the stand-in for a number or array in `forward`."""
        if value is self.batch:
            self.batch._refuse()
        array = np.asarray(value)
        if array.dtype.kind not in "fiu" or isinstance(value, np.ma.MaskedArray):
            raise TypeError(f"a traced array meets {type(value).__name__} of {array.dtype}; it takes real numbers")
        return self._leaf("constant", Buffer(array.astype(np.float32)))

    def _leaf(self, name, array):
        holder = Module()
        holder._names_for(array)["value"] = array  # by assignment, graphs of other networks would be traced anew
        op = OPS["parameter" if isinstance(array, Parameter) else "constant"]
        return self._append(name, op, (), holder, {})


def apply(op, *inputs, module=None, attributes=None):
    """Record a node of the op called `op`; what a layer's `forward` calls.

    At least one input must be traced; numbers and arrays beside it become constants where the op takes such.
    """
    with naming_the_line():
        traces = {id(x._trace): x._trace for x in inputs if isinstance(x, Traced)}
        if len(traces) != 1:
            got = ", ".join(type(x).__name__ for x in inputs)
            raise TypeError(f"{op} takes values of the one forward that is being traced, not {got}")
        (trace,) = traces.values()
        inputs = [x if isinstance(x, Traced) else _constant(trace, op, x) for x in inputs]
        return trace.record(OPS[op], inputs, module, attributes or {})


def parts(value):
    """Return a stand-in for each part of the value of a node that gives a tuple."""
    return value._trace.parts(value)


def _constant(trace, op, value):
    if not OPS[op].takes_fixed:
        raise TypeError(f"{op} takes a traced array here, not {type(value).__name__}")
    return trace.constant(value)


def graph_for(module, inputs):
    """Return the graph of `module` for inputs like these, traced at the first call for each kind of input."""
    shapes = tuple(map(input_shape, as_inputs(inputs)))
    key = (module._training_flags(), shapes, tuple(map(type, shapes)))
    version, graph = module._graphs.get(key, (None, None))
    if version != Module.structure_version:
        graph = trace(module, shapes)
        if module.fused_chains is not None:
            graph = fuse(graph, None if module.fused_chains == "all" else module.fused_chains)
        module._graphs[key] = (Module.structure_version, graph)
    return graph


def trace(module, shapes):
    """Run `module.forward` on stand-ins of these shapes (without the batch axis) and return the `Graph`."""
    recorder = Trace(module)
    names = ["input"] if len(shapes) == 1 else [f"input_{i}" for i in range(len(shapes))]
    inputs = [Traced(recorder, recorder.unique(name), shape) for name, shape in zip(names, shapes, strict=True)]
    output = _flat(_run_forward(recorder, module, inputs))
    for part in output if isinstance(output, tuple) and output else (output,):
        if not isinstance(part, Traced) or isinstance(part._shape, Fixed):
            got = "a parameter" if isinstance(part, Traced) else type(part).__name__
            raise TypeError(f"{type(module).__name__}.forward must return traced arrays, one or a tuple, not {got}")
    if isinstance(output, tuple):
        output = apply("outputs", *output)
    shape_of = dict(zip(names, shapes, strict=True))
    return Graph(shape_of, _needed(recorder.nodes, output._name), output._name, training=module.training)


def _run_forward(recorder, module, inputs):
    before, tracing.trace = tracing.trace, recorder
    try:
        return module.forward(*inputs)
    finally:
        tracing.trace = before


def _flat(output):
    """Return outputs in tuples within tuples as one tuple."""
    if not isinstance(output, tuple):
        return output
    parts = (_flat(part) for part in output)
    return tuple(x for part in parts for x in (part if isinstance(part, tuple) else (part,)))


def _needed(nodes, output):
    """Return the nodes that the output depends on."""
    wanted = {output}
    for node in reversed(nodes):
        if node.name in wanted:
            wanted.update(node.inputs)
    return [node for node in nodes if node.name in wanted]
