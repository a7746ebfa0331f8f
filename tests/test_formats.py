"""Floating-point formats, against NumPy's float16 and the formats of ml_dtypes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndquant import formats

NARROW = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")


def type_of(fmt):
    """The NumPy type of a format; those that NumPy lacks come from ml_dtypes."""
    if hasattr(np, fmt):
        return np.dtype(fmt)
    return np.dtype(getattr(pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed"), fmt))


def every_code(fmt):
    return np.arange(2 ** formats.FORMATS[fmt].bits, dtype=formats.FORMATS[fmt].dtype)


def near_ties(fmt):
    """Numbers half way between neighbours of a format, and one float64 ulp to both sides, and those of the format."""
    numbers = formats.decode(every_code(fmt), fmt).astype(np.float64)
    numbers = np.unique(numbers[np.isfinite(numbers)])
    ties = np.concatenate([(numbers[1:] + numbers[:-1]) / 2, [formats.FORMATS[fmt].largest * 1.5]])
    return np.concatenate([numbers, ties, np.nextafter(ties, -np.inf), np.nextafter(ties, np.inf), [np.inf, np.nan]])


def assert_same(a, b):
    np.testing.assert_array_equal(a, b)
    numbers = ~np.isnan(a)
    np.testing.assert_array_equal(np.signbit(a)[numbers], np.signbit(b)[numbers])


@pytest.mark.parametrize("fmt", NARROW)
def test_every_code_stands_for_the_number_of_the_type(fmt):
    assert_same(formats.decode(every_code(fmt), fmt), every_code(fmt).view(type_of(fmt)).astype(np.float32))


@pytest.mark.parametrize("fmt", NARROW)
def test_values_round_as_the_type_does(fmt):
    with np.errstate(over="ignore", invalid="ignore"):
        x = near_ties(fmt).astype(np.float32)  # ml_dtypes narrows float64 in two steps
        expected = x.astype(type_of(fmt)).astype(np.float32)
    assert_same(formats.fake_quantize(x, fmt), expected)


def test_float64_is_rounded_once():
    x = near_ties("float16")
    with np.errstate(over="ignore"):
        assert_same(formats.fake_quantize(x, "float16"), x.astype(np.float16).astype(np.float64))
    # just above a tie of float16, and exactly on it once it is float32
    assert formats.fake_quantize(np.float64(1 + 2**-11 + 2**-40), "float16") == 1 + 2**-10


@pytest.mark.parametrize("fmt", ["float16", "float32", "float64"])
@given(x=st.floats(width=64))
def test_the_bits_are_those_of_numpy(fmt, x):
    with np.errstate(over="ignore"):
        expected = np.float64(x).astype(fmt)
    code = formats.encode(np.float64(x), fmt)
    if np.isnan(x):
        assert np.isnan(formats.decode(code, fmt))
    else:
        assert code == expected.view(formats.FORMATS[fmt].dtype)


@pytest.mark.parametrize("fmt", NARROW)
def test_decoding_the_code_of_a_value_rounds_it(fmt):
    x = near_ties(fmt)
    assert_same(formats.decode(formats.encode(x, fmt), fmt).astype(np.float64), formats.fake_quantize(x, fmt))


@pytest.mark.parametrize("fmt", NARROW)
def test_saturating_keeps_all_numbers_finite(fmt):
    largest = formats.FORMATS[fmt].largest
    y = formats.fake_quantize(np.array([1e300, -np.inf, np.nan, largest]), fmt, saturate=True)
    assert_same(y, np.array([largest, -largest, np.nan, largest]))


def test_what_is_too_large_becomes_infinity_or_nan():
    x = np.array([464.0, 464.1, -np.inf])
    assert_same(formats.fake_quantize(x, "float8_e4m3fn"), np.array([448.0, np.nan, np.nan]))
    assert_same(formats.fake_quantize(np.array([65519.9, 65520.0]), "float16"), np.array([65504.0, np.inf]))


def test_the_gradient_passes_what_is_in_range():
    x = np.float32([0, 448, -449, np.inf, np.nan])
    dx = formats.fake_quantize_backward(np.full(5, 2, np.float32), x, "float8_e4m3fn")
    assert_same(dx, np.float32([2, 2, 0, 0, 0]))


class TestExplain:
    def test_the_parts_make_the_value(self):
        e = formats.explain(-3.14159, "float16")
        assert (e.sign, e.exponent, e.mantissa) == ("1", "10000", "1001001000")
        assert e.value == -3.140625 and e.error == -3.140625 + 3.14159
        assert e.bits == "1 10000 1001001000"

    def test_eulers_number(self):
        assert formats.explain(np.e, "float32").bits == "0 10000000 01011011111100001010100"
        assert formats.explain(np.e, "float16").bits == "0 10000 0101110000"
        double = formats.explain(np.e, "float64")
        assert double.exponent == "10000000000" and double.error == 0

    def test_a_subnormal_has_no_leading_1(self):
        text = str(formats.explain(2.0**-24, "float16"))
        assert "0 + 1/1024 = 0.0009765625" in text and "2^(1 - 15) = 2^-14" in text

    @pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e300])
    def test_what_is_no_number_is_said_to_be_none(self, value):
        assert "no number" in str(formats.explain(value, "float8_e5m2"))

    def test_html_has_the_same_cells(self):
        assert "<td>10000</td>" in formats.explain(3.14159, "float16")._repr_html_()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: formats.fake_quantize(np.ones(2), "fp16"), ValueError, "fmt must be one of .*float16.*'fp16'"),
        (lambda: formats.fake_quantize(np.ones(2, int), "float16"), TypeError, "x must be an array of float16.*int64"),
        (lambda: formats.fake_quantize_backward(np.ones(2), np.ones(3), "float16"), ValueError, "dy must have the sha"),
        (lambda: formats.decode(np.zeros(2, np.uint8), "float16"), TypeError, "must be uint16, not uint8"),
        (lambda: formats.explain("3", "float16"), TypeError, "value must be a number, not '3'"),
        (lambda: formats.explain(1.0, None), ValueError, "fmt must be one of"),
    ],
)
def test_bad_arguments_are_named(call, error, text):
    with pytest.raises(error, match=text):
        call()
