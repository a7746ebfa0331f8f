"""Quantization-aware training of layers with batch normalization: live statistics, then the folded form."""

import copy

import numpy as np
import pytest

import ndquant as nq
from ndquant import nn
from ndquant.graph import fuse

from .networks import PRESETS, cifar10, resnet20
from .test_residual import images, small_resnet

LABELS = np.arange(16) % 10


class ConvNorm(nn.Module):
    def __init__(self, relu=True, bias=True, affine=True):
        self.conv, self.bn, self.relu = nn.Conv2d(3, 4, 3, bias=bias, rng=0), nn.BatchNorm2d(4, affine=affine), relu
        rng = np.random.default_rng(1)
        self.bn.running_mean, self.bn.running_var = rng.normal(size=4), rng.uniform(0.5, 2, 4)
        if affine:
            self.bn.weight, self.bn.bias = [1.5, -0.7, 0.2, 1.0], rng.normal(size=4)

    def forward(self, x):
        y = self.bn(self.conv(x))
        return nn.relu(y) if self.relu else y


class LinearNorm(nn.Module):
    def __init__(self):
        self.fc, self.bn = nn.Linear(12, 5, rng=0), nn.BatchNorm1d(5)
        self.bn.running_var = np.linspace(0.5, 2, 5)

    def forward(self, x):
        return nn.relu6(self.bn(self.fc(x.reshape(-1, 12))))


MODELS = {
    "convolution": lambda: (ConvNorm(), images(size=6)),
    "without activation": lambda: (ConvNorm(relu=False), images(size=6)),
    "without bias": lambda: (ConvNorm(bias=False), images(size=6)),
    "without gamma and beta": lambda: (ConvNorm(affine=False), images(size=6)),
    "linear": lambda: (LinearNorm(), images(size=2)),
    "residual": lambda: (small_resnet().train(), images()),
}


def train(graph, x, labels=LABELS, steps=1, lr=1e-2):
    opt, losses = nn.SGD(graph.parameters(), lr=lr), []
    for _ in range(steps):
        loss, dlogits = nn.cross_entropy(graph(x), labels)
        losses.append(loss)
        graph.backward(dlogits)
        opt.step()
    return losses


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("case", MODELS)
def test_without_quantizers_the_fused_layer_trains_as_its_parts_do(case, frozen):
    model, x = MODELS[case]()
    plain = model.graph(x).copy()
    fused = fuse(model.graph(x)).copy()
    if frozen:
        plain.freeze_batchnorm()
        fused.freeze_batchnorm()
    y, expected = fused(x), plain(x)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    dy = np.random.default_rng(3).standard_normal(y.shape).astype(np.float32)
    fused.backward(dy)
    plain.backward(dy)
    found, wanted = dict(fused.named_parameters()), dict(plain.named_parameters())
    assert found.keys() == wanted.keys()
    for name, parameter in wanted.items():
        scale = np.abs(parameter.grad).max()
        np.testing.assert_allclose(found[name].grad, parameter.grad, rtol=1e-3, atol=1e-4 * scale + 1e-4, err_msg=name)
    for name, value in plain.state_dict().items():
        np.testing.assert_allclose(fused.state_dict()[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("case", MODELS)
def test_what_is_trained_is_what_runs(case, preset):
    model, x = MODELS[case]()
    qat = nq.prepare_qat(model, x, preset)
    for frozen in (False, True):
        for _ in range(3):
            qat(x)
            qat.backward(np.full((16, *qat[qat.output].shape), 1e-3, np.float32))
        converted = nq.convert(qat)
        assert {n.op.name for n in converted.nodes} & {"conv2d", "linear", "batch_norm"} == set()
        np.testing.assert_array_equal(converted(x), copy.deepcopy(qat).eval()(x))
        assert converted.verify(x)
        if not frozen:
            qat.freeze_batchnorm()


def test_statistics_are_live_until_they_are_frozen_and_then_the_folded_form_trains():
    qat, x = nq.prepare_qat(small_resnet().train(), images()), images()
    train(qat, x, steps=3)
    assert qat["conv1"].norm.num_batches_tracked == 3
    assert not np.array_equal(qat(x), nq.convert(qat)(x))
    assert qat.freeze_batchnorm() is qat
    before = {name: value for name, value in qat.state_dict().items() if "running" in name}
    train(qat, x, steps=3)
    assert all(np.array_equal(qat.state_dict()[name], value) for name, value in before.items())
    np.testing.assert_array_equal(qat(x), nq.convert(qat)(x))


def test_training_learns_and_looking_does_not_disturb_it():
    alone, looked_at = (nq.prepare_qat(small_resnet().train(), images()) for _ in range(2))
    losses = train(alone, images(), steps=12, lr=0.3)
    for _ in range(12):
        train(looked_at, images(), lr=0.3)
        nq.convert(looked_at)
    assert losses[-1] < 0.7 * losses[0]
    for a, b in zip(alone.parameters(), looked_at.parameters(), strict=True):
        np.testing.assert_array_equal(a.data, b.data)


def test_a_channel_whose_gamma_is_zero_gives_beta_and_can_come_back():
    model, x = ConvNorm(relu=False), images(size=6)
    model.bn.weight = [0.0, 1.0, 1.0, 1.0]
    qat = nq.prepare_qat(model, x)
    y = qat(x)
    np.testing.assert_allclose(y[:, 0], model.bn.bias[0], rtol=1e-6)
    qat.backward(np.random.default_rng(0).standard_normal(y.shape).astype(np.float32))
    gradients = dict(qat.named_parameters())
    assert np.isfinite(gradients["conv.weight"].grad).all()
    assert (gradients["conv.weight"].grad[0] == 0).all() and gradients["bn.weight"].grad[0] != 0


def test_one_value_per_channel_is_refused_by_name():
    qat = nq.prepare_qat(ConvNorm(), images(size=3))
    with pytest.raises(ValueError, match="bn: .* has 1 values per channel"):
        qat(images(1, 3))


@pytest.mark.parametrize("prepare", [nq.prepare, nq.prepare_qat])
def test_a_weight_assigned_after_prepare_takes_effect(prepare):
    x, model, other = images(), small_resnet(), small_resnet()
    other.linear.weight = 2 * other.linear.weight
    graph = prepare(model, x)
    before = graph.copy()(x)
    graph["linear"].weight = 2 * graph["linear"].weight
    found = graph(x)
    assert not np.array_equal(found, before)
    np.testing.assert_array_equal(found, prepare(other, x)(x))


def test_resnet20_learns_and_converts(data_folder):
    with np.load(data_folder / "cifar10.npz") as data:
        labels = data["y_train"][::10]
    x = np.ascontiguousarray(cifar10(data_folder)[0][::10])
    qat = nq.prepare_qat(resnet20(data_folder).train(), x, "int4")
    losses = train(qat, x, labels, steps=6, lr=0.02)
    assert losses[-1] < 0.8 * losses[0]
    converted = nq.convert(qat)
    np.testing.assert_array_equal(converted(x), qat.eval()(x))
    assert converted.verify(x[:4])
