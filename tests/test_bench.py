"""The benchmarks compare like with like: every candidate computes what ndquant computes."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ndquant import PackedWeight, QParams, QuantSpec, demo, linear_integer
from tests.bench import (
    characters,
    elementwise,
    forms,
    gemm,
    limits,
    low_bits_kernels,
    low_bits_mnist,
    low_bits_resnet,
    models,
    ndquant_cases,
    networks,
    others_convolutions,
    others_networks,
    others_products,
    residual,
    results,
    sequences,
    timing,
)
from tests.test_residual import images, small_resnet

#: {operation: arrays that it fills}.
OUTPUTS = {
    "quantize": ["q"],
    "dequantize": ["y"],
    "fake_quantize": ["y"],
    "backward": ["dx"],
    "forward+backward": ["y", "dx"],
}


@pytest.mark.parametrize(
    "candidate",
    [elementwise.numpy_naive, elementwise.numpy_tuned, elementwise.into_new_arrays],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("operation, axis", elementwise.ROWS, ids=str)
def test_numpy_does_the_same_work(candidate, operation, axis):
    d = elementwise.Data.make(1 << 12, axis)
    returned = candidate(operation, d)()
    in_place = candidate is elementwise.numpy_tuned
    got = np.stack([getattr(d, name) for name in OUTPUTS[operation]]) if in_place else np.atleast_2d(returned)
    got = got.reshape(-1, d.x.size).copy()
    elementwise.ndquant(operation, d)()
    expected = np.stack([getattr(d, name) for name in OUTPUTS[operation]]).reshape(-1, d.x.size)
    # Dividing by the scale and multiplying by its inverse may differ next to a tie.
    assert np.mean(got != expected) < 0.001
    assert got.dtype == expected.dtype


@pytest.mark.parametrize("parts", [1, 2])
def test_threads_together_copy_the_whole_array(parts):
    d = elementwise.Data.make(1 << 12, None)
    for work in elementwise.shares(d, parts)["memcpy"]:
        work()
    np.testing.assert_array_equal(d.t, d.x)


@pytest.mark.parametrize("axis", [None, 0])
def test_cases_of_the_comparison_run(axis):
    d = elementwise.Data.make(1 << 12, axis)
    data = SimpleNamespace(x=d.x, g=d.dy, q=d.q, scale=d.scale, zp=np.int8(d.zero_point), axis=0, out=d.y, gx=d.dx)
    ndquant_cases.NDQUANT["fakequant_fwd_bwd"](data)()
    y = d.y.copy()
    ndquant_cases.NDQUANT["quantize"](data)()
    ndquant_cases.NDQUANT["dequantize"](data)()
    np.testing.assert_array_equal(d.y, y)


def test_limits_are_measured_per_cache():
    if limits.library() is None:
        pytest.skip("no C compiler")
    rates = limits.measure(rounds=1, levels={"L1": 4096})
    assert set(rates["L1"]) == {name for name, _ in limits.LOOPS.values()}
    assert all(rate > 0 for rate in rates["L1"].values())


def test_samples_give_each_call_its_context():
    entered = []

    class Context:
        def __enter__(self):
            entered.append(self)

        def __exit__(self, *error):
            entered.remove(self)

    seen = []
    times = timing.samples([lambda: seen.append(len(entered))] * 2, 3, 1e-6, [Context, Context])
    assert times.shape == (3, 2) and set(seen) == {1} and not entered


def test_residual_networks_run_as_one_call_and_train(rng):
    ((_, calls),) = residual.inference_rows(rng, batches=(2,))
    np.testing.assert_array_equal(calls["integers"](), calls["integers, plan alone"]())
    assert calls["float Module"]().shape == (2, 10)
    data = SimpleNamespace(x=rng.standard_normal((2, 3, 32, 32), dtype=np.float32), y=np.array([1, 2]))
    ndquant_cases.NDQUANT["qat_step"](data)()


def test_a_comparison_elsewhere_finds_the_cases_by_name():
    folder = Path(ndquant_cases.__file__).parent
    code = "import ndquant_cases; print(*ndquant_cases.NDQUANT)"
    found = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert found.stdout.split() == list(ndquant_cases.NDQUANT), found.stderr


@pytest.mark.parametrize("name, batch", (("mlp", 2), ("resnet20", 1)))
def test_networks_are_measured_against_the_peak(name, batch, capsys):
    calls, work = models.network(name, batch, np.random.default_rng(0))
    assert work == batch * {"mlp": 784 * 100 + 100 * 100 + 100 * 10, "resnet20": 40813184}[name]
    record = models.report(name, calls, work, None, rounds=1)
    assert record["ndquant"]["median_s"] > 0 and name in capsys.readouterr().out


def test_the_fastest_form_of_each_library_is_shown(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(timing, "clock", lambda: now[0])
    monkeypatch.setattr(limits, "multiply_adds", lambda kind: None)

    def build(seconds):
        return lambda: lambda: now.__setitem__(0, now[0] + seconds)

    def fail():
        raise RuntimeError("no kernel\nfor this")

    builders = {"b": build(1), "a: slow": build(0.5), "a: quick": build(0.25), "a: hopeless": build(1), "a: new": fail}
    calls = forms.candidates(builders)
    assert list(calls) == list(forms.candidates(builders)) == ["b", "a: slow", "a: quick"]
    assert capsys.readouterr().out == "left out: a: new (RuntimeError: no kernel)\n"
    record = models.report("row", {"ndquant": build(0.5)(), **calls}, 1, None, rounds=2)
    assert record["fastest_forms"] == {"a": "a: quick"} and record["a: slow"]["times_ndquant"] == 1
    assert capsys.readouterr().out.split()[2:] == ["b", "1000000.0", "2.00", "x", "a", "250000.0", "0.50", "x"]
    row = gemm.Table("table", "s8", 2).measure("row", 1, {"ours": build(0.5)(), **calls})
    assert row["fastest_forms"] == {"a": "a: quick"} and row["times_ours"]["a: slow"] == 1
    assert capsys.readouterr().out.endswith("   b 2.00  a 0.50\n")


def output_of(call):
    """What a call of another library returns, as an array that outlives the call."""
    returned = call()
    if hasattr(returned, "get_output_details"):  # an interpreter of LiteRT
        return returned.get_tensor(returned.get_output_details()[0]["index"])
    if hasattr(returned, "int_repr"):  # a tensor of PyTorch
        returned = returned.int_repr() if returned.is_quantized else returned
    return np.array(returned[0] if hasattr(returned, "to_dict") else returned.numpy())  # the first one of OpenVINO


def assert_same_codes(theirs, ours):
    """Codes next to a tie differ; those of LiteRT are signed."""
    theirs = theirs.view(np.uint8) ^ 128 if theirs.dtype == np.int8 else theirs
    assert theirs.dtype == np.uint8 and len(np.unique(ours)) > 4
    assert np.abs(theirs.astype(int) - ours).max() <= 1 and np.mean(theirs != ours) < 0.02


def some_product(rng):
    """Codes and weights whose products of two fit in 16 bits, as other libraries need on AVX2, with our output."""
    codes, weights = rng.integers(0, 256, (5, 64), np.uint8), rng.integers(-63, 64, (16, 64), np.int8)
    w_qp = QParams(np.full(16, others_products.W_SCALE, np.float32), 0, QuantSpec(axis=0))
    return codes, weights, linear_integer(codes, gemm.CODES, PackedWeight(weights, w_qp), gemm.OUT_CODES)


def assert_same_product(theirs, ours, codes, weights):
    """Sums may lack what a zero point adds to each column."""
    if theirs.dtype != np.int32:
        return assert_same_codes(theirs, ours)
    sums = codes.astype(np.int32) @ weights.T.astype(np.int32)
    assert np.ptp(theirs - sums, axis=0).max() == 0


@pytest.mark.parametrize("operator", ["QLinearMatMul", "MatMulInteger", "MatMul"])
def test_other_libraries_get_the_same_product(operator, rng):
    onnx = pytest.importorskip("onnx", reason="needs onnx")
    reference = pytest.importorskip("onnx.reference", reason="needs onnx")
    codes, weights, ours = some_product(rng)
    model = others_products._onnx_model(codes, weights, gemm.CODES, gemm.OUT_CODES, operator)
    (theirs,) = reference.ReferenceEvaluator(onnx.load_from_string(model)).run(None, {"x": codes})
    assert_same_product(theirs, ours, codes, weights)


@pytest.mark.parametrize("library", ["pytorch", "onnx_runtime", "openvino", "litert"])
def test_other_libraries_compute_the_same_product(library, rng):
    codes, weights, ours = some_product(rng)
    builders = getattr(others_products, f"{library}_forms")(codes, weights, gemm.CODES, gemm.OUT_CODES)
    for build in builders.values():
        assert_same_product(output_of(build()), ours, codes, weights)
    if not builders:
        pytest.skip("not installed")


#: Sizes at which windows of "same" padding lie as ours do.
CONVOLUTIONS = ((2, 16, 8, 12, 3, 1, 1), (1, 8, 7, 16, 1, 1, 1), (1, 3, 9, 4, 7, 2, 1), (1, 16, 9, 16, 3, 2, 16))


@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("library", ["pytorch", "onnx_runtime", "openvino", "litert"])
def test_other_libraries_compute_the_same_convolution(library, shape, rng):
    x, layer = models.layer_of(shape, rng)
    layer.codes //= 2
    layer.out_qparams = QParams(np.float32(0.5), 120, networks.AFFINE)
    ours = layer.twin(x)
    builders = getattr(others_convolutions, f"{library}_forms")(x, layer)
    for build in builders.values():
        theirs = output_of(build())
        assert_same_codes(theirs if theirs.shape == ours.shape else theirs.transpose(0, 3, 1, 2), ours)
    if not builders:
        pytest.skip("not installed")


@pytest.mark.parametrize("make, shape", ((networks.mlp, (784,)), (networks.mobilenetv2, (3, 32, 32))))
def test_other_libraries_get_the_same_network(make, shape, rng):
    onnx = pytest.importorskip("onnx", reason="needs onnx")
    reference = pytest.importorskip("onnx.reference", reason="needs onnx")
    x = rng.standard_normal((2, *shape), np.float32)
    net = networks.Network(make(rng), x)
    model = others_networks.Model()
    model.chain(model.node("QuantizeLinear", ["x", *model.grid(net.x_qparams)]), net.layers, net.x_qparams)
    evaluator = reference.ReferenceEvaluator(onnx.load_from_string(model.serialized(x, np.float32)))
    (theirs,) = evaluator.run(None, {"x": x})
    plan = net.plan(x.shape)
    ours = plan.output.new_array()
    plan.run([x], ours)
    assert np.abs(theirs - ours).mean() < 0.2 * np.abs(ours).mean()  # a code beside a tie, in any layer, changes many


def test_random_convolutions_are_measured_beside_the_listed_ones(capsys):
    shapes = models.random_shapes(20, np.random.default_rng(0))
    assert shapes == models.random_shapes(20, np.random.default_rng(0)) and len({shape[6] > 1 for shape in shapes}) == 2
    calls, work = models.beside_float((1, 3, 8, 4, 3, 2, 1), np.random.default_rng(0))
    assert work == 4 * 4 * 4 * 27
    first, second, third = models.random_shapes(3, np.random.default_rng(0))
    assert first[4:6] == second[4:6] != third[4:6]
    listed = {first: {"ndquant": {"share_of_peak": 0.5}}}
    _, alike, other = models.random_rows(3, listed, (calls["ndquant"], work), 1, np.random.default_rng(0))
    assert alike["share_of_neighbour"] == 2 * alike["ndquant"]["share_of_peak"]
    assert "share_of_neighbour" not in other and "float32 / codes" in capsys.readouterr().out


def test_convolutions_are_measured_against_the_peak(capsys):
    calls, work = models.convolution((1, 3, 8, 4, 3, 2, 1), np.random.default_rng(0))
    assert work == 4 * 4 * 4 * 27
    record = models.report("conv", calls, work, (calls["ndquant"], work), rounds=1)
    assert record["ndquant"]["share_of_peak"] > 0 and "%" in capsys.readouterr().out


def test_products_are_shares_of_what_was_measured_beside_them():
    layers = gemm.measure_layers([(3, 64, 16), (1, 64, 16)], 2, True, "layers")
    assert [row["name"] for row in layers] == ["3 x 64 x 16", "1 x 64 x 16"]
    assert all(0 < share < 1 for row in layers for share in row.get("share_of_peak", {}).values())
    assert ("share_of_read" in layers[1]) == (limits.library() is not None) and "share_of_read" not in layers[0]


def test_layers_in_training_compute_the_same_whoever_finds_the_range():
    calls = gemm.linear_forward((8, 100, 20), np.random.default_rng(0))
    y = calls["ours"]().copy()
    np.testing.assert_array_equal(calls["ours, range of w too"](), y)
    assert len(np.unique(y)) > 100


def test_random_products_lie_between_their_ends(capsys):
    for low, high in (gemm.BETWEEN_LISTED, gemm.SMALL):
        shapes = gemm.random_shapes(20, (low, high), np.random.default_rng(0))
        assert shapes == gemm.random_shapes(20, (low, high), np.random.default_rng(0)) and len(set(shapes)) == 20
        assert (np.array(low) <= shapes).all() and (np.array(high) >= shapes).all()
    result = gemm.measure_random(2, gemm.SMALL, 1)
    assert len(result["rows"]) == 2 and "NumPy float32 / ours" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["lstm", "encoder"])
def test_networks_for_sequences_are_the_same_everywhere(name):
    model, x = sequences.networks()[name]
    calls = sequences.candidates(name, model, x)
    truth = calls.pop("NumPy float")()
    for candidate, call in calls.items():
        bound = 1e-5 if candidate.endswith("float") else 0.05
        assert np.linalg.norm(call() - truth) < bound * np.linalg.norm(truth), candidate


def test_the_share_of_a_calibration_that_scales_is_a_share():
    assert 0.2 < sequences.share_that_scales(batches=3, size=4) < 1


def test_characters_before_and_after_quantization():
    rows = list(characters.rows(steps=48, hidden=16, text="the quick brown fox jumps over the lazy dog. " * 60))
    bits, sizes = ({name: row[i] for name, *row in rows} for i in (0, 1))
    assert bits["float"] < 4 < np.log2(28)
    for name in ("dynamic int8", "weights float16", "weights bfloat16"):
        assert abs(bits[name] - bits["float"]) < 0.02 and sizes[name] < 0.75 * sizes["float"]
    for name in ("last layer int4, after training", "last layer int4, in training"):
        assert bits[name] < bits["float"] + 0.2


def test_methods_below_8_bits_train_with_and_without_their_key_step(tmp_path):
    job = demo.digits_job()
    job = job._replace(train=tuple(part[:100] for part in job.train), test=tuple(part[:50] for part in job.test))
    found = results.Results(tmp_path / "found.json")
    tasks = {key: task for key, task in low_bits_mnist.TASKS.items() if "PyTorch" not in key[1] and key[0] != "W3A3"}
    low_bits_mnist.measure(found, tasks, lambda: job, 0, lambda text: None)
    assert not found.missing(tasks, 0) and found.missing(tasks, 1, "* LSQ") == [(f"W{b}A{b}", "LSQ") for b in (4, 2)]
    assert low_bits_mnist.tables(results.Results(found.path)) == low_bits_mnist.tables(found)


def test_passes_below_8_bits_are_scored_beside_rounding_to_nearest(tmp_path, monkeypatch):
    tasks = [key for key in low_bits_resnet.TASKS if key[0] not in ("W4A4", "W3", "W4")]
    monkeypatch.setattr(low_bits_resnet, "TASKS", tasks)
    model, x = small_resnet().eval(), images(8)
    found, loaded = results.Results(tmp_path / "found.json"), (model, (x, x, np.arange(8) % 4), model(x))
    low_bits_resnet.measure(found, lambda: loaded, 0, images=8)
    decibels = {row: found.of("W4A8", row)[0, 1] for row in low_bits_resnet.PASSES}
    nearest = decibels["rounded to nearest"]
    assert decibels["GPTQ"] > nearest + 1 and decibels["AdaRound"] > max(nearest, decibels["- not learned"])
    assert decibels["- identity for its Hessian"] == pytest.approx(nearest, abs=0.5)
    assert found.missing(tasks, 0) == [] and "| GPTQ | " in low_bits_resnet.tables(found)
    network = low_bits_resnet.unequal(model, [x], 0).model
    np.testing.assert_allclose(network(x), model(x), atol=1e-5)


def test_products_of_few_bits_print_their_rows(capsys):
    low_bits_kernels.main(["--rounds", "1", "--size", "128", "--binary", "16", "--memory", "1"])
    shown = capsys.readouterr().out
    assert "1 x 128 x 128, from memory" in shown and "int4, groups of 64" in shown and "16 x 16 x 16" in shown
