"""mse, sqnr and quantization_error against plain NumPy."""

import numpy as np
import pytest

import ndquant as nq
from ndquant import _core
from ndquant.reference import sum_in_blocks


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_mse_and_sqnr_are_what_they_say(rng, dtype):
    x = (rng.standard_normal((37, 400)) * 50).astype(dtype)
    y = x + (rng.standard_normal(x.shape) * 3).astype(dtype)
    wide, noise = x.astype(float), x.astype(float) - y.astype(float)
    assert nq.mse(x, y) == pytest.approx(np.mean(noise**2), rel=1e-13)
    assert nq.sqnr(x, y) == pytest.approx(10 * np.log10(np.sum(wide**2) / np.sum(noise**2)), rel=1e-13)


def test_metrics_of_special_arrays():
    assert nq.mse([], []) == 0 and nq.sqnr([1.0], [1.0]) == np.inf
    assert nq.sqnr([0.0], [1.0]) == -np.inf and np.isnan(nq.mse([np.nan], [1.0]))
    assert nq.mse(np.float32(3), 1) == 4


@pytest.mark.parametrize("function", [nq.mse, nq.sqnr])
def test_metrics_refuse_what_is_no_pair_of_numbers(function):
    with pytest.raises(ValueError, match=r"x and y must have one shape, not \(2,\) and \(1,\)"):
        function([1.0, 2.0], [1.0])
    with pytest.raises(TypeError, match="y: expected real numbers, got dtype complex128"):
        function([1.0], [1j])
    with pytest.raises(TypeError, match="x: masked arrays are not supported"):
        function(np.ma.array([1.0]), [1.0])


def test_sums_are_added_in_a_fixed_order(backend, rng, threads):
    for dtype in (np.float32, np.float64):
        for n in (0, 1, 17, 4096, 4099, 200_000):
            x, y = rng.standard_normal((2, n)).astype(dtype)
            difference = x.astype(float) - y.astype(float)
            expected = float(sum_in_blocks(difference**2)), float(sum_in_blocks(x.astype(float) ** 2))
            for count in (1, 2):
                threads(count)
                assert _core.square_sums(x, y) == expected


def test_an_error_is_clipping_and_rounding(rng):
    x = (rng.standard_normal(50_000) * 2).astype(np.float32)
    qp = nq.QParams(np.float32(0.25), 0, nq.QuantSpec(4))
    found = nq.quantization_error(x, qp)
    error = (nq.fake_quantize(x, qp).astype(float) - x.astype(float)) ** 2
    inside = nq.fake_quantize_backward(np.ones_like(x), x, qp) == 1
    assert found.clipping == pytest.approx(error[~inside].sum() / x.size, rel=1e-12)
    assert found.rounding == pytest.approx(error[inside].sum() / x.size, rel=1e-12)
    assert found.mse == found.clipping + found.rounding == pytest.approx(error.mean(), rel=1e-12)
    assert found.clipped == np.mean(~inside)
    assert found.sqnr == pytest.approx(nq.sqnr(x, nq.fake_quantize(x, qp)), rel=1e-12)
    assert 0.2 < found.clipped < 0.5 and found.rounding < 0.25**2 / 12 < found.clipping


def test_errors_of_special_arrays():
    qp = nq.QParams(0.5, 0, nq.QuantSpec(4))
    assert nq.quantization_error(np.zeros((0, 3)), qp).mse == 0
    exact = nq.quantization_error(np.array([0.5, -1.0]), qp)
    assert (exact.mse, exact.clipped, exact.sqnr) == (0, 0, np.inf)
    broken = nq.quantization_error(np.array([0.5, np.nan]), qp)
    assert np.isnan(broken.mse) and np.isnan(broken.clipping) and broken.rounding == 0 and broken.clipped == 0.5
    assert nq.quantization_error(np.array([np.inf]), qp).clipping == np.inf
    with pytest.raises(TypeError, match="x: expected floating-point data"):
        nq.quantization_error([1, 2], qp)


def test_errors_do_not_depend_on_threads(rng, threads):
    x = rng.standard_normal((300, 1000)).astype(np.float32)
    for spec in (nq.QuantSpec(4), nq.QuantSpec(4, axis=1), nq.QuantSpec(4, group_size=20)):
        qp, found = nq.choose_qparams(x, spec, "mse"), []
        for count in (1, 2, 3):
            threads(count)
            found.append(nq.quantization_error(x, qp))
        assert found[0] == found[1] == found[2]
