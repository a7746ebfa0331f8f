"""Arrays of the types that ml_dtypes adds to NumPy: they may enter wherever floats or codes of 8 bits may."""

import subprocess
import sys

import numpy as np
import pytest

import ndquant as nq
from ndquant import nn

ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

FLOATS = ("bfloat16", "float8_e4m3fn", "float8_e5m2")
#: Type: the spec whose codes it holds.
CODES = {
    "int4": nq.QuantSpec(4),
    "uint4": nq.QuantSpec(4, signed=False, symmetric=False),
    "int2": nq.QuantSpec(2),
    "uint2": nq.QuantSpec(2, signed=False, symmetric=False),
}


def of_type(x, name):
    return x.astype(getattr(ml_dtypes, name))


@pytest.mark.parametrize("name", FLOATS)
class TestFloats:
    QP = nq.QParams(np.float32(0.05), 3, nq.QuantSpec(8, symmetric=False))

    @pytest.fixture
    def x(self, rng, name):
        return of_type(rng.standard_normal((5, 33)) * 2, name)

    def test_elementwise_functions_take_them_as_float32(self, backend, x):
        wide = x.astype(np.float32)
        for function in (nq.quantize, nq.fake_quantize):
            found, expected = function(x, self.QP), function(wide, self.QP)
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
        for found, expected in zip(
            nq.fake_quantize_with_grad(x, x, self.QP), nq.fake_quantize_with_grad(wide, wide, self.QP), strict=True
        ):
            np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(
            nq.fake_quantize_backward(x[::-1], x, self.QP), nq.fake_quantize_backward(wide[::-1], wide, self.QP)
        )

    @pytest.mark.parametrize("method", ["minmax", "mse", "percentile"])
    def test_ranges(self, x, method):
        spec = nq.QuantSpec(8, axis=0)
        assert nq.choose_qparams(x, spec, method=method) == nq.choose_qparams(x.astype(np.float32), spec, method=method)

    def test_formats(self, x, name):
        found = nq.formats.fake_quantize(x, "float8_e4m3fn", saturate=True)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(
            found, nq.formats.fake_quantize(x.astype(np.float32), "float8_e4m3fn", saturate=True)
        )
        codes = nq.formats.encode(x, name)
        np.testing.assert_array_equal(codes, x.view(codes.dtype))

    def test_networks(self, x):
        model = nn.Sequential(nn.Linear(33, 4, rng=0))
        int8 = nq.quantize_static(model, [x])
        np.testing.assert_array_equal(model(x), model(x.astype(np.float32)))
        np.testing.assert_array_equal(int8(x), int8(x.astype(np.float32)))


@pytest.mark.parametrize("name", CODES)
class TestCodes:
    @pytest.fixture
    def q(self, rng, name):
        spec = CODES[name]
        return rng.integers(spec.qmin, spec.qmax, (6, 40), endpoint=True).astype(spec.dtype)

    def test_dequantize_and_requantize(self, backend, q, name):
        qp, to = nq.QParams(np.float32(0.1), 1, CODES[name]), nq.QParams(0.2, 3, nq.QuantSpec(symmetric=False))
        np.testing.assert_array_equal(nq.dequantize(of_type(q, name), qp), nq.dequantize(q, qp))
        np.testing.assert_array_equal(nq.requantize(of_type(q, name), qp, to), nq.requantize(q, qp, to))

    def test_packing(self, q, name):
        spec = CODES[name]
        np.testing.assert_array_equal(nq.pack_codes(of_type(q, name), spec), nq.pack_codes(q, spec))

    def test_products(self, q, name):
        a = of_type(q, name)
        np.testing.assert_array_equal(nq.matmul_integer(a, a.T), nq.matmul_integer(q, q.T))
        qp = nq.QParams(np.float32(0.1), 0, CODES[name])
        x_qp = nq.QParams(np.float32(0.1), 3, nq.QuantSpec(8, symmetric=False))
        x = np.arange(80, dtype=np.int8).reshape(2, 40)
        found, expected = (nq.linear_integer(x, x_qp, nq.PackedWeight(w, qp)) for w in (a, q))
        np.testing.assert_array_equal(found, expected)

    def test_are_no_floats(self, q, name):
        with pytest.raises(TypeError, match="x: expected floating-point data"):
            nq.quantize(of_type(q, name), nq.QParams(0.1, 0, nq.QuantSpec()))


def test_other_types_of_the_package_are_refused():
    qp = nq.QParams(0.1, 0, nq.QuantSpec())
    with pytest.raises(TypeError, match="x: expected floating-point data.*float8_e3m4"):
        nq.quantize(of_type(np.ones(3), "float8_e3m4"), qp)
    with pytest.raises(TypeError, match="q: expected integers"):
        nq.dequantize(of_type(np.ones(3), "bfloat16"), qp)


def test_the_package_is_not_imported():
    code = "import sys, numpy, ndquant; ndquant.formats.explain(1.5, 'bfloat16'); print('ml_dtypes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
