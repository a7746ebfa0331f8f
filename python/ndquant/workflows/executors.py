"""Work on batches in other processes or on other machines, by whatever has `submit` or `map`.

Executors of concurrent.futures and mpi4py.futures and clients of Dask have `submit`, whose futures have `result`; a
pool of multiprocessing has `map`. Results come back in the order of the batches, so they are put together in one order
whatever the order in which they arrive.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import tempfile
from collections import deque
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from itertools import islice
from math import prod

import numpy as np

from ..errors import QuantizationError
from ..graph.inputs import as_inputs

#: How many batches are under way or waiting, at most: what bounds the memory that they take here.
UNDER_WAY = 16


@dataclass(frozen=True)
class Failure:
    """An error of a batch, as text: exceptions do not all survive being sent."""

    text: str


def _guarded(folder, number, function, *arguments):
    """Call a function in a worker. Its mark in `folder` says that the batch is under way, also when the worker dies."""
    mark = os.path.join(folder, str(number))
    with contextlib.suppress(OSError):  # on another machine there is no such folder
        open(mark, "x").close()
    try:
        return function(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told with the number of the batch
        text = str(error) if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: {error}"
        return Failure(text)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(mark)


def check_executor(executor):
    """Raise unless `executor` has `submit` or `map`."""
    if not callable(getattr(executor, "submit", None)) and not callable(getattr(executor, "map", None)):
        raise TypeError(f"executor must have submit or map, as concurrent.futures has, not {type(executor).__name__}")


def spread(executor, function, items):
    """Yield ``function(*item)`` for each item in order, computed by an executor.

    Raises
    ------
    QuantizationError
        If an item fails, or the executor takes no more work; the message names its number. If a worker dies that ends
        the executor, as those of a ProcessPoolExecutor do, it names those that were under way: workers on this machine
        leave marks, and of those on others all are named whose results had not come.
    """
    check_executor(executor)
    results = _submitted if callable(getattr(executor, "submit", None)) else _mapped
    with tempfile.TemporaryDirectory(prefix="ndquant-", ignore_cleanup_errors=True) as folder:
        for number, result in enumerate(results(executor, folder, function, iter(items))):
            if isinstance(result, Failure):
                raise QuantizationError(f"batch {number}: {result.text}")
            yield result


def _submitted(executor, folder, function, items):
    waiting, number = deque(), 0
    try:
        while True:
            for item in islice(items, UNDER_WAY - len(waiting)):
                last = number + len(waiting)
                with _naming(folder, range(number, last + 1), last):
                    waiting.append(executor.submit(_guarded, folder, last, function, *item))
            if not waiting:
                return
            with _naming(folder, range(number, number + len(waiting)), number):
                result = waiting[0].result()
            waiting.popleft()
            number += 1
            yield result
    finally:
        for future in waiting:
            future.cancel()


def _mapped(executor, folder, function, items):
    number = 0
    while group := list(islice(items, UNDER_WAY)):
        numbers = range(number, number + len(group))
        with _naming(folder, numbers, None):
            results = list(executor.map(_Call(folder, function), list(zip(numbers, group, strict=True))))
        yield from results
        number += len(group)


@dataclass(frozen=True)
class _Call:
    """A function of one argument, which `map` wants."""

    folder: str
    function: object

    def __call__(self, numbered):
        number, item = numbered
        return _guarded(self.folder, number, self.function, *item)


class _naming:
    """Give an error of the executor itself the numbers of the batches that it is about.

    Where a worker died, those that were under way by their marks, else all that were `given` to the executor; other
    errors are those of the batch `own`, if there is one.
    """

    def __init__(self, folder, given, own):
        self.folder, self.given, self.own = folder, given, own

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if isinstance(error, Exception):
            raise QuantizationError(
                f"{self._which(error)}: the executor lost a worker or takes no work: {type(error).__name__}: {error}"
            ) from error

    def _which(self, error):
        if self.own is not None and not isinstance(error, BrokenExecutor):
            return f"batch {self.own}"
        numbers = sorted(map(int, os.listdir(self.folder))) or self.given
        if len(numbers) == 1:
            return f"batch {numbers[0]}"
        if isinstance(numbers, range):
            return f"batches {numbers[0]} to {numbers[-1]}"
        return f"batches {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


# ---- calibration


def observe_batches(prepared, batches, executor, check):
    """Yield a number for each batch that an executor observed; then let the observers of `prepared` take all in."""
    empty = prepared.copy()
    quantizers = dict(empty.quantizers())
    for quantizer in quantizers.values():
        quantizer.observer = quantizer.observer.fresh()
    found = {name: quantizer.observer.fresh() for name, quantizer in quantizers.items()}
    for number, observers in enumerate(spread(executor, _observe, _numbered(pickle.dumps(empty), batches, check))):
        for name, observer in observers.items():
            try:
                found[name].merge(observer)
            except QuantizationError as error:
                raise QuantizationError(f"{name}: {error}; calibrate without an executor") from None
        yield number
    for name, quantizer in prepared.quantizers():
        if found[name].count:
            quantizer.take_in(found[name])


def _numbered(graph, batches, check):
    """Yield what `_observe` takes; `check` gives the inputs of a batch."""
    examples = 0
    for number, batch in enumerate(batches):
        inputs = check(batch, number)
        yield graph, number, examples, inputs
        examples += len(np.asarray(inputs[0]))


def _observe(graph, number, examples, inputs):
    """Run one batch through a prepared graph, the observers of which are empty; return those that saw something."""
    graph = pickle.loads(graph)
    for node in graph.nodes:
        if node.quantizer is not None:
            rows = examples * prod(node.shape[:-1])
            node.quantizer.observer = node.quantizer.observer.fresh(number, rows)
    graph.run(*inputs)
    return {name: quantizer.observer for name, quantizer in graph.quantizers() if quantizer.observer.count}


# ---- evaluation


def count_right(model, batches, executor):
    """Yield (right, examples) of each batch of (inputs, labels), counted by an executor."""
    yield from spread(executor, _count_right, _with_graphs(model, batches))


def _with_graphs(model, batches):
    """Yield what `_count_right` takes: graphs travel, not modules, whose classes the workers may not know."""
    sent = (None, None)
    for inputs, labels in batches:
        graph = model.graph(*inputs) if hasattr(model, "graph") else model
        if graph is not sent[0]:
            sent = graph, pickle.dumps(graph.replace(graph.nodes, simulation=None))
        yield sent[1], as_inputs(inputs), labels


def _count_right(graph, inputs, labels):
    return right_of(pickle.loads(graph), inputs, labels)


def right_of(model, inputs, labels):
    """Return how many examples have their largest output at their label, and how many there are."""
    return int(np.sum(model(*inputs).argmax(axis=1) == labels)), len(labels)
