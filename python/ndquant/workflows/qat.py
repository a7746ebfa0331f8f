"""Quantization-aware training."""

from __future__ import annotations

from .prepare import with_quantizers


def prepare_qat(model, example, qconfig="int8", *, fuse=True):
    """Return the graph of `model` with fake-quantization on weights and activations, ready to train.

    It trains with the loop that trained `model`. The forward pass of its layers runs the integer kernels on the
    codes, so that what is trained is what runs after `convert`; the backward pass is straight-through. In training
    mode the ranges of activations follow the data by moving averages; in evaluation mode they stay.

    Batch normalization trains with the statistics of the batch, on weights quantized as they will be when it is folded
    into them, until ``freeze_batchnorm()`` of the graph: from then on, and in evaluation mode, the folded form runs.

    Parameters
    ----------
    model : Module or Graph
        A float network, trained or not; it stays as it is.
    example : ndarray or tuple of ndarray
        Input(s) of the network; only the shape counts.
    qconfig : str or QConfig, default "int8"
        The name of a preset or a configuration; see `QConfig`.
    fuse : bool, default True
        See `prepare`.

    Returns
    -------
    Graph
        Of kind "qat", in training mode.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant import nn
    >>> model = nn.Sequential(nn.Linear(4, 8, rng=0), nn.ReLU(), nn.Linear(8, 2, rng=1))
    >>> x, labels = np.random.default_rng(0).standard_normal((32, 4)), np.arange(32) % 2
    >>> qat = nq.prepare_qat(model, x, "int4")
    >>> opt = nn.Adam(qat.parameters())
    >>> loss, dlogits = nn.cross_entropy(qat(x), labels)
    >>> qat.backward(dlogits)
    >>> opt.step()
    >>> int4 = nq.convert(qat)
    >>> bool((int4(x) == qat.eval()(x)).all())
    True
    """
    return with_quantizers(model, example, qconfig, training=True, fuse=fuse)
