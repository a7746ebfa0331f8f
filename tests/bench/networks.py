"""Whole networks as flat lists of plan steps: the definitions of MLP, ResNet-20 and MobileNetV2, quantized.

A network is a list of layers. Each can do three things: run in float, which is how ranges are found; append its steps
to a plan; and run as its NumPy twin, from `ndquant.reference` alone. Batch normalization is folded into weights and
biases.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import numpy as np

import ndquant as nq
from ndquant import reference
from ndquant.convolution import conv2d_f32
from ndquant.functional import PackedWeight, quantize_bias
from ndquant.graph.plan import Plan
from ndquant.graph.steps import Steps
from ndquant.integer import even_windows

AFFINE = nq.QuantSpec(signed=False, symmetric=False)
LIMITS = {None: (-np.inf, np.inf), "relu": (0, np.inf), "relu6": (0, 6)}


def _qparams(y):
    """Return the QParams of an activation, from its values."""
    return nq.QParams.from_range(np.float32(min(y.min(), 0)), np.float32(max(y.max(), 0)), AFFINE)


def _grid(qparams):
    """Return scale, zero point, lowest and highest code."""
    return np.float32(qparams.scale), int(qparams.zero_point), qparams.spec.qmin, qparams.spec.qmax


@dataclass
class Layer:
    """A convolution, w of shape (O, C / groups, KH, KW), or a fully connected layer, w of shape (O, K)."""

    w: np.ndarray
    b: np.ndarray
    stride: int = 1
    groups: int = 1
    activation: str | None = None
    to_codes: bool = True
    x_qparams: nq.QParams = field(init=False, default=None)
    out_qparams: nq.QParams = field(init=False, default=None)

    @property
    def packings(self):
        """The packed forms of a convolution's weight."""
        return [self.packed._of_conv(self.groups, merged=True)]

    @property
    def geometry(self):
        """Stride, padding, dilation and groups of a convolution."""
        padding = self.w.shape[-1] // 2
        return (self.stride,) * 2, (padding,) * 2, (1, 1), self.groups

    def calibrate(self, x, x_qparams):
        """Return the output for floats `x` with its QParams, and quantize weight and bias."""
        axes = tuple(range(1, self.w.ndim))
        scale = np.maximum(np.abs(self.w).max(axes), 1e-6).astype(np.float32) / np.float32(127)
        self.w_qparams = nq.QParams(scale, 0, nq.QuantSpec(axis=0))
        self.codes, self.x_qparams = nq.quantize(self.w, self.w_qparams), x_qparams
        self.bias, _ = quantize_bias(self.b, x_qparams.scale, scale)
        self.packed = PackedWeight(self.codes, self.w_qparams, self.bias)
        y = x @ self.w.T + self.b if self.w.ndim == 2 else conv2d_f32(x, self.w, self.b, *self.geometry)
        y = np.clip(y, *LIMITS[self.activation])
        self.out_qparams = _qparams(y) if self.to_codes else None
        return y, self.out_qparams

    def step(self, steps, x):
        """Append the layer."""
        if self.w.ndim == 2:
            return steps.linear(x, self.packed, self.out_qparams, self.activation)
        return steps.conv2d(x, self.packed, self.out_qparams, *self.geometry, activation=self.activation)

    def twin(self, x):
        """Return the output for codes `x`."""
        zero = int(self.x_qparams.zero_point)
        scales = self.x_qparams.scale, self.w_qparams.scale
        if self.w.ndim == 2:
            acc = reference.gemm_s32(x, self.codes, zero, 0, self.bias)
        else:
            acc = reference.conv2d_s32(x, self.codes, *self.geometry, x_zero_point=zero, bias=self.bias)
            acc = acc.transpose(0, 2, 3, 1)
        if self.out_qparams is None:
            return reference.linear_f32(acc, *scales, activation=self.activation)
        y = reference.linear_codes(acc, *scales, *_grid(self.out_qparams), activation=self.activation)
        return y if y.ndim == 2 else y.transpose(0, 3, 1, 2)


@dataclass
class Sum:
    """A residual connection: the sum of what two chains of layers give; an empty one passes its input on."""

    body: list
    skip: list = field(default_factory=list)
    activation: str | None = None

    def calibrate(self, x, x_qparams):
        """Return the output with its QParams."""
        (a, self.a), (b, self.b) = (calibrate(chain, x, x_qparams) for chain in (self.body, self.skip))
        y = np.clip(a + b, *LIMITS[self.activation])
        self.out_qparams = _qparams(y)
        return y, self.out_qparams

    def step(self, steps, x):
        """Append both chains and the sum."""
        a, b = (append(chain, steps, x) for chain in (self.body, self.skip))
        return steps.add(a, b, self.out_qparams, self.activation)

    def twin(self, x):
        """Return the output for codes `x`."""
        a, b = (run_twin(chain, x) for chain in (self.body, self.skip))
        operands = a, *_grid(self.a)[:2], b, *_grid(self.b)[:2]
        return reference.add_codes(*operands, _grid(self.out_qparams), self.activation)


class Mean:
    """Global average pooling, flattened."""

    def calibrate(self, x, x_qparams):
        """Return the output with its QParams."""
        y = x.mean(axis=(2, 3))
        self.x_qparams, self.out_qparams = x_qparams, _qparams(y)
        return y, self.out_qparams

    def step(self, steps, x):
        """Append the pooling."""
        return steps.reshape(steps.adaptive_avg_pool2d(x, self.out_qparams), x.shape[:2])

    def twin(self, x):
        """Return the output for codes `x`."""
        windows = [even_windows(n, 1) for n in x.shape[2:]]
        grid = _grid(self.x_qparams)[:2]
        return reference.avg_pool_codes(x, *grid, *windows, _grid(self.out_qparams)).reshape(x.shape[:2])


def calibrate(layers, x, x_qparams):
    """Return the output of a chain of layers with its QParams."""
    for layer in layers:
        x, x_qparams = layer.calibrate(x, x_qparams)
    return x, x_qparams


def append(layers, steps, x):
    """Append a chain of layers to the steps of a plan."""
    for layer in layers:
        x = layer.step(steps, x)
    return x


def run_twin(layers, x):
    """Return what a chain of NumPy twins gives for codes."""
    for layer in layers:
        x = layer.twin(x)
    return x


def _layers(chain):
    """Yield the layers with weights of a chain."""
    for layer in chain:
        if isinstance(layer, Sum):
            yield from _layers([*layer.body, *layer.skip])
        elif isinstance(layer, Layer):
            yield layer


class Network:
    """A quantized network for images, or rows, of one shape."""

    def __init__(self, layers, x):
        self.layers, self.x_qparams = layers, _qparams(x)
        layers[-1].to_codes = False
        calibrate(layers, x, self.x_qparams)

    def plan(self, shape):
        """Return the plan for inputs of this shape."""
        steps = Steps()
        y = append(self.layers, steps, steps.quantize(steps.new(shape), self.x_qparams))
        return Plan(steps, {"y": y}, 1, y)

    def multiply_adds(self, shape):
        """Return the multiply-adds of one example of this shape."""
        steps = Steps()
        append(self.layers, steps, steps.quantize(steps.new((1, *shape)), self.x_qparams))
        weights = {id(layer.packed._packed): layer.w for layer in _layers(self.layers) if layer.w.ndim == 2}
        weights |= {id(p): layer.w for layer in _layers(self.layers) if layer.w.ndim == 4 for p in layer.packings}
        return sum(
            prod(steps.values[y].shape) * next(weights[id(c)][0].size for c in constants if id(c) in weights)
            for kind, _, y, *constants in steps.steps
            if kind in ("linear", "conv2d")
        )

    def twin(self, x):
        """Return the output of the NumPy twins for floats `x`."""
        return run_twin(self.layers, reference.quantize(x, *_grid(self.x_qparams)))


# ---- The definitions, with random weights


def _conv(rng, channels, outputs, size, stride=1, groups=1, activation=None):
    fan_in = channels // groups * size * size
    w = rng.standard_normal((outputs, channels // groups, size, size), np.float32) * np.float32(1.4 / fan_in**0.5)
    return Layer(w, rng.standard_normal(outputs, np.float32) * np.float32(0.1), stride, groups, activation)


def _linear(rng, inputs, outputs, activation=None):
    w = rng.standard_normal((outputs, inputs), np.float32) * np.float32(1.4 / inputs**0.5)
    return Layer(w, rng.standard_normal(outputs, np.float32) * np.float32(0.1), activation=activation)


def mlp(rng):
    """Return the layers of 784-100-100-10."""
    return [_linear(rng, 784, 100, "relu"), _linear(rng, 100, 100, "relu"), _linear(rng, 100, 10)]


def resnet20(rng, blocks=3):
    """Return the layers of ResNet-20 for 3 x 32 x 32 images, fewer with fewer blocks in a stage."""
    layers, width = [_conv(rng, 3, 16, 3, activation="relu")], 16
    for outputs, first in ((16, 1), (32, 2), (64, 2)):
        for stride in (first, *[1] * (blocks - 1)):
            body = [_conv(rng, width, outputs, 3, stride, activation="relu"), _conv(rng, outputs, outputs, 3)]
            skip = [] if width == outputs else [_conv(rng, width, outputs, 1, stride)]
            layers.append(Sum(body, skip, "relu"))
            width = outputs
    return [*layers, Mean(), _linear(rng, 64, 10)]


#: Of MobileNetV2: expansion, outputs, repetitions, first stride.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenetv2(rng, stages=STAGES):
    """Return the layers of MobileNetV2 for 3 x 224 x 224 images."""
    layers, width = [_conv(rng, 3, 32, 3, 2, activation="relu6")], 32
    for expansion, outputs, repetitions, first in stages:
        for stride in (first, *[1] * (repetitions - 1)):
            hidden = width * expansion
            body = [_conv(rng, width, hidden, 1, activation="relu6")] if expansion > 1 else []
            body += [_conv(rng, hidden, hidden, 3, stride, hidden, "relu6"), _conv(rng, hidden, outputs, 1)]
            layers += [Sum(body)] if stride == 1 and width == outputs else body
            width = outputs
    return [*layers, _conv(rng, width, 1280, 1, activation="relu6"), Mean(), _linear(rng, 1280, 1000)]


DEFINITIONS = {
    "mlp": (mlp, (784,)),
    "resnet20": (resnet20, (3, 32, 32)),
    "mobilenetv2": (mobilenetv2, (3, 224, 224)),
}


def from_torch(net):
    """Return the layers of a torch network of the modules that these definitions use, in evaluation mode."""
    layers = []
    for module in net if hasattr(net, "__iter__") else [net]:
        kind = type(module).__name__
        if kind in ("Linear", "Conv2d"):
            layers.append(_layer_of_torch(module))
        elif kind == "BatchNorm2d":
            _fold(layers[-1], module)
        elif kind in ("ReLU", "ReLU6"):
            layers[-1].activation = kind.lower()
        elif kind == "Add":
            activation = type(module.act).__name__
            activation = None if activation == "Identity" else activation.lower()
            layers.append(Sum(from_torch(module.body), from_torch(module.skip), activation))
        elif kind == "AdaptiveAvgPool2d":
            layers.append(Mean())
        elif kind == "Sequential":
            layers += from_torch(module)
        elif kind not in ("Identity", "Flatten"):
            raise NotImplementedError(f"a layer {kind}")
    return layers


def _layer_of_torch(module):
    w = module.weight.detach().numpy()
    b = np.zeros(len(w), np.float32) if module.bias is None else module.bias.detach().numpy()
    if w.ndim == 2:
        return Layer(w, b)
    return Layer(w, b, module.stride[0], module.groups)


def _fold(layer, norm):
    mean, variance, gamma, beta = (
        array.detach().numpy() for array in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    factor = gamma / np.sqrt(variance + np.float32(norm.eps))
    layer.w = layer.w * factor.reshape(-1, 1, 1, 1)
    layer.b = (layer.b - mean) * factor + beta
