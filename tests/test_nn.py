"""Losses, optimizers, batches."""

import numpy as np
import pytest

from ndquant import nn

F32 = np.float32


class TestCrossEntropy:
    def test_equals_the_definition_in_float64(self):
        rng = np.random.default_rng(0)
        logits, labels = rng.standard_normal((6, 4)) * 5, rng.integers(0, 4, 6)
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        loss, gradient = nn.cross_entropy(logits, labels)
        assert loss == pytest.approx(-np.log(p[np.arange(6), labels]).mean(), rel=1e-12)
        np.testing.assert_allclose(gradient, (p - np.eye(4)[labels]) / 6, rtol=1e-10, atol=1e-14)

    def test_large_logits_do_not_overflow(self):
        loss, gradient = nn.cross_entropy(F32([[1e4, -1e4]]), np.array([1]))
        assert loss == pytest.approx(2e4)
        np.testing.assert_array_equal(gradient, [[1, -1]])

    @pytest.mark.parametrize(
        ("logits", "labels", "message"),
        [
            (np.zeros(3), [0], "logits"),
            (np.zeros((0, 3)), np.zeros(0, int), "logits"),
            (np.zeros((2, 3), int), [0, 1], "logits"),
            (np.zeros((2, 3)), [0], "labels"),
            (np.zeros((2, 3)), [0.0, 1.0], "labels"),
            (np.zeros((2, 3)), [0, 3], r"labels: expected 0\.\.2, not 0\.\.3"),
            (np.zeros((2, 3)), [-1, 0], "labels"),
        ],
    )
    def test_bad_input_names_the_argument(self, logits, labels, message):
        with pytest.raises(ValueError, match=message):
            nn.cross_entropy(logits, np.array(labels))


def parameter(values, grad):
    p = nn.Parameter(np.array(values, F32))
    p.grad = np.array(grad, F32)
    return p


class TestOptimizers:
    def test_sgd_with_momentum_follows_its_recurrence(self):
        p = parameter([1.0, -2.0], [0.5, 0.25])
        opt = nn.SGD([p], lr=0.5, momentum=0.5)
        opt.step()
        np.testing.assert_array_equal(p.data, F32([0.75, -2.125]))
        opt.step()  # velocity 0.5 * g + g
        np.testing.assert_array_equal(p.data, F32([0.375, -2.3125]))

    def test_plain_sgd(self):
        p = parameter([1.0], [2.0])
        nn.SGD([p], lr=0.25).step()
        assert p.data == F32(0.5)

    def test_adam_follows_the_paper(self):
        gradients = np.random.default_rng(0).standard_normal((5, 3))
        p, w = parameter([1, 2, 3], [0, 0, 0]), np.array([1.0, 2, 3])
        opt, m, v = nn.Adam([p], lr=0.01), np.zeros(3), np.zeros(3)
        for t, g in enumerate(gradients, 1):
            p.grad = g.astype(F32)
            opt.step()
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            w -= 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(p.data, w, rtol=1e-6)

    def test_a_parameter_without_gradient_stays(self):
        p = nn.Parameter(np.ones(2))
        nn.Adam([p]).step()
        np.testing.assert_array_equal(p.data, [1, 1])

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: nn.SGD([], lr=1), "parameters"),
            (lambda: nn.SGD([np.zeros(2)], lr=1), "parameters.*ndarray"),
            (lambda: nn.SGD([nn.Parameter(np.zeros(1))], lr=0), "lr"),
            (lambda: nn.Adam([nn.Parameter(np.zeros(1))], lr=float("nan")), "lr"),
            (lambda: nn.Adam([{"params": [nn.Parameter(np.zeros(1))], "lr": -1}]), "lr"),
            (lambda: nn.Adam([{"params": [nn.Parameter(np.zeros(1))], "rate": 1}]), "parameters: a group has.*rate"),
            (lambda: nn.SGD([nn.Parameter(np.zeros(1))], lr=1, momentum=1), "momentum"),
            (lambda: nn.Adam([nn.Parameter(np.zeros(1))], betas=(1, 0.9)), "betas"),
            (lambda: nn.Adam([nn.Parameter(np.zeros(1))], eps=0), "eps"),
        ],
    )
    def test_bad_arguments_are_named(self, make, message):
        with pytest.raises((TypeError, ValueError), match=message):
            make()


class TestBatches:
    def test_every_example_comes_once_with_its_label(self):
        x, y = np.arange(23), np.arange(23) * 10
        got = list(nn.batches(x, y, size=5, rng=0))
        assert [len(a) for a, _ in got] == [5, 5, 5, 5, 3]
        np.testing.assert_array_equal(np.concatenate([b for _, b in got]), np.concatenate([a for a, _ in got]) * 10)
        assert sorted(np.concatenate([a for a, _ in got])) == list(range(23))

    def test_a_seed_repeats_the_order(self):
        first, again, other = ([a.tolist() for a in nn.batches(np.arange(50), size=7, rng=seed)] for seed in (1, 1, 2))
        assert first == again != other

    @pytest.mark.parametrize(
        ("arrays", "size", "message"),
        [((np.zeros(3), np.zeros(4)), 2, "arrays"), ((np.float64(3),), 2, "arrays"), ((), 2, "arrays"),
         ((np.zeros(3),), 0, "size"), ((np.zeros(3),), 1.5, "size"), ((np.zeros(3),), True, "size")],
    )
    def test_bad_arguments_are_named_at_the_call(self, arrays, size, message):
        with pytest.raises(ValueError, match=message):
            nn.batches(*arrays, size=size)


class TestLinear:
    def test_initial_weights_are_uniform_within_one_over_root_of_features(self):
        layer = nn.Linear(400, 300, rng=0)
        for array in (layer.weight, layer.bias):
            assert np.abs(array).max() <= 0.05
            assert np.std(array) == pytest.approx(0.05 / np.sqrt(3), rel=0.1)

    @pytest.mark.parametrize("features", [0, -1, 2.5, True, "4"])
    def test_bad_sizes_are_named(self, features):
        with pytest.raises(ValueError, match="in_features"):
            nn.Linear(features, 2)
        with pytest.raises(ValueError, match="out_features"):
            nn.Linear(2, features)

    def test_without_bias(self):
        layer = nn.Linear(3, 2, bias=False, rng=0)
        assert list(layer.state_dict()) == ["weight"]
        x = np.ones((1, 3), F32)
        np.testing.assert_array_equal(layer(x), x @ layer.weight.T)
