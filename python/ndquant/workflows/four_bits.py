"""How dynamic layers get weights of 4 bits: by their extremes, by HQQ, or by GPTQ from data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import QuantizationError
from ..functional import matmul_f32, quantize
from ..graph.inputs import as_inputs
from ..grouped import GroupedWeight
from ..observers import choose_qparams
from ..ops.dynamic import DynamicLayer
from ..ops.record import real
from ..qparams import QuantSpec
from .prepare import example_inputs

METHODS = ("minmax", "mse", "hqq", "gptq")


@dataclass(frozen=True)
class FourBits:
    """What weights of 4 bits are made by.

    Attributes
    ----------
    group_size : int or None
        Inputs that share a scale; None is all of an output.
    method : str
        One of `METHODS`.
    hessians : dict, optional
        {node name: (number of rows, sum of their outer products)}, for GPTQ.
    """

    group_size: int | None
    method: str
    hessians: dict | None = None

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {self.method!r}")
        self.spec  # noqa: B018 - checks group_size

    @property
    def spec(self):
        """The `QuantSpec` of weights."""
        axis = 0 if self.group_size is None else 1
        if self.method == "hqq":
            return QuantSpec(4, False, False, axis=axis, group_size=self.group_size, zero_aligned=False)
        return QuantSpec(4, axis=axis, group_size=self.group_size)

    def layer_of(self, node):
        """Return the `DynamicLayer` of a fully connected layer."""
        arrays = node.module._parameters
        w = np.asarray(arrays["weight"].data, np.float32)
        if self.group_size is not None and w.shape[1] % self.group_size:
            raise QuantizationError(
                f"{node.name}: group_size {self.group_size} does not divide its {w.shape[1]} inputs"
            )
        codes, qparams = self._round(node.name, w)
        bias = arrays["bias"].data if "bias" in arrays else None
        layer = DynamicLayer(weight=GroupedWeight(codes, qparams, bias))
        layer.method = self.method
        return layer

    def _round(self, name, w):
        from ..passes.gptq import round_weight  # passes read this package
        from ..passes.hqq import hqq

        if self.method == "hqq":
            qparams = hqq(w, self.spec)
        else:
            qparams = choose_qparams(w, self.spec, method="minmax" if self.method == "gptq" else self.method)
        if self.method == "gptq":
            return round_weight(w, qparams, *self.hessians[name], name), qparams
        return quantize(w, qparams), qparams


def hessians(graph_of, batches):
    """Return {name of a fully connected layer: (number of rows, sum of outer products of what it reads)}."""
    found = {}
    for batch in batches:
        inputs = as_inputs(example_inputs(batch))
        graph = graph_of(*inputs)
        values = graph.run(*inputs).values
        for node in graph.nodes:
            if node.op.name == "linear":
                rows = real(values[node.inputs[0]])
                rows = np.ascontiguousarray(rows.reshape(-1, rows.shape[-1]), np.float32)
                count, total = found.get(node.name, (0, 0.0))
                found[node.name] = count + len(rows), total + matmul_f32(rows.T, rows).astype(np.float64)
    if not found:
        raise ValueError("batches: method 'gptq' needs data that reach a fully connected layer, got none")
    return found
