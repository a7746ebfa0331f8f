"""Plans: an integer graph as steps over one arena gives what its nodes give, and no description of one is trusted."""

import copy
import dataclasses
import gc
import os
import resource
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ndquant as nq
from ndquant import _core, nn
from ndquant.graph.plan import ALIGNMENT, Plans, lay_out
from ndquant.ops import Codes
from ndquant.workflows.qconfig import find_config

from .networks import PRESETS, inputs, mlp, quantized


def by_nodes(graph, x):
    """Return what the nodes give, run one by one from Python."""
    return graph._run_nodes(graph._checked((x,))).values


def plan_of(graph, x):
    return graph._plans.find(graph, (x,))


def plain(value):
    return value.codes if isinstance(value, Codes) else value


@pytest.mark.parametrize("count", (0, 1, 2, 13, 64, 300))
@pytest.mark.parametrize("preset", PRESETS)
def test_a_plan_gives_the_bits_of_the_nodes(backend, preset, count):
    graph, x = quantized(preset), inputs(count)
    y = graph(x)
    assert plan_of(graph, x) is not None
    assert y.dtype == np.float32 and y.shape == (count, 4)
    assert y.tobytes() == by_nodes(graph, x)[graph.output].tobytes()


@pytest.mark.parametrize("preset", PRESETS)
def test_every_value_can_be_read_after_a_run_step_by_step(preset):
    graph, x = quantized(preset), inputs(20)
    traced, expected = graph.run(x).values, by_nodes(graph, x)
    assert list(traced) == list(expected)
    for name, value in traced.items():
        np.testing.assert_array_equal(plain(value), plain(expected[name]))
        assert plain(value).dtype == plain(expected[name]).dtype
        assert getattr(value, "qparams", None) == getattr(expected[name], "qparams", None)


def test_a_relu_behind_its_quantizer_works_on_codes():
    int8 = nq.convert(nq.calibrate(nq.prepare(mlp(), inputs(), "torch_default", fuse=False), [inputs(rng=1)]))
    x = inputs(50)
    assert "clamp" in [kind for kind, *_ in plan_of(int8, x).steps]
    assert int8(x).tobytes() == by_nodes(int8, x)[int8.output].tobytes()


def test_reshapes_take_no_step_and_no_memory():
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 4, rng=0))
    graph, x = nq.quantize_static(model, [inputs().reshape(-1, 2, 3)]), inputs(5).reshape(-1, 2, 3)
    assert [kind for kind, *_ in plan_of(graph, x).steps] == ["quantize", "linear"]
    assert graph(x).tobytes() == by_nodes(graph, x)[graph.output].tobytes()


def test_a_graph_with_a_float_layer_is_run_by_its_nodes():
    config = dataclasses.replace(find_config("int8", False), overrides={"2": None})
    graph = nq.quantize_static(mlp(), [inputs()], config)
    assert plan_of(graph, inputs(3)) is None
    assert graph(inputs(3)).tobytes() == by_nodes(graph, inputs(3))[graph.output].tobytes()


def test_assigning_stored_integers_takes_effect_at_once():
    graph, x = quantized(), inputs(9)
    before = graph(x)
    graph["4"].bias = graph["4"].bias + 1000
    after = graph(x)
    assert (before != after).all()
    assert after.tobytes() == by_nodes(graph, x)[graph.output].tobytes()


def test_plans_are_kept_for_the_shapes_used_last():
    graph = quantized()
    first = plan_of(graph, inputs(1))
    assert plan_of(graph, inputs(1)) is first
    for count in range(2, 2 + Plans.LIMIT):
        assert graph(inputs(count)).shape == (count, 4)
    assert plan_of(graph, inputs(1)) is not first


def test_a_plan_is_released_with_its_graph():
    graph = quantized()
    graph(inputs(3))
    plan = weakref.ref(plan_of(graph, inputs(3)))
    del graph
    gc.collect()
    assert plan() is None


def test_copies_and_pickles_have_plans_of_their_own():
    graph, x = quantized(), inputs(3)
    y, twin = graph(x), copy.deepcopy(graph)
    twin["4"].bias = twin["4"].bias + 1000
    assert (twin(x) != y).all()
    assert graph(x).tobytes() == y.tobytes()


def test_eight_threads_may_run_one_plan_at_once():
    graph = quantized()
    batches = [inputs(32, rng=i) for i in range(8)]
    expected = [by_nodes(graph, x)[graph.output].tobytes() for x in batches]

    def count_wrong(i):
        return sum(graph(batches[i]).tobytes() != expected[i] for _ in range(200))

    with ThreadPoolExecutor(8) as pool:
        assert not any(pool.map(count_wrong, range(8)))


@pytest.mark.skipif(
    "LD_PRELOAD" in os.environ, reason="something else is preloaded, a sanitizer, whose memory is counted too"
)
def test_repeated_calls_touch_no_new_memory():
    graph, x = quantized(model=mlp((6, 300, 200, 4))), inputs(200)
    for _ in range(20):
        graph(x)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(300):
        graph(x)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 30


# ---- The arena


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 9), st.integers(0, 4)), max_size=25))
def test_values_alive_at_the_same_time_do_not_overlap(arrays):
    sizes = [size for size, _, _ in arrays]
    lifetimes = [(first, first + length) for _, first, length in arrays]
    offsets, total = lay_out(sizes, lifetimes)
    for i, a in enumerate(offsets):
        assert a % ALIGNMENT == 0 and a + sizes[i] <= total
        for j in range(i):
            apart = a + sizes[i] <= offsets[j] or offsets[j] + sizes[j] <= a
            assert apart or lifetimes[i][1] < lifetimes[j][0] or lifetimes[j][1] < lifetimes[i][0]


def test_an_arena_is_as_small_as_its_widest_moment():
    sizes = [6400, 3200, 3200, 640]
    assert lay_out(sizes, [(0, 1), (1, 2), (2, 3), (3, 4)]) == ([0, 6400, 0, 3200], 9600)


# ---- What the core refuses


def step(kind="quantize", ins=(0,), out=1, *constants):
    return (kind, ins, out, *(constants or (QP,)))


QP = nq.QParams(0.1, 3, nq.QuantSpec(8, signed=False, symmetric=False))
PER_CHANNEL = nq.QParams([0.1, 0.2], 0, nq.QuantSpec(axis=0))
TEXTBOOK = nq.QParams(0.1, 3, nq.QuantSpec(), profile="textbook")
PACKED = nq.PackedWeight(np.ones((4, 6), np.int8), nq.QParams(0.1, 0, nq.QuantSpec()))._packed
LINEAR = (5, QP, PACKED, None, False, False)


@pytest.mark.parametrize(
    "arguments, error",
    {
        "no tuple": (([40], (), 0, ()), TypeError),
        "sizes are ints": ((("a",), (), 0, ()), TypeError),
        "negative size": (((-1,), (), 0, ()), ValueError),
        "outside the arena": (((40,), ((64, 65),), 128, ()), ValueError),
        "far outside the arena": (((40,), ((2**62, 2**62),), 128, ()), ValueError),
        "odd offset": (((40,), ((8, 8),), 128, ()), ValueError),
        "negative offset": (((40,), ((-64, 8),), 128, ()), ValueError),
        "arena of pairs": (((40,), (8,), 128, ()), (TypeError, SystemError)),
        "huge arena": (((40,), (), 2**62, ()), MemoryError),
        "negative arena": (((40,), (), -1, ()), ValueError),
        "no parts": (((40,), (), 0, (), 0), ValueError),
        "many parts": (((40,), (), 0, (), 2**60), ValueError),
        "parts are an int": (((40,), (), 0, (), "2"), TypeError),
        "too many arrays": (((8,) * 33, (), 0, ()), ValueError),
        "step is no tuple": (((40, 10), (), 0, ("quantize",)), TypeError),
        "step is short": (((40, 10), (), 0, (("quantize", (0,)),)), TypeError),
        "unknown kind": (((40, 10), (), 0, (step("sing"),)), ValueError),
        "kind is no str": (((40, 10), (), 0, ((1, (0,), 1),)), TypeError),
        "unknown input": (((40, 10), (), 0, (step(ins=(2,)),)), ValueError),
        "unknown output": (((40, 10), (), 0, (step(out=2),)), ValueError),
        "negative input": (((40, 10), (), 0, (step(ins=(-1,)),)), (OverflowError, ValueError)),
        "two inputs": (((40, 10), (), 0, (step(ins=(0, 0)),)), ValueError),
        "no qparams": (((40, 10), (), 0, (step("quantize", (0,), 1, 3),)), TypeError),
        "missing constants": (((40, 10), (), 0, (("quantize", (0,), 1),)), TypeError),
        "per channel": (((40, 10), (), 0, (step("quantize", (0,), 1, PER_CHANNEL),)), ValueError),
        "another rule": (((40, 10), (), 0, (step("quantize", (0,), 1, TEXTBOOK),)), ValueError),
        "quantize, short input": (((39, 10), (), 0, (step(),)), ValueError),
        "quantize, long output": (((40, 11), (), 0, (step(),)), ValueError),
        "dequantize, short output": (((10, 39), (), 0, (step("dequantize"),)), ValueError),
        "linear, short input": (((29, 80), (), 0, (step("linear", (0,), 1, *LINEAR),)), ValueError),
        "linear, short output": (((30, 79), (), 0, (step("linear", (0,), 1, *LINEAR),)), ValueError),
        "linear, no weight": (((30, 80), (), 0, (step("linear", (0,), 1, 5, QP, 1, None, 0, 0),)), TypeError),
        "linear, negative rows": (((0, 0), (), 0, (step("linear", (0,), 1, -1, *LINEAR[1:]),)), ValueError),
        "linear, huge rows": (((30, 80), (), 0, (step("linear", (0,), 1, 2**62, *LINEAR[1:]),)), MemoryError),
        "clamp, short output": (((10, 9), (), 0, (step("clamp", (0,), 1, 3, 255, False),)), ValueError),
    }.values(),
)
def test_a_wrong_description_is_refused(arguments, error):
    with pytest.raises(error):
        _core.make_plan(*arguments)


def a_plan():
    return _core.make_plan((120, 80), ((0, 30),), 64, (step("quantize", (0,), 2), step("linear", (2,), 1, *LINEAR)))


X, Y, CODES = np.ones((5, 6), np.float32), np.empty((5, 4), np.float32), np.empty((5, 6), np.uint8)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "arrays, error",
    {
        "too few": ((X,), TypeError),
        "too many": ((X, Y, Y), TypeError),
        "no array": ((X, None), TypeError),
        "too small": ((X[:4], Y), ValueError),
        "too large": ((X, np.empty((6, 4), np.float32)), ValueError),
        "not contiguous": ((np.asfortranarray(X), Y), TypeError),
        "read-only output": ((X, read_only(Y)), TypeError),
    }.values(),
)
def test_wrong_arrays_are_refused(arrays, error):
    plan = a_plan()
    with pytest.raises(error):
        plan.run(*arrays)
    with pytest.raises(error):
        plan.trace(arrays, (CODES.copy(), Y.copy()))


@pytest.mark.parametrize("copies", ((), (CODES,), (CODES[:4], Y), (read_only(CODES), Y), (None, Y)))
def test_wrong_copies_are_refused(copies):
    with pytest.raises((TypeError, ValueError)):
        a_plan().trace((X, Y.copy()), copies)


def test_arrays_hold_all_parts():
    quantize = step("quantize", (0,), 1)
    plan = _core.make_plan((24, 6), (), 0, (quantize,), 5)
    y, copy = np.empty((5, 6), np.uint8), np.empty((5, 6), np.uint8)
    x = 3 * np.random.default_rng(0).standard_normal((5, 6), np.float32)
    plan.trace((x, y), (copy,))
    np.testing.assert_array_equal(y, nq.quantize(x, QP))
    np.testing.assert_array_equal(copy, y)
    for wrong in (x[:1], x[:4], np.ones((6, 6), np.float32)):
        with pytest.raises(ValueError, match="array 0: expected 120 bytes"):
            plan.run(wrong, y)
    with pytest.raises(ValueError, match="copy 0: expected 30 bytes"):
        plan.trace((x, y), (copy[:1],))


def test_an_input_may_be_read_only():
    y = np.empty_like(Y)
    a_plan().run(read_only(X), y)
    expected = nq.linear_integer(nq.quantize(X, QP), QP, nq.PackedWeight(np.ones((4, 6), np.int8), QP_W))
    assert y.tobytes() == expected.tobytes()


QP_W = nq.QParams(0.1, 0, nq.QuantSpec())


def test_a_plan_keeps_what_its_steps_point_to():
    packed = nq.PackedWeight(np.ones((4, 6), np.int8), QP_W)
    description = (5, nq.QParams(0.1, 3, QP.spec), packed._packed, None, False, False)
    quantize = step("quantize", (0,), 2, nq.QParams(0.1, 3, QP.spec))
    plan = _core.make_plan((120, 80), ((0, 30),), 64, (quantize, step("linear", (2,), 1, *description)))
    expected = Y.copy()
    a_plan().run(X, expected)
    del packed, description, quantize
    gc.collect()
    junk = [np.full(500, 7.0) for _ in range(100)]
    y = np.empty_like(Y)
    plan.run(X, y)
    assert y.tobytes() == expected.tobytes() and len(junk) == 100


CONV = nq.PackedWeight(np.arange(-36, 36, dtype=np.int8).reshape(4, 2, 3, 3), QP_W)
SIZES = ((2, 1), (1, 0), (1, 1))


def images(rng=0):
    return np.random.default_rng(rng).integers(0, 256, (3, 2, 7, 6), np.uint8)


def conv_step(last_in, last_out, packed=None, out_qparams=None, count=3, rows=7):
    packed = CONV._of_conv(1, merged=True) if packed is None else packed
    return ("conv2d", (0,), 1, count, rows, 6, last_in, last_out, QP, packed, out_qparams, SIZES, False, True)


@pytest.mark.parametrize("out_qparams", (None, QP))
@pytest.mark.parametrize("last_in", (False, True))
@pytest.mark.parametrize("last_out", (False, True))
def test_a_convolution_reads_and_gives_either_layout(backend, last_in, last_out, out_qparams):
    x = images()
    expected = nq.conv2d_requantized(x, QP, CONV, out_qparams, *SIZES, activation="relu")
    given = x.transpose(0, 2, 3, 1).copy() if last_in else x
    y = np.empty([3, 4, 4, 4], expected.dtype)
    assert expected.size == y.size
    _core.make_plan((x.nbytes, y.nbytes), (), 0, (conv_step(last_in, last_out, out_qparams=out_qparams),)).run(given, y)
    assert (y.transpose(0, 3, 1, 2) if last_out else y).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "change, error",
    (
        ({"packed": PACKED}, TypeError),
        ({"count": -1}, ValueError),
        ({"count": 4}, ValueError),
        ({"count": 2**62}, ValueError),
        ({"rows": 0}, ValueError),
        ({"rows": 9}, ValueError),
    ),
)
def test_a_wrong_convolution_is_refused(change, error):
    with pytest.raises(error):
        _core.make_plan((252, 768), (), 0, (conv_step(False, False, **change),))


def place(lengths=(1, 1, 2, 3), at=0, strides=(0, 0, 6, 2), to=0, out_strides=(0, 0, 4, 1), fill=-1):
    return step("place", (0,), 1, lengths, at, strides, to, out_strides, fill)


@pytest.mark.parametrize("signed", [False, True])
def test_a_box_is_copied_to_its_place(signed):
    x = np.arange(12, dtype=np.uint8).reshape(2, 6)
    for at, strides, part in ((0, (0, 0, 6, 2), x[:, ::2]), (11, (0, 0, -6, -2), x[::-1, ::-2])):
        y = np.full((3, 4), 9, np.uint8)
        description = place(at=at, strides=strides, to=5, out_strides=(0, 0, 4, 1), fill=7 if signed else -1)
        _core.make_plan((12, 12), (), 0, (description,)).run(x, y)
        np.testing.assert_array_equal(y[1:, 1:], part)
        assert (y[0] == (7 if signed else 9)).all()


def test_an_empty_box_may_lie_anywhere():
    y = np.zeros(12, np.uint8)
    description = place(lengths=(1, 0, 2, 3), at=99, to=-5, fill=3)
    _core.make_plan((12, 12), (), 0, (description,)).run(np.ones(12, np.uint8), y)
    assert (y == 3).all()


@pytest.mark.parametrize(
    "change",
    [
        {"at": 2}, {"at": -1}, {"at": 2**62}, {"strides": (0, 0, -6, 2)}, {"strides": (0, 0, 2**62, 2)},
        {"to": 6}, {"to": -1}, {"out_strides": (0, 0, -4, 1)}, {"lengths": (1, 1, -2, 3)},
        {"lengths": (1, 1, 2**62, 3)}, {"lengths": (2, 1, 2, 3), "out_strides": (6, 0, 4, 1)},
    ],
)
def test_a_box_that_leaves_an_array_is_refused(change):
    with pytest.raises(ValueError, match="leaves an array"):
        _core.make_plan((12, 12), (), 0, (place(**change),))


def test_a_table_is_copied_and_checked():
    x, y, table = np.arange(-6, 6).astype(np.int8), np.empty(12, np.uint8), np.arange(255, -1, -1).astype(np.uint8)
    plan = _core.make_plan((12, 12), (), 0, (step("lookup", (0,), 1, table, True),))
    expected = table[x.astype(int) + 128]
    table[:] = 0
    plan.run(x, y)
    np.testing.assert_array_equal(y, expected)
    for wrong in (table[:255], table.astype(np.float32), None):
        with pytest.raises((TypeError, ValueError), match="table"):
            _core.make_plan((12, 12), (), 0, (step("lookup", (0,), 1, wrong, True),))
