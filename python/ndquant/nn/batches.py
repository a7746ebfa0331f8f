"""Batches of arrays."""

from __future__ import annotations

import numpy as np

from ..progress import progress_bar


def batches(*arrays, size, rng=None, progress=False):
    """Iterate over arrays in batches along their first axis.

    Parameters
    ----------
    *arrays : ndarray
        All of one length; usually examples and labels.
    size : int
        Examples per batch; the last batch may be smaller.
    rng : None, int or numpy.random.Generator, default None
        None keeps the order; a seed or a Generator shuffles.
    progress : bool, default False
        Show a progress bar (needs tqdm).

    Yields
    ------
    ndarray or tuple of ndarray
        A batch of each array; of a single array not in a tuple.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> [x.tolist() for x in nn.batches(np.arange(5), size=2)]
    [[0, 1], [2, 3], [4]]
    """
    arrays = [np.asarray(a) for a in arrays]
    lengths = {len(a) if a.ndim else None for a in arrays}
    if len(lengths) != 1 or None in lengths:
        raise ValueError(f"arrays: expected one length along the first axis, got shapes {[a.shape for a in arrays]}")
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(f"size must be an integer of at least 1, not {size!r}")
    return _batches(arrays, int(size), rng, progress)


def _batches(arrays, size, rng, progress):
    count = len(arrays[0])
    order = None if rng is None else np.random.default_rng(rng).permutation(count)
    for start in progress_bar(range(0, count, size), progress):
        part = slice(start, start + size) if order is None else order[start : start + size]
        batch = tuple(a[part] for a in arrays)
        yield batch if len(batch) > 1 else batch[0]
