"""Layers for sequences against PyTorch in float64 (golden/sequences.npz), and by themselves."""

from pathlib import Path

import numpy as np
import pytest

import ndquant as nq
from ndquant import nn
from ndquant.ops.gelu import erf

from .golden.sequence_cases import CASES, name_of
from .gradients import assert_gradients, by_ops

F32 = np.float32
GOLDEN = np.load(Path(__file__).parent / "golden" / "sequences.npz")


class Attend(nn.Module):
    """A network that is an attention alone, with what it reads beside queries: keys, values, a mask of keys."""

    def __init__(self, layer, given):
        self.layer, self.given = layer, given

    def forward(self, query, *more):
        more, given = list(more), self.given
        padding = more.pop() if "padding" in given else None
        key = more[0] if "keys" in given else query
        value = more[1] if "values" in given else key
        mask = np.array(given["mask"]) if "mask" in given else None
        y, weights = self.layer(query, key, value, padding, attn_mask=mask)
        return y if weights is None else (y, weights)


class Case:
    """A layer with the parameters that PyTorch's had, and what PyTorch computed, in the layout of this library."""

    def __init__(self, number):
        self.number = number
        kind, self.arguments, _, self.given = CASES[number]
        self.layer = getattr(nn, kind)(**self.arguments)
        self.layer.load_state_dict(self.group("state"))
        self.net = Attend(self.layer, self.given) if kind == "MultiheadAttention" else self.layer
        self.moves_states = kind in ("LSTM", "GRU") and self.arguments.get("batch_first", False)
        self.inputs = self.arrays("in") + self.integers()

    def group(self, name):
        prefix = f"{self.number}/{name}/"
        return {key.removeprefix(prefix): GOLDEN[key] for key in GOLDEN.files if key.startswith(prefix)}

    def arrays(self, name):
        arrays = list(self.group(name).values())
        return [a.swapaxes(0, 1) if i and self.moves_states else a for i, a in enumerate(arrays)]

    def integers(self):
        """Lengths of sequences, or the mask of keys that lengths make."""
        if "lengths" in self.given:
            return [np.array(self.given["lengths"])]
        if "padding" not in self.given:
            return []
        keys = self.arrays("in")[-1].shape[1]
        return [np.arange(keys)[None] >= np.array(self.given["padding"])[:, None]]

    def graph(self):
        return nn.Module.graph(self.net, *self.inputs)

    def outputs(self):
        y = self.graph()(*self.inputs)
        return list(y) if isinstance(y, tuple) else [y]


@pytest.fixture(params=range(len(CASES)), ids=name_of)
def case(request):
    return Case(request.param)


def test_outputs_are_those_of_pytorch(case):
    found, expected = case.outputs(), case.arrays("out")
    for y, truth in zip(found, expected[: len(found)], strict=True):
        assert y.dtype == F32
        np.testing.assert_allclose(y, truth, rtol=1e-5, atol=1e-6)
    assert len(found) == len(expected) or not case.arguments.get("batch_first")


def test_gradients_are_those_of_pytorch(case):
    graph, dy = case.graph(), [np.ascontiguousarray(d) for d in case.arrays("dy")]
    outputs = case.outputs()
    dy += [np.zeros_like(y) for y in outputs[len(dy) :]]  # attention weights have no gradient
    if isinstance(case.net, Attend) and len(outputs) > 1:
        graph = graph.replace(graph.nodes, output=graph[graph.output].inputs[0])
        dy = dy[:1]
    found = by_ops(graph, case.inputs, dy[0] if len(dy) == 1 else tuple(dy))
    for name, expected in zip(graph.inputs, case.arrays("dx"), strict=False):
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)
    graph(*case.inputs)
    graph.backward(dy[0] if len(dy) == 1 else tuple(dy))
    for name, parameter in case.layer.named_parameters():
        expected = case.group("grad")[name]
        np.testing.assert_allclose(parameter.grad, expected, rtol=1e-4, atol=1e-5, err_msg=name)


def test_gradients_are_those_of_finite_differences(case):
    case.layer.padding_idx = None  # the row of which is kept from training
    graph, inputs = case.graph(), [x.copy() for x in case.inputs]
    if isinstance(case.net, Attend) and graph[graph.output].op.name == "outputs":
        graph = graph.replace(graph.nodes, output=graph[graph.output].inputs[0])
    assert_gradients(graph, *inputs, rtol=1e-5, atol=1e-7, every=17 if "num_layers" in case.arguments else 1)


def test_layers_survive_files(case, tmp_path):
    graph = case.graph()
    graph.save(tmp_path / "m.npz")
    loaded = nq.load(tmp_path / "m.npz")
    y, again = graph.eval()(*case.inputs), loaded(*case.inputs)
    for a, b in zip(y, again, strict=True) if isinstance(y, tuple) else [(y, again)]:
        np.testing.assert_array_equal(a, b)


def test_the_error_function_is_that_of_the_standard_library():
    from math import erf as scalar

    x = np.concatenate([np.linspace(-7, 7, 2001), [0.0, -0.0, 1e-300, 30.0, np.inf, -np.inf]])
    np.testing.assert_allclose(erf(x), [scalar(v) for v in x], rtol=0, atol=3e-14)
    narrow = x.astype(F32)
    np.testing.assert_allclose(erf(narrow), [scalar(v) for v in narrow], rtol=0, atol=7e-8)


class TestRecurrent:
    x = np.random.default_rng(0).standard_normal((3, 6, 4)).astype(F32)

    def test_states_carry_a_sequence_over_calls(self):
        lstm = nn.LSTM(4, 5, num_layers=2, batch_first=True, rng=0)
        whole, (h, c) = lstm(self.x)
        first, states = lstm(self.x[:, :2])
        second, (h2, c2) = lstm(self.x[:, 2:], states)
        np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(h2, h, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(c2, c, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("bidirectional", [False, True])
    @pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
    def test_padding_changes_nothing(self, kind, bidirectional):
        layer = kind(4, 5, batch_first=True, bidirectional=bidirectional, rng=0)
        other = self.x.copy()
        other[1, 2:] = 77
        lengths = np.array([6, 2, 0])
        (y, last), (y2, last2) = layer(self.x, lengths=lengths), layer(other, lengths=lengths)
        np.testing.assert_array_equal(y, y2)
        alone, _ = layer(self.x[1:2, :2])
        np.testing.assert_allclose(y[1, :2], alone[0], rtol=1e-5, atol=1e-6)
        assert (y[1, 2:] == 0).all() and (y[2] == 0).all()
        for a, b in zip(np.broadcast_arrays(last), np.broadcast_arrays(last2), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_empty_sequences_give_the_initial_state(self):
        h = np.ones((3, 1, 5), F32)
        y, last = nn.GRU(4, 5, batch_first=True, rng=0)(self.x[:, :0], h)
        assert y.shape == (3, 0, 5)
        np.testing.assert_array_equal(last, h)
        assert nn.LSTM(4, 5, batch_first=True, rng=0)(self.x[:0])[0].shape == (0, 6, 5)

    def test_the_axis_of_time_may_have_any_length_where_it_leads(self):
        graph = nn.LSTM(4, 5, rng=0).graph(self.x)
        assert graph(np.zeros((9, 6, 4)))[0].shape == (9, 6, 5)

    def test_dropout_lies_between_layers_and_in_training_alone(self):
        layer = nn.LSTM(4, 5, num_layers=2, dropout=0.5, rng=0)
        assert [n.op.name for n in layer.graph(self.x).nodes if n.op.name != "part"].count("dropout") == 1
        assert "dropout" not in [n.op.name for n in layer.eval().graph(self.x).nodes]

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda x: nn.LSTM(0, 5), "input_size must be at least 1"),
            (lambda x: nn.LSTM(4, 5, dropout=2), r"p must be in \[0, 1\]"),
            (lambda x: nn.LSTM(3, 5)(x), "takes 3 axes, the last of 3"),
            (lambda x: nn.LSTM(4, 5)(x[0]), "takes 3 axes"),
            (lambda x: nn.LSTM(4, 5)(x, (x,)), "hx must be h and c, not 1 arrays"),
            (lambda x: nn.GRU(4, 5)(x, x), "initial states must have 3 axes, the last of 5"),
            (lambda x: nn.GRU(4, 5)(x, np.zeros((1, 2, 5))), "initial states"),
            (lambda x: nn.GRU(4, 5, batch_first=True)(x, lengths=np.array([7, 1, 1])), "from 0 to 6"),
            (lambda x: nn.GRU(4, 5, batch_first=True)(x, lengths=np.array([1, 1])), "lengths must be 3 integers"),
            (lambda x: nn.GRU(4, 5, batch_first=True)(x, lengths=np.ones((3, 1))), "initial states"),
        ],
    )
    def test_bad_arguments_are_named(self, make, message):
        with pytest.raises((TypeError, ValueError), match=message):
            make(self.x)


class TestAttention:
    x = np.random.default_rng(0).standard_normal((3, 5, 8)).astype(F32)

    def test_a_query_that_may_look_nowhere_gives_zeros(self):
        layer = nn.MultiheadAttention(8, 2, bias=False, batch_first=True, rng=0)
        y, weights = Attend(layer, {"padding": True})(self.x, np.array([[1] * 5, [0] * 5, [0] * 5]))
        assert (y[0] == 0).all() and (weights[0] == 0).all() and y[1].any()

    def test_a_causal_mask_is_that_of_its_definition(self):
        layer = nn.MultiheadAttention(8, 2, batch_first=True, rng=0)

        class Causal(nn.Module):
            def __init__(self):
                self.layer = layer

            def forward(self, x):
                return self.layer(x, x, x, need_weights=False, is_causal=True)[0]

        given = {"mask": np.triu(np.ones((5, 5), bool), 1)}
        np.testing.assert_array_equal(Causal()(self.x), Attend(layer, given)(self.x)[0])

    def test_weights_are_dropped_in_training_alone(self):
        net = Attend(nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True, rng=0), {})
        a, b = net(self.x)[0], net(self.x)[0]
        assert not np.array_equal(a, b)
        net.eval()
        np.testing.assert_array_equal(net(self.x)[0], net(self.x)[0])

    def test_it_trains_with_the_optimizer_of_module_and_of_graph(self):
        for of in (lambda net: net, lambda net: net.graph(self.x)):
            net = Attend(nn.MultiheadAttention(8, 2, batch_first=True, rng=0), {"keys": None})
            net.forward = lambda x, layer=net.layer: layer(x, x + 1, x)[0]
            before, model = net.state_dict(), of(net)
            opt = nn.SGD(model.parameters(), lr=0.1)
            y = model(self.x)
            model.backward(y)
            opt.step()
            for name, array in net.state_dict().items():
                expected = before[name] - F32(0.1) * dict(net.named_parameters())[name].grad
                np.testing.assert_array_equal(array, expected, err_msg=name)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda x: nn.MultiheadAttention(8, 3), "num_heads must divide embed_dim"),
            (lambda x: Attend(nn.MultiheadAttention(8, 2), {"mask": np.zeros((4, 5))})(x), "attn_mask must have shape"),
            (
                lambda x: Attend(nn.MultiheadAttention(8, 2), {"padding": 1})(x, x[:, :, 0]),
                "key_padding_mask must be bool",
            ),
        ],
    )
    def test_bad_arguments_are_named(self, make, message):
        with pytest.raises((TypeError, ValueError), match=message):
            make(self.x)


class TestOthers:
    def test_indices_outside_the_table_are_named(self):
        for bad in (-1, 4):
            with pytest.raises(ValueError, match=f"index {bad} is outside a table of 4 rows"):
                nn.Embedding(4, 2)(np.array([[0, bad]]))

    def test_floats_are_no_indices_and_indices_no_floats(self):
        with pytest.raises(TypeError, match="expected an array of integers"):
            nn.Embedding(4, 2)(np.zeros((1, 2)))
        graph = nn.Embedding(4, 2).graph(np.zeros((1, 2), int))
        with pytest.raises(TypeError, match="expected an array of integers, not float32"):
            graph(np.zeros((1, 2)))

    def test_the_padding_row_begins_with_zeros_and_is_not_trained(self):
        layer = nn.Embedding(4, 2, padding_idx=1, rng=0)
        assert (layer.weight[1] == 0).all()
        y = layer(np.array([[0, 1, 1]]))
        layer.backward(np.ones_like(y))
        np.testing.assert_array_equal(layer._parameters["weight"].grad, [[1, 1], [0, 0], [0, 0], [0, 0]])

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: nn.Embedding(4, 2, padding_idx=4), "padding_idx must be below 4"),
            (lambda: nn.LayerNorm(4)(np.zeros((2, 5))), r"takes values whose last axes are \(4,\)"),
            (lambda: nn.LayerNorm(0), "normalized_shape must be at least 1"),
            (lambda: nn.GELU("erf"), "approximate must be 'none' or 'tanh'"),
            (lambda: nn.Softmax(0)(np.zeros((2, 3))), "dim must be an axis of 2 other than that of the batch"),
            (lambda: nn.softmax(np.zeros((2, 3)), 2), "dim must be an axis"),
            (lambda: nn.Conv1d(3, 4, 3, groups=2), "groups must divide"),
            (lambda: nn.Conv1d(3, 4, 3)(np.zeros((1, 3, 2))), "does not fit"),
            (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, output_padding=2), "output_padding must be below stride"),
            (lambda: nn.ConvTranspose2d(3, 4, 3)(np.zeros((1, 2, 4, 4))), r"takes \(batch, 3, H, W\)"),
        ],
    )
    def test_bad_arguments_are_named(self, make, message):
        with pytest.raises((TypeError, ValueError), match=message):
            make()

    def test_a_layer_over_sequences_runs_on_integers_with_the_bits_of_its_rows(self):
        rng = np.random.default_rng(0)
        model, x = (
            nn.Sequential(nn.Linear(6, 8, rng=0), nn.ReLU(), nn.Linear(8, 3, rng=1)),
            rng.standard_normal((4, 5, 6)),
        )
        int8 = nq.quantize_static(model, [x])
        assert int8.verify(x)
        rows = nq.quantize_static(model, [x.reshape(20, 6)])
        np.testing.assert_array_equal(int8(x).reshape(20, 3), rows(x.reshape(20, 6)))

    def test_a_normalization_of_axis_1_stays_apart_from_features_on_axis_2(self):
        model, x = (
            nn.Sequential(nn.Linear(6, 8, rng=0), nn.BatchNorm1d(5)),
            np.random.default_rng(0).normal(size=(4, 5, 6)),
        )
        assert [node.op.name for node in nq.prepare(model, x).nodes if node.quantizer is None] == [
            "linear",
            "batch_norm",
        ]

    def test_a_convolution_of_sequences_runs_on_integers(self):
        model = nn.Sequential(nn.Conv1d(3, 8, 3, padding=1, rng=0), nn.ReLU(), nn.Conv1d(8, 4, 3, rng=1))
        x = np.random.default_rng(0).standard_normal((4, 3, 12))
        int8 = nq.quantize_static(model, [x])
        assert [node.op.name for node in int8.nodes].count("conv2d_integer") == 2
        assert int8.verify(x)


class Encoder(nn.Module):
    """An attention, a recurrent layer and a layer at their end."""

    def __init__(self):
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, rng=0)
        self.norm, self.lstm = nn.LayerNorm(8), nn.LSTM(8, 6, batch_first=True, rng=1)
        self.head = nn.Linear(6, 3, rng=2)

    def forward(self, x):
        y, (h, _) = self.lstm(self.norm(x + self.attention(x, x, x)[0]))
        return self.head(h[:, -1])


#: What an attention becomes in a quantized graph, beside its projections.
_PARTS = [f"attention.{name}" for name in ("scores", "weights", "values")]


class TestStatic:
    x = np.random.default_rng(0).standard_normal((6, 5, 8)).astype(F32)

    def test_attention_runs_on_integers_and_a_recurrent_layer_says_that_it_does_not(self):
        int8 = nq.quantize_static(Encoder(), [self.x])
        assert int8.verify(self.x)
        kernels = {row.layer: row.kernel for row in int8.report(self.x).rows}
        parts = {f"attention.{name}" for name in ("in_proj", "out_proj", *_PARTS)}
        assert {name for name, kernel in kernels.items() if kernel == "integers"} == {*parts, "add", "norm", "head"}
        assert kernels["lstm.l0"] == "float: has no integer form"
        assert kernels["attention.attention.average"].startswith("float: only means of whole images")

    def test_a_class_keeps_all_parts_of_an_attention_in_float(self):
        config = nq.QConfig(
            nq.Quantize(nq.QuantSpec(axis=0)),
            nq.Quantize(nq.QuantSpec(signed=False, symmetric=False)),
            overrides={nn.MultiheadAttention: None},
        )
        prepared = nq.prepare(Encoder(), self.x, config)
        assert [n.name for n in prepared.nodes if n.weight_quantizer is not None] == ["head"]

    def test_a_value_of_several_parts_is_no_array(self):
        graph = Encoder().graph(self.x)
        with pytest.raises(ValueError, match="head: reads a value of several parts"):
            graph.replace([n.copy(inputs=("lstm.l0",)) if n.name == "head" else n for n in graph.nodes])

    def test_a_softmax_between_layers_runs_on_integers(self, tmp_path):
        model = nn.Sequential(nn.Linear(8, 6, rng=0), nn.Softmax(), nn.Linear(6, 3, rng=1))
        int8 = nq.quantize_static(model, [self.x])
        assert "softmax_integer" in [node.op.name for node in int8.nodes]
        assert int8.verify(self.x), int8.verify(self.x)
        assert nq.sqnr(model.eval()(self.x), int8(self.x)) > 30
        int8.save(tmp_path / "m.npz")
        np.testing.assert_array_equal(nq.load(tmp_path / "m.npz")(self.x), int8(self.x))

    def test_a_softmax_along_another_axis_says_that_it_stays_float(self):
        int8 = nq.quantize_static(
            nn.Sequential(nn.Linear(8, 6, rng=0), nn.Softmax(1), nn.Linear(6, 3, rng=1)), [self.x]
        )
        kernels = {row.layer: row.kernel for row in int8.report(self.x).rows}
        assert kernels["softmax"] == "float: only a softmax along the last axis has an integer form"
        assert int8.verify(self.x)
