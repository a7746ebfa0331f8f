"""Batch normalization: its kernels against their twins, and the layer in training and in evaluation."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ndquant as nq
from ndquant import _core, channels, nn, reference
from ndquant.ops.norm import batch_norm, batch_norm_backward

from . import cases
from .cases import assert_same_bits
from .examples import examples
from .gradients import assert_gradients

F32 = np.float32
SHAPES = [
    (1, 1, 1),
    (5, 3, 1),
    (7, 1, 9),
    (0, 3, 4),
    (4, 0, 3),
    (4, 3, 0),
    (2000, 17, 1),
    (700, 300, 1),
    (9, 5, 8191),
    (3, 2, 40000),
    (33, 64, 49),
]


class Operands:
    """Random arrays of (outer, channels, inner), with constants of each channel."""

    def __init__(self, rng, shape, dtype):
        self.u, self.v = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
        self.constants = [rng.standard_normal(shape[1]).astype(dtype) for _ in range(4)]

    def check(self):
        u, v, (centre, scale, slope, shift) = self.u, self.v, self.constants
        sums, exact = _core.channel_sums(u, v), reference.channel_sums(u, v)
        size = reference.channel_sums(np.abs(u), np.abs(v))
        assert (np.abs(sums - exact) <= 1e-12 * size).all()
        expected = reference.scale_channels(u, centre, scale, shift)
        assert_same_bits(_core.scale_channels(u, centre, scale, slope, shift), expected)
        expected = reference.mix_channels(u, v, centre, scale, slope, shift)
        assert_same_bits(_core.mix_channels(u, v, centre, scale, slope, shift), expected)


@pytest.mark.parametrize("dtype", [F32, np.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_twins_agree(backend, rng, shape, dtype):
    Operands(rng, shape, dtype).check()


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(st.integers(0, 40), st.integers(1, 300), st.integers(1, 40)), st.sampled_from([F32, np.float64]))
def test_twins_agree_on_random_shapes(backend, shape, dtype):
    Operands(np.random.default_rng(0), shape, dtype).check()


def test_sums_are_the_same_bits_on_every_backend_and_number_of_threads(rng, threads):
    for shape in ((5000, 17, 1), (70, 5, 700)):
        u, v = (rng.standard_normal(shape).astype(F32) for _ in range(2))
        seen = []
        for name in _core.available_backends():
            for count in (1, 2, 3):
                threads(count)
                with nq.backend(name):
                    seen.append(_core.channel_sums(u, v))
        for sums in seen[1:]:
            assert_same_bits(sums, seen[0])


@pytest.mark.parametrize("dtype", [np.float16, F32, np.float64])
def test_special_values_pass_as_in_numpy(dtype):
    x = cases.edge_values(dtype).reshape(1, 2, -1)
    constants = [np.array([1, 2]).astype(dtype)] * 3
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64 if dtype == np.float64 else F32)
        expected = reference.scale_channels(wide, *(c.astype(wide.dtype) for c in constants))
    np.testing.assert_array_equal(_core.scale_channels(x, constants[0], constants[1], None, constants[2]), expected)


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 5), (6, 4, 5, 3), (0, 4, 5, 3)])
def test_functions_find_the_channels_in_any_layout(rng, shape):
    x, dy = (rng.standard_normal(shape).astype(F32) for _ in range(2))
    constants = [rng.standard_normal(4).astype(F32) for _ in range(4)]
    spread = [c.reshape(4, *[1] * (len(shape) - 2)) for c in constants]
    axes = (0, *range(2, len(shape)))
    mixed = (dy * spread[1] + (x - spread[0]) * spread[2]) + spread[3]
    for move in (lambda a: a, lambda a: np.moveaxis(np.moveaxis(a, 1, -1).copy(), -1, 1), lambda a: a[::-1][::-1]):
        u, v = move(x), move(dy)
        for found, expected in zip(channels.channel_sums(u, v), (x, x * dy), strict=True):
            np.testing.assert_allclose(found, expected.astype(float).sum(axis=axes), rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(channels.mix_channels(v, u, *constants), mixed)
        scaled = channels.scale_channels(u, *constants[:3])
        np.testing.assert_array_equal(scaled, (x - spread[0]) * spread[1] + spread[2])
        if len(shape) == 4 and u.size and u.transpose(0, 2, 3, 1).flags.c_contiguous:
            assert scaled.transpose(0, 2, 3, 1).flags.c_contiguous


BAD = np.zeros((2, 3, 4), F32)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: _core.channel_sums(BAD[0], BAD[0]), ValueError, "u"),
        (lambda: _core.channel_sums(BAD, BAD[:1]), ValueError, "v"),
        (lambda: _core.channel_sums(BAD, BAD.astype(int)), TypeError, "v"),
        (lambda: _core.scale_channels(BAD, np.zeros(4), None, None, None), ValueError, "centre"),
        (lambda: _core.scale_channels(BAD, None, np.zeros(3, int), None, None), TypeError, "scale"),
        (lambda: _core.mix_channels(BAD, BAD, None, None, None, np.zeros((3, 1))), ValueError, "shift"),
        (lambda: _core.mix_channels(BAD, BAD, None, None, None), TypeError, "6"),
    ],
)
def test_bad_arrays_are_named(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def images(rng, shape=(4, 3, 5, 6)):
    return (rng.standard_normal(shape) * [[[[2.0]], [[0.5]], [[1.0]]]] + [[[[3.0]], [[-1.0]], [[0.0]]]]).astype(F32)


def trained(rng, **arguments):
    """A layer whose parameters and statistics are no longer those of the beginning."""
    layer = nn.BatchNorm2d(3, **arguments)
    layer.weight, layer.bias = rng.uniform(0.5, 2, 3), rng.standard_normal(3)
    layer(images(rng)), layer(images(rng))
    return layer


class TestLayer:
    def test_evaluation_uses_the_running_statistics(self, rng):
        layer, x = trained(rng).eval(), images(rng)
        before = layer.state_dict()
        mean, var, weight, bias = (
            before[name][:, None, None].astype(float) for name in ("running_mean", "running_var", "weight", "bias")
        )
        np.testing.assert_allclose(layer(x), (x - mean) / np.sqrt(var + 1e-5) * weight + bias, rtol=1e-5, atol=1e-6)
        for name, value in layer.state_dict().items():
            np.testing.assert_array_equal(value, before[name])

    def test_gradients_in_evaluation_are_those_of_finite_differences(self, rng):
        layer, x = trained(rng).eval(), images(rng)
        assert_gradients(layer.graph(x), x)

    def test_a_far_mean_does_not_spoil_the_variance(self, rng):
        x = (rng.standard_normal((64, 3, 8, 8)) + 3000).astype(F32)
        y = nn.BatchNorm2d(3)(x).astype(float)
        np.testing.assert_allclose(y.mean(axis=(0, 2, 3)), 0, atol=1e-3)
        np.testing.assert_allclose(y.std(axis=(0, 2, 3)), 1, rtol=1e-3)

    def test_constant_channels_give_the_bias(self):
        layer = nn.BatchNorm2d(3)
        layer.bias = [1, 2, 3]
        y = layer(np.full((2, 3, 4, 4), 7.0))
        np.testing.assert_array_equal(y, np.broadcast_to(F32([[[1]], [[2]], [[3]]]), (2, 3, 4, 4)))

    def test_a_part_in_evaluation_mode_keeps_its_statistics(self, rng):
        model, x = nn.Sequential(nn.Conv2d(3, 3, 1, rng=0), nn.BatchNorm2d(3)), images(rng)
        model(x)
        model[1].eval()
        before = model[1].state_dict()
        y = model(x)
        np.testing.assert_array_equal(model[1].running_mean, before["running_mean"])
        np.testing.assert_array_equal(model.eval()(x), y)
        model.train()(x)
        assert model[1].num_batches_tracked == 2

    def test_a_graph_in_evaluation_mode_uses_the_running_statistics(self, rng):
        layer, x = trained(rng), images(rng)
        graph = layer.graph(x)
        np.testing.assert_array_equal(graph.copy().eval()(x), layer.eval()(x))

    @pytest.mark.parametrize("shape", [(1, 3, 1, 1), (0, 3, 4, 4)])
    def test_one_value_per_channel_in_training_names_the_layer(self, shape):
        model = nn.Sequential(nn.Identity(), nn.BatchNorm2d(3))
        with pytest.raises(ValueError, match=r"^1: .*values per channel; training needs 2"):
            model(np.zeros(shape))
        assert model.eval()(np.zeros(shape)).shape == shape

    def test_buffers_are_state_and_no_parameters(self, rng):
        layer = trained(rng)
        assert len(layer.parameters()) == 2
        other = nn.BatchNorm2d(3)
        other.load_state_dict(layer.state_dict())
        assert other.num_batches_tracked == 2 and other.num_batches_tracked.dtype == np.int64
        x = images(rng)
        np.testing.assert_array_equal(other.eval()(x), layer.eval()(x))
        with pytest.raises(ValueError, match="missing .*running_var"):
            other.load_state_dict({k: v for k, v in layer.state_dict().items() if k != "running_var"})

    def test_assigning_statistics_takes_effect_at_once(self, rng):
        layer, x = nn.BatchNorm2d(3).eval(), images(rng)
        layer(x)
        layer.running_mean = [1, 1, 1]
        np.testing.assert_allclose(layer(x), (x - 1) / np.sqrt(1 + 1e-5), rtol=1e-5, atol=1e-6)
        with pytest.raises(ValueError, match="running_mean"):
            layer.running_mean = [1, 1]

    @pytest.mark.parametrize("training", [True, False])
    def test_files_and_copies_keep_buffers(self, rng, training, tmp_path):
        model, x = nn.Sequential(nn.Conv2d(3, 3, 1, rng=0), trained(rng), nn.ReLU()), images(rng)
        model.train(training)(x)
        model.save(tmp_path / "m.npz")
        loaded = nq.load(tmp_path / "m.npz")
        assert loaded.state_dict().keys() == model.state_dict().keys()
        y = model.eval()(x)
        for graph in (loaded, loaded.copy()):
            np.testing.assert_array_equal(graph.eval()(x), y)
            assert graph["1"].num_batches_tracked == (3 if training else 2)

    @pytest.mark.parametrize("name", ["running_mean", "weight", "num_batches_tracked"])
    def test_a_file_with_missing_arrays_is_refused(self, name, tmp_path):
        nn.Sequential(nn.BatchNorm2d(3)).save(tmp_path / "m.npz", example=np.zeros((2, 3, 4, 4)))
        with np.load(tmp_path / "m.npz") as archive:
            arrays = {key: value for key, value in archive.items() if key != f"0/{name}"}
        np.savez(tmp_path / "m.npz", **arrays)
        with pytest.raises(nq.QuantizationError, match="must both be there|must all be there"):
            nq.load(tmp_path / "m.npz")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [((0,), "num_features"), ((3, -1), "eps"), ((3, 1e-5, 2), "momentum"), ((3, "a"), "eps must be a number")],
    )
    def test_bad_arguments_are_named(self, arguments, message):
        with pytest.raises((ValueError, TypeError), match=message):
            nn.BatchNorm2d(*arguments)

    @pytest.mark.parametrize(
        ("layer", "shape"),
        [(nn.BatchNorm2d(3), (2, 3)), (nn.BatchNorm2d(3), (2, 4, 5, 5)), (nn.BatchNorm1d(3), (2, 3, 4, 5))],
    )
    def test_an_input_of_other_channels_names_the_line(self, layer, shape):
        class Net(nn.Module):
            def __init__(self):
                self.norm = layer

            def forward(self, x):
                return self.norm(x)

        with pytest.raises(ValueError, match=r"test_norm\.py:\d+: norm: takes .* axes with 3 channels"):
            Net()(np.zeros(shape))

    def test_a_shared_layer_adds_its_gradients_and_counts_twice(self, rng):
        class Net(nn.Module):
            def __init__(self):
                self.norm = nn.BatchNorm2d(3)

            def forward(self, x):
                return self.norm(x * 2) + self.norm(x * x)

        model, x = Net(), images(rng)
        dy = rng.standard_normal(x.shape).astype(F32)
        model(x)
        assert model.norm.num_batches_tracked == 2
        model.backward(dy)
        weight = np.ones(3, F32)
        parts = [batch_norm_backward(dy, batch_norm(a, weight, weight)[1])[1] for a in (x * 2, x * x)]
        np.testing.assert_allclose(model.parameters()[0].grad, parts[0] + parts[1], rtol=1e-4, atol=1e-4)


def test_quantizing_around_it_and_conversion_while_training(rng):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, rng=0), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 4, rng=1)
    )
    x, labels = images(rng, (32, 3, 5, 6)), np.arange(32) % 4
    qat = nq.prepare_qat(model, x, "int8")
    opt, losses = nn.Adam(qat.parameters(), lr=1e-2), []
    for _ in range(20):
        loss, dlogits = nn.cross_entropy(qat(x), labels)
        losses.append(loss)
        qat.backward(dlogits)
        opt.step()
    assert losses[-1] < losses[0] / 2
    int8 = nq.convert(qat)
    assert qat["0"].norm.num_batches_tracked == 20
    np.testing.assert_array_equal(int8(x), qat.eval()(x))
    assert int8.verify(x)
    rows = {row.layer: row.kernel for row in int8.report(x).rows}
    assert rows == {"0": "integers", "5": "integers"}
