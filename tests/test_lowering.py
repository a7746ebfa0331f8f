"""Every op on integers: what is trained, what runs and the NumPy twins agree, in each profile and on each backend."""

import numpy as np
import pytest

import ndquant as nq
from ndquant import nn
from ndquant.graph.plan import make_plan
from ndquant.ops import real


class Net(nn.Module):
    """Two convolutions around what is tested."""

    def __init__(self, body, head=None):
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1, rng=0), nn.Conv2d(3, 4, 3, padding=1, rng=1)
        self.act, self.body = nn.LeakyReLU(0.1), body
        self.head = head or nn.Sequential(nn.Flatten(), nn.Linear(4 * 36, 5, rng=2))

    def forward(self, x):
        return self.head(self.body(self, x))


def images(count=8, size=6, rng=0):
    return 5 * np.random.default_rng(rng).standard_normal((count, 3, size, size)).astype(np.float32)


def linear(features):
    return nn.Sequential(nn.Flatten(), nn.Linear(features, 5, rng=2))


#: name: (body, layers behind it, names of the integer ops that it must become)
BODIES = {
    "relu": (lambda n, x: nn.relu(n.a(x)), None, ["conv2d_integer"]),
    "relu6": (lambda n, x: nn.relu6(n.a(x)), None, ["conv2d_integer"]),
    "add": (lambda n, x: n.a(x) + n.b(x), None, ["conv2d_integer", "conv2d_integer", "add_integer"]),
    "add relu6": (lambda n, x: nn.relu6(n.a(x) + n.b(x)), None, ["add_integer"]),
    "one operand twice": (lambda n, x: (lambda y: y + y)(n.a(x)), None, ["add_integer"]),
    "multiply": (lambda n, x: nn.relu(n.a(x) * nn.sigmoid(n.b(x))), None, ["lookup", "multiply_integer"]),
    "multiply, broadcast": (
        lambda n, x: n.a(x) * nn.sigmoid(n.b(x).mean((2, 3), keepdims=True)), None,
        ["mean_integer", "lookup", "multiply_integer"],
    ),
    "add, both broadcast": (lambda n, x: nn.relu(n.a(x)[:, :1] + n.b(x)[..., 2:3]), None, ["add_integer"]),
    "concatenate": (
        lambda n, x: np.concatenate([n.a(x), x, nn.relu(n.b(x))], axis=1), linear(11 * 36), ["concatenate_integer"]
    ),
    "max pool": (lambda n, x: nn.max_pool2d(n.a(x), 3, 2, 1), linear(36), ["max_pool2d"]),
    "average pool": (lambda n, x: nn.avg_pool2d(n.a(x), 3, 2, 1), linear(36), ["avg_pool2d_integer"]),
    "average pool without padding": (
        lambda n, x: nn.avg_pool2d(n.a(x), 3, 2, 1, ceil_mode=True, count_include_pad=False), linear(64),
        ["avg_pool2d_integer"],
    ),
    "adaptive pool": (
        lambda n, x: nn.adaptive_avg_pool2d(n.a(x), (4, None)), linear(96), ["adaptive_avg_pool2d_integer"]
    ),
    "mean": (lambda n, x: n.a(x).mean((2, 3)), linear(4), ["mean_integer"]),
    "mean with its axes": (lambda n, x: np.mean(n.a(x), (2, 3), keepdims=True), linear(4), ["mean_integer"]),
    "tanh": (lambda n, x: nn.tanh(n.a(x)), None, ["lookup"]),
    "hardswish": (lambda n, x: nn.hardswish(n.a(x)), None, ["lookup"]),
    "leaky relu": (lambda n, x: n.act(n.a(x)), None, ["lookup"]),
    "slice": (lambda n, x: n.a(x)[:, 1:3, ::2, -1], linear(6), ["slice"]),
    "pad": (lambda n, x: np.pad(n.a(x), ((0, 0), (0, 0), (1, 2), (0, 3))), linear(4 * 81), ["pad"]),
    "transpose": (lambda n, x: n.a(x).transpose(0, 2, 3, 1), None, ["transpose"]),
    "pool before": (lambda n, x: n.a(nn.max_pool2d(x, 2)), linear(36), ["max_pool2d", "conv2d_integer"]),
    "grouped and dilated": (
        lambda n, x: n.a(x),
        nn.Sequential(nn.Conv2d(4, 8, 3, 2, 2, 2, groups=2, rng=3), nn.Flatten(), nn.Linear(72, 5, rng=4)),
        ["conv2d_integer", "conv2d_integer"],
    ),
    "depthwise": (
        lambda n, x: n.a(x),
        nn.Sequential(nn.Conv2d(4, 4, 3, groups=4, rng=3), nn.Flatten(), nn.Linear(64, 5, rng=4)),
        ["conv2d_integer", "conv2d_integer"],
    ),
}


def net(body):
    function, head, _ = BODIES[body]
    return Net(function, head)


def ops(graph):
    return [node.op.name for node in graph.nodes]


@pytest.mark.parametrize("body", BODIES)
def test_an_op_becomes_its_integer_form(body, backend):
    model, x = net(body), images()
    graph = nq.quantize_static(model, [x])
    found = iter(ops(graph))
    assert all(op in found for op in BODIES[body][2]), ops(graph)
    assert not {"conv2d", "linear", "add", "multiply", "concatenate", "mean", "sigmoid", "tanh"} & set(ops(graph))
    assert nq.sqnr(model(x), graph(x)) > 25
    assert graph.verify(images(rng=1))


@pytest.mark.parametrize("body", BODIES)
def test_a_network_runs_as_one_call_and_gives_what_its_nodes_give_one_by_one(body, backend):
    graph, x = nq.quantize_static(net(body), [images()]), images(3)
    plan = make_plan(graph, [x.shape])
    np.testing.assert_array_equal(plan.run((x,)), graph._run_nodes((x,)).values[graph.output])
    one_by_one, traced = graph._run_nodes((x,)).values, plan.trace((x,))
    assert one_by_one.keys() == traced.keys()
    for name, value in traced.items():
        np.testing.assert_array_equal(real(value), real(one_by_one[name]), err_msg=name)


@pytest.mark.parametrize("preset", ["int8", "int4_pact", "fbgemm"])
@pytest.mark.parametrize("body", BODIES)
def test_what_is_trained_is_what_runs(body, preset):
    model, x = net(body), images()
    qat = nq.prepare_qat(model, x, preset)
    opt = nn.SGD(qat.parameters(), lr=1e-2)
    for _ in range(2):
        loss, dlogits = nn.cross_entropy(qat(x), np.arange(8) % 5)
        qat.backward(dlogits)
        opt.step()
    graph, x = nq.convert(qat), images(rng=1)
    np.testing.assert_array_equal(qat.eval()(x), graph(x))
    assert graph.verify(x)


@pytest.mark.parametrize(
    ("profile", "fused"), [("default", False), ("torch", True), ("torch", False), ("onnx", True), ("textbook", True)]
)
@pytest.mark.parametrize("body", BODIES)
def test_every_profile(body, profile, fused):
    affine = nq.Quantize(nq.QuantSpec(8, signed=False, symmetric=False))
    config = nq.QConfig(nq.Quantize(nq.QuantSpec(8)), affine, output=affine, profile=profile)
    x = images()
    graph = nq.convert(nq.calibrate(nq.prepare(net(body), x, config, fuse=fused), [x]))
    np.testing.assert_array_equal(graph.simulation(x), graph(x))
    assert graph.verify(x)


def test_a_range_without_0_has_no_integer_products():
    """Profile `textbook` does not move the range to hold 0, so that its zero point may be no code."""
    affine, x = nq.Quantize(nq.QuantSpec(8, signed=False, symmetric=False)), images()
    config = nq.QConfig(nq.Quantize(nq.QuantSpec(8)), affine, profile="textbook")
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, rng=0), nn.AdaptiveAvgPool2d(1), nn.Sigmoid(), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)
    )
    qat = nq.prepare_qat(model, x, config)
    qat(x)
    for graph in (nq.quantize_static(model, [x], config), nq.convert(qat)):
        assert graph["2.quantizer"].out_qparams.zero_point < 0
        assert graph.report().stayed_float["5"] == "0 is no code of what it reads"
        np.testing.assert_array_equal(graph.simulation(x), graph(x))
        assert graph.verify(x) and nq.sqnr(model(x), graph(x)) > 30


@pytest.mark.parametrize("body", BODIES)
def test_files(body, tmp_path):
    graph, x = nq.quantize_static(net(body), [images()]), images()
    graph.save(tmp_path / "m.npz")
    loaded = nq.load(tmp_path / "m.npz")
    np.testing.assert_array_equal(loaded(x), graph(x))
    assert loaded.verify(x)


def test_a_table_that_is_changed_is_found():
    graph, x = nq.quantize_static(net("tanh"), [images()]), images()
    node = next(node for node in graph.nodes if node.op.name == "lookup")
    node.table = node.table[::-1]
    assert graph.verify(x).first == node.name


class TestStaysFloat:
    def test_a_function_as_key_keeps_a_residual_stream_in_float(self):
        config = nq.workflows.qconfig.find_config("int8", training=False)
        config = nq.QConfig(config.weight, config.activation, overrides={np.add: None})
        prepared = nq.prepare(net("add"), images(), config)
        assert prepared["add"].inputs == ("a", "b")
        assert "add.quantizer" in prepared

    def test_parameters_in_forward(self):
        model = Net(lambda n, x: n.a(x) + n.b.bias.reshape(4, 1, 1))
        graph, x = nq.quantize_static(model, [images()]), images()
        assert "add" in ops(graph) and graph.verify(x)

    def test_an_op_whose_result_leaves_the_network_as_floats(self):
        model = Net(lambda n, x: n.a(x) + n.b(x), nn.Identity())
        graph = nq.quantize_static(model, [images()])
        assert ops(graph) == ["quantize", "conv2d_integer", "conv2d_integer", "add"]

    def test_an_op_without_integer_form_is_the_only_float_one(self):
        model = Net(lambda n, x: nn.max_pool2d(nn.relu(n.a(x) + n.b(x)), 2) / 3.0, linear(36))
        graph, x = nq.quantize_static(model, [images()]), images()
        assert graph.report(x).stayed_float == {"divide": "has no integer form"}
        assert graph.verify(x) and nq.sqnr(model(x), graph(x)) > 25
        np.testing.assert_array_equal(graph(x), graph.simulation(x))
