"""What layers with a weight and a bias share, whatever they do with them: their integers, and what backward needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..functional import PackedWeight, quantize, quantize_bias, quantize_weight
from ..profiles import PROFILES
from ..qparams import QParams
from .record import Codes


def quantize_parameters(w, b, x_qparams, w_qparams):
    """Quantize weight and bias of a layer whose input is quantized by `x_qparams`; see `quantize_bias`.

    The one place where training and conversion get a layer's integers from.

    Parameters
    ----------
    w : ndarray of float, shape (O, ...)
    b : ndarray of float, shape (O,), or None
    x_qparams, w_qparams : QParams

    Returns
    -------
    codes : ndarray of int8 or uint8, shape of `w`
    w_qparams : QParams
        With the scale that was used.
    bias : ndarray of int32, shape (O,), or None
        float32 in a profile that keeps the bias in float.
    """
    if PROFILES[w_qparams.profile].bias == "float":
        return quantize(w, w_qparams), w_qparams, None if b is None else np.asarray(b, np.float32)
    bias, raised = quantize_bias(b, x_qparams.scale, w_qparams.scale)
    if raised is not None:
        w_qparams = QParams(raised[()], w_qparams.zero_point, w_qparams.spec, profile=w_qparams.profile)
    return quantize(w, w_qparams), w_qparams, bias


@dataclass(slots=True)
class LayerSaved:
    """What the backward function of a layer needs of a forward pass; of the integer form also its operands."""

    x: np.ndarray | None  # None where the input came as codes: the quantizer in front masks the gradient
    w: np.ndarray
    has_bias: bool
    activation: str | None = None
    y: np.ndarray | None = None
    x_codes: Codes | None = None
    w_codes: Codes | None = None
    packed: PackedWeight | None = None
    w_is_inside: bool = False  # no weight lies outside the range of its codes, so all of its gradient passes
    attributes: dict | None = None  # of a convolution: its steps and groups


def check_floats(op, **operands):
    """Raise unless each operand is an ndarray of floats with its number of axes; ``b`` may be None."""
    for name, (array, rank) in operands.items():
        if array is None and name == "b":
            continue
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(f"{op}: {name} must be an ndarray of floats, not {got}")
        if array.ndim != rank:
            raise ValueError(f"{op}: {name} must have {rank} axes, not shape {array.shape}")


def check_layer_qparams(op, x_qparams, w_qparams, rank):
    """Raise unless both are given, per tensor and per tensor or output, or neither."""
    if (x_qparams is None) != (w_qparams is None):
        missing = "x_qparams" if x_qparams is None else "w_qparams"
        raise TypeError(f"{op}: {missing} is missing; give both x_qparams and w_qparams, or neither")
    for name, qparams, axes in (("x_qparams", x_qparams, (None,)), ("w_qparams", w_qparams, (None, -rank, 0))):
        if qparams is not None and not isinstance(qparams, QParams):
            raise TypeError(f"{op}: {name} must be a QParams, not {type(qparams).__name__}")
        if qparams is not None and not qparams.spec.is_byte_grid:
            wanted = "up to 8 bits, zero_aligned=True and no groups"
            raise ValueError(f"{op}: {name} must have {wanted}, not {qparams.spec}")
        if qparams is not None and qparams.spec.axis not in axes:
            raise ValueError(f"{op}: {name} must have spec.axis in {axes}, not {qparams.spec.axis}")


def quantized_weight(quantizer, w, b, x_qparams, training):
    """Return the codes of a weight and its packed form, by the quantizer of a node."""
    if quantizer.in_one_call:
        return quantize_weight(w, b, x_qparams.scale, quantizer.config.spec, quantizer.profile)
    codes, w_qparams, bias = quantize_parameters(w, b, x_qparams, quantizer.qparams_for(w, training))
    return codes, PackedWeight(codes, w_qparams, bias)


def parameters_of(node):
    """Return weight and bias of a node, past the attribute protocols of Node and Module: training reads them often."""
    parameters = node.module._parameters
    bias = parameters.get("bias")
    return parameters["weight"].data, None if bias is None else bias.data


def fused_attributes(activation=None):
    """Return the attributes of a layer: the activation that is part of it, if there is one."""
    if activation not in (None, "relu"):
        raise ValueError(f"activation must be 'relu', not {activation!r}")
    return {} if activation is None else {"activation": activation}
