"""Pooling as layers; what they compute stands in `functional`."""

from __future__ import annotations

from ..graph.module import Module
from ..graph.tracing import apply
from ..ops.pool import adaptive_avg_pool2d_attributes, avg_pool2d_attributes, max_pool2d_attributes


class _Pooling(Module):
    """An op whose attributes are given when the layer is made, and checked then."""

    op = None

    def forward(self, x):
        """Record the pooling."""
        return apply(self.op, x, module=self, attributes=self.attributes)

    def extra_repr(self):
        """Return the attributes."""
        return ", ".join(f"{name}={value}" for name, value in self.attributes.items())


class MaxPool2d(_Pooling):
    """Largest value of each window, as a layer; see `max_pool2d`.

    Parameters
    ----------
    kernel_size : int or tuple of int
    stride : int or tuple of int, optional
        By default `kernel_size`.
    padding : int or tuple of int, default 0
    dilation : int or tuple of int, default 1
    ceil_mode : bool, default False

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.MaxPool2d(2)(np.zeros((1, 3, 8, 6))).shape
    (1, 3, 4, 3)
    """

    op = "max_pool2d"

    def __init__(self, kernel_size, stride=None, padding=0, dilation=1, *, ceil_mode=False):
        self.attributes = max_pool2d_attributes(kernel_size, stride, padding, dilation, ceil_mode)


class AvgPool2d(_Pooling):
    """Mean of each window, as a layer; see `avg_pool2d`.

    Parameters
    ----------
    kernel_size : int or tuple of int
    stride : int or tuple of int, optional
        By default `kernel_size`.
    padding : int or tuple of int, default 0
    ceil_mode : bool, default False
    count_include_pad : bool, default True

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.AvgPool2d(2)(np.zeros((1, 3, 8, 6))).shape
    (1, 3, 4, 3)
    """

    op = "avg_pool2d"

    def __init__(self, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
        self.attributes = avg_pool2d_attributes(kernel_size, stride, padding, ceil_mode, count_include_pad)


class AdaptiveAvgPool2d(_Pooling):
    """Mean of each of as many windows as are asked for, as a layer; see `adaptive_avg_pool2d`.

    Parameters
    ----------
    output_size : int or tuple of (int or None)

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.AdaptiveAvgPool2d(1)(np.zeros((1, 3, 8, 6))).shape
    (1, 3, 1, 1)
    """

    op = "adaptive_avg_pool2d"

    def __init__(self, output_size):
        self.attributes = adaptive_avg_pool2d_attributes(output_size)
