"""Softmax, layer normalization, GELU and attention on floats: the twins, other definitions, ends, bad arguments."""

from math import erf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndquant import _core, reference, rows

from .cases import assert_same_bits
from .examples import examples

F32 = np.float32
LENGTHS = (1, 2, 15, 16, 17, 50, 333)
ENDS = np.float32([0, -0.0, 1e-38, -1e-38, 1e-7, 4, -4, 20, -20, 86.9, -87, -87.1, 88, -200, 1e19, -1e19, 3e38, -3e38])


def normal(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(F32)


def masked(shape, seed=0):
    """Return a mask with holes, and a row in which nothing is left."""
    mask = np.where(np.random.default_rng(seed).random(shape) < 0.3, F32(-np.inf), F32(0))
    mask[..., 0, :] = -np.inf
    return mask


class TestSoftmax:
    @pytest.mark.parametrize("length", LENGTHS)
    def test_twin(self, backend, length):
        x = 8 * normal((5, length)) - 100
        x[1] = -np.inf
        x[2, ::2] = -np.inf
        assert_same_bits(rows.softmax(x), reference.softmax_rows(x))

    def test_ends(self, backend):
        x = np.stack([np.roll(ENDS, i) for i in range(4)])
        assert_same_bits(rows.softmax(x), reference.softmax_rows(x))

    @given(st.integers(1, 6), st.integers(1, 70), st.integers(0, 2**32 - 1), st.integers(-8, 8))
    @settings(max_examples=examples(60))
    def test_any_shape(self, count, length, seed, exponent):
        x = normal((count, length), seed) * F32(2.0**exponent)
        y = rows.softmax(x)
        assert_same_bits(y, reference.softmax_rows(x))
        e = np.exp(x.astype(float) - x.max(axis=1, keepdims=True))
        near = 4e-7 + 1e-7 * float(np.abs(x).max())  # of differences of large numbers
        np.testing.assert_allclose(y, e / e.sum(axis=1, keepdims=True), rtol=near, atol=1e-37)

    def test_nan_is_not_hidden(self, backend):
        y = rows.softmax(np.float32([[0, np.nan, 1], [0, 0, 0]]))
        assert np.isnan(y[0]).all() and np.isfinite(y[1]).all()


class TestLayerNorm:
    @pytest.mark.parametrize("length", LENGTHS)
    def test_twin(self, backend, length):
        x, weight, bias = 3 * normal((5, length)) + 2, normal(length, 1), normal(length, 2)
        x[3] = 7
        y, stats = rows.layer_norm(x, weight, bias, 1e-5)
        assert_same_bits(y, reference.layer_norm_rows(x, weight, bias, 1e-5))
        np.testing.assert_allclose(stats[:, 0], x.mean(axis=1), rtol=1e-5, atol=1e-6)

    @given(st.integers(1, 6), st.integers(1, 300), st.integers(0, 2**32 - 1), st.integers(-20, 20))
    @settings(max_examples=examples(60))
    def test_any_shape(self, count, length, seed, exponent):
        x = normal((count, length), seed) * F32(2.0**exponent)
        y, _ = rows.layer_norm(x)
        ones, zeros = np.ones(length, F32), np.zeros(length, F32)
        assert_same_bits(y, reference.layer_norm_rows(x, ones, zeros, 1e-5))
        wide = x.astype(float)
        away = wide - wide.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(y, away / np.sqrt((away**2).mean(axis=1, keepdims=True) + 1e-5), atol=3e-5)

    def test_rows_far_from_zero_keep_their_digits(self):
        x = F32(1000) + normal((4, 4096))
        wide = x.astype(float)
        away = wide - wide.mean(axis=1, keepdims=True)
        truth = away / np.sqrt((away**2).mean(axis=1, keepdims=True) + 1e-5)
        np.testing.assert_allclose(rows.layer_norm(x)[0], truth, atol=1e-4)


class TestGelu:
    @pytest.mark.parametrize("approximate", ["none", "tanh"])
    def test_twin(self, backend, approximate):
        x = np.concatenate([ENDS, 4 * normal(1001)])
        assert_same_bits(rows.gelu(x, approximate), reference.gelu(x, approximate))

    def test_it_is_near_its_definition(self):
        x = np.linspace(-15, 15, 20_001).astype(F32)
        truth = np.array([v * (1 + erf(v / 2**0.5)) / 2 for v in x.astype(float)])
        np.testing.assert_allclose(rows.gelu(x), truth, rtol=3e-7, atol=3e-7)
        inner = (2 / np.pi) ** 0.5 * (x.astype(float) + 0.044715 * x.astype(float) ** 3)
        np.testing.assert_allclose(rows.gelu(x, "tanh"), x * (1 + np.tanh(inner)) / 2, rtol=3e-7, atol=3e-7)

    def test_nan_and_infinity(self, backend):
        x = np.float32([np.nan, np.inf])
        for approximate in ("none", "tanh"):
            y = rows.gelu(x, approximate)
            assert np.isnan(y[0]) and y[1] == np.inf


class TestAttention:
    @pytest.mark.parametrize(("N", "L", "S", "heads", "D"), [(1, 1, 1, 1, 1), (2, 5, 7, 3, 4), (3, 17, 9, 2, 16)])
    @pytest.mark.parametrize("masks", [None, 1, "N"])
    def test_twin(self, backend, N, L, S, heads, D, masks):
        q, k, v = normal((N, L, heads * D)), normal((N, S, heads * D), 1), normal((N, S, heads * D), 2)
        mask = None if masks is None else masked((N if masks == "N" else 1, L, S))
        found, truth = (f(q, k, v, heads, mask) for f in (rows.attention, reference.attention))
        for a, b in zip(found, truth, strict=True):
            assert_same_bits(a, b)
        if masks is not None:
            assert not found[0][:, 0].any()  # a query that may look nowhere

    def test_any_strides_are_read_in_place(self):
        joined = normal((2, 6, 24))
        q, k, v = (joined[:, :, i * 8 : (i + 1) * 8] for i in range(3))
        y, _ = rows.attention(q, k, v, 2)
        assert_same_bits(y, rows.attention(*map(np.ascontiguousarray, (q, k, v)), 2)[0])

    @pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4)])
    def test_nothing_to_look_at(self, shape):
        x = np.zeros(shape, F32)
        assert rows.attention(x, x, x, 2)[0].shape == shape
        if shape[0]:
            assert not rows.attention(np.ones((2, 3, 4), F32), x, x, 2)[0].any()

    def test_threads_change_nothing(self, threads):
        x = normal((2, 150, 256))
        threads(1)
        alone = rows.attention(x, x, x, 2)[0]
        threads(4)
        assert_same_bits(rows.attention(x, x, x, 2)[0], alone)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: rows.softmax(F32(1)), ValueError, "x: expected rows"),
        (lambda x: rows.softmax(x[:, :0]), ValueError, "x: expected rows"),
        (lambda x: rows.softmax(x.astype(int)), TypeError, "x: "),
        (lambda x: rows.softmax(x, x), ValueError, "out"),
        (lambda x: rows.layer_norm(x, weight=np.ones(3, F32)), ValueError, "gain: "),
        (lambda x: rows.layer_norm(x, bias=np.ones(3, F32)), ValueError, "offset: "),
        (lambda x: rows.layer_norm(x, eps="1"), TypeError, "eps"),
        (lambda x: rows.gelu(x, out=np.zeros(3, F32)), ValueError, "out: "),
        (lambda x: rows.attention(x, x, x, 1), ValueError, "q: expected 3 dimensions"),
        (lambda x: rows.attention(x[None], x[None], x[None], 3), ValueError, "heads: 3 do not divide 4 features"),
        (lambda x: rows.attention(x[None], x[None], x[None], 0), ValueError, "heads: 0"),
        (lambda x: rows.attention(x[None], x[None, :, :2], x[None], 2), ValueError, "k: "),
        (lambda x: rows.attention(x[None], x[None], x[None, :1], 2), ValueError, "v: "),
        (lambda x: rows.attention(x[None], x[None], x[None], 2, np.zeros((2, 2))), ValueError, "mask: "),
        (lambda x: rows.attention(x[None], x[None], x[None], 2, out=x), ValueError, "out: "),
        (lambda x: _core.attention_f32(x[None], x[None], x[None], "2", None, None), TypeError, "int"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call(np.zeros((3, 4), F32))
