"""Figures of benchmarks that take long, kept in a JSON file one by one and printed from there."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np


class Results:
    """Figures by column, row and seed: what is in the file is not measured again."""

    def __init__(self, path):
        self.path = Path(path)
        self.figures = json.loads(self.path.read_text()) if self.path.exists() else {}

    def missing(self, tasks, seed, pattern="*"):
        """Return the (column, row) of `tasks` without a figure for this seed, if "column row" matches a pattern."""
        return [key for key in tasks if fnmatchcase(" ".join(key), pattern) and str(seed) not in self._seeds(*key)]

    def add(self, column, row, seed, figure):
        """Keep a number or several."""
        self.figures.setdefault(column, {}).setdefault(row, {})[str(seed)] = figure
        self.path.write_text(json.dumps(self.figures, indent=1) + "\n")

    def of(self, column, row):
        """Return the figures of all seeds of a column, (seeds,) or (seeds, figures); empty if one is missing."""
        found = self._seeds(column, row)
        seeds = {seed for measured in self.figures.get(column, {}).values() for seed in measured}
        return np.array([found[seed] for seed in sorted(seeds)] if found.keys() == seeds else [])

    def _seeds(self, column, row):
        return self.figures.get(column, {}).get(row, {})


def with_range(values, digits):
    """Return the mean as text, with the range of several values; without any, a dash."""
    if not len(values):
        return "-"
    ends = f" ({np.min(values):.{digits}f} to {np.max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{ends}"


def markdown(columns, rows):
    """Return a table of the rows, tuples of cells, in which something was measured."""
    measured = [cells for cells in rows if set(cells[1:]) != {"-"}]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [columns, ["---"] * len(columns), *measured])
