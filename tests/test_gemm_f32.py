"""Float32 products on every backend against the twin, bit for bit."""

from __future__ import annotations

import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import ndquant as nq
from ndquant import _core, reference
from ndquant.functional import matmul_f32

from .cases import GEMM_SHAPES, assert_same_bits, edge_values, random_qparams
from .examples import examples
from .test_gemm import LAYOUTS, in_strides, random_codes

F32 = np.float32
PER_ROW = nq.QuantSpec(8, axis=0)
SPECS = (
    nq.QuantSpec(8),
    nq.QuantSpec(8, signed=False, symmetric=False),
    PER_ROW,
    nq.QuantSpec(4, signed=False, axis=0),
)


def random_floats(rng, shape):
    """Values of very different size, so that every order of adding and every extra rounding shows."""
    return np.ldexp(rng.standard_normal(shape, F32), rng.integers(-8, 9, shape)).astype(F32)


def random_terms(rng, shape, spec):
    """Codes of that shape and their QParams."""
    qparams = random_qparams(rng, spec, shape)
    return random_codes(rng, shape, np.int8 if spec.signed else np.uint8), qparams


@pytest.mark.parametrize("shape", GEMM_SHAPES, ids=str)
def test_product_is_the_chain(backend, rng, shape):
    rows, columns, inner = shape
    a, b = random_floats(rng, (rows, inner)), random_floats(rng, (inner, columns))
    wanted = reference.matmul_f32(a, b)
    assert_same_bits(matmul_f32(a, b), wanted)
    assert_same_bits(matmul_f32(a.T.copy().T, b), wanted)
    assert_same_bits(matmul_f32(a, b.T.copy().T), wanted)
    if inner:
        for spec in SPECS:
            codes, qparams = random_terms(rng, (inner, columns), spec)
            assert_same_bits(matmul_f32(a, codes, qparams), reference.matmul_f32(a, nq.dequantize(codes, qparams)))


@pytest.mark.parametrize("backend_name", _core.available_backends())
@given(data=st.data())
@settings(max_examples=examples(40))
def test_any_shape_and_strides(backend_name, data):
    rows, columns, inner = (data.draw(st.integers(0, most)) for most in (30, 70, 300))
    spec = data.draw(st.sampled_from((None, *SPECS)))
    layouts = [data.draw(st.sampled_from(LAYOUTS)) for _ in range(2)]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    a, b, qparams = random_floats(rng, (rows, inner)), random_floats(rng, (inner, columns)), None
    real = b
    if spec is not None and inner:
        b, qparams = random_terms(rng, (inner, columns), spec)
        real = nq.dequantize(b, qparams)
    with nq.backend(backend_name):
        found = matmul_f32(in_strides(a, layouts[0]), in_strides(b, layouts[1]), qparams)
    assert_same_bits(found, reference.matmul_f32(a, real))


#: Several blocks of K, N and M; rows that share a set of the cache; rows that are scattered over pages.
@pytest.mark.parametrize("shape", [(100, 50, 1024), (9, 1100, 300), (200, 40, 600)], ids=str)
def test_blocks_and_threads_do_not_change_bits(backend, rng, threads, shape):
    rows, columns, inner = shape
    a, b = random_floats(rng, (rows, inner)), random_floats(rng, (inner, columns))
    codes, qparams = random_terms(rng, (inner, columns), PER_ROW)
    wanted = reference.matmul_f32(a, b), reference.matmul_f32(a, nq.dequantize(codes, qparams))
    for count in (1, 2, 4):
        threads(count)
        assert_same_bits(matmul_f32(a, b), wanted[0])
        assert_same_bits(matmul_f32(a.T.copy().T, b.T.copy().T), wanted[0])
        assert_same_bits(matmul_f32(a, codes, qparams), wanted[1])


def exactly(a, b, c):
    """``a * b + c`` rounded once, in rational arithmetic."""
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    if exact == 0:
        return F32(float(a) * float(b) + float(c))
    step = Fraction(2) ** max(math.frexp(float(exact))[1] - 24, -149)  # of float32 at this size
    steps = exact / step
    return F32(math.copysign(round(steps) * step, exact))  # round() of a Fraction takes ties to even


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


class TestFusedMultiplyAdd:
    @given(FLOATS, FLOATS, FLOATS)
    @example(1 + 2**-12, 1 + 2**-12, -1 - 2**-11)
    @example(1 + 2**-23, 1 - 2**-23, -1.0)
    @example(1 + 2**-12, 1 + 2**-12, 2**-24)  # beside a tie of float32
    @example(1.0, 2**24 + 2, 2**-100)  # a tie but for a bit far away
    @example(2**-140, 2**-9, 2**-149)
    @example(-1.0, 0.0, 0.0)
    def test_the_twin_rounds_once(self, a, b, c):
        a, b, c = F32(a), F32(b), F32(c)
        with np.errstate(over="ignore"):
            assert_same_bits(reference.fused_multiply_add(a, b, c), exactly(a, b, c))

    @pytest.mark.parametrize("size", [2.0**-23, 2.0**-149], ids=["normal", "subnormal"])
    def test_sums_that_float64_takes_for_ties(self, backend, rng, size):
        """Half a step of a float32, but for less than float64 sees: rounded twice they would go the wrong way."""
        a = F32(1) + rng.random(40_000, F32)
        b = F32(1) / a
        error = np.abs(a.astype(float) * b - 1)
        a, b = (x[(0 < error) & (error < 2.0**-30)] for x in (a, b))
        a, b = np.ldexp(a, math.frexp(size)[1] // 2 - 1), np.ldexp(b, -(-math.frexp(size)[1] // 2) - 1)
        assert len(a) > 200 and np.allclose(a.astype(float) * b, size / 2, rtol=1e-8)
        steps = rng.integers(1, 100, len(a)) + (2**23 if size > 1e-9 else 2**22)
        c = (rng.choice([-1, 1], len(a)) * steps * size).astype(F32)
        found = np.array([matmul_f32(F32([[1, x]]), F32([[z], [y]]))[0, 0] for x, y, z in zip(a, b, c, strict=True)])
        assert_same_bits(found, np.array([exactly(*abc) for abc in zip(a, b, c, strict=True)]))
        assert_same_bits(reference.fused_multiply_add(a, b, c), found)
        twice = (a.astype(float) * b + c).astype(F32)
        assert np.count_nonzero(twice != found) > 50

    def test_what_is_not_finite(self, backend):
        """Infinities, NaN, overflow, the smallest numbers and signed zeros, each with each."""
        edges = edge_values(F32)
        a, b = (m.reshape(1, -1) for m in np.meshgrid(edges, edges))
        first, second = np.concatenate([np.ones_like(a), a]).T, np.concatenate([b, b[:, ::-1]])
        found = matmul_f32(first, second)
        with np.errstate(invalid="ignore", over="ignore"):
            wanted = reference.matmul_f32(first, second)
        np.testing.assert_array_equal(found, wanted)


def test_out_is_filled_and_returned(backend, rng):
    a, b = random_floats(rng, (7, 20)), random_floats(rng, (20, 5))
    room = np.full((9, 5), -1, F32)
    assert matmul_f32(a, b, out=room[1:8]).base is room
    assert_same_bits(room[1:8], reference.matmul_f32(a, b))
    assert (room[[0, 8]] == -1).all()


def test_other_floats_are_converted(rng):
    a, b = rng.standard_normal((3, 4)), rng.standard_normal((4, 5)).astype(np.float16)
    assert_same_bits(matmul_f32(a, b), reference.matmul_f32(a.astype(F32), b.astype(F32)))


A, B = np.zeros((3, 4), F32), np.zeros((4, 5), F32)
CODES, QPARAMS = np.zeros((4, 5), np.int8), nq.QParams(0.5, 0, nq.QuantSpec())
FIVE = np.ones(5), np.zeros(5, int)


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ((A.astype(int), B), TypeError, "a: expected floating-point"),
        ((A, CODES), TypeError, "b: expected floating-point"),
        ((A[0], B), ValueError, "a: expected 2 dimensions, got 1"),
        ((A, B[None]), ValueError, "b: expected 2 dimensions, got 3"),
        ((A, B[1:]), ValueError, "a: has 4 columns, b has 3 rows"),
        ((A, CODES.view(np.uint8), QPARAMS), TypeError, "b: expected codes of its QParams, int8, got dtype uint8"),
        ((A, CODES, 0.5), TypeError, "qparams: expected a QParams"),
        ((A, CODES, nq.QParams(*FIVE, nq.QuantSpec(axis=1))), ValueError, "axis must be None or 0"),
        ((A, CODES, nq.QParams(*FIVE, PER_ROW)), ValueError, "b: axis 0 must have 5 elements"),
        ((A, B, None, np.zeros((3, 5))), ValueError, "out: dtype must be float32, got float64"),
        ((A, B, None, np.zeros((5, 3), F32)), ValueError, "out: shape must be"),
        ((A, B, None, A), ValueError, "out: shape must be"),
        ((np.zeros((4, 4), F32),) * 2 + (None, [1]), TypeError, "out: expected an ndarray"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input(arguments, error, words):
    with pytest.raises(error, match=words):
        matmul_f32(*arguments)


def test_out_must_not_overlap():
    square = np.zeros((4, 4), F32)
    for a, b, name in ((square, square.copy(), "a"), (square.copy(), square, "b")):
        with pytest.raises(ValueError, match=f"out overlaps {name}"):
            matmul_f32(a, b, out=square)


def test_huge_broadcast_is_out_of_memory():
    with pytest.raises(MemoryError):
        matmul_f32(np.broadcast_to(F32(0), (2**40, 1)), np.broadcast_to(F32(0), (1, 2**20)))


GUARD_SCRIPT = """
import sys
import numpy as np
import ndquant as nq
from ndquant import reference
from ndquant.functional import matmul_f32
from tests.guard import guarded
from tests.test_gemm_f32 import F32, SPECS, random_floats, random_terms

rng = np.random.default_rng(1)
with nq.backend(sys.argv[1]):
    for size in range(1, 71):
        for side in ("begin", "end"):
            rows, columns = 1 + size % 14, 1 + size * 7 % 40
            a, b = random_floats(rng, (rows, size)), random_floats(rng, (size, columns))
            out = guarded(np.zeros((rows, columns), F32), side)
            for left in (guarded(a, side), guarded(a.T, side).T):
                for right in (guarded(b, side), guarded(b.T, side).T):
                    assert (matmul_f32(left, right, out=out) == reference.matmul_f32(a, b)).all()
            codes, qparams = random_terms(rng, (size, columns), SPECS[size % 4])
            wanted = reference.matmul_f32(a, nq.dequantize(codes, qparams))
            assert (matmul_f32(a, guarded(codes, side), qparams, out=out) == wanted).all()
"""


def test_nothing_outside_a_buffer_is_touched(backend):
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", GUARD_SCRIPT, backend]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=900, check=False)
    assert result.returncode == 0, f"exit code {result.returncode}\n{result.stderr}"
