"""Codes of 32 bits against `torch.qint32`, up to 2^24: golden/qint32.npz is written by golden/make_golden_qint32.py.

PyTorch computes these in float32, ndquant in float64. Where float32 is exact they agree, but for ties with an odd zero
point, where `quantize_per_tensor` rounds after adding it. Elsewhere PyTorch's error reaches a code.
"""

from pathlib import Path

import numpy as np
import pytest

import ndquant as nq

GOLDEN = np.load(Path(__file__).parent / "golden" / "qint32.npz")
SPEC = nq.QuantSpec(32, symmetric=False)
#: Codes of scales that are no powers of two, half of them near ties, and how many differ from PyTorch's.
CODES, CODES_THAT_DIFFER = 2505, 742


def cases(name):
    """Yield (x, q, y, QParams) for each setting."""
    arrays = (GOLDEN[f"{name}/{key}"] for key in (*"xqy", "scale", "zero_point"))
    for x, q, y, scale, zero_point in zip(*arrays, strict=True):
        yield x, q, y, nq.QParams(scale, zero_point, SPEC, profile="torch")


def test_the_codes_reach_2_to_the_24():
    largest = max(abs(q).max() for name in ("exact", "rounded") for _, q, _, _ in cases(name))
    assert largest == 2**24


def test_codes_agree_where_float32_is_exact(backend):
    for x, q, _, qp in cases("exact"):
        difference = nq.quantize(x, qp).astype(np.int64) - q
        quotient = x.astype(np.float64) / float(qp.scale)
        is_tie = quotient != np.rint(quotient)
        if qp.zero_point % 2 == 0:
            assert not difference.any()
        else:
            np.testing.assert_array_equal(abs(difference), is_tie)


def test_codes_differ_by_one_at_most_elsewhere(backend):
    count = differ = 0
    for x, q, _, qp in cases("rounded"):
        found = nq.quantize(x, qp).astype(np.int64)
        exact = np.rint(x.astype(np.float64) * (1 / np.float64(qp.scale))) + qp.zero_point
        np.testing.assert_array_equal(found, exact)
        assert abs(found - q).max() <= 1
        count, differ = count + q.size, differ + np.count_nonzero(found != q)
    assert (count, differ) == (CODES, CODES_THAT_DIFFER)


@pytest.mark.parametrize("name", ["exact", "rounded"])
def test_the_values_of_codes_agree_everywhere(backend, name):
    """Codes less zero points of 25 bits times scales of 24 are exact in float64, and rounded once by both."""
    for _, q, y, qp in cases(name):
        found = nq.dequantize(q, qp)
        assert found.dtype == y.dtype == np.float32
        np.testing.assert_array_equal(found, y)
