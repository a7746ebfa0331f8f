"""Integer convolutions on every backend against their twins."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ndquant as nq
from ndquant import _core, reference

from .cases import CONV_SHAPES, DEPTHWISE_SHAPES, assert_same_bits
from .examples import examples
from .test_gemm import SIGNS, random_codes, random_zero
from .test_linear_integer import REQUANTIZE, S8, U8, codes_of, random_qparams, weight_qparams

LAYOUTS = ("nchw", "channels-last", "strided")


def in_layout(x, layout):
    """The same values in another memory layout."""
    if layout == "channels-last":
        return x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    if layout == "strided":
        wide = np.zeros((x.shape[0], 2 * x.shape[2], x.shape[1], x.shape[3] + 3), x.dtype).transpose(0, 2, 1, 3)
        wide = wide[:, :, ::-2, x.shape[3] + 2 : 2 : -1]
        wide[...] = x
        return wide
    return x.copy()


def is_channels_last(x):
    return x.transpose(0, 2, 3, 1).flags.c_contiguous


class ConvLayer:
    """Random operands of one layer, and what its twins say of them."""

    def __init__(
        self, rng, case, x_signed=False, w_signed=True, profile="default", bits=8, per_channel=True, w_bits=None
    ):
        self.x_shape, outputs, window, stride, padding, dilation, groups = case
        self.geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        self.x_qp = random_qparams(rng, nq.QuantSpec(bits, x_signed, symmetric=False), None)
        w_spec = nq.QuantSpec(w_bits or bits, w_signed, symmetric=False, axis=0 if per_channel else None)
        self.w_qp = weight_qparams(rng, w_spec, outputs if per_channel else None, profile)
        self.x = codes_of(rng, self.x_shape, self.x_qp)
        self.w = codes_of(rng, (outputs, self.x_shape[1] // groups, *window), self.w_qp)
        floats = rng.normal(size=outputs).astype(np.float32)
        self.bias = floats if profile == "torch" else rng.integers(-5000, 5000, outputs, np.int32)

    def packed(self):
        return nq.PackedWeight(self.w, self.w_qp, self.bias)

    def _sums(self, bias):
        zeros = {"x_zero_point": self.x_qp.zero_point, "w_zero_point": self.w_qp.zero_point}
        return reference.conv2d_s32(self.x, self.w, **self.geometry, **zeros, bias=bias)

    def _flat(self, function, *arguments, **more):
        """Apply a twin of products, whose last axis is the channels."""
        floats = self.bias.dtype == np.float32
        sums = self._sums(None if floats else self.bias)
        scales = np.float32(self.x_qp.scale), np.asarray(self.w_qp.scale, np.float32)
        last = sums.transpose(0, 2, 3, 1)
        y = function(last, *scales, *arguments, float_bias=self.bias if floats else None, **more)
        return np.ascontiguousarray(y.transpose(0, 3, 1, 2))

    def floats(self, activation=None):
        return self._flat(reference.linear_f32, activation=activation)

    def codes(self, out_qp, activation=None):
        spec, requantize = out_qp.spec, REQUANTIZE[out_qp.profile]
        bounds = int(out_qp.zero_point), spec.qmin, spec.qmax
        return self._flat(reference.linear_codes, out_qp.scale, *bounds, activation=activation, requantize=requantize)

    def out_qparams(self, rng, spec, profile="default"):
        """A range that the outputs fill, so that few codes are clamped."""
        y = self.floats()
        scale = np.float32(max(np.ptp(y) if y.size else 1.0, 1e-3) / (spec.qmax - spec.qmin))
        return nq.QParams(scale, int(rng.integers(spec.qmin, spec.qmax, endpoint=True)), spec, profile=profile)

    def run(self, packed, *arguments, layout="nchw", **more):
        return nq.conv2d_requantized(in_layout(self.x, layout), self.x_qp, packed, *arguments, **self.geometry, **more)


def integer_operands(rng, case, dtypes):
    shape, outputs, window, stride, padding, dilation, groups = case
    x = random_codes(rng, shape, dtypes[0])
    w = random_codes(rng, (outputs, shape[1] // groups, *window), dtypes[1])
    return x, w, {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


@pytest.mark.parametrize("case", CONV_SHAPES, ids=str)
def test_sums_are_exact(backend, rng, case):
    for dtypes, layout in itertools.product(SIGNS, LAYOUTS):
        x, w, geometry = integer_operands(rng, case, dtypes)
        zeros = (
            {},
            {"x_zero_point": int(random_zero(rng, dtypes[0]))},
            {"x_zero_point": int(random_zero(rng, dtypes[0])), "w_zero_point": random_zero(rng, dtypes[1], case[1])},
        )
        for zero in zeros:
            found = nq.conv2d_integer(in_layout(x, layout), w, **geometry, **zero)
            assert_same_bits(found, reference.conv2d_s32(x, w, **geometry, **zero))


@pytest.mark.parametrize("case", CONV_SHAPES, ids=str)
@pytest.mark.parametrize("profile", REQUANTIZE)
def test_layers_match_their_twins(backend, rng, case, profile):
    for number in range(8):
        x_signed, w_signed, out_signed = (bool(number >> bit & 1) for bit in range(3))
        layer = ConvLayer(rng, case, x_signed, w_signed, profile, (8, 4)[number % 2], number != 3)
        packed, layout = layer.packed(), LAYOUTS[number % 3]
        activation = {2: "relu", 4: "relu6", 5: "relu"}.get(number)
        out_qp = layer.out_qparams(rng, S8 if out_signed else U8, profile)
        assert_same_bits(layer.run(packed, layout=layout, activation=activation), layer.floats(activation))
        found = layer.run(packed, out_qp, layout=layout, activation=activation)
        assert_same_bits(found, layer.codes(out_qp, activation))


def draw_case(draw):
    """Any convolution that has outputs."""
    groups = draw(st.sampled_from((1, 1, 1, 2, 3, 20)))
    channels, outputs = groups * draw(st.integers(1, 40 // groups)), groups * draw(st.integers(1, 40 // groups))
    axes = []
    for _ in range(2):
        taps, dilation, padding = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(0, 6))
        least = max(1, dilation * (taps - 1) + 1 - 2 * padding)
        axes.append((draw(st.integers(least, least + 12)), taps, draw(st.integers(1, 4)), padding, dilation))
    sizes, *pairs = zip(*axes, strict=True)
    return ((draw(st.integers(1, 3)), channels, *sizes), outputs, *pairs, groups)


@pytest.mark.parametrize("channels, outputs", [(4, 5), (16, 16), (12, 9)])
def test_rows_of_few_outputs_of_any_length(backend, rng, channels, outputs):
    """Windows of three columns share two of them with the next."""
    for cols in range(1, 36):
        layer = ConvLayer(rng, ((1, channels, 2, cols), outputs, (2, 3), (1, 1), (0, 1), (1, 1), 1), cols % 2 == 0)
        out_qp, packed = layer.out_qparams(rng, (U8, S8)[cols // 2 % 2]), layer.packed()
        assert_same_bits(layer.run(packed, out_qp), layer.codes(out_qp))
        assert_same_bits(layer.run(packed), layer.floats())


@pytest.mark.parametrize("backend_name", _core.available_backends())
@given(data=st.data())
@settings(max_examples=examples(80), deadline=None)
def test_any_convolution(backend_name, data):
    draw = data.draw
    case, rng = draw_case(draw), np.random.default_rng(draw(st.integers(0, 2**32)))
    layer = ConvLayer(rng, case, draw(st.booleans()), draw(st.booleans()), bits=draw(st.integers(2, 8)))
    out_qp = layer.out_qparams(rng, nq.QuantSpec(draw(st.integers(2, 8)), draw(st.booleans()), symmetric=False))
    with nq.backend(backend_name):
        found = layer.run(layer.packed(), out_qp, layout=draw(st.sampled_from(LAYOUTS)))
    assert_same_bits(found, layer.codes(out_qp))


def draw_image_for_3_by_3(draw):
    """Draw random numbers, a padding, and the height and width of an image that such a window fits."""
    rng, padding = np.random.default_rng(draw(st.integers(0, 2**32))), draw(st.tuples(*[st.integers(0, 3)] * 2))
    sizes = tuple(draw(st.integers(max(1, 3 - 2 * pad), 21)) for pad in padding)
    return rng, padding, sizes


@pytest.mark.parametrize("outputs", (8, 16, 24, 56))
def test_whole_vectors_of_outputs(backend, rng, outputs):
    """AVX2 has tiles for these; each number of rows has its own."""
    for pixels in range(1, 14):
        layer = ConvLayer(rng, ((1, 5, 2, pixels + 1), outputs, (2, 2), (1, 1), (0, 0), (1, 1), 1), False, True)
        out_qp = layer.out_qparams(rng, (U8, S8)[pixels % 2])
        assert_same_bits(layer.run(layer.packed(), out_qp, layout="channels-last"), layer.codes(out_qp))


@pytest.mark.parametrize("backend_name", _core.available_backends())
@given(data=st.data())
@settings(max_examples=examples(40), deadline=None)
def test_any_convolution_of_3_by_3_with_many_channels(backend_name, data):
    """AVX2 does those with stride 1 in another way, tile by tile of 2 x 2 outputs."""
    draw = data.draw
    rng, padding, sizes = draw_image_for_3_by_3(draw)
    shape = draw(st.integers(1, 2)), draw(st.integers(16, 68)), *sizes
    case = shape, draw(st.integers(1, 40)), (3, 3), (1, 1), padding, (1, 1), 1
    layer = ConvLayer(rng, case, draw(st.booleans()), draw(st.booleans()))
    out_qp = layer.out_qparams(rng, nq.QuantSpec(8, draw(st.booleans()), symmetric=False))
    with nq.backend(backend_name):
        packed, layout = layer.packed(), draw(st.sampled_from(LAYOUTS))
        assert_same_bits(layer.run(packed, out_qp, layout=layout), layer.codes(out_qp))
        assert_same_bits(layer.run(packed, layout=layout), layer.floats())


@pytest.mark.parametrize("backend_name", _core.available_backends())
@given(data=st.data())
@settings(max_examples=examples(40), deadline=None)
def test_any_depthwise_convolution_of_3_by_3(backend_name, data):
    """Straight from the image: on AVX2 those of every second column, 32 channels at a time, on AVX-512 VNNI all with
    weights that fit a byte, as those of 7 bits do, 64 channels or two rows of 32, of one row or two at once."""
    draw = data.draw
    rng, padding, sizes = draw_image_for_3_by_3(draw)
    channels = draw(st.sampled_from((2, 3, 5, 8, 13, 16, 21, 31, 32, 33, 63, 64, 70, 97, 100)))
    stride, outputs = draw(st.tuples(*[st.integers(1, 3)] * 2)), channels * draw(st.integers(1, 2))
    case = (draw(st.integers(1, 2)), channels, *sizes), outputs, (3, 3), stride, padding, (1, 1), channels
    profile, w_bits = draw(st.sampled_from(list(REQUANTIZE))), draw(st.integers(7, 8))
    layer = ConvLayer(rng, case, draw(st.booleans()), draw(st.booleans()), profile, w_bits=w_bits)
    out_qp = layer.out_qparams(rng, nq.QuantSpec(8, draw(st.booleans()), symmetric=False), profile)
    activation = draw(st.sampled_from((None, "relu", "relu6")))
    with nq.backend(backend_name):
        found = layer.run(layer.packed(), out_qp, layout=draw(st.sampled_from(LAYOUTS)), activation=activation)
    assert_same_bits(found, layer.codes(out_qp, activation))


@pytest.mark.parametrize("case", DEPTHWISE_SHAPES, ids=str)
def test_depthwise_images_in_several_parts(backend, rng, case):
    for number, layout in enumerate(LAYOUTS):
        layer = ConvLayer(rng, case, bool(number % 2), w_bits=7)
        out_qp, packed = layer.out_qparams(rng, (U8, S8)[number % 2]), layer.packed()
        assert_same_bits(layer.run(packed, out_qp, layout=layout), layer.codes(out_qp))
        assert_same_bits(layer.run(packed, layout=layout), layer.floats())


def test_sums_that_fit_int32_but_not_four_times(backend):
    """As much as the sums of transformed windows are divided by at the end."""
    x, w = np.full((1, 1000, 4, 4), 255, np.uint8), np.full((2, 1000, 3, 3), 255, np.uint8)
    w[1, :, ::2] = 0
    assert_same_bits(nq.conv2d_integer(x, w, padding=1), reference.conv2d_s32(x, w, padding=(1, 1)))


@pytest.mark.parametrize("dtypes", SIGNS, ids=lambda d: f"{d[0].__name__}-{d[1].__name__}")
@pytest.mark.parametrize("groups", (1, 2, 32))
def test_extremes_do_not_saturate(backend, dtypes, groups):
    infos = [np.iinfo(dtype) for dtype in dtypes]
    corners = list(itertools.product(*((info.min, info.max) for info in infos)))
    for (left, right), zeros in itertools.product(corners, [(0, 0), *corners]):
        x, w = np.full((1, 32, 3, 4), left, dtypes[0]), np.full((32, 32 // groups, 3, 3), right, dtypes[1])
        arguments = {"padding": (1, 1), "groups": groups, "x_zero_point": zeros[0], "w_zero_point": zeros[1]}
        assert_same_bits(nq.conv2d_integer(x, w, **arguments), reference.conv2d_s32(x, w, **arguments))


TRANSPOSED = (
    # x shape, outputs, window, stride, padding, output padding, dilation, groups
    ((1, 1, 1, 1), 1, (1, 1), (1, 1), (0, 0), (0, 0), (1, 1), 1),
    ((2, 3, 4, 5), 4, (3, 3), (2, 2), (1, 1), (1, 1), (1, 1), 1),
    ((1, 4, 3, 6), 17, (2, 2), (2, 2), (0, 0), (0, 0), (1, 1), 1),
    ((1, 5, 4, 4), 6, (4, 3), (3, 1), (2, 1), (2, 0), (1, 2), 1),
    ((1, 3, 3, 2), 2, (1, 2), (3, 4), (0, 0), (0, 3), (1, 1), 1),
    ((1, 3, 4, 4), 5, (3, 2), (1, 3), (1, 0), (0, 2), (1, 1), 1),
    ((1, 2, 5, 4), 3, (3, 4), (2, 4), (2, 3), (1, 0), (2, 6), 1),
    ((2, 6, 3, 3), 4, (3, 3), (2, 1), (1, 2), (1, 0), (1, 1), 2),
    ((1, 18, 4, 3), 18, (4, 4), (2, 2), (1, 1), (0, 0), (1, 1), 18),
    ((1, 3, 4, 3), 9, (3, 3), (2, 3), (0, 0), (1, 2), (3, 1), 3),
    ((0, 3, 4, 3), 9, (3, 3), (1, 1), (0, 0), (0, 0), (1, 1), 1),
)


@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
def test_transposed_sums_are_exact(backend, rng, case):
    shape, outputs, window, stride, padding, output_padding, dilation, groups = case
    for dtypes, layout in itertools.product(SIGNS, LAYOUTS):
        x = random_codes(rng, shape, dtypes[0])
        w = random_codes(rng, (shape[1], outputs // groups, *window), dtypes[1])
        arguments = (stride, padding, output_padding, groups, dilation)
        for zeros in ((0, 0), (int(random_zero(rng, dtypes[0])), random_zero(rng, dtypes[1], outputs))):
            found = nq.conv_transpose2d_integer(in_layout(x, layout), w, *arguments, *zeros)
            assert_same_bits(found, reference.conv_transpose2d_s32(x, w, *arguments, *zeros))


@pytest.mark.parametrize("case", CONV_SHAPES[1:10], ids=str)
def test_transposed_is_the_gradient_of_the_convolution(rng, case):
    """<conv(x), y> == <x, transposed(y)> for any x and y, with what the stride leaves over as output padding."""
    x, w, geometry = integer_operands(rng, case, (np.int8, np.int8))
    y = nq.conv2d_integer(x, w, **geometry)
    g = random_codes(rng, y.shape, np.int8)
    rest = tuple(
        (x.shape[2 + i] + 2 * geometry["padding"][i] - geometry["dilation"][i] * (w.shape[2 + i] - 1) - 1)
        % geometry["stride"][i]
        for i in range(2)
    )
    dx = nq.conv_transpose2d_integer(g, w, output_padding=rest, **geometry)
    assert dx.shape == x.shape
    assert (y.astype(np.int64) * g).sum() == (dx.astype(np.int64) * x).sum()


def test_numbers_stand_for_pairs(rng):
    x, w = random_codes(rng, (1, 2, 9, 8), np.uint8), random_codes(rng, (3, 2, 3, 3), np.int8)
    found = nq.conv2d_integer(x, w, 2, np.int64(1), [2, 2])
    assert_same_bits(found, nq.conv2d_integer(x, w, (2, 2), (1, 1), (2, 2)))


# ---- Layouts and outputs ----


def test_result_has_the_layout_of_the_input(backend, rng):
    for shape in ((2, 5, 6, 7), (2, 1, 6, 7), (1, 5, 1, 7)):
        layer = ConvLayer(rng, (shape, 4, (1, 1), (1, 1), (1, 1), (1, 1), 1))
        packed, wanted = layer.packed(), layer.floats()
        for layout in LAYOUTS:
            found = layer.run(packed, layout=layout)
            assert is_channels_last(found) == (layout == "channels-last")
            assert found.flags.c_contiguous == (layout != "channels-last")
            assert_same_bits(found, wanted)


@pytest.mark.parametrize("window", [(1, 1), (3, 3)], ids=str)
def test_out_may_have_either_layout(backend, rng, window):
    layer = ConvLayer(rng, ((2, 20, 5, 6), 7, window, (1, 1), (0, 0), (1, 1), 1))
    out_qp = layer.out_qparams(rng, U8)
    for (qparams, wanted), layout in itertools.product(
        ((out_qp, layer.codes(out_qp)), (None, layer.floats())), LAYOUTS[:2]
    ):
        for out_layout in LAYOUTS[:2]:
            room = np.full((4, *wanted.shape[1:]), 77, wanted.dtype)
            room = in_layout(room, out_layout)
            found = layer.run(layer.packed(), qparams, layout=layout, out=room[1:3])
            assert np.shares_memory(found, room)
            assert_same_bits(found, wanted)
            assert (room[[0, 3]] == 77).all()


SHARED = (
    CONV_SHAPES[3],
    ((1, 64, 7, 7), 200, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((3, 40, 30, 31), 40, (3, 3), (1, 1), (1, 1), (1, 1), 40),
)


@pytest.mark.parametrize("case", SHARED, ids=str)
def test_threads_do_not_change_bits(backend, rng, threads, case):
    layer = ConvLayer(rng, case)
    out_qp = layer.out_qparams(rng, U8)
    packed, wanted, floats = layer.packed(), layer.codes(out_qp), layer.floats()
    for count in (1, 2, 4):
        threads(count)
        assert_same_bits(layer.run(packed, out_qp), wanted)
        assert_same_bits(layer.run(packed, layout="channels-last"), floats)


def test_one_weight_serves_any_use(backend, rng):
    """Packing depends on groups and dilation: a weight packed for one use is packed anew for another."""
    w = random_codes(rng, (6, 1, 3, 3), np.int8)
    packed = nq.PackedWeight(w, nq.QParams(1.0, 0, S8))
    x = random_codes(rng, (1, 6, 9, 9), np.uint8)
    x_qp = nq.QParams(1.0, 3, U8)
    for groups, dilation in ((6, 1), (1, 1), (1, 2), (2, 1), (3, (2, 1)), (6, 2)):
        channels = x[:, :groups]
        for _ in range(2):
            found = nq.conv2d_requantized(channels, x_qp, packed, groups=groups, dilation=dilation)
            sums = nq.conv2d_integer(channels, w, groups=groups, dilation=dilation, x_zero_point=3)
            assert_same_bits(found, sums.astype(np.float32))


def test_groups_of_small_and_large_weights(backend, rng):
    """Kernels for small weights exist; one group with large ones keeps all from using them."""
    for large in range(3):
        w = rng.integers(-7, 8, (6, 5, 3, 3), np.int8)
        w[2 * large, 0, 0, 0] = -128
        x = random_codes(rng, (1, 15, 5, 5), np.uint8)
        assert_same_bits(nq.conv2d_integer(x, w, groups=3), reference.conv2d_s32(x, w, groups=3))


def test_weights_are_kept(rng):
    """A layer does not change when the array of its codes does."""
    layer = ConvLayer(rng, CONV_SHAPES[1])
    packed, wanted = layer.packed(), layer.floats()
    layer.w[...] = 0
    assert_same_bits(layer.run(packed), wanted)
    assert packed.shape == layer.w.shape
    assert repr(packed).startswith("PackedWeight(4 x 3 x 3 x 3, QParams(int8, axis=0, 4 channels")


# ---- What is refused ----

X_QP, W_QP = nq.QParams(0.5, 3, U8), nq.QParams(0.25, 0, S8)
W = np.zeros((4, 6, 3, 3), np.int8)
X = np.zeros((2, 6, 5, 5), np.uint8)
PACKED = nq.PackedWeight(W, W_QP)
MATRIX = nq.PackedWeight(W[:, :, 0, 0], W_QP)


@pytest.mark.parametrize(
    "arguments, more, error, words",
    [
        ((X.astype(np.int8), X_QP, PACKED), {}, TypeError, "xq: expected codes of its QParams, uint8, got dtype int8"),
        ((X[0], X_QP, PACKED), {}, ValueError, "xq: expected 4 dimensions, got 3"),
        ((X[:, :5], X_QP, PACKED), {}, ValueError, "xq: axis 1 must have the 6 channels of the weight, got 5"),
        ((X, X_QP, W), {}, TypeError, "weight: expected a PackedWeight, got ndarray"),
        ((X, X_QP, MATRIX), {}, ValueError, r"weight: expected 4 dimensions, got shape \(4, 6\)"),
        ((X, 0.5, PACKED), {}, TypeError, "x_qparams: expected a QParams, got float"),
        ((X, X_QP, PACKED, U8), {}, TypeError, "out_qparams: expected a QParams, got QuantSpec"),
        ((X, X_QP, PACKED), {"activation": "gelu"}, ValueError, "must be None, 'relu' or 'relu6', got 'gelu'"),
        ((X, X_QP, PACKED), {"stride": 0}, ValueError, "stride: must be at least 1, got 0"),
        ((X, X_QP, PACKED), {"stride": (1, 2, 3)}, TypeError, "stride: expected an int or two of them, got .1, 2, 3."),
        ((X, X_QP, PACKED), {"padding": 1.5}, TypeError, "padding: expected an int or two of them, got 1.5"),
        ((X, X_QP, PACKED), {"padding": (1, -1)}, ValueError, "padding: must be at least 0, got -1"),
        ((X, X_QP, PACKED), {"padding": 2**40}, ValueError, "padding: must be at most 2147483647"),
        ((X, X_QP, PACKED), {"dilation": (0, 1)}, ValueError, "dilation: must be at least 1, got 0"),
        ((X, X_QP, PACKED), {"dilation": 3}, ValueError, "w: a window of 3 rows .7 with dilation 3. .* fit into the 5"),
        ((X, X_QP, PACKED), {"groups": 3}, ValueError, "groups: must divide the 4 outputs, got 3"),
        ((X, X_QP, PACKED), {"groups": 0}, ValueError, "groups: must divide the 4 outputs, got 0"),
        ((X, X_QP, PACKED), {"groups": 2}, ValueError, "xq: axis 1 must have the 12 channels of the weight, got 6"),
        ((X, X_QP, PACKED), {"out": np.zeros((2, 4, 3, 3))}, ValueError, "out: dtype must be float32, got float64"),
        ((X, X_QP, PACKED), {"out": np.zeros((2, 4, 3, 2), "f4")}, ValueError, r"out: shape must be \(2, 4, 3, 3\)"),
        (
            (X, X_QP, PACKED),
            {"out": np.zeros((2, 4, 3, 6), "f4")[..., ::2]},
            ValueError,
            "out: must be C-contiguous or channels-last",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input(arguments, more, error, words):
    with pytest.raises(error, match=words):
        nq.conv2d_requantized(*arguments, **more)


@pytest.mark.parametrize(
    "function, arguments, error, words",
    [
        (nq.conv2d_integer, (X.astype(int), W), TypeError, "x: expected int8 or uint8, got dtype int64"),
        (nq.conv2d_integer, (X, W[0]), ValueError, "w: expected 4 dimensions, got 3"),
        (nq.conv2d_integer, (X, W[:, :, :0]), ValueError, "w: a window of 0 rows"),
        (nq.conv2d_integer, (X, W, 1, 0, 1, 1, 256), ValueError, "x_zero_point: must be within the range of uint8"),
        (nq.conv2d_integer, (X, W, 1, 0, 1, 1, 0, [0] * 3), ValueError, r"w_zero_point: shape must be \(4,\)"),
        (nq.conv2d_integer, (X, W, 1, 0, 1, "a"), TypeError, "int"),
        (nq.conv_transpose2d_integer, (X, W), ValueError, "x: axis 1 must have the 4 channels of the weight, got 6"),
        (nq.conv_transpose2d_integer, (X[:, :4], W, 1, 9), ValueError, "x: 5 rows and a window of 3 give an output of"),
        (nq.conv_transpose2d_integer, (X[:, :4], W, 2, 0, 2), ValueError, "output_padding: must be less than stride 2"),
        (nq.conv_transpose2d_integer, (X[:, :4, :0], W), ValueError, "x: 0 rows"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_operands(function, arguments, error, words):
    with pytest.raises(error, match=words):
        function(*arguments)


def test_a_matrix_is_no_window_and_a_window_no_matrix():
    with pytest.raises(ValueError, match=r"weight: expected 2 dimensions, got shape \(4, 6, 3, 3\)"):
        nq.linear_integer(X[..., 0], X_QP, PACKED)


def test_out_must_not_overlap_the_input():
    memory = np.zeros((2, 6, 5, 5), np.uint8)
    packed = nq.PackedWeight(np.zeros((6, 6, 1, 1), np.int8), W_QP)
    with pytest.raises(ValueError, match="out overlaps xq"):
        nq.conv2d_requantized(memory, X_QP, packed, X_QP, out=memory)


def test_overflow_is_refused_by_channel(backend):
    bias = np.int32([0, 0, 0, 2**31 - 1])
    w = np.zeros((4, 3, 2, 2), np.int8)
    w[3, 1, 1, 0] = 1
    with pytest.raises(nq.QuantizationError, match="w: channel 3 could pass the range of int32"):
        nq.PackedWeight(w, W_QP, bias)
    bias[3] -= 128
    packed = nq.PackedWeight(w, W_QP, bias)
    x = np.zeros((1, 6, 3, 3), np.uint8)
    nq.conv2d_requantized(x, nq.QParams(0.5, 128, U8), packed, groups=2)
    with pytest.raises(nq.QuantizationError, match="w: channel 3 .* inputs with zero point 0 reach 255"):
        nq.conv2d_requantized(x, nq.QParams(0.5, 0, U8), packed, groups=2)
    long = np.zeros((1, 40000, 1, 1), np.uint8)
    with pytest.raises(nq.QuantizationError, match="w: channel 0 could pass"):
        nq.conv2d_integer(long, np.full((1, 40000, 1, 1), -128, np.int8), w_zero_point=127)
    with pytest.raises(nq.QuantizationError, match="w: channel 0 could pass"):
        nq.conv_transpose2d_integer(long, np.full((40000, 1, 1, 1), -128, np.int8), w_zero_point=127)


def endless(*shape):
    """One image in one byte."""
    return np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (1, *shape), (0,) * 4)


def test_sizes_that_no_memory_holds():
    """Broadcasting and dilation make axes of any length: an error, not a crash."""
    with pytest.raises(MemoryError):
        nq.conv2d_integer(endless(1024, 2, 2**31 - 1), np.zeros((1, 1024, 1, 2), np.int8), dilation=2**31 - 2)
    w = np.zeros((1, 1, 2, 2), np.int8)
    with pytest.raises(ValueError, match="too long for a convolution"):
        nq.conv2d_integer(endless(1, 2**40, 3), w)
    with pytest.raises((MemoryError, ValueError)):
        nq.conv2d_integer(np.zeros((1, 1, 4, 4), np.uint8), w, padding=2**31 - 1)
    with pytest.raises((MemoryError, ValueError)):
        nq.conv_transpose2d_integer(np.zeros((1, 1, 4, 4), np.uint8), w, stride=2**31 - 1)
