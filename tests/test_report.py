"""The table of a converted network."""

import numpy as np
import pytest

import ndquant as nq

from .networks import inputs, mlp, quantized


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
