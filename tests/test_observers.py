"""Observers: what they find, that they merge exactly, and what they refuse."""

import itertools
import pickle

import numpy as np
import pytest

import ndquant as nq
from ndquant import _core, reference

from . import cases

OBSERVERS = (nq.MinMaxObserver, nq.MovingAverageMinMaxObserver, nq.HistogramObserver)
METHODS = ("minmax", "percentile", "mse", "l2", "entropy")
AFFINE = nq.QuantSpec(8, signed=False, symmetric=False)


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_extremes_agree_with_the_twin(backend, rng, dtype):
    for shape, axis in cases.SHAPES:
        x = cases.values(rng, shape, dtype)
        low, high, nans, infs = _core.minmax(x, axis)
        expected = reference.minmax(x, axis)
        cases.assert_same_bits(low, expected[0])
        cases.assert_same_bits(high, expected[1])
        assert (nans, infs) == expected[2:]


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_a_single_extreme_anywhere_is_found(backend, dtype):
    for n in (1, 2, 31, 32, 33, 64, 100):
        for i in range(n):
            x = np.zeros(n, dtype)
            x[i] = -3
            assert [float(v) for v in _core.minmax(x, None)[:2]] == [-3, 0 if n > 1 else -3]
            x[i] = np.nan
            assert _core.minmax(x, None)[2:] == (1, 0)
            x[i] = np.inf
            assert _core.minmax(x, None)[2:] == (0, 1)


def test_large_values_are_finite_although_their_sum_is_not(backend):
    largest = np.finfo(np.float32).max
    for n in (31, 32, 33, 100):
        assert _core.minmax(np.full(n, largest), None) == (largest, largest, 0, 0)


def test_minus_zero_becomes_zero(backend):
    low, high, _, _ = _core.minmax(np.full(50, -0.0, np.float32), None)
    assert not np.signbit(low) and not np.signbit(high)


def batches(rng, dtype=np.float32, n=7):
    return [(rng.standard_normal((4, 50 + 3 * i)) * (1 + i % 3)).astype(dtype) for i in range(n)]


@pytest.mark.parametrize("axis", [None, 0])
def test_min_max(rng, axis):
    data = batches(rng)
    observer = nq.MinMaxObserver(axis=axis)
    for x in data:
        assert observer.update(x) is observer
    low, high = observer.range(nq.QuantSpec(axis=axis))
    everything = np.concatenate(data, axis=1)
    np.testing.assert_array_equal(low, everything.min(axis=None if axis is None else 1))
    np.testing.assert_array_equal(high, everything.max(axis=None if axis is None else 1))
    assert observer.count == len(data)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("axis", [None, 0])
def test_moving_average(rng, axis, dtype):
    observer = nq.MovingAverageMinMaxObserver(axis=axis)
    m = None
    for x in batches(rng, dtype):
        observer.update(x)
        seen = np.array([x.min(axis=None if axis is None else 1), x.max(axis=None if axis is None else 1)])
        m = seen if m is None else m + dtype(0.01) * (seen - m)
        low, high = observer.range(nq.QuantSpec(axis=axis))
        assert low.dtype == dtype
        np.testing.assert_array_equal([low, high], m)


def test_a_step_of_the_moving_average_does_not_depend_on_its_number():
    observer = nq.MovingAverageMinMaxObserver()
    x, folds = np.ones(3), []
    observer._step = lambda *args: folds.append(1) or type(observer)._step(observer, *args)
    for _ in range(100):
        observer.update(x).range(nq.QuantSpec())
    assert len(folds) == 99


@pytest.mark.parametrize("make", OBSERVERS)
def test_merged_observers_go_on(make, rng):
    parts = batches(rng)
    whole, merged, other = make(), make(), make()
    for number, x in enumerate(parts):
        whole.update(x)
        (merged if number % 2 else other).update(x, number=number)
    merged.merge(other)
    assert merged.update(parts[0]).qparams(AFFINE) == whole.update(parts[0]).qparams(AFFINE)
    assert merged.count == whole.count == len(parts) + 1


@pytest.mark.parametrize("make", OBSERVERS)
def test_a_copy_goes_its_own_way(make, rng):
    observer = make().update(rng.standard_normal(100))
    before = observer.qparams(AFFINE)
    other = pickle.loads(pickle.dumps(observer)).update(rng.standard_normal(100) * 50)
    merged = make().merge(observer).update(rng.standard_normal(100) * 50)
    assert observer.qparams(AFFINE) == before != other.qparams(AFFINE)
    assert merged.qparams(AFFINE) != before


@pytest.mark.parametrize("make", OBSERVERS)
def test_the_dtype_of_the_data(make):
    x = np.linspace(-1, 3, 100)
    for dtypes, wanted in (
        ([np.float16], np.float32),
        ([np.float32], np.float32),
        ([np.float64], np.float64),
        ([np.float32, np.float64, np.float32], np.float64),
    ):
        observer = make()
        for dtype in dtypes:
            observer.update(x.astype(dtype))
            observer.qparams(AFFINE)
        assert observer.qparams(AFFINE).scale.dtype == wanted


def test_choose_qparams_is_an_observer_that_saw_one_array(rng):
    x = rng.standard_normal((6, 40))
    for axis, method in itertools.product([None, 0, 1, -1], METHODS):
        spec = nq.QuantSpec(4, axis=axis)
        qp = nq.choose_qparams(x, spec, method=method)
        if method == "minmax":
            assert qp == nq.MinMaxObserver(axis=axis).update(x).qparams(spec)
        else:
            assert qp == nq.HistogramObserver(axis=axis).update(x).qparams(spec, method=method)
        assert qp.scale.shape == (() if axis is None else (x.shape[axis],))
        if axis == 0:
            rows = [nq.choose_qparams(row, nq.QuantSpec(4), method=method) for row in x]
            np.testing.assert_array_equal(qp.scale, [row.scale for row in rows])


@pytest.mark.parametrize("make", OBSERVERS)
def test_data_that_are_not_finite(make):
    x = np.array([1.0, np.nan, np.inf, -np.inf, -2.0, np.nan])
    message = 'x: has 2 NaN and 2 infinite of 6 values; nonfinite="ignore" would skip them'
    observer = make()
    with pytest.raises(ValueError, match=message):
        observer.update(x)
    assert observer.count == 0
    observer = make(nonfinite="ignore").update(x)
    assert observer.qparams(AFFINE) == make().update(np.array([1.0, -2.0])).qparams(AFFINE)
    with pytest.raises(nq.QuantizationError, match="x had no finite value"):
        make(nonfinite="ignore").update(np.array([np.nan])).qparams(AFFINE)
    with pytest.raises(nq.QuantizationError, match="channel 1 had no finite value"):
        make(axis=0, nonfinite="ignore").update(np.array([[1.0], [np.inf]])).qparams(nq.QuantSpec(axis=0))
    with pytest.raises(ValueError, match="nonfinite: must be one of error, ignore, got 'skip'"):
        make(nonfinite="skip")
    if make is nq.MovingAverageMinMaxObserver:
        assert observer.update(np.array([np.nan])).range(AFFINE) == (-2, 1)


def test_choosing_for_data_that_are_not_finite_or_not_there():
    for method in METHODS:
        with pytest.raises(ValueError, match="1 NaN and 0 infinite of 2"):
            nq.choose_qparams(np.array([1.0, np.nan]), nq.QuantSpec(), method=method)
        with pytest.raises(ValueError, match=r"x: is empty, shape \(0, 3\)"):
            nq.choose_qparams(np.zeros((0, 3)), nq.QuantSpec(axis=0), method=method)
        with pytest.raises(ValueError, match=r"x: is empty"):
            nq.choose_qparams([], nq.QuantSpec(), method=method)
        with pytest.raises(TypeError, match="x: expected floating-point data"):
            nq.choose_qparams(np.arange(3), nq.QuantSpec(), method=method)
        with pytest.raises(ValueError, match="x: has 1 dimensions, so axis 1 does not exist"):
            nq.choose_qparams(np.ones(3), nq.QuantSpec(axis=1), method=method)
    with pytest.raises(ValueError, match="method: must be one of"):
        nq.choose_qparams(np.ones(3), nq.QuantSpec(), method="best")
    with pytest.raises(ValueError, match="percentile: must be 50 to 100, got 101"):
        nq.choose_qparams(np.ones(3), nq.QuantSpec(), method="percentile", percentile=101)
    with pytest.raises(TypeError, match="spec: expected a QuantSpec, got int"):
        nq.choose_qparams(np.ones(3), 8)


@pytest.mark.parametrize("make", OBSERVERS)
def test_what_observers_refuse(make):
    observer = make()
    with pytest.raises(nq.QuantizationError, match="has seen no data"):
        observer.qparams(AFFINE)
    with pytest.raises(TypeError, match="x: expected floating-point data"):
        observer.update(np.arange(3))
    with pytest.raises(TypeError, match="masked"):
        observer.update(np.ma.array([1.0, 2.0], mask=[0, 1]))
    with pytest.raises(ValueError, match="x: is empty"):
        observer.update(np.zeros(0))
    with pytest.raises(TypeError, match="number: must be an int or None, got 1.5"):
        observer.update(np.ones(3), number=1.5)
    with pytest.raises(ValueError, match="number: must not be negative, got -1"):
        observer.update(np.ones(3), number=-1)
    assert observer.count == 0
    observer.update(np.ones(3))
    with pytest.raises(ValueError, match="spec: axis must be None as this observer's, got 0"):
        observer.qparams(nq.QuantSpec(axis=0))
    with pytest.raises(TypeError, match="spec: expected a QuantSpec, got str"):
        observer.qparams("int8")
    with pytest.raises(TypeError, match="axis: must be an int or None"):
        make(axis=0.5)


@pytest.mark.parametrize("make", OBSERVERS)
def test_what_merging_refuses(make):
    observer = make(axis=0).update(np.ones((3, 2)))
    with pytest.raises(ValueError, match="x: must have 3 channels on axis 0 as before, got 2"):
        observer.update(np.ones((2, 2)))
    with pytest.raises(ValueError, match="other: must have 3 channels, got 2"):
        observer.merge(make(axis=0).update(np.ones((2, 2)), number=1))
    with pytest.raises(ValueError, match="other: was made with"):
        observer.merge(make(axis=1))
    with pytest.raises(ValueError, match="other: was made with"):
        observer.merge(make(axis=0, profile="torch"))
    with pytest.raises(TypeError, match=f"other: expected a {make.__name__}"):
        observer.merge(OBSERVERS[OBSERVERS.index(make) - 1](axis=0))
    assert observer.merge(make(axis=0)).count == 1


def test_histograms_of_profile_torch_do_not_merge(rng):
    x = rng.standard_normal((3, 50))
    observers = [nq.HistogramObserver(profile="torch").update(x) for _ in range(2)]
    with pytest.raises(nq.QuantizationError, match="depends on the order of batches"):
        observers[0].merge(observers[1])
    assert observers[0].qparams(AFFINE) == observers[1].qparams(AFFINE)
    # PyTorch has none per channel.
    whole = nq.HistogramObserver(0, "torch").update(x).update(x)
    part = nq.HistogramObserver(0, "torch").update(x).merge(nq.HistogramObserver(0, "torch").update(x))
    spec = cases.with_axis(AFFINE, 0)
    for method in (None, "l2", "mse"):
        assert part.qparams(spec, method) == whole.qparams(spec, method)
    skipping = nq.HistogramObserver(profile="torch", nonfinite="ignore").update(np.array([np.nan]))
    skipping.update(np.append(x, [np.inf, np.nan]))
    assert skipping.qparams(AFFINE) == nq.HistogramObserver(profile="torch").update(x).qparams(AFFINE)


def test_ranges_that_are_too_wide_or_too_narrow_for_pytorchs_histogram():
    observer = nq.HistogramObserver(profile="torch").update(np.array([1.0, 2.0]))
    before = observer.range(AFFINE)
    for x in ([-1e38, 1e38], [1e300, 0.0]):
        with pytest.raises(ValueError, match="too wide for PyTorch's histogram"):
            observer.update(np.array(x))
    assert (observer.count, observer.range(AFFINE), observer.range(AFFINE, "minmax")) == (1, before, (1, 2))
    narrow = nq.HistogramObserver(profile="torch").update(np.array([1e-45, 2e-44]))
    assert narrow.qparams(AFFINE).scale == np.finfo(np.float32).eps


def test_a_batch_counts_once_in_a_moving_average():
    observer = nq.MovingAverageMinMaxObserver().update(np.ones(3), number=4)
    with pytest.raises(ValueError, match="number: batch 4 was seen before"):
        observer.update(np.ones(3), number=4)
    with pytest.raises(ValueError, match="other: batch 4 was seen by both"):
        observer.merge(nq.MovingAverageMinMaxObserver().update(np.ones(3), number=4))
    assert observer.update(np.ones(3)).count == 2
    for constant in (0, -1, 1.5, np.nan):
        with pytest.raises(ValueError, match="averaging_constant: must be above 0 and at most 1"):
            nq.MovingAverageMinMaxObserver(averaging_constant=constant)


# ---- Rows of logits


def logits(rng, rows=10_000, classes=5):
    return rng.standard_normal((rows, classes)).astype(np.float32)


def test_a_sample_of_rows_is_random_and_bounded(rng):
    x = logits(rng)
    observer = nq.RowObserver().update(x)
    assert len(observer._rows) == nq.RowObserver.capacity == 4096
    places = np.flatnonzero((x[:, None, 0] == observer._rows[:, 0].astype(np.float32)).any(axis=1))
    # Every tenth of the data is in the sample as often as it should, within five standard deviations.
    counts = np.histogram(places, 10, (0, len(x)))[0]
    assert (abs(counts - 409.6) < 5 * np.sqrt(1000 * 0.4096 * 0.5904)).all()
    others = [nq.RowObserver(seed=seed).update(x) for seed in (0, 1, -1)]
    np.testing.assert_array_equal(others[0]._rows, observer._rows)
    for other in others[1:]:
        common = len(np.intersect1d(other._rows[:, 0], observer._rows[:, 0]))
        assert 1300 < common < 2100


def test_rows_are_numbered_from_the_last_one_on(rng):
    x = logits(rng, 300)
    whole, parts, batches = nq.RowObserver(), nq.RowObserver(), nq.RowObserver()
    whole.update(x)
    parts.update(x[200:], number=200).update(x[:200], number=0)
    batches.update(x.reshape(3, 50, 2, 5)[:1]).update(x[100:])
    assert whole.qparams(AFFINE) == parts.qparams(AFFINE) == batches.qparams(AFFINE)
    np.testing.assert_array_equal(whole._rows, batches._rows)
    one = nq.RowObserver().update(x[0])
    np.testing.assert_array_equal(one._rows, x[:1])


def test_rows_of_numbers_near_the_end():
    observer = nq.RowObserver().update(np.ones((3, 2)), number=2**64 - 1)
    with pytest.raises(ValueError, match="number: this batch has rows that were seen before"):
        observer.update(np.ones((1, 2)), number=0)


def test_what_row_observers_refuse(rng):
    x = logits(rng, 10)
    observer = nq.RowObserver().update(x)
    before = observer.qparams(AFFINE)
    with pytest.raises(ValueError, match="number: this batch has rows that were seen before"):
        observer.update(x * 9, number=9)
    with pytest.raises(ValueError, match="other: has rows that were seen before"):
        observer.merge(nq.RowObserver().update(x * 9, number=5))
    with pytest.raises(ValueError, match="x: must have 5 classes as before, got 4"):
        observer.update(x[:, :4])
    with pytest.raises(ValueError, match="other: must have 5 classes, got 4"):
        observer.merge(nq.RowObserver().update(x[:, :4], number=50))
    with pytest.raises(ValueError, match="x: must be rows of logits"):
        nq.RowObserver().update(np.float32(3))
    with pytest.raises(ValueError, match="1 NaN and 0 infinite of 2"):
        observer.update(np.array([1.0, np.nan]))
    assert (observer.count, observer.qparams(AFFINE)) == (1, before)
    with pytest.raises(ValueError, match="x: is empty"):
        observer.update(x[:0])
    with pytest.raises(nq.QuantizationError, match="has seen no data"):
        nq.RowObserver().range(AFFINE)
    with pytest.raises(ValueError, match="axis: must be None, as a softmax couples"):
        nq.RowObserver(axis=0)
    with pytest.raises(ValueError, match="axis: must be None"):
        nq.choose_qparams(x, nq.QuantSpec(axis=1), "cross_entropy")
    with pytest.raises(ValueError, match="spec: axis must be None"):
        observer.range(nq.QuantSpec(axis=0))
    with pytest.raises(TypeError, match="seed: must be an int, got 1.5"):
        nq.RowObserver(seed=1.5)
    with pytest.raises(ValueError, match="'seed': 1"):
        observer.merge(nq.RowObserver(seed=1))


def test_rows_that_are_not_finite_are_skipped_whole(rng):
    x = logits(rng, 40)
    bad = x.copy()
    bad[::3, 0] = np.nan
    bad[::3, 1] = 1e6
    kept = np.delete(np.arange(40), np.arange(0, 40, 3))
    observer = nq.RowObserver(nonfinite="ignore").update(bad)
    alone = nq.RowObserver(nonfinite="ignore")
    for i in kept:
        alone.update(x[i], number=i)
    assert observer.qparams(AFFINE) == alone.qparams(AFFINE)
    assert observer.range(AFFINE)[1] < 100
    with pytest.raises(nq.QuantizationError, match="x had no finite value"):
        nq.RowObserver(nonfinite="ignore").update(bad[:1]).range(AFFINE)
