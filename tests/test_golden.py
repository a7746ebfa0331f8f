"""Profile `torch` against PyTorch 2.13: golden/*.npz, written by golden/make_golden.py, holds its inputs and answers.

Where PyTorch rounds by another rule than its own fake_quantize, the values that differ are counted, and each must lie
within 2^-15 of a tie and have a zero point other than 0. No NaN, no infinity: PyTorch's answer to those is its own.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest

import ndquant as nq
from ndquant import reference
from ndquant.torch_histogram import TorchHistogram

from .golden.histogram_cases import many_values

FOLDER = Path(__file__).parent / "golden"
TIE_SCALE, TIE_X = np.float32(0.00214854861), np.float32(0.273939937)
VALUES = 108 * 200 + 108 * 200
CODES_THAT_DIFFER = 1586
LEARNABLE_THAT_DIFFER = 2900


@dataclass
class Case:
    """One array under one QParams, with what PyTorch computed from it."""

    name: str
    golden: dict

    def __getattr__(self, name):
        if name.startswith("__") or name not in self.golden:
            raise AttributeError(name)
        return self.golden[name]

    @cached_property
    def axis(self):
        return int(self.golden["axis"]) if "axis" in self.golden else None

    @cached_property
    def spec(self):
        return nq.QuantSpec(int(self.bits), signed=bool(self.signed), symmetric=False, axis=self.axis)

    @cached_property
    def qparams(self):
        return nq.QParams(self.scale, self.zero_point, self.spec, profile="torch")

    @property
    def grid(self):
        """The arguments of the NumPy twins."""
        return self.scale, self.zero_point, self.spec.qmin, self.spec.qmax, self.axis, "torch"

    def spread(self, per_channel):
        """One number per element of x, of one per channel."""
        shape = [1] * self.x.ndim
        if self.axis is not None:
            shape[self.axis] = -1
        return np.broadcast_to(np.reshape(per_channel, shape), self.x.shape)

    @cached_property
    def qparams_of_each(self):
        """Every value is a channel of its own."""
        spec = nq.QuantSpec(int(self.bits), signed=bool(self.signed), symmetric=False, axis=0)
        scale, zero_point = (self.spread(v).ravel() for v in (self.scale, self.zero_point))
        return nq.QParams(scale, zero_point, spec, profile="torch")

    @cached_property
    def codes(self):
        """The codes of PyTorch's fake_quantize, from its output."""
        return np.rint(self.y / self.spread(self.scale).astype(np.float64)) + self.spread(self.zero_point)

    @cached_property
    def near_tie(self):
        """Where another rounding rule may give another code."""
        steps = self.x.astype(np.float64) * (np.float32(1) / self.spread(self.scale))
        return (np.abs(steps - np.floor(steps) - 0.5) <= 2.0**-15) & (self.spread(self.zero_point) != 0)

    @cached_property
    def boundary(self):
        """Halfway points and range ends, plus and minus one ulp."""
        scale = self.spread(self.scale).astype(np.float64)
        low, high = (self.spread(end - np.int64(self.zero_point)) for end in (self.spec.qmin, self.spec.qmax))
        halfway = np.clip(np.floor(self.x / scale), low - 1, high) + 0.5
        exact = [(steps * scale).astype(np.float32) for steps in (halfway, low, high)]
        return np.any([np.abs(self.x - point) <= np.spacing(np.abs(point)) for point in exact], axis=0)


def read(name):
    with np.load(FOLDER / name) as file:
        return dict(file)


def per_tensor_cases():
    rows = read("per_tensor.npz")
    grad_factor = rows.pop("grad_factor")
    for number in range(len(rows["x"])):
        row = {name: values[number] for name, values in rows.items()}
        yield Case(f"per_tensor[{number}]", row | {"grad_factor": grad_factor})


def per_channel_cases():
    blocks = read("per_channel.npz")
    for block in ("u8", "s8", "u4", "s4", "u2", "s2"):
        arrays = {name.split("/")[1]: values for name, values in blocks.items() if name.startswith(block)}
        yield Case(f"per_channel[{block}]", arrays | {"grad_factor": blocks["grad_factor"]})


CASES = [*per_tensor_cases(), *per_channel_cases()]


def assert_same_bits(ours, theirs, case):
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape, case.name
    wrong = ours.view(np.uint32) != theirs.view(np.uint32)
    assert not wrong.any(), (case.name, case.qparams, case.x[wrong][:5], ours[wrong][:5], theirs[wrong][:5])


def assert_only_ties(differs, case):
    wrong = differs & ~case.near_tie
    assert not wrong.any(), (case.name, case.qparams, case.x[wrong][:5])


class TestFiles:
    """The golden data hold what the comparisons below are about."""

    def test_every_value_is_there_and_finite(self):
        assert sum(case.x.size for case in CASES) == VALUES
        for case in CASES:
            assert all(np.isfinite(values).all() for values in case.golden.values())

    def test_a_fifth_of_every_case_are_boundary_values(self):
        assert all(np.mean(case.boundary) >= 0.2 for case in CASES)

    def test_halfway_points_come_exact_and_one_ulp_to_either_side(self):
        moved = []
        for case in CASES:
            scale = case.spread(case.scale).astype(np.float64)
            exact = ((np.floor(case.x / scale) + 0.5) * scale).astype(np.float32)
            moved.append(((case.x - exact) / np.spacing(np.abs(exact)))[case.boundary])
        moved = np.concatenate(moved)
        assert min(np.sum(moved == -1), np.sum(moved == 0), np.sum(moved == 1)) > 2000

    def test_settings_cover_zero_points_bits_and_signs(self):
        seen = {(int(case.bits), bool(case.signed), int(zp)) for case in CASES for zp in np.ravel(case.zero_point)}
        assert seen >= {(8, False, zp) for zp in (0, 1, 17, 128, 255)} | {(8, True, zp) for zp in (-128, 0, 1, 17, 127)}
        assert {s[:2] for s in seen} == {(bits, signed) for bits in (8, 4, 2) for signed in (False, True)}
        assert {case.axis for case in CASES} == {None, 0, 1, 2}

    def test_the_tie_of_the_reciprocal_is_among_the_values(self):
        assert any(TIE_X in case.x[case.spread(case.scale) == TIE_SCALE] for case in CASES)

    def test_values_on_both_sides_of_the_range_are_clipped(self):
        codes = [(case.codes, case.spec) for case in CASES]
        assert sum(np.sum(q == spec.qmin) for q, spec in codes) > 2000
        assert sum(np.sum(q == spec.qmax) for q, spec in codes) > 2000
        assert sum(np.sum((q > spec.qmin) & (q < spec.qmax)) for q, spec in codes) > VALUES // 3


@pytest.mark.usefixtures("backend")
class TestFakeQuantize:
    """torch.fake_quantize_per_tensor_affine and torch.fake_quantize_per_channel_affine."""

    def test_forward_is_bit_for_bit(self):
        for case in CASES:
            assert_same_bits(nq.fake_quantize(case.x, case.qparams), case.y, case)

    def test_dequantized_codes_are_bit_for_bit(self):
        for case in CASES:
            q = nq.quantize(case.x, case.qparams)
            np.testing.assert_array_equal(q, case.codes, err_msg=case.name)
            assert_same_bits(nq.dequantize(q, case.qparams), case.y, case)

    def test_backward_keeps_or_drops_the_same_gradients(self):
        """PyTorch multiplies by the mask, so that it drops a negative gradient to -0; ours is +0."""
        for case in CASES:
            dx = nq.fake_quantize_backward(case.dy, case.x, case.qparams)
            assert_same_bits(dx, case.dx + np.float32(0), case)

    def test_both_in_one_pass(self):
        for case in CASES:
            y, dx = nq.fake_quantize_with_grad(case.x, case.dy, case.qparams)
            assert_same_bits(y, case.y, case)
            assert_same_bits(dx, case.dx + np.float32(0), case)


class TestTwins:
    """The NumPy twins, which stand for PyTorch where a backend is compared with them alone."""

    def test_forward(self):
        for case in CASES:
            assert_same_bits(reference.fake_quantize(case.x, *case.grid), case.y, case)
            np.testing.assert_array_equal(reference.quantize(case.x, *case.grid), case.codes, err_msg=case.name)

    def test_backward(self):
        for case in CASES:
            dx = reference.fake_quantize_backward(case.dy, case.x, *case.grid)
            assert_same_bits(dx, case.dx + np.float32(0), case)

    def test_learnable_sums(self):
        for case in CASES:
            dy = np.where(case.learnable_agrees, case.dy, np.float32(0))
            factor = float(case.grad_factor)
            found = reference.fake_quantize_learnable_backward(dy, case.x, *case.grid, grad_factor=factor)
            assert_sum_agrees(found[1], case.learnable_dscale, case.learnable_dscale_each, case)
            assert_sum_agrees(found[2], case.learnable_dzp, case.learnable_dzp_each, case)


@pytest.mark.usefixtures("backend")
class TestQuantize:
    """torch.quantize_per_tensor and torch.quantize_per_channel, which round after adding the zero point."""

    def test_zero_point_0_gives_the_same_codes(self):
        compared = 0
        for case in CASES:
            at_zero = (case.spread(case.zero_point) == 0) & (case.bits == 8)
            np.testing.assert_array_equal(nq.quantize(case.x, case.qparams)[at_zero], case.q[at_zero])
            compared += at_zero.sum()
        assert compared == 2 * 2 * 6 * 200

    def test_other_zero_points_differ_at_ties_only_and_by_one(self):
        differing = 0
        for case in CASES:
            if case.bits == 8:
                step = np.abs(nq.quantize(case.x, case.qparams) - case.q)
                assert_only_ties(step != 0, case)
                assert step.max() <= 1
                differing += np.sum(step)
        assert differing == CODES_THAT_DIFFER


@pytest.mark.usefixtures("backend")
class TestLearnable:
    """torch._fake_quantize_learnable_per_tensor_affine and _per_channel_affine.

    Their backward rounds after adding the zero point, their forward before; ours always as the forward.
    `learnable_agrees` is False where PyTorch's backward and forward give two codes to one value.
    """

    def test_forward_is_fake_quantize(self):
        for case in CASES:
            assert_same_bits(nq.fake_quantize(case.x, case.qparams), case.learnable_y, case)

    def test_pytorch_contradicts_itself_at_ties_only(self):
        for case in CASES:
            assert_only_ties(~case.learnable_agrees, case)
        assert sum(np.sum(~case.learnable_agrees) for case in CASES) == LEARNABLE_THAT_DIFFER

    def test_gradient_of_x_is_the_same_elsewhere(self):
        for case in CASES:
            dx, _, _ = learnable_backward(case, case.dy)
            theirs = np.where(case.learnable_agrees, case.learnable_dx + np.float32(0), dx)
            assert_same_bits(dx, theirs, case)
            assert_same_bits(dx, case.dx + np.float32(0), case)

    def test_each_value_contributes_the_same_elsewhere(self):
        """PyTorch subtracts x from the unrounded product scale * (q - zp): half an ulp of y, or a subnormal number."""
        for case in CASES:
            dscale, dzp = gradients_of_each(case)
            weight = np.abs(case.dy) * float(case.grad_factor)
            ulp = 0.5 * np.spacing(np.abs(case.y)).astype(np.float64) / case.spread(case.scale)
            allowed = weight * ulp + 1e-6 * np.abs(case.learnable_dscale_each) + np.finfo(np.float32).tiny
            agrees = case.learnable_agrees
            assert np.all((np.abs(dscale - case.learnable_dscale_each) <= allowed)[agrees]), case.name
            np.testing.assert_allclose(dzp[agrees], case.learnable_dzp_each[agrees], rtol=1e-6)

    def test_sums_agree(self):
        """1e-5, and the rounding of PyTorch's float32 sum where its terms cancel."""
        for case in CASES:
            dy = np.where(case.learnable_agrees, case.dy, np.float32(0))
            _, dscale, dzp = learnable_backward(case, dy)
            assert_sum_agrees(dscale, case.learnable_dscale, case.learnable_dscale_each, case)
            assert_sum_agrees(dzp, case.learnable_dzp, case.learnable_dzp_each, case)


def learnable_backward(case, dy):
    return nq.fake_quantize_learnable_backward(dy, case.x, case.qparams, grad_factor=float(case.grad_factor))


def gradients_of_each(case):
    """What each value adds to the gradients of scale and zero point."""
    _, dscale, dzp = nq.fake_quantize_learnable_backward(
        case.dy.reshape(-1, 1), case.x.reshape(-1, 1), case.qparams_of_each, grad_factor=float(case.grad_factor))
    return dscale.reshape(case.x.shape), dzp.reshape(case.x.shape)


def assert_sum_agrees(ours, theirs, terms, case):
    axes = tuple(axis for axis in range(case.x.ndim) if axis != case.axis)
    magnitude = np.sum(np.abs(terms), axis=axes, dtype=np.float64)
    allowed = 1e-5 * np.abs(theirs) + 1e-7 * magnitude
    assert np.all(np.abs(np.ravel(ours) - np.ravel(theirs)) <= np.ravel(allowed)), (case.name, ours, theirs)


OBSERVED = read("observers.npz")
SPECS = {
    "u8_affine": dict(bits=8, signed=False, symmetric=False),
    "u7_affine": dict(bits=7, signed=False, symmetric=False),
    "u4_affine": dict(bits=4, signed=False, symmetric=False),
    "u8_symmetric": dict(bits=8, signed=False, symmetric=True),
    "s8_affine": dict(bits=8, signed=True, symmetric=False),
    "s8_symmetric": dict(bits=8, signed=True, symmetric=True),
    "s7_symmetric": dict(bits=7, signed=True, symmetric=True),
    "s4_symmetric": dict(bits=4, signed=True, symmetric=True),
}


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("setting", SPECS)
class TestObservers:
    """Scale and zero point of PyTorch's observers, bit for bit (reduce_range is 7 bits)."""

    @pytest.mark.parametrize("kind, axis", [("minmax", None), ("minmax_axis1", 1)])
    def test_min_max(self, setting, kind, axis):
        for number, x in enumerate(OBSERVED["data"]):
            observer = nq.MinMaxObserver(axis=axis, profile="torch")
            observer.update(x)
            assert_observed(observer, setting, axis, kind, (number, 0))

    def test_min_max_of_parts_merged(self, setting):
        for number, x in enumerate(OBSERVED["data"]):
            first, second = (nq.MinMaxObserver(profile="torch") for _ in range(2))
            first.update(x[:5])
            second.update(x[5:])
            first.merge(second)
            assert_observed(first, setting, None, "minmax", (number, 0))

    @pytest.mark.parametrize("kind, axis", [("average", None), ("average_axis0", 0)])
    def test_moving_average_after_every_batch(self, setting, kind, axis):
        for number, batches in enumerate(OBSERVED["data"]):
            observer = nq.MovingAverageMinMaxObserver(axis=axis, profile="torch")
            for seen, batch in enumerate(batches):
                observer.update(batch)
                assert_observed(observer, setting, axis, kind, (number, seen))


def assert_observed(observer, setting, axis, kind, index):
    qp = observer.qparams(nq.QuantSpec(**SPECS[setting], axis=axis))
    scale = OBSERVED[f"{kind}/{setting}/scale"][index]
    zero_point = OBSERVED[f"{kind}/{setting}/zero_point"][index]
    assert qp.scale.dtype == np.float32
    message = f"{OBSERVED['names'][index[0]]}, batch {index[1]}"
    np.testing.assert_array_equal(np.ravel(qp.scale), scale, err_msg=message)
    np.testing.assert_array_equal(np.ravel(qp.zero_point), zero_point, err_msg=message)


HISTOGRAMS = read("histograms.npz")
SEQUENCES = {"data": HISTOGRAMS["data"], "large": many_values()}


@pytest.mark.parametrize("name", SEQUENCES)
class TestHistogramObserver:
    """PyTorch's HistogramObserver, bit for bit."""

    def test_after_every_batch(self, name):
        spec = nq.QuantSpec(**SPECS["u8_affine"])
        for number, batches in enumerate(SEQUENCES[name]):
            observer = nq.HistogramObserver(profile="torch")
            for seen, batch in enumerate(batches):
                assert_histogram(observer.update(batch).qparams(spec), name, "u8_affine", (number, seen))

    def test_every_setting(self, name):
        for number, batches in enumerate(SEQUENCES[name]):
            observer = nq.HistogramObserver(profile="torch")
            for batch in batches:
                observer.update(batch)
            low, high = observer.range(nq.QuantSpec())
            for setting, options in SPECS.items():
                qp = nq.QParams.from_range(low, high, nq.QuantSpec(**options), profile="torch")
                assert_histogram(qp, name, setting, (number, -1))

    def test_counts_and_range(self, name):
        for number, batches in enumerate(SEQUENCES[name]):
            histogram = TorchHistogram()
            for batch in batches:
                histogram.add(batch, batch.min(), batch.max())
            np.testing.assert_array_equal(histogram.counts, HISTOGRAMS[f"{name}/counts"][number])
            np.testing.assert_array_equal(histogram.range(256), HISTOGRAMS[f"{name}/range"][number])

    def test_one_array(self, name):
        qp = nq.choose_qparams(SEQUENCES[name][0, 0], nq.QuantSpec(**SPECS["s8_affine"]), "l2", "torch")
        assert_histogram(qp, name, "s8_affine", (0, 0))


def assert_histogram(qp, name, setting, index):
    assert qp.scale.dtype == np.float32
    expected = (HISTOGRAMS[f"{name}/{setting}/{part}"][index] for part in ("scale", "zero_point"))
    assert (qp.scale, qp.zero_point) == tuple(expected), f"{name} {index}"


def test_the_order_of_batches_matters_to_pytorchs_histogram():
    counts = []
    for order in (1, -1):
        histogram = TorchHistogram()
        for batch in SEQUENCES["large"][0][::order]:
            histogram.add(batch, batch.min(), batch.max())
        counts.append(histogram.counts)
    assert counts[0].sum() == counts[1].sum()
    assert (counts[0] != counts[1]).any()


def test_the_searches_of_pytorch_go_many_steps(monkeypatch):
    errors, find = [], TorchHistogram._error
    monkeypatch.setattr(TorchHistogram, "_error", lambda *args: errors.append(find(*args)) or errors[-1])
    for batches in SEQUENCES["large"]:
        histogram = TorchHistogram()
        for batch in batches:
            histogram.add(batch, batch.min(), batch.max())
        errors.clear()
        histogram.range(256)
        assert len(errors) > 3


def test_observed_data_cover_ranges_of_every_kind():
    low, high = (extreme(OBSERVED["data"], axis=(1, 2, 3)) for extreme in (np.min, np.max))
    assert len(low) == 32
    assert np.any(low > 0) and np.any(high < 0) and np.any(low == 0) and np.any(low * high < 0)
    assert np.any((low == high) & (low != 0)) and np.any((low == 0) & (high == 0))
    assert np.any(OBSERVED["minmax/u8_affine/scale"] == np.finfo(np.float32).eps)


MNIST_TUTORIAL = [
    (-46.66990280151367, 30.96890640258789, 0.611329197883606, 76),
    (-24.895591735839844, 23.977750778198242, 0.38482949137687683, 65),
    (-30.03553581237793, 20.859119415283203, 0.40074530243873596, 75),
    (-49.90431213378906, 32.529666900634766, 0.6490864157676697, 77),
    (-28.026037216186523, 19.46849822998047, 0.37397274374961853, 75),
    (-33.177005767822266, 21.5955867767334, 0.431280255317688, 77),
]


class TestMnistTutorial:
    """What the tutorial prints of PyTorch's default_qconfig: range of an activation, its scale and zero point."""

    SPEC = dict(bits=7, signed=False, symmetric=False)

    @pytest.mark.parametrize("low, high, scale, zero_point", MNIST_TUTORIAL)
    def test_linear_outputs(self, low, high, scale, zero_point):
        qp = nq.QParams.from_range(np.float32(low), np.float32(high), nq.QuantSpec(**self.SPEC), profile="torch")
        assert (qp.scale.dtype, qp.scale, qp.zero_point) == (np.float32, np.float32(scale), zero_point)

    @pytest.mark.parametrize("low, high, scale, zero_point", MNIST_TUTORIAL)
    def test_linear_outputs_observed(self, backend, low, high, scale, zero_point):
        data = np.linspace(low, high, 1000, dtype=np.float32)
        qp = nq.choose_qparams(data, nq.QuantSpec(**self.SPEC), profile="torch")
        assert (qp.scale, qp.zero_point) == (np.float32(scale), zero_point)

    def test_input(self):
        low, high = np.float32(-0.4242129623889923), np.float32(2.821486711502075)
        qp = nq.QParams.from_range(low, high, nq.QuantSpec(**self.SPEC), profile="torch")
        assert (round(float(qp.scale), 4), qp.zero_point) == (0.0256, 17)
