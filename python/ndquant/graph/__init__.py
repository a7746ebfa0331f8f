"""Modules, tracing, graphs, and the passes from graph to graph."""

from .fold_batchnorm import fold_batchnorm
from .fuse import fuse
from .graph import Graph, Node
from .insert_quantizers import insert_quantizers
from .lower import lower
from .module import Module, Parameter
from .region import find_region
from .split_attention import split_attention
from .tracing import apply

__all__ = [
    "Graph",
    "Module",
    "Node",
    "Parameter",
    "apply",
    "find_region",
    "fold_batchnorm",
    "fuse",
    "insert_quantizers",
    "lower",
    "split_attention",
]
