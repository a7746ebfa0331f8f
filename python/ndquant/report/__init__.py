"""What a converted network is made of, which layer hurts, and the proof that it computes what was trained."""

from .clipping import ClipErrors, clip_errors
from .explain import explain
from .plots import plot_bits, plot_distribution, plot_weights
from .sensitivity import Sensitivity, sensitivity
from .table import Report, report
from .verify import Verification, verify

__all__ = [
    "ClipErrors",
    "Report",
    "Sensitivity",
    "Verification",
    "clip_errors",
    "explain",
    "plot_bits",
    "plot_distribution",
    "plot_weights",
    "report",
    "sensitivity",
    "verify",
]
