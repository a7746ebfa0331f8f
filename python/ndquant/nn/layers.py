"""Layers: names and parameters. What they compute stands in `ndquant.ops`."""

from __future__ import annotations

from math import prod, sqrt

import numpy as np

from ..graph.module import Module, Parameter
from ..graph.tracing import apply
from ..ops.conv import conv2d_attributes
from ..ops.pointwise import dropout_attributes
from ..ops.pool import pair
from ..ops.record import whole_number
from .functional import flattened


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
        return f"{self.in_features}, {self.out_features}, bias={'bias' in self._parameters}"


class Conv2d(Module):
    """Convolution of images with windows of weights.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or tuple of int
        Rows and columns of the window.
    stride, padding, dilation : int or tuple of int, default 1, 0 and 1
        Along y and x. Padding is with zeros.
    groups : int, default 1
        Divides both numbers of channels; an output sees the channels of its group.
    bias : bool, default True
    rng : None, int or numpy.random.Generator, default None
        For the initial weights: uniform in +-1/sqrt(inputs of a window), as in PyTorch. None takes fresh entropy.

    Attributes
    ----------
    weight : ndarray of float32, shape (out_channels, in_channels / groups, rows, columns)
    bias : ndarray of float32, shape (out_channels,), or None

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> layer = nn.Conv2d(3, 16, 3, stride=2, padding=1, rng=0)
    >>> layer(np.zeros((5, 3, 32, 32))).shape
    (5, 16, 16, 16)
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        bias=True,
        *,
        rng=None,
    ):
        self.in_channels = whole_number(in_channels, "in_channels", least=1)
        self.out_channels = whole_number(out_channels, "out_channels", least=1)
        self.kernel_size = pair(kernel_size, "kernel_size", least=1)
        self.attributes = conv2d_attributes(stride, padding, dilation, groups)
        if in_channels % groups or out_channels % groups:
            channels = f"{in_channels} and {out_channels}"
            raise ValueError(f"groups must divide in_channels and out_channels, {channels}, not be {groups}")
        shape = (self.out_channels, self.in_channels // groups, *self.kernel_size)
        limit = 1 / sqrt(prod(shape[1:]))
        rng = np.random.default_rng(rng)
        self.weight = Parameter(rng.uniform(-limit, limit, shape))
        self.bias = Parameter(rng.uniform(-limit, limit, out_channels)) if bias else None

    def forward(self, x):
        """Record the layer."""
        return apply("conv2d", x, module=self, attributes=self.attributes)

    def extra_repr(self):
        """Return channels, window, steps and whether there is a bias."""
        steps = ", ".join(f"{name}={value}" for name, value in self.attributes.items())
        bias = "bias" in self._parameters
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, {steps}, bias={bias}"


class Dropout(Module):
    """Zero a share of the elements in training, and scale the rest so that the mean stays; nothing else outside it.

    Parameters
    ----------
    p : float, default 0.5
        Share of elements, in [0, 1].
    inplace : bool, default False
        Changes nothing.
    rng : None, int or numpy.random.Generator, default None
        Chooses the elements. None takes fresh entropy.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> layer = nn.Dropout(0.5, rng=0)
    >>> layer(np.ones((1, 4)))
    array([[2., 2., 2., 0.]], dtype=float32)
    >>> layer.eval()(np.ones((1, 4)))
    array([[1., 1., 1., 1.]], dtype=float32)
    """

    def __init__(self, p=0.5, inplace=False, *, rng=None):
        self.p, self.inplace = dropout_attributes(p)["p"], inplace
        self.rng = np.random.default_rng(rng)

    def forward(self, x):
        """Record the layer, in training alone."""
        return apply("dropout", x, module=self, attributes={"p": self.p}) if self.training else x

    def extra_repr(self):
        """Return the share of elements."""
        return f"p={self.p}"


class Identity(Module):
    """Give the input back. Arguments are taken and not used, as in PyTorch.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.Identity()(np.ones((1, 2)))
    array([[1., 1.]], dtype=float32)
    """

    def __init__(self, *args, **kwargs):
        pass

    def forward(self, x):
        """Return `x`."""
        return x


class Flatten(Module):
    """Join axes behind the batch axis into one, as a layer; see `flatten`.

    Parameters
    ----------
    start_dim, end_dim : int, default 1 and -1
        First and last axis to join.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.Flatten()(np.zeros((5, 2, 3))).shape
    (5, 6)
    """

    def __init__(self, start_dim=1, end_dim=-1):
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x):
        """Record the reshape."""
        shape = flattened(x, self.start_dim, self.end_dim)
        return apply("reshape", x, module=self, attributes={"shape": shape[1:]})


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
