"""What NumPy's operators and functions record in forward: the values they give, their gradients, what is refused."""

import numpy as np
import pytest

import ndquant as nq
from ndquant import nn

from .gradients import assert_gradients

F32 = np.float32


class Traced(nn.Module):
    """A network of one expression, with a parameter and a buffer to use in it."""

    def __init__(self, expression, scale=(0.5, -2.0, 1.5, 3.0)):
        self.expression, self.scale = expression, nn.Parameter(scale)
        self.shift = nn.Buffer([1.0, 2.0, 3.0, 4.0])

    def forward(self, *x):
        return self.expression(self, *x)


def data(*shape, rng=0):
    return np.random.default_rng(rng).uniform(0.5, 2, shape).astype(F32)


#: (expression of the module and x; input shape): the same text is run by NumPy on the array itself.
EXPRESSIONS = {
    "add itself": (lambda m, x: x + x, (3, 4)),
    "residual": (lambda m, x: x + np.tanh(x * 2), (3, 4)),
    "subtract": (lambda m, x: x - x * x, (3, 4)),
    "divide": (lambda m, x: x / (x + 1), (3, 4)),
    "from the left": (lambda m, x: (1 - x) / 2 + 3 / x, (3, 4)),
    "negative": (lambda m, x: -x, (3, 4)),
    "numpy scalars": (lambda m, x: np.float64(2) * x + np.int8(1), (3, 4)),
    "array constants": (lambda m, x: x * np.arange(4) - np.ones((1, 4)), (3, 4)),
    "array from the left": (lambda m, x: np.arange(1, 5) / x, (3, 4)),
    "a parameter": (lambda m, x: x * m.scale + m.scale, (3, 4)),
    "a buffer": (lambda m, x: (x - m.shift) / m.shift, (3, 4)),
    "a parameter computed with": (lambda m, x: x * np.tanh(m.scale * 2), (3, 4)),
    "a parameter reshaped": (lambda m, x: x * m.scale.reshape(1, -1, 1), (3, 4, 2)),
    "a parameter of one more axis": (lambda m, x: x.reshape(-1, 2, 2) * m.scale.reshape(2, 2), (3, 4)),
    "broadcast within an example": (lambda m, x: x + x.mean(axis=2, keepdims=True), (3, 4, 2)),
    "sum to a column": (lambda m, x: x[:, :, :1] * x, (3, 4, 2)),
    "matmul with constants": (lambda m, x: x @ np.arange(8.0).reshape(4, 2) / 8, (3, 4)),
    "matmul with a parameter": (lambda m, x: x @ m.scale.reshape(4, 1), (3, 5, 4)),
    "matmul with a parameter transposed": (lambda m, x: x @ m.scale.reshape(1, 4).T, (3, 4)),
    "matmul from the left": (lambda m, x: m.scale.reshape(2, 2) @ x, (3, 2, 5)),
    "matmul of values": (lambda m, x: np.matmul(x, x.swapaxes(1, 2)), (3, 4, 2)),
    "matmul of more axes": (lambda m, x: x @ x.transpose(0, 1, 3, 2), (2, 3, 4, 2)),
    "transpose": (lambda m, x: x.transpose(0, 2, 1), (3, 4, 2)),
    "np.transpose": (lambda m, x: np.transpose(x, (0, -1, 1, 2)) * 2, (3, 4, 2, 5)),
    "mean": (lambda m, x: x.mean(axis=(2, 3)), (3, 4, 2, 5)),
    "np.mean": (lambda m, x: np.mean(x, axis=-1), (3, 4, 2)),
    "slice": (lambda m, x: x[:, ::2, 1:], (3, 4, 5)),
    "slice from the end": (lambda m, x: x[..., -1:0:-2], (3, 4, 5)),
    "slice away an axis": (lambda m, x: x[:, 1] + x[:, -1], (3, 4, 5)),
    "pad": (lambda m, x: np.pad(x, ((0, 0), (1, 2), (0, 3))), (3, 4, 5)),
    "pad with a value": (lambda m, x: np.pad(x, [(0, 0), (1, 0)], constant_values=7), (3, 4)),
    "concatenate": (lambda m, x: np.concatenate([x, x * 2, x[:, :1]], axis=1), (3, 4, 5)),
    "concatenate the last axis": (lambda m, x: np.concatenate((x, -x), -1), (3, 4)),
    "reshape": (lambda m, x: np.reshape(x, (-1, 2, 2)), (3, 4)),
    "option A shortcut": (lambda m, x: np.pad(x[:, :, ::2, ::2], ((0, 0), (1, 1), (0, 0), (0, 0))), (2, 3, 4, 5)),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_values_are_those_of_numpy(name):
    expression, shape = EXPRESSIONS[name]
    model, x = Traced(expression), data(*shape)
    model.scale, model.shift = F32([0.5, -2.0, 1.5, 3.0]), F32([1, 2, 3, 4])
    expected = expression(model, x)
    y = model(x)
    assert y.dtype == F32
    np.testing.assert_allclose(y, expected, rtol=3e-7)
    assert model(x[:1]).shape == (1, *expected.shape[1:])


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_gradients_are_those_of_finite_differences(name):
    expression, shape = EXPRESSIONS[name]
    model = Traced(expression)
    assert_gradients(model.graph(data(*shape)), data(*shape))


def test_gradients_reach_parameters_of_forward_in_training():
    model, x = Traced(lambda m, x: x * m.scale + m.scale), data(3, 4)
    model(x)
    dy = data(3, 4, rng=1)
    model.backward(dy)
    np.testing.assert_allclose(model.parameters()[0].grad, (dy * (x + 1)).sum(axis=0), rtol=1e-6)


def test_assigning_a_parameter_or_buffer_of_forward_takes_effect_at_once():
    model, x = Traced(lambda m, x: x * m.scale + m.shift), data(3, 4)
    model(x)
    model.scale, model.shift = np.zeros(4), np.full(4, 5)
    np.testing.assert_array_equal(model(x), np.full((3, 4), 5, F32))
    model.graph(x)["scale"].value = np.ones(4)
    np.testing.assert_array_equal(model(x), x + 5)


def test_a_parameter_used_twice_is_one_node():
    graph = Traced(lambda m, x: x * m.scale + m.scale).graph(data(3, 4))
    assert [(n.name, n.op.name, n.inputs) for n in graph.nodes] == [
        ("scale", "parameter", ()),
        ("multiply", "multiply", ("input", "scale")),
        ("add", "add", ("multiply", "scale")),
    ]
    assert "(4,)" in repr(graph) and "(batch, 4)" in repr(graph)


def test_two_inputs():
    model = Traced(lambda m, x, y: np.concatenate([x * y, x - y], axis=1))
    x, y = data(3, 4), data(3, 4, rng=1)
    np.testing.assert_array_equal(model(x, y), np.concatenate([x * y, x - y], axis=1))
    assert_gradients(model.graph(x, y), x, y)


def test_what_the_output_does_not_need_is_not_run():
    def forward(m, x):
        x / 0  # noqa: B018
        return x * 2

    graph = Traced(forward).graph(data(3, 4))
    assert [n.op.name for n in graph.nodes] == ["constant", "multiply"]


def test_networks_with_constants_do_not_trace_each_other_anew():
    seen = []

    def forward(m, x):
        seen.append(m)
        return x * 2

    a, b, x = Traced(forward), Traced(forward), data(3, 4)
    for _ in range(3):
        a(x), b(x)
    assert len(seen) == 2


@pytest.mark.parametrize("view", [lambda m, x: x, lambda m, x: x.reshape(-1, 2, 2), lambda m, x: np.tanh(x)[:, 1:]])
def test_the_output_is_the_callers_to_change(view):
    model, x = Traced(lambda m, x: view(m, x * 1) if view(m, x) is not x else x), data(3, 4)
    before, y = x.copy(), model(x)
    first = y.copy()
    y += 1
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(model(x), first)


REFUSED = {
    "power": (lambda m, x: x**2, TypeError, "numpy.power"),
    "comparison": (lambda m, x: x > 0, TypeError, "numpy.greater"),
    "reduction of a ufunc": (lambda m, x: np.add.reduce(x), TypeError, "numpy.add"),
    "ufunc with out": (lambda m, x: np.add(x, x, out=np.zeros((3, 4))), TypeError, "numpy.add"),
    "unknown function": (lambda m, x: np.cumsum(x, axis=1), TypeError, "numpy.cumsum"),
    "unknown method": (lambda m, x: x.sum(axis=1), AttributeError, "sum"),
    "unknown argument": (lambda m, x: np.mean(x, axis=1, dtype=np.float64), TypeError, "dtype"),
    "mean over the batch": (lambda m, x: x.mean(axis=0), ValueError, "no mean over the batch"),
    "mean over all": (lambda m, x: x.mean(), ValueError, "no mean over the batch"),
    "mean over an axis that is not there": (lambda m, x: x.mean(axis=2), ValueError, "axis 2"),
    "batch concatenated": (lambda m, x: np.concatenate([x, x]), ValueError, "axis 0"),
    "concatenated with an array": (lambda m, x: np.concatenate([x, np.ones((3, 4))], 1), ValueError, "differ"),
    "concatenated lengths": (
        lambda m, x: np.concatenate([x[:, None:2].reshape(-1, 2, 1), x.reshape(-1, 4, 1)], 2),
        ValueError,
        "differ in other axes",
    ),
    "batch sliced": (lambda m, x: x[:2], ValueError, "the batch axis can only be taken whole"),
    "batch indexed": (lambda m, x: x[0], ValueError, "the batch axis can only be taken whole"),
    "index outside": (lambda m, x: x[:, 4], ValueError, "index 4 is outside"),
    "too many indices": (lambda m, x: x[:, 1, 1], IndexError, "too many indices"),
    "an index array": (lambda m, x: x[:, np.array([0, 1])], TypeError, "only slices, integers"),
    "a new axis": (lambda m, x: x[:, None], TypeError, "only slices, integers"),
    "step of 0": (lambda m, x: x[:, ::0], ValueError, "step must not be 0"),
    "batch padded": (lambda m, x: np.pad(x, 1), ValueError, "the batch axis cannot be padded"),
    "negative padding": (lambda m, x: np.pad(x, ((0, 0), (-1, 0))), ValueError, "width must be at least 0"),
    "reflecting padding": (lambda m, x: np.pad(x, ((0, 0), (1, 1)), mode="reflect"), ValueError, "'reflect'"),
    "transposed batch": (lambda m, x: x.T, ValueError, "the batch axis would move"),
    "swapped batch": (lambda m, x: x.swapaxes(0, 1), ValueError, "the batch axis would move"),
    "shapes that do not broadcast": (lambda m, x: x + np.ones(3), ValueError, r"\(batch, 4\) and \(3,\)"),
    "an array that has examples": (lambda m, x: x + np.ones((3, 4)), ValueError, r"\(batch, 4\) and \(3, 4\)"),
    "batch moved by an array": (lambda m, x: x + np.ones((2, 1, 4)), ValueError, "batch"),
    "batch against an axis": (lambda m, x: x.reshape(-1, 1, 4) + x, ValueError, "batch"),
    "matmul over the batch": (lambda m, x: np.ones((2, 3)) @ x, ValueError, "are not"),
    "matmul that does not fit": (lambda m, x: x @ np.ones((3, 4)), ValueError, "are not"),
    "matmul with a vector": (lambda m, x: x @ np.ones(4), ValueError, "are not"),
    "booleans": (lambda m, x: x * np.ones(4, bool), TypeError, "real numbers"),
    "complex numbers": (lambda m, x: x * 1j, TypeError, "real numbers"),
    "text": (lambda m, x: np.add(x, "1"), TypeError, "real numbers"),
    "masked arrays": (lambda m, x: np.add(x, np.ma.masked_array(np.ones(4))), TypeError, "real numbers"),
    "batch as a number": (lambda m, x: x * x.shape[0], TypeError, "batch size is not a number"),
    "batch divided": (lambda m, x: x.reshape(x.shape[0] // 2, -1), TypeError, "batch size is not a number"),
    "loop over the batch": (lambda m, x: [r for r in range(len(x))], TypeError, "batch size is not a number"),
    "a parameter in a layer": (lambda m, x: nn.max_pool2d(m.scale.reshape(1, 1, 2, 2), 2), ValueError, "batch axis"),
    "an array in a layer": (lambda m, x: nn.Linear(4, 2)(x), ValueError, "no attribute of the network"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_error_names_the_line(name):
    expression, kind, message = REFUSED[name]
    with pytest.raises(kind, match=rf"test_arithmetic\.py:\d+: .*({message})"):
        Traced(expression)(data(3, 4))


def test_a_value_of_another_trace_is_refused():
    kept = []
    Traced(lambda m, x: kept.append(x) or x * 1)(data(3, 4))
    with pytest.raises(TypeError, match="of the one forward that is being traced"):
        Traced(lambda m, x: x + kept[0])(data(3, 4))


def test_forward_must_return_a_value_with_a_batch_axis():
    with pytest.raises(TypeError, match="must return traced arrays, one or a tuple, not a parameter"):
        Traced(lambda m, x: m.scale * 2)(data(3, 4))


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_graphs_survive_files_copies_and_printing(name, tmp_path):
    expression, shape = EXPRESSIONS[name]
    model, x = Traced(expression), data(*shape)
    y, graph = model(x), model.graph(x)
    graph.save(tmp_path / "m.npz")
    for other in (nq.load(tmp_path / "m.npz"), graph.copy()):
        np.testing.assert_array_equal(other(x), y)
        assert repr(other) == repr(graph)


class Branched(nn.Module):
    """Two linear layers around arithmetic, of which the product with a parameter has no integer form."""

    def __init__(self, rng=0):
        rng = np.random.default_rng(rng)
        self.first, self.second, self.scale = nn.Linear(6, 8, rng=rng), nn.Linear(8, 4, rng=rng), nn.Parameter(2.0)
        self.drop = nn.Dropout(0.3, rng=0)

    def forward(self, x):
        h = nn.relu(self.first(x))
        return self.second(self.drop(h) + np.tanh(h * self.scale))


class TestQuantizing:
    """Only ops without integer form stay float, and they say so."""

    def graph(self, make=nq.quantize_static):
        x = np.random.default_rng(1).standard_normal((64, 6)).astype(F32)
        return Branched(), x

    def test_they_alone_stay_float_between_integer_layers(self):
        model, x = self.graph()
        int8 = nq.quantize_static(model, [x])
        kinds = [node.op.name for node in int8.nodes]
        assert kinds.count("linear_integer") == 2
        assert [k for k in kinds if k in ("multiply", "lookup", "add_integer")] == ["multiply", "lookup", "add_integer"]
        assert nq.sqnr(model.eval()(x), int8(x)) > 30
        assert int8.verify(x)
        report = int8.report(x)
        reasons = {"scale": "has no integer form", "multiply": "an operand is a parameter or constant"}
        assert report.stayed_float == reasons
        assert report.parameters == sum(p.data.size for p in model.parameters())

    def test_training_and_conversion_with_dropout(self):
        model, x = self.graph()
        qat = nq.prepare_qat(model, x, "int4")
        opt, labels = nn.Adam(qat.parameters(), lr=1e-2), np.arange(64) % 4
        first = None
        for _ in range(30):
            loss, dlogits = nn.cross_entropy(qat(x), labels)
            first = first or loss
            qat.backward(dlogits)
            opt.step()
        assert loss < first
        int4 = nq.convert(qat)
        assert "dropout" not in [node.op.name for node in int4.nodes]
        np.testing.assert_array_equal(int4(x), qat.eval()(x))
        assert int4.verify(x)

    def test_converted_graphs_survive_files(self, tmp_path):
        model, x = self.graph()
        int8 = nq.quantize_static(model, [x])
        int8.save(tmp_path / "m.npz")
        loaded = nq.load(tmp_path / "m.npz")
        np.testing.assert_array_equal(loaded(x), int8(x))
        assert loaded.verify(x)
