"""Configurations: which layer gets what, by hand and by name, and what PACT and SAWB learn."""

import numpy as np
import pytest

import ndquant as nq
from ndquant import nn
from ndquant.quantizers import PactQuantizer, SawbQuantizer

from .networks import inputs, mlp
from .test_residual import images, small_resnet

U4 = nq.QuantSpec(4, signed=False, symmetric=False)
U8 = nq.QuantSpec(8, signed=False, symmetric=False)
INT8 = nq.QConfig(nq.Quantize(nq.QuantSpec(8, axis=0)), nq.Quantize(U8))


def int4(**changes):
    return nq.QConfig(nq.Quantize(nq.QuantSpec(4, axis=0)), nq.Quantize(U4), **changes)


def weight_bits(graph):
    return {n.name: n.w_qparams.spec.bits for n in graph.nodes if getattr(n.module, "w_qparams", None) is not None}


class TestWhichLayer:
    def test_first_and_last_layer_keep_8_bits(self):
        graph, x = nq.quantize_static(small_resnet(), [images()], int4(first_last=INT8)), images()
        bits = weight_bits(graph)
        assert bits.pop("conv1") == bits.pop("linear") == 8
        assert set(bits.values()) == {4}
        assert graph["input.quantizer"].out_qparams.spec.bits == 8
        assert graph["adaptive_avg_pool2d"].out_qparams.spec.bits == 8
        assert graph["add"].out_qparams.spec.bits == 4
        assert graph.verify(x)

    def test_an_override_beats_first_and_last(self):
        graph = nq.quantize_static(small_resnet(), [images()], int4(first_last=INT8, overrides={"conv1": int4()}))
        assert weight_bits(graph)["conv1"] == 4 and weight_bits(graph)["linear"] == 8

    def test_first_and_last_of_several_branches(self):
        class Branches(nn.Module):
            def __init__(self):
                self.a, self.b, self.c, self.d = (nn.Linear(6, 6, rng=i) for i in range(4))

            def forward(self, x, z):
                return self.d(self.c(self.a(x) + self.b(z)))

        x = inputs(), inputs(rng=1)
        graph = nq.quantize_static(Branches(), [x], int4(first_last=INT8))
        assert weight_bits(graph) == {"a": 8, "b": 8, "c": 4, "d": 8}
        assert graph.verify(x)

    def test_patterns_and_classes(self):
        overrides = {"layer?.0.conv*": INT8, nn.Linear: INT8}
        graph = nq.quantize_static(small_resnet(), [images()], int4(overrides=overrides))
        assert {name for name, bits in weight_bits(graph).items() if bits == 4} == {"conv1"}

    def test_a_class_matches_layers_whose_normalization_is_folded(self):
        with pytest.raises(ValueError, match="matches no layer"):
            nq.prepare(small_resnet(), images(), int4(overrides={nn.BatchNorm2d: None}))
        graph = nq.quantize_static(small_resnet(), [images()], int4(overrides={nn.Conv2d: INT8}))
        assert [name for name, bits in weight_bits(graph).items() if bits == 4] == ["linear"]

    @pytest.mark.parametrize(
        ("function", "op"), [(np.add, "add"), (nn.adaptive_avg_pool2d, "adaptive_avg_pool2d"), (np.pad, None)]
    )
    def test_functions_are_keys(self, function, op):
        config = int4(overrides={function: None})
        if op is None:
            with pytest.raises(ValueError, match="matches no layer"):
                nq.prepare(small_resnet(), images(), config)
            return
        graph, x = nq.quantize_static(small_resnet(), [images()], config), images()
        assert op in [node.op.name for node in graph.nodes] and graph.verify(x)
        assert op + "_integer" not in [node.op.name for node in graph.nodes]

    def test_a_residual_stream_in_float_is_read_unquantized(self):
        prepared = nq.prepare(small_resnet(), images(), int4(overrides={np.add: None}))
        assert prepared["add"].inputs == ("layer1.0.conv2", "conv1") or prepared["add"].inputs == (
            "conv1", "layer1.0.conv2",
        )
        assert "conv1.quantizer" in prepared and "layer1.0.conv2.quantizer" not in prepared

    def test_the_output_is_quantized_on_demand(self):
        graph, x = nq.quantize_static(small_resnet(), [images()], int4(output=nq.Quantize(U8))), images()
        assert graph["linear"].out_qparams.spec.bits == 8
        assert graph.verify(x)


class TinyNN(nn.Module):
    """The model of TinyNeuralNetwork's tutorial; with `stubs` as it is rewritten there by hand."""

    def __init__(self, stubs=False):
        self.conv, self.bn, self.relu = nn.Conv2d(3, 3, 1, rng=0), nn.BatchNorm2d(3), nn.ReLU()
        self.quant, self.dequant = (nn.QuantStub(), nn.DeQuantStub()) if stubs else (nn.Identity(), nn.Identity())

    def forward(self, x):
        x = self.quant(x)
        return self.dequant(x + self.relu(self.bn(self.conv(x))))


class TestByHand:
    def trained(self, model):
        qat = nq.prepare_qat(model, images(1, 24), "qnnpack")
        for seed in range(10):
            qat(images(1, 24, rng=seed))
        return nq.convert(qat)

    def test_by_hand_and_in_one_line_give_the_same_integers(self):
        by_hand = self.trained(nq.fuse(TinyNN(stubs=True), [["conv", "bn", "relu"]]))
        in_one_line, x = self.trained(TinyNN()), images(2, 24)
        assert [node.op.name for node in by_hand.nodes][:-1] == ["quantize", "conv2d_integer", "add_integer"]
        for name in ("input.quantizer", "conv", "add"):
            assert by_hand[name].out_qparams == in_one_line[name].out_qparams
        for key, value in in_one_line.integers("conv").items():
            np.testing.assert_array_equal(by_hand.integers("conv")[key], value)
        np.testing.assert_array_equal(by_hand(x), in_one_line(x))
        assert by_hand.verify(x) and in_one_line.verify(x)

    def test_what_lies_outside_the_stubs_stays_float(self):
        model = nn.Sequential(
            nn.Linear(6, 6, rng=0), nn.QuantStub(), nn.Linear(6, 6, rng=1), nn.ReLU(), nn.DeQuantStub(),
            nn.Linear(6, 3, rng=2),
        )
        graph, x = nq.quantize_static(model, [inputs()]), inputs()
        assert [node.op.name for node in graph.nodes] == [
            "linear", "quantize", "linear_integer", "dequant_stub", "linear"
        ]
        assert graph.verify(x) and nq.sqnr(model(x), graph(x)) > 30

    def test_a_list_fuses_nothing_else(self):
        model, x = small_resnet(), images()
        fused = nq.fuse(model, [["conv1", "bn1"]])
        np.testing.assert_allclose(fused(x), model(x), rtol=1e-4, atol=1e-5)
        ops = [node.op.name for node in nq.prepare(fused, x).nodes]
        assert ops.count("batch_norm") == 5 - 1 and ops.count("relu") == 5

    def test_printing_a_fused_network_says_so(self):
        model = small_resnet()
        assert "fused: conv1+bn1" in repr(nq.fuse(model, [["conv1", "bn1"]])) and "fused" not in repr(model)

    def test_without_a_list_all_is_fused(self):
        graph = nq.fuse(small_resnet()).graph(images())
        assert {"batch_norm", "relu"} & {node.op.name for node in graph.nodes} == set()

    def test_quantizing_a_fused_network_gives_what_quantizing_it_gives(self):
        model, x = small_resnet(), images()
        int8, fused = (nq.quantize_static(m, [x]) for m in (model, nq.fuse(model)))
        assert repr(fused) == repr(int8)
        np.testing.assert_array_equal(fused(x), int8(x))

    def test_a_fused_graph_can_be_saved(self, tmp_path):
        graph, x = nq.fuse(small_resnet().graph(images())).eval(), images()
        graph.save(tmp_path / "m.npz")
        loaded = nq.load(tmp_path / "m.npz")
        np.testing.assert_array_equal(loaded(x), graph(x))
        assert repr(loaded) == repr(graph)

    @pytest.mark.parametrize(
        ("chain", "message"),
        [
            (["conv1", "bn9"], "no node 'bn9'; the nodes are conv1, bn1"),
            (["conv1", "relu"], "'relu' reads bn1, not 'conv1'"),
            (["linear", "conv1"], "'conv1' reads input, not 'linear'"),
            (["slice", "pad"], "'pad' .* cannot become part"),
        ],
    )
    def test_chains_are_checked(self, chain, message):
        with pytest.raises(ValueError, match=message):
            nq.fuse(small_resnet(), [chain])(images())
        with pytest.raises(TypeError, match="not str"):
            nq.fuse("resnet")


def simple_quantizer(x, bits, low, high):
    """The manual formula of the FMS Model Optimizer's tutorial."""
    step = np.float32((high - low) / (2**bits - 1))
    return np.rint((np.clip(x, low, high) - np.float32(low)) / step) * step + np.float32(low)


def zero_aligned_quantizer(x, bits, low, high):
    """The second of the two formulas that it names, with a zero point that is a code."""
    step = np.float32((high - low) / (2**bits - 1))
    zero_point = np.rint(-low / step)
    return (np.clip(np.rint(x / step) + zero_point, 0, 2**bits - 1) - zero_point) * step


class TestGivenRanges:
    def net(self):
        model = nn.Sequential(nn.Conv2d(3, 1, 3))
        model[0].weight = np.random.default_rng(0).standard_normal((1, 3, 3, 3))
        model[0].bias = [0.0]
        return model

    def config(self, zero_aligned=False, bits=4, learn="pact", **changes):
        spec = nq.QuantSpec(bits, signed=False, symmetric=False, zero_aligned=zero_aligned)
        given = nq.Quantize(spec, learn=learn, range=(-2.5, 2.5))
        return nq.QConfig(given, given, **changes)

    @pytest.mark.parametrize("bits", [2, 3, 4, 8])
    @pytest.mark.parametrize("zero_aligned", [False, True])
    @pytest.mark.parametrize("learn", ["pact", None])
    @pytest.mark.parametrize("convert", [False, True])
    def test_what_the_tutorial_works_out_by_hand(self, convert, learn, zero_aligned, bits):
        model, x, formula = self.net(), images(1, 32), zero_aligned_quantizer if zero_aligned else simple_quantizer
        qat = nq.prepare_qat(model, x, self.config(zero_aligned, bits, learn)).eval()
        expected = nn.Sequential(nn.Conv2d(3, 1, 3))
        expected[0].weight, expected[0].bias = formula(model[0].weight, bits, -2.5, 2.5), [0.0]
        quantized_x = formula(x, bits, -2.5, 2.5)
        values = qat.run(x).values
        np.testing.assert_array_equal(values["input.quantizer"].dequantize(), quantized_x)
        w_qparams = qat["0"].weight_quantizer.qparams_for(model[0].weight)
        np.testing.assert_array_equal(nq.fake_quantize(model[0].weight, w_qparams), expected[0].weight)
        found = nq.convert(qat)(x) if convert else qat(x)
        np.testing.assert_allclose(found, expected(quantized_x), rtol=1e-5, atol=1e-5 * np.abs(found).max())

    def test_with_zero_aligned_the_layer_runs_on_integers(self):
        model, x = self.net(), images(1, 32)
        graph = nq.convert(nq.prepare_qat(model, x, self.config(zero_aligned=True)))
        layer = graph.integers("0")
        assert layer["input_scale"] == layer["weight_scale"] == np.float32(5 / 15)
        w = nq.fake_quantize(model[0].weight, nq.QParams.from_range(np.float32(-2.5), np.float32(2.5), U4))
        steps = (layer["weight"].astype(int) - layer["weight_zero_point"]).astype(np.float32)
        np.testing.assert_array_equal(steps * layer["weight_scale"], w)
        assert graph.verify(x)

    def test_the_first_layer_can_stay_float(self):
        model = nn.Sequential(*self.net(), nn.Conv2d(1, 2, 3, rng=0))
        graph = nq.quantize_static(model, [images()], self.config(zero_aligned=True, overrides={"0": None}))
        assert [node.op.name for node in graph.nodes] == ["conv2d", "quantize", "conv2d_integer"]

    @pytest.mark.parametrize("spec", [nq.QuantSpec(12), nq.QuantSpec(8, zero_aligned=False, symmetric=False)])
    def test_what_has_no_kernel_is_fake_quantized_in_float(self, spec):
        config = nq.QConfig(nq.Quantize(nq.QuantSpec(8, axis=0)), nq.Quantize(spec))
        graph, x = nq.quantize_static(small_resnet(), [images()], config), images()
        assert "conv2d_integer" not in {node.op.name for node in graph.nodes}
        np.testing.assert_array_equal(graph(x), graph.simulation(x))
        assert graph.verify(x)
        assert nq.sqnr(small_resnet()(x), graph(x)) > 20


class TestPact:
    def quantizer(self, low=-1.0, high=2.0):
        return PactQuantizer(nq.Quantize(U4, learn="pact", range=(low, high)), "default", "train", "q")

    def test_gradients(self):
        q, x = self.quantizer(), np.float32([-3, -1, -0.5, 0, 1.9, 2, 5])
        dy = np.float32([1, 2, 4, 8, 16, 32, 64])
        dx, d = q.gradient(dy, x, q.qparams)
        np.testing.assert_array_equal(dx, [0, 0, 4, 8, 16, 0, 0])
        assert (d["alpha"], d["alpha_n"]) == (96, 3)

    def test_a_lower_end_at_0_stays(self):
        q = self.quantizer(low=0.0)
        _, d = q.gradient(np.float32([1, 1]), np.float32([-1, 1]), q.qparams)
        assert d["alpha_n"] == 0

    def test_the_range_begins_where_the_first_batch_says_and_learns(self):
        qat, x = nq.prepare_qat(mlp(), inputs(), "int4_pact"), inputs()
        opt, labels = nn.SGD(qat.parameters(), lr=0.05), np.arange(64) % 4
        names = [name for name, _ in qat.named_parameters()]
        assert "0.quantizer.alpha" in names and "input.quantizer.alpha" not in names
        losses, alphas = [], []
        for _ in range(30):
            loss, dlogits = nn.cross_entropy(qat(x), labels)
            qat.backward(dlogits)
            opt.step()
            losses.append(loss)
            alphas.append(float(qat["0.quantizer"].quantizer.alpha.data))
        assert losses[-1] < losses[0] and len(set(alphas)) > 20
        graph = nq.convert(qat)
        assert graph.verify(x)
        np.testing.assert_array_equal(graph(x), qat.eval()(x))

    def test_state_holds_the_learned_ends(self):
        qat = nq.prepare_qat(mlp(), inputs(), "int4_pact")
        qat(inputs())
        other = nq.prepare_qat(mlp(), inputs(), "int4_pact")
        other.load_state_dict(qat.state_dict())
        assert other["0.quantizer"].quantizer.qparams == qat["0.quantizer"].quantizer.qparams


class TestSawb:
    @pytest.mark.parametrize(("bits", "c1", "c2"), [(2, 2.6, -1.71), (4, 12.035, -12.03), (8, 31.76, -35.04)])
    @pytest.mark.parametrize("axis", [None, 0])
    def test_the_clip_of_the_paper(self, bits, c1, c2, axis):
        w = np.random.default_rng(0).standard_normal((3, 4, 5, 5)).astype(np.float32)
        q = SawbQuantizer(nq.Quantize(nq.QuantSpec(bits, axis=axis), "sawb"), "default", "train", "q", is_weight=True)
        axes = None if axis is None else (1, 2, 3)
        w64 = w.astype(np.float64)
        clip = c1 * np.sqrt((w64**2).mean(axis=axes)) + c2 * np.abs(w64).mean(axis=axes)
        found = q.qparams_for(w)
        np.testing.assert_allclose(found.scale * found.spec.qmax, clip, rtol=1e-6)

    def test_values_of_one_size_are_not_clipped_away(self):
        w = np.full((2, 8), 0.5, np.float32)
        q = SawbQuantizer(nq.Quantize(nq.QuantSpec(8), "sawb"), "default", "train", "q", is_weight=True)
        np.testing.assert_allclose(nq.fake_quantize(w, q.qparams_for(w)), w, rtol=1e-6)

    @pytest.mark.parametrize(("method", "passes"), [("sawb", False), ("sawb+", True)])
    def test_gradients_of_clipped_weights(self, method, passes):
        w = np.random.default_rng(0).standard_normal((4, 50)).astype(np.float32)
        q = SawbQuantizer(nq.Quantize(nq.QuantSpec(4), method), "default", "train", "q", is_weight=True)
        clip = float(q.recorded_range(w)[1])
        dw, _ = q.gradient(np.ones_like(w), w, q.qparams_for(w))
        np.testing.assert_array_equal(dw == 0, (np.abs(w) >= clip) & (not passes))
        assert (np.abs(w) >= clip).any()

    @pytest.mark.parametrize("spec", [nq.QuantSpec(3), nq.QuantSpec(4, symmetric=False)])
    def test_other_grids_are_refused(self, spec):
        with pytest.raises(ValueError, match="takes a symmetric spec with 2, 4, 8 bits"):
            nq.prepare(mlp(), inputs(), nq.QConfig(nq.Quantize(spec, "sawb"), nq.Quantize(U8)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learn": "lsqq"}, "learn must be one of"),
        ({"range": (1, 0)}, "finite and rising"),
        ({"range": (0, np.inf)}, "finite and rising"),
        ({"range": 3}, "two numbers"),
        ({"learn": "pact", "spec": nq.QuantSpec(4, axis=0)}, "spec.axis must be None"),
        ({"range": (0, 1), "spec": nq.QuantSpec(4, axis=0)}, "spec.axis must be None"),
    ],
)
def test_quantize_is_checked(fields, message):
    with pytest.raises((TypeError, ValueError), match=message):
        nq.Quantize(**{"spec": U4, **fields})
