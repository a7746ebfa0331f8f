"""The one list of shapes, dtypes, specs and edge values that tests run over."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import ndquant as nq

FLOATS = (np.float32, np.float64, np.float16)
PROFILES = ("default", "torch", "onnx", "textbook")
OFFSET_PROFILES = ("default", "textbook")

#: (shape, axis): sizes around vector widths and blocks of 4,096, channels first, in the middle, last, and none.
SHAPES = (
    ((), None),
    ((1,), None),
    ((0,), None),
    ((7,), None),
    ((67,), None),
    ((4099,), None),
    ((3, 5, 7), None),
    ((0, 4), 1),
    ((4, 0), 0),
    ((6, 35), 0),
    ((6, 35), 1),
    ((6, 35), -1),
    ((19, 43), 1),
    ((9, 64), -1),
    ((43, 27), 0),
    ((2, 3, 9), 1),
    ((2, 3, 9), -3),
    ((2, 5000), 0),
    ((5000, 3), 1),
    ((9, 2, 700), 1),
    ((21, 8), 0),
    ((2, 11, 16), 1),
    ((3, 5, 32), 1),
    ((5, 65), 0),
    ((21, 12), 1),
    ((37, 16), 1),
    ((50, 147), 1),
)

#: (shape, axis): few elements of a channel, then the next one. Channels that return and that do not, within a table
#: of coefficients or beyond it, within what a thread takes or beyond it.
SHORT_STRETCHES = (
    ((65, 2), 0),
    ((9000, 4), 0),
    ((450, 3), 0),
    ((300, 5), 0),
    ((700, 8), 0),
    ((130, 30), 0),
    ((40, 48), 0),
    ((2100, 16), 0),
    ((1, 1, 16), 1),
    ((5, 9), 0),
    ((11, 17), 0),
    ((400, 96), 0),
    ((7, 260), 0),
    ((2, 360, 49), 1),
    ((60, 5, 9), 1),
    ((50, 3, 7), 1),
    ((90, 100), 1),
    ((5000, 1), 1),
    ((700, 1, 5), 1),
    ((3, 700, 3), 1),
    ((3, 12, 49), 1),
    ((5, 31, 6), 1),
    ((4, 9, 12), 1),
    ((3, 20, 100), 1),
)

#: (shape, axis): so many elements until coefficients return that these are columns, of several rows at a time.
WIDE_ROWS = (
    ((70, 1100), 1),
    ((3, 9000), 1),
    ((2, 4200), -1),
    ((1, 70000), 1),
    ((6, 20000), 1),
    ((5, 300, 7), 1),
    ((9, 64, 33), 1),
    ((40, 170, 6), 1),
)

ZERO_POINTS = (0, 1, 17, 128, 255)

SPECS = (
    nq.QuantSpec(8),
    nq.QuantSpec(8, narrow_range=True),
    nq.QuantSpec(8, signed=False, symmetric=False),
    nq.QuantSpec(7, signed=False, symmetric=False),
    nq.QuantSpec(4),
    nq.QuantSpec(4, signed=False, symmetric=False),
    nq.QuantSpec(3, symmetric=False),
    nq.QuantSpec(2),
    nq.QuantSpec(1, signed=False, symmetric=False),
    nq.QuantSpec(1, symmetric=False),
)

#: Codes of 16 and 32 bits, and around where their sizes change.
WIDE_SPECS = (
    nq.QuantSpec(9),
    nq.QuantSpec(9, signed=False, symmetric=False),
    nq.QuantSpec(16),
    nq.QuantSpec(16, narrow_range=True),
    nq.QuantSpec(16, signed=False, symmetric=False),
    nq.QuantSpec(17, symmetric=False),
    nq.QuantSpec(24, signed=False),
    nq.QuantSpec(32),
    nq.QuantSpec(32, signed=False, symmetric=False),
)

OFFSET_SPECS = (
    nq.QuantSpec(4, signed=False, zero_aligned=False),
    nq.QuantSpec(1, zero_aligned=False),
    nq.QuantSpec(8, symmetric=False, narrow_range=True, zero_aligned=False),
    nq.QuantSpec(12, signed=False, symmetric=False, zero_aligned=False),
    nq.QuantSpec(32, signed=False, symmetric=False, zero_aligned=False),
    nq.QuantSpec(32, zero_aligned=False),
)

#: (shape, axis, group_size): groups along the last, the first and a middle axis; of 1, of all, and of nothing.
GROUPS = (
    ((64,), None, 16),
    ((6,), 0, 1),
    ((6, 35), -1, 7),
    ((6, 35), 1, 35),
    ((6, 35), 0, 3),
    ((2, 9, 3, 5), 1, 3),
    ((4, 12, 1), 1, 4),
    ((130, 64), -2, 65),
    ((40, 1000), 0, 20),
    ((3, 10000), -1, 5000),
    ((0, 8), -1, 4),
    ((8, 0), 0, 4),
)


def with_axis(spec, axis, group_size=None):
    """Return `spec` with that axis."""
    return replace(spec, axis=axis, group_size=group_size)


def random_qparams(rng, spec, shape, profile="default", dtype=np.float32):
    """Return scales and zero points anywhere they may be, for an array of that shape."""
    channels = scale_shape(spec, shape)
    # About the same share of the range for all widths, so that most data are inside and some outside.
    scale = (rng.uniform(0.01, 0.1, channels) * 2.0 ** (8 - max(spec.bits, 8))).astype(dtype)
    if spec.zero_aligned:
        zero_point = rng.integers(spec.qmin, spec.qmax, channels, endpoint=True)
    else:
        zero_point = rng.uniform(-2, 0, channels) - float(spec.qmin) * scale
    return nq.QParams(scale[()] if channels else dtype(scale), zero_point, spec, profile=profile)


def scale_shape(spec, shape):
    """Return the shape of the scales for an array of that shape."""
    if spec.axis is None:
        return ()
    if spec.group_size is None:
        return (shape[spec.axis],)
    axis = spec.axis % len(shape)
    return (*shape[:axis], shape[axis] // spec.group_size, *shape[axis + 1 :])


def arguments(qparams):
    """Return a `QParams` as the positional arguments of the twins in `ndquant.reference`."""
    spec = qparams.spec
    grid = spec.qmin, spec.qmax, spec.axis, qparams.profile, spec.group_size
    return qparams.scale, qparams.zero_point, *grid


def edge_values(dtype):
    """Values that formulas get wrong: zeros, NaN, infinities, the largest, the smallest, subnormals."""
    info = np.finfo(dtype)
    positive = [0.0, info.smallest_subnormal, info.tiny, info.eps, 0.5, 1.0, 1e4, info.max, np.inf, np.nan]
    return np.array(positive + [-v for v in positive], dtype)


def values(rng, shape, dtype):
    """Random data that fill a range of a few units and more, with edge values among them."""
    x = np.asarray(rng.standard_normal(shape) * 3).astype(dtype)
    edges = edge_values(dtype)
    if x.size > 3 * edges.size:
        x.reshape(-1)[rng.choice(x.size, edges.size, replace=False)] = edges
    return x


def boundary_values(qparams, dtype):
    """Values halfway between two codes and at the ends of the range, each with its neighbours of one ulp."""
    spec, kind = qparams.spec, np.dtype(dtype).type
    codes = np.arange(2 * (spec.qmin - 3), 2 * (spec.qmax + 3)) if spec.bits <= 12 else _some_half_steps(spec)
    zero, offset = (int(qparams.zero_point), 0) if spec.zero_aligned else (0, float(qparams.zero_point))
    x = ((codes / 2 - zero) * float(qparams.scale) + offset).astype(kind)
    return np.concatenate([x, np.nextafter(x, kind(-np.inf)), np.nextafter(x, kind(np.inf))])


def _some_half_steps(spec):
    """Return twice the codes and what lies between them, near the ends of wide codes and around 0."""
    near = np.arange(-300, 300)
    return np.concatenate([2 * spec.qmin + near, near, 2 * spec.qmax + near])


def assert_same_bits(found, expected):
    """Equal dtype, shape and values, with zeros of the same sign; NaN equals NaN."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)
    if found.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))

#: (M, N, K) of products: nothing, one, sizes around tiles, panels and packing runs, and those of small networks.
GEMM_SHAPES = (
    (0, 3, 5),
    (3, 0, 5),
    (3, 4, 0),
    (1, 1, 1),
    (1, 1, 2),
    (2, 3, 3),
    (1, 16, 4),
    (5, 17, 7),
    (6, 32, 8),
    (7, 33, 9),
    (12, 8, 63),
    (13, 31, 64),
    (25, 65, 65),
    (3, 5, 255),
    (4, 9, 257),
    (2, 10, 1030),
    (1, 100, 784),
    (64, 10, 100),
    (101, 48, 130),
)

#: The same for products that are multiplied in halves of rows, columns and inputs (csrc/kernels/gemm_strassen.c): below
#: and at the sizes from which that pays, odd ones, the rest of two words of inputs, and weights of two sizes. The last
#: two are cut twice: inputs in parts and panels that are cut once or not; and rests of rows and words.
GEMM_SHAPES_IN_HALVES = (
    (260, 127, 1040),
    (118, 192, 784),
    (122, 192, 784),
    (165, 161, 802),
    (133, 163, 1034),
    (128, 417, 1040),
    (131, 384, 522),
)

#: (N, K) of weights that are packed: columns around halves of panels and panels, inputs around words of four codes and
#: the blocks and parts in which kernels walk along them.
PACKED_SHAPES = (
    *((n, k) for n in (1, 7, 16, 17, 32, 33) for k in (1, 2, 3, 4, 5, 15, 16, 18, 31, 33, 61, 64, 67, 128, 130)),
    *((n, k) for n in (9, 50) for k in (511, 512, 513, 1027, 1093)),
)

#: (x shape, outputs, window, stride, padding, dilation, groups) of convolutions: one pixel, one axis, odd sizes,
#: windows as large as the image, padding larger than the window, rows too long for the cache, groups, depthwise,
#: nothing.
CONV_SHAPES = (
    ((1, 1, 1, 1), 1, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    ((2, 3, 5, 7), 4, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((1, 4, 9, 9), 17, (3, 3), (2, 2), (1, 1), (1, 1), 1),
    ((3, 16, 8, 8), 16, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((1, 3, 30, 31), 33, (7, 7), (2, 2), (3, 3), (1, 1), 1),
    ((2, 5, 1, 40), 6, (1, 5), (1, 1), (0, 2), (1, 1), 1),
    ((2, 5, 40, 1), 6, (5, 1), (3, 1), (2, 0), (1, 1), 1),
    ((1, 2, 4, 3), 3, (4, 3), (1, 1), (0, 0), (1, 1), 1),
    ((1, 2, 2, 3), 5, (2, 2), (2, 1), (5, 4), (1, 1), 1),
    ((1, 7, 13, 11), 9, (3, 2), (1, 2), (2, 3), (3, 4), 1),
    ((1, 6, 70, 9), 5, (3, 3), (1, 1), (30, 1), (30, 1), 1),
    ((2, 8, 6, 6), 12, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    ((4, 35, 1, 1), 10, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    ((2, 9, 7, 8), 12, (1, 1), (2, 3), (1, 0), (1, 1), 1),
    ((1, 12, 6, 5), 8, (3, 3), (1, 1), (1, 1), (1, 1), 4),
    ((2, 24, 6, 7), 24, (3, 3), (1, 1), (1, 1), (1, 1), 6),
    ((2, 34, 4, 5), 70, (2, 2), (1, 1), (0, 1), (2, 1), 2),
    ((1, 5, 8, 9), 5, (3, 3), (1, 1), (1, 1), (1, 1), 5),
    ((2, 40, 7, 6), 40, (5, 5), (1, 1), (2, 2), (1, 1), 40),
    ((1, 48, 7, 15), 48, (3, 3), (1, 1), (1, 1), (1, 1), 48),
    ((1, 19, 9, 8), 19, (3, 3), (2, 2), (1, 1), (2, 2), 19),
    ((1, 7, 6, 6), 21, (3, 3), (1, 2), (0, 1), (1, 1), 7),
    ((1, 20, 3, 900), 3, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((2, 37, 11, 14), 37, (3, 3), (1, 1), (0, 2), (1, 1), 1),
    ((1, 16, 60, 9), 8, (3, 3), (1, 1), (1, 0), (1, 1), 1),
    ((1, 43, 2, 45), 41, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((0, 3, 5, 5), 4, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((2, 3, 5, 5), 0, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((1, 0, 5, 5), 3, (3, 3), (1, 1), (1, 1), (1, 1), 1),
)

#: The same, depthwise: more rows than are read at once, or columns; words of rows that are full, or begin with every
#: row of the image; several outputs for each channel.
DEPTHWISE_SHAPES = (
    ((1, 66, 51, 62), 66, (3, 3), (1, 1), (1, 1), (1, 1), 66),
    ((1, 66, 53, 62), 66, (3, 3), (2, 2), (1, 1), (1, 1), 66),
    ((1, 2, 5, 4100), 2, (3, 3), (1, 1), (1, 1), (1, 1), 2),
    ((1, 3, 4, 4100), 3, (3, 3), (2, 2), (1, 2), (1, 1), 3),
    ((2, 35, 11, 9), 35, (4, 4), (1, 1), (1, 2), (1, 1), 35),
    ((1, 33, 12, 11), 33, (5, 5), (1, 1), (2, 2), (1, 1), 33),
    ((1, 31, 13, 12), 31, (5, 5), (2, 2), (2, 2), (1, 1), 31),
    ((1, 40, 15, 16), 40, (7, 3), (1, 1), (3, 1), (1, 1), 40),
    ((1, 24, 19, 10), 24, (6, 2), (1, 1), (2, 1), (3, 2), 24),
    ((1, 19, 40, 90), 57, (3, 3), (1, 1), (1, 1), (1, 1), 19),
)
