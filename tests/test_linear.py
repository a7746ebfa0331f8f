"""linear and linear_backward on bare arrays, and the biases of integer layers."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import ndquant as nq
from ndquant import reference
from ndquant.functional import quantize_bias
from ndquant.ops.layer import quantize_parameters

F32 = np.float32
X_SPEC = nq.QuantSpec(8, signed=False, symmetric=False)


def operands(dtype=F32, n=9, k=13, o=7):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(dtype) for shape in ((n, k), (o, k), (o,))]


def qparams_of(x, w, bits=8, axis=0):
    return nq.choose_qparams(x, X_SPEC), nq.choose_qparams(w, nq.QuantSpec(bits, axis=axis))


class TestFloat:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_forward_and_backward_are_the_definition(self, dtype):
        x, w, b = operands(dtype)
        product = reference.matmul_f32 if dtype == F32 else np.matmul
        y, saved = nq.linear(x, w, b)
        np.testing.assert_array_equal(y, product(x, w.T) + b)
        dy = np.cos(y)
        dx, dw, db = nq.linear_backward(dy, saved)
        np.testing.assert_array_equal(dx, product(dy, w))
        np.testing.assert_array_equal(dw, product(dy.T, x))
        np.testing.assert_array_equal(db, dy.sum(axis=0))

    def test_a_row_does_not_depend_on_its_neighbours(self):
        x, w, b = operands(n=40)
        y, _ = nq.linear(x, w, b)
        for i in range(len(x)):
            np.testing.assert_array_equal(nq.linear(x[i : i + 1], w, b)[0], y[i : i + 1])

    def test_gradients_equal_finite_differences(self):
        x, w, b = operands(np.float64, 3, 4, 2)
        dy = np.random.default_rng(1).standard_normal((3, 2))
        gradients = nq.linear_backward(dy, nq.linear(x, w, b)[1])
        for array, gradient in zip((x, w, b), gradients, strict=True):
            for i in np.ndindex(array.shape):
                kept = array[i]
                array[i] = kept + 1e-6
                above = np.sum(dy * nq.linear(x, w, b)[0])
                array[i] = kept - 1e-6
                below = np.sum(dy * nq.linear(x, w, b)[0])
                array[i] = kept
                assert gradient[i] == pytest.approx((above - below) / 2e-6, abs=1e-7)

    def test_without_bias_there_is_no_gradient_of_it(self):
        x, w, _ = operands()
        y, saved = nq.linear(x, w)
        assert nq.linear_backward(y, saved)[2] is None


class TestOnIntegers:
    @pytest.mark.parametrize("bits", [2, 4, 8])
    @pytest.mark.parametrize("axis", [None, 0])
    @pytest.mark.parametrize("with_bias", [True, False])
    def test_forward_is_the_exact_integer_product(self, backend, bits, axis, with_bias):
        x, w, b = operands()
        b = b if with_bias else None
        x_qp, w_qp = qparams_of(x, w, bits, axis)
        y, _ = nq.linear(x, w, b, x_qp, w_qp)
        xq, wq = nq.quantize(x, x_qp), nq.quantize(w, w_qp)
        bias = None if b is None else reference.quantize_bias(b, x_qp.scale, w_qp.scale)
        acc = reference.gemm_s32(xq, wq, x_qp.zero_point, w_qp.zero_point, bias)
        np.testing.assert_array_equal(y, reference.linear_f32(acc, x_qp.scale, w_qp.scale))

    def test_it_is_close_to_the_product_of_the_fake_quantized_operands(self):
        x, w, b = operands(n=64, k=100)
        x_qp, w_qp = qparams_of(x, w)
        y, _ = nq.linear(x, w, b, x_qp, w_qp)
        float_y = nq.fake_quantize(x, x_qp).astype(np.float64) @ nq.fake_quantize(w, w_qp).T.astype(np.float64) + b
        half_a_step_of_the_bias = 0.5 * float(x_qp.scale) * float(w_qp.scale.max())
        np.testing.assert_allclose(y, float_y, rtol=1e-5, atol=1.01 * half_a_step_of_the_bias)

    def test_the_gradient_is_straight_through(self):
        x, w, b = operands()
        x_qp = nq.QParams.from_range(F32(-1), F32(1), X_SPEC)  # clips some of x
        w_qp = nq.QParams(F32(0.005), 0, nq.QuantSpec(8))  # and some of w
        y, saved = nq.linear(x, w, b, x_qp, w_qp)
        dy = np.cos(y)
        dx, dw, db = nq.linear_backward(dy, saved)
        all_dx = reference.matmul_f32(dy, nq.fake_quantize(w, w_qp))
        all_dw = reference.matmul_f32(dy.T, nq.fake_quantize(x, x_qp))
        np.testing.assert_array_equal(dx, nq.fake_quantize_backward(all_dx, x, x_qp))
        np.testing.assert_array_equal(dw, nq.fake_quantize_backward(all_dw, w, w_qp))
        np.testing.assert_array_equal(db, dy.sum(axis=0))
        assert 0 < np.count_nonzero(dx == 0) < dx.size and 0 < np.count_nonzero(dw == 0) < dw.size

    def test_need_dx_false_leaves_the_rest_as_it_is(self):
        x, w, b = operands()
        y, saved = nq.linear(x, w, b, *qparams_of(x, w))
        dx, dw, db = nq.linear_backward(y, saved, need_dx=False)
        _, dw2, db2 = nq.linear_backward(y, saved)
        assert dx is None
        np.testing.assert_array_equal(dw, dw2)
        np.testing.assert_array_equal(db, db2)

    def test_float64_arrays_give_float32_outputs_of_the_same_codes(self):
        x, w, b = operands(np.float64)
        y, _ = nq.linear(x, w, b, *qparams_of(x, w))
        assert y.dtype == np.float32


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"x": np.zeros((2, 3), int)}, TypeError, "x must be an ndarray of floats, not int64"),
            ({"w": [[1.0]]}, TypeError, "w must be an ndarray of floats, not list"),
            ({"b": np.zeros(7, complex)}, TypeError, "b must be an ndarray of floats"),
            ({"x": np.zeros(13, F32)}, ValueError, "x must have 2 axes"),
            ({"b": np.zeros((7, 1), F32)}, ValueError, "b must have 1 axes"),
            ({"x": np.zeros((2, 12), F32)}, ValueError, r"x of shape \(2, 12\) does not fit w of shape \(7, 13\)"),
            ({"b": np.zeros(6, F32)}, ValueError, r"b must have shape \(7,\)"),
            ({"w_qparams": None}, TypeError, "w_qparams is missing"),
            ({"x_qparams": None}, TypeError, "x_qparams is missing"),
            ({"b": np.full(7, np.nan, F32)}, ValueError, "bias: element 0 is not finite"),
        ],
    )
    def test_the_argument_is_named(self, change, error, message):
        x, w, b = operands()
        x_qp, w_qp = qparams_of(x, w)
        arguments = {"x": x, "w": w, "b": b, "x_qparams": x_qp, "w_qparams": w_qp, **change}
        with pytest.raises(error, match=message):
            nq.linear(**arguments)

    def test_the_input_is_quantized_per_tensor(self):
        x, w, b = operands()
        per_column = nq.choose_qparams(x, nq.QuantSpec(8, signed=False, symmetric=False, axis=1))
        with pytest.raises(ValueError, match="x_qparams"):
            nq.linear(x, w, b, per_column, qparams_of(x, w)[1])


scales = st.floats(2.0**-126, 2.0**100, width=32)


class TestBias:
    @given(
        st.lists(st.tuples(st.floats(-(2.0**100), 2.0**100, width=32), scales), min_size=1, max_size=5),
        scales,
        st.sampled_from([np.float32, np.float64]),
        st.booleans(),
    )
    @example([(1e6, 1e-22), (1.0, 1.0)], 1e-3, np.float32, True)
    @example([(0.0, 2.0**-126)], 2.0**-126, np.float32, True)
    def test_codes_and_scales_equal_the_twin(self, channels, x_scale, dtype, per_channel):
        bias = np.array([b for b, _ in channels], dtype)
        w_scale = np.array([s for _, s in channels], dtype) if per_channel else np.array(channels[0][1], dtype)
        wanted = reference.raise_weight_scale(w_scale, bias, x_scale)
        with np.errstate(over="ignore"):
            if not np.isfinite(reference.product_scale(x_scale, wanted)).all() or not np.isfinite(wanted).all():
                return
        codes, raised = quantize_bias(bias, x_scale, w_scale)
        np.testing.assert_array_equal(w_scale if raised is None else raised, wanted)
        assert (raised is None) == np.array_equal(w_scale, wanted)
        np.testing.assert_array_equal(codes, reference.quantize_bias(bias, x_scale, wanted))
        assert np.abs(codes.astype(np.int64)).max() <= 2**30 + 2**7

    def test_without_bias_only_the_scales_count(self):
        assert quantize_bias(None, 1.0, np.float32([1, 2])) == (None, None)
        _, raised = quantize_bias(None, 2.0**-100, np.float32([2.0**-60, 1]))
        np.testing.assert_array_equal(raised, F32([2.0**-26, 1]))

    def test_a_raised_scale_is_the_one_that_quantizes(self):
        w, b = F32([[1e-20, -1e-20], [0.5, 1]]), F32([1e6, 1])
        x_qp, w_qp = nq.QParams(F32(0.01), 0, X_SPEC), nq.choose_qparams(w, nq.QuantSpec(axis=0))
        codes, used, bias = quantize_parameters(w, b, x_qp, w_qp)
        assert used.scale[0] > w_qp.scale[0] and used.scale[1] == w_qp.scale[1]
        np.testing.assert_array_equal(codes, [[0, 0], [64, 127]])
        np.testing.assert_allclose(bias * 0.01 * used.scale, b, rtol=1e-6)

    @pytest.mark.parametrize(
        ("bias", "scale", "error", "message"),
        [
            (np.zeros(3), np.ones(2), ValueError, "one element for each of 2 scales, got 3"),
            (np.zeros((2, 1)), np.ones(2), ValueError, "bias"),
            (np.array([0, np.inf]), np.ones(2), ValueError, "element 1 is not finite"),
            (np.zeros(2, int), np.ones(2), TypeError, "bias"),
            (np.zeros(2), np.array([1, np.nan]), ValueError, "must be positive and finite"),
            (np.zeros(2), np.array([1, 0.0]), ValueError, "must be positive and finite"),
        ],
    )
    def test_bad_input_is_named(self, bias, scale, error, message):
        with pytest.raises(error, match=message):
            quantize_bias(bias, 1.0, scale)
