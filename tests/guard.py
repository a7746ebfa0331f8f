"""Arrays that end, or begin, at a page that may not be touched: one byte too far ends the process."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

PAGE = mmap.PAGESIZE
PROT_NONE = 0
_libc = ctypes.CDLL(None, use_errno=True)


def guarded(array, side="end"):
    """Copy `array` to the end, or the beginning, of memory between two pages without access."""
    array = np.ascontiguousarray(array)
    room = -(-array.nbytes // PAGE) * PAGE
    whole = np.frombuffer(mmap.mmap(-1, room + 2 * PAGE), np.uint8)
    first = PAGE if side == "begin" else PAGE + room - array.nbytes
    copy = whole[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    for page in (0, PAGE + room):
        if _libc.mprotect(ctypes.c_void_p(whole.ctypes.data + page), PAGE, PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
    return copy
