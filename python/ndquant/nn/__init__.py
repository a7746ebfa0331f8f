"""Layers, losses, optimizers and batches for networks in NumPy, with PyTorch's names."""

from ..graph.module import Buffer, Module, Parameter
from .activations import GELU, Hardswish, LeakyReLU, ReLU, ReLU6, Sigmoid, Softmax, Tanh
from .attention import MultiheadAttention
from .batches import batches
from .convolution import Conv1d, ConvTranspose2d
from .embedding import Embedding
from .functional import (
    adaptive_avg_pool2d,
    avg_pool2d,
    flatten,
    gelu,
    hardswish,
    leaky_relu,
    max_pool2d,
    relu,
    relu6,
    sigmoid,
    softmax,
    tanh,
)
from .layer_norm import LayerNorm
from .layers import Conv2d, Dropout, Flatten, Identity, Linear, Sequential
from .losses import cross_entropy
from .normalization import BatchNorm1d, BatchNorm2d
from .optimizers import SGD, Adam
from .pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from .recurrent import GRU, LSTM
from .stubs import DeQuantStub, QuantStub

__all__ = [
    "GELU",
    "GRU",
    "LSTM",
    "SGD",
    "Adam",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Buffer",
    "Conv1d",
    "Conv2d",
    "ConvTranspose2d",
    "DeQuantStub",
    "Dropout",
    "Embedding",
    "Flatten",
    "Hardswish",
    "Identity",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "MaxPool2d",
    "Module",
    "MultiheadAttention",
    "Parameter",
    "QuantStub",
    "ReLU",
    "ReLU6",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "batches",
    "cross_entropy",
    "flatten",
    "gelu",
    "hardswish",
    "leaky_relu",
    "max_pool2d",
    "relu",
    "relu6",
    "sigmoid",
    "softmax",
    "tanh",
]
