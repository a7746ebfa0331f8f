"""Layers, losses, optimizers and batches for networks in NumPy, with PyTorch's names."""

from ..graph.module import Buffer, Module, Parameter
from .activations import Hardswish, LeakyReLU, ReLU, ReLU6, Sigmoid, Tanh
from .batches import batches
from .functional import (
    adaptive_avg_pool2d,
    avg_pool2d,
    flatten,
    hardswish,
    leaky_relu,
    max_pool2d,
    relu,
    relu6,
    sigmoid,
    tanh,
)
from .layers import Conv2d, Dropout, Flatten, Identity, Linear, Sequential
from .losses import cross_entropy
from .normalization import BatchNorm1d, BatchNorm2d
from .optimizers import SGD, Adam
from .pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from .stubs import DeQuantStub, QuantStub

__all__ = [
    "SGD",
    "Adam",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Buffer",
    "Conv2d",
    "DeQuantStub",
    "Dropout",
    "Flatten",
    "Hardswish",
    "Identity",
    "LeakyReLU",
    "Linear",
    "MaxPool2d",
    "Module",
    "Parameter",
    "QuantStub",
    "ReLU",
    "ReLU6",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "batches",
    "cross_entropy",
    "flatten",
    "hardswish",
    "leaky_relu",
    "max_pool2d",
    "relu",
    "relu6",
    "sigmoid",
    "tanh",
]
