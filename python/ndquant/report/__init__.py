"""What a converted network is made of, which layer hurts, and the proof that it computes what was trained."""

from .clipping import ClipErrors, clip_errors
from .explain import explain
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
    "report",
    "sensitivity",
    "verify",
]
