"""What a converted network is made of, which layer hurts, and the proof that it computes what was trained."""

from .auto_bits import AutoBits, Choice, auto_bits
from .clipping import ClipErrors, clip_errors
from .explain import explain
from .plots import plot_bits, plot_distribution, plot_weights
from .sensitivity import Sensitivity, sensitivity
from .table import Report, report
from .verify import Verification, verify

__all__ = [
    "AutoBits",
    "Choice",
    "ClipErrors",
    "Report",
    "Sensitivity",
    "Verification",
    "auto_bits",
    "clip_errors",
    "explain",
    "plot_bits",
    "plot_distribution",
    "plot_weights",
    "report",
    "sensitivity",
    "verify",
]
