"""Axes to plot on."""

from __future__ import annotations


def new_axes():
    """Return matplotlib axes of their own; raise ImportError where matplotlib is not installed."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError("plot needs matplotlib: pip install matplotlib (or ndquant[notebooks])") from None
    return plt.subplots()[1]
