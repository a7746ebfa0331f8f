"""Activations as layers; what they compute stands in `functional`."""

from __future__ import annotations

from ..graph.module import Module
from ..graph.tracing import apply
from ..ops.gelu import gelu_attributes
from .functional import softmax


class _Activation(Module):
    """An op without parameters. `inplace` is there for PyTorch's sake and changes nothing."""

    op = None

    def __init__(self, inplace=False):
        self.inplace = inplace

    def forward(self, x):
        """Record the activation."""
        return apply(self.op, x, module=self)


class ReLU(_Activation):
    """Rectified linear unit as a layer; see `relu`.

    Parameters
    ----------
    inplace : bool, default False
        Changes nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.ReLU()(np.array([[-1.0, 2.0]]))
    array([[0., 2.]], dtype=float32)
    """

    op = "relu"


class ReLU6(_Activation):
    """Rectified linear unit that stops at 6, as a layer; see `relu6`.

    Parameters
    ----------
    inplace : bool, default False
        Changes nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.ReLU6()(np.array([[-1.0, 7.0]]))
    array([[0., 6.]], dtype=float32)
    """

    op = "relu6"


class Sigmoid(_Activation):
    """Logistic function as a layer; see `sigmoid`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.Sigmoid()(np.array([[0.0]]))
    array([[0.5]], dtype=float32)
    """

    op = "sigmoid"

    def __init__(self):
        super().__init__()


class Tanh(_Activation):
    """Hyperbolic tangent as a layer; see `tanh`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.Tanh()(np.array([[0.0]]))
    array([[0.]], dtype=float32)
    """

    op = "tanh"

    def __init__(self):
        super().__init__()


class Hardswish(_Activation):
    """Piecewise form of swish as a layer; see `hardswish`.

    Parameters
    ----------
    inplace : bool, default False
        Changes nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.Hardswish()(np.array([[3.0]]))
    array([[3.]], dtype=float32)
    """

    op = "hardswish"


class LeakyReLU(Module):
    """Rectified linear unit that lets a share of negative values through, as a layer; see `leaky_relu`.

    Parameters
    ----------
    negative_slope : float, default 0.01
        Factor of negative values.
    inplace : bool, default False
        Changes nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.LeakyReLU(0.25)(np.array([[-1.0, 2.0]]))
    array([[-0.25,  2.  ]], dtype=float32)
    """

    def __init__(self, negative_slope=0.01, inplace=False):
        self.negative_slope, self.inplace = negative_slope, inplace

    def forward(self, x):
        """Record the activation."""
        return apply("leaky_relu", x, module=self, attributes={"negative_slope": self.negative_slope})

    def extra_repr(self):
        """Return the slope."""
        return f"negative_slope={self.negative_slope}"


class GELU(Module):
    """Gaussian error linear unit as a layer; see `gelu`.

    Parameters
    ----------
    approximate : {"none", "tanh"}, default "none"

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.GELU()(np.array([[-1.0, 2.0]])).round(4)
    array([[-0.1587,  1.9545]], dtype=float32)
    """

    def __init__(self, approximate="none"):
        self.approximate = gelu_attributes(approximate)["approximate"]

    def forward(self, x):
        """Record the activation."""
        return apply("gelu", x, module=self, attributes={"approximate": self.approximate})

    def extra_repr(self):
        """Return the form."""
        return f"approximate={self.approximate!r}"


class Softmax(Module):
    """Probabilities along an axis as a layer; see `softmax`.

    Parameters
    ----------
    dim : int, default -1
        The axis, not that of the batch.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> nn.Softmax(dim=1)(np.array([[0.0, 0.0]]))
    array([[0.5, 0.5]], dtype=float32)
    """

    def __init__(self, dim=-1):
        self.dim = dim

    def forward(self, x):
        """Record the probabilities."""
        return softmax(x, self.dim)

    def extra_repr(self):
        """Return the axis."""
        return f"dim={self.dim}"
