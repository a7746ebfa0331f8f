"""What a converted network is made of, and the proof that it computes what was trained."""

from .clipping import ClipErrors, clip_errors
from .table import Report, report
from .verify import Verification, verify

__all__ = ["ClipErrors", "Report", "Verification", "clip_errors", "report", "verify"]
