"""Batch normalization.

Shape letters: N examples, C channels; M values of a channel in a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..channels import channel_sums, mix_channels, scale_channels
from .record import finite, register


def batch_norm_attributes(eps=1e-5, momentum=0.1, frozen=False):
    """Return the attributes of `batch_norm`, checked; a frozen one uses its running statistics in training too."""
    eps = finite(eps, "eps")
    if eps < 0:
        raise ValueError(f"eps must be at least 0, not {eps}")
    momentum = None if momentum is None else finite(momentum, "momentum")
    if momentum is not None and not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be None or in [0, 1], not {momentum}")
    return {"eps": eps, "momentum": momentum, "frozen": bool(frozen)}


@dataclass(slots=True)
class BatchNormSaved:
    """What `batch_norm_backward` needs of a forward pass."""

    x: np.ndarray
    mean: np.ndarray
    inverse: np.ndarray  # 1 / sqrt(var + eps), float64
    weight: np.ndarray | None
    of_batch: bool


def batch_norm(x, weight, bias, mean=None, var=None, eps=1e-5):
    """Normalize each channel, ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167.

    Parameters
    ----------
    x : ndarray of float, shape (N, C, ...)
    weight, bias : ndarray of float, shape (C,), or None
        None: 1 and 0.
    mean, var : ndarray of float, shape (C,), optional
        By default those of the batch, through which the gradient then goes too.
    eps : float, default 1e-5

    Returns
    -------
    y : ndarray, shape and dtype of `x`
    saved : BatchNormSaved
    moments : tuple of ndarray of float64, or None
        Mean and (biased) variance of the batch, if they were used.
    """
    of_batch = mean is None
    if of_batch:
        mean, var = _moments(x)
    inverse = 1 / np.sqrt(np.asarray(var, np.float64) + eps)
    scale = inverse if weight is None else inverse * weight
    y = scale_channels(x, mean, scale, bias)
    return y, BatchNormSaved(x, mean, inverse, weight, of_batch), (mean, var) if of_batch else None


def _moments(x):
    count = x.size // x.shape[1]
    if count < 2:
        raise ValueError(f"a batch of shape {x.shape} has {count} values per channel; training needs 2")
    sums, squares = channel_sums(x)
    mean = sums / count
    return mean, np.maximum(squares / count - mean * mean, 0)


def is_live(node, training):
    """Whether a `batch_norm` node uses the statistics of the batch because it is in training."""
    return training and not node.attributes["frozen"]


def batch_norm_backward(dy, saved, *, need_dx=True):
    """Gradients of `batch_norm`: of the input, the weight and the bias.

    With x' = (x - mean) * inverse and the statistics of the batch, the gradient of the input is
    ``weight * inverse * (dy - mean(dy) - x' * mean(dy * x'))``.
    """
    dbias, products = channel_sums(dy, saved.x)
    dweight = saved.inverse * (products - saved.mean * dbias)
    if not need_dx:
        return None, dweight, dbias
    scale = saved.inverse if saved.weight is None else saved.inverse * saved.weight
    if not saved.of_batch:
        return scale_channels(dy, None, scale, None), dweight, dbias
    count = saved.x.size // saved.x.shape[1]
    slope, shift = -scale * saved.inverse * dweight / count, -scale * dbias / count
    return mix_channels(dy, saved.x, saved.mean, scale, slope, shift), dweight, dbias


def _update_running(buffers, moments, count, momentum):
    """Move the running statistics towards those of the batch; the variance is the unbiased one, as in PyTorch."""
    tracked = buffers["num_batches_tracked"]
    tracked.data = tracked.data + 1
    share = 1 / float(tracked.data) if momentum is None else momentum
    mean, var = moments
    for name, value in (("running_mean", mean), ("running_var", var * count / (count - 1))):
        old = buffers[name].data
        buffers[name].data = ((1 - share) * old + share * value).astype(old.dtype)


def _forward(node, inputs, run):
    (x,) = inputs
    buffers, attributes = node.module._buffers, node.attributes
    weight, bias = _affine(node)
    trains = is_live(node, run.training)
    running = ()
    if "running_mean" in buffers and not trains:
        running = buffers["running_mean"].data, buffers["running_var"].data
    try:
        y, saved, moments = batch_norm(x, weight, bias, *running, eps=attributes["eps"])
    except ValueError as error:
        raise ValueError(f"{node.name}: {error}") from None
    if trains and "running_mean" in buffers:
        _update_running(buffers, moments, x.size // x.shape[1], attributes["momentum"])
    return y, saved


def _affine(node):
    """Return weight and bias, None where there are none."""
    parameters = node.module._parameters
    return tuple(parameters[name].data if name in parameters else None for name in ("weight", "bias"))


def _running(node):
    """Return the running mean and 1 / sqrt(variance + eps), float64."""
    buffers, eps = node.module._buffers, node.attributes["eps"]
    mean, var = (buffers[name].data.astype(np.float64) for name in ("running_mean", "running_var"))
    return mean, 1 / np.sqrt(var + eps)


def _times(w, factor):
    """Multiply the weights of each output by its own factor, in float64; the result has the dtype of `w`."""
    return (w * factor.reshape(-1, *(1,) * (w.ndim - 1))).astype(w.dtype)


@dataclass(slots=True)
class FoldedNorm:
    """A normalization by its running statistics as part of the layer in front of it.

    ``(layer(x, w) + b - mean) * inverse * gamma + beta`` is ``layer(x, weight) + bias``, in which `weight` is
    ``w * factor`` with ``factor = inverse * gamma``, and `bias` is ``(b - mean) * factor + beta``.
    """

    weight: np.ndarray
    bias: np.ndarray
    factor: np.ndarray
    mean: np.ndarray
    inverse: np.ndarray
    is_affine: bool

    def backward(self, dweight, dbias, w, b):
        """Return the gradients of the parameters of both, from those of the folded weight and bias."""
        gradients = {"weight": _times(dweight, self.factor)}
        if b is not None:
            gradients["bias"] = (dbias * self.factor).astype(w.dtype)
        if self.is_affine:
            products = (dweight.astype(np.float64) * w).reshape(len(w), -1).sum(axis=1)
            shift = -self.mean if b is None else b - self.mean
            gradients["norm.weight"] = (self.inverse * (products + dbias * shift)).astype(w.dtype)
            gradients["norm.bias"] = dbias
        return gradients


def fold(w, b, node):
    """Fold a `batch_norm` node into the weight and bias of the layer in front of it."""
    mean, inverse = _running(node)
    gamma, beta = _affine(node)
    factor = inverse if gamma is None else inverse * gamma
    bias = (-mean if b is None else b - mean) * factor
    bias = bias if beta is None else bias + beta
    return FoldedNorm(_times(w, factor), bias.astype(w.dtype), factor, mean, inverse, gamma is not None)


@dataclass(slots=True)
class LiveNorm:
    """A normalization by the statistics of the batch behind a layer that runs with the weights it will be folded to.

    The layer gives ``z``, factor times its output without bias, where `factor` is ``gamma / sigma`` of the running
    statistics (1 where gamma is 0): as in PyTorch's nn/intrinsic/qat/modules/conv_fused.py, so that the quantizer of
    the weight sees what it will see when statistics are frozen. Normalizing z itself, with eps scaled along, saves
    dividing by the factor. The factor cancels, so that no gradient goes through it.
    """

    node: object
    factor: np.ndarray
    weight: np.ndarray
    saved: BatchNormSaved | None = None
    activation: str | None = None
    y: np.ndarray | None = None

    @classmethod
    def of(cls, node, w):
        """Scale the weight `w` of the layer in front of a `batch_norm` node."""
        gamma, factor = _affine(node)[0], _running(node)[1]
        if gamma is not None:
            factor = np.where(gamma == 0, 1, factor * gamma)
        return cls(node, factor, _times(w, factor))

    def forward(self, z, b):
        """Normalize what the layer gave; `b` is its bias, which only moves the running mean."""
        gamma, beta = _affine(self.node)
        attributes, buffers = self.node.attributes, self.node.module._buffers
        try:
            mean, var = _moments(z)
        except ValueError as error:
            raise ValueError(f"{self.node.name}: {error}") from None
        true_mean, true_var = mean / self.factor + (0 if b is None else b), var / self.factor**2
        inverse = 1 / (np.sqrt(true_var + attributes["eps"]) * self.factor)
        _update_running(buffers, (true_mean, true_var), z.size // z.shape[1], attributes["momentum"])
        self.saved = BatchNormSaved(z, mean, inverse, gamma, of_batch=True)
        return scale_channels(z, mean, inverse if gamma is None else inverse * gamma, beta)

    def backward(self, dy):
        """Return the gradient of z, and those of the parameters of the normalization."""
        dz, dweight, dbias = batch_norm_backward(dy, self.saved)
        gradients = {} if self.saved.weight is None else {"norm.weight": dweight, "norm.bias": dbias}
        return dz, {name: d.astype(dy.dtype) for name, d in gradients.items()}

    def weight_gradient(self, dw):
        """Return the gradient of the layer's weight from that of the scaled one."""
        return _times(dw, self.factor)


def _backward(node, dy, saved, need_input):
    dx, dweight, dbias = batch_norm_backward(dy, saved, need_dx=need_input[0])
    gradients = {"weight": dweight, "bias": dbias} if saved.weight is not None else {}
    return (dx,), {name: d.astype(dy.dtype) for name, d in gradients.items()}


def _shape(node, shapes):
    (shape,) = shapes
    arrays = {name: getattr(node, name) for name in ("weight", "bias", "running_mean", "running_var")}
    lengths = {a.shape for a in arrays.values() if a is not None}
    if not shape or lengths - {shape[:1]}:
        found = ", ".join(map(str, lengths))
        raise ValueError(f"{node.name}: parameters of shape {found} do not fit {shape} behind the batch axis")
    if (arrays["weight"] is None) != (arrays["bias"] is None):
        raise ValueError(f"{node.name}: weight and bias must both be there, or neither")
    tracked = [arrays["running_mean"], arrays["running_var"], node.num_batches_tracked]
    if any(a is None for a in tracked) and not all(a is None for a in tracked):
        raise ValueError(f"{node.name}: running_mean, running_var and num_batches_tracked must all be there, or none")
    return shape


BATCH_NORM = register(
    name="batch_norm",
    forward=_forward,
    backward=_backward,
    shape=_shape,
    attributes=batch_norm_attributes,
    parameters=("weight", "bias"),
    buffers=("running_mean", "running_var", "num_batches_tracked"),
)
