"""Accuracy of a classifier."""

from __future__ import annotations

from ..progress import progress_bar
from .executors import count_right, right_of
from .prepare import example_inputs, in_mode


def evaluate(model, batches, *, progress=False, executor=None):
    """Share of examples whose largest output is at their label.

    Parameters
    ----------
    model : Module or Graph
        Run in evaluation mode; its mode is restored.
    batches : iterable of (x, labels)
        x an array, or a tuple of arrays for several inputs; labels of shape (N,).
    progress : bool, default False
        Show a progress bar (needs tqdm).
    executor : object with ``submit`` or ``map``, optional
        Runs the batches elsewhere, one by one: of concurrent.futures or mpi4py.futures, or a client of Dask.

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
    pairs = (_pair(item, number) for number, item in enumerate(batches))
    pairs = ((example_inputs(x), labels) for x, labels in pairs)
    length = len(batches) if hasattr(batches, "__len__") else None
    with in_mode(model, training=False):
        if executor is None:
            counts = (right_of(model, inputs, labels) for inputs, labels in pairs)
        else:
            counts = count_right(model, pairs, executor)
        for found, examples in progress_bar(counts, progress, length):
            right, total = right + found, total + examples
    if not total:
        raise ValueError("batches: no examples to evaluate")
    return right / total


def _pair(item, number):
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise ValueError(f"batches: item {number} must be (x, labels), not {type(item).__name__}")
    return item
