"""Times of calls that take turns in short slices of one run, so that a busy machine slows all of them alike."""

from __future__ import annotations

import contextlib
import time
from itertools import repeat

import numpy as np

#: What calls are timed by. On a machine that does something else besides, `time.process_time`: it adds up all threads
#: of this process, so it is for one.
clock = time.perf_counter

#: Arrays start on a cache line: where a copy is not aligned to a vector, some processors copy ten times slower.
ALIGNMENT = 64


def empty(shape, dtype):
    """Return an array that starts on a cache line and whose pages exist already."""
    count = int(np.prod(shape))
    memory = np.ones(count * np.dtype(dtype).itemsize + ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    return memory[first : memory.size - ALIGNMENT + first].view(dtype).reshape(shape)


def aligned(array):
    """Return a copy of `array` that starts on a cache line."""
    copy = empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def seconds_per_call(call, count):
    start = clock()
    for _ in repeat(None, count):
        call()
    return (clock() - start) / count


def samples(calls, rounds=21, slice_seconds=1e-3, around=None):
    """Return seconds per call, an array of shape (rounds, calls); every second round goes backwards.

    `around` has a function for each call that returns the context manager of its slices.
    """
    around = around or [contextlib.nullcontext] * len(calls)
    counts = [_calls_of_a_slice(*pair, slice_seconds) for pair in zip(calls, around, strict=True)]
    times = np.empty((rounds, len(calls)))
    for number, row in enumerate(times):
        for i in list(range(len(calls)))[:: -1 if number % 2 else 1]:
            with around[i]():
                calls[i]()
                row[i] = seconds_per_call(calls[i], counts[i])
    return times


def _calls_of_a_slice(call, context, slice_seconds):
    with context():
        return max(1, int(slice_seconds / min(seconds_per_call(call, 1) for _ in range(4))))


def ratios(times, base):
    """Return the median over the rounds of each candidate's time divided by that of the candidate `base`."""
    return np.median(times / times[:, base : base + 1], axis=0)
