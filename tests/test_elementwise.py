"""quantize, dequantize, fake_quantize and their gradients: every backend against the NumPy twins, bit for bit."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ndquant as nq
from ndquant import _core, reference

from . import cases
from .cases import assert_same_bits
from .examples import examples

WITH_BACKEND = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60))


def check_all(x, dy, qp):
    """Compare every function with its twin on these data."""
    check_maps(x, dy, qp)
    check_learnable(x, dy, qp)
    np.testing.assert_array_equal(
        _core.quantization_error(x, qp), reference.quantization_error(x, *cases.arguments(qp))
    )


def check_maps(x, dy, qp):
    """Compare the functions that make one element of each."""
    arguments = cases.arguments(qp)
    codes, real = reference.quantize(x, *arguments), reference.fake_quantize(x, *arguments)
    dx = reference.fake_quantize_backward(dy, x, *arguments)
    assert_same_bits(nq.quantize(x, qp), codes)
    assert_same_bits(nq.fake_quantize(x, qp), real)
    assert_same_bits(nq.dequantize(nq.quantize(x, qp), qp, dtype=x.dtype), real)
    assert_same_bits(nq.fake_quantize_backward(dy, x, qp), dx)
    both = nq.fake_quantize_with_grad(x, dy, qp)
    assert_same_bits(both[0], real)
    assert_same_bits(both[1], dx)


def check_learnable(x, dy, qp):
    with np.errstate(all="ignore"):
        expected = reference.fake_quantize_learnable_backward(dy, x, *cases.arguments(qp))
        found = nq.fake_quantize_learnable_backward(dy, x, qp)
        assert_same_bits(found[0], expected[0])
        for gradient, twin in zip(found[1:], expected[1:], strict=True):
            twin = np.asarray(twin).astype(qp.scale.dtype)
            assert gradient.dtype == twin.dtype and gradient.shape == twin.shape
            np.testing.assert_array_equal(gradient, twin)


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize("profile", cases.PROFILES)
def test_twins_agree_on_all_shapes(backend, rng, profile, dtype):
    for n, (shape, axis) in enumerate(cases.SHAPES):
        spec = cases.with_axis(cases.SPECS[n % len(cases.SPECS)], axis)
        qp = cases.random_qparams(rng, spec, shape, profile)
        check_all(cases.values(rng, shape, dtype), cases.values(rng, shape, dtype), qp)


@pytest.mark.parametrize("profile", cases.PROFILES)
def test_twins_agree_on_all_specs(backend, rng, profile):
    for spec in cases.SPECS:
        for shape, axis in (((531,), None), ((3, 177), 0), ((177, 3), 1)):
            for dtype in (np.float32, np.float64):
                qp = cases.random_qparams(rng, cases.with_axis(spec, axis), shape, profile, dtype)
                check_all(cases.values(rng, shape, dtype), cases.values(rng, shape, dtype), qp)


@pytest.mark.parametrize("profile", cases.PROFILES)
def test_channels_last_may_share_a_zero_point_or_not(backend, rng, profile):
    """Rows that are short, long, of whole vectors and not; several at a time, and what is left of them."""
    for channels, spec in itertools.product((5, 32, 70, 150, 2000), cases.SPECS[2:4]):
        for zero_point in (7, rng.integers(0, 100, channels)):
            scale = rng.uniform(0.01, 0.1, channels).astype(np.float32)
            qp = nq.QParams(scale, zero_point, cases.with_axis(spec, 1), profile=profile)
            check_all(*(cases.values(rng, (37, channels), np.float32) for _ in range(2)), qp)


@pytest.mark.parametrize("shape, axis", cases.SHORT_STRETCHES + cases.WIDE_ROWS, ids=str)
def test_channels_of_few_elements_or_in_wide_rows_may_share_a_zero_point_or_not(backend, rng, shape, axis):
    specs = (cases.SPECS[2], cases.WIDE_SPECS[2], cases.OFFSET_SPECS[0])
    for spec, dtype in zip(specs, (np.float32, np.float64, np.float16), strict=True):
        for profile in cases.PROFILES if spec.zero_aligned else cases.OFFSET_PROFILES:
            qp = cases.random_qparams(rng, cases.with_axis(spec, axis), shape, profile)
            same = nq.QParams(qp.scale, qp.zero_point.ravel()[0], qp.spec, profile=profile)
            for qparams in (qp, same):
                x, dy = (cases.values(rng, shape, dtype) for _ in range(2))
                check_maps(x, dy, qparams)
                there, back = nq.quantize(x, qparams), nq.QParams(0.05, 0, cases.SPECS[0], profile=profile)
                found = nq.requantize(nq.requantize(there, qparams, back), back, qparams)
                middle = nq.quantize(nq.dequantize(there, qparams), back)
                assert_same_bits(found, nq.quantize(nq.dequantize(middle, back), qparams))


@pytest.mark.parametrize("profile", cases.PROFILES)
@pytest.mark.parametrize("spec", cases.WIDE_SPECS, ids=str)
def test_twins_agree_on_wide_codes(backend, rng, spec, profile):
    for shape, axis in (((531,), None), ((3, 177), 0), ((177, 3), 1)):
        for dtype in cases.FLOATS:
            qp = cases.random_qparams(rng, cases.with_axis(spec, axis), shape, profile, np.float64)
            check_all(cases.values(rng, shape, dtype), cases.values(rng, shape, dtype), qp)


@pytest.mark.parametrize("profile", cases.OFFSET_PROFILES)
@pytest.mark.parametrize("spec", cases.OFFSET_SPECS, ids=str)
def test_twins_agree_on_float_offsets(backend, rng, spec, profile):
    for shape, axis in (((531,), None), ((3, 177), 0), ((177, 3), 1)):
        for dtype in cases.FLOATS:
            qp = cases.random_qparams(rng, cases.with_axis(spec, axis), shape, profile)
            check_all(cases.values(rng, shape, dtype), cases.values(rng, shape, dtype), qp)


@pytest.mark.parametrize("shape, axis, group_size", cases.GROUPS, ids=str)
def test_twins_agree_on_groups(backend, rng, shape, axis, group_size):
    specs = (cases.SPECS[2], cases.WIDE_SPECS[4], cases.OFFSET_SPECS[0])
    for spec in specs:
        for dtype in (np.float32, np.float64):
            qp = cases.random_qparams(rng, cases.with_axis(spec, axis, group_size), shape)
            check_all(cases.values(rng, shape, dtype), cases.values(rng, shape, dtype), qp)


def test_a_group_is_a_channel(backend, rng):
    """Groups that fill their axis are the channels of the other axis; groups of 1 are a scale for each element."""
    x = cases.values(rng, (6, 35), np.float32)
    per_row = nq.choose_qparams(x, nq.QuantSpec(4, axis=0), nonfinite="ignore")
    per_group = nq.QParams(per_row.scale.reshape(6, 1), 0, nq.QuantSpec(4, group_size=35))
    assert_same_bits(nq.quantize(x, per_group), nq.quantize(x, per_row))
    assert_same_bits(nq.fake_quantize(x, per_group), nq.fake_quantize(x, per_row))


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("profile", cases.PROFILES)
@pytest.mark.parametrize("zero_point", cases.ZERO_POINTS)
def test_rounding_boundaries_and_one_ulp_beside_them(backend, rng, zero_point, profile, dtype):
    spec = nq.QuantSpec(8, signed=False, symmetric=False)
    for scale in (0.00214854861, 0.1, 1.0, 1 / 3, 1e-30, 2.0**-126, 1e30, *rng.uniform(1e-3, 1, 5)):
        qp = nq.QParams(dtype(scale), zero_point, spec, profile=profile)
        x = cases.boundary_values(qp, dtype)
        check_all(x, np.ones_like(x), qp)


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("profile", cases.PROFILES)
@pytest.mark.parametrize("spec", cases.WIDE_SPECS, ids=str)
def test_rounding_boundaries_of_wide_codes(backend, rng, spec, profile, dtype):
    for zero_point in (spec.qmin, 17, spec.qmax):
        for scale in (0.00214854861, 1.0, *rng.uniform(1e-6, 1, 3)):
            qp = nq.QParams(dtype(scale), zero_point, spec, profile=profile)
            x = cases.boundary_values(qp, dtype)
            check_all(x, np.ones_like(x), qp)


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("profile", cases.OFFSET_PROFILES)
@pytest.mark.parametrize("spec", cases.OFFSET_SPECS, ids=str)
def test_rounding_boundaries_of_float_offsets(backend, rng, spec, profile, dtype):
    for offset in (-2.5, 0.0, 1 / 3, *rng.uniform(-9, 9, 3)):
        qp = nq.QParams(dtype(rng.uniform(1e-6, 1)), offset, spec, profile=profile)
        x = cases.boundary_values(qp, dtype)
        check_all(x, np.ones_like(x), qp)


def test_the_reciprocal_decides_ties_as_pytorch_does(backend):
    """0.273939937 / 0.00214854861 is just below 127.5, the product with the reciprocal is 127.5 and rounds to 128."""
    qp = nq.QParams(np.float32(0.00214854861), 0, nq.QuantSpec(8, signed=False, symmetric=False))
    assert nq.quantize(np.float32(0.273939937), qp) == 128
    for profile in ("onnx", "textbook"):
        assert nq.quantize(np.float32(0.273939937), nq.QParams(qp.scale, 0, qp.spec, profile=profile)) == 127


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize("profile", cases.PROFILES)
def test_nan_infinities_and_zeros(backend, dtype, profile):
    qp = nq.QParams(0.5, 3, nq.QuantSpec(4, symmetric=False), profile=profile)
    x = np.array([np.nan, -np.inf, np.inf, -0.0, 0.0, -0.1], dtype)
    np.testing.assert_array_equal(nq.quantize(x, qp), [-8, -8, 7, 3, 3, 3])
    y, dx = nq.fake_quantize_with_grad(x, np.full_like(x, -np.inf), qp)
    np.testing.assert_array_equal(y, [-5.5, -5.5, 2, 0, 0, 0])
    np.testing.assert_array_equal(dx, [0, 0, 0, -np.inf, -np.inf, -np.inf])
    assert not np.signbit(y[3:]).any() and not np.signbit(dx[:3]).any()


def test_a_gradient_is_selected_not_multiplied(backend):
    qp = nq.QParams(1.0, 0, nq.QuantSpec(8))
    x = np.array([500.0, 500.0, 1.0, 1.0], np.float32)
    dy = np.array([np.nan, -1.0, np.nan, -0.0], np.float32)
    dx = nq.fake_quantize_backward(dy, x, qp)
    assert_same_bits(dx, np.array([0.0, 0.0, np.nan, -0.0], np.float32))


def test_wide_codes_are_computed_in_float64_whatever_the_data(backend):
    """In float32 the scale would be rounded, and 2^31 - 1 would become 2^31, which is no code."""
    spec = nq.QuantSpec(32)
    qp = nq.QParams(np.nextafter(0.1, 1), 0, spec)
    x = np.array([3e9, -3e9, 1.0, 123456.7], np.float32)
    codes = nq.quantize(x, qp)
    np.testing.assert_array_equal(codes, [2**31 - 1, -(2**31), 10, np.rint(x[3].astype(float) * (1 / qp.scale))])
    y = nq.dequantize(codes, qp, dtype=np.float32)
    assert_same_bits(y, (codes.astype(float) * qp.scale).astype(np.float32))
    assert_same_bits(nq.fake_quantize(x, qp), y)


def test_the_subtraction_of_wide_codes_does_not_overflow(backend):
    spec = nq.QuantSpec(32, signed=False, symmetric=False)
    qp = nq.QParams(0.5, 2**32 - 1, spec)
    np.testing.assert_array_equal(nq.dequantize(np.uint32([0, 2**32 - 1]), qp), [-(2.0**32 - 1) / 2, 0])
    signed = nq.QParams(0.5, 2**31 - 1, nq.QuantSpec(32, symmetric=False))
    np.testing.assert_array_equal(nq.dequantize(np.int32([-(2**31)]), signed), [-(2.0**32 - 1) / 2])


def test_a_float_offset_is_the_tutorials_quantizer(backend, rng):
    """FMS: ``zp = clip_min; y = round((clip(x) - zp) / step) * step + zp``, with 0 between two codes."""
    qp = nq.QParams.from_range(-2.5, 2.5, nq.QuantSpec(4, signed=False, symmetric=False, zero_aligned=False))
    x = rng.standard_normal(5000)
    step = 5.0 / 15
    codes = np.round((np.clip(x, -2.5, 2.5) + 2.5) / step)
    np.testing.assert_array_equal(nq.quantize(x, qp), codes)
    assert_same_bits(nq.fake_quantize(x, qp), codes * step - 2.5)
    assert qp.zero_point == -2.5 and abs(nq.fake_quantize(0.0, qp)) == pytest.approx(step / 2)
    aligned = nq.QParams.from_range(-2.5, 2.5, nq.QuantSpec(4, signed=False, symmetric=False))
    assert nq.fake_quantize(0.0, aligned) == 0


def test_float64_is_computed_in_float64(backend):
    """A scale that float32 cannot tell from its neighbour decides a code."""
    qp = nq.QParams(np.nextafter(0.1, 1), 0, nq.QuantSpec(8))
    x = np.array([0.05, np.nextafter(0.05, 1) * 1.0000000001])
    np.testing.assert_array_equal(nq.quantize(x, qp), [0, 1])
    assert nq.fake_quantize(x, qp)[1] == qp.scale


def test_float16_is_computed_in_float32_and_rounded_once(backend, rng):
    qp = nq.QParams(0.1, 7, nq.QuantSpec(8, symmetric=False))
    x = cases.values(rng, (1000,), np.float16)
    wide = nq.fake_quantize(x.astype(np.float32), qp)
    assert_same_bits(nq.fake_quantize(x, qp), wide.astype(np.float16))


def test_long_double_goes_through_float64(backend, rng):
    qp = nq.QParams(0.1, 7, nq.QuantSpec(8, symmetric=False))
    x = rng.standard_normal(50).astype(np.longdouble)
    y = nq.fake_quantize(x, qp)
    assert y.dtype == np.longdouble
    np.testing.assert_array_equal(y, nq.fake_quantize(x.astype(np.float64), qp))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_dequantize_computes_in_the_dtype_asked_for(backend, rng, dtype):
    for spec in cases.SPECS:
        qp = cases.random_qparams(rng, spec, (), dtype=np.float64)
        q = np.arange(spec.qmin, spec.qmax + 1).astype(spec.dtype)
        work = np.float32 if dtype in (np.float16, np.float32) else np.float64
        expected = (work(qp.scale) * (q.astype(int) - qp.zero_point).astype(work)).astype(dtype)
        assert_same_bits(nq.dequantize(q, qp, dtype=dtype), expected)


@pytest.mark.parametrize("scale", [0.5, np.float32(0.5), np.float64(0.5), np.float16(0.5)])
def test_dequantize_gives_the_dtype_of_the_scale(scale):
    qp = nq.QParams(scale, 0, nq.QuantSpec(8))
    wanted = np.float32 if getattr(scale, "dtype", None) in (np.float32, np.float16) else np.float64
    assert qp.scale.dtype == wanted
    assert nq.dequantize(np.int8([1, 2]), qp).dtype == wanted


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.uint16, np.uint64, ">i4"])
def test_dequantize_takes_wider_integers_that_fit(backend, dtype):
    qp = nq.QParams(0.5, 0, nq.QuantSpec(8, signed=False, symmetric=False))
    np.testing.assert_array_equal(nq.dequantize(np.array([0, 3, 255], dtype), qp), [0, 1.5, 127.5])


def test_scalars_and_arrays_of_no_dimension():
    qp = nq.QParams(np.float32(0.5), 0, nq.QuantSpec(8))
    for x in (1.3, np.float64(1.3), np.float32(1.3), np.array(1.3)):
        assert nq.quantize(x, qp) == 3
        assert isinstance(nq.quantize(x, qp), np.int8)
    out = np.zeros((), np.int8)
    assert nq.quantize(1.3, qp, out=out) is out and out == 3
    assert nq.fake_quantize(np.float16(1.3), qp).dtype == np.float16
    np.testing.assert_array_equal(nq.quantize([[1.0], [2.0]], qp), [[2], [4]])


def strided(array, data):
    """Return the same values in another layout."""
    order = data.draw(st.permutations(range(array.ndim)))
    x = array.transpose(order).copy().transpose(np.argsort(order))
    if x.ndim and data.draw(st.booleans(), label="every second"):
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
        wide[..., ::2] = x
        x = wide[..., ::2]
    if x.ndim and data.draw(st.booleans(), label="reversed"):
        x = x[::-1].copy()[::-1]
    if data.draw(st.booleans(), label="swapped"):
        x = x.astype(x.dtype.newbyteorder())
    if data.draw(st.booleans(), label="unaligned"):
        raw = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
        raw[...] = x
        x = raw
    if data.draw(st.booleans(), label="read-only"):
        x.flags.writeable = False
    return x


@WITH_BACKEND
@given(data=st.data())
def test_any_layout_gives_what_a_plain_copy_gives(backend, data):
    dtype = data.draw(st.sampled_from(cases.FLOATS))
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9))
    axis = data.draw(st.sampled_from([None, *range(-len(shape), len(shape))]))
    spec = data.draw(st.sampled_from(cases.SPECS + cases.WIDE_SPECS + cases.OFFSET_SPECS))
    sizes = [None] if axis is None else [None, *(n for n in range(1, 10) if shape[axis] % n == 0)]
    spec = cases.with_axis(spec, axis, data.draw(st.sampled_from(sizes), label="group size"))
    profiles = cases.PROFILES if spec.zero_aligned else cases.OFFSET_PROFILES
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    qp = cases.random_qparams(rng, spec, shape, data.draw(st.sampled_from(profiles)))
    x, dy = cases.values(rng, shape, dtype), cases.values(rng, shape, dtype)
    x2, dy2 = strided(x, data), strided(dy, data)
    np.testing.assert_array_equal(x2, x)
    check_all(x, dy, qp)
    found = [nq.quantize(x2, qp), nq.fake_quantize(x2, qp), nq.fake_quantize_backward(dy2, x2, qp)]
    found += nq.fake_quantize_with_grad(x2, dy2, qp)
    found += nq.fake_quantize_learnable_backward(dy2, x2, qp)
    plain = [nq.quantize(x, qp), nq.fake_quantize(x, qp), nq.fake_quantize_backward(dy, x, qp)]
    plain += nq.fake_quantize_with_grad(x, dy, qp)
    plain += nq.fake_quantize_learnable_backward(dy, x, qp)
    for a, b in zip(found, plain, strict=True):
        assert_same_bits(a, b)
    np.testing.assert_array_equal(x2, x)
    q = np.asarray(nq.quantize(x, qp))
    assert_same_bits(nq.dequantize(strided(q, data), qp), nq.dequantize(q, qp))


def test_gradients_in_the_other_byte_order(backend, rng):
    """Also where they lie in memory as x does, in an order that is not C's."""
    qp = nq.QParams(1.0, 0, cases.SPECS[0])
    for x in (np.zeros((9, 7)), np.zeros((9, 7), order="F")):
        dy = np.asarray(rng.standard_normal((9, 7)), order="F")
        swapped = dy.astype(dy.dtype.newbyteorder(), order="K")
        assert_same_bits(nq.fake_quantize_backward(swapped, x, qp), dy)
        assert_same_bits(nq.fake_quantize_with_grad(x, swapped, qp)[1], dy)


@pytest.fixture
def streaming():
    """Let every call write past the caches."""
    _core.set_stream_from(1)
    yield
    _core.set_stream_from(0)


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_results_written_past_the_caches_are_the_same(backend, rng, streaming, dtype):
    assert _core.get_stream_from() == 1
    for n, (shape, axis) in enumerate(cases.SHAPES):
        spec = cases.with_axis(cases.SPECS[n % len(cases.SPECS)], axis)
        qp = cases.random_qparams(rng, spec, shape)
        check_all(cases.values(rng, shape, dtype), cases.values(rng, shape, dtype), qp)


def test_outputs_anywhere_between_cache_lines_are_streamed(backend, rng, streaming):
    qp = nq.QParams(np.float32(0.1), 3, nq.QuantSpec(8, symmetric=False))
    x, dy = cases.values(rng, (2000,), np.float32), cases.values(rng, (2000,), np.float32)
    q, (y, dx) = reference.quantize(x, *cases.arguments(qp)), nq.fake_quantize_with_grad(x, dy, qp)
    codes, floats = np.zeros(2100, np.int8), np.zeros((2, 2100), np.float32)
    for shift in (0, 1, 3, 4, 8, 15, 16, 17, 63):
        assert_same_bits(nq.quantize(x, qp, out=codes[shift : shift + 2000]), q)
        both = floats[0, shift : shift + 2000], floats[1, 5 : 5 + 2000]
        assert_same_bits(nq.fake_quantize_with_grad(x, dy, qp, out=both)[0], y)
        assert_same_bits(both[1], dx)


def test_the_largest_cache_is_what_streaming_starts_from():
    assert 1 << 18 <= _core.get_stream_from() < 1 << 34


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_new_arrays_have_the_memory_order_of_x(backend, rng, dtype):
    """As those of NumPy's ufuncs: nothing is transposed on the way."""
    for axis in (None, 0, 1, 2):
        x = cases.values(rng, (4, 30, 50), dtype).transpose(1, 2, 0)
        qp = cases.random_qparams(rng, nq.QuantSpec(8, axis=axis), x.shape)
        dy = cases.values(rng, (30, 50, 4), dtype)
        found = [nq.quantize(x, qp), nq.fake_quantize(x, qp), *nq.fake_quantize_with_grad(x, dy, qp)]
        found += [nq.dequantize(found[0], qp), nq.fake_quantize_backward(np.ascontiguousarray(dy).copy("F"), x, qp)]
        for array in found:
            assert array.transpose(2, 0, 1).flags.c_contiguous
        plain = np.ascontiguousarray(x)
        assert_same_bits(found[0], nq.quantize(plain, qp))
        assert_same_bits(found[2], nq.fake_quantize(plain, qp))
        assert_same_bits(found[3], nq.fake_quantize_backward(dy, plain, qp))
        assert_same_bits(found[4], nq.dequantize(nq.quantize(plain, qp), qp))
        assert_same_bits(found[5], found[3])


def test_all_values_of_float16_come_through_unchanged(backend):
    dy = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    x = np.zeros_like(dy)
    dx = nq.fake_quantize_backward(dy, x, nq.QParams(0.1, 0, nq.QuantSpec(8)))
    assert_same_bits(dx, dy)
    finite = ~np.isnan(dy)
    np.testing.assert_array_equal(dx.view(np.uint16)[finite], dy.view(np.uint16)[finite])


def test_float16_is_rounded_as_numpy_rounds_it(backend):
    """Every code at scales that reach subnormals, ties and the largest values."""
    q = np.arange(-128, 128, dtype=np.int8)
    for scale in (2.0**-26, 2.0**-24 * 1.5, 2.0**-14 / 3, 1 / 3, 1.0009765625, 511.75, 515.9, 600, 1e6):
        qp = nq.QParams(np.float32(scale), 0, nq.QuantSpec(8))
        with np.errstate(over="ignore"):
            expected = nq.dequantize(q, qp).astype(np.float16)
        assert_same_bits(nq.dequantize(q, qp, dtype=np.float16), expected)


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_outputs_are_filled_and_returned_and_nothing_else_is_touched(backend, rng, dtype):
    for n in (0, 1, 7, 64, 1000):
        x, dy = cases.values(rng, (n,), dtype), cases.values(rng, (n,), dtype)
        before = x.tobytes(), dy.tobytes()
        qp = nq.QParams(0.1, 3, nq.QuantSpec(8, symmetric=False))
        room = np.full(n + 128, 77, np.int8)
        out = room[64 : 64 + n]
        assert nq.quantize(x, qp, out=out) is out
        assert_same_bits(out, nq.quantize(x, qp))
        assert (room[:64] == 77).all() and (room[64 + n :] == 77).all()
        wide = np.full(n + 128, 77, dtype)
        y, dx = wide[64 : 64 + n], np.empty(n, dtype)
        assert nq.fake_quantize(x, qp, out=y) is y
        assert_same_bits(y, nq.fake_quantize(x, qp))
        assert (wide[:64] == 77).all() and (wide[64 + n :] == 77).all()
        assert nq.dequantize(out, qp, dtype=dtype, out=y) is y
        assert nq.fake_quantize_backward(dy, x, qp, out=dx) is dx
        result = nq.fake_quantize_with_grad(x, dy, qp, out=(y, dx))
        assert result[0] is y and result[1] is dx
        assert nq.fake_quantize_learnable_backward(dy, x, qp, out=dx)[0] is dx
        assert before == (x.tobytes(), dy.tobytes())


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((1000,), None), ((10, 100), 1), ((5000, 3), 1), ((3, 5000), 0), ((30, 16), 0), ((90, 49), 0)],
)
def test_an_output_may_be_the_input(backend, rng, shape, axis, dtype):
    qp = cases.random_qparams(rng, nq.QuantSpec(8, axis=axis), shape)
    x, dy = cases.values(rng, shape, dtype), cases.values(rng, shape, dtype)
    y, dx = nq.fake_quantize_with_grad(x, dy, qp)
    a = x.copy()
    assert_same_bits(nq.fake_quantize(a, qp, out=a), y)
    a, b = x.copy(), dy.copy()
    assert_same_bits(nq.fake_quantize_backward(b, a, qp, out=b), dx)
    b = dy.copy()
    assert_same_bits(nq.fake_quantize_backward(b, a, qp, out=a), dx)
    a, b = x.copy(), dy.copy()
    found = nq.fake_quantize_with_grad(a, b, qp, out=(a, b))
    assert_same_bits(found[0], y)
    assert_same_bits(found[1], dx)
    a, b = x.copy(), dy.copy()
    found = nq.fake_quantize_with_grad(a, b, qp, out=(b, a))
    assert_same_bits(found[0], y)
    assert_same_bits(found[1], dx)
    a, b = x.copy(), dy.copy()
    assert_same_bits(nq.fake_quantize_learnable_backward(b, a, qp, out=a)[0], dx)


def test_gradients_take_the_dtype_of_x(backend, rng):
    qp = nq.QParams(0.1, 0, nq.QuantSpec(8))
    x, dy = rng.standard_normal(100).astype(np.float32), rng.standard_normal(100)
    assert_same_bits(nq.fake_quantize_backward(dy, x, qp), nq.fake_quantize_backward(dy.astype(np.float32), x, qp))


def test_grad_factor(backend, rng):
    x, dy = rng.standard_normal((4, 50)), rng.standard_normal((4, 50))
    for spec, numel in ((nq.QuantSpec(4), 200), (nq.QuantSpec(4, axis=0), 50)):
        qp = cases.random_qparams(rng, spec, x.shape, dtype=np.float64)
        _, dscale, dzp = nq.fake_quantize_learnable_backward(dy, x, qp, grad_factor=1)
        factor = 1 / np.sqrt(numel * 7)
        _, scaled, scaled_zp = nq.fake_quantize_learnable_backward(dy, x, qp)
        np.testing.assert_allclose(scaled, dscale * factor, rtol=1e-15)
        np.testing.assert_allclose(scaled_zp, dzp * factor, rtol=1e-15)


def test_the_learnable_backward_is_the_derivative(backend, rng):
    """Outside the range the output is a bound, differentiable in scale and zero point; so is a sum over it."""
    x, dy = np.array([9.0, -9.0, 30.0]), rng.standard_normal(3)
    spec = nq.QuantSpec(4, symmetric=False)

    def loss(scale, zero_point):
        bound = np.where(x > 0, spec.qmax, spec.qmin)
        return (dy * scale * (bound - zero_point)).sum()

    _, dscale, dzp = nq.fake_quantize_learnable_backward(dy, x, nq.QParams(0.1, 1, spec), grad_factor=1)
    step = 1e-6
    assert dscale == pytest.approx((loss(0.1 + step, 1) - loss(0.1 - step, 1)) / (2 * step), rel=1e-6)
    assert dzp == pytest.approx((loss(0.1, 1 + step) - loss(0.1, 1 - step)) / (2 * step), rel=1e-6)


def test_a_small_scale_of_float64_is_too_small_for_float32():
    qp = nq.QParams(1e300, 0, nq.QuantSpec(8))
    assert nq.quantize(np.float64(3e300), qp) == 3
    with pytest.raises(ValueError, match="outside the range of float32"):
        nq.quantize(np.float32(1), qp)


@pytest.mark.parametrize("scale", [2.0**-126, np.float32(3e38)])
def test_the_largest_and_the_smallest_scale_of_float32(backend, scale):
    spec = nq.QuantSpec(8, signed=False, symmetric=False)
    qp = nq.QParams(np.float32(scale), 0, spec)
    x = np.float32([0, scale, -scale, np.finfo(np.float32).max])
    expected = [0, 1, 0, 255 if scale < 1 else 1]
    np.testing.assert_array_equal(nq.quantize(x, qp), expected)


ALL_SPECS = cases.SPECS + cases.WIDE_SPECS + cases.OFFSET_SPECS


@WITH_BACKEND
@given(data=st.data())
def test_requantize_is_quantize_of_dequantize(backend, data):
    shape = data.draw(st.sampled_from([(), (0,), (7,), (6, 4), (3, 8, 5), (2, 3000), (70, 1030), (300, 4), (50, 6, 9)]))
    rng, pair = np.random.default_rng(data.draw(st.integers(0, 1000))), []
    for name in ("from", "to"):
        axis = data.draw(st.sampled_from([None, *range(len(shape))]), label=f"axis {name}")
        size = data.draw(st.sampled_from([None, 2]), label=f"groups {name}")
        if axis is None or shape[axis] % 2:
            size = None
        spec = cases.with_axis(data.draw(st.sampled_from(ALL_SPECS), label=name), axis, size)
        profile = data.draw(st.sampled_from(cases.PROFILES if spec.zero_aligned else cases.OFFSET_PROFILES))
        dtype = data.draw(st.sampled_from([np.float32, np.float64]))
        pair.append(cases.random_qparams(rng, spec, shape, profile, dtype))
    x = np.asarray(cases.values(rng, shape, np.float64))
    q = nq.quantize(x, pair[0])
    expected = nq.quantize(nq.dequantize(q, pair[0]), pair[1])
    assert_same_bits(nq.requantize(q, *pair), expected)
    out = np.zeros(shape, pair[1].spec.dtype)
    assert nq.requantize(np.asarray(q)[::-1].copy()[::-1] if q.ndim else q, *pair, out=out) is out
    assert_same_bits(out, expected)


def test_requantize_in_place():
    eight, four = nq.QParams(0.5, 10, nq.QuantSpec(symmetric=False)), nq.QParams(2.0, 0, nq.QuantSpec(4))
    q = np.int8([6, 10, 14, 127])
    assert nq.requantize(q, eight, four, out=q) is q
    np.testing.assert_array_equal(q, [-1, 0, 1, 7])
    with pytest.raises(ValueError, match="out overlaps q"):
        nq.requantize(q[:2], eight, four, out=q[1:3])
    with pytest.raises(ValueError, match="out: dtype must be int8, got int16"):
        nq.requantize(q, eight, four, out=q.astype(np.int16))


def test_requantize_names_its_arguments():
    qp = nq.QParams(0.5, 0, nq.QuantSpec())
    with pytest.raises(TypeError, match="from_qparams: expected a QParams, got int"):
        nq.requantize(np.int8([1]), 3, qp)
    with pytest.raises(TypeError, match="to_qparams: expected a QParams, got str"):
        nq.requantize(np.int8([1]), qp, "qp")
    with pytest.raises(TypeError, match="q: expected integers, got dtype float64"):
        nq.requantize(np.ones(3), qp, qp)
    with pytest.raises(ValueError, match="q: axis 0 must have 2 elements"):
        nq.requantize(np.int8([1, 2, 3]), qp, nq.QParams([0.5, 0.5], 0, nq.QuantSpec(axis=0)))
    too_large = nq.QParams(1e300, 0, nq.QuantSpec())
    with pytest.raises(ValueError, match="outside the range of float32"):
        nq.requantize(np.int8([1]), nq.QParams(np.float32(0.5), 0, nq.QuantSpec()), too_large)
