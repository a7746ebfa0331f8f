"""Axes to plot on, and the colours of all plots, which are told apart in grey, too."""

from __future__ import annotations

#: Of floats, of what is quantized, and of marks.
FLOAT, QUANTIZED, MARK = "#222222", "#9ecae1", "#b03a2e"

#: Of lines, from dark to light, each with a dash and a mark of its own.
LINES = (
    ("#222222", "o-"),
    ("#2171b5", "s--"),
    ("#b03a2e", "^:"),
    ("#6a9f58", "D-."),
    ("#9e9ac8", "v-"),
    ("#c7a76c", "P--"),
)


def new_axes(width=0, height=0):
    """Return matplotlib axes of their own, in a figure of at least so many inches that shows all of their labels.

    Raise ImportError where matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError("plot needs matplotlib: pip install matplotlib (or ndquant[notebooks])") from None
    size = max(width, 6.4), max(height, 4.8)
    return plt.subplots(figsize=size, layout="constrained")[1]
