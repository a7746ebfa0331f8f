"""Convolutions beside `Conv2d`: over sequences, and transposed."""

from __future__ import annotations

from math import prod, sqrt

import numpy as np

from ..graph.module import Module, Parameter, View
from ..graph.tracing import apply
from ..ops.conv import conv2d_attributes
from ..ops.conv_transpose import conv_transpose2d_attributes
from ..ops.pool import pair
from ..ops.record import whole_number
from ..parameter import ParameterView, SwappedParameter


def _initial(shape, outputs, bias, rng):
    """Return weight and bias as PyTorch makes them: uniform in +-1/sqrt(inputs of a window)."""
    rng, limit = np.random.default_rng(rng), 1 / sqrt(prod(shape[1:]))
    weight = Parameter(rng.uniform(-limit, limit, shape))
    return weight, Parameter(rng.uniform(-limit, limit, outputs)) if bias else None


def _channels(in_channels, out_channels, groups):
    whole_number(in_channels, "in_channels", least=1)
    whole_number(out_channels, "out_channels", least=1)
    if in_channels % groups or out_channels % groups:
        channels = f"{in_channels} and {out_channels}"
        raise ValueError(f"groups must divide in_channels and out_channels, {channels}, not be {groups}")


class Conv1d(Module):
    """Convolution of sequences (N, C, L) with windows of weights; runs as that of images of one row.

    Parameters
    ----------
    in_channels, out_channels, kernel_size : int
    stride, padding, dilation : int, default 1, 0 and 1
        Padding is with zeros.
    groups : int, default 1
        Divides both numbers of channels; an output sees the channels of its group.
    bias : bool, default True
    rng : None, int or numpy.random.Generator, default None
        For the initial weights: uniform in +-1/sqrt(inputs of a window), as in PyTorch. None takes fresh entropy.

    Attributes
    ----------
    weight : ndarray of float32, shape (out_channels, in_channels / groups, kernel_size)
    bias : ndarray of float32, shape (out_channels,), or None

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.Conv1d(3, 16, 5, padding=2, rng=0)(np.zeros((2, 3, 20))).shape
    (2, 16, 20)
    """

    def __init__(
        self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True, *, rng=None
    ):
        self.kernel_size = whole_number(kernel_size, "kernel_size", least=1)
        self.attributes = conv2d_attributes((1, stride), (0, padding), (1, dilation), groups)
        _channels(in_channels, out_channels, groups)
        self.in_channels, self.out_channels = int(in_channels), int(out_channels)
        self.weight, self.bias = _initial(
            (self.out_channels, self.in_channels // groups, self.kernel_size), out_channels, bias, rng
        )
        whole = slice(None)
        rows = ParameterView(self._parameters["weight"], (whole, whole, None))
        self.views = {"": View(Conv1d, weight=rows, bias=self._parameters.get("bias"))}

    def forward(self, x):
        """Record the layer between two changes of shape."""
        rows = x.reshape(x.shape[0], *x.shape[1:-1], 1, x.shape[-1])
        y = apply("conv2d", rows, module=self.views[""], attributes=self.attributes)
        return y.reshape(y.shape[0], y.shape[1], y.shape[3])

    def extra_repr(self):
        """Return channels, window, steps and whether there is a bias."""
        steps = ", ".join(f"{n}={self.attributes[n][1]}" for n in ("stride", "padding", "dilation"))
        rest = f"groups={self.attributes['groups']}, bias={'bias' in self._parameters}"
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, {steps}, {rest}"


class ConvTranspose2d(Module):
    """Transposed convolution of images: what the gradient of a convolution is to its input.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or tuple of int
        Rows and columns of the window.
    stride, padding : int or tuple of int, default 1 and 0
        Of that convolution.
    output_padding : int or tuple of int, default 0
        Rows and columns added at the end of the output, fewer than `stride`.
    groups : int, default 1
        Divides both numbers of channels.
    bias : bool, default True
    dilation : int or tuple of int, default 1
    rng : None, int or numpy.random.Generator, default None
        For the initial weights: uniform in +-1/sqrt(outputs of a window), as in PyTorch. None takes fresh entropy.

    Attributes
    ----------
    weight : ndarray of float32, shape (in_channels, out_channels / groups, rows, columns)
    bias : ndarray of float32, shape (out_channels,), or None

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.ConvTranspose2d(8, 3, 2, stride=2, rng=0)(np.zeros((1, 8, 5, 5))).shape
    (1, 3, 10, 10)
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        output_padding=0,
        groups=1,
        bias=True,
        dilation=1,
        *,
        rng=None,
    ):
        self.kernel_size = pair(kernel_size, "kernel_size", least=1)
        self.attributes = conv_transpose2d_attributes(stride, padding, output_padding, groups, dilation)
        _channels(in_channels, out_channels, groups)
        self.in_channels, self.out_channels = int(in_channels), int(out_channels)
        shape = (self.in_channels, self.out_channels // groups, *self.kernel_size)
        self.weight, self.bias = _initial(shape, out_channels, bias, rng)
        outputs_first = SwappedParameter(self._parameters["weight"], groups)
        self.views = {"": View(ConvTranspose2d, weight=outputs_first, bias=self._parameters.get("bias"))}

    def forward(self, x):
        """Record the layer."""
        return apply("conv_transpose2d", x, module=self.views[""], attributes=self.attributes)

    def extra_repr(self):
        """Return channels, window, steps and whether there is a bias."""
        steps = ", ".join(f"{name}={value}" for name, value in self.attributes.items())
        bias = "bias" in self._parameters
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, {steps}, bias={bias}"
