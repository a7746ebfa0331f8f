"""Threads: the same bits for any number of them, from several Python threads, and after a fork."""

import os
import threading
import warnings

import numpy as np
import pytest

import ndquant as nq
from ndquant import _core

from . import cases
from .cases import assert_same_bits

SHAPES = (((300_007,), None), ((7, 40_000), 0), ((70_001, 5), 1), ((20, 3, 5_000), 1))
SPEC = nq.QuantSpec(8, signed=False, symmetric=False)

#: (shape, specs) whose parts of an array do not end where chunks of threads do.
OTHERS = (
    ((77, 4_001), nq.QuantSpec(16, axis=0, group_size=7)),
    ((110, 3_000), nq.QuantSpec(32, symmetric=False, group_size=1_000)),
    ((300_007,), nq.QuantSpec(12, signed=False, zero_aligned=False)),
)


def everything(rng, shape, spec, dtype):
    """Return the results of all functions on the same random data."""
    qp, axis = cases.random_qparams(rng, spec, shape), spec.axis
    x, dy = (rng.standard_normal(shape).astype(dtype) * 3 for _ in range(2))
    results = [nq.quantize(x, qp), nq.fake_quantize(x, qp), nq.fake_quantize_backward(dy, x, qp)]
    results += nq.fake_quantize_with_grad(x, dy, qp)
    results += nq.fake_quantize_learnable_backward(dy, x, qp)
    results.append(nq.dequantize(results[0], qp))
    results += [np.asarray(a) for a in _core.minmax(x, axis, spec.group_size)]
    results.append(nq.requantize(results[0], qp, nq.QParams(0.1, 3, SPEC)))
    return results


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("shape, spec", [(shape, cases.with_axis(SPEC, axis)) for shape, axis in SHAPES] + [*OTHERS])
def test_any_number_of_threads_gives_the_same_bits(backend, threads, shape, spec, dtype):
    expected = None
    for n in (1, 2, 4, 2):
        threads(n)
        found = everything(np.random.default_rng(3), shape, spec, dtype)
        expected = expected or found
        for a, b in zip(found, expected, strict=True):
            assert_same_bits(a, b)


def test_backends_add_up_in_the_same_order():
    rng = np.random.default_rng(5)
    x, dy = rng.standard_normal(100_001) * 1e3, rng.standard_normal(100_001) * 10.0 ** rng.integers(-20, 20, 100_001)
    qp = nq.QParams(7.0, 0, nq.QuantSpec(8))
    found = set()
    for name in _core.available_backends():
        with nq.backend(name):
            _, dscale, dzp = nq.fake_quantize_learnable_backward(dy, x, qp)
            found.add((dscale.tobytes(), dzp.tobytes()))
    assert len(found) == 1


def test_several_python_threads_at_once(threads):
    threads(2)
    expected = everything(np.random.default_rng(7), (200_003,), SPEC, np.float32)
    failures = []

    def work():
        try:
            for _ in range(10):
                found = everything(np.random.default_rng(7), (200_003,), SPEC, np.float32)
                for a, b in zip(found, expected, strict=True):
                    assert_same_bits(a, b)
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for i in range(40):
        nq.set_num_threads(1 + i % 3)
    for worker in workers:
        worker.join()
    assert not failures


def fork_and_wait(child):
    """Run `child` in a forked process; returns its exit status and the warnings that the fork gave."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                child()
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), [str(w.message) for w in seen]


def test_a_forked_child_computes_and_so_does_the_parent(threads):
    threads(4)
    shape = (300_000,)
    expected = everything(np.random.default_rng(9), shape, SPEC, np.float32)

    def child():
        for a, b in zip(everything(np.random.default_rng(9), shape, SPEC, np.float32), expected, strict=True):
            assert_same_bits(a, b)

    for _ in range(3):
        assert fork_and_wait(child) == (0, [])
        child()


def test_fork_while_another_thread_computes(threads):
    threads(2)
    stop = threading.Event()
    x, qp = np.ones(200_000, np.float32), nq.QParams(0.5, 0, nq.QuantSpec(8))

    def compute():
        while not stop.is_set():
            nq.quantize(x, qp)

    worker = threading.Thread(target=compute)
    worker.start()
    try:
        for _ in range(10):
            status, _ = fork_and_wait(lambda: nq.quantize(x, qp))
            assert status == 0
    finally:
        stop.set()
        worker.join()


def test_the_number_of_threads():
    before = nq.get_num_threads()
    nq.set_num_threads(3)
    assert nq.get_num_threads() == 3
    for bad in (0, -1, 257, 10**30):
        with pytest.raises(ValueError, match="n: must be 1 to 256, got"):
            nq.set_num_threads(bad)
    for bad in (1.5, "2", None, True):
        with pytest.raises(TypeError, match="n: expected int"):
            nq.set_num_threads(bad)
    assert nq.get_num_threads() == 3
    nq.set_num_threads(before)


def test_backends_are_chosen_by_name():
    before = _core.get_backend()
    with nq.backend("portable"):
        assert _core.get_backend() == "portable"
    assert _core.get_backend() == before
    with pytest.raises(KeyError), nq.backend("portable"):
        raise KeyError
    assert _core.get_backend() == before
    with pytest.raises(ValueError, match="no backend 'sse9' on this machine, it has"), nq.backend("sse9"):
        pass
    with pytest.raises(TypeError, match="name: expected str"), nq.backend(3):
        pass
    for name in set(_core.all_backends()) - set(_core.available_backends()):
        with pytest.raises(ValueError, match="no backend"):
            _core.set_backend(name)
