"""Observers of parts of the data, however cut, shared out and merged, find the same bits as one of the whole."""

import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ndquant as nq

from .examples import examples

ROWS, COLUMNS = 60, 6


def rows_of_many_kinds():
    """Rows over 30 binades, with zeros, constant rows and outliers."""
    rng = np.random.default_rng(11)
    x = rng.standard_normal((ROWS, COLUMNS)) * 2.0 ** rng.integers(-20, 10, (ROWS, 1))
    x[::7] = 0
    x[5], x[33, 2] = 1.5, -4e4
    return x.astype(np.float32)


DATA = rows_of_many_kinds()
AFFINE = nq.QuantSpec(4, symmetric=False)
BY_COLUMN = nq.QuantSpec(8, axis=-1)
GROUPS = nq.QuantSpec(4, axis=-1, group_size=3)


class Rows(nq.RowObserver):
    """A sample that is smaller than the data."""

    capacity = 23


#: How each observer is made, and what is asked of it: a name may tell whether its answer depends on what a batch is.
KINDS = {
    "min-max": (nq.MinMaxObserver, AFFINE, {}),
    "min-max by column": (lambda: nq.MinMaxObserver(-1), BY_COLUMN, {}),
    "moving average": (nq.MovingAverageMinMaxObserver, AFFINE, {}),
    "moving average by column": (lambda: nq.MovingAverageMinMaxObserver(-1), BY_COLUMN, {}),
    "percentile": (nq.HistogramObserver, AFFINE, {"method": "percentile", "percentile": 97}),
    "mse": (nq.HistogramObserver, AFFINE, {"method": "mse"}),
    "mse by column": (lambda: nq.HistogramObserver(-1), BY_COLUMN, {"method": "mse"}),
    "l2": (nq.HistogramObserver, AFFINE, {"method": "l2"}),
    "entropy": (nq.HistogramObserver, AFFINE, {"method": "entropy"}),
    "mse, torch by column": (lambda: nq.HistogramObserver(-1, "torch"), BY_COLUMN, {"method": "mse"}),
    "cross-entropy": (Rows, AFFINE, {}),
}


def observed(kind, parts):
    """Return an observer that saw these (first row, end), each under the number of its first row."""
    observer = KINDS[kind][0]()
    for first, end in parts:
        observer.update(DATA[first:end], number=first)
    return observer


def assert_same(kind, found, whole):
    _, spec, how = KINDS[kind]
    assert found.range(spec, **how)[0].tobytes() == whole.range(spec, **how)[0].tobytes()
    assert found.qparams(spec, **how) == whole.qparams(spec, **how)


def cut(where):
    ends = [0, *sorted(where), ROWS]
    return list(zip(ends[:-1], ends[1:], strict=True))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=examples(40), deadline=None)
@given(data=st.data())
def test_any_split_in_any_order_merged_in_any_tree(kind, data):
    parts = cut(data.draw(st.sets(st.integers(1, ROWS - 1), max_size=9)))
    # A batch is what a moving average averages: that one is not cut anew.
    whole = observed(kind, parts if "average" in kind else [(0, ROWS)])
    shuffled = data.draw(st.permutations(parts))
    of = data.draw(st.lists(st.integers(0, 3), min_size=len(parts), max_size=len(parts)))
    workers = [observed(kind, [p for p, w in zip(shuffled, of, strict=True) if w == n]) for n in range(4)]
    while len(workers) > 1:
        one = workers.pop(data.draw(st.integers(0, len(workers) - 1)))
        other = data.draw(st.sampled_from(workers))
        assert other.merge(pickle.loads(pickle.dumps(one))) is other
    assert workers[0].count == len(parts)
    assert_same(kind, workers[0], whole)


def task(kind, parts):
    """Return the process that did it and the observer."""
    return os.getpid(), observed(kind, parts)


PARTS = cut(range(7, ROWS, 7))


@pytest.mark.parametrize("kind", KINDS)
def test_parts_that_threads_saw(kind):
    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(lambda part: observed(kind, [part]), PARTS))
    merged = seen[-1]
    for other in seen[:-1]:
        merged.merge(other)
    assert_same(kind, merged, observed(kind, PARTS))


def test_parts_that_processes_saw():
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as one, ProcessPoolExecutor(1, context) as other:
        picked = {k: v for k, v in KINDS.items() if "column" not in k}
        tasks = {k: [one.submit(task, k, PARTS[1::2]), other.submit(task, k, PARTS[::2])] for k in picked}
        for kind, (odd, even) in tasks.items():
            (odd_pid, merged), (even_pid, rest) = odd.result(), even.result()
            assert len({odd_pid, even_pid, os.getpid()}) == 3
            assert_same(kind, merged.merge(rest), observed(kind, PARTS))


def test_the_range_of_groups_of_merged_histograms():
    whole = nq.HistogramObserver(-1, group_size=3).update(DATA).update(DATA * 2)
    part = nq.HistogramObserver(-1, group_size=3).update(DATA * 2)
    assert part.merge(nq.HistogramObserver(-1, group_size=3).update(DATA)).qparams(GROUPS) == whole.qparams(GROUPS)


def test_data_of_several_dtypes_merge_in_any_order():
    x = [DATA[:20].astype(np.float16), DATA[20:40], DATA[40:].astype(np.float64)]
    for kind in ("min-max", "mse", "percentile", "cross-entropy"):
        make, spec, how = KINDS[kind]
        found = []
        for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
            seen = [make().update(x[i], number=20 * i) for i in order]
            found.append(seen[0].merge(seen[1]).merge(seen[2]).qparams(spec, **how))
        assert found[0] == found[1] == found[2]
        assert found[0].scale.dtype == np.float64
