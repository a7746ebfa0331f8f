"""Memory layout of N, C, H, W arrays: convolutions give them channels last, and what follows keeps that."""

from __future__ import annotations


def to_channels_last(x):
    """Return the view N, H, W, C of an N, C, H, W array."""
    return x.transpose(0, 2, 3, 1)


def to_channels_first(x):
    """Return the view N, C, H, W of an N, H, W, C array."""
    return x.transpose(0, 3, 1, 2)


def is_channels_last(x):
    """Whether an N, C, H, W array lies in memory as a C-contiguous N, H, W, C array."""
    return x.ndim == 4 and to_channels_last(x).flags.c_contiguous


def in_memory_order(function, *arrays):
    """Call an elementwise function that reads and gives C-contiguous arrays; a channels-last result for such arrays."""
    if not is_channels_last(arrays[-1]):
        return function(*arrays)
    return to_channels_first(function(*(to_channels_last(x) for x in arrays)))


def swap_channels(w, groups):
    """Return weights (O, C / groups, ...) as (C, O / groups, ...), and the reverse; a view if there are no groups."""
    split = w.reshape(groups, w.shape[0] // groups, *w.shape[1:]).swapaxes(1, 2)
    return split.reshape(-1, *split.shape[2:])
