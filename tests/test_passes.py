"""Post-training passes: what each does to a layer, what it is good for, and that the result converts exactly."""

import numpy as np
import pytest

import ndquant as nq
from ndquant import nn, passes

from .networks import inputs, mlp
from .test_residual import images, small_resnet

F32 = np.float32
S4, U8 = nq.QuantSpec(4, axis=0), nq.QuantSpec(8, signed=False, symmetric=False)
W4A8 = nq.QConfig(nq.Quantize(S4), nq.Quantize(U8, "mse"))


def correlated(count=400, features=24, seed=0):
    """Rows whose features depend on each other, as those of images do."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((count, 6)) @ rng.standard_normal((6, features)) + 0.1).astype(F32)


def one_layer(features=24, outputs=5, **options):
    return nn.Sequential(nn.Linear(features, outputs, rng=0, **options))


class Depthwise(nn.Module):
    """Convolutions in groups, dilated, with steps of 2."""

    def __init__(self):
        self.a = nn.Conv2d(3, 6, 3, padding=1, groups=3, rng=0)
        self.b = nn.Conv2d(6, 6, 3, stride=2, padding=2, dilation=2, groups=6, bias=False, rng=1)
        self.c = nn.Linear(6, 4, rng=2)

    def forward(self, x):
        y = nn.relu(self.b(nn.relu(self.a(x))))
        return self.c(nn.flatten(nn.adaptive_avg_pool2d(y, 1)))


NETS = {"mlp": (mlp, inputs), "resnet": (small_resnet, lambda: images(8)), "depthwise": (Depthwise, lambda: images(8))}
ROUNDINGS = {"gptq": passes.gptq, "adaround": lambda graph, batches: passes.adaround(graph, batches, steps=200)}
AFTER_CALIBRATION = {"correct_bias": passes.correct_bias, **ROUNDINGS}


def prepared(model, x, config=W4A8):
    return nq.calibrate(nq.prepare(model, x, config), [x])


def output_error(graph, model, x):
    return nq.mse(nq.convert(graph)(x), model(x))


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", AFTER_CALIBRATION)
def test_what_a_pass_gives_converts_exactly(net, name):
    make, data = NETS[net]
    model, x = make(), data()
    graph = prepared(model, x)
    before = graph.state_dict()
    changed = nq.convert(AFTER_CALIBRATION[name](graph, [x[:5], x[5:]]))
    assert changed.verify(x)
    for key, value in graph.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    if net != "mlp":
        assert nq.sqnr(model(x), changed(x)) > nq.sqnr(model(x), nq.convert(graph)(x))


class TestRounding:
    @pytest.mark.parametrize("name", ROUNDINGS)
    def test_outputs_change_less_than_by_rounding_to_nearest(self, name):
        model, x = one_layer(), correlated()
        graph = prepared(model, x)
        better = ROUNDINGS[name](graph, [x])
        assert output_error(better, model, x) < 0.6 * output_error(graph, model, x)

    @pytest.mark.parametrize("name", ROUNDINGS)
    def test_a_layer_aims_at_the_float_network(self, name):
        model, x = mlp((24, 24, 24, 5)), correlated()
        graph = prepared(model, x)
        assert output_error(ROUNDINGS[name](graph, [x]), model, x) < 0.6 * output_error(graph, model, x)

    def test_with_the_identity_for_a_hessian_gptq_rounds_to_nearest(self):
        model, x = one_layer(), correlated()
        graph = prepared(model, x)
        nearest, found = nq.convert(graph), nq.convert(passes.gptq(graph, [x], damping=1e9))
        np.testing.assert_array_equal(found.integers("0")["weight"], nearest.integers("0")["weight"])

    def test_adaround_goes_up_or_down(self):
        model, x = one_layer(), inputs(400, 24)
        graph = prepared(model, x, nq.QConfig(nq.Quantize(S4), nq.Quantize(nq.QuantSpec(8, False, False), "mse")))
        layer = nq.convert(passes.adaround(graph, [x], steps=300)).integers("0")
        place = model[0].weight / layer["weight_scale"][:, None]
        assert np.abs(layer["weight"] - place).max() < 1.2  # the weights may move a little before

    @pytest.mark.parametrize("name", ROUNDINGS)
    @pytest.mark.parametrize("spec", [nq.QuantSpec(3), nq.QuantSpec(4, signed=False, symmetric=False, axis=0)])
    def test_other_grids(self, name, spec):
        model, x = one_layer(), correlated()
        graph = prepared(model, x, nq.QConfig(nq.Quantize(spec), nq.Quantize(U8)))
        better = ROUNDINGS[name](graph, [x])
        assert nq.convert(better).verify(x)
        assert output_error(better, model, x) < output_error(graph, model, x)

    @pytest.mark.parametrize("name", ROUNDINGS)
    def test_too_little_data(self, name):
        graph, few = prepared(one_layer(), correlated()), correlated(4)
        with pytest.warns(nq.QuantizationWarning, match="0: 4 rows are few for the Hessian of 24 inputs"):
            assert nq.convert(ROUNDINGS[name](graph, [few])).verify(few)
        run = getattr(passes, name)
        with pytest.warns(nq.QuantizationWarning), pytest.raises(nq.QuantizationError, match="0: the Hessian of 24.*"):
            run(graph, [few], damping=0)

    def test_inputs_that_are_always_0(self):
        model, x = one_layer(), correlated()
        x[:, 3:9] = 0
        graph = prepared(model, x)
        better = passes.gptq(graph, [x])
        assert nq.convert(better).verify(x)
        assert output_error(better, model, x) < output_error(graph, model, x)

    def test_the_report_still_compares_with_the_float_network(self):
        model, x = one_layer(), correlated()
        graph = prepared(model, x)
        rows = [nq.convert(g).report(x).rows[0] for g in (graph, passes.gptq(graph, [x]))]
        assert rows[1].weight_sqnr < 40 and rows[1].output_sqnr > rows[0].output_sqnr + 5


class TestBiasCorrection:
    def test_the_mean_of_every_output_is_that_of_the_float_network(self):
        model, x = one_layer(), correlated()
        graph = prepared(model, x)
        shifts = [
            np.abs((nq.convert(g)(x) - model(x)).mean(axis=0)).max() for g in (graph, passes.correct_bias(graph, [x]))
        ]
        layer = nq.convert(graph).integers("0")
        step_of_the_bias = (layer["input_scale"] * layer["weight_scale"]).max()
        assert shifts[0] > 5 * step_of_the_bias and shifts[1] < 0.51 * step_of_the_bias

    def test_it_works_on_rounded_weights_and_twice(self):
        model, x = mlp((24, 24, 24, 5)), correlated()
        rounded = passes.gptq(prepared(model, x), [x])
        once = passes.correct_bias(rounded, [x], inherited=True)
        twice = nq.convert(passes.correct_bias(once, [x], inherited=True))
        once = nq.convert(once)
        np.testing.assert_array_equal(once.integers("4")["weight"], nq.convert(rounded).integers("4")["weight"])
        np.testing.assert_array_equal(once.integers("4")["bias"], twice.integers("4")["bias"])
        assert np.abs((once(x) - model(x)).mean(axis=0)).max() < 3e-3

    def test_a_layer_loses_the_shift_of_its_own_rounding_alone(self):
        model, x = mlp((24, 24, 24, 5)), correlated()
        graph = prepared(model, x)
        before, after = nq.convert(graph), nq.convert(passes.correct_bias(graph, [x]))
        layer, read = before.integers("2"), np.maximum(model[0](x), 0)
        weight = layer["weight"] * layer["weight_scale"][:, None]
        rounded = nq.fake_quantize(read, graph["0.quantizer"].quantizer.qparams)
        shift = (rounded @ weight.T - read @ model[2].weight.T).mean(axis=0)
        step = layer["input_scale"] * layer["weight_scale"]
        found = (layer["bias"] - after.integers("2")["bias"]) * step
        assert np.abs(shift).max() > 20 * step.max()
        np.testing.assert_allclose(found, shift, atol=1.01 * step.max())

    def test_what_is_inherited_goes_on_demand(self):
        model, x = mlp((24, 24, 24, 5)), correlated()
        graph = prepared(model, x)
        own, all_of_it = (
            nq.convert(passes.correct_bias(graph, [x], inherited=inherited)) for inherited in (False, True)
        )
        own, all_of_it = (np.abs((g(x) - model(x)).mean(axis=0)).max() for g in (own, all_of_it))
        assert all_of_it < 3e-3 and own > 3 * all_of_it

    def test_a_layer_without_bias_gets_one(self):
        model, x = one_layer(bias=False), correlated()
        graph = nq.convert(passes.correct_bias(prepared(model, x), [x]))
        assert graph.integers("0")["bias"] is not None and graph.verify(x)


def scaled_apart(model):
    """Make channels between two layers very different in size, without a change of what the network computes."""
    factors = np.geomspace(0.01, 100, len(model[0].weight)).astype(F32)
    model[0].weight *= factors[:, None]
    model[0].bias *= factors
    model[2].weight /= factors
    return model


class TestScaling:
    CHANGES = {
        "equalize": passes.equalize,
        "smooth_quant": lambda model, x: passes.smooth_quant(model, [x]),
    }

    @pytest.mark.parametrize("net", NETS)
    @pytest.mark.parametrize("name", CHANGES)
    def test_what_a_network_computes_stays(self, net, name):
        make, data = NETS[net]
        model, x = make().eval(), data()
        before = model(x)
        graph = self.CHANGES[name](model, x)
        np.testing.assert_allclose(graph(x), before, rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(model(x), before)
        changed = [n.name for n in graph.nodes if n.op.parameters and n.name in dict(model.named_modules())]
        apart = [n for n in changed if not np.array_equal(graph[n].weight, dict(model.named_modules())[n].weight)]
        assert len(apart) >= 2
        assert nq.quantize_static(graph, [x]).verify(x)

    @pytest.mark.parametrize("name", CHANGES)
    def test_channels_of_different_sizes_are_quantized_well(self, name):
        x = inputs()
        model = scaled_apart(mlp())
        graph = self.CHANGES[name](model, x)
        before, after = (nq.sqnr(model(x), nq.quantize_static(m, [x], "int8_per_tensor")(x)) for m in (model, graph))
        assert after > before + 10

    def test_equalized_channels_have_one_size_in_both_layers(self):
        model = scaled_apart(mlp())
        graph = passes.equalize(model, inputs(), rounds=200)
        for first, second in (("0", "2"), ("2", "4")):
            sizes = np.abs(graph[first].weight).max(axis=1), np.abs(graph[second].weight).max(axis=0)
            np.testing.assert_allclose(*sizes, rtol=1e-3)

    def test_alpha_shares_the_differences(self):
        model, x = scaled_apart(mlp()), inputs()
        graph = passes.smooth_quant(model, [x], alpha=1.0)
        sizes = graph.run(x).values["0"].max(axis=0)
        np.testing.assert_allclose(sizes[sizes > 0], 1, rtol=1e-5)

    def test_channels_without_weights_or_values_stay(self):
        model, x = mlp(), inputs()
        model[0].weight[2], model[0].bias[2], model[2].weight[:, 3] = 0, 0, 0
        for change in self.CHANGES.values():
            graph = change(model, x)
            np.testing.assert_allclose(graph(x), model(x), rtol=1e-4, atol=1e-5)

    def test_an_output_that_somebody_else_reads_is_left_alone(self):
        class Residual(nn.Module):
            def __init__(self):
                self.a, self.b = nn.Linear(6, 6, rng=0), nn.Linear(6, 6, rng=1)

            def forward(self, x):
                y = self.a(x)
                return y + self.b(y)

        model = Residual()
        np.testing.assert_array_equal(passes.equalize(model, inputs())["a"].weight, model.a.weight)


class TestHqq:
    """Offsets without data."""

    def weight(self):
        return np.random.default_rng(0).standard_t(3, (12, 64)).astype(F32)

    @pytest.mark.parametrize(("axis", "group_size"), [(None, None), (0, None), (1, None), (1, 16), (0, 12), (-1, 32)])
    @pytest.mark.parametrize("bits", [2, 4])
    def test_the_norm_of_the_error_falls(self, bits, axis, group_size):
        w = self.weight()
        spec = nq.QuantSpec(bits, False, False, axis=axis, group_size=group_size, zero_aligned=False)
        before, after = (np.abs(nq.fake_quantize(w, q) - w) for q in (nq.choose_qparams(w, spec), passes.hqq(w, spec)))
        assert (after**0.7).mean() < (before**0.7).mean()

    def test_one_step_by_the_formula(self):
        w, spec = self.weight(), nq.QuantSpec(2, False, False, axis=1, group_size=16, zero_aligned=False)
        start = nq.choose_qparams(w, spec)
        groups, s = w.reshape(12, 4, 16).astype(np.float64), start.scale[..., None]
        codes = nq.quantize(w, start).reshape(groups.shape)
        r = (groups - (s * codes + start.zero_point[..., None])) / s
        size = np.where(r == 0, 1, np.abs(r))
        e = np.where(r == 0, 0, np.sign(r) * np.maximum(size - size**-0.3 / 10, 0))
        found = passes.hqq(w, spec, steps=1)
        np.testing.assert_array_equal(found.scale, start.scale)
        moved = found.zero_point != start.zero_point
        expected = (groups - e * s - s * codes).mean(axis=2)
        np.testing.assert_allclose(found.zero_point[moved], expected[moved], rtol=1e-4, atol=1e-6)
        assert moved.mean() > 0.2

    def test_a_weight_that_is_on_the_grid_stays(self):
        w = np.tile(F32([-1, 0, 1, 2]), (3, 4))
        spec = nq.QuantSpec(2, False, False, axis=0, zero_aligned=False)
        assert passes.hqq(w, spec) == nq.choose_qparams(w, spec)


FLOAT_OFFSETS = nq.QuantSpec(4, False, False, axis=1, group_size=3, zero_aligned=False)
NOT_CALIBRATED = nq.prepare(mlp(), inputs(), W4A8)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: passes.gptq(mlp(), [inputs()]), nq.QuantizationError, "gptq: expected the graph of prepare"),
        (lambda: passes.correct_bias(NOT_CALIBRATED, [inputs()]), nq.QuantizationError, "seen no data"),
        (lambda: passes.adaround(NOT_CALIBRATED, []), ValueError, "at least one batch"),
        (lambda: passes.gptq(NOT_CALIBRATED, inputs()[0][0]), TypeError, "batches must be an iterable"),
        (lambda: passes.gptq(NOT_CALIBRATED, [inputs()], damping=-1), ValueError, "damping must be at least 0"),
        (lambda: passes.adaround(NOT_CALIBRATED, [inputs()], steps=0), ValueError, "steps must be at least 1"),
        (lambda: passes.equalize(mlp(), inputs(), rounds=0), ValueError, "rounds must be at least 1"),
        (lambda: passes.smooth_quant(mlp(), [inputs()], alpha=2), ValueError, r"alpha must be in \[0, 1\]"),
        (lambda: passes.smooth_quant(mlp(), [inputs() * np.nan]), ValueError, "activation of '0' is NaN or infinite"),
        (lambda: passes.smooth_quant(mlp(), []), ValueError, "at least one batch"),
        (lambda: passes.hqq(np.ones((2, 4)), nq.QuantSpec(4)), ValueError, "spec must have zero_aligned=False"),
        (lambda: passes.hqq(np.ones((2, 4)), FLOAT_OFFSETS), ValueError, "group_size"),
        (lambda: passes.hqq(np.ones((2, 3)), FLOAT_OFFSETS, power=2), ValueError, r"power must be in \(0, 1\]"),
    ],
)
def test_bad_arguments_are_named(call, error, text):
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize("name", AFTER_CALIBRATION)
def test_nan_in_the_data_of_a_pass_is_an_error(name):
    x = inputs()
    graph, bad = prepared(mlp(), x), x.copy()
    bad[3, 2] = np.nan
    with pytest.raises(nq.QuantizationError, match="0: a row that it reads is NaN or infinite"):
        AFTER_CALIBRATION[name](graph, [bad])


def test_nan_in_a_weight_of_hqq_is_an_error():
    w = np.ones((2, 3))
    w[1, 1] = np.nan
    with pytest.raises(ValueError, match="1 NaN"):
        passes.hqq(w, FLOAT_OFFSETS)
