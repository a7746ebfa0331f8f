"""What a converted network is made of, and the proof that it computes what was trained."""

from .table import Report, report
from .verify import Verification, verify

__all__ = ["Report", "Verification", "report", "verify"]
