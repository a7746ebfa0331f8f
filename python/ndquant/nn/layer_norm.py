"""Layer normalization as a layer; what it computes stands in `ndquant.ops.layer_norm`."""

from __future__ import annotations

import numpy as np

from ..graph.module import Module, Parameter
from ..graph.tracing import apply, naming_the_line
from ..ops.layer_norm import layer_norm_attributes
from ..ops.record import whole_numbers


class LayerNorm(Module):
    """Normalize the last axes of each example by their own mean and variance.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        Lengths of these axes.
    eps : float, default 1e-5
        Added to the variance.
    elementwise_affine : bool, default True
        Whether there is a weight.
    bias : bool, default True
        Whether there is a bias beside the weight.

    Attributes
    ----------
    weight, bias : ndarray of float32, shape `normalized_shape`, or None

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.LayerNorm(2)(np.array([[1.0, 3.0]])).round(3)
    array([[-1.,  1.]], dtype=float32)
    """

    def __init__(self, normalized_shape, eps=1e-5, elementwise_affine=True, bias=True):
        shape = normalized_shape if isinstance(normalized_shape, tuple | list) else (normalized_shape,)
        self.normalized_shape = whole_numbers(shape, "normalized_shape", least=1)
        self.attributes = layer_norm_attributes(len(self.normalized_shape), eps)
        self.weight = Parameter(np.ones(self.normalized_shape)) if elementwise_affine else None
        self.bias = Parameter(np.zeros(self.normalized_shape)) if elementwise_affine and bias else None

    def forward(self, x):
        """Record the layer."""
        with naming_the_line():
            if tuple(x.shape[-len(self.normalized_shape) :]) != self.normalized_shape:
                raise ValueError(f"takes values whose last axes are {self.normalized_shape}, not {x!r}")
        return apply("layer_norm", x, module=self, attributes=self.attributes)

    def extra_repr(self):
        """Return the arguments."""
        affine = "weight" in self._parameters
        return f"{self.normalized_shape}, eps={self.attributes['eps']}, elementwise_affine={affine}"
