"""What a training step does to gradients and parameters, as it is defined; results are new arrays."""

from __future__ import annotations

import numpy as np


def relu_backward(dy, y):
    """Return `dy` where `y` is positive, else 0.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.relu_backward(np.array([1.0, 2.0]), np.array([0.0, 3.0]))
    array([0., 2.])
    """
    return np.where(y > 0, dy, dy.dtype.type(0))


def sgd_step(w, g, lr, velocity=None, momentum=0.0):
    """Return parameters and velocity after one step of SGD, each operation rounded to the dtype of `w`.

    Parameters
    ----------
    w, g : ndarray of float32 or float64
    lr : float
    velocity : ndarray, optional
        None without momentum.
    momentum : float, default 0

    Returns
    -------
    w : ndarray
    velocity : ndarray or None

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> reference.sgd_step(np.array([1.0]), np.array([2.0]), 0.25)
    (array([0.5]), None)
    """
    kind = w.dtype.type
    if velocity is not None:
        g = velocity = kind(momentum) * velocity + g
    return w - kind(lr) * g, velocity


def adam_step(w, g, m, v, step, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
    """Return parameters and both moments after step number `step` of Adam, from 1, rounded as in `sgd_step`.

    Parameters
    ----------
    w, g, m, v : ndarray of float32 or float64
    step : int
    lr, eps : float
    betas : tuple of float

    Returns
    -------
    w, m, v : ndarray

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import reference
    >>> w, m, v = reference.adam_step(np.ones(1), np.ones(1), np.zeros(1), np.zeros(1), 1, lr=0.5)
    >>> w.round(4), m.round(4), v.round(4)
    (array([0.5]), array([0.1]), array([0.001]))
    """
    kind, (beta1, beta2) = w.dtype.type, betas
    m = kind(beta1) * m + kind(1 - beta1) * g
    v = kind(beta2) * v + kind(1 - beta2) * (g * g)
    root = np.sqrt(v) * kind(1 / np.sqrt(1 - beta2**step)) + kind(eps)
    return w - kind(lr / (1 - beta1**step)) * (m / root), m, v
