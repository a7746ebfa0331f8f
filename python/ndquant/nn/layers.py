"""Layers: names and parameters. What they compute stands in `ndquant.ops`."""

from __future__ import annotations

from math import prod, sqrt

import numpy as np

from ..graph.module import Module, Parameter
from ..graph.tracing import Traced, apply
from ..ops import pointwise


class Linear(Module):
    """Fully connected layer, ``y = x @ weight.T + bias``.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool, default True
    rng : None, int or numpy.random.Generator, default None
        For the initial weights: uniform in +-1/sqrt(in_features), as in PyTorch. None takes fresh entropy.

    Attributes
    ----------
    weight : ndarray of float32, shape (out_features, in_features)
    bias : ndarray of float32, shape (out_features,), or None

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> layer = nn.Linear(4, 2, rng=0)
    >>> layer(np.zeros((3, 4))).shape
    (3, 2)
    """

    def __init__(self, in_features, out_features, bias=True, *, rng=None):
        for name, value in (("in_features", in_features), ("out_features", out_features)):
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, not {value!r}")
        rng = np.random.default_rng(rng)
        limit = 1 / sqrt(in_features)
        self.in_features, self.out_features = int(in_features), int(out_features)
        self.weight = Parameter(rng.uniform(-limit, limit, (out_features, in_features)))
        self.bias = Parameter(rng.uniform(-limit, limit, out_features)) if bias else None

    def forward(self, x):
        """Record the layer."""
        return apply("linear", x, module=self)

    def extra_repr(self):
        """Return the features and whether there is a bias."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class ReLU(Module):
    """Rectified linear unit as a layer; see `relu`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.ReLU()(np.array([[-1.0, 2.0]]))
    array([[0., 2.]], dtype=float32)
    """

    def forward(self, x):
        """Record the activation."""
        return apply("relu", x, module=self)


class Flatten(Module):
    """Flatten all axes behind the batch axis into one.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.Flatten()(np.zeros((5, 2, 3))).shape
    (5, 6)
    """

    def forward(self, x):
        """Record the reshape."""
        return apply("reshape", x, module=self, attributes={"shape": (prod(x.shape[1:]),)})


class Sequential(Module):
    """Layers one after another.

    Parameters
    ----------
    *layers : Module
        Named "0", "1", ... in `state_dict` and in graphs.

    Examples
    --------
    >>> from ndquant import nn
    >>> nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    Sequential(
      0: Linear(4, 8, bias=True)
      1: ReLU()
      2: Linear(8, 2, bias=True)
    )
    """

    def __init__(self, *layers):
        for i, layer in enumerate(layers):
            if not isinstance(layer, Module):
                raise TypeError(f"layer {i} must be a Module, not {type(layer).__name__}")
            setattr(self, str(i), layer)

    def forward(self, x):
        """Apply the layers in order."""
        for layer in self._modules.values():
            x = layer(x)
        return x

    def __len__(self):
        return len(self._modules)

    def __getitem__(self, index):
        return list(self._modules.values())[index]

    def __iter__(self):
        return iter(self._modules.values())


def relu(x):
    """Rectified linear unit, ``max(x, 0)``, of an array or of a traced value inside ``forward``.

    Parameters
    ----------
    x : ndarray of float, any shape

    Returns
    -------
    ndarray
        The shape and dtype of `x`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.relu(np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    return apply("relu", x) if isinstance(x, Traced) else pointwise.relu(np.asarray(x))
