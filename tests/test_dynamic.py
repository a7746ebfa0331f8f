"""Dynamic quantization: kernels against their twins, rows that do not know each other, models, files, errors."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ndquant as nq
from ndquant import _core, nn, reference
from ndquant.dynamic import RowWeight, linear_rows, recurrence
from ndquant.parameter import from_half, to_half

from .cases import assert_same_bits
from .examples import examples
from .test_sequences import Attend

F32 = np.float32


def normal(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(F32)


def row_weight(outputs, inputs, bias=True, seed=0):
    return RowWeight.of(normal((outputs, inputs), seed) / 3, normal(outputs, seed + 1) if bias else None)


def twin_of(weight):
    return weight.codes, np.asarray(weight.qparams.scale), weight.bias


class TestKernels:
    @pytest.mark.parametrize(("M", "N", "K"), [(1, 1, 1), (3, 5, 7), (4, 33, 64), (19, 17, 130), (0, 3, 4)])
    @pytest.mark.parametrize("bias", [True, False])
    def test_rows(self, backend, M, N, K, bias):
        x, weight = normal((M, K)), row_weight(N, K, bias)
        x[1:2] = 0
        x[2:3] = np.abs(x[2:3]) + 100
        assert_same_bits(linear_rows(x, weight), reference.linear_rows(x, *twin_of(weight)))

    @given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 70), st.integers(0, 2**32 - 1), st.integers(-120, 30))
    @settings(max_examples=examples(60))
    def test_rows_of_any_shape_and_size(self, M, N, K, seed, exponent):
        x, weight = normal((M, K), seed) * F32(2.0**exponent), row_weight(N, K, seed=seed)
        assert_same_bits(linear_rows(x, weight), reference.linear_rows(x, *twin_of(weight)))

    def test_rows_at_rounding_boundaries(self, backend):
        steps = (np.arange(64) - 20.5).astype(F32)
        x = np.stack([steps, np.nextafter(steps, F32(99)), np.nextafter(steps, F32(-99))])
        x[:, :2] = -100, 155  # a scale of 1: the rest lies on ties, and an ulp beside them
        weight = RowWeight.of(np.eye(64, dtype=F32), None)
        assert_same_bits(linear_rows(x, weight), reference.linear_rows(x, *twin_of(weight)))

    @pytest.mark.parametrize("reverse", [False, True])
    @pytest.mark.parametrize("lengths", [None, [7, 0, 3]])
    @pytest.mark.parametrize("gates", [4, 3])
    def test_recurrence(self, backend, gates, lengths, reverse):
        T, N, H = 7, 3, 21
        gx, weight = 2 * normal((T, N, gates * H)), row_weight(gates * H, H)
        states = tuple(normal((N, H), seed) for seed in range(gates - 2))
        lengths = lengths and np.array(lengths)
        found, truth = (f(gx, *w, states, lengths, reverse) for f, w in self.both(weight))
        assert_same_bits(found[0], truth[0])
        for a, b in zip(found[1], truth[1], strict=True):
            assert_same_bits(a, b)

    @staticmethod
    def both(weight):
        return [(recurrence, (weight,)), (reference.recurrence, twin_of(weight))]

    def test_gates_far_out(self, backend):
        H = 16
        ends = np.float32([0, -0.0, 1e-38, -1e-38, 1e-7, -1e-7, 8.7, -8.7, 43, -43, 87, -87, 88, -88, 1e38, -1e38])
        gx = np.tile(ends, (1, 1, 4))
        for x in (gx, np.roll(gx, 5, axis=2)):
            weight = RowWeight.of(np.zeros((4 * H, H), F32), None)
            states = normal((1, H)), normal((1, H))
            assert_same_bits(recurrence(x, weight, states)[0], reference.recurrence(x, *twin_of(weight), states)[0])

    def test_gates_are_near_their_functions(self):
        x = np.linspace(-100, 100, 100_001).astype(F32)
        wide = x.astype(np.float64)
        with np.errstate(over="ignore"):
            np.testing.assert_allclose(reference.sigmoid(x), 1 / (1 + np.exp(-wide)), rtol=0, atol=2e-7)
        np.testing.assert_allclose(reference.tanh(x), np.tanh(wide), rtol=0, atol=2e-7)
        small = np.float32([1e-6, -3e-5, 1e-3])
        np.testing.assert_allclose(reference.tanh(small), np.tanh(small.astype(np.float64)), rtol=3e-7)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_a_row_that_is_not_finite_is_named(self, bad):
        x = np.zeros((40, 9), F32)
        x[33:, 5] = bad
        with pytest.raises(ValueError, match="x: row 33 holds NaN or infinity"):
            linear_rows(x, row_weight(3, 9))

    def test_threads_change_nothing(self, threads):
        x, weight = normal((300, 257)), row_weight(130, 257)
        threads(1)
        alone = linear_rows(x, weight)
        threads(4)
        assert_same_bits(linear_rows(x, weight), alone)

    def test_any_strides_and_floats_are_taken(self):
        x, weight = normal((5, 9)), row_weight(4, 9)
        y, wide = linear_rows(x, weight), np.zeros((5, 18))
        wide[:, ::2] = x
        assert_same_bits(linear_rows(wide[:, ::2], weight), y)
        assert_same_bits(linear_rows(x[3], weight), y[3])
        out = np.empty((5, 4), F32)
        assert linear_rows(x, weight, out=out) is out
        assert_same_bits(out, y)

    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (lambda w: linear_rows(np.zeros((2, 8)), w), ValueError, "x: its last axis must have length 9"),
            (lambda w: linear_rows(np.zeros((2, 9), int), w), TypeError, "x: "),
            (lambda w: linear_rows(np.zeros((2, 9)), w, out=np.zeros((2, 11), F32)), ValueError, "out: "),
            (lambda w: linear_rows(np.float32(1), w), ValueError, "x: its last axis"),
            (lambda w: _core.linear_rows(np.zeros((2, 9)), None, 0, None), TypeError, "packed: expected a Packed"),
            (
                lambda w: _core.linear_rows(np.zeros((2, 9)), _core.pack_matrix(w.codes, w.qparams, None), 0, None),
                ValueError,
                "packed: expected weights with a float bias",
            ),
            (lambda w: recurrence(np.zeros((2, 1, 12)), w, (np.zeros((1, 9)),)), ValueError, "gx: expected 3 axes"),
        ],
    )
    def test_bad_arguments_are_named(self, call, error, message):
        with pytest.raises(error, match=message):
            call(row_weight(12, 9))

    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (lambda gx, w, h: (gx[0], w, h, None, None, False), ValueError, "gx: expected 3 axes"),
            (lambda gx, w, h: (gx, w, h[:, :2], None, None, False), ValueError, "h: "),
            (lambda gx, w, h: (gx, w, h.astype(float), None, None, False), TypeError, "h: expected float32"),
            (lambda gx, w, h: (gx, w, h[:1], None, None, False), ValueError, "h: shape"),
            (lambda gx, w, h: (gx, w, h, h, None, False), ValueError, "gx: expected 3 axes"),
            (lambda gx, w, h: (gx, w, h, None, np.zeros(3, int), False), ValueError, "lengths: shape"),
            (lambda gx, w, h: (gx, w, h, None, np.zeros(2), False), TypeError, "lengths: "),
        ],
    )
    def test_bad_arguments_of_a_recurrence_are_named(self, call, error, message):
        with pytest.raises(error, match=message):
            _core.recurrence(*call(np.zeros((5, 2, 9), F32), row_weight(9, 3).packed, np.zeros((2, 3), F32)))


class Encoder(nn.Module):
    """A layer of a transformer (Vaswani et al., 2017), normalized behind its parts as PyTorch's is by default."""

    def __init__(self, width, heads, hidden, rng):
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True, rng=rng)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.linear1, self.linear2 = nn.Linear(width, hidden, rng=rng), nn.Linear(hidden, width, rng=rng)

    def forward(self, x):
        x = self.norm1(x + self.attention(x, x, x, need_weights=False)[0])
        return self.norm2(x + self.linear2(nn.relu(self.linear1(x))))


def lstm(**arguments):
    return nn.LSTM(12, 16, batch_first=True, rng=0, **arguments)


MODELS = {
    "linear": (lambda: nn.Sequential(nn.Linear(12, 20, rng=0), nn.ReLU(), nn.Linear(20, 5, rng=1)), (6, 12)),
    "lstm": (lambda: lstm(num_layers=2, bidirectional=True), (6, 9, 12)),
    "gru": (lambda: nn.GRU(12, 16, batch_first=True, rng=0), (6, 9, 12)),
    "encoder": (lambda: Encoder(12, 3, 24, np.random.default_rng(0)), (6, 9, 12)),
}


def outputs_of(model, *inputs):
    y = model(*inputs)
    return y if isinstance(y, tuple) else (y,)


@pytest.fixture(params=MODELS)
def model(request):
    make, shape = MODELS[request.param]
    return make(), normal(shape)


class TestModels:
    def test_a_row_alone_is_that_row_in_a_batch(self, backend, model):
        net, x = model
        dyn = nq.quantize_dynamic(net)
        x[2] *= 100
        for i in range(len(x)):
            for whole, alone in zip(outputs_of(dyn, x), outputs_of(dyn, x[i : i + 1]), strict=True):
                assert_same_bits(np.ascontiguousarray(whole[i : i + 1]), np.ascontiguousarray(alone))

    def test_the_error_is_small_and_verify_finds_no_difference(self, model):
        net, x = model
        dyn = nq.quantize_dynamic(net)
        assert dyn.verify(x), dyn.verify(x)
        for y, truth in zip(outputs_of(dyn, x), outputs_of(net.graph(x), x), strict=True):
            assert np.linalg.norm(y - truth) < 0.02 * np.linalg.norm(truth)
        rows = [row for row in dyn.report(x).rows if row.kernel == "integers"]
        assert rows and all(row.weight_bits == row.in_bits == 8 and row.weight_sqnr > 35 for row in rows)

    def test_files(self, model, tmp_path):
        net, x = model
        dyn = nq.quantize_dynamic(net)
        expected = outputs_of(dyn, x)
        dyn.save(tmp_path / "m.npz")
        loaded = nq.load(tmp_path / "m.npz")
        for y, truth in zip(outputs_of(loaded, x), expected, strict=True):
            assert_same_bits(y, truth)
        assert loaded.simulation is None and loaded.verify(x)
        for y, truth in zip(outputs_of(pickle.loads(pickle.dumps(dyn)), x), expected, strict=True):
            assert_same_bits(y, truth)

    def test_integers_of_a_layer(self, model):
        net, x = model
        graph = nq.quantize_dynamic(net).graph(x)
        node = next(n for n in graph.nodes if n.op.name.endswith("_dynamic"))
        found = graph.integers(node.name)
        for name, weight in node.module.weights.items():
            assert found[name].dtype == np.int8 and found[f"{name}_scale"].shape == found[name].shape[:1]
            np.testing.assert_array_equal(found[name], weight.codes)
        if node.op.name != "linear_dynamic":
            with pytest.raises(nq.QuantizationError, match="gives what many steps made in a row"):
                graph.explain(node.name, (0, 0, 0), x)

    def test_a_layer_is_explained(self, model):
        net, x = model
        graph = nq.quantize_dynamic(net).graph(x)
        for node in [n for n in graph.nodes if n.op.name == "linear_dynamic"]:
            index = (2, *(1 for _ in node.shape))
            lines = graph.explain(node.name, index, x).splitlines()
            assert lines[0] == f"{node.name}[{', '.join(map(str, index))}]: float32, exactly what the network gives"
            row = graph.run(x).values[node.inputs[0]][index[:-1]]
            assert lines[1] == f"  its row of {len(row)} floats lies between {row.min():.6g} and {row.max():.6g}"
            with pytest.raises(IndexError, match="gives values of shape"):
                graph.explain(node.name, (99, *index[1:]), x)

    def test_verify_can_fail(self, model):
        net, x = model
        graph = nq.quantize_dynamic(net).graph(x)
        node = next(n for n in graph.nodes if n.op.name.endswith("_dynamic"))
        name, weight = next(iter(node.module.weights.items()))
        codes = weight.codes.copy()
        codes[0, 0] += 1 if codes[0, 0] < 127 else -1
        setattr(node.module, name, RowWeight(codes, weight.qparams, weight.bias))
        found = graph.verify(x)
        assert not found and found.first == node.name
        assert str(found.differences[0]).startswith(f"{node.name}: 1 of the {name} codes")

    def test_nan_names_the_layer(self, model):
        net, x = model
        dyn = nq.quantize_dynamic(net)
        first = next(n.name for n in dyn.graph(x).nodes if n.op.name.endswith("_dynamic"))
        x[3] = np.nan
        with pytest.raises(nq.QuantizationError, match=rf"{first}: x: row \d+ holds NaN or infinity"):
            dyn(x)

    def test_zeros_and_no_rows_at_all(self, model):
        net, x = model
        dyn = nq.quantize_dynamic(net)
        for y, truth in zip(outputs_of(dyn, 0 * x), outputs_of(net.graph(x), 0 * x), strict=True):
            np.testing.assert_allclose(y, truth, atol=0.02)
        assert all(y.shape[0] == 0 for y in outputs_of(dyn, x[:0]))

    def test_the_model_stays_as_it_is(self, model):
        net, x = model
        before, training = net.state_dict(), net.training
        nq.quantize_dynamic(net)(x)
        assert net.training == training
        for name, array in net.state_dict().items():
            np.testing.assert_array_equal(array, before[name])


class TestPlan:
    """A dynamic network without recurrence runs in one call, which gives what its nodes give one by one."""

    @staticmethod
    def both(net, x):
        graph = nq.quantize_dynamic(net).graph(x)
        assert graph._plan_for((x,)) is not None
        nodes = graph._run_nodes((x,)).values
        assert_same_bits(graph(x), nodes[graph.output])
        return nodes, graph.run(x).values

    def test_each_node_gives_the_same(self, backend):
        nodes, traced = self.both(Encoder(12, 3, 24, np.random.default_rng(0)), normal((6, 9, 12)))
        assert nodes.keys() == traced.keys()
        for name, value in nodes.items():
            parts = zip(value, traced[name], strict=True) if isinstance(value, tuple) else [(value, traced[name])]
            for a, b in parts:
                assert_same_bits(np.ascontiguousarray(a), b)

    def test_a_mask_is_part_of_it(self, backend):
        class Masked(nn.Module):
            def __init__(self):
                self.attention = nn.MultiheadAttention(12, 3, batch_first=True, rng=0)

            def forward(self, x):
                ahead = np.triu(np.ones((9, 9), bool), 2)
                return nn.gelu(self.attention(x, x, x, need_weights=False, attn_mask=ahead, is_causal=True)[0])

        net, x = Masked(), normal((2, 9, 12))
        self.both(net, x)
        changed = x.copy()
        changed[:, 5:] = 3
        dyn = nq.quantize_dynamic(net)
        assert_same_bits(np.ascontiguousarray(dyn(x)[:, :5]), np.ascontiguousarray(dyn(changed)[:, :5]))
        assert dyn.verify(x)

    def test_what_python_runs_alone(self):
        net, x = nn.Sequential(nn.Linear(4, 4, rng=0), nn.Sigmoid()), normal((3, 4))
        graph = nq.quantize_dynamic(net).graph(x)
        assert graph._plan_for((x,)) is None and graph(x).shape == (3, 4)


class TestSequences:
    def test_padding_and_lengths(self):
        dyn, x = nq.quantize_dynamic(lstm(bidirectional=True)), normal((3, 9, 12))
        other, lengths = x.copy(), np.array([9, 4, 0])
        other[1, 4:] = 55
        for a, b in zip(dyn(x, lengths), dyn(other, lengths), strict=True):
            assert_same_bits(a, b)
        alone = dyn(x[1:2, :4])[0]
        assert_same_bits(np.ascontiguousarray(dyn(x, lengths)[0][1:2, :4]), np.ascontiguousarray(alone))

    def test_states_carry_a_sequence_over_calls_bit_for_bit(self):
        dyn, x = nq.quantize_dynamic(lstm(num_layers=2)), normal((3, 9, 12))
        whole = dyn(x)
        first, *states = dyn(x[:, :4])
        second, *last = dyn(x[:, 4:], *states)
        assert_same_bits(np.concatenate([first, second], axis=1), np.ascontiguousarray(whole[0]))
        for a, b in zip(last, whole[1:], strict=True):
            assert_same_bits(np.ascontiguousarray(a), np.ascontiguousarray(b))

    def test_weights_are_packed_once_for_all_lengths(self):
        dyn = nq.quantize_dynamic(lstm())
        graphs = [dyn.graph(normal((2, steps, 12))) for steps in (3, 5)]
        first, second = (next(n for n in graph.nodes if n.op.name == "lstm_dynamic").module for graph in graphs)
        assert first is second and first.weight_ih.packed is second.weight_ih.packed

    def test_masks_of_keys(self):
        net = Attend(nn.MultiheadAttention(12, 3, batch_first=True, rng=0), {"padding": True})
        dyn, x = nq.quantize_dynamic(net), normal((2, 9, 12))
        other, mask = x.copy(), np.arange(9)[None] >= np.array([[9], [5]])
        other[1, 5:] = 7
        assert_same_bits(dyn(x, mask)[0][1, :5], dyn(other, mask)[0][1, :5])


class TestChoice:
    net = Encoder(12, 3, 24, np.random.default_rng(0))
    x = normal((2, 5, 12))

    def names(self, layers):
        return {n.name for n in nq.quantize_dynamic(self.net, layers).graph(self.x).nodes if n.op.stores is not None}

    def test_classes_names_and_patterns_choose_layers(self):
        attention = {"attention.in_proj", "attention.out_proj"}
        assert self.names({nn.Linear}) == {"linear1", "linear2"}
        assert self.names([nn.MultiheadAttention]) == attention
        assert self.names("linear2") == {"linear2"}
        assert self.names(["attention.*", "linear1"]) == attention | {"linear1"}

    @pytest.mark.parametrize(
        ("layers", "error", "message"),
        [
            ([nn.Conv2d], ValueError, "neither a name nor one of Linear, LSTM, GRU, MultiheadAttention"),
            ([3], ValueError, "layers: 3 is neither"),
            (["linear3"], ValueError, "'linear3' matches no layer; the layers are attention.in_proj"),
            ([nn.LSTM], nq.QuantizationError, "has none of the layers"),
        ],
    )
    def test_bad_choices_are_named(self, layers, error, message):
        with pytest.raises(error, match=message):
            nq.quantize_dynamic(self.net, layers)(self.x)

    def test_a_graph_gives_a_graph(self):
        graph = self.net.graph(self.x)
        lowered = nq.quantize_dynamic(graph)
        assert lowered.kind == "integer"
        assert_same_bits(lowered(self.x), nq.quantize_dynamic(self.net)(self.x))
        with pytest.raises(nq.QuantizationError, match="not a graph of kind 'integer'"):
            nq.quantize_dynamic(lowered)
        with pytest.raises(TypeError, match="model must be a float Module or a Graph, not DynamicModel"):
            nq.quantize_dynamic(nq.quantize_dynamic(self.net))

    def test_normalizations_in_front_are_folded(self):
        net = nn.Sequential(nn.Linear(12, 8, rng=0), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3, rng=1))
        x = normal((50, 12))
        net(x)
        dyn = nq.quantize_dynamic(net.eval().graph(x))
        assert [n.op.name for n in dyn.nodes] == ["linear_dynamic", "linear_dynamic"]
        assert dyn.verify(x)
        assert nq.sqnr(net(x), dyn(x)) > 35


class TestReach:
    """What the project set out to reach, on networks as they are initialised."""

    def test_a_lstm(self, tmp_path):
        net, x = nn.LSTM(128, 256, rng=0), normal((50, 1, 128))
        dyn = nq.quantize_dynamic(net)
        for y, truth in zip(outputs_of(dyn, x), outputs_of(net.graph(x), x), strict=True):
            assert np.linalg.norm(y - truth) < 0.01 * np.linalg.norm(truth)
        self.assert_four_times_smaller(net.graph(x), dyn, tmp_path)

    def test_a_transformer(self, tmp_path):
        rng = np.random.default_rng(0)
        net, x = nn.Sequential(Encoder(256, 4, 1024, rng), Encoder(256, 4, 1024, rng)), normal((1, 50, 256))
        dyn = nq.quantize_dynamic(net)
        y, truth = dyn(x), net.graph(x)(x)
        assert np.linalg.norm(y - truth) < 0.01 * np.linalg.norm(truth)
        self.assert_four_times_smaller(net.graph(x), dyn, tmp_path)

    @staticmethod
    def assert_four_times_smaller(graph, dyn, folder):
        graph.save(folder / "float.npz")
        dyn.save(folder / "int8.npz")
        assert (folder / "float.npz").stat().st_size > 3.8 * (folder / "int8.npz").stat().st_size


class TestHalf:
    """Weights in 16 bits, computed with in float32."""

    @staticmethod
    def rounded(w, dtype):
        if dtype == "float16":
            return w.astype(np.float16).astype(F32)
        ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes, which has bfloat16, is not installed")
        return w.astype(ml_dtypes.bfloat16).astype(F32)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_a_layer_computes_with_the_rounded_weight(self, dtype):
        net, x = nn.Sequential(nn.Linear(40, 30, rng=0)), normal((5, 40))
        ties = np.array([1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-8, 1 + 3 * 2**-8, 1e-5, -0.0], F32)
        weight = net[0].weight.copy()
        weight[0, :6] = ties
        net[0].weight = weight
        half = nq.quantize_dynamic(net, dtype=dtype)
        expected = nn.Sequential(nn.Linear(40, 30))
        expected[0].weight, expected[0].bias = self.rounded(weight, dtype), net[0].bias
        assert_same_bits(half(x), expected(x))
        assert half.graph(x).kind == "float"

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_files_are_half_as_large_and_hold_the_same(self, model, dtype, tmp_path):
        net, x = model
        half = nq.quantize_dynamic(net, dtype=dtype)
        y, truth = outputs_of(half, x), outputs_of(net.graph(x).eval(), x)
        half.save(tmp_path / "half.npz")
        for a, b, c in zip(y, outputs_of(nq.load(tmp_path / "half.npz").eval(), x), truth, strict=True):
            assert_same_bits(np.ascontiguousarray(a), np.ascontiguousarray(b))
            assert 0 < np.linalg.norm(a - c) < 0.01 * np.linalg.norm(c)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_the_report_says_what_the_weights_lost(self, model, dtype, tmp_path):
        net, x = model
        half = nq.quantize_dynamic(net, dtype=dtype)
        half(x)
        report, floats = half.report(x), net.graph(x).eval()
        rows = [row for row in report.rows if row.weight_bits == 16]
        assert {row.layer for row in rows} == {n.name for n in floats.nodes if n.op.name in ("linear", "lstm", "gru")}
        assert all(row.weight_sqnr > {"float16": 65, "bfloat16": 50}[dtype] and row.output_sqnr > 40 for row in rows)
        assert all(2 * row.parameters < row.bytes < 2.3 * row.parameters and row.kernel == "float" for row in rows)
        found = half.verify(x)
        assert found and str(found).startswith(f"simulation, weights in 16 bits and NumPy agree: 0 of {found.values}")
        half.save(tmp_path / "half.npz")
        loaded = nq.load(tmp_path / "half.npz").eval()
        assert loaded.verify(x) and loaded.report(x).bytes == report.bytes

    def test_verify_can_fail(self):
        net, x = nn.Sequential(nn.Linear(4, 3, rng=0)), normal((2, 4))
        graph = nq.quantize_dynamic(net.graph(x), dtype="float16")
        graph["0"].module._parameters["weight"].data[1, 2] += F32(0.25)
        found = graph.verify(x)
        assert not found and found.first == "0"
        assert [(d.what, d.count) for d in found.differences] == [
            ("weight (stored against rebuilt)", 1),
            ("outputs (stored against NumPy)", 2),
        ]

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_rounding_is_that_of_its_definition(self, dtype):
        bits = np.random.default_rng(0).integers(0, 2**32, 200_000, np.uint32)
        bits[:4096] = (np.arange(4096, dtype=np.uint32) << 20) + 0x8000  # ties of bfloat16
        bits[4096:8192] = (np.arange(4096, dtype=np.uint32) << 20) + 0x1000  # ties of float16
        x = bits.view(F32)
        x = x[np.isfinite(x)]
        with np.errstate(over="ignore"):
            assert_same_bits(from_half(to_half(x, dtype)), reference.round_to_half(x, dtype))

    def test_half_the_size(self, tmp_path):
        net, x = nn.LSTM(128, 256, rng=0), normal((3, 1, 128))
        net.graph(x).save(tmp_path / "float.npz")
        half = nq.quantize_dynamic(net, dtype="float16")
        half(x)
        half.save(tmp_path / "half.npz")
        sizes = [(tmp_path / f"{name}.npz").stat().st_size for name in ("float", "half")]
        assert sizes[0] > 1.95 * sizes[1]

    def test_other_layers_and_choices(self):
        net = nn.Sequential(nn.Conv2d(3, 4, 3, rng=0), nn.Flatten(), nn.Linear(16, 2, rng=1))
        x = normal((1, 3, 4, 4))

        def halves(layers):
            graph = nq.quantize_dynamic(net, layers, dtype="bfloat16").graph(x)
            return {name for name, p in graph.named_parameters() if hasattr(p, "dtype")}

        assert halves(None) == {"0.weight", "2.weight"}
        assert halves([nn.Conv2d]) == {"0.weight"}
        assert halves("2") == {"2.weight"}
        with pytest.raises(ValueError, match="neither a name nor one of the classes of layers"):
            halves([int])

    def test_assignment_rounds(self):
        graph = nq.quantize_dynamic(nn.Sequential(nn.Linear(2, 1)).graph(normal((1, 2))), dtype="float16")
        graph["0"].weight = np.array([[1 + 2**-12, 2.0]])
        np.testing.assert_array_equal(graph["0"].weight, [[1, 2]])

    def test_numbers_outside_the_range_are_named(self):
        net = nn.Sequential(nn.Linear(2, 1, rng=0))
        net[0].weight = np.array([[1e6, 0]])
        with pytest.raises(nq.QuantizationError, match="0: weight holds numbers outside the range of float16"):
            nq.quantize_dynamic(net, dtype="float16")(normal((1, 2)))
        with pytest.raises(ValueError, match="dtype must be one of 'int8', 'int4', 'float16', 'bfloat16', not 'int5'"):
            nq.quantize_dynamic(net, dtype="int5")
