"""From a float network to integers: after training, and in training."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import ndquant as nq
from ndquant import nn, reference

from .networks import PRESETS, inputs, mlp, quantized, trained_qat


def codes_spec(bits):
    return nq.Quantize(nq.QuantSpec(bits, signed=False, symmetric=False), "mse")


def config(**changes):
    fields = {"weight": nq.Quantize(nq.QuantSpec(8, axis=0)), "activation": codes_spec(8), **changes}
    return nq.QConfig(**fields)


class TestPostTraining:
    def test_three_steps_equal_one(self):
        model, batches = mlp(), [inputs(rng=1), inputs(rng=2)]
        steps = nq.convert(nq.calibrate(nq.prepare(model, batches[0]), batches))
        np.testing.assert_array_equal(steps(inputs()), nq.quantize_static(model, iter(batches))(inputs()))

    def test_int8_is_close_to_float_and_int4_less_so(self):
        x, model = inputs(), mlp()
        near, far = (nq.sqnr(model(x), quantized(preset, model)(x)) for preset in ("int8", "int4"))
        assert near > 30
        assert 8 < far < near - 10

    @pytest.mark.parametrize("method", "minmax moving_average percentile mse l2 entropy cross_entropy".split())
    def test_every_method_of_choosing_ranges(self, method):
        x, model = inputs(rng=1), mlp()
        chosen = nq.Quantize(nq.QuantSpec(8, signed=False, symmetric=False), method)
        graph = nq.quantize_static(model, [x[:40], x[40:]], config(activation=chosen, output=chosen))
        assert nq.sqnr(model(x), graph(x)) > 15
        assert graph.verify(x)

    def test_quantizers_stand_once_on_each_edge_that_an_integer_layer_reads(self):
        prepared = nq.prepare(mlp(), inputs())
        assert [(n.name, n.op.name, n.attributes.get("activation")) for n in prepared.nodes] == [
            ("input.quantizer", "quantizer", None),
            ("0", "linear", "relu"),
            ("0.quantizer", "quantizer", None),
            ("2", "linear", "relu"),
            ("2.quantizer", "quantizer", None),
            ("4", "linear", None),
        ]

    def test_without_fusing_quantizers_stand_before_the_activations(self):
        prepared = nq.prepare(mlp(), inputs(), "torch_default", fuse=False)
        assert [n.name for n in prepared.nodes] == [
            "input.quantizer", "0", "0.quantizer", "1", "2", "2.quantizer", "3", "4", "4.quantizer"
        ]
        nq.calibrate(prepared, [inputs(rng=1)])
        assert nq.convert(prepared).verify(inputs())

    def test_the_converted_graph_holds_integer_ops_only(self):
        assert [n.op.name for n in quantized("int8").nodes] == ["quantize"] + ["linear_integer"] * 3
        assert [n.op.name for n in quantized("torch_default").nodes][-2:] == ["linear_integer", "dequantize"]

    def test_flatten_passes_codes(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3, rng=0))
        x = inputs().reshape(-1, 2, 3)
        graph = nq.quantize_static(model, [x])
        assert [n.op.name for n in graph.nodes] == ["quantize", "reshape", "linear_integer"]
        assert graph.verify(x)

    def test_a_hidden_edge_read_twice_has_one_quantizer(self):
        class Twice(nn.Module):
            def __init__(self):
                self.a, self.b = nn.Linear(6, 6, rng=0), nn.Linear(6, 6, rng=1)

            def forward(self, x):
                return self.b(self.a(self.a(x)))

        graph = nq.quantize_static(Twice(), [inputs()])
        assert [n.op.name for n in graph.nodes] == ["quantize"] + ["linear_integer"] * 3
        assert graph.verify(inputs())

    @pytest.mark.parametrize("preset", PRESETS)
    def test_nothing_changes_the_arguments(self, preset):
        model, x = mlp(), inputs()
        state, training = model.state_dict(), model.training
        prepared = nq.calibrate(nq.prepare(model, x, preset), [x])
        first = nq.convert(prepared)
        nq.calibrate(prepared, [100 * x])
        first["0"].bias = np.asarray(first["0"].bias) + 1
        second = nq.convert(prepared)
        assert second["input.quantizer"].out_qparams.scale > 10 * first["input.quantizer"].out_qparams.scale
        assert model.training == training
        for name, value in model.state_dict().items():
            np.testing.assert_array_equal(value, state[name])

    def test_float16_and_float64_inputs_are_cast_once(self):
        graph, x = quantized(), inputs().astype(np.float16)
        np.testing.assert_array_equal(graph(x), graph(x.astype(np.float64)))

    @pytest.mark.parametrize("preset", PRESETS)
    def test_a_row_does_not_depend_on_its_batch(self, preset):
        graph, x = quantized(preset), inputs()
        np.testing.assert_array_equal(graph(x)[7:8], graph(x[7:8]))
        assert graph(x[:0]).shape == (0, 4)


class TestPresets:
    def grids(self, preset):
        graph = quantized(preset)
        first, last = graph["0"], graph["4"]
        specs = [graph["input.quantizer"].out_qparams.spec, first.out_qparams.spec, first.w_qparams.spec]
        return [(s.bits, s.signed, s.symmetric, s.axis) for s in specs], last.out_qparams

    def test_int8(self):
        assert self.grids("int8") == ([(8, False, False, None), (8, False, False, None), (8, True, True, 0)], None)

    def test_int8_per_tensor(self):
        affine = (8, False, False, None)
        assert self.grids("int8_per_tensor") == ([affine, affine, (8, True, True, None)], None)

    def test_int4_keeps_the_input_at_8_bits(self):
        assert self.grids("int4") == ([(8, False, False, None), (4, False, False, None), (4, True, True, 0)], None)

    def test_torch_default_has_7_bit_activations_and_a_quantized_output(self):
        specs, output = self.grids("torch_default")
        affine = (7, False, False, None)
        assert specs == [affine, affine, (8, True, True, None)]
        assert output.spec.bits == 7 and output.profile == "torch"

    def test_every_preset_uses_its_own_ranges_in_training(self):
        for preset in PRESETS:
            qat = nq.prepare_qat(mlp(), inputs(), preset)
            assert qat["input.quantizer"].quantizer.config.method == "moving_average"


class TestOverrides:
    def layers(self, overrides):
        graph = nq.quantize_static(mlp(), [inputs()], config(overrides=overrides))
        assert graph.verify(inputs())
        return {n.name: n.op.name for n in graph.nodes if n.op.name.startswith("linear")}, graph

    def test_none_keeps_a_layer_in_float(self):
        ops, graph = self.layers({"2": None})
        assert ops == {"0": "linear_integer", "2": "linear", "4": "linear_integer"}
        assert graph["0"].out_qparams is None
        assert "float" in str(graph.report(inputs())).splitlines()[2]

    def test_a_name_beats_a_pattern_and_a_pattern_beats_a_class(self):
        four = config(weight=nq.Quantize(nq.QuantSpec(4, axis=0)))
        two = config(weight=nq.Quantize(nq.QuantSpec(2, axis=0)))
        _, graph = self.layers({nn.Linear: None, "[02]": four, "2": two, "4": config()})
        assert [graph[name].w_qparams.spec.bits for name in "024"] == [4, 2, 8]

    def test_a_class_matches_its_layers(self):
        with pytest.raises(nq.QuantizationError, match="no layer that could run on integers"):
            self.layers({nn.Linear: None})

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            ({"fc9": None}, "'fc9' matches no layer; the layers are 0, 2, 4"),
            ({nn.Flatten: None}, "matches no layer"),
            ({"[02]": None, "[24]": None}, r"\[02\] and \[24\] both match '2'"),
        ],
    )
    def test_a_key_must_match_and_be_the_only_pattern(self, overrides, message):
        with pytest.raises(ValueError, match=message):
            self.layers(overrides)

    @pytest.mark.parametrize("overrides", [{3: None}, {"0": "int8"}])
    def test_keys_and_values_are_checked(self, overrides):
        with pytest.raises(TypeError, match="overrides"):
            config(overrides=overrides)


class TestTraining:
    @pytest.mark.parametrize("preset", PRESETS)
    def test_what_is_trained_is_what_runs(self, preset):
        qat = trained_qat(preset)
        x = inputs(rng=5)
        converted = nq.convert(qat)
        np.testing.assert_array_equal(qat.eval()(x), converted(x))
        assert converted.verify(x)

    def test_training_lowers_the_loss_of_the_quantized_network(self):
        x, labels = inputs(), np.arange(64) % 4
        losses = [nn.cross_entropy(nq.convert(trained_qat(steps=n))(x), labels)[0] for n in (1, 60)]
        assert losses[1] < 0.9 * losses[0]

    def test_evaluation_leaves_the_ranges_alone(self):
        qat = trained_qat()
        before = [q.qparams for name, q in qat.quantizers() if not name.endswith("weight")]
        qat.eval()(100 * inputs())
        after = [q.qparams for name, q in qat.quantizers() if not name.endswith("weight")]
        assert before == after and len(before) == 3

    def test_conversion_after_every_epoch_does_not_disturb_training(self):
        alone, looked_at = trained_qat(steps=3), trained_qat(steps=3)
        nq.convert(looked_at)
        assert looked_at.training
        x, labels = inputs(), np.arange(64) % 4
        for graph in (alone, looked_at):
            _, dlogits = nn.cross_entropy(graph(x), labels)
            graph.backward(dlogits)
        for a, b in zip(alone.parameters(), looked_at.parameters(), strict=True):
            np.testing.assert_array_equal(a.grad, b.grad)

    def test_the_gradient_is_straight_through(self):
        qat, x = trained_qat(steps=1), inputs()
        y = qat(x)
        dy = np.ones_like(y)
        qat.backward(dy)
        node = qat["4"]
        hidden = qat._run.values["2.quantizer"].dequantize()
        w_qparams = nq.choose_qparams(node.weight, nq.QuantSpec(4, axis=0))
        expected = nq.fake_quantize_backward(reference.matmul_f32(dy.T, hidden), node.weight, w_qparams)
        np.testing.assert_array_equal(qat.parameters()[4].grad, expected)

    def test_a_tiny_weight_channel_under_a_large_bias_keeps_its_bias(self):
        model = nn.Sequential(nn.Linear(6, 2, rng=0))
        model[0].weight = np.array([[1e-20] * 6, [1.0] * 6])
        model[0].bias = np.array([1e6, 1.0])
        graph = nq.quantize_static(model, [inputs()])
        np.testing.assert_allclose(graph(inputs())[:, 0], 1e6, rtol=1e-6)
        assert graph.verify(inputs())


class TestBadInput:
    def test_converting_before_calibrating_names_the_edge(self):
        with pytest.raises(nq.QuantizationError, match="input.quantizer has seen no data"):
            nq.convert(nq.prepare(mlp(), inputs()))
        with pytest.raises(nq.QuantizationError, match="input.quantizer has seen no data"):
            nq.convert(nq.prepare_qat(mlp(), inputs()))

    @pytest.mark.parametrize("batches", [[], iter([])])
    def test_calibration_needs_data(self, batches):
        with pytest.raises(ValueError, match="at least one batch"):
            nq.calibrate(nq.prepare(mlp(), inputs()), batches)
        with pytest.raises(ValueError, match="at least one batch"):
            nq.quantize_static(mlp(), batches)

    def test_one_array_in_place_of_batches_is_explained(self):
        x = inputs()
        for call in (nq.quantize_static, nq.sensitivity):
            with pytest.raises(ValueError, match=r"batches is one array, .* give \[x\]"):
                call(mlp(), x)
        with pytest.raises(ValueError, match=r"batches is one array, .* give \[x\]"):
            nq.calibrate(nq.prepare(mlp(), x), x)

    def test_nan_in_calibration_names_the_edge(self):
        x = inputs()
        x[3, 2] = np.nan
        with pytest.raises(nq.QuantizationError, match=r"^input.quantizer: has 1 NaN and 0 infinite of 384 values$"):
            nq.calibrate(nq.prepare(mlp(), x), [x])

    @pytest.mark.parametrize(
        ("batch", "error", "message"),
        [
            (np.zeros((2, 5), np.float32), ValueError, r"input: expected shape \(batch, 6\), not \(2, 5\)"),
            (np.zeros((2, 6), int), TypeError, "floats"),
            ((np.zeros((2, 6)), np.zeros(2)), ValueError, "labels are not wanted"),
        ],
    )
    def test_wrong_batches_are_named(self, batch, error, message):
        with pytest.raises(error, match=message):
            nq.calibrate(nq.prepare(mlp(), inputs()), [batch])

    def test_an_iterator_that_fails_is_not_swallowed(self):
        def failing():
            yield inputs()
            raise OSError("disk")

        with pytest.raises(OSError, match="disk"):
            nq.calibrate(nq.prepare(mlp(), inputs()), failing())

    @pytest.mark.parametrize("call", [nq.prepare, nq.prepare_qat])
    def test_unknown_presets_list_the_known(self, call):
        with pytest.raises(ValueError, match="unknown preset 'int9'; the presets are int8, int8_per_tensor, int4"):
            call(mlp(), inputs(), "int9")
        with pytest.raises(TypeError, match="qconfig"):
            call(mlp(), inputs(), 8)
        with pytest.raises(TypeError, match="model must be"):
            call("mlp", inputs())

    def test_steps_out_of_order_say_what_was_expected(self):
        int8 = quantized()
        for call in (nq.convert, lambda g: nq.calibrate(g, [inputs()]), lambda g: nq.prepare(g, inputs())):
            with pytest.raises(nq.QuantizationError, match="'integer'"):
                call(int8)
        with pytest.raises(nq.QuantizationError, match="not Sequential"):
            nq.convert(mlp())
        with pytest.raises(nq.QuantizationError, match="no gradients"):
            int8.backward(np.zeros((1, 4)))

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"weight": 8}, "weight must be a Quantize"),
            ({"activation": nq.Quantize(nq.QuantSpec(8, axis=1))}, "activation: .*spec.axis must be None"),
            ({"weight": nq.Quantize(nq.QuantSpec(8, axis=1))}, "weight: spec.axis must be None or 0"),
            ({"weight": nq.Quantize(nq.QuantSpec(8, axis=0, group_size=2))}, "weight: .* group_size=None"),
            ({"activation": nq.Quantize(nq.QuantSpec(8), "sawb")}, "activation: method 'sawb' is for weights"),
            ({"input": nq.Quantize(nq.QuantSpec(17))}, "input: .* bits up to 16"),
            ({"first_last": "int8"}, "first_last must be a QConfig or None, not str"),
            ({"output": "int8"}, "output"),
            ({"profile": "tensor"}, "profile must be one of"),
        ],
    )
    def test_configurations_are_checked(self, fields, message):
        with pytest.raises((TypeError, ValueError), match=message):
            config(**fields)

    def test_integers_of_something_else_names_the_layers(self):
        with pytest.raises(nq.QuantizationError, match="the integer layers are 0, 2, 4"):
            quantized().integers("input.quantizer")
        with pytest.raises(KeyError, match="no node 'x'"):
            quantized().integers("x")


class TestIntegers:
    def test_the_integers_of_a_layer_reproduce_its_output(self):
        graph, x = quantized("int8"), inputs()
        layer, source = graph.integers("4"), graph.run(x).values["2"]
        acc = (source.codes.astype(np.int64) - layer["input_zero_point"]) @ layer["weight"].astype(np.int64).T
        s = np.float32(layer["input_scale"]) * layer["weight_scale"]
        np.testing.assert_array_equal(graph(x), (acc + layer["bias"]).astype(np.float32) * s)

    def test_they_are_copies(self):
        graph, x = quantized(), inputs()
        y = graph(x)
        graph.integers("0")["weight"][:] = 0
        np.testing.assert_array_equal(graph(x), y)

    def test_stored_arrays_are_read_only_and_assignment_takes_effect_at_once(self):
        graph, x = quantized(), inputs()
        y = graph(x)
        with pytest.raises(ValueError, match="read-only"):
            graph["4"].weight[0, 0] = 1
        graph["4"].bias = np.zeros(4, np.int32)
        assert not np.array_equal(graph(x), y)


class TestProgress:
    @pytest.fixture
    def shown(self, monkeypatch):
        """What tqdm was given: (total, how many items went through) of each bar."""
        bars = []

        def tqdm(iterable, total=None):
            total = len(iterable) if total is None and hasattr(iterable, "__len__") else total
            bars.append([total, 0])
            for item in iterable:
                bars[-1][1] += 1
                yield item

        monkeypatch.setitem(sys.modules, "tqdm", SimpleNamespace())
        monkeypatch.setitem(sys.modules, "tqdm.auto", SimpleNamespace(tqdm=tqdm))
        return bars

    def test_calibration_and_evaluation_show_it(self, shown):
        batches, labels = [inputs(), inputs(rng=1)], np.zeros(64, int)
        int8 = nq.quantize_static(mlp(), batches, progress=True)
        nq.calibrate(nq.prepare(mlp(), inputs()), iter(batches), progress=True)
        nq.evaluate(int8, [(x, labels) for x in batches], progress=True)
        assert shown == [[2, 2], [None, 2], [2, 2]]

    def test_without_tqdm_the_error_says_how_to_get_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
        with pytest.raises(ImportError, match="pip install tqdm"):
            nq.quantize_static(mlp(), [inputs()], progress=True)


def test_evaluate_needs_labels():
    for item in (inputs(), (inputs(),)):
        with pytest.raises(ValueError, match=r"item 0 must be \(x, labels\)"):
            nq.evaluate(mlp(), [item])


def test_evaluate_counts_right_answers_and_restores_the_mode():
    model = mlp()
    x = inputs()
    labels = model(x).argmax(axis=1)
    labels[:16] = (labels[:16] + 1) % 4
    assert nq.evaluate(model, nn.batches(x, labels, size=10)) == 0.75
    assert model.training and model[0].training
    with pytest.raises(ValueError, match="no examples"):
        nq.evaluate(model, [])
