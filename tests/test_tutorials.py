"""The numbers that two NumPy tutorials print come out of profile `textbook` on the arrays they print.

A: "Quantization from scratch" in NumPy, B: the NumPy part of "Quantization from scratch, MNIST".
"""

from types import SimpleNamespace

import numpy as np
import pytest

import ndquant as nq

pytestmark = pytest.mark.usefixtures("backend")

AFFINE = nq.QuantSpec(8, signed=False, symmetric=False)
SYMMETRIC = nq.QuantSpec(8, signed=True, symmetric=True)

A_PARAMS = np.array([199.9341, -9.1758, 0, 7.1529, 123.2222, 101.2439, 182.7486, 88.2835, 58.6505, -8.1758, -4.9222,
                     159.3742, 110.0036, 159.674, 198.9341])
A_SYMMETRIC_PARAMS = np.array([
    -16.88845729, -14.73619101, -9.84795077, -2.16624371, -13.58845586, -13.89295657, -5.13396663, -7.43403557,
    -2.02378329, -4.6139564, 13.66297264, 12.94906411, 4.74121694, 5.52796603, 5.09095534, 8.92738701, 7.37523507,
    2.56579524, 16.80063994, 13.47113548])
B_PARAMS = np.array([149.28, -17.66, 0, 61.84, -0.25, 134.6, 148.28, 68.34, 74.51, 51.24, 43.13, 140.25, 142.08, 114.53,
                     -16.66, 81.33, 135.17, -8.6, 112.6, 103.86])

PRINTED = {
    "A asymmetric": SimpleNamespace(
        params=A_PARAMS, spec=AFFINE, scale=0.8200388235294118, zero_point=11,
        codes=[255, 0, 11, 20, 161, 134, 234, 119, 83, 1, 5, 205, 145, 206, 254],
        dequantized=[200.09, -9.02, 0, 7.38, 123.01, 100.86, 182.87, 88.56, 59.04, -8.2, -4.92, 159.09, 109.89, 159.91,
                     199.27],
        error=0.05, error_digits=2),
    "A symmetric": SimpleNamespace(
        params=A_PARAMS, spec=SYMMETRIC, scale=1.5742842519685039, zero_point=0,
        codes=[127, -6, 0, 5, 78, 64, 116, 56, 37, -5, -3, 101, 70, 101, 126],
        dequantized=[199.93, -9.45, 0, 7.87, 122.79, 100.75, 182.62, 88.16, 58.25, -7.87, -4.72, 159, 110.2, 159,
                     198.36],
        error=0.15, error_digits=2),
    "A symmetric data": SimpleNamespace(
        params=A_SYMMETRIC_PARAMS, spec=SYMMETRIC, scale=0.13297997865189634, zero_point=0,
        codes=[-127, -111, -74, -16, -102, -104, -39, -56, -15, -35, 103, 97, 36, 42, 38, 67, 55, 19, 126, 101],
        dequantized=[-16.89, -14.76, -9.84, -2.13, -13.56, -13.83, -5.19, -7.45, -1.99, -4.65, 13.7, 12.9, 4.79, 5.59,
                     5.05, 8.91, 7.31, 2.53, 16.76, 13.43],
        error=0.00159, error_digits=5),
    "B asymmetric": SimpleNamespace(
        params=B_PARAMS, spec=AFFINE, scale=0.65, scale_digits=2, zero_point=27,
        codes=[255, 0, 27, 121, 27, 233, 253, 131, 141, 105, 93, 241, 244, 202, 2, 151, 233, 14, 199, 186],
        error=0.04, error_digits=2),
    "B symmetric": SimpleNamespace(
        params=B_PARAMS, spec=SYMMETRIC, scale=1.18, scale_digits=2, zero_point=0,
        codes=[127, -15, 0, 53, 0, 115, 126, 58, 63, 44, 37, 119, 121, 97, -14, 69, 115, -7, 96, 88],
        error=0.11, error_digits=2),
}


@pytest.fixture(params=PRINTED, ids=str)
def printed(request):
    return PRINTED[request.param]


@pytest.fixture
def qparams(printed):
    return nq.choose_qparams(printed.params, printed.spec, profile="textbook")


def test_scale(printed, qparams):
    assert qparams.scale.dtype == np.float64
    if hasattr(printed, "scale_digits"):
        assert np.round(qparams.scale, printed.scale_digits) == printed.scale
    else:
        assert qparams.scale == pytest.approx(printed.scale, rel=1e-9, abs=0)


def test_zero_point(printed, qparams):
    assert qparams.zero_point == printed.zero_point


def test_codes(printed, qparams):
    np.testing.assert_array_equal(nq.quantize(printed.params, qparams), printed.codes)


@pytest.mark.parametrize("printed", [name for name in PRINTED if hasattr(PRINTED[name], "dequantized")], indirect=True)
def test_dequantized(printed, qparams):
    found = nq.dequantize(nq.quantize(printed.params, qparams), qparams)
    np.testing.assert_allclose(np.round(found, 2), printed.dequantized, rtol=0, atol=1e-12)


def test_error(printed, qparams):
    found = nq.dequantize(nq.quantize(printed.params, qparams), qparams)
    error = np.mean((printed.params - found) ** 2)
    assert np.round(error, printed.error_digits) == printed.error


def test_fake_quantize_is_the_dequantized_array(printed, qparams):
    found = nq.dequantize(nq.quantize(printed.params, qparams), qparams)
    np.testing.assert_array_equal(nq.fake_quantize(printed.params, qparams), found)


def test_quantization_leaves_the_array_as_it_was(printed, qparams):
    """The tutorials' clamping writes into its argument."""
    before = printed.params.copy()
    nq.quantize(printed.params, qparams)
    np.testing.assert_array_equal(printed.params, before)


def asymmetric_quantization(params, bits):
    """The tutorials' function."""
    scale = (np.max(params) - np.min(params)) / (2**bits - 1)
    zero_point = -1 * np.round(np.min(params) / scale)
    return np.clip(np.round(params / scale + zero_point), 0, 2**bits - 1), scale, zero_point


def symmetric_quantization(params, bits):
    """The tutorials' function."""
    scale = np.max(np.abs(params)) / (2 ** (bits - 1) - 1)
    return np.clip(np.round(params / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1), scale, 0


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("formula, signed", [(asymmetric_quantization, False), (symmetric_quantization, True)])
def test_other_arrays_give_what_the_tutorials_functions_give(formula, signed, bits):
    spec = nq.QuantSpec(bits, signed=signed, symmetric=signed)
    rng = np.random.default_rng(bits)
    for low, high in [(-20, 200), (-50, 150), (-20, 20), (3, 4), (-1e-3, -1e-4)]:
        params = np.round(rng.uniform(low, high, 500), 4)
        codes, scale, zero_point = formula(params, bits)
        qp = nq.choose_qparams(params, spec, profile="textbook")
        assert (qp.scale, qp.zero_point) == (scale, zero_point)
        np.testing.assert_array_equal(nq.quantize(params, qp), codes)


def test_division_is_a_true_division():
    """73.5 / 49 is 1.5, 73.5 * (1 / 49) is less."""
    qp = nq.QParams(49.0, 0, SYMMETRIC, profile="textbook")
    np.testing.assert_array_equal(nq.quantize(np.array([73.5, -73.5, 49.0]), qp), [2, -2, 1])


def test_zero_point_is_added_before_rounding():
    qp = nq.QParams(1.0, 1, AFFINE, profile="textbook")
    np.testing.assert_array_equal(nq.quantize(np.array([0.5, 1.5, 2.5]), qp), [2, 2, 4])


def test_float32_data_are_computed_in_float64():
    """In float32 the sum of 2.4999998 and 17 is 19.5, a tie that rounds up; in float64 it is less."""
    x = np.nextafter(np.float32(2.5), np.float32(0))
    assert x + np.float32(17) == 19.5
    qp = nq.QParams(1.0, 17, AFFINE, profile="textbook")
    assert nq.quantize(x, qp) == 19


def test_a_range_without_zero_has_a_zero_point_outside_the_codes():
    """Data in [100, 200]: min/s is 255, the zero point -255, and all codes from 0 to 255 are in use."""
    x = np.linspace(100, 200, 256)
    qp = nq.choose_qparams(x, AFFINE, profile="textbook")
    assert qp.zero_point == -255
    assert qp.scale == pytest.approx(100 / 255, rel=1e-15)
    q = nq.quantize(x, qp)
    np.testing.assert_array_equal(q, np.arange(256))
    np.testing.assert_allclose(nq.dequantize(q, qp), x, rtol=1e-14)


def test_a_range_far_from_zero():
    """Zero points are any integer: -min/s does not fit 16 bits here."""
    x = np.linspace(1e4, 1e4 + 1, 200)
    qp = nq.choose_qparams(x, AFFINE, profile="textbook")
    assert qp.zero_point == -2550000
    q = nq.quantize(x, qp)
    assert (q.min(), q.max()) == (0, 255)
    np.testing.assert_allclose(nq.dequantize(q, qp), x, rtol=0, atol=0.5000001 / 255)


def test_a_negative_range_far_from_zero():
    x = np.linspace(-200, -100, 256)
    qp = nq.choose_qparams(x, AFFINE, profile="textbook")
    assert qp.zero_point == 510
    np.testing.assert_array_equal(nq.quantize(x, qp), np.arange(256))
