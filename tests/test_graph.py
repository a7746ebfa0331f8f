"""Modules, tracing and graphs: what is recorded, what it computes, what it refuses."""

import copy
import pickle

import numpy as np
import pytest

import ndquant as nq
from ndquant import nn

F32 = np.float32


def mlp(rng=0):
    rng = np.random.default_rng(rng)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5, rng=rng), nn.ReLU(), nn.Linear(5, 3, rng=rng))


def random_input(shape=(4, 2, 3), rng=0):
    return np.random.default_rng(rng).standard_normal(shape).astype(F32)


class Net(nn.Module):
    def __init__(self, forward=None):
        self.first, self.second = nn.Linear(4, 4, rng=0), nn.Linear(4, 2, rng=1)
        self.body = forward

    def forward(self, x):
        return self.body(self, x) if self.body else self.second(nn.relu(self.first(x)))


class TestForward:
    def test_a_module_computes_what_numpy_computes(self):
        model, x = mlp(), random_input()
        flat = x.reshape(4, 6)
        hidden = np.maximum(flat @ model[1].weight.T + model[1].bias, 0)
        np.testing.assert_array_equal(model(x), hidden @ model[3].weight.T + model[3].bias)

    def test_the_graph_names_nodes_after_modules(self):
        graph = Net().graph(np.zeros((1, 4)))
        assert [(n.name, n.op.name, n.inputs) for n in graph.nodes] == [
            ("first", "linear", ("input",)),
            ("relu", "relu", ("first",)),
            ("second", "linear", ("relu",)),
        ]

    def test_a_module_used_twice_is_two_nodes_with_one_weight(self):
        model = Net(lambda self, x: self.first(self.first(x)))
        graph = model.graph(np.zeros((1, 4)))
        assert [n.name for n in graph.nodes] == ["first", "first_1"]
        assert len(graph.parameters()) == 2

    @pytest.mark.parametrize("batch", [1, 2, 7])
    def test_one_trace_serves_every_batch_size(self, batch):
        model = mlp()
        model(random_input())
        assert model(random_input((batch, 2, 3))).shape == (batch, 3)
        assert len(model._graphs) == 1

    def test_training_flag_and_input_shape_trace_anew(self):
        model = Net()
        seen = []
        model.body = lambda self, x: seen.append(self.training) or self.first(x)
        x = np.zeros((1, 4))
        model(x), model.eval()(x), model(x), model.train()(x)
        assert seen == [True, False]

    def test_assigning_a_layer_traces_anew(self):
        model, x = mlp(), random_input()
        before = model(x)
        setattr(model, "3", nn.Linear(5, 2, rng=3))
        assert before.shape == (4, 3)
        assert model(x).shape == (4, 2)

    def test_assigning_a_weight_takes_effect_at_once(self):
        model, x = mlp(), random_input()
        model(x)
        model[3].weight = np.zeros((3, 5))
        np.testing.assert_array_equal(model(x), np.tile(model[3].bias, (4, 1)))
        model.graph(x)["3"].bias = np.array([1, 2, 3])
        np.testing.assert_array_equal(model(x), np.tile(F32([1, 2, 3]), (4, 1)))

    @pytest.mark.parametrize(
        "flatten",
        [
            lambda x: x.reshape(-1, 6),
            lambda x: x.reshape((x.shape[0], 6)),
            lambda x: x.reshape(x.shape[0], -1),
            lambda x: np.reshape(x, (-1, 6)),
        ],
    )
    def test_reshape_keeps_the_batch_axis_however_it_is_written(self, flatten):
        class Flat(nn.Module):
            def forward(self, x):
                return flatten(x)

        x = random_input()
        np.testing.assert_array_equal(Flat()(x), x.reshape(4, 6))

    def test_numpy_maximum_with_zero_is_relu(self):
        class Rectified(nn.Module):
            def forward(self, x):
                return np.maximum(0, x)

        np.testing.assert_array_equal(Rectified()(F32([[-1, 2]])), [[0, 2]])

    def test_input_dtypes_are_cast_to_float32(self):
        model, x = mlp(), random_input()
        for dtype in (np.float16, np.float64, ">f4"):
            assert model(x.astype(dtype)).dtype == np.float32

    def test_printing_a_graph_shows_its_nodes(self):
        text = repr(mlp().graph(random_input()))
        assert [line.split()[0] for line in text.splitlines()[1:]] == ["name", "input", "0", "1", "2", "3"]


class TestBackward:
    def test_gradients_equal_finite_differences(self):
        model, x, labels = mlp(), random_input(), np.array([0, 1, 2, 0])
        # In float64 by NumPy, so that the differences are exact enough; biases keep every ReLU away from its kink.
        loss_of = numeric_loss(x, labels)
        _, dlogits = nn.cross_entropy(model(x), labels)
        model.backward(dlogits)
        arrays = [p.data.astype(np.float64) for p in model.parameters()]
        for parameter, array in zip(model.parameters(), arrays, strict=True):
            np.testing.assert_allclose(parameter.grad, finite_difference(loss_of, arrays, array), rtol=2e-3, atol=2e-6)

    def test_shared_weights_add_their_gradients(self):
        model = Net(lambda self, x: self.first(self.first(x)))
        x = random_input((5, 4))
        model.first.bias = np.zeros(4)
        y, w = model(x), model.first.weight
        dy = np.ones_like(y)
        model.backward(dy)
        hidden = x @ w.T
        np.testing.assert_allclose(model.parameters()[0].grad, dy.T @ hidden + (dy @ w).T @ x, rtol=1e-5)

    def test_backward_overwrites_and_accumulate_adds(self):
        model, x = mlp(), random_input()
        dy = np.ones_like(model(x))
        model.backward(dy)
        once = [p.grad.copy() for p in model.parameters()]
        model.backward(dy)
        for p, g in zip(model.parameters(), once, strict=True):
            np.testing.assert_array_equal(p.grad, g)
        model.backward(dy, accumulate=True)
        for p, g in zip(model.parameters(), once, strict=True):
            np.testing.assert_array_equal(p.grad, g + g)

    def test_backward_needs_a_forward_and_a_fitting_gradient(self):
        model = mlp()
        with pytest.raises(RuntimeError, match="call the module"):
            model.backward(np.zeros((4, 3)))
        model(random_input())
        with pytest.raises(ValueError, match=r"dy: expected the shape \(4, 3\).*not \(4, 2\)"):
            model.backward(np.zeros((4, 2)))


def numeric_loss(x, labels):
    def loss(w1, b1, w2, b2):
        hidden = np.maximum(x.reshape(len(x), -1).astype(np.float64) @ w1.T + b1, 0)
        logits = hidden @ w2.T + b2
        return nn.cross_entropy(logits, labels)[0]

    return loss


def finite_difference(loss_of, arrays, array, step=1e-6):
    gradient = np.zeros_like(array)
    for i in np.ndindex(array.shape):
        kept = array[i]
        array[i] = kept + step
        above = loss_of(*arrays)
        array[i] = kept - step
        gradient[i] = (above - loss_of(*arrays)) / (2 * step)
        array[i] = kept
    return gradient


class TestWhatCannotBeTraced:
    @pytest.mark.parametrize(
        ("forward", "message"),
        [
            (lambda self, x: self.first(x) if x.shape[0] > 1 else x, "the batch size is not a number"),
            (lambda self, x: self.first(x) if x > 0 else x, "numpy.greater .*branches on the data"),
            (lambda self, x: self.first(x) if (x == 1).all() else x, "numpy.equal .*branches on the data"),
            (lambda self, x: self.first(x) * float(x), "for one number"),
            (lambda self, x: x[:, x], "only slices"),
            (lambda self, x: self.first(x) if x else x, "branches on the data"),
            (lambda self, x: self.first(np.sin(x)), "numpy.sin"),
            (lambda self, x: [row for row in x], "iterates"),
            (lambda self, x: float(len(x)), "the batch size"),
            (lambda self, x: np.asarray(x), "into a NumPy array"),
        ],
    )
    def test_the_error_names_the_line(self, forward, message):
        with pytest.raises(TypeError, match=rf"test_graph\.py:\d+: .*{message}"):
            Net(forward)(np.zeros((2, 4)))

    @pytest.mark.parametrize("shape", [(4, -1), (2, 4), (-1, 3), (), (-1, 2, -1)])
    def test_a_reshape_that_moves_the_batch_axis_is_refused(self, shape):
        with pytest.raises(ValueError, match=r"test_graph\.py:\d+: reshape"):
            Net(lambda self, x: x.reshape(shape))(np.zeros((2, 4)))

    def test_a_layer_in_a_plain_list_is_refused(self):
        hidden = [nn.Linear(4, 4, rng=0)]
        with pytest.raises(ValueError, match="is no attribute of the network"):
            Net(lambda self, x: hidden[0](x))(np.zeros((2, 4)))

    def test_a_wrong_number_of_features_names_the_layer(self):
        with pytest.raises(ValueError, match=r"first: takes \(batch, 4\), not \(batch, 5\)"):
            Net()(np.zeros((2, 5)))

    def test_forward_must_return_a_traced_array(self):
        with pytest.raises(TypeError, match="must return traced arrays, one or a tuple, not ndarray"):
            Net(lambda self, x: np.zeros(3))(np.zeros((2, 4)))

    @pytest.mark.parametrize("x", [np.zeros((2, 4), int), np.zeros((2, 4), bool), np.zeros((2, 4), complex), ["a"]])
    def test_inputs_must_be_floats(self, x):
        with pytest.raises(TypeError, match="expected an array of floats"):
            Net()(x)

    def test_masked_arrays_and_single_examples_are_refused(self):
        with pytest.raises(TypeError, match="masked"):
            Net()(np.ma.masked_array(np.zeros((2, 4))))
        with pytest.raises(ValueError, match="batch"):
            Net()(np.zeros(4))


class TestState:
    def test_state_dict_has_the_names_of_pytorch(self):
        assert list(mlp().state_dict()) == ["1.weight", "1.bias", "3.weight", "3.bias"]

    def test_state_loads_into_another_network(self):
        a, b, x = mlp(0), mlp(1), random_input()
        assert not np.array_equal(a(x), b(x))
        b.load_state_dict(a.state_dict())
        np.testing.assert_array_equal(a(x), b(x))

    def test_a_state_must_be_a_dict(self):
        with pytest.raises(TypeError, match="a dict of arrays, not list"):
            Net().load_state_dict([np.zeros(3)])

    def test_state_with_wrong_names_or_shapes_changes_nothing(self):
        model = mlp()
        before = model.state_dict()
        state = model.state_dict()
        state["1.weight"] = np.zeros((5, 6))
        state["3.bias"] = np.zeros(4)
        with pytest.raises(ValueError, match=r"3.bias: expected shape \(3,\), not \(4,\)"):
            model.load_state_dict(state)
        with pytest.raises(ValueError, match=r"missing \['1.weight'\], unexpected \['w'\]"):
            model.load_state_dict({**{k: v for k, v in before.items() if k != "1.weight"}, "w": np.zeros(1)})
        for name, value in model.state_dict().items():
            np.testing.assert_array_equal(value, before[name])

    @pytest.mark.parametrize("value", [np.zeros((2, 2)), np.array([["a"] * 6] * 5)])
    def test_a_weight_of_another_kind_is_refused(self, value):
        with pytest.raises((ValueError, TypeError), match="weight"):
            mlp()[1].weight = value

    @pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
    def test_copies_share_nothing(self, duplicate):
        model, x = mlp(), random_input()
        y = model(x)
        other = duplicate(model)
        np.testing.assert_array_equal(other(x), y)
        other[1].weight = np.zeros((5, 6))
        np.testing.assert_array_equal(model(x), y)

    def test_train_and_eval_reach_every_module(self):
        model = nn.Sequential(mlp(), nn.ReLU())
        assert all(not m.training for _, m in model.eval().named_modules())
        assert all(m.training for _, m in model.train().named_modules())


@pytest.mark.parametrize("fuse", [True, False])
def test_changing_the_output_in_place_does_not_change_the_gradient(fuse):
    model, x = nn.Sequential(nn.Linear(6, 5, rng=0), nn.ReLU()), random_input((4, 6))
    graph = nq.prepare_qat(model, x, "int8", fuse=fuse)
    graph(x)
    gradients = []
    for change in (False, True):
        y = graph.eval()(x)
        dy = y - 1
        if change:
            y -= 10
        graph.backward(dy)
        gradients.append(graph.parameters()[0].grad.copy())
    np.testing.assert_array_equal(*gradients)
