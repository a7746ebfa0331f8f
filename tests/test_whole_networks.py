"""Whole networks as plans give the bits of their NumPy twins, whatever backend, threads and earlier calls."""

import gc
import resource
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import ndquant as nq

from .bench import networks

SMALL = {
    "mlp": (networks.mlp, (784,)),
    "resnet20": (lambda rng: networks.resnet20(rng, blocks=1), (3, 12, 14)),
    "mobilenetv2": (lambda rng: networks.mobilenetv2(rng, networks.STAGES[:3]), (3, 33, 32)),
}


def build(name, count=3):
    rng = np.random.default_rng(0)
    make, shape = SMALL[name]
    x = rng.standard_normal((count, *shape), np.float32)
    return networks.Network(make(rng), x), x


@pytest.mark.parametrize("name", SMALL)
def test_a_plan_gives_the_bits_of_the_twins(backend, name):
    network, x = build(name)
    expected = network.twin(x)
    assert expected.std(axis=0).min() > 0
    assert network.plan(x.shape).run([x]).tobytes() == expected.tobytes()
    assert network.plan((1, *x.shape[1:])).run([x[1:2]]).tobytes() == expected[1:2].tobytes()


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("count", (1, 2, 4))
def test_threads_do_not_change_a_bit(name, count):
    network, x = build(name, 8)
    plan, before = network.plan(x.shape), nq.get_num_threads()
    expected = plan.run([x]).tobytes()
    nq.set_num_threads(count)
    try:
        assert all(plan.run([x]).tobytes() == expected for _ in range(5))
    finally:
        nq.set_num_threads(before)


@pytest.mark.parametrize("name", SMALL)
def test_repeated_calls_touch_no_new_memory(name):
    network, x = build(name, 4)
    plan = network.plan(x.shape)
    out = plan.output.new_array()
    for _ in range(10):
        plan.run([x], out)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        plan.run([x], out)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 10


def test_eight_threads_run_one_plan_at_once():
    network, x = build("resnet20", 8)
    plan = network.plan((1, *x.shape[1:]))
    expected = [network.twin(x[i : i + 1]).tobytes() for i in range(8)]

    def count_wrong(i):
        return sum(plan.run([x[i : i + 1]]).tobytes() != expected[i] for _ in range(100))

    with ThreadPoolExecutor(8) as pool:
        assert not any(pool.map(count_wrong, range(8)))


def test_a_plan_keeps_its_weights_as_long_as_it_lives():
    network, x = build("mobilenetv2")
    weights = network.layers[0].packed._of_conv(1, merged=True)
    before, expected = sys.getrefcount(weights), network.twin(x).tobytes()
    plan = network.plan(x.shape)
    assert sys.getrefcount(weights) > before
    del network
    gc.collect()
    assert plan.run([x]).tobytes() == expected
    del plan
    assert sys.getrefcount(weights) < before
