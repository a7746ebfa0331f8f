"""What layers with a weight and a bias share: their integers, the normalization and activation in them, backward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..functional import (
    ACTIVATIONS,
    PackedWeight,
    fake_quantize,
    quantize,
    quantize_bias,
    quantize_weight,
    relu_backward,
)
from ..layout import in_memory_order
from ..profiles import PROFILES
from ..qparams import QParams
from .integer_layer import IntegerLayer, have_products
from .norm import FoldedNorm, LiveNorm, fold, is_live
from .pointwise import relu6_backward
from .record import Codes, in_layer, real


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
    w_float: np.ndarray | None = None  # the weight of which `w` are the fake-quantized values
    w_qparams: QParams | None = None
    norm: FoldedNorm | LiveNorm | None = None


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


def quantized_weight(node, w, b, x_qparams, training):
    """Return the codes of a weight and its packed form, by the quantizer of a node."""
    try:
        return _quantized_weight(node.weight_quantizer, w, b, x_qparams, training)
    except ValueError as error:
        raise in_layer(node, error) from None


def _quantized_weight(quantizer, w, b, x_qparams, training):
    if quantizer.in_one_call and w.ndim == 2:
        return quantize_weight(w, b, x_qparams.scale, quantizer.config.spec, quantizer.profile)
    codes, w_qparams, bias = quantize_parameters(
        quantizer.transformed(w), b, x_qparams, quantizer.qparams_for(w, training)
    )
    return codes, PackedWeight(codes, w_qparams, bias)


def parameters_of(node):
    """Return weight and bias of a node, past the attribute protocols of Node and Module: training reads them often."""
    parameters = node.module._parameters
    bias = parameters.get("bias")
    return parameters["weight"].data, None if bias is None else bias.data


def fused_attributes(activation=None):
    """Return the attributes of a layer: the activation that is part of it, if there is one."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be None, 'relu' or 'relu6', not {activation!r}")
    return {} if activation is None else {"activation": activation}


def activate(y, activation):
    """Apply the activation of a layer in place."""
    if activation is not None:
        np.maximum(y, y.dtype.type(0), out=y)
    return np.minimum(y, y.dtype.type(6), out=y) if activation == "relu6" else y


def activation_backward(dy, y, activation):
    """Gradient of the activation of a layer, from its output."""
    if activation is None:
        return dy
    return in_memory_order(relu6_backward if activation == "relu6" else relu_backward, dy, y)


@dataclass(frozen=True)
class LayerForm:
    """A kind of layer with a weight and a bias: the functions in which kinds differ, and what they have in common.

    Attributes
    ----------
    on_floats : callable
        ``on_floats(x, w, b, attributes) -> (y, LayerSaved)``, without the activation.
    on_codes : callable
        ``on_codes(x, w, b, w_codes, packed, attributes, activation, w_is_inside) -> (y, LayerSaved)``, y in float32.
    backward : callable
        ``backward(dy, saved, need_dx) -> (dx, dw, db)``.
    on_integers : callable
        ``on_integers(x, packed, out_qparams, attributes, activation)``: codes, or float32 without `out_qparams`.
    integer_op : str
        Name of the op that does this with stored integers.
    """

    on_floats: Callable
    on_codes: Callable
    backward: Callable
    on_integers: Callable
    integer_op: str

    def forward(self, node, inputs, run):
        """Run a layer; a normalization in it is live in training, else folded into the weights."""
        (x,) = inputs
        w, b = parameters_of(node)
        activation = node.attributes.get("activation")
        if node.norm is None:
            return self._run(node, x, w, b, activation, run.training)
        if is_live(node.norm, run.training):
            return self._run_live(node, x, w, b, activation)
        folded = fold(w, b, node.norm)
        y, saved = self._run(node, x, folded.weight, folded.bias, activation, run.training)
        saved.norm = folded
        return y, saved

    def _run(self, node, x, w, b, activation, training):
        quantizer = node.weight_quantizer
        if not isinstance(x, Codes) or quantizer is None or quantizer.passes:
            return self._run_floats(node, x, w, b, activation)
        if have_products(x.qparams) and quantizer.config.spec.is_byte_grid:
            w_codes, packed = quantized_weight(node, w, b, x.qparams, training)
            w_is_inside = quantizer.holds_all or quantizer.has_own_gradient
            return self.on_codes(x, w, b, w_codes, packed, node.attributes, activation, w_is_inside)
        w_qparams = quantizer.qparams_for(w, training)
        y, saved = self._run_floats(node, x, fake_quantize(quantizer.transformed(w), w_qparams), b, activation)
        saved.w_float, saved.w_qparams = w, w_qparams
        return y, saved

    def _run_floats(self, node, x, w, b, activation):
        y, saved = self.on_floats(real(x), w, b, node.attributes)
        saved.activation, saved.y = activation, activate(y, activation)
        return y, saved

    def _run_live(self, node, x, w, b, activation):
        norm = LiveNorm.of(node.norm, w)
        z, saved = self._run(node, x, norm.weight, None, None, training=True)
        saved.norm, saved.has_bias = norm, b is not None
        norm.activation, norm.y = activation, activate(norm.forward(z, b), activation)
        return norm.y, saved

    def gradients(self, node, dy, saved, need_input):
        """Return the gradients of the input and of the parameters, as `Op.backward` does."""
        (need_dx,) = need_input
        if isinstance(saved.norm, LiveNorm):
            dz, gradients = saved.norm.backward(activation_backward(dy, saved.norm.y, saved.norm.activation))
            has_bias, saved.has_bias = saved.has_bias, False
            dx, dw, _, d_quantizer = self._backward(node, dz, saved, need_dx)
            gradients |= {"weight": saved.norm.weight_gradient(dw), **d_quantizer}
            if has_bias:
                gradients["bias"] = np.zeros(len(dw), dw.dtype)  # the mean of the batch takes any bias away
            return (dx,), gradients
        dx, dw, db, d_quantizer = self._backward(node, dy, saved, need_dx)
        gradients = {"weight": dw} if db is None else {"weight": dw, "bias": db}
        if saved.norm is not None:
            gradients = saved.norm.backward(dw, db, *parameters_of(node))
        return (dx,), gradients | d_quantizer

    def _backward(self, node, dy, saved, need_dx):
        """Return the gradients of input, weight and bias, and those of the parameters of the weight's quantizer."""
        dx, dw, db = self.backward(dy, saved, need_dx=need_dx)
        w, w_qparams, quantizer = saved.w_float, saved.w_qparams, node.weight_quantizer
        if w_qparams is None and (saved.packed is None or not quantizer.has_own_gradient):
            return dx, dw, db, {}
        if w_qparams is None:
            w, w_qparams = saved.w, saved.w_codes.qparams
        dw, d_parameters = quantizer.gradient(dw, w, w_qparams)
        return dx, dw, db, {f"weight_quantizer.{name}": d for name, d in d_parameters.items()}

    def integer_output(self, node, inputs, saved, out_qparams):
        """Return the output codes of a layer whose profile has an output stage of its own; None where it has none."""
        rules = PROFILES[out_qparams.profile]
        if saved.packed is None or rules.requantize == "dequantize" or isinstance(saved.norm, LiveNorm):
            return None
        return self.on_integers(inputs[0], saved.packed, out_qparams, node.attributes, saved.activation)

    def lower(self, node, input_qparams, out_qparams):
        """Return the integer form; where the codes have none, the layer in float with what quantization left."""
        (x_qparams,), quantizer = input_qparams, node.weight_quantizer
        if x_qparams is None or quantizer is None:
            return None
        w, w_qparams = quantizer.transformed(node.weight), quantizer.qparams_for(node.weight)
        if not have_products(x_qparams, w_qparams):
            return node.op.name, node.module.with_arrays(weight=fake_quantize(w, w_qparams), bias=node.bias)
        integers = quantize_parameters(w, node.bias, x_qparams, w_qparams)
        return self.integer_op, IntegerLayer(*integers, out_qparams)

    def integer_forward(self, node, inputs, run):
        """Run the integer op."""
        (x,), layer = inputs, node.module
        y = self.on_integers(x, layer.packed, layer.out_qparams, node.attributes, node.attributes.get("activation"))
        return (y if layer.out_qparams is None else Codes(y, layer.out_qparams)), None
