"""Attention quantized statically: products of two values, softmax with masks, layer normalization on integers."""

import numpy as np
import pytest

import ndquant as nq
from ndquant import nn
from ndquant.graph.inputs import as_inputs

F32 = np.float32


class Block(nn.Module):
    """A layer of a transformer, with masks of all kinds, and what classifies its result."""

    def __init__(self, mask=None, causal=False, p=0.0, weights=False):
        rng = np.random.default_rng(0)
        self.attention = nn.MultiheadAttention(16, 4, p, batch_first=True, rng=rng)
        self.norm, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.linear, self.linear2, self.head = (nn.Linear(*n, rng=rng) for n in ((16, 32), (32, 16), (16, 3)))
        self.mask, self.causal, self.weights = mask, causal, weights

    def forward(self, x, padding=None):
        how = {"attn_mask": self.mask, "is_causal": self.causal, "need_weights": self.weights}
        y, weights = self.attention(x, x, x, padding, **how)
        x = self.norm(x + y)
        y = self.head(self.norm2(x + self.linear2(nn.gelu(self.linear(x)))))
        return (y, weights) if self.weights else y


class TestBlock:
    x = np.random.default_rng(1).standard_normal((12, 6, 16)).astype(F32)
    others = np.abs(np.subtract.outer(np.arange(6), np.arange(6))) > 2

    def check(self, model, *inputs, planned=True):
        inputs = inputs or (self.x,)
        int8 = nq.quantize_static(model, [inputs])
        floats = [row for row in int8.report(inputs).rows if row.kernel != "integers"]
        assert not floats and (int8._plan_for(int8._checked(as_inputs(inputs))) is not None) == planned
        assert int8.verify(inputs), int8.verify(inputs)
        assert nq.sqnr(model.eval()(*inputs), int8(*inputs)) > 28
        return int8

    @pytest.mark.parametrize("mask", [None, others, np.where(others, -np.inf, 0)], ids=["none", "booleans", "floats"])
    @pytest.mark.parametrize("causal", [False, True])
    def test_all_of_it_runs_on_integers_as_one_call(self, backend, mask, causal, tmp_path):
        int8 = self.check(Block(mask, causal))
        weights = int8.run(self.x).values["attention.attention.weights"]
        hidden = np.zeros((6, 6), bool) if mask is None else self.others
        hidden = hidden | (np.triu(np.ones((6, 6), bool), 1) if causal else False)
        assert (weights.codes[:, :, hidden] == weights.qparams.zero_point).all()
        int8.save(tmp_path / "m.npz")
        loaded = nq.load(tmp_path / "m.npz")
        np.testing.assert_array_equal(loaded(self.x), int8(self.x))
        assert loaded.verify(self.x)

    @pytest.mark.parametrize("preset", ["int8_per_tensor", "int4", "fbgemm", "qnnpack", "torch_default"])
    def test_every_preset_verifies(self, preset):
        int8 = nq.quantize_static(Block(causal=True), [self.x], preset)
        assert not int8.report(self.x).stayed_float
        assert int8.verify(self.x), int8.verify(self.x)

    @pytest.mark.parametrize("profile", ["onnx", "textbook"])
    def test_other_profiles_keep_it_in_float_and_say_so(self, profile):
        quantize = nq.Quantize(nq.QuantSpec(axis=0)), nq.Quantize(nq.QuantSpec(signed=False, symmetric=False))
        int8 = nq.quantize_static(Block(causal=True), [self.x], nq.QConfig(*quantize, profile=profile))
        assert int8.verify(self.x)
        stayed = int8.report(self.x).stayed_float
        for part in ("attention.attention.scores", "attention.attention.weights", "norm"):
            assert stayed[part] == f"no integer form in profile {profile}"

    def test_overrides_keep_parts_in_float(self):
        quantize = nq.Quantize(nq.QuantSpec(axis=0)), nq.Quantize(nq.QuantSpec(signed=False, symmetric=False))
        config = nq.QConfig(*quantize, overrides={nn.LayerNorm: None, np.matmul: None})
        int8 = nq.quantize_static(Block(), [self.x], config)
        assert int8.verify(self.x)
        stayed = int8.report(self.x).stayed_float
        kept = {name for name, reason in stayed.items() if reason == "kept by qconfig"}
        assert kept == {"attention.attention.scores", "attention.attention.values", "norm", "norm2"}

    def test_a_row_alone_is_that_row_in_a_batch(self):
        int8 = self.check(Block())
        np.testing.assert_array_equal(int8(self.x)[3:4], int8(self.x[3:4]))

    def test_masks_of_keys(self, tmp_path):
        padding = np.arange(6) >= np.arange(12)[:, None] % 6 + 1
        int8 = self.check(Block(), self.x, padding, planned=False)
        other = np.where(padding[..., None], F32(2), self.x)
        shown = ~padding
        np.testing.assert_array_equal(int8(other, padding)[shown], int8(self.x, padding)[shown])
        int8.save(tmp_path / "m.npz")
        np.testing.assert_array_equal(nq.load(tmp_path / "m.npz")(self.x, padding), int8(self.x, padding))

    def test_a_mask_that_adds_numbers_keeps_the_softmax_in_float(self):
        int8 = nq.quantize_static(Block(np.where(self.others, -1.5, 0)), [self.x])
        kernels = {row.layer: row.kernel for row in int8.report(self.x).rows}
        assert kernels["attention.attention.weights"] == "float: its mask adds numbers to the scores"
        assert kernels["attention.attention.values"] == "integers" and int8.verify(self.x)

    def test_weights_are_given_as_floats(self):
        model = Block(weights=True)
        int8 = nq.quantize_static(model, [self.x])
        for y, truth in zip(int8(self.x), model.eval()(self.x), strict=True):
            assert y.dtype == F32 and y.shape == truth.shape and nq.sqnr(truth, y) > 25
        assert int8.verify(self.x)

    def test_it_trains_and_what_trained_is_what_runs(self):
        model, rng = Block(p=0.1), np.random.default_rng(2)
        qat, labels = nq.prepare_qat(model, self.x, "int8"), rng.integers(0, 3, (12, 6))
        opt, losses = nn.Adam(qat.parameters(), lr=3e-3), []
        for _ in range(15):
            y = qat(self.x)
            loss, d = nn.cross_entropy(y.reshape(-1, 3), labels.reshape(-1))
            qat.backward(d.reshape(y.shape))
            opt.step()
            losses.append(loss)
        assert losses[-1] < 0.9 * losses[0]
        int8 = nq.convert(qat)
        np.testing.assert_array_equal(int8(self.x), qat.eval()(self.x))
        assert int8.verify(self.x)

    def test_products_written_by_hand_run_on_integers(self):
        class ByHand(nn.Module):
            def __init__(self):
                self.q, self.k, self.head = (nn.Linear(16, 16, rng=i) for i in range(3))

            def forward(self, x):
                scores = nn.softmax(self.q(x) @ self.k(x).transpose(0, 2, 1))
                return self.head(scores @ x)

        int8 = self.check(ByHand())
        assert [node.op.name for node in int8.nodes].count("matmul_integer") == 2

    def test_verify_can_fail(self):
        int8 = nq.quantize_static(Block(), [self.x])
        int8["norm"].weight = int8["norm"].weight + F32(0.5)
        found = int8.verify(self.x)
        assert not found and found.first == "norm" and "16 of the weight (stored" in str(found)

    def test_files_that_do_not_fit_are_refused(self, tmp_path):
        nq.quantize_static(Block(), [self.x]).save(tmp_path / "m.npz")
        with np.load(tmp_path / "m.npz") as archive:
            arrays = dict(archive)
        for bad in (arrays["norm/weight"].astype(float), arrays["norm/weight"][:3], arrays["norm/weight"][None]):
            np.savez(tmp_path / "bad.npz", **{**arrays, "norm/weight": bad})
            with pytest.raises(nq.QuantizationError, match="norm"):
                nq.load(tmp_path / "bad.npz")
