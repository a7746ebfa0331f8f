"""Steps of a plan: each computes the bits of the function that it is named after, in either layout."""

import numpy as np
import pytest

import ndquant as nq
from ndquant import _core, integer, rows
from ndquant.dynamic import RowWeight, linear_rows
from ndquant.graph.plan import Plan
from ndquant.graph.steps import Steps

IN = nq.QParams(np.float32(0.037), 119, nq.QuantSpec(signed=False, symmetric=False))
OTHER = nq.QParams(np.float32(0.052), -7, nq.QuantSpec(symmetric=False))
OUT = nq.QParams(np.float32(0.061), 3, nq.QuantSpec(symmetric=False))
NARROW = nq.QParams(np.float32(0.08), 7, nq.QuantSpec(bits=4, signed=False, symmetric=False))


def floats(shape, rng=0):
    return np.random.default_rng(rng).normal(0, 3, shape).astype(np.float32)


def run(build, *arrays):
    """Run the steps that `build` appends to values for these arrays."""
    steps = Steps()
    values = [steps.new(x.shape) for x in arrays]
    output = build(steps, *values)
    return Plan(steps, {"y": output}, len(arrays), output).run(arrays)


def assert_same(given, expected):
    assert given.dtype == expected.dtype and given.shape == expected.shape
    np.testing.assert_array_equal(given, expected)


def laid_out(steps, value, channels_last):
    return steps.channels_last(value) if channels_last else value


@pytest.mark.parametrize(
    "shape", ((2, 5, 4, 3), (1, 16, 7, 9), (3, 1, 2, 2), (2, 4, 1, 1), (0, 3, 2, 2), (2, 8, 16, 8))
)
@pytest.mark.parametrize("has_codes", (False, True))
def test_images_change_their_layout_and_back(shape, has_codes):
    x = floats(shape)

    def build(steps, value):
        value = steps.quantize(value, IN) if has_codes else steps.dequantize(steps.quantize(value, IN))
        last = steps.channels_last(value)
        assert last.channels_last and last.shape == shape
        return steps.channels_first(last)

    codes = nq.quantize(x, IN)
    assert_same(run(build, x), codes if has_codes else nq.dequantize(codes, IN, dtype=np.float32))


@pytest.mark.parametrize("channels_last", (False, True))
def test_an_output_with_its_channels_last_is_seen_as_n_c_h_w(channels_last):
    x = floats((2, 3, 4, 5))
    y = run(lambda steps, value: laid_out(steps, steps.quantize(value, IN), channels_last), x)
    assert_same(y, nq.quantize(x, IN))
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous == channels_last


@pytest.mark.parametrize("channels_last", (False, True))
def test_flattening_gives_the_order_of_the_shape(channels_last):
    x = floats((2, 3, 4, 5))
    y = run(lambda steps, v: steps.reshape(laid_out(steps, steps.quantize(v, IN), channels_last), (2, 60)), x)
    assert_same(y, nq.quantize(x, IN).reshape(2, 60))


def test_flattening_one_pixel_is_a_view():
    steps = Steps()
    pooled = steps.adaptive_avg_pool2d(steps.quantize(steps.new((2, 3, 4, 5)), IN), OUT)
    flat = steps.reshape(pooled, (2, 3))
    assert pooled.channels_last and flat.number == pooled.number and flat.shape == (2, 3)


@pytest.mark.parametrize("qparams", (IN, OUT, NARROW))
@pytest.mark.parametrize("activation, highest", (("relu", np.inf), ("relu6", 6)))
def test_clamp(qparams, activation, highest):
    x = 3 * floats((7, 9))
    y = run(lambda steps, v: steps.clamp(steps.quantize(v, qparams), activation), x)
    assert_same(y, nq.quantize(np.clip(x, 0, highest), qparams))


@pytest.mark.parametrize("shape", ((5, 7), (2, 3, 5, 4), (1, 64, 16, 17)))
@pytest.mark.parametrize("layouts", ((False, False), (False, True), (True, True)))
@pytest.mark.parametrize("activation", (None, "relu", "relu6"))
@pytest.mark.parametrize("name", ("add", "multiply"))
def test_two_values(backend, name, activation, layouts, shape):
    x, y = floats(shape), floats(shape, 1)
    lasts = layouts if len(shape) == 4 else (False, False)

    def build(steps, *values):
        a, b = (steps.quantize(v, qp) for v, qp in zip(values, (IN, OTHER), strict=True))
        a, b = (laid_out(steps, v, last) for v, last in zip((a, b), lasts, strict=True))
        return getattr(steps, name)(a, b, OUT, activation)

    expected = getattr(integer, name)(nq.quantize(x, IN), IN, nq.quantize(y, OTHER), OTHER, OUT, activation)
    assert_same(run(build, x, y), expected)


@pytest.mark.parametrize("lasts", ((False, False), (False, True), (True, False)))
@pytest.mark.parametrize(
    "shapes", (((2, 5, 3, 4), (2, 5, 1, 1)), ((2, 1, 3, 4), (2, 5, 3, 1)), ((3, 4, 1), (3, 1, 7)), ((0, 4), (0, 1)))
)
def test_two_values_are_repeated_to_one_shape(backend, shapes, lasts):
    x, y = (floats(shape, i) for i, shape in enumerate(shapes))

    def build(steps, a, b):
        a, b = (steps.quantize(v, qp) for v, qp in ((a, IN), (b, OTHER)))
        if x.ndim == 4:
            a, b = (laid_out(steps, v, last) for v, last in zip((a, b), lasts, strict=True))
        a, b = steps.broadcast(a, b)
        assert a.shape == b.shape == np.broadcast_shapes(*shapes)
        return steps.add(a, b, OUT)

    operands = np.broadcast_arrays(nq.quantize(x, IN), nq.quantize(y, OTHER))
    assert_same(run(build, x, y), integer.add(operands[0], IN, operands[1], OTHER, OUT))


def test_two_values_of_different_shapes_are_refused():
    steps = Steps()
    a, b = (steps.quantize(steps.new(shape), IN) for shape in ((2, 3), (3, 2)))
    with pytest.raises(ValueError, match=r"one shape, got \(2, 3\) and \(3, 2\)"):
        steps.add(a, b, OUT)


POOLS = (
    {"kernel_size": 2},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
)


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("window", (*POOLS, {"kernel_size": 2, "dilation": 2}))
def test_max_pool(backend, window, channels_last):
    x = floats((2, 5, 9, 8))
    y = run(lambda steps, v: steps.max_pool2d(laid_out(steps, steps.quantize(v, OUT), channels_last), **window), x)
    assert_same(y, integer.max_pool2d(nq.quantize(x, OUT), **window))


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("window", (*POOLS, {**POOLS[1], "count_include_pad": False}))
def test_mean_pool(backend, window, channels_last):
    x = floats((2, 5, 9, 8))
    y = run(lambda steps, v: steps.avg_pool2d(laid_out(steps, steps.quantize(v, IN), channels_last), OUT, **window), x)
    assert_same(y, integer.avg_pool2d(nq.quantize(x, IN), IN, OUT, **window))


@pytest.mark.parametrize("size", (1, (2, 3), (None, 1)))
def test_adaptive_mean_pool(backend, size):
    x = floats((2, 5, 9, 8))
    y = run(lambda steps, v: steps.adaptive_avg_pool2d(steps.quantize(v, IN), OUT, size), x)
    whole = (9 if size == (None, 1) else size[0], size[1]) if isinstance(size, tuple) else size
    assert_same(y, integer.adaptive_avg_pool2d(nq.quantize(x, IN), IN, OUT, whole))


@pytest.mark.parametrize("channels_last", (False, True))
def test_resize(backend, channels_last):
    x = floats((2, 5, 3, 4))
    y = run(lambda steps, v: steps.resize_nearest(laid_out(steps, steps.quantize(v, IN), channels_last), (7, 2)), x)
    assert_same(y, integer.resize_nearest(nq.quantize(x, IN), (7, 2)))


@pytest.mark.parametrize("qparams", (IN, OUT))
def test_other_grids(backend, qparams):
    x = floats((2, 5, 3, 4))
    y = run(lambda steps, v: steps.requantize(steps.quantize(v, qparams), OTHER), x)
    assert_same(y, nq.requantize(nq.quantize(x, qparams), qparams, OTHER))


def test_the_same_grid_takes_no_step():
    steps = Steps()
    x = steps.quantize(steps.new((2, 3)), IN)
    assert steps.requantize(x, IN) is x


@pytest.mark.parametrize("shape, channels_last", (((4, 7), False), ((2, 3, 5, 6), False), ((2, 3, 5, 6), True)))
def test_rows(backend, shape, channels_last):
    x, fine = floats(shape), nq.QParams(np.float32(1 / 256), 0, nq.QuantSpec(signed=False, symmetric=False))
    weight, bias = floats(shape[-1:], 1), floats(shape[-1:], 2)
    given = nq.quantize(x, OUT)
    y = run(lambda steps, v: steps.softmax(laid_out(steps, steps.quantize(v, OUT), channels_last), fine), x)
    assert_same(y, integer.softmax(given, OUT, fine))
    y = run(
        lambda steps, v: steps.layer_norm(
            laid_out(steps, steps.quantize(v, OUT), channels_last), OTHER, weight, bias, 0.1
        ),
        x,
    )
    assert_same(y, integer.layer_norm(given, OUT, OTHER, weight, bias, 0.1))


def test_layers_that_quantize_rows_share_them(backend):
    x, steps = floats((2, 5, 9)), Steps()
    weights = [RowWeight.of(floats((n, 9), n), floats(n)) for n in (4, 6)]
    value = steps.new(x.shape)
    values = tuple(steps.linear_rows(value, weight, how) for weight, how in zip(weights, (None, "relu6"), strict=True))
    found = Plan(steps, {"y": values}, 1, values).run([x])
    assert [kind for kind, *_ in steps.steps] == ["quantize_rows", "linear_rows", "linear_rows"]
    for y, weight, how in zip(found, weights, (None, "relu6"), strict=True):
        assert_same(y, linear_rows(x, weight, how))


@pytest.mark.parametrize("channels_last", (False, True))
def test_floats(backend, channels_last):
    x, weight, bias = floats((2, 3, 5, 6)), floats((6,), 1), floats((6,), 2)

    def applied(build, *arrays):
        return run(lambda steps, *values: build(steps, *(laid_out(steps, v, channels_last) for v in values)), *arrays)

    assert_same(applied(lambda s, v: s.softmax_floats(v), x), rows.softmax(x))
    assert_same(applied(lambda s, v: s.add_floats(v, v), x), x + x)
    assert_same(
        applied(lambda s, v: s.layer_norm_floats(v, 6, weight, bias, 0.1), x), rows.layer_norm(x, weight, bias, 0.1)[0]
    )
    whole = applied(lambda s, v: s.layer_norm_floats(v, 30, None, None, 0.1), x)
    assert_same(whole.reshape(-1, 30), rows.layer_norm(x.reshape(-1, 30), eps=0.1)[0])
    for how in ("none", "tanh"):
        assert_same(applied(lambda s, v, how=how: s.gelu(v, how), x), rows.gelu(x, how))
    assert_same(applied(lambda s, v: s.permute(v, (0, 2, 3, 1)), x), np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    index = slice(None), 1, slice(None, None, 2), slice(1, 4)
    assert_same(applied(lambda s, v: s.slice(v, index), x), np.ascontiguousarray(x[index]))


@pytest.mark.parametrize("mask", (None, (1, 4, 7), (2, 4, 7)))
def test_attention(backend, mask):
    q, k, v = floats((2, 4, 6)), floats((2, 7, 6), 1), floats((2, 7, 6), 2)
    mask = None if mask is None else np.where(floats(mask, 3) > 2, -np.inf, 0)
    found = run(lambda steps, *values: steps.attention(*values, 3, mask), q, k, v)
    assert_same(found, rows.attention(q, k, v, 3, mask)[0])


@pytest.mark.parametrize("out_qparams", (None, OUT))
def test_products_of_two_values(backend, out_qparams):
    a, b = floats((2, 3, 4, 5)), floats((2, 3, 5, 6), 1)

    def build(steps, *values):
        qa, qb = (steps.quantize(v, qp) for v, qp in zip(values, (IN, OTHER), strict=True))
        return steps.matmul(laid_out(steps, qa, True), qb, out_qparams, 0.25)

    codes = nq.quantize(a, IN), IN, nq.quantize(b, OTHER), OTHER
    assert_same(run(build, a, b), integer.matmul(*codes, out_qparams, 0.25))


def test_a_mask_of_probabilities(backend):
    x, mask = floats((2, 3, 5, 6)), floats((5, 6), 1) > 1
    fine = nq.QParams(np.float32(1 / 256), 0, nq.QuantSpec(signed=False, symmetric=False))
    y = run(lambda steps, v: steps.softmax(steps.quantize(v, OUT), fine, mask=mask), x)
    assert_same(y, integer.softmax(nq.quantize(x, OUT), OUT, fine, mask=mask))


def packed(shape, rng=0, bias=True):
    rng = np.random.default_rng(rng)
    qparams = nq.QParams(rng.uniform(0.004, 0.02, shape[0]).astype(np.float32), 0, nq.QuantSpec(axis=0))
    codes = rng.integers(-127, 128, shape).astype(np.int8)
    return nq.PackedWeight(codes, qparams, rng.integers(-2000, 2000, shape[0]) if bias else None)


CONVOLUTIONS = {
    "3x3": ((6, 5, 3, 3), {"padding": 1}),
    "1x1": ((20, 5, 1, 1), {}),
    "1x1, stride 2": ((20, 5, 1, 1), {"stride": 2}),
    "dilated": ((6, 5, 3, 2), {"dilation": (2, 3), "padding": (0, 1)}),
    "5x5": ((17, 5, 5, 5), {"stride": (2, 1), "padding": 2}),
    "groups": ((10, 1, 3, 3), {"groups": 5, "padding": 1}),
    "depthwise": ((5, 1, 3, 3), {"groups": 5, "stride": 2, "padding": 1}),
}


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("out_qparams", (None, OUT))
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(backend, name, out_qparams, channels_last):
    shape, how = CONVOLUTIONS[name]
    x, weight = floats((2, 5, 9, 8)), packed(shape)

    def build(steps, value):
        return steps.conv2d(laid_out(steps, steps.quantize(value, IN), channels_last), weight, out_qparams, **how)

    assert_same(run(build, x), nq.conv2d_requantized(nq.quantize(x, IN), IN, weight, out_qparams, **how))


TRANSPOSED = {
    "3x3": ((6, 5, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    "2x2": ((17, 5, 2, 2), {"stride": (2, 3)}),
    "dilated": ((6, 5, 3, 2), {"dilation": (2, 3), "padding": (0, 1)}),
    "groups": ((10, 1, 3, 3), {"groups": 5, "stride": 2}),
}


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("out_qparams", (None, OUT))
@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolution(backend, name, out_qparams, channels_last):
    shape, how = TRANSPOSED[name]
    x, weight = floats((2, 5, 9, 8)), packed(shape)

    def build(steps, value):
        value = laid_out(steps, steps.quantize(value, IN), channels_last)
        return steps.conv_transpose2d(value, weight, out_qparams, activation="relu", **how)

    expected = nq.conv_transpose2d_requantized(nq.quantize(x, IN), IN, weight, out_qparams, activation="relu", **how)
    assert_same(run(build, x), expected)


INDICES, ROWS = np.zeros((1, 2), np.int32), RowWeight.of(floats((4, 5)), None)
LAYER = packed((5, 5, 1, 1))._of_conv_transpose(1, ((1, 1), (0, 0), (1, 1), (0, 0)))


@pytest.mark.parametrize(
    "kind, constants",
    (
        ("resize", ((1, 5, 3, 4), True, True, INDICES, INDICES + 4)),
        ("resize", ((1, 5, 3, 4), True, True, INDICES, INDICES[:, :1])),
        ("resize", ((1, 5, 4, 4), True, True, INDICES, INDICES)),
        ("resize", ((1, -5, -3, 4), True, True, INDICES, INDICES)),
        ("softmax", (7, True, np.zeros(256, np.uint32), OUT, None)),
        ("softmax", (0, True, np.zeros(256, np.uint32), OUT, None)),
        ("softmax", (5, True, np.zeros(255, np.uint32), OUT, None)),
        ("softmax", (5, True, np.zeros(256, np.uint32), OUT, np.zeros((7, 5), np.uint8))),
        ("softmax", (5, True, np.zeros(256, np.uint32), OUT, np.zeros((4, 5)))),
        ("matmul", (3, 4, 3, 6, IN, IN, 1.0, IN)),
        ("matmul", (3, 4, 4, 5, IN, IN, 1.0, None)),
        ("matmul", (-3, -4, 4, 5, IN, IN, 1.0, IN)),
        ("matmul", (2**62, 4, 4, 5, IN, IN, 1.0, IN)),
        ("matmul", (1, 4, 4, 2**20, IN, IN, 1.0, IN)),
        ("layer_norm", (5, True, np.ones(4), np.ones(5), 0.1, OUT)),
        ("layer_norm", (5, True, np.ones(5), np.ones(6), 0.1, OUT)),
        ("layer_norm", (-5, True, np.ones(5), np.ones(5), 0.1, OUT)),
        ("pool", ((1, 5, 3, 4), True, True, np.int32([[0], [4], [1]]), np.int32([[0], [4], [1]]), (1, 1), 0, IN, None)),
        ("transpose", (1, 5, 12, 2)),
        ("transpose", (1, 2**62, 4, 4)),
        ("add", (IN, IN, None, 0)),
        ("quantize_rows", (3, 6)),
        ("quantize_rows", (-3, -5)),
        ("quantize_rows", (2**62, 2**62)),
        ("linear_rows", (3, ROWS._packed, 0)),
        ("linear_rows", (3, packed((4, 5))._packed, 0)),
        ("linear_rows", (-1, ROWS.packed, 0)),
        ("softmax_f32", (4,)),
        ("softmax_f32", (0,)),
        ("softmax_f32", (2**62,)),
        ("layer_norm_f32", (5, np.ones(4), np.ones(5), 0.1)),
        ("layer_norm_f32", (4, np.ones(4), np.ones(4), 0.1)),
        ("add_f32", ()),
        ("attention_f32", (1, 3, 3, 1, 4, None)),
        ("attention_f32", (1, 3, 3, 1, 5, np.zeros((1, 3, 2)))),
        ("attention_f32", (1, 3, 3, 2**62, 4, None)),
        ("attention_f32", (1, 3, 3, -1, -5, None)),
        ("conv_transpose2d", (1, 3, 5, True, True, IN, LAYER, OUT, 0, 0)),
        ("conv_transpose2d", (1, -3, -4, True, True, IN, LAYER, OUT, 0, 0)),
        ("conv_transpose2d", (1, 0, 4, True, True, IN, LAYER, OUT, 0, 0)),
        ("conv_transpose2d", (2**62, 3, 4, True, True, IN, LAYER, OUT, 0, 0)),
        ("conv_transpose2d", (1, 3, 4, True, True, IN, LAYER, None, 0, 0)),
        ("conv_transpose2d", (1, 3, 4, True, True, IN, packed((5, 5, 1, 1)), OUT, 0, 0)),
    ),
)
def test_a_wrong_description_is_refused(kind, constants):
    sizes = (60, 20) if kind in ("resize", "add_f32") else (60, 60)
    inputs = (0,) * {"add": 2, "add_f32": 2, "matmul": 2, "attention_f32": 3}.get(kind, 1)
    with pytest.raises((ValueError, TypeError)):
        _core.make_plan(sizes, (), 0, ((kind, inputs, 1, *constants),))


def test_a_small_network_of_all_of_them(backend):
    x, layers = floats((3, 3, 16, 15)), [packed(s, i) for i, s in enumerate(((8, 3, 3, 3), (8, 1, 3, 3), (10, 8)))]

    def build(steps, value):
        a = steps.conv2d(steps.quantize(value, IN), layers[0], OUT, stride=2, padding=1, activation="relu")
        b = steps.conv2d(a, layers[1], OTHER, padding=1, groups=8)
        c = steps.max_pool2d(steps.add(a, b, IN, "relu"), 2)
        return steps.linear(steps.reshape(steps.adaptive_avg_pool2d(c, OUT), (3, 8)), layers[2])

    a = nq.conv2d_requantized(nq.quantize(x, IN), IN, layers[0], OUT, 2, 1, activation="relu")
    b = nq.conv2d_requantized(a, OUT, layers[1], OTHER, padding=1, groups=8)
    c = integer.max_pool2d(integer.add(a, OUT, b, OTHER, IN, "relu"), 2)
    pooled = integer.adaptive_avg_pool2d(c, IN, OUT, 1).reshape(3, 8)
    assert_same(run(build, x), nq.linear_integer(pooled, OUT, layers[2]))
