"""Pictures of arrays and their grids: drawn into the axes given, with the figures that the functions compute."""

import numpy as np
import pytest

import ndquant as nq
from ndquant.report import plot_bits, plot_distribution, plot_weights

matplotlib = pytest.importorskip("matplotlib", reason="plots need matplotlib (the extra `notebooks`)")
matplotlib.use("Agg")

X = np.random.default_rng(0).standard_normal(2000)


@pytest.fixture
def ax():
    from matplotlib import pyplot

    yield pyplot.subplots()[1]
    pyplot.close("all")


def test_distribution_has_a_bar_for_each_level_in_use_and_lines_at_the_ends(ax):
    qp = nq.QParams.from_range(-2.5, 2.5, nq.QuantSpec(4, zero_aligned=False, signed=False, symmetric=False))
    assert plot_distribution(X, qp, ax=ax) is ax
    bars = [p for p in ax.patches if isinstance(p, matplotlib.patches.Rectangle)]
    levels, counts = np.unique(nq.fake_quantize(X, qp), return_counts=True)
    np.testing.assert_allclose([bar.get_x() + bar.get_width() / 2 for bar in bars], levels)
    np.testing.assert_allclose([bar.get_height() for bar in bars], counts / len(X) / float(qp.scale))
    ends = [line.get_xdata()[0] for line in ax.lines]
    np.testing.assert_allclose(ends, [float(end) for end in qp.range])
    assert "16 of 16 levels" in ax.get_legend_handles_labels()[1][-1]


def test_distribution_needs_one_scale(ax):
    qp = nq.choose_qparams(X.reshape(2, -1), nq.QuantSpec(axis=0))
    with pytest.raises(ValueError, match="one scale"):
        plot_distribution(X, qp, ax=ax)


def test_weights_stand_before_and_after_in_the_same_shades(ax):
    w = X.reshape(20, 100)
    qp = nq.choose_qparams(w, nq.QuantSpec(2, axis=0))
    assert plot_weights(w, qp, ax=ax) is ax
    image = ax.images[0]
    shown = np.asarray(image.get_array().filled(np.nan))
    np.testing.assert_array_equal(shown[:, :100], w)
    np.testing.assert_array_equal(shown[:, -100:], nq.fake_quantize(w, qp))
    assert image.get_clim() == (-np.abs(w).max(), np.abs(w).max())
    with pytest.raises(ValueError, match="rows and columns"):
        plot_weights(X, qp, ax=ax)


def test_bits_have_a_line_for_each_method_with_its_decibels(ax):
    assert plot_bits(X, nq.QuantSpec(), ["minmax", "mse"], bits=[2, 4], ax=ax) is ax
    for line, method in zip(ax.lines, ("minmax", "mse"), strict=True):
        found = [nq.choose_qparams(X, nq.QuantSpec(b), method=method) for b in (2, 4)]
        np.testing.assert_array_equal(line.get_xdata(), [2, 4])
        np.testing.assert_array_equal(line.get_ydata(), [nq.quantization_error(X, qp).sqnr for qp in found])
    assert len({line.get_linestyle() for line in ax.lines}) == 2
