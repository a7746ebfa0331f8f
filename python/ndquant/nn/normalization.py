"""Batch normalization as layers; what they compute stands in `ndquant.ops.norm`."""

from __future__ import annotations

import numpy as np

from ..graph.module import Buffer, Module, Parameter
from ..graph.tracing import apply, naming_the_line
from ..ops.norm import batch_norm_attributes
from ..ops.record import whole_number


class _BatchNorm(Module):
    """Normalization of axis 1 of inputs with as many axes as `ranks` says."""

    ranks = ()

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True):
        self.num_features = whole_number(num_features, "num_features", least=1)
        attributes = batch_norm_attributes(eps, momentum)
        self.eps, self.momentum = attributes["eps"], attributes["momentum"]
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = Parameter(np.ones(num_features)) if affine else None
        self.bias = Parameter(np.zeros(num_features)) if affine else None
        self.running_mean = Buffer(np.zeros(num_features)) if track_running_stats else None
        self.running_var = Buffer(np.ones(num_features)) if track_running_stats else None
        self.num_batches_tracked = Buffer(0) if track_running_stats else None

    def forward(self, x):
        """Record the layer; one in evaluation mode inside a network in training keeps its statistics."""
        with naming_the_line():
            if x.ndim not in self.ranks or x.shape[1] != self.num_features:
                ranks = " or ".join(map(str, self.ranks))
                wanted = f"takes {ranks} axes with {self.num_features} channels on axis 1"
                name = x._trace.module_names.get(id(self)) or type(self).__name__
                raise ValueError(f"{name}: {wanted}, not an input of shape ({', '.join(map(str, x.shape))})")
        frozen = x._trace.training and not self.training
        attributes = {"eps": self.eps, "momentum": self.momentum, "frozen": frozen}
        return apply("batch_norm", x, module=self, attributes=attributes)

    def extra_repr(self):
        """Return the arguments."""
        names = ("eps", "momentum", "affine", "track_running_stats")
        return ", ".join([str(self.num_features), *(f"{name}={getattr(self, name)}" for name in names)])


class BatchNorm1d(_BatchNorm):
    """Batch normalization of features, (N, C) or (N, C, L).

    In training each channel is normalized by its mean and variance in the batch, which the running statistics follow;
    in evaluation mode by the running statistics.

    Parameters
    ----------
    num_features : int
        C.
    eps : float, default 1e-5
        Added to the variance.
    momentum : float or None, default 0.1
        Weight of a batch in the running statistics; None: the mean of all batches.
    affine : bool, default True
        Whether there are a weight and a bias.
    track_running_stats : bool, default True
        False: the statistics are those of the batch in evaluation mode too.

    Attributes
    ----------
    weight, bias : ndarray of float32, shape (C,), or None
    running_mean, running_var : ndarray of float32, shape (C,), or None
        Buffers: saved with the parameters, not trained.
    num_batches_tracked : ndarray of int64, shape (), or None

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> layer = nn.BatchNorm1d(2)
    >>> layer(np.array([[1.0, 10.0], [3.0, 30.0]])).round(3)
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    >>> layer.running_mean
    array([0.2, 2. ], dtype=float32)
    """

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalization of images, (N, C, H, W); see `BatchNorm1d`.

    Parameters
    ----------
    num_features : int
        C.
    eps : float, default 1e-5
        Added to the variance.
    momentum : float or None, default 0.1
        Weight of a batch in the running statistics; None: the mean of all batches.
    affine : bool, default True
        Whether there are a weight and a bias.
    track_running_stats : bool, default True
        False: the statistics are those of the batch in evaluation mode too.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> layer = nn.BatchNorm2d(3).eval()
    >>> layer(np.ones((1, 3, 4, 4))).shape
    (1, 3, 4, 4)
    >>> list(layer.state_dict())
    ['weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked']
    """

    ranks = (4,)
