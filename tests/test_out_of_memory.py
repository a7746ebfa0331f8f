"""Each allocation of each call fails in turn: that is a MemoryError, leaves nothing behind and no half-written output.

Python's allocations fail by `_testcapi`; those of the core by a library that is preloaded in a process of its own.
"""

import ctypes
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import ndquant as nq

from .calls import GOOD, OUTPUTS
from .test_leaks import allocated

SOURCE = Path(__file__).parent / "c" / "fail_alloc.c"


def contents():
    return [array.tobytes() for array in OUTPUTS]


def fail_each(call, fail_at, limit=400):
    """Let allocation 0, 1, ... of `call` fail until it succeeds; return how many failed."""
    before = contents()
    call()
    after = contents()
    for n in range(limit):
        for array, old in zip(OUTPUTS, before, strict=True):
            array.reshape(-1).view(np.uint8)[:] = np.frombuffer(old, np.uint8)
        fail_at(n)
        try:
            call()
        except MemoryError:
            fail_at(-1)
            for found, *allowed in zip(contents(), before, after, strict=True):
                assert found in allowed, f"half-written after allocation {n} failed"
        else:
            fail_at(-1)
            assert contents() == after
            return n
    raise AssertionError("never succeeded")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of a generator that is abandoned
@pytest.mark.parametrize("name", sorted(GOOD.keys() - {"choose_qparams"}))  # ufunc.reduce forgets to say MemoryError
def test_pythons_allocations(name):
    testcapi = pytest.importorskip("_testcapi")

    def fail_at(n):
        if n < 0:
            testcapi.remove_mem_hooks()
        else:
            testcapi.set_nomemory(n, n + 1)

    fail_each(GOOD[name], fail_at)


#: Calls that allocate nothing in the core: it works between NumPy's arrays.
WITHOUT_BUFFERS = (
    "quantize dequantize requantize fake_quantize backward with_grad relu_backward sgd_step adam_step histogram".split()
)
WITHOUT_BUFFERS += "scale_zero_point quantize_bias PackedMatrix backend backends threads stream_from lookup".split()
WITHOUT_BUFFERS += "resize_nearest add multiply layer_norm pack_codes unpack_codes PackedGroups".split()
WITHOUT_BUFFERS += "softmax_f32 layer_norm_f32 gelu_f32".split()


def in_a_new_thread(call):
    """Run `call` where no buffer of an earlier call is left: they belong to threads."""

    def run():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(call).result()

    return run


def fail_in_the_core():
    """In a process that has the library: fail each allocation of each call, and print how many each makes."""
    library = ctypes.CDLL(None)
    nq.set_num_threads(1)
    allocated()
    for name, call in ((name, in_a_new_thread(call)) for name, call in GOOD.items()):
        failed = fail_each(call, library.fail_alloc_at)
        assert any(bytes_left(call, library.fail_alloc_at) < 640 for _ in range(5)), f"{name}: memory left behind"
        print(f"{name}: {failed}")


def bytes_left(call, fail_at):
    """Return how much memory the C library has given out and not got back: if some leaks, 40 times 64 bytes or more."""
    before = allocated()
    for _ in range(40):
        fail_each(call, fail_at)
    return allocated() - before


def without_threads():
    """In a process that has the library: no thread can be started."""
    nq.set_num_threads(4)
    x, qp = np.random.default_rng(0).standard_normal(300_000), nq.QParams(0.1, 0, nq.QuantSpec())
    expected = nq.fake_quantize(x, qp)
    nq.set_num_threads(2)
    ctypes.CDLL(None).fail_threads(True)
    assert nq.fake_quantize(x, qp).tobytes() == expected.tobytes()
    print("same bits")


@pytest.fixture(scope="session")
def preloaded(tmp_path_factory):
    """Run a function of this file in a process where allocations can be made to fail; return the lines it prints."""
    library = tmp_path_factory.mktemp("fail_alloc") / "fail_alloc.so"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler and a linker that preloads: Linux")
    if "LD_PRELOAD" in os.environ:
        pytest.skip("something else is preloaded, a sanitizer")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", SOURCE, "-o", library, "-ldl"], check=True)

    def run(function):
        code = f"from tests import test_out_of_memory as t; t.{function.__name__}()"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "LD_PRELOAD": str(library), "MALLOC_ARENA_MAX": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_allocations_of_the_core(preloaded):
    counts = dict(line.rsplit(": ", 1) for line in preloaded(fail_in_the_core))
    assert set(counts) == set(GOOD)
    assert {name.split()[0] for name, count in counts.items() if count == "0"} <= set(WITHOUT_BUFFERS)


def test_no_thread_can_be_started(preloaded):
    assert preloaded(without_threads) == ["same bits"]
