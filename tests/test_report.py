"""The table of a converted network."""

import re

import numpy as np
import pytest

import ndquant as nq
from ndquant import nn

from .networks import inputs, mlp, quantized
from .test_residual import images, small_resnet


def test_rows_say_bits_sizes_and_errors():
    model, x = mlp(), inputs()
    graph = quantized("int4", model)
    report = graph.report(x)
    assert [(r.layer, r.weight_bits, r.in_bits, r.out_bits) for r in report.rows] == [
        ("0", 4, 8, 4), ("2", 4, 4, 4), ("4", 4, 4, None)
    ]
    assert [r.parameters for r in report.rows] == [16 * 6 + 16, 12 * 16 + 12, 4 * 12 + 4]
    assert report.rows[0].bytes == 16 * 6 // 2 + 16 * 4 + 16 * 4
    assert report.parameters == sum(p.data.size for p in model.parameters())
    layer = graph.integers("0")
    weights = layer["weight"] * layer["weight_scale"][:, None]
    assert report.rows[0].weight_sqnr == pytest.approx(nq.sqnr(model[0].weight, weights), abs=1e-4)
    assert report.rows[2].output_sqnr == pytest.approx(nq.sqnr(model(x), graph(x)), abs=1e-4)


def test_clipping_is_the_share_of_values_outside_the_range():
    graph, x = quantized("int8", calibration=inputs(rng=1)), inputs()
    assert graph.report(x).rows[0].clipped < 0.02
    node = graph["0"]
    hidden = graph.simulation.run(x).values["0"]
    top = float(np.median(hidden[hidden > 0]))
    node.out_qparams = nq.QParams.from_range(np.float32(0), np.float32(top), node.out_qparams.spec)
    high = float(node.out_qparams.range[1]) + 0.5 * float(node.out_qparams.scale)
    assert graph.report(x).rows[0].clipped == pytest.approx(np.mean(hidden > high))


def test_the_text_is_a_table_with_totals():
    lines = str(quantized().report(inputs())).splitlines()
    assert len(lines) == 5
    assert lines[0].split()[:3] == ["layer", "runs", "in"]
    assert lines[-1].split() == ["total", "368", f"{quantized().report().bytes}"]
    assert len({len(line) for line in lines[:-1]}) == 1


def test_without_data_or_float_weights_columns_stay_empty(tmp_path):
    graph = quantized()
    assert all(r.output_sqnr is None and r.clipped is None for r in graph.report().rows)
    graph.save(tmp_path / "m.npz")
    rows = nq.load(tmp_path / "m.npz").report(inputs()).rows
    assert all(r.weight_sqnr is None and r.output_sqnr is None for r in rows)


def test_only_converted_graphs_are_reported():
    with pytest.raises(nq.QuantizationError, match="'prepared'"):
        nq.prepare(mlp(), inputs()).report(inputs())


@pytest.fixture(scope="module")
def report():
    return nq.quantize_static(small_resnet(), [images()], overridden()).report(images())


class TestConvolutionNets:
    def test_every_op_that_computes_has_a_row(self, report):
        rows = {row.layer: row for row in report.rows}
        assert list(rows) == [
            "conv1", "layer1.0.conv1", "layer1.0.conv2", "add", "layer2.0.conv1", "layer2.0.conv2", "add_1",
            "adaptive_avg_pool2d", "linear",
        ]
        assert rows["add_1"].weight_bits is None and rows["add_1"].out_bits == 8 and rows["add_1"].parameters == 0
        assert rows["conv1"].parameters == 3 * 4 * 9 + 4  # the normalization is in the bias
        assert all(row.output_sqnr > 20 for row in report.rows)

    def test_what_stayed_float_says_why(self, report):
        assert report.stayed_float == {
            "add": "read as floats by layer2.0.conv1",
            "layer2.0.conv1": "kept by qconfig",
        }
        assert "float: kept by qconfig" in str(report)

    def test_headroom_is_what_the_sums_leave_of_int32(self):
        graph = nq.quantize_static(small_resnet(), [images()])
        layer, row = graph.integers("layer1.0.conv1"), graph.report().rows[1]
        zero = int(layer["input_zero_point"])
        sums = np.abs(layer["weight"].astype(int)).reshape(4, -1).sum(axis=1) * max(255 - zero, zero)
        assert row.headroom == pytest.approx(np.log2((2**31 - 1) / (sums + np.abs(layer["bias"])).max()))

    def test_html_has_the_facts_of_the_text(self, report):
        html = report._repr_html_()
        assert html.count("<table>") == 1 and html.count("<tr>") == len(str(report).splitlines())
        for cell in ("layer2.0.conv1", "float: kept by qconfig", f"{report.parameters:,}"):
            assert cell in html and cell in str(report)

    def test_page_holds_the_table_a_bar_for_each_layer_and_nothing_from_elsewhere(self, report, tmp_path):
        report.save_html(tmp_path / "report.html", title="a < b")
        page = (tmp_path / "report.html").read_text()
        assert report._repr_html_() in page and "<title>a &lt; b</title>" in page
        longest = max(row.output_sqnr for row in report.rows)
        widths = [float(width) for width in re.findall(r'style="width: ([\d.]+)%"', page)]
        np.testing.assert_allclose(widths, [100 * row.output_sqnr / longest for row in report.rows], atol=0.05)
        assert all(reason in page for reason in report.stayed_float.values())
        assert not re.search("https?:|<script|<img|<link|@import", page) and "prefers-color-scheme: dark" in page

    def test_page_without_a_batch_has_no_bars(self, tmp_path):
        nq.quantize_static(small_resnet(), [images()]).report().save_html(tmp_path / "report.html")
        assert 'class="bars"' not in (tmp_path / "report.html").read_text()

    def test_a_graph_shows_itself_in_html(self):
        graph = nq.prepare(small_resnet(), images())
        assert graph._repr_html_().count("<tr>") == len(repr(graph).splitlines()) - 1

    def test_plots(self, report):
        pyplot = pytest.importorskip("matplotlib.pyplot")
        pyplot.switch_backend("Agg")
        ax = report.plot()
        assert [tick.get_text() for tick in ax.get_xticklabels()] == [row.layer for row in report.rows]
        np.testing.assert_allclose([bar.get_height() for bar in ax.patches], [row.output_sqnr for row in report.rows])
        weights = [np.nan if row.weight_sqnr is None else row.weight_sqnr for row in report.rows]
        np.testing.assert_allclose(ax.lines[0].get_ydata(), weights)
        assert report.plot(ax) is ax
        pyplot.close("all")


def overridden():
    config = nq.QConfig(nq.Quantize(nq.QuantSpec(8, axis=0)), nq.Quantize(nq.QuantSpec(8, False, False), "mse"))
    return nq.QConfig(config.weight, config.activation, overrides={"layer2.0.conv1": None})


def why_float(model, x, config="int8"):
    return nq.quantize_static(model, [x], config).report().stayed_float


class TestReasons:
    def test_each_reason(self):
        x = images()
        weight, activation = overridden().weight, nq.Quantize(nq.QuantSpec(8, False, False))
        wide, offset = nq.Quantize(nq.QuantSpec(12)), nq.Quantize(nq.QuantSpec(8, False, False, zero_aligned=False))
        conv = nn.Sequential(nn.Conv2d(3, 4, 1, rng=0))
        assert why_float(conv, x, nq.QConfig(weight, wide)) == {"0": "codes of more than 8 bits"}
        assert why_float(conv, x, nq.QConfig(nq.Quantize(nq.QuantSpec(12, axis=0)), activation)) == {
            "0": "codes of more than 8 bits"
        }
        assert why_float(conv, x, nq.QConfig(weight, offset)) == {"0": "0 is no code (zero_aligned=False)"}
        divided = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1, rng=0), nn.Sigmoid())
        assert why_float(divided.eval(), x) == {
            "0": "has no integer form", "2": "its result leaves the network as floats"
        }


    @pytest.mark.parametrize("profile", ["onnx", "textbook"])
    def test_profiles_without_integer_forms_of_ops_without_weights(self, profile):
        config = nq.QConfig(nq.Quantize(nq.QuantSpec(8)), nq.Quantize(nq.QuantSpec(8, False, False)), profile=profile)
        reason = f"no integer form in profile {profile}"
        assert why_float(small_resnet(), images(), config) == dict.fromkeys(
            ("add", "add_1", "adaptive_avg_pool2d"), reason
        )

    def test_a_weight_on_a_grid_without_integers_has_its_bits_and_error(self):
        offset = nq.Quantize(nq.QuantSpec(4, False, False, zero_aligned=False), range=(-2.5, 2.5))
        graph = nq.quantize_static(nn.Sequential(nn.Conv2d(3, 4, 1, rng=0)), [images()], nq.QConfig(offset, offset))
        (row,) = graph.report(images()).rows
        assert row.weight_bits == 4 and row.bytes == 4 * row.parameters
        assert row.weight_sqnr == nq.sqnr(graph.simulation["0"].weight, graph["0"].weight)

    def test_readers_are_found_behind_ops_that_only_move_values(self):
        wide = nq.Quantize(nq.QuantSpec(12))
        model = nn.Sequential(nn.Conv2d(3, 4, 1, rng=0), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 144, 2, rng=1))
        found = why_float(model, images(), nq.QConfig(overridden().weight, wide))
        assert found == dict.fromkeys(("0", "1", "3"), "codes of more than 8 bits")


class TestSensitivity:
    def test_the_layer_with_the_fewest_bits_hurts_most(self):
        coarse = nq.QConfig(nq.Quantize(nq.QuantSpec(2, axis=0)), overridden().activation)
        config = nq.QConfig(coarse.weight, coarse.activation, overrides={"layer2.0.conv2": coarse})
        config = nq.QConfig(overridden().weight, coarse.activation, overrides={"layer2.0.conv2": coarse})
        model, batches = small_resnet(), [images(), images(rng=2)]
        found = nq.sensitivity(model, iter(batches), config)
        assert next(iter(found.layers)) == "layer2.0.conv2"
        assert list(found.layers.values()) == sorted(found.layers.values())
        x = np.concatenate(batches)
        expected = nq.sqnr(model(x), nq.quantize_static(model, batches, config)(x))
        assert found.together == pytest.approx(expected, abs=1e-3)
        assert str(found).splitlines()[1].startswith("layer2.0.conv2") and "all together" in found._repr_html_()

    def test_plots_show_every_label_inside_the_figure(self):
        pyplot = pytest.importorskip("matplotlib.pyplot")
        pyplot.switch_backend("Agg")
        model, x = small_resnet(), images()
        found = nq.sensitivity(model, [x])
        bars, points = found.plot(), nq.quantize_static(model, [x]).report(x).plot()
        for ax, labels in ((bars, bars.get_yticklabels()), (points, points.get_xticklabels())):
            ax.figure.draw_without_rendering()
            boxes = [label.get_window_extent() for label in labels]
            assert min(min(box.x0, box.y0) for box in boxes) >= 0
        places = {label.get_text(): label.get_window_extent().y0 for label in bars.get_yticklabels()}
        assert max(places, key=places.get) == next(iter(found.layers))
        pyplot.close("all")

    def test_it_needs_data(self):
        with pytest.raises(ValueError, match="at least one batch"):
            nq.sensitivity(small_resnet(), [])


class TestExplain:
    @pytest.mark.parametrize("preset", ["int8", "int4", "torch_default"])
    def test_every_value_is_worked_out_to_what_the_network_gives(self, preset):
        graph, x = nq.quantize_static(small_resnet(), [images()], preset), images(3)
        for layer, indices in {
            "conv1": [(0, 0, 0, 0), (2, 3, 5, 11)], "layer2.0.conv1": [(1, 7, 0, 5)], "linear": [(2, 9)]
        }.items():
            for index in indices:
                text = graph.explain(layer, index, x)
                assert "exactly what the network gives" in text.splitlines()[0], text

    def test_groups_dilation_and_relu6(self):
        layers = nn.Conv2d(4, 8, 3, 2, 2, 2, groups=2, rng=0), nn.ReLU6(), nn.Conv2d(8, 2, 1, rng=1)
        x = 5 * np.random.default_rng(0).standard_normal((2, 4, 9, 8)).astype(np.float32)
        graph = nq.quantize_static(nn.Sequential(*layers), [x])
        for index in np.ndindex(1, 8, 2, 2):
            assert "exactly what the network gives" in graph.explain("0", index, x)

    def test_a_difference_is_said(self):
        graph, x = nq.quantize_static(small_resnet(), [images()]), images(2)
        layer = graph["linear"].module
        layer.__dict__["_packed"] = nq.PackedWeight(layer.weight[::-1].copy(), layer.w_qparams, layer.bias)
        assert "but the network gives" in graph.explain("linear", (0, 0), x)

    def test_it_takes_what_the_graph_was_called_with_last(self):
        graph, x = nq.quantize_static(small_resnet(), [images()]), images(2)
        with pytest.raises(nq.QuantizationError, match="call the graph first"):
            graph.explain("conv1", (0, 0, 0, 0))
        graph(x)
        assert graph.explain("conv1", (1, 0, 3, 3)) == graph.explain("conv1", (1, 0, 3, 3), x)

    def test_what_cannot_be_explained_is_said(self):
        graph, x = nq.quantize_static(small_resnet(), [images()]), images(2)
        with pytest.raises(nq.QuantizationError, match="'add' .* has no weights in integers; these have: conv1"):
            graph.explain("add", (0, 0, 0, 0), x)
        for index in ((2, 0, 0, 0), (0, 0, 0), (0, 0, 0, -1)):
            with pytest.raises(IndexError, match="shape"):
                graph.explain("conv1", index, x)
        with pytest.raises(nq.QuantizationError, match="'prepared'"):
            nq.prepare(small_resnet(), x).explain("conv1", (0, 0, 0, 0), x)
