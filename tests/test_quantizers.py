"""Quantizers of few bits: what they compute, what they learn, and that networks trained with them convert exactly."""

import numpy as np
import pytest

import ndquant as nq
from ndquant import nn
from ndquant.quantizers import make_quantizer

from .networks import inputs, mlp
from .test_residual import images, small_resnet

S2, S4 = nq.QuantSpec(2), nq.QuantSpec(4)
TERNARY = nq.QuantSpec(2, narrow_range=True)
U2, U4 = (nq.QuantSpec(bits, signed=False, symmetric=False) for bits in (2, 4))
U8 = nq.QuantSpec(8, signed=False, symmetric=False)
F32 = np.float32


def quantizer(spec, is_weight=True, **fields):
    return make_quantizer(nq.Quantize(spec, **fields), "default", "train", "q", is_weight)


def weights(shape=(5, 40), seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(F32)


def rounded(q, w):
    return nq.fake_quantize(q.transformed(w), q.qparams_for(w))


class TestLsq:
    """Gradients by the formula of the paper, written out."""

    @pytest.mark.parametrize(("spec", "is_weight"), [(S2, True), (S4, True), (U2, False), (U4, False)])
    def test_the_gradient_of_the_scale(self, spec, is_weight):
        q, x, dy = quantizer(spec, is_weight, learn="lsq"), weights(), weights(seed=1)
        if not spec.signed:
            x = np.abs(x)
        q.begin(x)
        s = float(q.scale.data)
        v = x.astype(np.float64) / s
        per_value = np.where(v <= spec.qmin, spec.qmin, np.where(v >= spec.qmax, spec.qmax, np.rint(v) - v))
        count = x.size if is_weight else x[0].size
        dx, d = q.gradient(dy, x, q.qparams)
        np.testing.assert_allclose(d["scale"], (dy * per_value).sum() / np.sqrt(count * spec.qmax), rtol=1e-4)
        inside = (np.rint(v) >= spec.qmin) & (np.rint(v) <= spec.qmax)
        np.testing.assert_array_equal(dx, np.where(inside, dy, 0))

    def test_each_channel_has_a_scale_of_its_own(self):
        q, w, dy = quantizer(nq.QuantSpec(4, axis=0), learn="lsq"), weights(), weights(seed=1)
        q.begin(w)
        _, d = q.gradient(dy, w, q.qparams)
        for channel in range(len(w)):
            one = quantizer(S4, learn="lsq")
            one.begin(w[channel : channel + 1])
            _, expected = one.gradient(dy[channel : channel + 1], w[channel : channel + 1], one.qparams)
            assert one.scale.data == q.scale.data[channel]
            np.testing.assert_allclose(d["scale"][channel], expected["scale"], rtol=1e-5)

    def test_it_begins_at_the_range_of_the_method(self):
        q, x = quantizer(U4, is_weight=False, method="mse", learn="lsq"), np.abs(weights())
        q.begin(x)
        assert q.qparams == nq.choose_qparams(x, U4, method="mse")
        given = quantizer(S4, learn="lsq", range=(-7, 7))
        assert given.qparams.scale == 1

    def test_a_scale_that_training_made_negative_is_mirrored(self):
        q, x, dy = quantizer(S4, learn="lsq", range=(-7, 7)), weights(), weights(seed=1)
        expected = q.gradient(dy, x, q.qparams)[1]["scale"]
        q.scale.data = -q.scale.data
        assert q.qparams.scale == 1 and q.gradient(dy, x, q.qparams)[1]["scale"] == -expected

    def test_the_scale_finds_the_least_squares_of_the_values(self):
        q, w = quantizer(S2, learn="lsq", range=(-3, 3)), weights((50, 100))
        before = nq.mse(rounded(q, w), w)
        for _ in range(400):
            q.scale.data -= F32(0.02) * q.gradient(rounded(q, w) - w, w, q.qparams)[1]["scale"]
        after = nq.mse(rounded(q, w), w)
        best = min(nq.mse(nq.fake_quantize(w, nq.QParams(s, 0, S2)), w) for s in np.linspace(0.1, 3, 300))
        assert before > 1.5 * best and after < 1.02 * best

    def test_channels_last_images_give_the_same_gradient(self):
        x, dy = np.abs(weights((2, 3, 4, 5))), weights((2, 3, 4, 5), seed=1)
        q = quantizer(U4, is_weight=False, learn="lsq")
        q.begin(x)
        dx, d = q.gradient(dy, x, q.qparams)
        last = [np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for a in (dy, x)]
        dx_last, d_last = q.gradient(*last, q.qparams)
        np.testing.assert_array_equal(dx, dx_last)
        np.testing.assert_allclose(d["scale"], d_last["scale"], rtol=1e-5)


class TestLsqPlus:
    def test_the_gradient_of_the_zero_point(self):
        q, x, dy = quantizer(U4, is_weight=False, learn="lsq+", range=(-1, 2)), weights(), weights(seed=1)
        low, high = q.qparams.range
        s = float(q.scale.data)
        outside = (x < low - s / 2) | (x > high + s / 2)
        _, d = q.gradient(dy, x, q.qparams)
        np.testing.assert_allclose(
            d["zero_point"], -s * dy[outside].sum(dtype=np.float64) / np.sqrt(x[0].size * 15), rtol=1e-4
        )

    def test_the_zero_point_is_a_code(self):
        q = quantizer(U4, is_weight=False, learn="lsq+", range=(-1, 2))
        assert q.qparams.zero_point == 5
        for value, code in ((4.4, 4), (-3.0, 0), (99.0, 15)):
            q.zero_point.data = np.array(value, F32)
            assert q.qparams.zero_point == code

    def test_the_float_offset_of_the_paper(self):
        spec = nq.QuantSpec(4, signed=False, symmetric=False, zero_aligned=False)
        q, x, dy = quantizer(spec, is_weight=False, learn="lsq+", range=(-1, 2)), weights(), weights(seed=1)
        assert q.qparams.zero_point == -1 and q.qparams.scale == F32(0.2)
        outside = (x < -1.1) | (x > 2.1)
        _, d = q.gradient(dy, x, q.qparams)
        np.testing.assert_allclose(d["zero_point"], dy[outside].sum() / np.sqrt(x[0].size * 15), rtol=1e-4)


class TestTqt:
    @pytest.mark.parametrize(("spec", "high", "scale"), [(S4, 1.5, 2 / 8), (S4, 2.0, 2 / 8), (U4, 2.1, 4 / 16)])
    def test_scales_are_powers_of_2_above_the_threshold(self, spec, high, scale):
        q = quantizer(spec, learn="tqt", range=(-high if spec.signed else 0, high))
        assert (q.qparams.scale, q.qparams.zero_point) == (scale, 0)

    def test_the_gradient_of_the_threshold(self):
        q, x, dy = quantizer(S4, learn="tqt", range=(-1, 1)), weights(), weights(seed=1)
        s = 1 / 8
        v = x / s
        codes = np.rint(v)
        per_value = np.where(codes < -8, -8, np.where(codes > 7, 7, codes - v))
        dx, d = q.gradient(dy, x, q.qparams)
        np.testing.assert_allclose(d["log2_t"], s * np.log(2) * (dy * per_value).sum(), rtol=1e-4)
        np.testing.assert_array_equal(dx == 0, (codes < -8) | (codes > 7))

    def test_other_grids_are_refused(self):
        for spec in (nq.QuantSpec(4, symmetric=False), nq.QuantSpec(4, signed=False)):
            with pytest.raises(ValueError, match="takes a signed symmetric or an unsigned affine spec"):
                quantizer(spec, learn="tqt")


class TestDorefa:
    def test_weights_go_through_tanh(self):
        q, w = quantizer(S4, method="dorefa"), weights()
        m = np.abs(w).max().astype(np.float64)
        t = np.tanh(w.astype(np.float64)) / np.tanh(m)
        np.testing.assert_allclose(rounded(q, w), m / 7 * np.clip(np.rint(t * 7), -7, 7), rtol=1e-6)

    def test_the_gradient_is_that_of_tanh(self):
        q, w, dy, step = quantizer(S4, method="dorefa"), weights().astype(np.float64), weights(seed=1), 1e-6
        inner = np.abs(w) < np.abs(w).max()  # the largest is taken as a constant
        slope = (q.transformed(w + step * inner) - q.transformed(w - step * inner)) / (2 * step)
        np.testing.assert_allclose(q.gradient(dy, w, None)[0][inner], (dy * slope)[inner], rtol=1e-5, atol=1e-8)

    def test_weights_of_0(self):
        q, w = quantizer(S4, method="dorefa"), np.zeros((2, 3), F32)
        assert (rounded(q, w) == 0).all() and (q.gradient(w + 1, w, None)[0] == 1).all()


@pytest.mark.parametrize("axis", [None, 0])
class TestBinary:
    def make(self, axis):
        return quantizer(nq.QuantSpec(2, narrow_range=True, axis=axis), method="binary")

    def test_weights_are_signs_times_their_mean_size(self, axis):
        q, w = self.make(axis), weights()
        w[0, 0] = 0
        means = np.abs(w.astype(np.float64)).mean(axis=None if axis is None else 1, keepdims=True)
        np.testing.assert_allclose(rounded(q, w), np.where(w < 0, -1, 1) * means, rtol=1e-6)

    def test_the_gradient_goes_through_sign_and_mean(self, axis):
        q, w, dy = self.make(axis), weights(), weights(seed=1)
        sizes, signs, over = np.abs(w), np.sign(w), None if axis is None else 1
        n = w.size if axis is None else w.shape[1]
        expected = sizes.mean(axis=over, keepdims=True) * dy * (sizes <= 1)
        expected = expected + signs / n * (dy * signs).sum(axis=over, keepdims=True)
        np.testing.assert_allclose(q.gradient(dy, w, None)[0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("axis", [None, 0])
def test_ternary_weights_are_0_below_the_threshold(axis):
    q, w = quantizer(nq.QuantSpec(2, narrow_range=True, axis=axis), method="ternary"), weights()
    over, sizes = None if axis is None else 1, np.abs(w.astype(np.float64))
    large = sizes > 0.7 * sizes.mean(axis=over, keepdims=True)
    mean = (sizes * large).sum(axis=over, keepdims=True) / large.sum(axis=over, keepdims=True)
    np.testing.assert_allclose(rounded(q, w), np.sign(w) * large * mean, rtol=1e-6)
    np.testing.assert_array_equal(q.gradient(w, w, None)[0], w)


@pytest.mark.parametrize("method", ["binary", "ternary"])
@pytest.mark.parametrize("spec", [S2, nq.QuantSpec(3), U2])
def test_codes_other_than_minus_1_to_1_are_refused(method, spec):
    with pytest.raises(ValueError, match=r"takes QuantSpec\(bits=2, narrow_range=True\)"):
        quantizer(spec, method=method)


@pytest.mark.parametrize("spec", [nq.QuantSpec(4, axis=0), U4])
def test_dorefa_names_what_it_takes(spec):
    with pytest.raises(ValueError, match="symmetric spec of 2 or more bits with axis=None"):
        quantizer(spec, method="dorefa")


def test_what_a_method_computes_cannot_be_learned():
    with pytest.raises(ValueError, match="learn='lsq' learns what method='binary' computes"):
        nq.Quantize(TERNARY, "binary", learn="lsq")
    with pytest.raises(ValueError, match="activation: method 'ternary' is for weights"):
        nq.QConfig(nq.Quantize(S4), nq.Quantize(TERNARY, "ternary"))


CONFIGS = {
    "straight-through": (nq.Quantize(S4), nq.Quantize(U4, "moving_average")),
    "lsq": (nq.Quantize(S4, "mse", learn="lsq"), nq.Quantize(U4, "mse", learn="lsq")),
    "lsq 2 bits": (nq.Quantize(nq.QuantSpec(2, axis=0), "mse", learn="lsq"), nq.Quantize(U2, "mse", learn="lsq")),
    "lsq 3 bits": (nq.Quantize(nq.QuantSpec(3), learn="lsq"), nq.Quantize(nq.QuantSpec(3, False, False), learn="lsq")),
    "lsq+": (nq.Quantize(S4, learn="lsq"), nq.Quantize(U4, learn="lsq+", range=(-1, 2))),
    "tqt": (nq.Quantize(S4, learn="tqt"), nq.Quantize(U4, learn="tqt")),
    "dorefa": (nq.Quantize(S4, "dorefa"), nq.Quantize(U4, range=(0, 1))),
    "binary": (nq.Quantize(nq.QuantSpec(2, narrow_range=True, axis=0), "binary"), nq.Quantize(U4, "moving_average")),
    "ternary": (nq.Quantize(TERNARY, "ternary"), nq.Quantize(U4, "moving_average")),
    "binary weights and activations": (
        nq.Quantize(TERNARY, "binary"),
        nq.Quantize(nq.QuantSpec(1, signed=False, symmetric=False), learn="lsq"),
    ),
    "pact, sawb": (nq.Quantize(nq.QuantSpec(2, axis=0), "sawb"), nq.Quantize(U2, learn="pact")),
    "pact, sawb+": (nq.Quantize(S4, "sawb+"), nq.Quantize(U4, learn="pact", range=(-1, 2))),
    "12 bits": (nq.Quantize(TERNARY, "binary"), nq.Quantize(nq.QuantSpec(12), learn="lsq")),
}


LEARNED = [name for name, kinds in CONFIGS.items() if any(kind.learn for kind in kinds)]


def configured(name):
    return nq.QConfig(*CONFIGS[name], input=nq.Quantize(U8, "moving_average"))


def trained(model, x, config, steps=20):
    qat = nq.prepare_qat(model, x, config)
    opt, labels = nn.Adam(qat.parameter_groups(quantizer_lr=1e-3), lr=1e-2), np.arange(len(x)) % 4
    losses = []
    for _ in range(steps):
        loss, dlogits = nn.cross_entropy(qat(x), labels)
        qat.backward(dlogits)
        opt.step()
        losses.append(loss)
    assert losses[-1] < losses[0]
    return qat


@pytest.mark.parametrize("name", CONFIGS)
def test_what_was_trained_is_what_runs(name, tmp_path):
    x = inputs()
    qat = trained(mlp(), x, configured(name))
    graph = nq.convert(qat)
    found = graph.verify(inputs(rng=2))
    assert found, found
    np.testing.assert_array_equal(graph(x), qat.eval()(x))
    graph.save(tmp_path / "model.npz")
    np.testing.assert_array_equal(nq.load(tmp_path / "model.npz")(x), graph(x))


@pytest.mark.parametrize("name", CONFIGS)
def test_with_batch_normalization(name):
    x = images(8)
    qat = trained(small_resnet(), x, configured(name), steps=6)
    assert nq.convert(qat).verify(x)
    qat.freeze_batchnorm()
    qat.backward(nn.cross_entropy(qat(x), np.arange(8) % 4)[1])
    assert nq.convert(qat).verify(x)


@pytest.mark.parametrize("name", CONFIGS)
def test_values_that_are_not_numbers_are_an_error_that_names_the_place(name):
    x, model = inputs(), mlp()
    x[3, 2] = np.nan
    with pytest.raises(ValueError, match="input.*1 NaN"):
        nq.prepare_qat(model, inputs(), configured(name))(x)
    model[2].weight[1, 1] = np.nan
    with pytest.raises(ValueError, match="2.*1 NaN"):
        nq.prepare_qat(model, inputs(), configured(name))(inputs())


@pytest.mark.parametrize("name", LEARNED)
def test_what_was_learned_is_saved_with_the_model(name):
    qat, x = trained(mlp(), inputs(), configured(name)), inputs()
    other = nq.prepare_qat(mlp(rng=5), x, configured(name))
    other.eval()["input.quantizer"].quantizer.observer = qat["input.quantizer"].quantizer.observer
    other.load_state_dict(qat.state_dict())
    np.testing.assert_array_equal(other(x), qat.eval()(x))


@pytest.mark.parametrize("preset", ["int4_lsq", "int2_lsq"])
def test_presets_learn_the_scales_of_weights_and_activations(preset):
    qat, x = trained(mlp(), inputs(), preset), inputs()
    names = [name for name, _ in qat.named_parameters()]
    assert {"0.quantizer.scale", "2.weight_quantizer.scale"} <= set(names)
    assert nq.convert(qat).verify(x)
    post_training = nq.quantize_static(mlp(), [x], preset)
    assert post_training.verify(x)


def test_learned_parameters_have_a_learning_rate_of_their_own():
    qat, x = nq.prepare_qat(mlp(), inputs(), "int4_lsq"), inputs()
    qat(x)
    before = qat.state_dict()
    opt = nn.SGD(qat.parameter_groups(quantizer_lr=1e-3), lr=1e-9)
    qat.backward(nn.cross_entropy(qat(x), np.arange(64) % 4)[1])
    opt.step()
    for name, parameter in qat.named_parameters():
        rate = 1e-3 if "quantizer" in name else 1e-9
        np.testing.assert_allclose(parameter.data, before[name] - F32(rate) * parameter.grad, rtol=1e-6)
    learned = [name for name, p in qat.named_parameters() if "quantizer" in name]
    assert len(learned) == 5 and all((before[n] != qat.state_dict()[n]).any() for n in learned)
