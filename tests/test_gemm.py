"""Exact integer products: `matmul_integer` on every backend against its twin."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ndquant as nq
from ndquant import _core, reference

from .cases import GEMM_SHAPES, GEMM_SHAPES_IN_HALVES, PACKED_SHAPES, assert_same_bits
from .examples import examples

DTYPES = (np.uint8, np.int8)
SIGNS = tuple(itertools.product(DTYPES, DTYPES))


def random_codes(rng, shape, dtype):
    """Any codes of the dtype, the two extremes more often than the rest."""
    info = np.iinfo(dtype)
    codes = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    extreme = rng.random(shape) < 0.2
    return np.where(extreme, np.where(rng.random(shape) < 0.5, info.min, info.max), codes).astype(dtype)


def random_zero(rng, dtype, shape=None):
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, np.int32, endpoint=True)


def expected(a, b, a_zero_point=0, b_zero_point=0):
    rows = a.reshape(int(np.prod(a.shape[:-1])), a.shape[-1])
    return reference.gemm_s32(rows, b.T, a_zero_point, b_zero_point).reshape(*a.shape[:-1], b.shape[1])


def check_product(rng, shape, dtypes):
    rows, outputs, inputs = shape
    a, b = random_codes(rng, (rows, inputs), dtypes[0]), random_codes(rng, (inputs, outputs), dtypes[1])
    a_zero, b_zero = int(random_zero(rng, dtypes[0])), random_zero(rng, dtypes[1], outputs)
    assert_same_bits(nq.matmul_integer(a, b), expected(a, b))
    for zeros in ((a_zero, 0), (0, 7), (a_zero, b_zero)):
        assert_same_bits(nq.matmul_integer(a, b, *zeros), expected(a, b, *zeros))


@pytest.mark.parametrize("shape", GEMM_SHAPES, ids=str)
@pytest.mark.parametrize("dtypes", SIGNS, ids=lambda d: f"{d[0].__name__}-{d[1].__name__}")
def test_product_is_exact(backend, rng, shape, dtypes):
    check_product(rng, shape, dtypes)


@pytest.mark.parametrize("shape", GEMM_SHAPES_IN_HALVES, ids=str)
@pytest.mark.parametrize("dtypes", SIGNS, ids=lambda d: f"{d[0].__name__}-{d[1].__name__}")
def test_product_of_halves_is_exact(backend, rng, threads, shape, dtypes):
    threads(1)  # which leaves all rows in one block
    check_product(rng, shape, dtypes)


@pytest.mark.parametrize("dtypes", SIGNS, ids=lambda d: f"{d[0].__name__}-{d[1].__name__}")
def test_extremes_do_not_saturate(backend, dtypes):
    infos = [np.iinfo(dtype) for dtype in dtypes]
    for left, right in itertools.product(*((info.min, info.max) for info in infos)):
        a, b = np.full((13, 300), left, dtypes[0]), np.full((300, 35), right, dtypes[1])
        zeros = itertools.product(*((info.min, info.max) for info in infos))
        for a_zero, b_zero in ((0, 0), *zeros):
            found = nq.matmul_integer(a, b, a_zero, b_zero)
            assert (found == 300 * (left - a_zero) * (right - b_zero)).all()


@pytest.mark.parametrize("dtypes", SIGNS, ids=lambda d: f"{d[0].__name__}-{d[1].__name__}")
def test_sums_of_halves_do_not_overflow(backend, rng, threads, dtypes):
    """Halves of the rows, of two panels of columns and of the inputs are at either end, so that sums are largest."""
    infos = [np.iinfo(dtype) for dtype in dtypes]
    threads(1)
    for corner in range(0, 16, 5):
        a, b = np.empty((192, 512), dtypes[0]), np.empty((512, 256), dtypes[1])
        for number, (i, j) in enumerate(itertools.product((0, 1), repeat=2)):
            ends = [(info.min, info.max) for info in infos]
            a[96 * i : 96 * (i + 1), 256 * j : 256 * (j + 1)] = ends[0][corner >> number & 1]
            b.reshape(512, 8, 2, 16)[256 * i : 256 * (i + 1), :, j] = ends[1][(corner ^ 6) >> number & 1]
        a[rng.integers(0, 192, 9), rng.integers(0, 512, 9)] ^= 1
        for zeros in ((0, 0), (infos[0].min, infos[1].max), (infos[0].max, infos[1].min)):
            assert_same_bits(nq.matmul_integer(a, b, *zeros), expected(a, b, *zeros))


@pytest.mark.parametrize("dtypes", SIGNS, ids=lambda d: f"{d[0].__name__}-{d[1].__name__}")
def test_sums_of_sums_of_halves_do_not_overflow(backend, rng, threads, dtypes):
    """The same with halves cut again: a part is at the end that the bits of its two quarters differ in, or agree."""
    infos = [np.iinfo(dtype) for dtype in dtypes]
    threads(1)
    for corners in ((6, 3), (12, 12)):
        a, b = np.empty((2, 2, 32, 2, 2, 128), dtypes[0]), np.empty((2, 2, 128, 3, 2, 2, 2, 16), dtypes[1])
        for i, k, j, n in itertools.product((0, 1), repeat=4):
            quarters = [corner >> (2 * x + y) & 1 for corner, x, y in zip(corners, (i, k), (j, n), strict=True)]
            a[i, k, :, j, n] = (infos[0].min, infos[0].max)[quarters[0] ^ quarters[1]]
            b[i, k, :, :, :, n, j] = (infos[1].min, infos[1].max)[quarters[0] == quarters[1]]
        a, b = a.reshape(128, 512), b.reshape(512, 384)
        a[rng.integers(0, 128, 9), rng.integers(0, 512, 9)] ^= 1
        for zeros in ((infos[0].min, infos[1].max), (infos[0].max, infos[1].min)):
            assert_same_bits(nq.matmul_integer(a, b, *zeros), expected(a, b, *zeros))


@pytest.mark.parametrize("backend_name", _core.available_backends())
@given(data=st.data())
@settings(max_examples=examples(60), deadline=None)
def test_any_shape_zero_point_and_strides(backend_name, data):
    rows, outputs, inputs = (data.draw(st.integers(0, most)) for most in (40, 70, 150))
    dtypes = data.draw(st.sampled_from(SIGNS))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    a, b = random_codes(rng, (rows, inputs), dtypes[0]), random_codes(rng, (inputs, outputs), dtypes[1])
    a = in_strides(a, data.draw(st.sampled_from(LAYOUTS)))
    b = in_strides(b, data.draw(st.sampled_from(LAYOUTS)))
    a_zero, b_zero = int(random_zero(rng, dtypes[0])), random_zero(rng, dtypes[1], outputs)
    with nq.backend(backend_name):
        found = nq.matmul_integer(a, b, a_zero, b_zero)
    assert_same_bits(found, reference.gemm_s32(a, b.T, a_zero, b_zero))


@pytest.mark.parametrize("size", (15, 16, 17, 126, 127, 128))
@pytest.mark.parametrize("b_type", DTYPES)
def test_small_weights_do_not_saturate(backend, rng, size, b_type):
    """Weights of up to 16 or 127 steps may take a kernel that adds in 16 bits; one step more must not."""
    low, high = np.iinfo(b_type).min, np.iinfo(b_type).max
    b_zero = low + 128
    for inputs in (1, 15, 16, 17, 64, 263):
        b = np.clip(b_zero + rng.choice([-size, size], (inputs, 35)), low, high).astype(b_type)
        b[:, 0], b[:, 1] = min(b_zero + size, high), b_zero - size
        for a_type, a_zero in ((np.uint8, 0), (np.uint8, 255), (np.int8, -128), (np.int8, 127)):
            info = np.iinfo(a_type)
            a = rng.choice([info.min, info.max], (8, inputs)).astype(a_type)
            a[0], a[1] = info.min, info.max
            assert_same_bits(nq.matmul_integer(a, b, a_zero, b_zero), expected(a, b, a_zero, b_zero))


@pytest.mark.parametrize("beyond", (None, -129, 128))
def test_many_weights_that_just_fit_bytes(backend, rng, beyond):
    """Panels of so many weights may be bytes, if all are once their zero point is subtracted."""
    outputs, inputs, b_zero = 260, 601, 128
    b = rng.choice([b_zero - 128, b_zero + 127], (inputs, outputs)).astype(np.uint8)
    b_zero = np.full(outputs, b_zero)
    if beyond is not None:
        b_zero[-1] -= np.sign(beyond)
    a = random_codes(rng, (7, inputs), np.int8)
    assert_same_bits(nq.matmul_integer(a, b, -128, b_zero), expected(a, b, -128, b_zero))
    assert_same_bits(nq.matmul_integer(a[:1], b, 127, b_zero), expected(a[:1], b, 127, b_zero))


LAYOUTS = ("c", "fortran", "reversed", "every other", "padded rows")


def in_strides(array, layout):
    """The same values in another layout."""
    if layout == "fortran":
        return np.asfortranarray(array)
    if layout == "reversed":
        return np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1]
    if layout == "c":
        return np.ascontiguousarray(array)
    step = 2 if layout == "every other" else 1
    room = np.zeros((array.shape[0] * step, array.shape[1] * step + 3), array.dtype)
    view = room[::step, : array.shape[1] * step : step]
    view[...] = array
    return view


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(backend, rng, layout):
    a, b = random_codes(rng, (20, 65), np.int8), random_codes(rng, (65, 33), np.uint8)
    assert_same_bits(nq.matmul_integer(in_strides(a, layout), in_strides(b, layout), 3, 5), expected(a, b, 3, 5))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("b_type", DTYPES)
def test_packing(backend, rng, layout, b_type):
    """Codes and both sums of each column, for which zero points of both operands need them."""
    for outputs, inputs in PACKED_SHAPES:
        a, b = random_codes(rng, (2, inputs), np.uint8), random_codes(rng, (inputs, outputs), b_type)
        b_zero = random_zero(rng, b_type, outputs)
        found = nq.matmul_integer(a, in_strides(b, layout), 200, b_zero)
        assert_same_bits(found, expected(a, b, 200, b_zero))


@pytest.mark.parametrize("step", (-1, 0))
def test_packing_of_repeated_codes(backend, rng, step):
    """Columns and inputs that come from the same bytes, or from the last to the first."""
    codes = random_codes(rng, 600, np.int8)
    for outputs, inputs in PACKED_SHAPES[::7]:
        for strides in ((step, 1), (1, step), (step, -1), (step, step)):
            b = np.lib.stride_tricks.as_strided(codes[300:], (inputs, outputs), strides)
            if min(inputs, outputs) + max(inputs, outputs) < 300:
                a = random_codes(rng, (1, inputs), np.int8)
                assert_same_bits(nq.matmul_integer(a, b, 1, 2), expected(a, b, 1, 2))


def test_broadcast_and_leading_axes(backend, rng):
    a = random_codes(rng, (2, 3, 4, 10), np.uint8)
    b = np.broadcast_to(random_codes(rng, (10, 1), np.int8), (10, 6))
    assert_same_bits(nq.matmul_integer(a, b, 9), expected(a, b, 9))
    assert_same_bits(nq.matmul_integer(a[0, 0, 0], b), expected(a, b)[0, 0, 0])
    wide = np.broadcast_to(a[:1, 0, 0], (5, 10))
    assert_same_bits(nq.matmul_integer(wide, b), expected(wide, b))


@pytest.mark.parametrize(
    "shape",
    [(301, 130, 500), (389, 130, 1040), (5, 1100, 1000), (1, 1500, 2100), (700, 9, 900), (62, 40, 5003)],
    ids=str,
)
def test_threads_do_not_change_bits(backend, rng, threads, shape):
    rows, outputs, inputs = shape
    a, b = random_codes(rng, (rows, inputs), np.int8), random_codes(rng, (inputs, outputs), np.uint8)
    wanted = expected(a, b, -3, 100)
    for count in (1, 2, 3, 4):
        threads(count)
        assert_same_bits(nq.matmul_integer(a, b, -3, 100), wanted)


def test_small_product_after_a_large_one(backend, rng, threads):
    """A thread that is still awake takes a share of it."""
    large, small = (random_codes(rng, (256, inputs), np.uint8) for inputs in (784, 100))
    w_large, w_small = random_codes(rng, (784, 100), np.int8), random_codes(rng, (100, 20), np.int8)
    wanted = expected(small, w_small, 7, -3)
    for count in (1, 2, 4):
        threads(count)
        for _ in range(20):
            nq.matmul_integer(large, w_large)
            assert_same_bits(nq.matmul_integer(small, w_small, 7, -3), wanted)


@pytest.mark.parametrize("a_type", DTYPES)
@pytest.mark.parametrize("size", [(2050, 70), (1023, 129), (4099, 33), (1000, 240), (17, 9001), (40, 3300)])
def test_row_vector_by_many_weights(backend, rng, threads, size, a_type):
    """Several panels are read at once, and the last few of them alone; weights, and codes of the row, at both ends."""
    a, w = random_codes(rng, (1, size[0]), a_type), random_codes(rng, size, np.int8)
    w[rng.integers(0, 2, size) == 0] = -128
    a[rng.integers(0, 2, a.shape) == 0] = np.iinfo(a_type).max
    for count in (1, 2):
        threads(count)
        assert_same_bits(nq.matmul_integer(a, w, 5, 0), expected(a, w, 5, 0))
        assert_same_bits(nq.matmul_integer(a, w, 0, 1), expected(a, w, 0, 1))


def test_out_is_filled_and_returned(backend, rng):
    a, b = random_codes(rng, (7, 20), np.uint8), random_codes(rng, (20, 5), np.int8)
    room = np.full((9, 5), -1, np.int32)
    assert nq.matmul_integer(a, b, out=room[1:8]).base is room
    assert_same_bits(room[1:8], expected(a, b))
    assert (room[[0, 8]] == -1).all()


A, B = np.zeros((3, 4), np.uint8), np.zeros((4, 5), np.int8)


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ((A.astype(np.int32), B), TypeError, "a: expected int8 or uint8, got dtype int32"),
        ((A, B.astype(np.float32)), TypeError, "b: expected int8 or uint8"),
        ((A.astype(bool), B), TypeError, "a: expected int8 or uint8, got dtype bool"),
        ((np.ma.masked_array(A), B), TypeError, "a: masked arrays"),
        ((A, B[0]), ValueError, "b: expected 2 dimensions, got 1"),
        ((A, B[None]), ValueError, "b: expected 2 dimensions, got 3"),
        ((A, B[1:]), ValueError, r"a: its last axis must have the 3 inputs of b, got shape \(3, 4\)"),
        ((A[0, 0], B), ValueError, "a: its last axis"),
        ((A, B, -1), ValueError, "a_zero_point: must be within the range of uint8, got -1"),
        ((A, B, 256), ValueError, "a_zero_point"),
        ((A, B, 2**80), ValueError, "a_zero_point"),
        ((A, B, 1.5), TypeError, "a_zero_point: expected one integer"),
        ((A, B, True), TypeError, "a_zero_point: expected one integer"),
        ((A, B, None), TypeError, "a_zero_point: expected one integer"),
        ((A, B, np.zeros(3, int)), TypeError, "a_zero_point"),
        ((A, B, 0, 128), ValueError, "b_zero_point: must be within the range of int8, got 128"),
        ((A, B, 0, np.array([0, 0, -129, 0, 0])), ValueError, "b_zero_point: .* int8, got -129 at index 2"),
        ((A, B, 0, np.zeros(4, int)), ValueError, r"b_zero_point: shape must be \(5,\), got \(4,\)"),
        ((A, B, 0, np.zeros(5)), TypeError, "b_zero_point: expected integers"),
        ((A, B, 0, "x"), TypeError, "b_zero_point"),
        ((A, B, 0, 0, np.zeros((3, 5), np.int64)), ValueError, "out: dtype must be int32, got int64"),
        ((A, B, 0, 0, np.zeros((5, 3), np.int32)), ValueError, r"out: shape must be \(3, 5\), got \(5, 3\)"),
        ((A, B, 0, 0, np.zeros((5, 3), np.int32).T), ValueError, "out: must be C-contiguous"),
        ((A, B, 0, 0, read_only(np.zeros((3, 5), np.int32))), ValueError, "out: must be writeable"),
        ((A, B, 0, 0, [1]), TypeError, "out: expected an ndarray"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input(arguments, error, words):
    with pytest.raises(error, match=words):
        nq.matmul_integer(*arguments)


def test_out_must_not_overlap():
    memory = np.zeros(60, np.int32)
    out = memory.reshape(3, 20)
    with pytest.raises(ValueError, match="out overlaps a"):
        nq.matmul_integer(memory.view(np.uint8)[:12].reshape(3, 4), np.zeros((4, 20), np.int8), out=out)
    with pytest.raises(ValueError, match="out overlaps b"):
        nq.matmul_integer(A, memory.view(np.int8)[:80].reshape(4, 20), out=out)


def test_overflow_is_refused_by_column(backend):
    fits, too_long = 2**31 // (255 * 255), 2**31 // (255 * 255) + 1
    a, b = np.full((1, too_long), 255, np.uint8), np.zeros((too_long, 3), np.uint8)
    b[:, 1] = 255
    with pytest.raises(nq.QuantizationError, match="b: channel 1 could pass the range of int32"):
        nq.matmul_integer(a, b)
    assert nq.matmul_integer(a[:, :fits], b[:fits]).tolist() == [[0, fits * 255 * 255, 0]]
    assert nq.matmul_integer(a, b, b_zero_point=128).tolist() == [
        [-128 * 255 * too_long, 127 * 255 * too_long, -128 * 255 * too_long]
    ]


def test_huge_broadcast_is_out_of_memory():
    b = np.broadcast_to(np.int8(0), (2**40, 2**20))
    with pytest.raises(MemoryError):
        nq.matmul_integer(np.broadcast_to(np.uint8(0), (0, 2**40)), b)


GUARD_SCRIPT = """
import sys
import numpy as np
import ndquant as nq
from tests.guard import guarded
from tests.test_gemm import DTYPES, expected, random_codes

rng = np.random.default_rng(1)
with nq.backend(sys.argv[1]):
    for size in range(1, 71):
        for side in ("begin", "end"):
            for a_type in DTYPES:
                rows, outputs = 1 + size % 14, 1 + size * 7 % 40
                a = guarded(random_codes(rng, (rows, size), a_type), side)
                b = guarded(random_codes(rng, (size, outputs), np.int8), side)
                b[0, 0] = -128
                w = guarded(random_codes(rng, (outputs, size), np.int8), side)
                out = guarded(np.zeros((rows, outputs), np.int32), side)
                assert (nq.matmul_integer(a, b, 3, 4, out=out) == expected(a, b, 3, 4)).all()
                assert (nq.matmul_integer(a, w.T, out=out) == expected(a, w.T)).all()
                small = guarded(w & 15, side)
                assert (nq.matmul_integer(a, small.T, out=out) == expected(a, small.T)).all()
    for rows, size, outputs in ((97, 514, 129), (96, 1034, 128)):
        for side in ("begin", "end"):
            a, b = (guarded(random_codes(rng, s, np.int8), side) for s in ((rows, size), (size, outputs)))
            out = guarded(np.zeros((rows, outputs), np.int32), side)
            assert (nq.matmul_integer(a, b, 3, out=out) == expected(a, b, 3)).all()
"""


def test_nothing_outside_a_buffer_is_touched(backend):
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", GUARD_SCRIPT, backend]
    # An emulated processor takes minutes.
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=900, check=False)
    assert result.returncode == 0, f"exit code {result.returncode}\n{result.stderr}"
