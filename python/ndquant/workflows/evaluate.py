"""Accuracy of a classifier."""

from __future__ import annotations

import numpy as np

from ..progress import progress_bar
from .prepare import example_inputs, in_mode


def evaluate(model, batches, *, progress=False):
    """Share of examples whose largest output is at their label.

    Parameters
    ----------
    model : Module or Graph
        Run in evaluation mode; its mode is restored.
    batches : iterable of (x, labels)
        x an array, or a tuple of arrays for several inputs; labels of shape (N,).
    progress : bool, default False
        Show a progress bar (needs tqdm).

    Returns
    -------
    float
        In [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import nn
    >>> model = nn.Sequential(nn.Linear(2, 2, bias=False))
    >>> model[0].weight = np.eye(2)
    >>> nq.evaluate(model, [(np.float32([[1, 0], [0, 1]]), np.array([0, 0]))])
    0.5
    """
    right = total = 0
    with in_mode(model, training=False):
        for number, item in enumerate(progress_bar(batches, progress)):
            x, labels = _pair(item, number)
            right += int(np.sum(model(*example_inputs(x)).argmax(axis=1) == labels))
            total += len(labels)
    if not total:
        raise ValueError("batches: no examples to evaluate")
    return right / total


def _pair(item, number):
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise ValueError(f"batches: item {number} must be (x, labels), not {type(item).__name__}")
    return item
