"""QuantSpec, QParams, and how a range becomes scale and zero point."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ndquant as nq
from ndquant import reference
from ndquant.profiles import PROFILES, SMALLEST_SCALE

from . import cases

AFFINE = nq.QuantSpec(8, signed=False, symmetric=False)


@pytest.mark.parametrize(
    "arguments, limits",
    [
        ({}, (-128, 127, np.int8)),
        ({"narrow_range": True}, (-127, 127, np.int8)),
        ({"signed": False}, (0, 255, np.uint8)),
        ({"bits": 7, "signed": False}, (0, 127, np.uint8)),
        ({"bits": 4}, (-8, 7, np.int8)),
        ({"bits": 4, "signed": False}, (0, 15, np.uint8)),
        ({"bits": 2}, (-2, 1, np.int8)),
        ({"bits": 1, "signed": False, "symmetric": False}, (0, 1, np.uint8)),
        ({"bits": 1, "symmetric": False}, (-1, 0, np.int8)),
        ({"bits": 1, "zero_aligned": False}, (-1, 0, np.int8)),
        ({"bits": 9}, (-256, 255, np.int16)),
        ({"bits": 16, "signed": False}, (0, 65535, np.uint16)),
        ({"bits": 16, "narrow_range": True}, (-32767, 32767, np.int16)),
        ({"bits": 17, "signed": False}, (0, 2**17 - 1, np.uint32)),
        ({"bits": 32}, (-(2**31), 2**31 - 1, np.int32)),
        ({"bits": 32, "signed": False}, (0, 2**32 - 1, np.uint32)),
    ],
)
def test_codes_of_a_spec(arguments, limits):
    spec = nq.QuantSpec(**arguments)
    assert (spec.qmin, spec.qmax, spec.dtype) == limits


def test_a_spec_is_a_value():
    spec = nq.QuantSpec(4, axis=0)
    assert spec == nq.QuantSpec(bits=4, axis=0) != nq.QuantSpec(bits=4)
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert len({spec, nq.QuantSpec(4, axis=0)}) == 1
    with pytest.raises(AttributeError):
        spec.bits = 8


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"bits": 0}, ValueError, "bits: must be 1 to 32, got 0"),
        ({"bits": 33}, ValueError, "bits: must be 1 to 32, got 33"),
        ({"bits": 8.0}, TypeError, "bits: must be an int"),
        ({"bits": True}, TypeError, "bits: must be an int"),
        ({"bits": "8"}, TypeError, "bits: must be an int"),
        ({"signed": 1}, TypeError, "signed: must be True or False, got 1"),
        ({"symmetric": None}, TypeError, "symmetric: must be True or False"),
        ({"narrow_range": "no"}, TypeError, "narrow_range: must be True or False"),
        ({"zero_aligned": 0}, TypeError, "zero_aligned: must be True or False, got 0"),
        ({"group_size": 32.0}, TypeError, "group_size: must be an int or None, got 32.0"),
        ({"group_size": True}, TypeError, "group_size: must be an int or None, got True"),
        ({"group_size": 0}, ValueError, "group_size: must be at least 1, got 0"),
        ({"axis": 1.0}, TypeError, "axis: must be an int or None"),
        ({"axis": (0, 1)}, TypeError, "axis: must be an int or None"),
        ({"bits": 1}, ValueError, r"binary quantizer \(-1, \+1\)"),
        ({"bits": 1, "symmetric": False, "narrow_range": True}, ValueError, "leaves a single code"),
    ],
)
def test_bad_specs(arguments, error, message):
    with pytest.raises(error, match=message):
        nq.QuantSpec(**arguments)


def test_the_order_of_the_arguments_of_a_spec():
    spec = nq.QuantSpec(4, False, False, 1, 32, True, False)
    fields = spec.bits, spec.signed, spec.symmetric, spec.axis, spec.group_size, spec.narrow_range, spec.zero_aligned
    assert fields == (4, False, False, 1, 32, True, False)


def test_groups_are_along_the_last_axis_by_default():
    assert nq.QuantSpec(group_size=32) == nq.QuantSpec(axis=-1, group_size=32) != nq.QuantSpec(axis=0, group_size=32)
    assert nq.QuantSpec(group_size=np.int64(32)).axis == -1


GROUPED = nq.QParams(np.full((2, 3), 0.5, np.float32), 1, nq.QuantSpec(4, symmetric=False, group_size=8))
OFFSET = nq.QParams(np.float32(0.5), -2.3, nq.QuantSpec(4, signed=False, symmetric=False, zero_aligned=False))


def test_qparams_of_groups():
    assert repr(GROUPED) == "QParams(int4, 6 groups of 8 on axis -1, scale 0.5..0.5)"
    assert GROUPED.zero_point.shape == (2, 3) and GROUPED.range[0].shape == (2, 3)
    assert pickle.loads(pickle.dumps(GROUPED)) == GROUPED
    assert GROUPED != nq.QParams(GROUPED.scale, 1, nq.QuantSpec(4, symmetric=False, group_size=4))
    wide = nq.QParams(np.full((4096, 128), 1 / 3), 0, nq.QuantSpec(16, signed=False, group_size=32), profile="textbook")
    assert len(repr(wide)) < 80


def test_qparams_with_a_float_offset():
    assert repr(OFFSET) == "QParams(uint4, scale=0.5, zero_point=-2.3)"
    assert OFFSET.zero_point == np.float32(-2.3) and OFFSET.zero_point.dtype == np.float32
    assert OFFSET.range == (np.float32(-2.3), np.float32(7.5) + np.float32(-2.3))
    assert pickle.loads(pickle.dumps(OFFSET)) == OFFSET != nq.QParams(np.float32(0.5), -2.2, OFFSET.spec)
    per_channel = nq.QParams([1.0, 2.0], 0.25, nq.QuantSpec(axis=0, zero_aligned=False))
    np.testing.assert_array_equal(per_channel.zero_point, [0.25, 0.25])


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((0.5, np.nan, OFFSET.spec), ValueError, "zero_point: must be a finite float64 as scale, got nan"),
        ((np.float32(0.5), 1e39, OFFSET.spec), ValueError, "zero_point: must be a finite float32 as scale, got inf"),
        ((0.5, "0", OFFSET.spec), TypeError, "zero_point: must be a real number"),
        ((0.5, [0.5], OFFSET.spec), ValueError, r"zero_point: must have shape \(\) as scale, .* got shape \(1,\)"),
        ((0.5, 0.5, nq.QuantSpec()), TypeError, "zero_point: must be an integer"),
        ((0.5, 0, GROUPED.spec), ValueError, r"scale: must be an array that has axis -1, .* got shape \(\)"),
        (([0.5], 0, nq.QuantSpec(axis=1, group_size=2)), ValueError, r"that has axis 1, .* got shape \(1,\)"),
        (([[0.5]], [0], GROUPED.spec), ValueError, r"zero_point: must have shape \(1, 1\) as scale"),
    ],
)
def test_bad_offsets_and_groups(arguments, error, message):
    with pytest.raises(error, match=message):
        nq.QParams(*arguments)


@pytest.mark.parametrize("profile", ["torch", "onnx"])
def test_profiles_without_float_offsets(profile):
    calls = (
        lambda: nq.QParams(0.5, 0.1, OFFSET.spec, profile=profile),
        lambda: nq.QParams.from_range(-1, 1, OFFSET.spec, profile=profile),
        lambda: nq.choose_qparams(np.ones(3), OFFSET.spec, profile=profile),
    )
    for call in calls:
        with pytest.raises(ValueError, match=f"spec: profile '{profile}' knows integer zero points only"):
            call()


def test_the_range_of_a_float_offset_is_taken_as_it_is():
    for low, high in ((-2.5, 2.5), (100.0, 200.0), (-3.0, -1.0)):
        qp = nq.QParams.from_range(low, high, OFFSET.spec)
        assert qp.range == (low, pytest.approx(high)) and qp.scale == (high - low) / 15
        symmetric = nq.QParams.from_range(low, high, nq.QuantSpec(4, zero_aligned=False))
        top = max(abs(low), abs(high))
        assert symmetric.range == (pytest.approx(-top), pytest.approx(top))
    constant = nq.QParams.from_range(7.3, 7.3, OFFSET.spec)
    assert constant.scale == 1 and nq.fake_quantize(7.3, constant) == 7.3


def test_one_bit_with_a_float_offset_is_the_binary_quantizer():
    qp = nq.QParams.from_range(-1, 1, nq.QuantSpec(1, zero_aligned=False))
    np.testing.assert_array_equal(nq.fake_quantize(np.array([-9.0, -0.1, 0.1, 9.0]), qp), [-1, -1, 1, 1])


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("method", ["minmax", "mse", "percentile", "l2", "entropy"])
def test_each_group_has_the_qparams_of_its_data(rng, axis, method):
    x, size = rng.standard_normal((4, 6, 8)).astype(np.float32), 2
    qp = nq.choose_qparams(x, nq.QuantSpec(4, symmetric=False, axis=axis, group_size=size), method)
    assert qp.scale.shape == tuple(n // size if d == axis % 3 else n for d, n in enumerate(x.shape))
    for g, group in enumerate(np.split(x, x.shape[axis] // size, axis)):
        rows = np.moveaxis(group, axis, -1).reshape(-1, size)
        per_row = nq.choose_qparams(rows, nq.QuantSpec(4, symmetric=False, axis=0), method)
        np.testing.assert_array_equal(np.take(qp.scale, g, axis).reshape(-1), per_row.scale)
        np.testing.assert_array_equal(np.take(qp.zero_point, g, axis).reshape(-1), per_row.zero_point)


def test_bad_groups():
    x = np.ones((4, 6), np.float32)
    with pytest.raises(ValueError, match="group_size: 4 does not divide the 6 elements of axis -1 of x"):
        nq.choose_qparams(x, nq.QuantSpec(group_size=4))
    with pytest.raises(ValueError, match="x: has 2 dimensions, so axis 2 does not exist"):
        nq.choose_qparams(x, nq.QuantSpec(axis=2, group_size=2))
    with pytest.raises(ValueError, match="x: is empty"):
        nq.choose_qparams(x[:0], nq.QuantSpec(group_size=2))
    with pytest.raises(ValueError, match="spec: group_size must be None as this observer's, got 2"):
        nq.MinMaxObserver(axis=-1).update(x).qparams(nq.QuantSpec(group_size=2))
    with pytest.raises(TypeError, match="x: masked arrays are not supported"):
        nq.choose_qparams(np.ma.array(x), nq.QuantSpec(group_size=2))


def test_qparams_of_one_scale():
    qp = nq.QParams(np.float32(0.1), 3, AFFINE)
    assert qp.scale == np.float32(0.1) and isinstance(qp.scale, np.float32)
    assert qp.zero_point == 3 and isinstance(qp.zero_point, np.int32)
    assert qp.range == (np.float32(0.1) * np.float32(-3), np.float32(0.1) * np.float32(252))
    assert qp.profile == "default"
    assert repr(qp) == "QParams(uint8, scale=0.1, zero_point=3)"
    assert repr(nq.QParams(1.5, 0, nq.QuantSpec(4), profile="torch")) == "QParams(int4, scale=1.5, zero_point=0, torch)"


def test_qparams_per_channel():
    scale = np.array([0.1, 0.2, 0.3], np.float32)
    qp = nq.QParams(scale, [1, 2, 3], nq.QuantSpec(8, axis=-1))
    assert qp.scale.dtype == np.float32 and qp.zero_point.dtype == np.int32
    scale[:] = 9
    assert qp.scale[0] == np.float32(0.1)
    for array in (qp.scale, qp.zero_point):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    low, high = qp.range
    np.testing.assert_array_equal(low, qp.scale * np.float32([-129, -130, -131]))
    np.testing.assert_array_equal(high, qp.scale * np.float32([126, 125, 124]))
    assert repr(qp) == "QParams(int8, axis=-1, 3 channels, scale 0.1..0.3)"
    for profile in PROFILES:
        assert len(repr(nq.QParams(np.full(4096, 1 / 3), 0, nq.QuantSpec(8, axis=-1), profile=profile))) < 80
    np.testing.assert_array_equal(nq.QParams(scale, 5, nq.QuantSpec(8, axis=0)).zero_point, [5, 5, 5])


def test_qparams_are_immutable_and_compare_by_value():
    qp = nq.QParams(0.1, 3, AFFINE)
    for name in ("scale", "zero_point", "spec", "profile", "other"):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(qp, name, 1)
    with pytest.raises(AttributeError, match="immutable"):
        del qp.scale
    assert qp == nq.QParams(0.1, 3, AFFINE)
    assert qp != nq.QParams(0.1, 4, AFFINE)
    assert qp != nq.QParams(0.2, 3, AFFINE)
    assert qp != nq.QParams(np.float32(0.5), 3, AFFINE)
    assert nq.QParams(0.5, 3, AFFINE) != nq.QParams(np.float32(0.5), 3, AFFINE)
    assert qp != nq.QParams(0.1, 3, AFFINE, profile="torch")
    assert qp != nq.QParams(0.1, 3, nq.QuantSpec(8, symmetric=False))
    assert qp != "qp"
    with pytest.raises(TypeError, match="unhashable"):
        hash(qp)


@pytest.mark.parametrize("spec", [AFFINE, nq.QuantSpec(4, axis=0)])
def test_qparams_pickle_and_copy(spec):
    scale = np.float32(0.1) if spec.axis is None else np.float32([0.1, 0.2])
    qp = nq.QParams(scale, 3, spec, profile="torch")
    nq.quantize(np.zeros((2, 2)), qp)
    for other in (pickle.loads(pickle.dumps(qp)), copy.copy(qp), copy.deepcopy(qp)):
        assert other == qp and other.profile == "torch"
        assert not np.asarray(other.scale).flags.writeable or other.scale.ndim == 0
        np.testing.assert_array_equal(nq.quantize(np.ones((2, 2)), other), nq.quantize(np.ones((2, 2)), qp))


@pytest.mark.parametrize("scale", [0, 0.0, -0.1, np.nan, np.inf, -np.inf, 2.0**-127, 1e-300, np.float32(0)])
def test_scales_that_are_no_scales(scale):
    with pytest.raises(ValueError, match=r"scale: must be finite and at least 2\*\*-126, got"):
        nq.QParams(scale, 0, nq.QuantSpec())
    with pytest.raises(ValueError, match=r"scale\[1\]: must be finite"):
        nq.QParams([1.0, scale], 0, nq.QuantSpec(axis=0))


@pytest.mark.parametrize(
    "scale, spec, error, message",
    [
        ("0.1", nq.QuantSpec(), TypeError, "scale: must be a real number"),
        (None, nq.QuantSpec(), TypeError, "scale: must be a real number"),
        (1j, nq.QuantSpec(), TypeError, "scale: must be a real number"),
        (True, nq.QuantSpec(), TypeError, "scale: must be a real number"),
        (np.ma.array([0.1]), nq.QuantSpec(axis=0), TypeError, "scale: must be a real number"),
        ([0.1], nq.QuantSpec(), ValueError, r"scale: must be a single number .* got shape \(1,\)"),
        (0.1, nq.QuantSpec(axis=1), ValueError, r"scale: must be 1-D, as spec.axis is 1, got shape \(\)"),
        ([[0.1]], nq.QuantSpec(axis=0), ValueError, r"scale: must be 1-D"),
        (0.1, "int8", TypeError, "spec: expected a QuantSpec, got str"),
    ],
)
def test_bad_scales(scale, spec, error, message):
    with pytest.raises(error, match=message):
        nq.QParams(scale, 0, spec)


@pytest.mark.parametrize(
    "zero_point, spec, error, message",
    [
        (-1, AFFINE, ValueError, "zero_point: must be 0 to 255, got -1"),
        (256, AFFINE, ValueError, "zero_point: must be 0 to 255, got 256"),
        (8, nq.QuantSpec(4), ValueError, "zero_point: must be -8 to 7, got 8"),
        (-128, nq.QuantSpec(narrow_range=True), ValueError, "zero_point: must be -127 to 127, got -128"),
        (10**30, AFFINE, (ValueError, TypeError), "zero_point"),
        (1.0, AFFINE, TypeError, "zero_point: must be an integer"),
        (True, AFFINE, TypeError, "zero_point: must be an integer"),
        ("1", AFFINE, TypeError, "zero_point: must be an integer"),
        (None, AFFINE, TypeError, "zero_point: must be an integer"),
        ([1], AFFINE, ValueError, r"zero_point: must have shape \(\)"),
    ],
)
def test_bad_zero_points(zero_point, spec, error, message):
    with pytest.raises(error, match=message):
        nq.QParams(0.1, zero_point, spec)


def test_bad_zero_points_per_channel():
    with pytest.raises(ValueError, match=r"zero_point\[1\]: must be -128 to 127, got 300"):
        nq.QParams([0.1, 0.2], [0, 300], nq.QuantSpec(axis=0))
    with pytest.raises(ValueError, match=r"zero_point: must have shape \(2,\)"):
        nq.QParams([0.1, 0.2], [0, 0, 0], nq.QuantSpec(axis=0))


def test_textbook_takes_any_zero_point():
    for zero_point, dtype in ((-255, np.int32), (2**40, np.int64), (-(2**53), np.int64)):
        qp = nq.QParams(0.1, zero_point, AFFINE, profile="textbook")
        assert qp.zero_point == zero_point and qp.zero_point.dtype == dtype
        q = np.arange(256, dtype=np.uint8)
        np.testing.assert_array_equal(nq.dequantize(q, qp), 0.1 * (q.astype(np.float64) - zero_point))
    with pytest.raises(ValueError, match="zero_point: must be"):
        nq.QParams(0.1, 2**53 + 1, AFFINE, profile="textbook")


@pytest.mark.parametrize("profile", ["fbgemm", "", None, 3])
def test_unknown_profiles(profile):
    for call in (
        lambda: nq.QParams(0.1, 0, nq.QuantSpec(), profile=profile),
        lambda: nq.QParams.from_range(0, 1, nq.QuantSpec(), profile=profile),
        lambda: nq.choose_qparams(np.ones(3), nq.QuantSpec(), profile=profile),
        lambda: nq.MinMaxObserver(profile=profile),
    ):
        with pytest.raises(ValueError, match="profile: must be one of default, torch, onnx, textbook, got"):
            call()


@pytest.mark.parametrize(
    "low, high, error, message",
    [
        (1, 0, ValueError, "low: must not be above high, got 1.0 > 0.0"),
        (np.nan, 1, ValueError, "low: must be finite, got nan"),
        (0, np.inf, ValueError, "high: must be finite, got inf"),
        ([0.0, 2.0], [1.0, 1.0], ValueError, r"low\[1\]: must not be above high, got 2.0 > 1.0"),
        ("0", 1, TypeError, "low: must be a real number"),
        (0, None, TypeError, "high: must be a real number"),
        (0, 1j, TypeError, "high: must be a real number"),
    ],
)
def test_bad_ranges(low, high, error, message):
    with pytest.raises(error, match=message):
        nq.QParams.from_range(low, high, nq.QuantSpec(axis=0 if isinstance(low, list) else None))


finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
finite64 = st.floats(allow_nan=False, allow_infinity=False)


def check_range(low, high, kind):
    low, high = (kind(v) for v in sorted((low, high)))
    for profile in cases.PROFILES:
        offsets = cases.OFFSET_SPECS if profile in cases.OFFSET_PROFILES else ()
        for spec in cases.SPECS + cases.WIDE_SPECS + offsets:
            scale, zero_point = reference.choose_scale_zero_point(
                low, high, spec.qmin, spec.qmax, spec.symmetric, profile, spec.zero_aligned
            )
            if profile == "textbook" and not spec.symmetric and abs(int(zero_point)) > 2**53:
                continue
            if not np.isfinite(scale):
                with pytest.raises(ValueError, match="low, high: the scale of .* passes the range of float"):
                    nq.QParams.from_range(low, high, spec, profile=profile)
                continue
            qp = nq.QParams.from_range(low, high, spec, profile=profile)
            assert qp.scale.dtype == kind
            assert (qp.scale, qp.zero_point) == (scale, zero_point), (spec, profile)


@given(finite32, finite32)
def test_ranges_of_float32(low, high):
    check_range(low, high, np.float32)


@given(finite64, finite64)
def test_ranges_of_float64(low, high):
    check_range(low, high, np.float64)


@given(finite64, finite64)
def test_the_ends_of_a_range_are_representable(low, high):
    """The largest magnitude is a code of a symmetric grid; both ends are within half a step of an affine one."""
    low, high = sorted((low / 4, high / 4))
    qp = nq.QParams.from_range(low, high, nq.QuantSpec())
    top = max(abs(low), abs(high))
    raised = float(qp.scale) / 2 if qp.scale == SMALLEST_SCALE else 0
    assert abs(float(nq.fake_quantize(top, qp)) - top) <= max(1e-12 * top, raised)
    qp = nq.QParams.from_range(low, high, AFFINE)
    for end in (low, high):
        assert abs(float(nq.fake_quantize(end, qp)) - end) <= float(qp.scale) * 0.50001


@pytest.mark.parametrize("spec", cases.SPECS)
def test_constant_data_are_representable_to_within_one_step(spec):
    for profile in cases.PROFILES:
        for value in (0.0, 3.7, -3.7, 1e-30, 1e5):
            x = np.full(5, value)
            qp = nq.choose_qparams(x, spec, profile=profile)
            if spec.qmax <= 0 and value > 0 or profile == "torch" and abs(value) < 1e-6:
                continue
            assert abs(nq.fake_quantize(x, qp) - x).max() <= qp.scale


def test_an_empty_range_has_scale_one():
    for spec in cases.SPECS:
        assert nq.choose_qparams(np.zeros(3), spec).scale == 1
        assert nq.choose_qparams(np.zeros(3), spec, profile="textbook").scale == 1
        assert nq.choose_qparams(np.zeros(3), spec, profile="torch").scale == np.finfo(np.float32).eps


def test_a_chosen_scale_is_at_least_the_smallest():
    qp = nq.choose_qparams(np.array([0, 1e-300]), AFFINE)
    assert qp.scale == SMALLEST_SCALE
    qp = nq.choose_qparams(np.array([0, 1e-42], np.float32), AFFINE)
    assert qp.scale == np.float32(SMALLEST_SCALE) and qp.scale.dtype == np.float32


def test_a_span_that_overflows_is_formed_in_float64():
    top = np.finfo(np.float32).max
    qp = nq.choose_qparams(np.array([-top, top]), AFFINE)
    assert qp.scale == pytest.approx(2 * float(top) / 255, rel=1e-6)
    top = np.finfo(np.float64).max
    assert nq.choose_qparams(np.array([-top, top]), AFFINE).scale == pytest.approx(top / 127.5, rel=1e-15)


def test_the_dtype_of_a_scale():
    spec = nq.QuantSpec()
    for dtype in (np.float16, np.float32, np.float64, np.longdouble):
        wanted = np.float32 if dtype in (np.float16, np.float32) else np.float64
        assert nq.choose_qparams(np.ones(3, dtype), spec).scale.dtype == wanted
        assert nq.QParams(dtype(0.5), 0, spec).scale.dtype == wanted
    assert nq.QParams.from_range(-1, 1, spec).scale.dtype == np.float64
    assert nq.QParams.from_range(np.float32(-1), np.float32(1), spec).scale.dtype == np.float32
    assert nq.QParams.from_range(np.float32(-1), 1.0, spec).scale.dtype == np.float64
    assert nq.QParams(1, 0, spec).scale.dtype == np.float64


@pytest.mark.parametrize(
    ("qp", "facts"),
    [
        (nq.QParams(0.5, 3, nq.QuantSpec(8, signed=False, symmetric=False)),
         ("uint8, codes 0 to 255", "<td>0.5</td>", "<td>3</td>", "-1.5 to 126", "default")),
        (nq.QParams(np.array([0.5, 0.25]), 0, nq.QuantSpec(4, axis=0), profile="torch"),
         ("int4, codes -8 to 7", "2, on axis 0", "0.25 to 0.5", "-4 to 3.5", "torch")),
        (nq.QParams.from_range(-2.5, 2.5, nq.QuantSpec(4, signed=False, symmetric=False, zero_aligned=False)),
         ("uint4, codes 0 to 15", "-2.5 to 2.5")),
    ],
)
def test_html_is_a_table_of_what_qparams_say(qp, facts):
    html = qp._repr_html_()
    assert html.count("<table>") == 1
    assert [fact for fact in facts if fact not in html] == []
