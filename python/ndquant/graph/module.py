"""Module: names and arrays. What a module computes is the graph that tracing its `forward` gives."""

from __future__ import annotations

import copy
import itertools
import threading

import numpy as np

from ..parameter import Buffer, Parameter
from .inputs import as_inputs

_versions = itertools.count(1)


class _Tracing(threading.local):
    """The `Trace` that runs in this thread, if one does: parameters are then given as stand-ins that record."""

    trace = None


tracing = _Tracing()


class Module:
    """Base of layers and networks.

    A subclass sets layers and parameters as attributes in ``__init__`` (``super().__init__()`` is not needed) and
    computes in ``forward``. Calling the module traces ``forward`` once for each training flag and input shape without
    the batch axis, and runs the resulting graph.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         self.hidden, self.out = nn.Linear(4, 8, rng=0), nn.Linear(8, 2, rng=1)
    ...     def forward(self, x):
    ...         return self.out(nn.relu(self.hidden(x)))
    >>> net = Net()
    >>> net(np.ones((3, 4), np.float32)).shape
    (3, 2)
    >>> sorted(net.state_dict())
    ['hidden.bias', 'hidden.weight', 'out.bias', 'out.weight']
    """

    def __new__(cls, *args, **kwargs):
        """Make the dictionaries of names here, so that subclasses need not call ``super().__init__()``."""
        self = super().__new__(cls)
        names = {"_parameters": {}, "_buffers": {}, "_modules": {}}
        self.__dict__.update(names, training=True, _graphs={}, _last_graph=None, _flags=(None, ()))
        return self

    #: Modules that compute with arrays of this one, by what follows its name in theirs; see `View`.
    views = {}

    #: Which nodes `ndquant.fuse` makes one: "all" that fit, or lists of names; None: it was not asked to.
    fused_chains = None

    #: Change with every assignment of a layer or parameter anywhere, and with every change of a mode.
    structure_version = mode_version = 0

    def __setattr__(self, name, value):
        if isinstance(value, Parameter | Buffer | Module):
            self._forget(name)
            self._names_for(value)[name] = value
        elif self._array(name) is not None and value is not None:
            (self._parameters.get(name) or self._buffers[name]).assign(value, name)
        else:
            self._forget(name)
            object.__setattr__(self, name, value)

    def _names_for(self, value):
        if isinstance(value, Module):
            return self._modules
        return self._parameters if isinstance(value, Parameter) else self._buffers

    def _array(self, name):
        """Return the array of the parameter or buffer called `name`, or None."""
        found = self._parameters.get(name) or self._buffers.get(name)
        return None if found is None else found.data

    def with_arrays(self, **arrays):
        """Return a module of the same kind with parameters of its own, of these arrays; None leaves one out."""
        module = copy.copy(self)
        names = {"_parameters": {}, "_buffers": {}, "_modules": dict(self._modules)}
        module.__dict__.update(names, _graphs={}, _last_graph=None)
        module._parameters.update({name: Parameter(a) for name, a in arrays.items() if a is not None})
        return module

    def _forget(self, name):
        """Drop what was called `name`; graphs traced before the change of structure are no longer valid."""
        for names in (self._parameters, self._buffers, self._modules, self.__dict__):
            names.pop(name, None)
        Module.structure_version = next(_versions)

    def __getattr__(self, name):
        for kind in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__.get(kind, ()):
                found = self.__dict__[kind][name]
                if kind == "_modules":
                    return found
                return found.data if tracing.trace is None else tracing.trace.leaf(self, name, found)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name):
        if not any(name in names for names in (self._parameters, self._buffers, self._modules, self.__dict__)):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        self._forget(name)

    def __dir__(self):
        return [*super().__dir__(), *self._parameters, *self._buffers, *self._modules]

    def __getstate__(self):
        return {**self.__dict__, "_graphs": {}, "_last_graph": None}

    def __setstate__(self, state):
        self.__dict__.update(state)

    def forward(self, *inputs):
        """Compute the output from traced inputs; a subclass overrides it."""
        raise TypeError(f"{type(self).__name__} has no forward method")

    def named_modules(self, prefix=""):
        """Yield (dotted name, module) for this module, whose name is `prefix`, and all below it, each once."""
        seen = set()
        stack = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield name, module
            children = [(f"{name}.{key}" if name else key, child) for key, child in module._modules.items()]
            stack.extend(reversed(children))

    def named_parameters(self):
        """Yield (dotted name, `Parameter`), each parameter once."""
        return ((name, array) for name, array in self.named_arrays() if isinstance(array, Parameter))

    def named_arrays(self):
        """Yield (dotted name, `Parameter` or `Buffer`), each once: what `state_dict` holds."""
        seen = set()
        for prefix, module in self.named_modules():
            for key, array in (*module._parameters.items(), *module._buffers.items()):
                if id(array) not in seen:
                    seen.add(id(array))
                    yield (f"{prefix}.{key}" if prefix else key), array

    def parameters(self):
        """Return the parameters, in the order of their definition."""
        return [parameter for _, parameter in self.named_parameters()]

    def train(self, mode=True):
        """Set training mode here and below; returns the module."""
        set_modes([(module, bool(mode)) for _, module in self.named_modules()])
        return self

    def _training_flags(self):
        """Return the training flags of this module and all below it."""
        version = Module.structure_version, Module.mode_version
        if self._flags[0] != version:
            self.__dict__["_flags"] = version, tuple(module.training for _, module in self.named_modules())
        return self._flags[1]

    def eval(self):
        """Set evaluation mode here and below; returns the module."""
        return self.train(False)

    def state_dict(self):
        """Return {dotted name: copy of the array}."""
        return {name: array.data.copy() for name, array in self.named_arrays()}

    def load_state_dict(self, state):
        """Assign the arrays of `state` by name; it must hold every parameter and buffer, and nothing else."""
        load_state(dict(self.named_arrays()), state)

    def graph(self, *inputs):
        """Return the graph for inputs of these shapes: the traced ``forward``, which shares this module's arrays."""
        from .tracing import graph_for

        return graph_for(self, inputs)

    def __call__(self, *inputs, **options):
        """Run the graph of ``forward`` on arrays; inside another ``forward``, record this module's nodes.

        There, `options` go to its ``forward``.
        """
        from .tracing import Traced

        if any(isinstance(x, Traced) for x in inputs):
            return self.forward(*inputs, **options)
        if options:
            raise TypeError(f"{type(self).__name__} takes {', '.join(options)} inside the forward of a network only")
        inputs = as_inputs(inputs)
        self.__dict__["_last_graph"] = graph = self.graph(*inputs)
        return graph.forward(*inputs)

    def backward(self, dy, *, accumulate=False):
        """Compute the gradients of all parameters from the gradient of the last output.

        Parameters
        ----------
        dy : ndarray of float32
            Gradient of the loss, of the shape of the last output.
        accumulate : bool, default False
            True adds to the gradients that are there instead of overwriting them.
        """
        if self._last_graph is None:
            raise RuntimeError("backward: call the module on an input first")
        self._last_graph.backward(dy, accumulate=accumulate)

    def save(self, path, example=None):
        """Write the traced graph and its parameters to `path` (.npz); see `Graph.save`.

        `example` gives the input shape where the module was not called yet. Axes on whose lengths the graph does
        not depend, such as the steps of sequences, may have others when it is loaded.
        """
        from .free_axes import find_free_axes

        if example is None and self._last_graph is None:
            raise ValueError("save: call the module once, or give example=, so that its graph is known")
        graph = self._last_graph if example is None else self.graph(example)
        graph.replace(graph.nodes, free=find_free_axes(self.graph, graph)).save(path)

    def __repr__(self):
        children = [f"  {name}: " + repr(child).replace("\n", "\n  ") for name, child in self._modules.items()]
        if self.fused_chains is not None:
            fused = self.fused_chains if self.fused_chains == "all" else ", ".join(map("+".join, self.fused_chains))
            children.append(f"  fused: {fused}")
        head = f"{type(self).__name__}({self.extra_repr()}"
        return head + ")" if not children else "\n".join([head, *children, ")"])

    def extra_repr(self):
        """Return what repr shows between the parentheses."""
        return ""


class View(Module):
    """Arrays of another module under the names that an op wants: what the nodes of one part of that module hold.

    Parameters
    ----------
    owner : type
        The class of that module, which keeps this one in its `views`.
    **parameters : Parameter or None
    """

    def __init__(self, owner, **parameters):
        self.owner = owner
        for name, parameter in parameters.items():
            setattr(self, name, parameter)


def is_of_class(module, kind):
    """Whether a node's module is a layer of this class or part of one."""
    return isinstance(module, kind) or isinstance(module, View) and issubclass(module.owner, kind)


def set_modes(modes):
    """Set the training flags of (module, flag) pairs."""
    for module, training in modes:
        module.__dict__["training"] = training
    Module.mode_version = next(_versions)


def load_state(arrays, state):
    """Assign `state` to {name: Parameter or Buffer}; names and shapes are checked before anything is changed."""
    if not hasattr(state, "keys"):
        raise TypeError(f"load_state_dict: state must be a dict of arrays, not {type(state).__name__}")
    missing, extra = sorted(arrays.keys() - state.keys()), sorted(state.keys() - arrays.keys())
    if missing or extra:
        raise ValueError(f"load_state_dict: missing {missing or 'nothing'}, unexpected {extra or 'nothing'}")
    for name, array in arrays.items():
        if np.shape(state[name]) != array.data.shape:
            raise ValueError(f"{name}: expected shape {array.data.shape}, not {np.shape(state[name])}")
    for name, array in arrays.items():
        array.assign(state[name], name)
