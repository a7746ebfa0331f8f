"""Layers, losses, optimizers and batches for networks in NumPy, with PyTorch's names."""

from ..graph.module import Module, Parameter
from .batches import batches
from .layers import Flatten, Linear, ReLU, Sequential, relu
from .losses import cross_entropy
from .optimizers import SGD, Adam

__all__ = [
    "SGD",
    "Adam",
    "Flatten",
    "Linear",
    "Module",
    "Parameter",
    "ReLU",
    "Sequential",
    "batches",
    "cross_entropy",
    "relu",
]
