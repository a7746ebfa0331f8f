"""Memory and references: 500 calls of everything, good and bad, leave as much behind as none.

Blocks are counted by Python, array data by tracemalloc, what the core allocates by the C library; references to the
arguments stay as they were.
"""

import ctypes
import sys
import tracemalloc

import pytest

from ndquant import _core

from .calls import ARRAYS, BAD, GOOD


class Mallinfo(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


_libc = ctypes.CDLL(None)
GLIBC = hasattr(_libc, "mallinfo2")
if GLIBC:
    _libc.mallinfo2.restype = Mallinfo


def allocated():
    """Return how many bytes the C library has given out; 0 if it does not say."""
    info = _libc.mallinfo2() if GLIBC else Mallinfo()
    return info.uordblks + info.hblkhd


def repeat(call, measure):
    """Return by how much 500 calls raise each of the numbers that `measure` returns."""
    call()
    before = measure()
    for _ in range(500):
        call()
    return [after - start for after, start in zip(measure(), before, strict=True)]


def growth(call):
    """Return how many blocks, bytes of the C library, references and traced bytes 500 calls leave behind."""
    for _ in range(20):
        call()
    found = repeat(call, lambda: [sys.getallocatedblocks(), allocated(), *map(sys.getrefcount, ARRAYS)])
    tracemalloc.start()  # whose own memory comes from the C library
    try:
        return *found[:2], sum(map(abs, found[2:])), *repeat(call, lambda: tracemalloc.get_traced_memory()[:1])
    finally:
        tracemalloc.stop()


def check(call):
    for _ in range(3):
        blocks, memory, references, traced = growth(call)
        assert references == 0
        if blocks < 100 and memory < 500 * 16 and traced < 5000:
            return
    raise AssertionError(f"500 calls leave {blocks} blocks, {memory} bytes of the C library's, {traced} of Python's")


@pytest.mark.parametrize("name", GOOD)
def test_good_calls(name):
    check(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_bad_calls(name):
    def call():
        try:
            BAD[name]()
        except (TypeError, ValueError):
            return
        raise AssertionError("no error")

    check(call)


def malloc():
    _libc.malloc(ctypes.c_size_t(32))


@pytest.mark.parametrize("leak", (lambda kept=[]: kept.append(object()), malloc))
def test_a_leak_would_be_noticed(leak):
    if leak is malloc and not GLIBC:
        pytest.skip("only glibc says how much it has allocated")
    with pytest.raises(AssertionError, match="500 calls leave"):
        check(leak)


FUNCTIONS = {name for name in dir(_core) if type(getattr(_core, name)) is type(len)}
WITHOUT_ARGUMENTS = {"available_backends", "all_backends", "cpu_features"}
WITHOUT_ARGUMENTS |= {"get_backend", "get_num_threads", "get_stream_from"}


@pytest.fixture
def called(monkeypatch):
    """Names of the functions of the core that were called."""
    names = set()

    def recorded(name, function):
        return lambda *args: names.add(name) or function(*args)

    for name in FUNCTIONS:
        monkeypatch.setattr(_core, name, recorded(name, getattr(_core, name)))
    return names


def test_every_function_of_the_core_has_a_good_call(called):
    for call in GOOD.values():
        call()
    assert called == FUNCTIONS


def test_every_function_of_the_core_has_a_bad_call(called):
    for call in BAD.values():
        with pytest.raises((TypeError, ValueError)):
            call()
    assert called | WITHOUT_ARGUMENTS == FUNCTIONS
