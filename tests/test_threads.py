"""Threads: the same bits for any number of them, from several Python threads, and after a fork."""

import multiprocessing
import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import ndquant as nq
from ndquant import _core, functional

from . import cases
from .cases import assert_same_bits
from .networks import inputs, quantized

SHAPES = (((300_007,), None), ((7, 40_000), 0), ((70_001, 5), 1), ((20, 3, 5_000), 1))
SPEC = nq.QuantSpec(8, signed=False, symmetric=False)
QP = nq.QParams(0.05, 0, nq.QuantSpec())

#: (shape, specs) whose parts of an array do not end where chunks of threads do.
OTHERS = (
    ((77, 4_001), nq.QuantSpec(16, axis=0, group_size=7)),
    ((110, 3_000), nq.QuantSpec(32, symmetric=False, group_size=1_000)),
    ((300_007,), nq.QuantSpec(12, signed=False, zero_aligned=False)),
)


def everything(rng, shape, spec, dtype):
    """Return the results of all functions of arrays on the same random data."""
    qp, axis = cases.random_qparams(rng, spec, shape), spec.axis
    x, dy = (rng.standard_normal(shape).astype(dtype) * 3 for _ in range(2))
    results = [nq.quantize(x, qp), nq.fake_quantize(x, qp), nq.fake_quantize_backward(dy, x, qp)]
    results += nq.fake_quantize_with_grad(x, dy, qp)
    results += nq.fake_quantize_learnable_backward(dy, x, qp)
    results.append(nq.dequantize(results[0], qp))
    results += [np.asarray(a) for a in _core.minmax(x, axis, spec.group_size)]
    results.append(nq.requantize(results[0], qp, nq.QParams(0.1, 3, SPEC)))
    return results


def layers():
    """Return results of products, convolutions, a plan and the steps of training, on the same random data."""
    rng = np.random.default_rng(11)
    a, b = (rng.integers(-128, 128, shape, np.int8) for shape in ((150, 300), (300, 90)))
    images, kernel = (rng.integers(-128, 128, shape, np.int8) for shape in ((3, 16, 20, 20), (24, 16, 3, 3)))
    x, wide = inputs(200), rng.integers(-128, 128, (2, 80, 80, 66), np.int8).transpose(0, 3, 1, 2)
    results = [nq.matmul_integer(a, b, 3), nq.conv2d_integer(images, kernel, padding=1, x_zero_point=-5)]
    for window in (3, 5):
        taps = nq.PackedWeight(rng.integers(-127, 128, (66, 1, window, window), np.int8), QP)
        results.append(nq.conv2d_requantized(wide, QP, taps, QP, padding=1, groups=66))
    results += [NETWORK(x), functional.matmul_f32(x.T, x), nq.choose_qparams(x, nq.QuantSpec(), "mse").scale]
    w, m, v = (np.ones(70_000, np.float32) for _ in range(3))
    functional.adam_step(w, rng.standard_normal(w.size, np.float32), m, v, 1)
    return [*map(np.asarray, results), w, m, v]


NETWORK = quantized()


def assert_all_same_bits(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("shape, spec", [(shape, cases.with_axis(SPEC, axis)) for shape, axis in SHAPES] + [*OTHERS])
def test_any_number_of_threads_gives_the_same_bits(backend, threads, shape, spec, dtype):
    expected = None
    for n in (1, 2, 4, 2):
        threads(n)
        found = everything(np.random.default_rng(3), shape, spec, dtype)
        expected = expected or found
        assert_all_same_bits(found, expected)


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


def use_everything(_=None):
    return everything(np.random.default_rng(7), (200_003,), SPEC, np.float32) + layers()


def test_eight_python_threads_at_once(threads):
    threads(2)
    expected, failures = use_everything(), []

    def work():
        try:
            for _ in range(4):
                assert_all_same_bits(use_everything(), expected)
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for i in range(40):
        nq.set_num_threads(1 + i % 3)
    for worker in workers:
        worker.join()
    assert not failures


def pools():
    """Executors of the standard library: threads, and processes started in each way there is."""
    yield ThreadPoolExecutor(3)
    for method in multiprocessing.get_all_start_methods():
        yield ProcessPoolExecutor(2, multiprocessing.get_context(method))


@pytest.mark.parametrize("number", range(1 + len(multiprocessing.get_all_start_methods())))
def test_concurrent_futures(threads, number):
    threads(4)
    expected = use_everything()
    with list(pools())[number] as pool:
        for found in pool.map(use_everything, range(6)):
            assert_all_same_bits(found, expected)


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
        assert_all_same_bits(everything(np.random.default_rng(9), shape, SPEC, np.float32), expected)

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


def run(code):
    """Return the words that a Python process without BLAS threads prints."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


TASKS = Path("/proc/self/task")
COUNT_TASKS = """
import os
import numpy as np
import ndquant as nq
from tests.networks import inputs, quantized

def tasks():
    return len(os.listdir("/proc/self/task"))

nq.set_num_threads(4)
qp, network = nq.QParams(0.1, 0, nq.QuantSpec()), quantized()
network(inputs(32))
for n in (0, 1, 64, 4096, 60_000):
    x = np.ones(n, np.float32)
    nq.fake_quantize_with_grad(x, x, qp)
    nq.dequantize(nq.quantize(x, qp), qp)
    nq.fake_quantize_learnable_backward(x, x, qp)
nq.matmul_integer(np.ones((16, 100), np.int8), np.ones((100, 100), np.int8))
small = tasks()
nq.fake_quantize(np.ones(1_000_000, np.float32), qp)
print(small, tasks())
"""


@pytest.mark.skipif(not TASKS.exists(), reason="only Linux lists the threads of a process in /proc")
def test_small_work_starts_no_threads():
    """The workers are started when work is first worth sharing: a process that does only small work has none."""
    assert run(COUNT_TASKS) == ["1", "4"]


WAKE = """
import time
from pathlib import Path
import numpy as np
import ndquant as nq

def times_slept():
    status = [Path(task, "status").read_text() for task in Path("/proc/self/task").iterdir()]
    return sum(int(text.split("voluntary_ctxt_switches:")[1].split()[0]) for text in status) - own()

def own():
    return int(Path("/proc/thread-self/status").read_text().split("voluntary_ctxt_switches:")[1].split()[0])

nq.set_num_threads(2)
qp, x = nq.QParams(0.1, 0, nq.QuantSpec()), np.ones(1_000_000, np.float32)
nq.fake_quantize(x, qp)
time.sleep(0.2)
before = times_slept()
for _ in range(2000):
    nq.fake_quantize(x[:4096], qp)
small = times_slept() - before
nq.fake_quantize(x, qp)
time.sleep(0.2)
print(small, times_slept() - before - small)
"""


@pytest.mark.skipif(not TASKS.exists(), reason="only Linux counts in /proc how often a thread slept")
def test_small_work_wakes_no_sleeping_thread():
    """A worker that wakes goes to sleep again, which Linux counts."""
    small, large = map(int, run(WAKE))
    assert small == 0 < large
