"""Dynamic quantization: weights become codes at once, inputs of layers when they come."""

from __future__ import annotations

import copy
from dataclasses import replace
from fnmatch import fnmatchcase

from ..errors import QuantizationError
from ..graph import Graph, Module
from ..graph.lower_dynamic import lower_dynamic
from ..graph.module import is_of_class
from ..graph.store_half import store_half
from ..nn import GRU, LSTM, Linear, MultiheadAttention
from ..ops.dynamic import DYNAMIC
from .four_bits import FourBits, hessians
from .prepare import example_inputs

#: The layers that change where none are named.
LAYERS = {
    "int8": (Linear, LSTM, GRU, MultiheadAttention),
    "int4": (Linear, MultiheadAttention),
    "float16": ("*",),
    "bfloat16": ("*",),
}
_HALF = ("float16", "bfloat16")


def quantize_dynamic(model, layers=None, dtype="int8", *, group_size=None, method="minmax", batches=None):
    """Quantize the weights of a trained model, and the inputs of its layers at each call.

    Weights become int8, per output; each row that enters a product becomes uint8 by its own range, so that what it
    gives does not depend on the rows beside it, bit for bit. Sums are exact; biases, gates, states and softmax are
    float32. No data are needed beforehand.

    Parameters
    ----------
    model : Module or Graph
        A float network; it stays as it is.
    layers : iterable of type or str, optional
        Which layers: classes, names or patterns of names; by default Linear, LSTM, GRU and MultiheadAttention, in 4
        bits Linear and MultiheadAttention, in 16 bits all layers. The others stay as they are.
    dtype : {"int8", "int4", "float16", "bfloat16"}, default "int8"
        In 4 bits the weights of fully connected layers are so, two in a byte, in memory as in files; inputs are
        quantized to 8 bits. In 16 bits only storage changes: files hold the weights (arrays of two axes or more) so,
        and layers compute in float32 with these rounded numbers.
    group_size : int, optional
        In 4 bits, how many inputs of an output share a scale; by default all of them. It divides their number.
    method : {"minmax", "mse", "hqq", "gptq"}, default "minmax"
        In 4 bits, how weights are rounded: by their extremes; with the scales of least squared error; with scales and
        offsets that `passes.hqq` finds; by GPTQ, as in `passes.gptq`, on the grid of their extremes.
    batches : iterable, optional
        For GPTQ: each item an array, or a tuple of arrays for several inputs.

    Returns
    -------
    DynamicModel or Graph
        A Graph of a Graph. In int8 its kind is "integer", in 16 bits "float".

    Raises
    ------
    TypeError, ValueError
        If `layers` holds something else; when the model is first called also if a name matches no layer.
    QuantizationError
        When the model is first called, if `group_size` does not divide the inputs of a layer.

    Warns
    -----
    QuantizationWarning
        By GPTQ, if a layer reads fewer rows than it has inputs.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import nn
    >>> model = nn.Sequential(nn.Linear(4, 8, rng=0), nn.ReLU(), nn.Linear(8, 2, rng=1))
    >>> x = np.random.default_rng(0).standard_normal((32, 4))
    >>> dyn = nq.quantize_dynamic(model)
    >>> bool((dyn(x)[3:4] == dyn(x[3:4])).all())
    True
    >>> bool(dyn.verify(x))
    True
    """
    if dtype not in LAYERS:
        raise ValueError(f"dtype must be one of {', '.join(map(repr, LAYERS))}, not {dtype!r}")
    layers = _checked(layers, dtype)
    if isinstance(model, Graph):
        if model.kind != "float":
            raise QuantizationError(f"model: expected a float network, not a graph of kind {model.kind!r}")
        graph = model.copy().eval()
        return _lower(graph, layers, dtype, None, _four_bits(dtype, group_size, method, batches, lambda *_: graph))
    if not isinstance(model, Module) or isinstance(model, DynamicModel):
        raise TypeError(f"model must be a float Module or a Graph, not {type(model).__name__}")
    dynamic = DynamicModel(model, layers, dtype)
    dynamic.four_bits = _four_bits(dtype, group_size, method, batches, dynamic.model.graph)
    return dynamic


def _four_bits(dtype, group_size, method, batches, graph_of):
    """Return the `FourBits` of the arguments of `quantize_dynamic`, None for other types."""
    if dtype != "int4":
        if group_size is not None or method != "minmax" or batches is not None:
            raise ValueError(f"group_size, method and batches are for dtype 'int4', not {dtype!r}")
        return None
    if (method == "gptq") != (batches is not None):
        raise ValueError(f"batches: method 'gptq' needs them and no other takes them, got method {method!r}")
    made = FourBits(group_size, method)
    return made if batches is None else replace(made, hessians=hessians(graph_of, batches))


def _checked(layers, dtype):
    if layers is None:
        return LAYERS[dtype]
    layers = (layers,) if isinstance(layers, str | type) else tuple(layers)
    for layer in layers:
        is_class = isinstance(layer, type) and issubclass(layer, Module)
        if not isinstance(layer, str) and not (is_class if dtype in _HALF else layer in LAYERS[dtype]):
            known = "the classes of layers" if dtype in _HALF else ", ".join(kind.__name__ for kind in LAYERS[dtype])
            raise ValueError(f"layers: {layer!r} is neither a name nor one of {known}")
    return layers


def _can_change(node, dtype):
    has_weights = isinstance(node.module, Module) and bool(node.module._parameters)
    return has_weights if dtype in _HALF else node.op.name in (DYNAMIC if dtype == "int8" else ("linear",))


def _lower(graph, layers, dtype, made, four_bits=None):
    names = {node.name for node in graph.nodes if _can_change(node, dtype)}
    texts = [layer for layer in layers if isinstance(layer, str)]
    for text in texts:
        if not any(fnmatchcase(name, text) for name in names):
            raise ValueError(f"layers: {text!r} matches no layer; the layers are {', '.join(sorted(names))}")
    kinds = tuple(layer for layer in layers if not isinstance(layer, str))

    def wanted(node):
        return any(is_of_class(node.module, k) for k in kinds) or any(fnmatchcase(node.name, t) for t in texts)

    if not any(wanted(node) for node in graph.nodes if node.name in names):
        raise QuantizationError("the network has none of the layers that are to be quantized")
    if dtype in _HALF:
        return store_half(graph, wanted, dtype, made)
    if four_bits is None:
        return lower_dynamic(graph, wanted, made)
    return lower_dynamic(graph, lambda node: node.name in names and wanted(node), made, four_bits.layer_of)


class DynamicModel(Module):
    """A network quantized by `quantize_dynamic`, for inputs of any shape; called like the float one.

    ``graph(*inputs)`` gives the integer graph for inputs of these shapes; all graphs share the codes of the weights.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import nn
    >>> dyn = nq.quantize_dynamic(nn.GRU(4, 8, batch_first=True, rng=0))
    >>> [dyn(np.zeros((1, steps, 4)))[0].shape for steps in (3, 7)]
    [(1, 3, 8), (1, 7, 8)]
    """

    #: Graphs that are kept, for as many shapes of inputs.
    LIMIT = 8

    def __init__(self, model, layers, dtype):
        self.model = copy.deepcopy(model).eval()
        self.layers, self.dtype, self._made, self._lowered = layers, dtype, {}, {}
        self.four_bits = None

    def graph(self, *inputs):
        """Return the integer graph for inputs of these shapes."""
        traced = self.model.graph(*inputs)
        if id(traced) not in self._lowered:
            if len(self._lowered) == self.LIMIT:
                del self._lowered[next(iter(self._lowered))]
            self._lowered[id(traced)] = traced, _lower(traced, self.layers, self.dtype, self._made, self.four_bits)
        return self._lowered[id(traced)][1]

    def extra_repr(self):
        """Return what weights are stored as."""
        return self.dtype

    def train(self, mode=True):
        """Do nothing: the model does not train. Returns it."""
        return self

    def report(self, batch):
        """Return a table of bits, sizes and errors, layer by layer; see `ndquant.report.table.report`."""
        return self.graph(*example_inputs(batch)).report(batch)

    def verify(self, batch):
        """Compare the stored integers and the kernels with NumPy; see `ndquant.report.verify.verify`."""
        return self.graph(*example_inputs(batch)).verify(batch)

    def __getstate__(self):
        return {**super().__getstate__(), "_made": {}, "_lowered": {}}
