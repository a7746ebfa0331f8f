"""The proof that a converted network computes what was simulated and what NumPy computes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import reference
from ..errors import QuantizationError
from ..graph.inputs import as_inputs
from ..graph.lower import quantizer_behind
from ..graph.store_half import half_parameters
from ..ops import Codes
from .rebuild import rebuilt, run_twin, stored, textbook_codes


@dataclass(frozen=True)
class Difference:
    """One thing that does not agree.

    Attributes
    ----------
    layer : str
    what : str
        The array, and the two sides that were compared.
    count : int
        How many elements differ.
    largest : float
        The largest difference: in steps for integers, else absolute.
    """

    layer: str
    what: str
    count: int
    largest: float

    def __str__(self):
        return f"{self.layer}: {self.count} of the {self.what} differ, by up to {self.largest:g}"


@dataclass(frozen=True)
class Verification:
    """What `verify` found; true if everything agrees.

    Attributes
    ----------
    differences : tuple of Difference
        In the order of the layers: first of the stored integers, then of the outputs.
    layers : int
        How many integer layers were compared.
    values : int
        How many output values of layers were compared.
    codes : int
        How many of them are codes.
    textbook : int
        How many of these codes differ from the textbook formula in float64 (rounding ties in float32; no fault).
    has_simulation : bool
        False for a loaded model, which has no float weights to rebuild its integers from.
    kind : {"integers", "weights in 16 bits"}
        What was verified.
    """

    differences: tuple
    layers: int
    values: int
    codes: int
    textbook: int
    has_simulation: bool
    kind: str = "integers"

    def __bool__(self):
        return not self.differences

    @property
    def first(self):
        """Name of the first layer that differs, or None."""
        return self.differences[0].layer if self.differences else None

    def summary(self):
        """Return the finding in one line."""
        if self.differences:
            return f"{len(self.differences)} differences, the first in {self.differences[0]}"
        layers = f"{self.layers} layer{'s' if self.layers != 1 else ''}"
        sides = f"{'simulation, ' * self.has_simulation}{self.kind} and NumPy"
        agree = f"{sides} agree: 0 of {self.values} values of {layers} differ"
        if self.kind != "integers":
            return agree
        return f"{agree} ({self.textbook} of {self.codes} codes differ from the float64 formula)"

    def __str__(self):
        return "\n".join([self.summary(), *(f"  {d}" for d in self.differences)])


def verify(graph, batch):
    """Compare (a) the simulation, (b) the converted graph and (c) NumPy twins of its kernels.

    First the stored integers are compared with those rebuilt from the float weights and the recorded ranges, then the
    outputs of every layer on `batch`. A loaded model has no float weights: its stored integers are run by (b) and (c).

    Parameters
    ----------
    graph : Graph
        Of kind "integer", or with weights in 16 bits: then these are compared with the originals, rounded in NumPy.
    batch : ndarray or tuple of ndarray
        Input(s) of the network.

    Returns
    -------
    Verification
        True if everything agrees, bit for bit; printing it names the layers that do not.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import nn
    >>> x = np.random.default_rng(0).standard_normal((32, 4))
    >>> int8 = nq.quantize_static(nn.Sequential(nn.Linear(4, 2, rng=0)), [x])
    >>> int8["0"].bias = int8["0"].bias + 1
    >>> print(int8.verify(x).differences[0])
    0: 2 of the biases (stored against rebuilt) differ, by up to 1
    """
    if any(map(half_parameters, graph.nodes)):
        return _verify_half(graph, as_inputs(batch if isinstance(batch, tuple) else (batch,)))
    if graph.kind != "integer":
        raise QuantizationError(f"verify: expected a converted graph, not one of kind {graph.kind!r}")
    x = as_inputs(batch if isinstance(batch, tuple) else (batch,))
    graph = graph.fitting(x)
    ours, has_simulation = stored(graph), graph.simulation is not None
    truth = rebuilt(graph) if has_simulation else ours
    differences = [d for name in ours for d in _compare_stored(name, ours[name], truth[name])]
    run = graph.run(*x)
    twin = run_twin(graph, truth, x)
    simulated = graph.simulation.run(*x).values if has_simulation else None
    values = codes = textbook = 0
    for name, layer in ours.items():
        sides = {"converted": _plain(run.values[name]), "NumPy": _plain(twin[name])}
        if has_simulation and layer.rows is None:  # a dynamic layer has one form only
            sides["simulated"] = _plain(simulated[_simulated_name(graph, name)])
        differences += _compare_outputs(name, sides)
        values += sides["converted"].size
        if layer.out is not None and layer.weight is not None:
            codes += twin[name].size
            node = graph[name]
            textbook += int(np.sum(twin[name] != textbook_codes(graph, node, truth, twin[node.inputs[0]])))
    layers = sum(layer.weight is not None or layer.rows is not None for layer in ours.values())
    return Verification(tuple(differences), layers, values, codes, textbook, has_simulation)


def _verify_half(graph, x):
    """Compare weights in 16 bits with the originals, rounded in NumPy; then what layers give with both."""
    graph = graph.fitting(x)
    twin, differences, count = (graph.simulation or graph).copy(), [], 0
    halves = {node.name: half_parameters(node) for node in graph.nodes}
    for layer, parameters in halves.items():
        for name, parameter in parameters.items():
            rounded = reference.round_to_half(np.asarray(getattr(twin[layer], name)), parameter.dtype)
            setattr(twin[layer], name, rounded)
            difference = _difference(layer, f"{name} (stored against rebuilt)", parameter.data, rounded)
            differences += [] if difference is None else [difference]
    ours, theirs = graph.run(*x).values, twin.run(*x).values
    layers = [name for name, parameters in halves.items() if parameters]
    for name in layers:
        count += np.size(_plain(ours[name]))
        differences += _compare_outputs(name, {"stored": _plain(ours[name]), "NumPy": _plain(theirs[name])})
    has_originals = graph.simulation is not None
    return Verification(tuple(differences), len(layers), count, 0, 0, has_originals, "weights in 16 bits")


def _simulated_name(graph, name):
    """Return the simulation's name for a value: of codes that an op gives, that of the quantizer behind it."""
    behind = quantizer_behind(graph.simulation, name) if graph[name].op.name != "quantize" else None
    return name if behind is None or graph[name].module.out_qparams is None else behind.name


def _plain(value):
    """Return the codes or floats of a value, those of several parts in a row."""
    if isinstance(value, tuple):
        return np.concatenate([part.ravel() for part in value])
    return value.codes if isinstance(value, Codes) else value


def _compare_stored(name, ours, truth):
    a, b = ours.stored_arrays(), truth.stored_arrays()
    for what in a | b:
        if what not in a or what not in b:
            yield Difference(name, f"{what} (stored against rebuilt)", np.size((a | b)[what]), float("inf"))
        elif (difference := _difference(name, f"{what} (stored against rebuilt)", a[what], b[what])) is not None:
            yield difference


def _compare_outputs(name, sides):
    twin = sides.pop("NumPy")
    for side, value in sides.items():
        if (difference := _difference(name, f"outputs ({side} against NumPy)", value, twin)) is not None:
            yield difference


def _difference(name, what, a, b):
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return Difference(name, what, max(a.size, b.size), float("inf"))
    differs = (a != b) | (np.signbit(a) != np.signbit(b)) if a.dtype.kind == "f" else a != b
    if not differs.any():
        return None
    largest = np.abs(a.astype(np.float64) - b.astype(np.float64)).max()
    return Difference(name, what, int(differs.sum()), float(largest))
