"""Post-training quantization: prepare, calibrate, convert."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np

from ..errors import QuantizationError
from ..graph import Graph, lower
from ..progress import progress_bar
from .executors import observe_batches
from .prepare import example_inputs, with_quantizers


def prepare(model, example, qconfig="int8", *, fuse=True):
    """Return the graph of `model` with an observer on every edge that will be quantized.

    Parameters
    ----------
    model : Module or Graph
        A float network; it stays as it is.
    example : ndarray or tuple of ndarray
        Input(s) of the network; only the shape counts.
    qconfig : str or QConfig, default "int8"
        The name of a preset or a configuration; see `QConfig`.
    fuse : bool, default True
        False keeps activations apart from their layers, with the quantizers before them, as PyTorch's eager mode does,
        and normalizations, which then run in float.

    Returns
    -------
    Graph
        Of kind "prepared".

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import nn
    >>> model = nn.Sequential(nn.Linear(4, 8, rng=0), nn.ReLU(), nn.Linear(8, 2, rng=1))
    >>> x = np.random.default_rng(0).standard_normal((32, 4))
    >>> int8 = nq.convert(nq.calibrate(nq.prepare(model, x), [x]))
    >>> int8.integers("0")["weight"].dtype
    dtype('int8')
    """
    return with_quantizers(model, example, qconfig, training=False, fuse=fuse)


def calibrate(prepared, batches, *, progress=False, executor=None):
    """Run batches through a prepared graph, whose observers take in what passes.

    With an executor, batches are observed elsewhere, one by one, and the result has the same bits. Its memory here does
    not grow with the data. If a batch fails, or a worker dies, nothing is taken in at all.

    Parameters
    ----------
    prepared : Graph
        Of `prepare`; it is updated.
    batches : iterable
        Each item an array, or a tuple of arrays for several inputs; no labels.
    progress : bool, default False
        Show a progress bar (needs tqdm).
    executor : object with ``submit`` or ``map``, optional
        Of concurrent.futures or mpi4py.futures, or a client of Dask. It stays open.

    Returns
    -------
    Graph
        `prepared`.

    Raises
    ------
    ValueError
        If there is no batch, or a value is NaN or infinite; with an executor it names the batch.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import nn
    >>> prepared = nq.prepare(nn.Sequential(nn.Linear(4, 2, rng=0)), np.zeros((1, 4)))
    >>> prepared = nq.calibrate(prepared, [np.ones((8, 4)), -np.ones((8, 4))])
    """
    check_kind(prepared, "prepared", "calibrate", "prepare")
    check_batches(batches)

    def checked(batch, number):
        return _checked_inputs(prepared, batch, number)

    if executor is None:
        seen = _observe_here(prepared, batches, checked)
    else:
        seen = observe_batches(prepared, batches, executor, checked)
    length = len(batches) if hasattr(batches, "__len__") else None
    if not sum(1 for _ in progress_bar(seen, progress, length)):
        raise ValueError("batches: calibration needs at least one batch, got none")
    return prepared


def _observe_here(prepared, batches, checked):
    """Yield the number of each batch that ran through the graph."""
    for number, batch in enumerate(batches):
        with saying_what_batches_are(batches):
            prepared.run(*checked(batch, number))
        yield number


def _checked_inputs(prepared, batch, number):
    inputs = example_inputs(batch)
    if len(inputs) != len(prepared.inputs):
        wanted = f"the network takes {len(prepared.inputs)}; labels are not wanted"
        raise ValueError(f"batches: item {number} holds {len(inputs)} arrays, {wanted}")
    return inputs


def convert(prepared):
    """Return the integer graph of a calibrated or trained graph.

    Parameters
    ----------
    prepared : Graph
        Of `prepare` after `calibrate`, or of `prepare_qat` at any time in training; it stays as it is.

    Returns
    -------
    Graph
        Of kind "integer": float in, float out, integer kernels in between.

    Raises
    ------
    QuantizationError
        If a quantizer has seen no data, or the graph is not a prepared one.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import nn
    >>> x = np.float32([[0.5, -1.0]])
    >>> prepared = nq.prepare(nn.Sequential(nn.Linear(2, 1, rng=0)), x)
    >>> nq.convert(nq.calibrate(prepared, [x]))(x).shape
    (1, 1)
    """
    if not isinstance(prepared, Graph) or prepared.kind not in ("prepared", "qat"):
        got = f"a graph of kind {prepared.kind!r}" if isinstance(prepared, Graph) else type(prepared).__name__
        raise QuantizationError(f"convert: expected a graph of prepare or prepare_qat, not {got}")
    return lower(prepared)


def quantize_static(model, batches, qconfig="int8", *, progress=False):
    """Quantize a trained model: `prepare`, `calibrate` and `convert` in one call.

    Parameters
    ----------
    model : Module or Graph
        A float network; it stays as it is.
    batches : iterable
        Calibration data: each item an array, or a tuple of arrays for several inputs; no labels.
    qconfig : str or QConfig, default "int8"
        See `prepare`.
    progress : bool, default False
        Show a progress bar (needs tqdm).

    Returns
    -------
    Graph
        Of kind "integer".

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import nn
    >>> model = nn.Sequential(nn.Linear(4, 8, rng=0), nn.ReLU(), nn.Linear(8, 2, rng=1))
    >>> x = np.random.default_rng(0).standard_normal((32, 4))
    >>> int8 = nq.quantize_static(model, [x])
    >>> bool(int8.verify(x))
    True
    """
    check_batches(batches)
    remaining = iter(batches)
    first = next(remaining, None)
    if first is None:
        raise ValueError("batches: calibration needs at least one batch, got none")
    with saying_what_batches_are(batches):
        prepared = prepare(model, first, qconfig)
    data = batches if isinstance(batches, list | tuple) else _chain(first, remaining)
    return convert(calibrate(prepared, data, progress=progress))


def _chain(first, rest):
    yield first
    yield from rest


def check_batches(batches):
    """Raise unless `batches` can be iterated and is no text."""
    if isinstance(batches, str | bytes) or not hasattr(batches, "__iter__"):
        raise TypeError(f"batches must be an iterable of arrays, not {type(batches).__name__}")


@contextmanager
def saying_what_batches_are(batches):
    """Add to an error that one array was given, whose rows were taken for batches, if that is so."""
    try:
        yield
    except ValueError as error:
        if not isinstance(batches, np.ndarray):
            raise
        raise type(error)(f"{error}; batches is one array, whose rows are taken for batches: give [x]") from None


def check_kind(graph, kind, caller, maker):
    """Raise unless `graph` is a Graph of this kind."""
    if not isinstance(graph, Graph) or graph.kind != kind:
        got = f"a graph of kind {graph.kind!r}" if isinstance(graph, Graph) else type(graph).__name__
        raise QuantizationError(f"{caller}: expected the graph of {maker}, not {got}")
