"""Codes of a few bits side by side in bytes, against the twin and NumPy's packbits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ndquant as nq
from ndquant import reference

SPECS = [nq.QuantSpec(bits, signed, symmetric=False) for bits in range(1, 9) for signed in (False, True)]
SPECS += [nq.QuantSpec(4, narrow_range=True), nq.QuantSpec(2, narrow_range=True)]
#: Rows of nothing, of less than a byte, around vectors, and longer than what a thread takes at a time.
SHAPES = ((0,), (1,), (3, 0), (0, 3), (2, 3, 5), (7, 8), (5, 1), (300, 2), (4, 131), (1, 1025), (2, 70001), (200_003,))


def random_codes(rng, spec, shape):
    return rng.integers(spec.qmin, spec.qmax, shape, endpoint=True).astype(spec.dtype)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.qmin}..{spec.qmax}")
def test_is_what_the_twin_gives_and_comes_back(backend, rng, spec):
    for shape in SHAPES:
        q = random_codes(rng, spec, shape)
        packed = nq.pack_codes(q, spec)
        assert packed.dtype == np.uint8
        np.testing.assert_array_equal(packed, reference.pack_codes(q, spec.bits, spec.qmin))
        back = nq.unpack_codes(packed, spec, shape[-1])
        assert back.dtype == spec.dtype
        np.testing.assert_array_equal(back, q)
        np.testing.assert_array_equal(reference.unpack_codes(packed, spec.bits, spec.qmin, shape[-1]), q)


@given(data=st.data(), spec=st.sampled_from(SPECS), shape=st.lists(st.integers(0, 40), min_size=1, max_size=3))
def test_any_shape_and_any_bytes(data, spec, shape):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    q = random_codes(rng, spec, shape)[..., ::-1]
    packed = nq.pack_codes(q, spec)
    np.testing.assert_array_equal(packed, reference.pack_codes(q, spec.bits, spec.qmin))
    wild = rng.integers(0, 256, packed.shape, np.uint8)
    expected = reference.unpack_codes(wild, spec.bits, spec.qmin, shape[-1])
    if (expected > spec.qmax).any():
        with pytest.raises(ValueError, match=f"packed: a code is above {spec.qmax}"):
            nq.unpack_codes(wild, spec, shape[-1])
    else:
        np.testing.assert_array_equal(nq.unpack_codes(wild, spec, shape[-1]), expected)


def test_one_bit_is_packbits(rng):
    q = rng.integers(0, 2, (3, 101), np.uint8)
    np.testing.assert_array_equal(
        nq.pack_codes(q, nq.QuantSpec(1, signed=False, symmetric=False)), np.packbits(q, axis=1)
    )


def test_outputs_are_filled_and_returned(rng):
    spec = nq.QuantSpec(2)
    q, packed, codes = random_codes(rng, spec, (3, 9)), np.full((3, 3), 99, np.uint8), np.zeros((3, 9), np.int8)
    assert nq.pack_codes(q, spec, out=packed) is packed
    assert nq.unpack_codes(packed, spec, 9, out=codes) is codes
    np.testing.assert_array_equal(codes, q)


def test_bytes_are_the_same_on_any_number_of_threads(backend, rng, threads):
    spec, packed = nq.QuantSpec(4), set()
    q = random_codes(rng, spec, (3, 400_001))
    for count in (1, 2, 4):
        threads(count)
        packed.add(nq.pack_codes(q, spec).tobytes())
    assert len(packed) == 1


@pytest.mark.parametrize("value", [-9, 8, 127, -128])
@pytest.mark.parametrize("at", [0, 17, 32])
def test_what_is_no_code_is_named(backend, value, at):
    q = np.zeros((2, 33), np.int8)
    q[1, at] = value
    with pytest.raises(ValueError, match=f"codes: must be -8 to 7, got {value}$"):
        nq.pack_codes(q, nq.QuantSpec(4))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda s: nq.pack_codes(np.zeros(3, np.uint8), s), TypeError, "codes: expected .*int8, got dtype uint8"),
        (lambda s: nq.pack_codes(np.zeros(3, np.int16), s), TypeError, "codes: .*int16"),
        (lambda s: nq.pack_codes(np.int8(3), s), ValueError, "codes: expected at least 1 dimension, got 0"),
        (lambda s: nq.pack_codes(np.zeros(3, np.int8), 4), TypeError, "spec: expected a QuantSpec, got int"),
        (lambda s: nq.pack_codes(np.zeros(3, np.int8), nq.QuantSpec(9)), ValueError, "spec: .*at most 8 bits.*got 9"),
        (lambda s: nq.unpack_codes(np.zeros(3, np.int8), s, 6), TypeError, "packed: expected .*uint8"),
        (lambda s: nq.unpack_codes(np.zeros(3, np.uint8), s, 7), ValueError, "3 bytes do not hold 7 codes of 4 bits"),
        (lambda s: nq.unpack_codes(np.zeros(3, np.uint8), s, 4), ValueError, "3 bytes do not hold 4 codes of 4 bits"),
        (lambda s: nq.unpack_codes(np.zeros(3, np.uint8), s, -1), ValueError, "do not hold -1 codes"),
        (lambda s: nq.pack_codes(np.zeros(4, np.int8), s, out=np.zeros(3, np.uint8)), ValueError, "out: shape"),
        (lambda s: nq.pack_codes(*overlapping(s)), ValueError, "overlap"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call(nq.QuantSpec(4))


def overlapping(spec):
    memory = np.zeros(8, np.int8)
    return memory, spec, memory[:4].view(np.uint8)
