"""A plan whose arena would be too large takes a batch in parts: the same bits, where no step mixes examples."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import ndquant as nq
from ndquant.graph import plan as plans
from ndquant.graph import steps as kinds
from ndquant.graph.plan import Plan, make_plan
from ndquant.graph.steps import Steps
from ndquant.ops import real

from .bench import networks
from .test_lowering import BODIES, images, net

QP = nq.QParams(np.float32(0.037), 119, nq.QuantSpec(signed=False, symmetric=False))
OUT = nq.QParams(np.float32(0.061), 3, nq.QuantSpec(symmetric=False))
TABLE = np.arange(256).astype(np.uint8)[::-1]
MASK = np.random.default_rng(2).random((3, 4, 4)) > 0.5
EVERY = slice(None)


def weight(*shape):
    codes = np.random.default_rng(1).integers(-127, 128, shape).astype(np.int8)
    return nq.PackedWeight(codes, nq.QParams(np.full(shape[0], 0.01, np.float32), 0, nq.QuantSpec(axis=0)))


#: name: (steps on codes, shapes of these), all of which treat each of three examples alone
ALONE = {
    "codes": (lambda s, x: s.lookup(s.clamp(s.add(x, s.multiply(x, x, QP), QP), "relu"), TABLE, OUT), (3, 5)),
    "floats": (lambda s, x: s.gelu(s.softmax_floats(s.add_floats(x, x))), (3, 4, 5)),
    "rows": (lambda s, x: s.layer_norm(s.softmax(s.linear(x, weight(6, 5), OUT), OUT), OUT, None, None), (3, 4, 5)),
    "a mask for all": (lambda s, x: s.softmax(x, OUT, mask=MASK[0]), (3, 2, 4, 4)),
    "products": (lambda s, x: s.matmul(x, s.permute(x, (0, 1, 3, 2)), OUT), (3, 2, 4, 5)),
    "images": (
        lambda s, x: s.resize_nearest(s.max_pool2d(s.conv2d(x, weight(4, 2, 3, 3), QP, padding=1), 2), 5),
        (3, 2, 6, 6),
    ),
    "larger images": (lambda s, x: s.channels_first(s.conv_transpose2d(x, weight(4, 2, 2, 2), OUT)), (3, 2, 3, 4)),
    "boxes": (
        lambda s, x: s.concatenate([s.slice(x, (EVERY, slice(None, None, -2))), s.pad(x, ((0, 0), (1, 2)))], QP, 1),
        (3, 5),
    ),
    "whole boxes": (lambda s, x: s.slice(x, (EVERY, EVERY)), (3, 5)),
    "one code to each row": (lambda s, x: s.add(*s.broadcast(x, s.slice(x, (EVERY, slice(1)))), OUT), (3, 5)),
    "another shape": (lambda s, x: s.softmax(s.reshape(x, (3, 4, 5)), OUT), (3, 2, 10)),
    "two inputs": (lambda s, x, y: s.add(*s.broadcast(x, y), OUT), (3, 1, 4), (3, 5, 1)),
}

#: name: (steps on codes, shapes of these), each of which mixes examples, though first axes may have their length
MIXED = {
    "rows of a layer": (lambda s, x: s.linear(x, weight(3, 3), OUT), (3,)),
    "rows of a softmax": (lambda s, x: s.softmax(x, OUT), (3,)),
    "rows of another shape": (lambda s, x: s.reshape(s.softmax(s.reshape(x, (2, 6)), OUT), (3, 4)), (3, 4)),
    "floats": (lambda s, x: s.layer_norm_floats(x, 12, None, None, 1e-5), (3, 4)),
    "matrices": (lambda s, x: s.matmul(x, x, OUT), (3, 3)),
    "images": (lambda s, x: s.reshape(s.channels_last(s.reshape(x, (1, 3, 4, 4))), (3, 16)), (3, 16)),
    "order of axes": (lambda s, x: s.permute(x, (1, 0)), (3, 3)),
    "backwards": (lambda s, x: s.slice(x, (slice(None, None, -1), EVERY)), (3, 4)),
    "concatenation": (
        lambda s, x: s.concatenate([s.slice(x, (slice(1, None), EVERY)), s.slice(x, (slice(1), EVERY))], QP, 0),
        (3, 4),
    ),
    "padding": (lambda s, x: s.slice(s.pad(x, ((1, 0), (0, 0))), (slice(3), EVERY)), (3, 4)),
    "one row to all": (lambda s, x: s.add(*s.broadcast(x, s.slice(x, (slice(1), EVERY))), OUT), (3, 4)),
    "two inputs": (lambda s, x, y: s.add(*s.broadcast(x, y), OUT), (3, 4), (1, 4)),
    "a mask for each": (lambda s, x: s.softmax(x, OUT, mask=MASK), (3, 4, 4)),
    "another batch": (lambda s, x: s.reshape(s.softmax(x, OUT), (2, 6)), (3, 4)),
}


def plan_of(build, *shapes):
    steps = Steps()
    inputs = [steps.new(shape) for shape in shapes]
    y = build(steps, *(steps.quantize(x, QP) for x in inputs))
    return Plan(steps, {"y": y}, len(shapes), y)


def run(build, *shapes):
    """Return what the plan of these steps gives for random floats, and the same step by step."""
    plan, rng = plan_of(build, *shapes), np.random.default_rng(0)
    arrays = [rng.normal(0, 3, shape).astype(np.float32) for shape in shapes]
    return plan.run(arrays).tobytes(), real(plan.trace(arrays)["y"]).tobytes()


@pytest.fixture
def cut(monkeypatch):
    """Cut all batches of three in which no step mixes examples."""
    monkeypatch.setattr(plans, "part_sizes", lambda examples, nbytes: [2, 1] if examples == 3 else [examples])


@pytest.mark.parametrize("case", ALONE.values(), ids=ALONE)
def test_parts_give_the_bits_of_the_batch(case, backend, request):
    whole = run(*case)
    request.getfixturevalue("cut")
    assert plan_of(*case).parts == [2, 1]
    assert run(*case) == whole


def test_every_kind_that_may_be_cut_is_held_against_the_batch():
    assert {kind for case in ALONE.values() for kind, *_ in plan_of(*case).steps} == kinds._NEEDED_AXES.keys()


@pytest.mark.parametrize("case", MIXED.values(), ids=MIXED)
def test_steps_that_mix_examples_take_the_batch_as_a_whole(case, cut):
    assert plan_of(*case).parts == [1]


@pytest.mark.parametrize("case", MIXED.values(), ids=MIXED)
def test_parts_would_give_something_else(case, monkeypatch, request):
    whole = run(*case)
    request.getfixturevalue("cut")
    monkeypatch.setattr(Steps, "examples", lambda *_: 3)
    try:
        assert run(*case) != whole
    except (ValueError, IndexError):
        pass  # sizes that do not fit


@pytest.mark.parametrize("body", BODIES)
def test_a_network_gives_the_bits_of_the_batch_at_every_node(body, request):
    graph, x = nq.quantize_static(net(body), [images()]), images(3)
    whole = make_plan(graph, [x.shape])
    request.getfixturevalue("cut")
    parts = make_plan(graph, [x.shape])
    assert (whole.parts, parts.parts) == ([3], [2, 1])
    np.testing.assert_array_equal(parts.run((x,)), whole.run((x,)))
    expected, found = whole.trace((x,)), parts.trace((x,))
    assert expected.keys() == found.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(real(value), real(expected[name]), err_msg=name)


def small_network(monkeypatch):
    """Return the plan of a network in three parts for seven images, these, and what the batch as a whole gives."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((7, 3, 8, 8), np.float32)
    network = networks.Network(networks.resnet20(rng, 1), x)
    whole = network.plan(x.shape)
    assert whole.parts == [7]
    monkeypatch.setattr(plans, "ARENA_BYTES", whole.nbytes // 3)
    return network.plan(x.shape), x, whole.run([x])


@pytest.mark.parametrize("count", (1, 2, 4))
def test_threads_do_not_change_a_bit(count, threads, monkeypatch):
    plan, x, expected = small_network(monkeypatch)
    assert plan.parts == [3, 2, 2] and plan.nbytes < 2.4 * plans.ARENA_BYTES
    threads(count)
    for _ in range(5):
        np.testing.assert_array_equal(plan.run([x]), expected)


def test_eight_threads_may_run_one_plan_at_once(monkeypatch):
    plan, x, expected = small_network(monkeypatch)

    def count_wrong(shift):
        given, wanted = np.roll(x, shift, 0), np.roll(expected, shift, 0)
        return sum(plan.run([given]).tobytes() != wanted.tobytes() for _ in range(50))

    with ThreadPoolExecutor(8) as pool:
        assert not any(pool.map(count_wrong, range(8)))


@pytest.mark.parametrize(
    "examples, arena, sizes",
    [
        (1, 100, [1]), (5, 0, [5]), (5, 8, [5]), (5, 9, [3, 2]), (6, 9, [3, 3]), (32, 48, [4] * 8),
        (31, 48, [6] + [5] * 5), (3, 1000, [1, 1, 1]),
    ],
)
def test_parts_are_as_few_as_fit_or_equal(examples, arena, sizes, monkeypatch):
    monkeypatch.setattr(plans, "ARENA_BYTES", 8)
    assert plans.part_sizes(examples, arena) == sizes
