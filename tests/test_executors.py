"""Calibration, evaluation and sensitivity by executors: the same bits, errors that name the batch."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

import ndquant as nq
from ndquant import nn
from ndquant.workflows import executors
from ndquant.workflows.executors import UNDER_WAY

from .networks import inputs, mlp

METHODS = ("minmax", "moving_average", "mse", "percentile", "l2", "entropy", "cross_entropy")


@pytest.fixture(scope="module")
def pool():
    """Two processes that begin anew, as those on another machine do."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def run_and_record(folder, function, *arguments):
    """Leave the number of this process in a folder, and give the other one time to take some work."""
    open(os.path.join(folder, str(os.getpid())), "w").close()
    time.sleep(0.05)
    return function(*arguments)


class Recorded:
    """An executor that shows which processes worked."""

    def __init__(self, pool, folder):
        self.pool, self.folder = pool, folder

    def submit(self, function, *arguments):
        return self.pool.submit(run_and_record, str(self.folder), function, *arguments)


class Reversed:
    """An executor that works on what it was given last, when it is asked for the first result."""

    def __init__(self):
        self.waiting, self.most = [], 0

    def submit(self, function, *arguments):
        future = Future()
        future.result = lambda timeout=None: self.finish() or Future.result(future)
        self.waiting.append((future, function, arguments))
        self.most = max(self.most, len(self.waiting))
        return future

    def finish(self):
        while self.waiting:
            future, function, arguments = self.waiting.pop()
            if not future.done():
                future.set_result(function(*arguments))


class OnlyMap:
    """What has `map` alone, as a pool of multiprocessing."""

    def map(self, function, items):
        return [function(item) for item in list(items)]


def batches(count=5, size=40):
    return [inputs(size + i, rng=i) for i in range(count)]


def config(method):
    activation = nq.Quantize(nq.QuantSpec(signed=False, symmetric=False), method)
    return nq.QConfig(nq.Quantize(nq.QuantSpec(axis=0)), activation)


def ranges(prepared):
    return {name: q.qparams for name, q in prepared.quantizers() if q.has_seen_data}


def calibrated(executor, method="mse", data=None, model=None):
    data = batches() if data is None else data
    prepared = nq.prepare(model or mlp(), data[0], config(method))
    return ranges(nq.calibrate(prepared, data, executor=executor))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [Reversed, OnlyMap, lambda: ThreadPoolExecutor(3)], ids=["reversed", "map", "threads"])
def test_any_order_gives_the_bits_of_one_process(method, make):
    assert calibrated(make(), method) == calibrated(None, method)


@pytest.mark.parametrize("method", METHODS)
def test_what_was_seen_before_counts_and_comes_first(method):
    def twice(executor):
        prepared = nq.calibrate(nq.prepare(mlp(), batches()[0], config(method)), batches(3))
        return ranges(nq.calibrate(prepared, [x * 2 for x in batches(3)], executor=executor))

    assert twice(Reversed()) == twice(None)


def test_two_processes(pool, tmp_path):
    executor = Recorded(pool, tmp_path)
    assert calibrated(executor) == calibrated(None)
    workers = {int(name) for name in os.listdir(tmp_path)}
    assert len(workers) == 2 and os.getpid() not in workers


def test_sequences_and_rows_of_logits():
    model = nn.Sequential(nn.Linear(6, 8, rng=0), nn.ReLU(), nn.Linear(8, 3, rng=1))
    data = [x.reshape(-1, 4, 6) for x in batches(4, 64)[:1] * 3]
    assert calibrated(Reversed(), "cross_entropy", data, model) == calibrated(None, "cross_entropy", data, model)


def test_memory_is_bounded_whatever_the_number_of_batches():
    executor, taken = Reversed(), []

    def endless():
        for i in range(100):
            taken.append(i)
            yield inputs(8, rng=i)

    nq.calibrate(nq.prepare(mlp(), inputs(), config("minmax")), endless(), executor=executor)
    assert len(taken) == 100 and executor.most <= UNDER_WAY


class TestFailures:
    def prepared(self):
        return nq.prepare(mlp(), batches()[0], config("moving_average"))

    def check(self, executor, data, message):
        prepared = self.prepared()
        with pytest.raises(nq.QuantizationError, match=message):
            nq.calibrate(prepared, data, executor=executor)
        assert not any(quantizer.has_seen_data for _, quantizer in prepared.quantizers())

    def test_a_bad_batch_is_named_and_nothing_is_taken_in(self, pool):
        data = batches()
        data[3][5, 2] = np.nan
        for executor in (pool, Reversed(), OnlyMap()):
            self.check(executor, data, r"batch 3: input.quantizer: has 1 NaN")

    def test_a_worker_that_dies(self, monkeypatch):
        monkeypatch.setattr(executors, "_observe", die_in_batch_2)
        with ProcessPoolExecutor(1) as pool:
            self.check(pool, batches(), "^batch 2: the executor lost a worker.*BrokenProcessPool")

    def test_all_that_were_under_way_when_a_worker_died_are_named(self, monkeypatch):
        monkeypatch.setattr(executors, "_observe", die_in_batch_2)
        with ProcessPoolExecutor(2) as pool:
            self.check(pool, batches(9), "^batches 2 and 3: the executor lost a worker.*BrokenProcessPool")

    def test_a_worker_without_marks_dies(self):
        with ProcessPoolExecutor(1) as pool:
            self.check(Dying(pool), batches(), "^batches [0-2] to 4: the executor lost a worker.*BrokenProcessPool")

    def test_a_worker_of_a_cluster_that_dies(self):
        """A scheduler says which of its futures it gave up, and has no folder in common with its workers."""

        class Cluster(Reversed):
            def submit(self, function, folder, number, *arguments):
                future = super().submit(function, "/no/folder", number, *arguments)
                if number == 2:
                    future.set_exception(OSError("KilledWorker"))
                return future

        self.check(Cluster(), batches(), "^batch 2: the executor lost a worker.*OSError: KilledWorker")

    def test_batches_that_go_on_after_an_error_hide_nothing(self):
        """What other threads still work on leaves marks while their folder goes."""
        data = [*batches(2), np.zeros((3, 7)), *batches(30)]
        with ThreadPoolExecutor(8) as pool:
            for _ in range(5):
                self.check(pool, data, "batch 2: input: expected shape")

    def test_an_executor_that_is_shut_down_meanwhile(self):
        pool = ThreadPoolExecutor(1)

        def until_shut_down():
            yield from batches(3)
            pool.shutdown()
            yield from batches(3)

        self.check(pool, until_shut_down(), "^batch 3: the executor lost a worker or takes no work: RuntimeError")

    def test_an_executor_that_was_shut_down(self):
        pool = ThreadPoolExecutor(1)
        pool.shutdown()
        self.check(pool, batches(), "batch 0: the executor lost a worker or takes no work: RuntimeError")

    def test_an_executor_that_raises(self):
        class Raising:
            def submit(self, *arguments):
                raise OSError("no route to host")

        self.check(Raising(), batches(), "batch 0: .*OSError: no route to host")

    def test_an_order_that_matters_is_refused(self):
        prepared = nq.prepare(mlp(), batches()[0], "fbgemm")
        with pytest.raises(
            nq.QuantizationError, match="depends on the order of batches.*calibrate without an executor"
        ):
            nq.calibrate(prepared, batches(), executor=Reversed())

    def test_what_is_no_executor(self):
        with pytest.raises(TypeError, match="executor must have submit or map"):
            nq.calibrate(self.prepared(), batches(), executor=4)

    def test_a_shape_that_does_not_fit_and_labels(self):
        self.check(Reversed(), [*batches(2), np.zeros((3, 7))], "batch 2: input: expected shape")
        with pytest.raises(ValueError, match="batches: item 0 holds 2 arrays"):
            nq.calibrate(self.prepared(), [(batches()[0], np.zeros(3))], executor=Reversed())
        with pytest.raises(ValueError, match="at least one batch"):
            nq.calibrate(self.prepared(), [], executor=Reversed())


_observe = executors._observe


def die_in_batch_2(graph, number, examples, inputs):
    """Observe as workers do, but end the process in batch 2, while batch 3 takes long, if another one works on it."""
    time.sleep({2: 0.3, 3: 20}.get(number, 0))
    return os._exit(1) if number == 2 else _observe(graph, number, examples, inputs)


class Dying:
    """An executor whose process ends with the third call, before it leaves a mark."""

    def __init__(self, pool):
        self.pool, self.count = pool, 0

    def submit(self, function, *arguments):
        self.count += 1
        return self.pool.submit(os._exit, 1) if self.count == 3 else self.pool.submit(function, *arguments)


def test_the_pool_is_broken_as_the_test_above_thinks():
    with ProcessPoolExecutor(1) as pool, pytest.raises(BrokenProcessPool):
        pool.submit(os._exit, 1).result()


class TestEvaluate:
    data = [(x, np.arange(len(x)) % 4) for x in batches()]

    @pytest.mark.parametrize(
        "make", [mlp, lambda: nq.quantize_static(mlp(), batches()), lambda: nq.quantize_dynamic(mlp())]
    )
    def test_it_counts_the_same(self, pool, make):
        model = make()
        assert nq.evaluate(model, self.data, executor=pool) == nq.evaluate(model, self.data)
        assert nq.evaluate(model, self.data, executor=OnlyMap()) == nq.evaluate(model, self.data)

    def test_errors_name_the_batch(self):
        data = [*self.data, (batches()[0], np.zeros(3))]
        with pytest.raises(nq.QuantizationError, match="batch 5: "):
            nq.evaluate(mlp(), data, executor=Reversed())


def test_sensitivity(pool):
    alone = nq.sensitivity(mlp(), batches(), "int4")
    for executor in (pool, Reversed()):
        assert nq.sensitivity(mlp(), batches(), "int4", executor=executor) == alone


def test_sensitivity_names_the_batch(pool):
    data = batches()
    data[2][3, 1] = np.inf
    with pytest.raises(nq.QuantizationError, match="batch 2: input.quantizer: has 0 NaN and 1 infinite"):
        nq.sensitivity(mlp(), data, "int4", executor=pool)


def test_a_local_cluster_of_dask():
    distributed = pytest.importorskip("distributed", reason="dask and distributed are not installed")
    with distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster:
        with distributed.Client(cluster) as client:
            assert calibrated(client) == calibrated(None)
            data = [(x, np.arange(len(x)) % 4) for x in batches()]
            assert nq.evaluate(mlp(), data, executor=client) == nq.evaluate(mlp(), data)


def test_workers_of_mpi():
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    mpiexec = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if mpiexec is None:
        pytest.skip("there is no mpiexec")
    command = [mpiexec, "-n", "3", sys.executable, "-m", "mpi4py.futures", "-m", "tests.mpi_workers"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "same bits by workers [1, 2]" in done.stdout
