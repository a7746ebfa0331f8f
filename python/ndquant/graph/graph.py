"""Graph: nodes in order, run forward and backward. The same graph is trained, observed, fake-quantized and lowered."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np

from ..errors import QuantizationError
from ..ops import Indices, Op, full, real
from ..ops.record import infer_shape, shape_text
from ..tables import html_table, text_table
from .free_axes import with_lengths
from .inputs import as_inputs, input_shape
from .module import Module, Parameter, load_state
from .plan import Plans


class Node:
    """One op of a graph, under a unique name.

    Parameters and stored integers are attributes of the node: ``graph["fc"].weight`` reads them, assignment changes
    them, and both go to the module that the node names; the node holds no copy.

    A layer that absorbed the `batch_norm` node behind it has that node as ``norm``; one that a configuration or stubs
    keep from integers is ``kept_float``.
    """

    FIELDS = ("name", "op", "inputs", "attributes", "module", "shape")
    FIELDS += ("quantizer", "weight_quantizer", "norm", "kept_float")

    def __init__(self, name, op: Op, inputs, attributes=None, module=None, shape=None, quantizer=None):
        self.name = name
        self.op = op
        self.inputs = inputs
        self.attributes = attributes or {}
        self.module = module
        self.shape = shape
        self.quantizer = quantizer
        self.weight_quantizer = None
        self.norm = None
        self.kept_float = False

    def __getattr__(self, name):
        if name.startswith("__") or name == "module" or self.module is None:
            raise AttributeError(f"node has no attribute {name!r}")
        found = self.module._array(name) if isinstance(self.module, Module) else None
        return getattr(self.module, name) if found is None else found

    def __setattr__(self, name, value):
        if name in self.FIELDS:
            object.__setattr__(self, name, value)
        elif self.module is not None and hasattr(self.module, name):
            setattr(self.module, name, value)
        else:
            raise AttributeError(f"node {self.__dict__.get('name')} ({self.op.name}) has no attribute {name!r}")

    def copy(self, **changes):
        """Return a node that shares the module, with some fields changed."""
        node = Node.__new__(Node)
        node.__dict__.update(self.__dict__, attributes=dict(self.attributes))
        for key, value in changes.items():
            setattr(node, key, value)
        return node

    def __deepcopy__(self, memo):
        node = Node.__new__(Node)
        shared = {"name", "op", "inputs", "shape"}
        node.__dict__.update(
            {key: value if key in shared else copy.deepcopy(value, memo) for key, value in self.__dict__.items()}
        )
        return node

    def arrays(self):
        """Return [(name, `Parameter` or `Buffer`)] of module and quantizers; of the norm with "norm." in front."""
        arrays = [] if self.quantizer is None else list(self.quantizer.parameters().items())
        if self.weight_quantizer is not None:
            arrays += [(f"weight_quantizer.{name}", p) for name, p in self.weight_quantizer.parameters().items()]
        if isinstance(self.module, Module):
            arrays += [*self.module._parameters.items(), *self.module._buffers.items()]
        if self.norm is not None:
            arrays += [(f"norm.{name}", array) for name, array in self.norm.arrays()]
        return arrays

    @property
    def keeps_codes(self):
        """Whether the node maps codes to codes of the same `QParams`."""
        return self.op.keeps_codes(self)

    def __repr__(self):
        return f"Node({self.name!r}, {self.op.name}, inputs={list(self.inputs)})"


@dataclass
class Run:
    """The values of one pass through a graph."""

    graph: Graph
    training: bool
    values: dict = field(default_factory=dict)
    saved: dict = field(default_factory=dict)


class Graph:
    """Nodes in the order in which they run, from named inputs to one output.

    A graph is called like a function, trains like a `Module` (`backward`, `parameters`, `train`, `eval`), prints its
    nodes, and gives them by name: ``graph["fc1"].weight = w``.

    Attributes
    ----------
    inputs : dict of str to tuple of int
        Shapes of the inputs without the batch axis.
    nodes : list of Node
    output : str
        Name of the node (or input) whose value is returned.
    kind : {"float", "prepared", "qat", "integer"}
        Traced from a module; with observers; with fake-quantization that trains; converted.
    simulation : Graph or None
        Of an integer graph: the fake-quantized graph with the float weights that it was converted from. Of a float one
        with weights in 16 bits: that with the weights as they were.
    free : tuple of tuple of (str, int)
        Groups of axes of the inputs, counted behind the batch axis, that may have any length, one for all of a group.
    """

    #: Graphs for other lengths of free axes that are kept.
    LIMIT = 8

    def __init__(self, inputs, nodes, output, *, training=False, kind="float", simulation=None, free=()):
        self.inputs, self.nodes, self.output = dict(inputs), list(nodes), output
        self.training, self.kind, self.simulation = training, kind, simulation
        self.free, self._of_lengths = tuple(free), {}
        self._run, self._other, self._last_inputs, self._plans = None, None, None, Plans()
        self._reindex()

    def _reindex(self):
        self._by_name = {node.name: node for node in self.nodes}
        self._visits, self._structure = None, None
        self._keeps_output = self._find_keeps_output()

    def _backward_visits(self):
        """Return (node, which inputs need a gradient, {name: `Parameter`}) of each node in the order of backward."""
        if self._structure != Module.structure_version:
            found = {}
            for node in self.nodes:
                need, parameters = [name in found for name in node.inputs], dict(self._node_parameters(node))
                if any(need) or parameters:
                    found[node.name] = node, need, parameters
            self._visits, self._structure = list(reversed(found.values())), Module.structure_version
        return self._visits

    def _find_keeps_output(self):
        """Whether the output is memory that backward reads, or an input: the caller then gets a copy to change."""
        node = self.find(self.output)
        while node is not None and node.op.is_view:
            node = self.find(node.inputs[0])
        return node is None or node.op.keeps_output or "activation" in node.attributes

    def __getstate__(self):
        nothing = dict.fromkeys(("_run", "_other", "_last_inputs", "_structure"))
        return {**self.__dict__, **nothing, "_plans": Plans(), "_of_lengths": {}}

    def __getitem__(self, name):
        if name not in self._by_name:
            raise KeyError(f"no node {name!r}; the nodes are {', '.join(self._by_name)}")
        return self._by_name[name]

    def __contains__(self, name):
        return name in self._by_name

    def find(self, name):
        """Return the node called `name`, or None: an input."""
        return self._by_name.get(name)

    def shape_of(self, name):
        """Return the shape of the value called `name`, without the batch axis."""
        return self.inputs[name] if name in self.inputs else self[name].shape

    def consumers(self, name):
        """Return the nodes that read the value called `name`."""
        return [node for node in self.nodes if name in node.inputs]

    # ---- running

    def __call__(self, *inputs):
        """Run the graph; see `forward`."""
        return self.forward(*inputs)

    def forward(self, *inputs):
        """Run the graph on arrays of floats and return its float32 output, or a tuple of several."""
        self._run = None  # what the last pass kept is released first: this one then reuses its memory
        arrays = as_inputs(inputs)
        self._last_inputs = arrays
        fitting = self.fitting(arrays)
        self._other = None if fitting is self else fitting
        if fitting is not self:
            return fitting.forward(*arrays)
        plan = self._plan_for(arrays)
        if plan is not None:
            return self._run_plan(plan.run, arrays)
        self._run = self._run_nodes(arrays)
        y = self._run.values[self.output]
        if isinstance(y, tuple):
            return tuple(part.copy() for part in y)
        return real(y).copy() if self._keeps_output else real(y)

    def run(self, *inputs):
        """Run the graph and return the `Run` with the value of every node."""
        arrays = as_inputs(inputs)
        fitting = self.fitting(arrays)
        if fitting is not self:
            return fitting.run(*arrays)
        plan = self._plan_for(arrays)
        return self._run_nodes(arrays) if plan is None else Run(self, self.training, self._run_plan(plan.trace, arrays))

    def _run_plan(self, run, arrays):
        try:
            return run(arrays)
        except ValueError as error:
            failure = error
        self._run_nodes(arrays)  # whose error names the layer
        raise failure

    def _plan_for(self, arrays):
        """Return the plan of an integer graph, or None where Python runs the nodes one by one."""
        return self._plans.find(self, arrays) if self.kind == "integer" else None

    def _run_nodes(self, arrays):
        run = Run(self, self.training, dict(zip(self.inputs, arrays, strict=True)))
        values, saved = run.values, run.saved
        for node in self.nodes:
            read = [values[name] for name in node.inputs]
            if not node.op.takes_codes:
                read = [real(value) for value in read]
            values[node.name], saved[node.name] = node.op.forward(node, read, run)
        return run

    def fitting(self, arrays):
        """Return the graph for inputs of the lengths of these: this one, or where free axes have others one like it."""
        shapes = dict(zip(self.inputs, map(input_shape, arrays), strict=False)) if self.free else None
        if shapes is None or shapes == self.inputs or not self._may_have(shapes):
            self._checked(arrays)
            return self
        key = tuple(shapes.values())
        if key not in self._of_lengths:
            if len(self._of_lengths) == self.LIMIT:
                del self._of_lengths[next(iter(self._of_lengths))]
            self._of_lengths[key] = self._with_lengths(shapes)
        return self._of_lengths[key].train(self.training)

    def _may_have(self, shapes):
        """Whether inputs may have these shapes, as free axes may have other lengths than here."""
        if shapes.keys() != self.inputs.keys() or any(len(shapes[name]) != len(s) for name, s in self.inputs.items()):
            return False
        expected = self.inputs
        for group in self.free:
            (name, axis), *_ = group
            expected = with_lengths(expected, group, shapes[name][axis])
        return expected == shapes and all(type(expected[name]) is type(shape) for name, shape in shapes.items())

    def _with_lengths(self, inputs):
        """Return this graph, which shares all with it, for inputs of other lengths."""
        simulation = None if self.simulation is None else self.simulation._with_lengths(inputs)
        nodes = [node.copy() for node in self.nodes]
        graph = Graph(inputs, nodes, self.output, training=self.training, kind=self.kind, simulation=simulation)
        graph.infer_shapes()
        return graph

    def _checked(self, arrays):
        if len(arrays) != len(self.inputs):
            raise TypeError(f"the graph takes {len(self.inputs)} inputs, {len(arrays)} were given")
        for array, (name, shape) in zip(arrays, self.inputs.items(), strict=True):
            if type(input_shape(array)) is not type(shape):
                raise TypeError(f"{name}: expected an array of {_kind(shape)}, not {array.dtype}")
            if array.shape[1:] != shape:
                raise ValueError(f"{name}: expected shape {_text(shape)}, not {array.shape}")
        return arrays

    def backward(self, dy, *, accumulate=False):
        """Compute the gradients of all parameters from that of the last output; see `Module.backward`."""
        if self.kind == "integer":
            raise QuantizationError("backward: an integer graph has no gradients; train the graph of prepare_qat")
        if self._other is not None:
            return self._other.backward(dy, accumulate=accumulate)
        if self._run is None:
            raise RuntimeError("backward: run the graph forward first")
        gradients = {self.output: self._checked_gradient(dy)}
        visits, saved = self._backward_visits(), self._run.saved
        if not accumulate:
            self._release_gradients(visits)
        for node, need, parameters in visits:
            dy = gradients.pop(node.name, None)
            if dy is None:
                continue
            d_inputs, d_parameters = node.op.backward(node, dy, saved[node.name], need)
            for name, needed, d in zip(node.inputs, need, d_inputs, strict=True):
                if needed:
                    gradients[name] = d if name not in gradients else gradients[name] + d
            for name, d in d_parameters.items():
                parameter = parameters[name]
                parameter.grad = d if parameter.grad is None else parameter.grad + d

    @staticmethod
    def _release_gradients(visits):
        """Forget gradients before new ones are made, which then reuse their memory."""
        for _, _, parameters in visits:
            for parameter in parameters.values():
                parameter.grad = None

    def _checked_gradient(self, dy):
        y = self._run.values[self.output]
        if not isinstance(y, tuple):
            return _gradient_of(dy, y)
        if not isinstance(dy, tuple) or len(dy) != len(y):
            raise ValueError(f"dy: expected a tuple of the gradients of {len(y)} outputs")
        return tuple(map(_gradient_of, dy, y))

    # ---- parameters

    @staticmethod
    def _node_parameters(node):
        return [item for item in node.arrays() if isinstance(item[1], Parameter)]

    def named_parameters(self):
        """Yield ("node.parameter", `Parameter`), each parameter once."""
        return ((name, array) for name, array in self.named_arrays() if isinstance(array, Parameter))

    def named_arrays(self):
        """Yield ("node.name", `Parameter` or `Buffer`), each once: what `state_dict` holds."""
        seen = set()
        for node in self.nodes:
            for name, array in node.arrays():
                if id(array) not in seen:
                    seen.add(id(array))
                    owner = node
                    if name.startswith("norm."):
                        owner, name = node.norm, name.removeprefix("norm.")
                    yield f"{owner.name}.{name}", array

    def parameters(self):
        """Return the parameters, in the order of the nodes."""
        return [parameter for _, parameter in self.named_parameters()]

    def parameter_groups(self, quantizer_lr):
        """Return the parameters for an optimizer that trains those of quantizers at a learning rate of their own.

        Parameters
        ----------
        quantizer_lr : float
            Of scales, zero points, thresholds and ends of ranges that quantizers learn.

        Returns
        -------
        list of dict
            ``nn.Adam(graph.parameter_groups(quantizer_lr=1e-4), lr=1e-3)``.
        """
        learned = {id(array) for _, quantizer in self.quantizers() for array in quantizer.parameters().values()}
        groups = {False: [], True: []}
        for parameter in self.parameters():
            groups[id(parameter) in learned].append(parameter)
        return [{"params": groups[False]}, {"params": groups[True], "lr": quantizer_lr}]

    def state_dict(self):
        """Return {"node.name": copy of the array} of parameters and buffers."""
        return {name: array.data.copy() for name, array in self.named_arrays()}

    def load_state_dict(self, state):
        """Assign the arrays of `state` by name; it must hold every parameter and buffer, and nothing else."""
        load_state(dict(self.named_arrays()), state)

    def train(self, mode=True):
        """Set training mode: quantizers of a `prepare_qat` graph follow the data. Returns the graph."""
        self.training = bool(mode)
        return self

    def eval(self):
        """Set evaluation mode: ranges stay as they are. Returns the graph."""
        return self.train(False)

    def freeze_batchnorm(self):
        """Normalize by the running statistics in training too, which no longer change. Returns the graph.

        From then on what trains is the form that `convert` will run: normalizations folded into the weights.
        """
        for node in self.nodes:
            for norm in (node, node.norm):
                if norm is not None and norm.op.name == "batch_norm":
                    norm.attributes["frozen"] = True
        return self

    def quantizers(self):
        """Yield (name, `Quantizer`) of all edges and weights."""
        for node in self.nodes:
            if node.quantizer is not None:
                yield node.name, node.quantizer
            if node.weight_quantizer is not None:
                yield f"{node.name}.weight", node.weight_quantizer

    # ---- whole graphs

    def copy(self):
        """Return a graph that shares nothing with this one."""
        return copy.deepcopy(self)

    def replace(self, nodes, output=None, **changes):
        """Return a graph of `nodes` with the inputs and state of this one; shapes and wiring are checked."""
        kept = {name: getattr(self, name) for name in ("training", "kind", "simulation", "free")}
        graph = Graph(self.inputs, nodes, output or self.output, **{**kept, **changes})
        graph.infer_shapes()
        return graph

    def infer_shapes(self):
        """Check the wiring and set the shape of every node from the input shapes."""
        shapes = dict(self.inputs)
        for node in self.nodes:
            unknown = [name for name in node.inputs if name not in shapes]
            if unknown or node.name in shapes:
                problem = f"reads {unknown[0]!r}, which no earlier node makes" if unknown else "is there twice"
                raise QuantizationError(f"node {node.name!r} {problem}")
            node.shape = infer_shape(node, [shapes[name] for name in node.inputs])
            shapes[node.name] = node.shape
        if self.output not in shapes:
            raise QuantizationError(f"output {self.output!r} is no node of the graph")

    def save(self, path):
        """Write the graph with its parameters or integers to `path` (.npz), whole or not at all; see `ndquant.load`.

        Codes of fewer than 8 bits are packed; an integer graph is stored without its float weights.
        """
        from .files import save

        save(self, path)

    # ---- an integer graph, looked into

    def integers(self, name):
        """Return the stored integers of a converted layer as plain arrays.

        Parameters
        ----------
        name : str
            Name of the layer's node.

        Returns
        -------
        dict
            ``weight`` (codes), ``weight_scale``, ``weight_zero_point``, ``bias`` (int32 codes at the scale
            ``input_scale * weight_scale``, or None), ``input_scale``, ``input_zero_point``, and, unless the output is
            float, ``output_scale`` and ``output_zero_point``. Of a dynamic layer codes, scales and float biases of each
            of its weights, under the names of these.
        """
        from .lower import integers

        return integers(self, self[name])

    def verify(self, batch):
        """Compare simulation, converted graph and NumPy twins on `batch`; see `ndquant.report.verify.verify`."""
        from ..report.verify import verify

        return verify(self, batch)

    def explain(self, name, index, batch=None):
        """Work out one output value of a layer in integers, as text; see `ndquant.report.explain.explain`.

        `batch` is by default what the graph was called with last.
        """
        from ..report.explain import explain

        if batch is None and self._last_inputs is None:
            raise QuantizationError("explain: call the graph first, or give batch=")
        return explain(self, name, index, self._last_inputs if batch is None else batch)

    def report(self, batch=None):
        """Return a table of bits, sizes and errors, layer by layer; see `ndquant.report.table.report`."""
        from ..report.table import report

        return report(self, batch)

    def _repr_html_(self):
        head, *rows = self._cells()
        return html_table(head, rows)

    def _cells(self):
        rows = [("name", "op", "reads", "shape", "quantizer")]
        rows += [(name, "input", "", _text(shape), "") for name, shape in self.inputs.items()]
        rows += [
            (node.name, _op_text(node), ", ".join(node.inputs), _text(node.shape), _quantizer_text(node))
            for node in self.nodes
        ]
        return rows

    def __repr__(self):
        head, *rows = self._cells()
        lines = text_table(head, rows, left=len(head)).replace("\n", "\n  ")
        return f"Graph ({self.kind}), output {self.output}\n  {lines}"


def _gradient_of(dy, y):
    dy = np.asarray(dy, np.float32)
    if dy.shape != y.shape:
        raise ValueError(f"dy: expected the shape {y.shape} of the last output, not {dy.shape}")
    return dy


def _kind(shape):
    return "integers" if isinstance(shape, Indices) else "floats"


def _text(shape):
    if shape and isinstance(shape[0], tuple):
        return ", ".join(map(_text, shape))
    return shape_text(full(shape))


def _op_text(node):
    parts = node.op.name, node.norm and node.norm.op.name, node.attributes.get("activation")
    return "+".join(part for part in parts if part)


def _quantizer_text(node):
    if node.quantizer is not None:
        return str(node.quantizer)
    if node.weight_quantizer is not None:
        return f"weight: {node.weight_quantizer}"
    out_qparams = getattr(node.module, "out_qparams", None)
    return "" if out_qparams is None else repr(out_qparams)
