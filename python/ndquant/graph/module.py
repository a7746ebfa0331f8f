"""Module and Parameter: names and arrays. What a module computes is the graph that tracing its `forward` gives."""

from __future__ import annotations

import itertools

import numpy as np

from .inputs import as_inputs

_structure_version = itertools.count(1)


class Parameter:
    """An array that training changes, with its gradient.

    Parameters
    ----------
    data : array_like
        Copied to float32.

    Attributes
    ----------
    data : ndarray of float32
    grad : ndarray of float32 or None
        Written by ``backward``.

    Examples
    --------
    >>> from ndquant import nn
    >>> class Scaled(nn.Module):
    ...     def __init__(self):
    ...         self.weight = nn.Parameter([1.0, 2.0])
    >>> Scaled().weight
    array([1., 2.], dtype=float32)
    """

    __slots__ = ("data", "grad")

    def __init__(self, data):
        self.data = np.array(data, np.float32, order="C")
        self.grad = None

    def assign(self, value, name):
        """Replace the array by a copy of `value`, which must have its shape."""
        value = np.asarray(value)
        if value.dtype.kind not in "fiu":
            raise TypeError(f"{name}: expected numbers, not {value.dtype}")
        if value.shape != self.data.shape:
            raise ValueError(f"{name}: expected shape {self.data.shape}, not {value.shape}")
        self.data = value.astype(np.float32, order="C")

    def __repr__(self):
        return f"Parameter({self.data.dtype}{list(self.data.shape)})"


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
        self.__dict__.update(training=True, _parameters={}, _modules={}, _graphs={}, _last_graph=None)
        return self

    structure_version = 0

    def __setattr__(self, name, value):
        if isinstance(value, Parameter | Module):
            self._forget(name)
            (self._parameters if isinstance(value, Parameter) else self._modules)[name] = value
        elif name in self._parameters and value is not None:
            self._parameters[name].assign(value, name)
        else:
            self._forget(name)
            object.__setattr__(self, name, value)

    def _forget(self, name):
        """Drop what was called `name`; graphs traced before the change of structure are no longer valid."""
        if name in self._parameters or name in self._modules or isinstance(self.__dict__.get(name), Module):
            del (self._parameters if name in self._parameters else self._modules)[name]
        self.__dict__.pop(name, None)
        Module.structure_version = next(_structure_version)

    def __getattr__(self, name):
        if name in self.__dict__.get("_parameters", ()):
            return self._parameters[name].data
        if name in self.__dict__.get("_modules", ()):
            return self._modules[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name):
        if name not in self._parameters and name not in self._modules and name not in self.__dict__:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        self._forget(name)

    def __dir__(self):
        return [*super().__dir__(), *self._parameters, *self._modules]

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
        seen = set()
        for prefix, module in self.named_modules():
            for key, parameter in module._parameters.items():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield (f"{prefix}.{key}" if prefix else key), parameter

    def parameters(self):
        """Return the parameters, in the order of their definition."""
        return [parameter for _, parameter in self.named_parameters()]

    def train(self, mode=True):
        """Set training mode here and below; returns the module."""
        for _, module in self.named_modules():
            module.__dict__["training"] = bool(mode)
        return self

    def eval(self):
        """Set evaluation mode here and below; returns the module."""
        return self.train(False)

    def state_dict(self):
        """Return {dotted name: copy of the array}."""
        return {name: parameter.data.copy() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state):
        """Assign the arrays of `state` by name; it must hold every parameter and nothing else."""
        load_state(dict(self.named_parameters()), state)

    def graph(self, *inputs):
        """Return the graph for inputs of these shapes: the traced ``forward``, which shares this module's arrays."""
        from .tracing import graph_for

        return graph_for(self, inputs)

    def __call__(self, *inputs):
        """Run the graph of ``forward`` on arrays of floats; inside another ``forward``, record this module's nodes."""
        from .tracing import Traced

        if any(isinstance(x, Traced) for x in inputs):
            return self.forward(*inputs)
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

        `example` gives the input shape where the module was not called yet.
        """
        if example is None and self._last_graph is None:
            raise ValueError("save: call the module once, or give example=, so that its graph is known")
        (self._last_graph if example is None else self.graph(example)).save(path)

    def __repr__(self):
        children = [f"  {name}: " + repr(child).replace("\n", "\n  ") for name, child in self._modules.items()]
        head = f"{type(self).__name__}({self.extra_repr()}"
        return head + ")" if not children else "\n".join([head, *children, ")"])

    def extra_repr(self):
        """Return what repr shows between the parentheses."""
        return ""


def load_state(parameters, state):
    """Assign `state` to {name: Parameter}; names and shapes are checked before anything is changed."""
    missing, extra = sorted(parameters.keys() - state.keys()), sorted(state.keys() - parameters.keys())
    if missing or extra:
        raise ValueError(f"load_state_dict: missing {missing or 'nothing'}, unexpected {extra or 'nothing'}")
    for name, parameter in parameters.items():
        if np.shape(state[name]) != parameter.data.shape:
            raise ValueError(f"{name}: expected shape {parameter.data.shape}, not {np.shape(state[name])}")
    for name, parameter in parameters.items():
        parameter.assign(state[name], name)
