"""Functions that do several steps of training in one call give the bits of the steps done apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ndquant as nq
from ndquant import _core
from ndquant.functional import quantize_weight
from ndquant.ops.layer import quantize_parameters

F32 = np.float32
ACTIVATION = nq.QuantSpec(8, signed=False, symmetric=False)
values = st.floats(-(2.0**60), 2.0**60, width=32)
weights = hnp.arrays(F32, st.tuples(st.integers(1, 9), st.integers(1, 40)), elements=values)
specs = st.builds(
    nq.QuantSpec, st.integers(2, 8), signed=st.booleans(), symmetric=st.booleans(), axis=st.sampled_from([None, 0])
)


class TestWeight:
    def assert_equal_to_the_steps(self, w, b, x_qp, spec):
        codes, packed = quantize_weight(w, b, x_qp.scale, spec)
        wanted, w_qp, bias = quantize_parameters(w, b, x_qp, nq.choose_qparams(w, spec))
        np.testing.assert_array_equal(codes, wanted)
        assert packed.w_qparams == w_qp and codes.dtype == wanted.dtype
        np.testing.assert_array_equal(packed.bias, bias)
        assert packed.bias is None or packed.bias.dtype == np.int32
        x = np.arange(3 * w.shape[1], dtype=np.uint8).reshape(3, -1)
        y = nq.linear_integer(x, x_qp, nq.PackedWeight(wanted, w_qp, bias))
        np.testing.assert_array_equal(nq.linear_integer(x, x_qp, packed), y)

    @pytest.mark.parametrize("bits", [2, 4, 8])
    @pytest.mark.parametrize("axis", [None, 0])
    @pytest.mark.parametrize("shape", [(1, 1), (100, 784), (17, 5)])
    def test_on_every_backend(self, backend, rng, bits, axis, shape):
        w, b = rng.standard_normal(shape, F32), rng.standard_normal(shape[0], F32)
        x_qp = nq.QParams(F32(0.02), 100, ACTIVATION)
        for spec in (nq.QuantSpec(bits, axis=axis), nq.QuantSpec(bits, signed=False, symmetric=False, axis=axis)):
            self.assert_equal_to_the_steps(w, b, x_qp, spec)
            self.assert_equal_to_the_steps(w.T.copy().T, None, x_qp, spec)

    @given(weights, specs, st.floats(2.0**-60, 2.0**20, width=32), st.data())
    def test_on_any_weight(self, w, spec, x_scale, data):
        b = data.draw(hnp.arrays(F32, w.shape[0], elements=st.floats(-1000, 1000, width=32)))
        self.assert_equal_to_the_steps(w, b, nq.QParams(F32(x_scale), 3, ACTIVATION), spec)

    @pytest.mark.parametrize(
        ("w", "b", "x_scale", "error", "message"),
        [
            (np.zeros((2, 3)), None, 1.0, TypeError, "w: expected float32"),
            (np.zeros((2, 3), int), None, 1.0, TypeError, "w"),
            (np.zeros(3, F32), None, 1.0, ValueError, "w"),
            (np.zeros((0, 3), F32), None, 1.0, ValueError, "w: is empty"),
            (np.full((2, 3), np.nan, F32), None, 1.0, ValueError, "w: has 6 NaN and 0 infinite of 6"),
            (np.full((2, 3), np.inf, F32), None, 1.0, ValueError, "w: has 0 NaN and 6 infinite of 6"),
            (np.ones((2, 3), F32), np.zeros(3), 1.0, ValueError, "bias"),
            (np.ones((2, 3), F32), np.array([0, np.nan]), 1.0, ValueError, "bias: element 1 is not finite"),
            (np.ones((2, 3), F32), None, 0.0, ValueError, "x_scale"),
            (np.ones((2, 3), F32), None, float("nan"), ValueError, "x_scale"),
        ],
    )
    def test_bad_input_is_named(self, w, b, x_scale, error, message):
        with pytest.raises(error, match=message):
            quantize_weight(w, b, x_scale, nq.QuantSpec(axis=0))

    @pytest.mark.parametrize("axis", [None, 0])
    def test_what_is_not_finite_is_counted_over_all_rows(self, backend, axis):
        w = np.ones((40, 30), F32)
        w[3, 29], w[20, 0], w[39, 29] = np.nan, np.inf, np.nan
        with pytest.raises(ValueError, match="w: has 2 NaN and 1 infinite of 1200 values"):
            quantize_weight(w, None, 1.0, nq.QuantSpec(axis=axis))

    def test_threads_do_not_change_bits(self, backend, rng, threads):
        w, b = rng.standard_normal((300, 700), F32), rng.standard_normal(300, F32)
        for spec in (nq.QuantSpec(8, axis=0), nq.QuantSpec(4, axis=0), nq.QuantSpec(8)):
            for count in (1, 2, 4):
                threads(count)
                self.assert_equal_to_the_steps(w, b, nq.QParams(F32(0.02), 100, ACTIVATION), spec)

    def test_sums_that_could_pass_int32_are_refused(self):
        with pytest.raises(nq.QuantizationError, match="channel 0"):
            quantize_weight(np.ones((1, 140_000), F32), None, 1.0, nq.QuantSpec())


class TestEdge:
    @pytest.mark.parametrize("bits", [1, 4, 8])
    @pytest.mark.parametrize("profile", ["default", "torch"])
    def test_a_moving_average_on_every_backend(self, backend, rng, bits, profile):
        spec = nq.QuantSpec(bits, signed=False, symmetric=False)
        apart, together = (nq.MovingAverageMinMaxObserver(profile=profile) for _ in range(2))
        for scale in (1, 3, 0.5, 100):
            x = rng.standard_normal((5, 33), F32) * F32(scale)
            qparams = apart.update(x).qparams(spec)
            codes, found = together.update_quantize(x, spec)
            assert found == qparams
            np.testing.assert_array_equal(codes, nq.quantize(x, qparams))
            assert together.range(spec) == apart.range(spec) and together.count == apart.count

    @given(st.lists(hnp.arrays(F32, st.integers(1, 20), elements=values), min_size=1, max_size=5))
    def test_on_any_batches(self, batches):
        apart, together = nq.MovingAverageMinMaxObserver(), nq.MovingAverageMinMaxObserver()
        for x in batches:
            qparams = apart.update(x).qparams(ACTIVATION)
            codes, found = together.update_quantize(x, ACTIVATION)
            assert found == qparams
            np.testing.assert_array_equal(codes, nq.quantize(x, qparams))

    def test_what_one_call_saw_merges_with_what_others_saw(self, rng):
        batches = [rng.standard_normal(50, F32) for _ in range(6)]
        whole = nq.MovingAverageMinMaxObserver()
        first, second = nq.MovingAverageMinMaxObserver(), nq.MovingAverageMinMaxObserver()
        for number, x in enumerate(batches):
            whole.update_quantize(x, ACTIVATION)
            if number < 3:
                first.update_quantize(x, ACTIVATION)
            else:
                second.update(x, number=number)
        assert second.merge(first).range(ACTIVATION) == whole.range(ACTIVATION)

    @pytest.mark.parametrize("dtype", [np.float16, np.float64])
    def test_other_floats_and_batches_out_of_order_take_the_long_way(self, rng, dtype):
        apart, together = nq.MovingAverageMinMaxObserver(), nq.MovingAverageMinMaxObserver()
        for number, kind in ((5, F32), (None, dtype), (0, F32), (None, F32)):
            x = rng.standard_normal(20).astype(kind)
            qparams = apart.update(x, number).qparams(ACTIVATION)
            if number is None:
                codes, found = together.update_quantize(x, ACTIVATION)
                np.testing.assert_array_equal(codes, nq.quantize(x, qparams))
                assert found == qparams
            else:
                together.update(x, number)
        assert together.range(ACTIVATION) == apart.range(ACTIVATION)

    @pytest.mark.parametrize(
        ("x", "error", "message"),
        [
            (np.zeros(3), TypeError, "x: expected float32"),
            (np.zeros(0, F32), ValueError, "x: is empty"),
            (F32([1, np.nan]), ValueError, "x: has 1 NaN and 0 infinite of 2"),
        ],
    )
    def test_bad_input_is_named(self, x, error, message):
        with pytest.raises(error, match=message):
            _core.observe_quantize(x, None, None, 0.01, *ACTIVATION._grid, _core.RANGE_DEFAULT)

    def test_codes_that_are_no_bytes_are_refused(self):
        wide, textbook = (0, 65535, 8, False, _core.RANGE_DEFAULT), (0, 255, 8, False, _core.RANGE_TEXTBOOK)
        for grid in (wide, textbook, (3, 1, 8, False, _core.RANGE_DEFAULT)):
            with pytest.raises(ValueError, match="codes|rule"):
                _core.observe_quantize(np.ones(3, F32), None, None, 0.01, *grid)


class TestGradientMask:
    @given(hnp.arrays(F32, 20, elements=values), st.integers(2, 8), st.booleans(), st.booleans())
    def test_a_symmetric_range_of_the_extremes_leaves_no_value_outside(self, w, bits, signed, narrow):
        spec = nq.QuantSpec(bits, signed=signed, narrow_range=narrow and bits > 2)
        dy = np.ones_like(w)
        np.testing.assert_array_equal(nq.fake_quantize_backward(dy, w, nq.choose_qparams(w, spec)), dy)
