"""Networks whose fully connected layers have weights of 4 bits with a scale per group of inputs."""

import pickle
import warnings

import numpy as np
import pytest

import ndquant as nq
from ndquant import nn

from .cases import assert_same_bits
from .test_dynamic import normal

METHODS = ("minmax", "mse", "hqq", "gptq")
GROUP_SIZES = (None, 16, 32)


def net():
    rng = np.random.default_rng(3)
    return nn.Sequential(
        nn.Linear(64, 96, rng=rng), nn.ReLU(), nn.Linear(96, 32, rng=rng), nn.GELU(), nn.Linear(32, 10, rng=rng)
    )


@pytest.fixture(scope="module")
def x():
    """Rows whose elements depend on each other: as of what layers read."""
    return normal((300, 64)) @ normal((64, 64), 1) / 8


def four_bits(model, x, method="minmax", group_size=32, **more):
    batches = [x[:150], x[150:]] if method == "gptq" else None
    return nq.quantize_dynamic(model, dtype="int4", group_size=group_size, method=method, batches=batches, **more)


def error(model, x):
    return nq.sqnr(net()(x), model(x))


@pytest.mark.parametrize("group_size", GROUP_SIZES)
@pytest.mark.parametrize("method", METHODS)
class TestMethods:
    def test_verify_finds_no_difference(self, backend, x, method, group_size):
        dyn = four_bits(net(), x, method, group_size)
        found = dyn.verify(x[:9])
        assert found and found.values == 9 * (96 + 32 + 10)
        rows = [row for row in dyn.report(x[:9]).rows if row.weight_bits]
        assert len(rows) == 3 and all((row.weight_bits, row.in_bits, row.kernel) == (4, 8, "integers") for row in rows)

    def test_one_call_gives_what_the_nodes_give(self, backend, x, method, group_size):
        graph = four_bits(net(), x, method, group_size).graph(x)
        assert graph._plan_for((x,)) is not None
        nodes = graph._run_nodes((x,)).values
        assert_same_bits(graph(x), nodes[graph.output])
        assert_same_bits(graph(x[7:8]), nodes[graph.output][7:8])

    def test_files(self, x, method, group_size, tmp_path):
        dyn = four_bits(net(), x, method, group_size)
        expected = dyn(x)
        dyn.graph(x).save(tmp_path / "m.npz")
        with np.load(tmp_path / "m.npz") as arrays:
            assert arrays["0/weight"].nbytes == 64 * 96 // 2
        loaded = nq.load(tmp_path / "m.npz")
        assert_same_bits(loaded(x), expected)
        assert loaded.simulation is None and loaded.verify(x[:5])
        assert_same_bits(pickle.loads(pickle.dumps(dyn))(x), expected)


def test_methods_and_groups_lower_the_error(x):
    found = {(m, g): error(four_bits(net(), x, m, g), x) for m in METHODS for g in (None, 16)}
    assert found["mse", None] > found["minmax", None] and found["hqq", 16] > found["minmax", 16]
    assert found["gptq", None] > found["minmax", None] + 2 and found["gptq", 16] > found["minmax", 16] + 2
    assert error(nq.quantize_dynamic(net()), x) > max(found.values())


def test_weights_lie_on_the_grid_of_their_group(x):
    model = net()
    graph = four_bits(model, x).graph(x)
    found = graph.integers("0")
    assert found["weight"].dtype == np.int8 and found["weight_scale"].shape == (96, 2)
    groups = np.asarray(model[0].weight).reshape(96, 2, 32)
    np.testing.assert_array_equal(found["weight_scale"], np.abs(groups).max(axis=2) / np.float32(7))
    with pytest.raises(nq.QuantizationError, match="adds up groups of inputs, each of which has a scale of its own"):
        graph.explain("0", (0, 0), x)


@pytest.mark.parametrize("what", ["codes", "scales"])
def test_verify_can_fail(x, what):
    graph = four_bits(net(), x).graph(x)
    weight = graph["2"].module.weight
    codes, scale = weight.codes, weight.qparams.scale.copy()
    if what == "codes":
        codes[0, 0] += 1 if codes[0, 0] < 7 else -1
    else:
        scale[0, 0] *= 2
    graph["2"].module.weight = nq.GroupedWeight(codes, nq.QParams(scale, 0, weight.qparams.spec), weight.bias)
    found = graph.verify(x)
    assert not found and found.first == "2"
    assert str(found.differences[0]).startswith(f"2: 1 of the weight {what} (stored against rebuilt) differ")


def test_attention_and_other_layers(x):
    class Mixed(nn.Module):
        def __init__(self):
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True, rng=0)
            self.gru = nn.GRU(16, 16, batch_first=True, rng=1)

        def forward(self, x):
            return self.gru(self.attention(x, x, x, need_weights=False)[0])[0]

    dyn, words = nq.quantize_dynamic(Mixed(), dtype="int4", group_size=8), normal((2, 5, 16))
    graph = dyn.graph(words)
    kinds = {node.op.name for node in graph.nodes}
    assert "linear_dynamic" in kinds and "gru" in kinds and "gru_dynamic" not in kinds
    assert dyn.verify(words)


def test_layers_are_chosen_by_name(x):
    dyn = four_bits(net(), x, layers="2")
    assert [n.name for n in dyn.graph(x).nodes if n.op.stores is not None] == ["2"]


def test_a_graph_serves_as_well(x):
    model = net()
    for method in ("minmax", "gptq"):
        assert_same_bits(four_bits(model.graph(x), x, method)(x), four_bits(model, x, method)(x))


def test_few_rows_for_a_hessian_warn(x):
    with pytest.warns(nq.QuantizationWarning, match="0: 10 rows are few for the Hessian of 64 inputs"):
        nq.quantize_dynamic(net(), "0", "int4", method="gptq", batches=[x[:10]])(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        four_bits(net(), x, "gptq")(x)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"group_size": 48}, nq.QuantizationError, "0: group_size 48 does not divide its 64 inputs"),
        ({"group_size": 0}, ValueError, "group_size: must be at least 1, got 0"),
        ({"method": "entropy"}, ValueError, "method must be one of minmax, mse, hqq, gptq, not 'entropy'"),
        ({"method": "gptq"}, ValueError, "batches: method 'gptq' needs them"),
        ({"batches": [1]}, ValueError, "batches: .* no other takes them, got method 'minmax'"),
        ({"method": "gptq", "batches": []}, ValueError, "needs data that reach a fully connected layer"),
        ({"layers": nn.LSTM}, ValueError, "layers: .*LSTM.* is neither a name nor one of Linear, MultiheadAttention"),
        ({"dtype": "int8", "group_size": 32}, ValueError, "group_size, method and batches are for dtype 'int4'"),
        ({"dtype": "int5"}, ValueError, "dtype must be one of 'int8', 'int4', 'float16', 'bfloat16', not 'int5'"),
    ],
)
def test_bad_arguments(x, arguments, error, message):
    with pytest.raises(error, match=message):
        nq.quantize_dynamic(net(), **{"dtype": "int4", **arguments})(x)


def test_nan_names_the_layer_and_the_row(x):
    dyn, bad = four_bits(net(), x), x[:3].copy()
    bad[1, 5] = np.nan
    with pytest.raises(nq.QuantizationError, match="0: x: row 1 holds NaN or infinity"):
        dyn.graph(bad)._run_nodes((bad,))
