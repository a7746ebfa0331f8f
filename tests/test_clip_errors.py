"""clip_errors: the curve of error against clip value, the ranges that methods choose, and the plot of both."""

import sys

import numpy as np
import pytest

import ndquant as nq

SYMMETRIC, AFFINE = nq.QuantSpec(bits=4), nq.QuantSpec(bits=4, signed=False, symmetric=False)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("spec", [SYMMETRIC, AFFINE], ids=["symmetric", "affine"])
def test_a_curve_is_the_error_of_each_clipped_range(rng, spec, dtype):
    x = rng.laplace(size=3000).astype(dtype)
    clip = np.array([0.5, 1.0, 2.0, 4.0, 50.0])
    found = nq.clip_errors(x, spec, clip=clip, methods=())
    for i, c in enumerate(clip.astype(dtype)):
        error = nq.quantization_error(x, nq.choose_qparams(np.clip(x, -c, c), spec))
        assert (found.mse[i], found.clipping[i], found.rounding[i]) == (error.mse, error.clipping, error.rounding)
    assert found.clip.tolist() == clip.tolist() and found.methods == {}
    assert found.clipping[0] > found.clipping[1] > found.clipping[2] and found.clipping[-1] == 0


@pytest.mark.parametrize("spec", [SYMMETRIC, AFFINE], ids=["symmetric", "affine"])
def test_marks_are_what_choose_qparams_chooses(rng, spec):
    x = rng.laplace(size=3000)
    found = nq.clip_errors(x, spec)
    assert list(found.methods) == ["mse", "l2", "entropy", "percentile", "minmax"]
    for name, choice in found.methods.items():
        qp = nq.choose_qparams(x, spec, name)
        assert choice.error == nq.quantization_error(x, qp)
        assert qp == nq.QParams.from_range(choice.low, choice.high, spec)
        assert choice.clip == max(-choice.low, choice.high)
    assert found.clip.shape == (100,) and found.clip[-1] == abs(x).max() and (np.diff(found.clip) > 0).all()
    assert found.methods["mse"].error.mse <= found.mse.min() * 1.02


def test_data_on_one_side_of_zero_are_clipped_on_the_far_side():
    x = np.linspace(3.0, 5.0, 50)
    found = nq.clip_errors(x, nq.QuantSpec(zero_aligned=False), methods=["minmax"])
    assert found.clip[0] > 3 and found.clip[-1] == 5 and found.clipping[0] > found.clipping[-1] == 0
    assert nq.clip_errors(np.zeros(3), SYMMETRIC, methods=()).mse.max() == 0


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((np.ones(3), 8), TypeError, "spec: expected a QuantSpec, got int"),
        ((np.ones((2, 2)), nq.QuantSpec(axis=0)), ValueError, "spec: must have axis=None, .* got axis=0"),
        ((np.ones(3, int), SYMMETRIC), TypeError, "x: expected floating-point data"),
        ((np.array([]), SYMMETRIC), ValueError, r"x: is empty, shape \(0,\)"),
        ((np.array([np.nan]), SYMMETRIC), ValueError, "x: has 1 NaN and 0 infinite of 1 values"),
        ((np.array([1.0, -1.0]), SYMMETRIC, [1.0, -2.0]), ValueError, "clip: must be finite and at least 0 .* got -2"),
        ((np.array([3.0, 4.0]), SYMMETRIC, [1.0]), ValueError, "clip: .* at least 3 for values of 3 to 4, got 1"),
        ((np.ones(3), SYMMETRIC, 2.0), ValueError, r"clip: expected a list of numbers, got shape \(\)"),
        ((np.ones(3), SYMMETRIC, None, ["max"]), ValueError, "method: must be one of mse, l2, .* got 'max'"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        nq.clip_errors(*arguments)


def test_a_plot_has_three_curves_and_a_mark_for_each_method(rng):
    figure = pytest.importorskip("matplotlib.figure", reason="matplotlib draws the plot")
    found = nq.clip_errors(rng.standard_normal(1000), SYMMETRIC)
    axes = figure.Figure().subplots()
    assert found.plot(ax=axes) is axes
    curves, marks = axes.lines[:3], axes.lines[3:]
    for line, error in zip(curves, (found.mse, found.clipping, found.rounding), strict=True):
        assert line.get_xdata().tolist() == found.clip.tolist() and line.get_ydata().tolist() == error.tolist()
    for line, (name, choice) in zip(marks, found.methods.items(), strict=True):
        assert line.get_label().startswith(f"{name}: ") and line.get_linestyle() == "None"
        assert (line.get_xdata(), line.get_ydata()) == ([choice.clip], [choice.error.mse])
    assert len(axes.get_legend().get_texts()) == 8
    assert "unit of x" in axes.get_xlabel() and "squared" in axes.get_ylabel()


def test_without_matplotlib_the_plot_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="plot needs matplotlib: pip install matplotlib"):
        nq.clip_errors(np.ones(3), SYMMETRIC).plot()
