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
    smallest, largest = labels.min(), labels.max()
    if smallest < 0 or largest >= logits.shape[1]:
        raise ValueError(f"labels: expected 0..{logits.shape[1] - 1}, not {smallest}..{largest}")
    rows, count = np.arange(len(labels)), logits.dtype.type(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    gradient = np.exp(shifted)
    total = gradient.sum(axis=1, keepdims=True)
    loss = float((np.log(total[:, 0]) - shifted[rows, labels]).sum() / count)
    gradient /= total
    gradient[rows, labels] -= 1
    gradient /= count
    return loss, gradient
