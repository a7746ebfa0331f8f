"""How ranges are chosen: the histogram, the errors of ranges, and each method against a search of everything."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ndquant as nq
from ndquant import _core, reference
from ndquant.clip_search import HistogramError, code_levels
from ndquant.entropy import BINS, divergences, equal_bins
from ndquant.histogram import Histogram
from ndquant.profiles import PROFILES

from . import cases
from .examples import examples

AFFINE = nq.QuantSpec(8, signed=False, symmetric=False)
DEFAULT = PROFILES["default"]


def counted(x, axis=None):
    histogram = Histogram()
    histogram.add(x, axis)
    return histogram


def as_dicts(histogram):
    start, bins, counts = histogram.table
    ends = itertools.pairwise(start)
    return [dict(zip(bins[a:b].tolist(), counts[a:b].tolist(), strict=True)) for a, b in ends]


# ---- The histogram


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_histograms_agree_with_the_twin(rng, dtype):
    edges = cases.edge_values(dtype)
    for x in (
        cases.values(rng, (5000,), dtype),
        edges,
        np.zeros(0, dtype),
        np.full(9, -1.5, dtype),
        np.tile(edges, 900),
    ):
        found = counted(x)
        assert as_dicts(found) == [reference.histogram(x)]
        assert (np.diff(found.table[1]) > 0).all()


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_histograms_of_channels_agree_with_the_twin(rng, dtype):
    for shape, axis in cases.SHAPES:
        if axis is not None:
            x = cases.values(rng, shape, dtype)
            assert as_dicts(counted(x, axis)) == [reference.histogram(c) for c in np.moveaxis(x, axis, 0)]
            assert as_dicts(counted(x.T, -1 - axis)) == as_dicts(counted(x, axis))


@pytest.mark.parametrize("shape, axis, size", [((4, 6), 1, 3), ((4, 6), 0, 2), ((2, 6, 5), 1, 2), ((2, 6, 5), -1, 5)])
def test_histograms_of_groups_agree_with_the_twin(rng, shape, axis, size):
    x = cases.values(rng, shape, np.float32)
    start = _core.histogram(x, axis, size)[0]
    axis = axis % x.ndim
    cut = x.reshape(*shape[:axis], shape[axis] // size, size, *shape[axis + 1 :])
    groups = np.moveaxis(cut, axis + 1, -1).reshape(-1, size)
    assert len(start) == len(groups) + 1
    assert as_dicts(Histogram(_core.histogram(x, axis, size))) == [reference.histogram(g) for g in groups]


def test_a_histogram_does_not_depend_on_the_number_of_threads(rng, threads):
    x = rng.standard_normal((2, 300_000)).astype(np.float32)
    threads(1)
    alone = [counted(a, axis).table for a, axis in ((x, None), (x, 0), (x.T, 1), (x.astype(np.float64), None))]
    threads(5)
    shared = [counted(a, axis).table for a, axis in ((x, None), (x, 0), (x.T, 1), (x.astype(np.float64), None))]
    for one, other in zip(alone, shared, strict=True):
        for a, b in zip(one, other, strict=True):
            cases.assert_same_bits(a, b)


FLOAT_ARRAYS = hnp.arrays(np.float64, st.tuples(st.just(2), st.integers(0, 40)), elements=st.floats(width=64))


@settings(max_examples=examples(60), deadline=None)
@given(x=FLOAT_ARRAYS, cut=st.integers(0, 40))
def test_the_sum_of_histograms_is_that_of_all_values(x, cut):
    whole, part = counted(x, 0), counted(x[:, :cut], 0)
    before = part.table
    part.merge(counted(x[:, cut:], 0))
    assert as_dicts(part) == as_dicts(whole) == [reference.histogram(c) for c in x]
    assert as_dicts(Histogram(before)) == [reference.histogram(c) for c in x[:, :cut]]
    assert as_dicts(whole.magnitudes()) == [reference.histogram(abs(c)) for c in x]


def test_bins_hold_their_values(rng):
    x = np.concatenate([cases.values(rng, (2000,), np.float32).astype(np.float64), [0.0, 1.0, -1.0]])
    x = x[np.isfinite(x)]
    histogram = counted(x)
    low, high = histogram.edges()
    counts = histogram.table[2]
    assert counts.sum() == x.size and (counts > 0).all()
    assert (low <= high).all() and (np.diff(low) > 0).all()
    x = np.where(abs(x) < 2.0**-126, 0, x)
    for a, b, n in zip(low, high, counts, strict=True):
        inside = (x > a) & (x <= b) if b < 0 or a < 0 else (x >= a) & (x < b) if b > 0 else x == 0
        assert inside.sum() == n
    centres = histogram.centres(x.min(), x.max())
    assert (np.diff(centres) > 0).all() and centres[0] >= x.min() and centres[-1] <= x.max()
    inside = slice(1, -1)
    np.testing.assert_array_equal(centres[inside], (low / 2 + high / 2)[inside])


# ---- Errors


def random_ranges(rng, channels, tries):
    return -rng.uniform(0, 4, (channels, tries)), rng.uniform(0.01, 4, (channels, tries))


@pytest.mark.parametrize("p, rtol", [(2, 1e-13), (2.4, 1e-6), (1, 1e-6)])
def test_errors_agree_with_the_twin(backend, rng, p, rtol):
    start = np.array([0, 700, 700, 1000, 1001])
    values, weights = rng.standard_normal(1001) * 2, rng.integers(1, 100, 1001).astype(np.float64)
    low, high = random_ranges(rng, 4, 33)
    for levels in (1, 15, 255, 2**32 - 1):
        scale = (high - low) / levels
        found = _core.clip_errors(start, values, weights, low, scale, levels, p)
        with nq.backend("portable"):
            cases.assert_same_bits(found, _core.clip_errors(start, values, weights, low, scale, levels, p))
        for c, k in np.ndindex(low.shape):
            part = slice(start[c], start[c + 1])
            expected = reference.clip_error(values[part], weights[part], low[c, k], scale[c, k], levels, p)
            # Distances from the base of 2^32 levels are only so exact.
            assert found[c, k] == pytest.approx(expected, rel=rtol if levels < 256 else 1e-5)


def test_errors_do_not_depend_on_the_number_of_threads(rng, threads):
    start, values = np.array([0, 3000, 9000]), rng.standard_normal(9000)
    low, high = random_ranges(rng, 2, 101)
    threads(1)
    alone = _core.clip_errors(start, values, abs(values), low, (high - low) / 7, 7, 2)
    threads(5)
    cases.assert_same_bits(_core.clip_errors(start, values, abs(values), low, (high - low) / 7, 7, 2), alone)


def test_a_scale_that_is_none_is_the_worst():
    scale = np.array([[0.0, np.nan, np.inf, -1.0]])
    errors = _core.clip_errors(np.array([0, 2]), np.ones(2), np.ones(2), np.zeros((1, 4)), scale, 7, 2)
    assert (errors == np.inf).all()


def measured(x, qp, p=2):
    return np.mean(abs(nq.fake_quantize(x, qp).astype(np.float64) - x) ** p)


def test_the_error_of_a_histogram_is_that_of_the_data(rng):
    x = rng.standard_normal(50000)
    for spec, p in itertools.product((nq.QuantSpec(8), nq.QuantSpec(3), AFFINE), (2, 2.4)):
        error = HistogramError(counted(x), x.min(keepdims=True), x.max(keepdims=True), spec, DEFAULT, p)
        # In units of its own: what is measured is the ratio to one of the ranges.
        ranges = np.array([(-1.0, 1.0), (-4.0, 4.0), (-2.0, 3.0)])
        found = error(*ranges.T[:, None])[0]
        expected = np.array([measured(x, nq.QParams.from_range(*ends, spec), p) for ends in ranges])
        np.testing.assert_allclose(found / found[0], expected / expected[0], rtol=0.02)


# ---- Percentiles


@pytest.mark.parametrize("percentile", [50, 75, 99, 99.9, 100])
def test_percentiles(rng, percentile):
    x = np.concatenate([rng.standard_normal(20000), rng.gamma(1, 1, 5000)]).astype(np.float32)
    observer = nq.HistogramObserver().update(x)
    low, high = observer.range(AFFINE, method="percentile", percentile=percentile)
    expected = np.percentile(x.astype(np.float64), [100 - percentile, percentile])
    np.testing.assert_allclose([low, high], expected, rtol=2**-8, atol=1e-3)
    low, high = observer.range(nq.QuantSpec(), method="percentile", percentile=percentile)
    assert low == -high
    assert high == pytest.approx(np.percentile(abs(x), percentile), rel=2**-8)


@settings(max_examples=examples(60), deadline=None)
@given(x=hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-1e6, 1e6, width=32)), fraction=st.floats(0, 1))
def test_quantiles_lie_in_the_bin_of_a_neighbour(x, fraction):
    found = counted(x).quantiles()(fraction)[0]
    below, above = (np.quantile(x.astype(np.float64), fraction, method=m) for m in ("lower", "higher"))
    slack = 2.0**-126 + 2.0**-8 * max(abs(below), abs(above))
    assert below - slack <= found <= above + slack


# ---- The least error


def distributions(rng):
    n = 20000
    yield rng.standard_normal(n)
    yield rng.laplace(size=n)
    yield np.maximum(rng.standard_normal(n), 0)
    yield rng.gamma(1, 1, n) - 0.3
    yield -rng.gamma(1, 1, n)
    yield np.concatenate([rng.standard_normal(n), [1e4]])
    yield rng.standard_normal(n) * 1e-20
    yield np.zeros(10)
    yield np.full(10, 3.0)
    yield np.array([-1.0, 2.0])
    yield rng.uniform(100, 200, n)


SEARCHES = [("mse", 2), ("mse", 2.4), ("l2", 2)]


# PyTorch's own search, ("torch", "l2"), may end anywhere.
@pytest.mark.parametrize("profile, search", list(itertools.product(("default", "textbook", "torch"), SEARCHES))[:-1])
def test_no_search_is_worse_than_the_extremes(rng, profile, search):
    method, p = search
    for x, spec in itertools.product(distributions(rng), cases.SPECS):
        x = x.astype(np.float32)
        observer = nq.HistogramObserver(profile=profile).update(x)
        low, high = observer.range(spec, method, p=p)
        lowest, highest = observer.range(spec, "minmax")
        assert low <= high
        error = HistogramError(counted(x), np.array([lowest]), np.array([highest]), spec, PROFILES[profile], p)
        found, before = error(np.array([[low, lowest]]), np.array([[high, highest]]))[0]
        assert found <= before


SMALL = hnp.arrays(np.float64, st.integers(2, 60), elements=st.floats(-100, 100).map(lambda v: round(v, 3)))


def scanned(x, spec, p):
    """The least error over many ranges, from the data themselves."""
    grid = np.concatenate([np.linspace(0.02, 1, 50), np.linspace(0.005, 0.02, 4)])
    low, high = min(x.min(), 0), max(x.max(), 0)
    if spec.symmetric:
        low = -max(-low, high)
        ranges = [(low * a, -low * a) for a in np.linspace(0.005, 1, 400)]
    else:
        ranges = [(low * a, high * b) for a in grid[::2] for b in grid[::2]]
    base, scale = code_levels(*np.array(ranges).T, spec, DEFAULT)
    return min(reference.clip_error(x, 1, b, s, spec.qmax - spec.qmin, p) for b, s in zip(base, scale, strict=True))


@settings(max_examples=examples(60), deadline=None)
@given(x=SMALL, spec=st.sampled_from(cases.SPECS), p=st.sampled_from([2, 2.4]))
def test_the_range_of_least_error_is_as_good_as_a_scan(x, spec, p):
    """Up to what the bins blur: half of 2^-9 of each value."""
    found = measured(x, nq.choose_qparams(x, spec, "mse", p=p), p) * x.size
    blur = np.sum((abs(x) * 2.0**-9) ** p)
    assert found ** (1 / p) <= (1.02 * scanned(x, spec, p)) ** (1 / p) + 2 * blur ** (1 / p) + 1e-12


@pytest.mark.parametrize("spec", [nq.QuantSpec(4), nq.QuantSpec(2), nq.QuantSpec(4, signed=False, symmetric=False)])
def test_the_range_of_least_error_of_much_data(rng, spec):
    for x in itertools.islice(distributions(rng), 7):
        found = measured(x, nq.choose_qparams(x, spec, method="mse"))
        assert found * x.size <= 1.005 * scanned(x, spec, 2)


def test_both_ends_of_a_range_that_need_not_hold_zero_are_searched(rng):
    x = np.concatenate([rng.normal(150, 1, 5000), [100.0, 200.0]])
    for profile, zero_aligned in (("textbook", True), ("default", False)):
        spec = nq.QuantSpec(4, symmetric=False, zero_aligned=zero_aligned)
        low, high = nq.HistogramObserver(profile=profile).update(x).range(spec, "mse")
        assert 130 < low < 149 and 151 < high < 170


def test_large_errors_weigh_more_with_a_higher_power(rng):
    observer = nq.HistogramObserver().update(rng.laplace(size=20000))
    limits = [observer.range(nq.QuantSpec(4), p=p)[1] for p in (1, 2, 2.4, 4)]
    assert limits == sorted(limits) and limits[0] < limits[-1] / 2


@pytest.mark.parametrize("method", ["mse", "percentile", "entropy", "l2"])
def test_channels_are_searched_as_if_each_were_alone(rng, method):
    channels = 4 if method == "entropy" else 515
    x = (rng.laplace(size=(channels, 30)) * rng.lognormal(0, 3, (channels, 1))).astype(np.float32)
    for spec in (nq.QuantSpec(4), AFFINE):
        scale = nq.choose_qparams(x, cases.with_axis(spec, 0), method).scale
        for c in (0, 1, -4, -1):
            assert scale[c] == nq.choose_qparams(x[c], spec, method).scale


# ---- L2: PyTorch's greedy search


def greedy(x, spec):
    """The search, value by value, over the middles of the bins."""
    x = np.sort(x)
    step = max(1e-5, 1 / x.size)
    error = HistogramError(counted(x), x[:1], x[-1:], spec, DEFAULT, 2.0)
    quantile = counted(x).quantiles()
    low, high, below, above = x[0], x[-1], 0, 0
    least = error(x[None, :1], x[None, -1:])[0, 0]
    while (below + above + 2) * step < 1:
        left = np.clip(quantile((below + 1) * step)[0], low, high)
        right = np.clip(quantile(1 - (above + 1) * step)[0], low, high)
        if left - low > high - right:
            tried, below = (left, high), below + 1
        else:
            tried, above = (low, right), above + 1
        found = error(*(np.array([[end]]) for end in tried))[0, 0]
        if found > least:
            break
        (low, high), least = tried, found
    return low, high


@settings(max_examples=examples(30), deadline=None)
@given(x=SMALL, spec=st.sampled_from([nq.QuantSpec(8), nq.QuantSpec(3), AFFINE]))
def test_the_greedy_search_goes_step_by_step(x, spec):
    assert nq.HistogramObserver().update(x).range(spec, "l2") == greedy(x, spec)


def test_the_greedy_search_ends_close_to_the_least_error(rng):
    for x in (rng.standard_normal(20000), rng.laplace(size=20000)):
        for spec in (nq.QuantSpec(8), AFFINE, nq.QuantSpec(4, symmetric=False)):
            errors = [measured(x, nq.choose_qparams(x, spec, method)) for method in ("mse", "l2", "minmax")]
            assert errors[1] <= 1.5 * errors[0] and errors[1] <= errors[2]


# ---- Entropy


COUNTS = hnp.arrays(np.int64, 24, elements=st.integers(0, 9) | st.integers(0, 1000)).map(lambda a: a.astype(np.float64))


@settings(max_examples=examples(100), deadline=None)
@given(below=COUNTS, above=COUNTS, levels=st.integers(2, 10), two_sides=st.booleans())
def test_divergences_agree_with_the_twin(below, above, levels, two_sides):
    above[0] += 1
    below = below if two_sides else below[:0]
    counts = np.concatenate([below[::-1], above])
    found = divergences(below, above, levels)
    needed = [max(np.flatnonzero(side), default=-1) + 1 for side in (below, above)]
    for kept in range(1, 25):
        first, end = (len(below) + sign * min(kept, n) for sign, n in zip((-1, 1), needed, strict=True))
        enough = end - first >= levels
        expected = reference.entropy_divergence(counts, first, end, levels) if enough else np.inf
        assert found[kept - 1] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_equal_bins_hold_what_a_histogram_of_numpy_holds(rng):
    x = np.concatenate([rng.standard_normal(20000) * 0.3, np.zeros(100), [-2.0, 1.5]])
    below, above = equal_bins(counted(x), -2.0, 1.5, 2.0)
    assert below.sum() + above.sum() == pytest.approx((x != 0).sum())
    for side, values in ((below, -x[x < 0]), (above, x[x > 0])):
        expected = np.histogram(values, BINS, (0, 2))[0]
        # A bin of the one histogram reaches into a few of the other.
        np.testing.assert_allclose(np.cumsum(side), np.cumsum(expected), atol=0.002 * x.size)


def test_entropy_keeps_all_of_even_data_and_cuts_the_tail_of_others(rng):
    even = rng.uniform(-1, 1, 200_000)
    spec = nq.QuantSpec(8)
    assert nq.HistogramObserver().update(even).range(spec, "entropy")[1] > 0.99
    tail = np.concatenate([rng.standard_normal(200_000), rng.uniform(10, 100, 20)])
    assert 3 < nq.HistogramObserver().update(tail).range(spec, "entropy")[1] < 15


def test_zeros_do_not_change_the_threshold_of_entropy(rng):
    x = abs(rng.laplace(size=50_000))
    observer = nq.HistogramObserver().update(x)
    alone = [observer.range(spec, "entropy")[1] for spec in (nq.QuantSpec(8), AFFINE)]
    observer.update(np.zeros(10**6))
    assert [observer.range(spec, "entropy")[1] for spec in (nq.QuantSpec(8), AFFINE)] == alone


def test_a_threshold_of_entropy_clips_both_ends_of_affine_codes(rng):
    x = np.concatenate([rng.laplace(size=100_000), [-3.0 * 20, 80.0]])
    low, high = nq.HistogramObserver().update(x).range(AFFINE, "entropy")
    assert low == -high and high < 40
    x = np.clip(x, -1, None)
    low, high = nq.HistogramObserver().update(x).range(AFFINE, "entropy")
    assert low == -1 and 1 < high < 40


@pytest.mark.parametrize("x", [np.zeros(5), np.full(5, 3.0), np.array([-1.0, 2.0]), np.array([1e-40, -1e-41])])
def test_entropy_of_data_that_are_hardly_any(x):
    for spec in cases.SPECS:
        low, high = nq.HistogramObserver().update(x).range(spec, "entropy")
        assert high >= x.max() and (low <= x.min())


# ---- Cross-entropy of rows of logits


def softmax(x):
    p = np.exp(x - x.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (70, 10), (5, 1001), (0, 3)])
def test_cross_entropies_agree_with_the_twin(rng, threads, shape):
    x = rng.standard_normal(shape) * 8
    low, high = (ends[0] for ends in random_ranges(rng, 1, 9))
    largest = x.max(axis=1, initial=-np.inf)
    for levels in (1, 15, 255, 65535, 2**32 - 1):
        scale = (high - low) / levels
        threads(1)
        found = _core.cross_entropies(x, softmax(x), largest, low, scale, levels)
        threads(5)
        cases.assert_same_bits(_core.cross_entropies(x, softmax(x), largest, low, scale, levels), found)
        for i, (b, s) in enumerate(zip(low, scale, strict=True)):
            y = b + s * np.clip(np.rint((x - b) / s), 0, levels)
            assert found[i] == pytest.approx(reference.cross_entropy(x, y), rel=1e-10, abs=1e-12)
    assert (_core.cross_entropies(x, x, largest, np.zeros(2), np.array([0.0, np.nan]), 7) == np.inf).all()


def change_of_softmax(x, qp):
    """The relative entropy: the cross-entropy less that of x itself."""
    return reference.cross_entropy(x, nq.fake_quantize(x, qp)) - reference.cross_entropy(x, x)


# How good a search is that visits some ranges of many, not a law of all data: so the examples stay the same.
@settings(max_examples=examples(30), deadline=None, derandomize=True)
@given(
    x=hnp.arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(2, 6)), elements=st.floats(-30, 30)),
    spec=st.sampled_from([nq.QuantSpec(8), nq.QuantSpec(3), AFFINE, nq.QuantSpec(3, symmetric=False)]),
)
def test_cross_entropy_is_as_good_as_a_scan(x, spec):
    low, high = min(x.min(), 0), max(x.max(), 0)
    grid = np.linspace(0.04, 1, 25)
    if spec.symmetric:
        ranges = [(-max(-low, high) * a, max(-low, high) * a) for a in grid]
    else:
        ranges = [(low * a, high * b) for a in grid for b in grid]
    scanned = min(change_of_softmax(x, nq.QParams.from_range(*ends, spec)) for ends in ranges)
    found = change_of_softmax(x, nq.choose_qparams(x, spec, "cross_entropy"))
    # Few values give a jagged error: what a scan of other ranges hits may be somewhat less.
    assert found <= 1.25 * scanned + 0.02 * len(x)


def test_cross_entropy_beats_the_other_methods_at_what_it_is_for(rng):
    x = rng.standard_normal((3000, 10)) * 3
    x[:, 3] -= 60
    for spec in (
        nq.QuantSpec(4),
        nq.QuantSpec(4, symmetric=False),
        nq.QuantSpec(4, symmetric=False, zero_aligned=False),
    ):
        changes = {m: change_of_softmax(x, nq.choose_qparams(x, spec, m)) for m in ("cross_entropy", "mse", "minmax")}
        assert changes["cross_entropy"] < 0.8 * min(changes["mse"], changes["minmax"])


def test_the_same_values_in_other_rows_want_another_range():
    spec = nq.QuantSpec(4)
    large, small = np.array([20.2, 20.0, 19.8, 19.6]), np.array([1.0, 0.6, 0.3, 0.0])
    apart = np.tile(np.stack([large, small]), (50, 1))
    mixed = np.tile(np.stack([[20.2, 1.0, 0.6, 19.6], [20.0, 0.3, 19.8, 0.0]]), (50, 1))
    assert sorted(apart.ravel()) == sorted(mixed.ravel())
    limits = [nq.RowObserver().update(x).range(spec)[1] for x in (apart, mixed)]
    assert limits[0] < 2 and limits[1] > 18


@pytest.mark.parametrize("symmetric", (False, True))
def test_a_channel_gets_the_range_that_it_has_alone(symmetric):
    spec = {"bits": 4, "signed": symmetric, "symmetric": symmetric}
    x = np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32)
    x[::4] = abs(x[::4])
    together = nq.choose_qparams(x, nq.QuantSpec(axis=0, **spec), method="mse")
    for i, row in enumerate(x):
        alone = nq.choose_qparams(row, nq.QuantSpec(**spec), method="mse")
        assert (alone.scale, alone.zero_point) == (together.scale[i], together.zero_point[i])
