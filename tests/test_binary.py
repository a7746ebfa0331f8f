"""Products and convolutions of signs, a bit each, against their twins."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ndquant as nq
from ndquant import _core, reference

#: (M, N, K): nothing, one, sizes around tiles and panels, lengths around bytes, words and the sums of bytes.
SHAPES = (
    (0, 3, 5),
    (3, 0, 5),
    (3, 4, 0),
    (1, 1, 1),
    (2, 3, 7),
    (3, 63, 8),
    (4, 64, 9),
    (5, 65, 63),
    (7, 16, 64),
    (8, 17, 65),
    (9, 130, 247),
    (4, 5, 248),
    (13, 8, 249),
    (2, 66, 1000),
    (33, 70, 2050),
)

#: (x shape with channels last, outputs, window, stride, padding, dilation).
CONVOLUTIONS = (
    ((1, 1, 1, 1), 1, (1, 1), (1, 1), (0, 0), (1, 1)),
    ((2, 5, 7, 3), 4, (3, 3), (1, 1), (1, 1), (1, 1)),
    ((1, 9, 9, 8), 17, (3, 3), (2, 2), (1, 1), (1, 1)),
    ((3, 8, 8, 16), 65, (3, 3), (1, 1), (1, 1), (1, 1)),
    ((2, 1, 40, 5), 6, (1, 5), (1, 1), (0, 2), (1, 1)),
    ((1, 4, 3, 2), 3, (4, 3), (1, 1), (0, 0), (1, 1)),
    ((1, 2, 3, 2), 5, (2, 2), (2, 1), (5, 4), (1, 1)),
    ((1, 13, 11, 70), 9, (3, 2), (1, 2), (2, 3), (3, 4)),
    ((2, 7, 8, 9), 12, (1, 1), (2, 3), (1, 0), (1, 1)),
    ((0, 5, 5, 3), 4, (3, 3), (1, 1), (1, 1), (1, 1)),
    ((2, 5, 5, 3), 0, (3, 3), (1, 1), (1, 1), (1, 1)),
    ((1, 5, 5, 0), 3, (3, 3), (1, 1), (1, 1), (1, 1)),
)


def random_bits(rng, *shape):
    """Bytes that hold `shape[-1]` bits in each row; those that are left are anything."""
    return rng.integers(0, 256, (*shape[:-1], -(-shape[-1] // 8)), np.uint8)


def same(found, expected):
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)


class TestProducts:
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_are_what_the_twin_gives(self, backend, rng, shape):
        rows, outputs, length = shape
        a, w = random_bits(rng, rows, length), random_bits(rng, outputs, length)
        same(nq.matmul_binary(a, w, length), reference.matmul_binary(a, w, length))

    @given(data=st.data(), rows=st.integers(0, 12), outputs=st.integers(0, 140), length=st.integers(0, 600))
    def test_of_any_shape(self, data, rows, outputs, length):
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
        a, w = random_bits(rng, rows, length), random_bits(rng, outputs, length)
        with nq.backend(data.draw(st.sampled_from(_core.available_backends()))):
            same(nq.matmul_binary(a, w, length), reference.matmul_binary(a, w, length))

    def test_are_those_of_codes(self, backend, rng):
        a, w = (np.sign(rng.standard_normal((n, 301))).astype(np.int8) for n in (9, 20))
        spec = nq.QuantSpec(1, signed=False, symmetric=False)
        bits = (nq.pack_codes((signs > 0).astype(np.uint8), spec) for signs in (a, w))
        same(nq.matmul_binary(*bits, 301), nq.matmul_integer(a, w.T))

    def test_at_the_extremes(self, backend):
        ones, zeros = np.full((5, 500), 255, np.uint8), np.zeros((70, 500), np.uint8)
        same(nq.matmul_binary(ones, zeros, 4000), np.full((5, 70), -4000))
        same(nq.matmul_binary(zeros, zeros, 4000), np.full((70, 70), 4000))

    def test_are_the_same_on_any_number_of_threads(self, backend, rng, threads):
        for rows, outputs in ((300, 130), (1, 4000)):
            a, w, found = random_bits(rng, rows, 3000), random_bits(rng, outputs, 3000), set()
            for count in (1, 2, 4):
                threads(count)
                found.add(nq.matmul_binary(a, w, 3000).tobytes())
            assert len(found) == 1

    def test_take_strides_axes_and_out(self, rng):
        a, w = random_bits(rng, 4, 3, 160)[:, ::-1, ::2], random_bits(rng, 5, 80)
        out = np.zeros((4, 3, 5), np.int32)
        assert nq.matmul_binary(a, w, 79, out=out) is out
        same(out, reference.matmul_binary(a, w, 79))


class TestConvolutions:
    @pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
    def test_are_what_the_twin_gives(self, backend, rng, case):
        shape, outputs, window, *geometry = case
        x, w = random_bits(rng, *shape), random_bits(rng, outputs, *window, shape[3])
        found = nq.conv2d_binary(x, w, shape[3], *geometry)
        same(found, reference.conv2d_binary(x, w, shape[3], *geometry))

    def test_padding_adds_nothing(self, rng):
        """As in a convolution of codes -1 and +1 with zeros around."""
        x, w = random_bits(rng, 2, 6, 7, 20), random_bits(rng, 5, 3, 3, 20)
        codes, taps = (reference.signs(bits, 20).astype(np.int8).transpose(0, 3, 1, 2) for bits in (x, w))
        expected = nq.conv2d_integer(codes, taps, padding=1)
        same(nq.conv2d_binary(x, w, 20, padding=1).transpose(0, 3, 1, 2), expected)

    def test_are_the_same_on_any_number_of_threads(self, backend, rng, threads):
        x, w, found = random_bits(rng, 2, 20, 20, 64), random_bits(rng, 70, 3, 3, 64), set()
        for count in (1, 2, 4):
            threads(count)
            found.add(nq.conv2d_binary(x, w, 64, padding=1).tobytes())
        assert len(found) == 1


A = np.zeros((3, 5), np.uint8)
X, W = np.zeros((1, 4, 4, 2), np.uint8), np.zeros((3, 3, 3, 2), np.uint8)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: nq.matmul_binary(A.view(np.int8), A, 40), TypeError, "a: expected .*uint8, got dtype int8"),
        (lambda: nq.matmul_binary(A, A, 41), ValueError, "a: .* 6 bytes for 41 bits"),
        (lambda: nq.matmul_binary(A, A[:, 1:], 40), ValueError, "w: .* 5 bytes for 40 bits"),
        (lambda: nq.matmul_binary(A, A, -1), ValueError, "for -1 bits"),
        (lambda: nq.matmul_binary(A, A[0], 40), ValueError, "w: expected at least 2 dimensions"),
        (lambda: nq.matmul_binary(np.uint8(3), A, 40), ValueError, "a: expected at least 1 dimensions"),
        (lambda: nq.matmul_binary(A, A, 40, out=np.zeros((3, 3))), ValueError, "out: dtype must be int32"),
        (lambda: nq.conv2d_binary(A, W, 16), ValueError, "x: expected at least 4 dimensions"),
        (lambda: nq.conv2d_binary(X, W, 17), ValueError, "x: .* 3 bytes for 17 bits"),
        (lambda: nq.conv2d_binary(X[:, :2], W, 16), ValueError, "w: a window of 3 rows"),
        (lambda: nq.conv2d_binary(X, W, 16, stride=0), ValueError, "stride: must be at least 1, got 0"),
        (lambda: nq.conv2d_binary(X, W, 16, padding=1.5), TypeError, "padding: expected an int"),
        (lambda: nq.conv2d_binary(X, W, 16, out=np.zeros((1, 2, 2, 4), np.int32)), ValueError, "out: shape"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_more_inputs_than_int32_counts_are_refused():
    images = np.zeros((0, 20_000, 20_000, 1), np.uint8)
    with pytest.raises(nq.QuantizationError, match="w: 3200000000 inputs of an output pass the range of int32"):
        nq.conv2d_binary(images, images, 8)
