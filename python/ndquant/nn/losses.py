"""Losses, each with its gradient."""

from __future__ import annotations

import numpy as np


def cross_entropy(logits, labels):
    """Mean cross-entropy of softmax(logits) against class labels, and its gradient.

    Parameters
    ----------
    logits : ndarray of float, shape (N, classes)
    labels : ndarray of int, shape (N,)
        Each in [0, classes).

    Returns
    -------
    loss : float
        Mean over the batch, in nats.
    dlogits : ndarray, shape (N, classes)
        Gradient of `loss`, dtype of `logits`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> loss, dlogits = nn.cross_entropy(np.zeros((1, 2)), np.array([1]))
    >>> round(loss, 4), dlogits
    (0.6931, array([[ 0.5, -0.5]]))
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.dtype.kind != "f" or logits.ndim != 2 or len(logits) == 0:
        raise ValueError(f"logits: expected floats of shape (N, classes), N > 0, not {logits.dtype} {logits.shape}")
    if labels.dtype.kind not in "iu" or labels.shape != logits.shape[:1]:
        raise ValueError(f"labels: expected integers of shape {logits.shape[:1]}, not {labels.dtype} {labels.shape}")
    n, classes = logits.shape
    try:
        index = np.ravel_multi_index((np.arange(n), labels), logits.shape)
    except ValueError:
        raise ValueError(f"labels: expected 0..{classes - 1}, not {labels.min()}..{labels.max()}") from None
    count = logits.dtype.type(n)
    shifted = logits - np.maximum.reduce(logits, axis=1, keepdims=True)
    gradient = np.exp(shifted)
    total = np.add.reduce(gradient, axis=1, keepdims=True)
    loss = float(np.add.reduce(np.log(total[:, 0]) - shifted.take(index)) / count)
    gradient /= total
    gradient.put(index, gradient.take(index) - 1)
    gradient /= count
    return loss, gradient
