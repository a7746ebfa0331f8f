"""Networks of every shape through post-training quantization, training and conversion."""

import numpy as np
import pytest

import ndquant as nq
from ndquant import nn
from ndquant.graph.plan import make_plan

from .test_residual import images


class Shared(nn.Module):
    """One convolution with one weight, used twice, behind different normalizations."""

    def __init__(self):
        self.conv, self.fc = nn.Conv2d(3, 3, 3, padding=1, bias=False, rng=0), nn.Linear(108, 4, rng=1)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.second.weight, self.second.running_var = [2.0, 0.5, -1.0], [0.5, 1.0, 2.0]

    def forward(self, x):
        y = nn.relu(self.first(self.conv(x)))
        return self.fc(nn.flatten(nn.relu(self.second(self.conv(y)))))


class TwoInputs(nn.Module):
    def __init__(self):
        self.image, self.number = nn.Conv2d(3, 4, 3, rng=0), nn.Linear(5, 4, rng=1)
        self.fc = nn.Linear(8, 4, rng=2)

    def forward(self, x, z):
        return self.fc(np.concatenate([nn.relu(self.image(x)).mean((2, 3)), nn.relu(self.number(z))], axis=1))


class TwoOutputs(nn.Module):
    def __init__(self):
        self.body, self.bn = nn.Conv2d(3, 4, 3, rng=0), nn.BatchNorm2d(4)
        self.a, self.b = nn.Linear(64, 4, rng=1), nn.Conv2d(4, 2, 1, rng=2)

    def forward(self, x):
        y = nn.relu(self.bn(self.body(x)))
        return self.a(nn.flatten(y)), self.b(y)


class Branches(nn.Module):
    """Branches of different depth that meet, one of them a slice."""

    def __init__(self):
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 3, padding=1, rng=i) for i in range(3))
        self.d, self.fc = nn.Conv2d(2, 3, 1, rng=3), nn.Linear(3, 4, rng=4)

    def forward(self, x):
        y = nn.relu(self.a(x))
        y = nn.relu6(self.c(nn.relu(self.b(y))) + y + self.d(x[:, :2]))
        return self.fc(nn.flatten(nn.adaptive_avg_pool2d(y, 1)))


class OneOpInFloat(nn.Module):
    def __init__(self):
        self.a, self.b = nn.Conv2d(3, 4, 3, rng=0), nn.Linear(64, 4, rng=1)

    def forward(self, x):
        return self.b(nn.flatten(nn.relu(self.a(x)) / 2.0))


class CodesReadAsFloats(OneOpInFloat):
    """The sum is quantized for the next layer; the division reads its codes too."""

    def forward(self, x):
        y = self.a(x)
        y = y + nn.sigmoid(y)
        return self.b(nn.flatten(y)) + self.b(nn.flatten(y / 2.0))


class DropoutBehindMean(nn.Module):
    """The end of many networks: dropout lies between an op without weights and the last layer."""

    def __init__(self):
        self.conv, self.drop, self.fc = nn.Conv2d(3, 8, 3, rng=0), nn.Dropout(0.4, rng=1), nn.Linear(8, 4, rng=2)

    def forward(self, x):
        return self.fc(self.drop(nn.relu(self.conv(x)).mean((2, 3))))


def numbers(rng=7):
    return np.random.default_rng(rng).standard_normal((16, 5)).astype(np.float32)


NETS = {
    "shared weights": (Shared, lambda rng: (images(size=6, rng=rng),)),
    "two inputs": (TwoInputs, lambda rng: (images(size=6, rng=rng), numbers(rng))),
    "two outputs": (TwoOutputs, lambda rng: (images(size=6, rng=rng),)),
    "branches": (Branches, lambda rng: (images(size=6, rng=rng),)),
    "an op without integer form": (OneOpInFloat, lambda rng: (images(size=6, rng=rng),)),
    "codes read as floats": (CodesReadAsFloats, lambda rng: (images(size=6, rng=rng),)),
    "dropout behind a mean": (DropoutBehindMean, lambda rng: (images(size=6, rng=rng),)),
}
FLOATS = {
    "an op without integer form": {"divide": "has no integer form"},
    "codes read as floats": {
        "divide": "has no integer form", "add_1": "its result leaves the network as floats"
    },
}


def parts(y):
    return y if isinstance(y, tuple) else (y,)


def gradient(outputs):
    """The gradient of a loss: of the cross-entropy for the first output, of the mean square for others."""
    first, *others = parts(outputs)
    _, d = nn.cross_entropy(first, np.arange(len(first)) % 4)
    found = (d, *(y / np.float32(y.size) for y in others))
    return found if isinstance(outputs, tuple) else d


@pytest.mark.parametrize("net", NETS)
def test_post_training_quantization(net):
    make, data = NETS[net]
    model, x = make().eval(), data(1)
    graph = nq.quantize_static(model, [x])
    for found, simulated, expected in zip(*(parts(f(*x)) for f in (graph, graph.simulation, model)), strict=True):
        np.testing.assert_array_equal(found, simulated)
        assert nq.sqnr(expected, found) > 25
    assert graph.verify(x)
    assert graph.report(x).stayed_float == FLOATS.get(net, {})
    assert nq.sensitivity(model, [x]).together > 20


@pytest.mark.parametrize("preset", ["int8", "int4_pact", "qnnpack"])
@pytest.mark.parametrize("net", NETS)
def test_training_and_conversion_after_every_epoch(net, preset):
    make, data = NETS[net]
    x = data(1)
    qat = nq.prepare_qat(make(), x, preset)
    opt = nn.SGD(qat.parameters(), lr=1e-2)
    for epoch in range(4):
        qat.backward(gradient(qat(*x)))
        opt.step()
        if epoch == 2:
            qat.freeze_batchnorm()
        converted = nq.convert(qat)
        for found, simulated in zip(parts(converted(*x)), parts(qat.copy().eval()(*x)), strict=True):
            np.testing.assert_array_equal(found, simulated)
        assert converted.verify(x)


@pytest.mark.parametrize("net", NETS)
def test_files(net, tmp_path):
    make, data = NETS[net]
    x = data(1)
    graph = nq.quantize_static(make().eval(), [x])
    graph.save(tmp_path / "m.npz")
    loaded = nq.load(tmp_path / "m.npz")
    for found, expected in zip(parts(loaded(*x)), parts(graph(*x)), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert loaded.verify(x)


class TestDropout:
    def test_one_quantizer_stands_in_front_and_the_last_layer_runs_on_codes(self):
        qat, x = nq.prepare_qat(DropoutBehindMean(), images(size=6)), images(size=6)
        assert [name for name, q in qat.quantizers() if not q.is_weight] == [
            "input.quantizer", "conv.quantizer", "mean.quantizer"
        ]
        values = qat.run(x).values
        before, after = values["mean.quantizer"], values["drop"]
        assert after.qparams.scale == before.qparams.scale * np.float32(1 / 0.6)
        kept = after.codes != before.qparams.zero_point
        assert 0.4 < kept.mean() < 0.8
        np.testing.assert_array_equal(after.codes[kept], before.codes[kept])

    def test_nothing_is_left_of_all(self):
        model, x = DropoutBehindMean(), images(size=6)
        model.drop = nn.Dropout(1.0)
        qat = nq.prepare_qat(model, x)
        np.testing.assert_array_equal(qat(x), np.broadcast_to(model.fc.bias, (16, 4)))

    def test_the_gradient_passes_where_the_value_did(self):
        qat, x = nq.prepare_qat(DropoutBehindMean(), images(size=6)), images(size=6)
        run = qat.run(x)
        node = qat["drop"]
        dy = np.ones((16, 8), np.float32)
        (dx,), _ = node.op.backward(node, dy, run.saved["drop"], [True])
        kept = run.values["drop"].codes != run.values["drop"].qparams.zero_point
        np.testing.assert_array_equal(dx[kept], np.float32(1 / 0.6))
        assert set(np.unique(dx)) == {0, np.float32(1 / 0.6)}


class TestSeveralOutputs:
    def test_gradients_of_all_outputs_add_up(self):
        model, x = TwoOutputs(), images(size=6)
        y = model(x)
        dy = tuple(np.ones_like(part) for part in y)
        model.backward(dy)
        together = [p.grad for p in model.parameters()]
        apart = []
        for number in range(2):
            model.backward(tuple(d if i == number else np.zeros_like(d) for i, d in enumerate(dy)))
            apart.append([p.grad for p in model.parameters()])
        for both, first, second in zip(together, *apart, strict=True):
            np.testing.assert_allclose(both, first + second, rtol=1e-4, atol=1e-4)

    def test_they_are_the_callers_to_change(self):
        model, x = TwoOutputs().eval(), images(size=6)
        first, _ = model(x)
        expected = first.copy()
        first[:] = 0
        np.testing.assert_array_equal(model(x)[0], expected)

    @pytest.mark.parametrize("dy", [np.zeros((16, 4)), (np.zeros((16, 4)),), (np.zeros((16, 4)), np.zeros((16, 4)))])
    def test_gradients_are_checked(self, dy):
        model = TwoOutputs()
        model(images(size=6))
        with pytest.raises(ValueError, match="dy: expected"):
            model.backward(dy)

    def test_quantized_outputs(self):
        graph = nq.quantize_static(TwoOutputs().eval(), [images(size=6)], "qnnpack")
        assert graph["a"].out_qparams is not None and graph["b"].out_qparams is not None
        assert graph.verify(images(size=6))

    @pytest.mark.parametrize("preset", ["int8", "qnnpack"])
    def test_they_come_out_of_one_call(self, preset):
        graph, x = nq.quantize_static(TwoOutputs().eval(), [images(size=6)], preset), images(size=6)
        plan = make_plan(graph, [x.shape])
        one_by_one = graph._run_nodes((x,)).values
        outputs = plan.run((x,)), plan.trace((x,))["outputs"], one_by_one["outputs"]
        for found, traced, expected in zip(*outputs, strict=True):
            np.testing.assert_array_equal(found, expected)
            np.testing.assert_array_equal(traced, expected)

    @pytest.mark.parametrize(
        "forward", [lambda net, x: (net.b(net.body(x)), x), lambda net, x: (lambda y: (y, y))(net.b(net.body(x)))]
    )
    def test_the_same_values_may_come_out_twice(self, forward):
        class Same(TwoOutputs):
            def forward(self, x):
                return forward(self, x)

        x = images(size=6)
        graph = nq.quantize_static(Same().eval(), [x])
        for found, expected in zip(graph(x), graph.simulation(x), strict=True):
            np.testing.assert_array_equal(found, expected)

    def test_one_output_may_be_read_on_the_way_to_another(self):
        class Chain(TwoOutputs):
            def forward(self, x):
                y = self.b(self.body(x))
                return y, y.mean((2, 3)) / 2.0, nn.relu(y)

        x = images(size=6)
        graph = nq.quantize_static(Chain().eval(), [x], "qnnpack")
        for found, expected in zip(graph(x), graph.simulation(x), strict=True):
            np.testing.assert_array_equal(found, expected)
        assert graph.verify(x)

    def test_what_is_no_traced_array_is_refused(self):
        class Wrong(TwoOutputs):
            def forward(self, x):
                return self.a(nn.flatten(self.body(x))), 3

        with pytest.raises(TypeError, match="must return traced arrays, one or a tuple, not int"):
            Wrong()(images(size=6))


class TestBadInput:
    def test_nan_in_a_layer_names_the_layer(self):
        model, x = Branches(), images(size=6)
        model.b.weight = np.where(np.arange(81).reshape(3, 3, 3, 3) == 40, np.nan, model.b.weight)
        with pytest.raises(nq.QuantizationError, match=r"b\.quantizer: .*NaN"):
            nq.calibrate(nq.prepare(model, x), [x])
        with pytest.raises(nq.QuantizationError, match=r"b\.weight: .*NaN"):
            nq.prepare_qat(model, x)(x)

    @pytest.mark.parametrize("array", ["weight", "bias"])
    @pytest.mark.parametrize("layer", [lambda: nn.Linear(3, 4), lambda: nn.Conv2d(3, 4, 1)])
    def test_nan_in_the_last_layer_names_the_layer_once(self, layer, array):
        model = nn.Sequential(nn.Identity(), layer())
        x = np.ones((2, 3, 5, 5)[: model[1].weight.ndim], np.float32)
        setattr(model[1], array, np.full_like(getattr(model[1], array), np.nan))
        with pytest.raises(nq.QuantizationError, match=r"^1[.:](?!.*1\.).*(NaN|finite)"):
            nq.quantize_static(model, [x])
        with pytest.raises(nq.QuantizationError, match=r"^1[.:](?!.*1\.).*(NaN|finite)"):
            nq.prepare_qat(model, x)(x)

    def test_converting_twice(self):
        graph = nq.quantize_static(Branches(), [images(size=6)])
        with pytest.raises(nq.QuantizationError, match="expected a graph of prepare or prepare_qat, not .*'integer'"):
            nq.convert(graph)

    def test_missing_calibration(self):
        with pytest.raises(nq.QuantizationError, match="input.quantizer has seen no data"):
            nq.convert(nq.prepare(Branches(), images(size=6)))

    def test_wrong_shapes(self):
        graph = nq.quantize_static(Branches(), [images(size=6)])
        for x in (images(size=7), images(size=6)[:, :2], images(size=6)[0]):
            with pytest.raises(ValueError, match="input: expected shape"):
                graph(x)

    @pytest.mark.parametrize(
        ("layer", "message"),
        [
            (lambda: nn.Conv2d(3, 4, 3, groups=2), "groups must divide"),
            (lambda: nn.Conv2d(3, 4, 9)(images(size=6)), "does not fit"),
            (lambda: nn.MaxPool2d(2, padding=2), "padding must be at most half"),
            (lambda: nn.AvgPool2d(9)(images(size=6)), "does not fit"),
        ],
    )
    def test_layers_that_do_not_fit(self, layer, message):
        with pytest.raises(ValueError, match=message):
            layer()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda state: state.pop("a.weight"), r"missing \['a.weight'\]"),
            (lambda state: state.update(z=np.zeros(1)), r"unexpected \['z'\]"),
            (lambda state: state.update({"a.weight": np.zeros((3, 3))}), r"a.weight: expected shape \(3, 3, 3, 3\)"),
        ],
    )
    def test_states_that_do_not_fit(self, change, message):
        qat = nq.prepare_qat(Branches(), images(size=6))
        state = qat.state_dict()
        change(state)
        with pytest.raises(ValueError, match=message):
            qat.load_state_dict(state)
