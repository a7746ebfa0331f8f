"""The steps of a plan, as ops append them, and the values between them. `graph.plan` says how an op does that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, prod

import numpy as np
from numpy.lib.array_utils import byte_bounds

from ..convolution import pair, transposed_geometry
from ..functional import activation_number, quantize, requantization
from ..integer import even_windows, exp_table, mask_rows, nearest_pixels, pool_windows, requantization_table
from ..layout import to_channels_first
from ..ops import Codes
from ..ops.pool import output_length, transposed_size
from ..qparams import QParams

_FLOAT32 = np.dtype(np.float32)

#: Kinds of steps by how many axes at the end of their arrays they need whole. Along all axes before these they repeat
#: their work: what lies at an index of the output depends on what lies there in the inputs. Other kinds may mix all.
_NEEDED_AXES = {
    kind: axes
    for axes, kinds in {
        0: "quantize dequantize clamp add multiply lookup add_f32 gelu_f32 place",
        1: "linear softmax layer_norm softmax_f32",
        2: "matmul",
        3: "conv2d conv_transpose2d pool resize transpose",
    }.items()
    for kind in kinds.split()
}
#: Those of them that are told how often: by their first constant, or where that is a tuple by its first length above 1.
_COUNTED = {"linear", "matmul", "conv2d", "conv_transpose2d", "pool", "resize", "transpose", "place"}


@dataclass(frozen=True)
class Value:
    """An array between steps: codes with their `QParams`, or float32.

    Attributes
    ----------
    number : int
        Of the memory, which several values may share.
    shape : tuple of int
        As the graph has it: (N, C, H, W) for images, however they lie in memory.
    dtype : dtype
    qparams : QParams or None
        None: floats.
    channels_last : bool
        The memory holds (N, H, W, C), and `shape` is (N, C, H, W).
    """

    number: int
    shape: tuple
    dtype: np.dtype
    qparams: QParams | None = None
    channels_last: bool = False

    @property
    def nbytes(self):
        """Size in bytes."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def memory_shape(self):
        """Lengths of the axes in the order in which they lie in memory."""
        if not self.channels_last:
            return self.shape
        images, channels, rows, columns = self.shape
        return images, rows, columns, channels

    def new_array(self):
        """Return an array for the memory of this value."""
        return np.empty(self.memory_shape, self.dtype)

    def unfilled(self):
        """Return a view of `shape` of an array for the memory of this value."""
        return self.seen_as_shape(self.new_array())

    def seen_as_shape(self, array):
        """Return an array of this memory as a view of `shape`."""
        array = array.reshape(self.memory_shape)
        return to_channels_first(array) if self.channels_last else array

    def wrap(self, array):
        """Return what an edge of a graph carries."""
        array = self.seen_as_shape(array)
        return array if self.qparams is None else Codes(array, self.qparams)


class Steps:
    """The list to which each node appends. Methods but `new` and `append` append what they are named after.

    They return its output.
    Codes have at most 8 bits and `QParams` per tensor. Where arguments have the names of a function of `integer` or
    `convolution`, they mean the same, and the step computes the same bits.
    """

    def __init__(self):
        self.values: list[Value] = []
        self.steps: list[tuple] = []
        self._mixes = False
        self._quantized_rows: dict[int, Value] = {}

    def new(self, shape, qparams=None, channels_last=False):
        """Return a new value: codes of `qparams`, or float32."""
        dtype = _FLOAT32 if qparams is None else qparams.spec.dtype
        self.values.append(Value(len(self.values), tuple(shape), dtype, qparams, channels_last))
        return self.values[-1]

    def append(self, kind, inputs, output, *constants):
        """Append a step and return its output, a new value; `constants` are what the core asks for of this kind."""
        self.steps.append((kind, tuple(x.number for x in inputs), output.number, *constants))
        self._note(all(self._has_examples(x, _NEEDED_AXES.get(kind, inf)) for x in (*inputs, output)))
        return output

    # ---- examples

    def examples(self, inputs, outputs):
        """Return how many examples lie along the first axis of the arrays of a call, if steps treat each alone; else 1.

        The memory of every value then has as many equal parts, and part i depends on nothing but the parts i of the
        inputs, which are the first values. Whether a step keeps that so is seen when it is appended.
        """
        lengths = {x.shape[:1] for x in (*self.values[:inputs], *outputs)}
        return 1 if self._mixes or len(lengths) != 1 else max((1, *lengths.pop()))

    def _has_examples(self, x, axes):
        """Whether `x` has the first axis of the first input, and it is none of the last `axes`."""
        return x.shape[:1] == self.values[0].shape[:1] and len(x.shape) > axes

    def _note(self, one_by_one):
        """Take note of whether a step treats each example alone."""
        self._mixes |= not one_by_one

    # ---- layout

    def reshape(self, x, shape):
        """Return the same elements in another shape: the same memory, if they lie there in the order of `x.shape`."""
        if tuple(shape) == x.shape:
            return x
        return replace(self.channels_first(x), shape=tuple(shape))

    def channels_first(self, x):
        """Return `x` with its elements in the order of its shape."""
        return self._transpose(x, False) if x.channels_last else x

    def channels_last(self, x):
        """Return images with their channels last in memory."""
        return x if x.channels_last else self._transpose(x, True)

    def _transpose(self, x, channels_last):
        images, channels, rows, columns = x.shape
        matrix = (channels, rows * columns) if channels_last else (rows * columns, channels)
        if 1 in matrix:  # either order is the same
            return replace(x, channels_last=channels_last)
        y = self.new(x.shape, x.qparams, channels_last)
        return self.append("transpose", [x], y, images, *matrix, x.dtype.itemsize)

    # ---- between floats and codes

    def quantize(self, x, qparams):
        """Return the codes of floats."""
        return self.append("quantize", [x], self.new(x.shape, qparams, x.channels_last), qparams)

    def dequantize(self, x):
        """Return what codes stand for."""
        return self.append("dequantize", [x], self.new(x.shape, None, x.channels_last), x.qparams)

    def floats(self, x):
        """Return `x`, or what its codes stand for, with its elements in the order of its shape."""
        return self.channels_first(x if x.qparams is None else self.dequantize(x))

    # ---- layers with weights

    def linear(self, x, weight, out_qparams=None, activation=None):
        """Fully connected layer on the last axis; without `out_qparams` the result is float32."""
        x = self.channels_first(x)
        y = self.new((*x.shape[:-1], weight.shape[0]), out_qparams)
        how = requantization(out_qparams)
        constants = prod(x.shape[:-1]), x.qparams, weight._packed, out_qparams, how, activation_number(activation)
        return self.append("linear", [x], y, *constants)

    def conv2d(self, x, weight, out_qparams=None, stride=1, padding=0, dilation=1, groups=1, activation=None):
        """Convolutional layer; without `out_qparams` the result is float32."""
        steps = pair(stride, "stride"), pair(padding, "padding"), pair(dilation, "dilation")
        images, _, *lengths = x.shape
        axes = zip(lengths, weight.shape[2:], *steps, strict=True)
        y = self.new((images, weight.shape[0], *(output_length(*axis) for axis in axes)), out_qparams, True)
        packed, how = weight._of_conv(groups, merged=steps[2][1] == 1), requantization(out_qparams)
        layers = x.qparams, packed, out_qparams, steps, how, activation_number(activation)
        return self.append("conv2d", [x], y, images, *lengths, x.channels_last, True, *layers)

    def conv_transpose2d(
        self,
        x,
        weight,
        out_qparams=None,
        stride=1,
        padding=0,
        output_padding=0,
        groups=1,
        dilation=1,
        activation=None,
    ):
        """Transposed convolutional layer; without `out_qparams` the result is float32."""
        steps = transposed_geometry(stride, padding, output_padding, dilation)
        images, _, *lengths = x.shape
        size = transposed_size(lengths, weight.shape[2:], *steps)
        y = self.new((images, weight.shape[0], *size), out_qparams, True)
        how = requantization(out_qparams), activation_number(activation)
        layer = x.qparams, weight._of_conv_transpose(groups, steps), out_qparams
        return self.append("conv_transpose2d", [x], y, images, *lengths, x.channels_last, True, *layer, *how)

    # ---- elementwise

    def clamp(self, x, activation):
        """Apply ``"relu"`` or ``"relu6"`` to codes, which keep their `QParams`."""
        bounds = {"relu": (0, np.inf), "relu6": (0, 6)}[activation]
        codes = (int(code) for code in quantize(np.float32(bounds), x.qparams))
        y = self.new(x.shape, x.qparams, x.channels_last)
        return self.append("clamp", [x], y, *codes, x.qparams.spec.signed)

    def add(self, a, b, out_qparams, activation=None):
        """Add codes of one shape."""
        return self._combine("add", a, b, out_qparams, activation)

    def multiply(self, a, b, out_qparams, activation=None):
        """Multiply codes of one shape."""
        return self._combine("multiply", a, b, out_qparams, activation)

    def broadcast(self, a, b):
        """Return both with their codes repeated along axes of length 1, so that they have one shape.

        None in the place of one that takes too many axes.
        """
        shape = np.broadcast_shapes(a.shape, b.shape)
        like = a if a.shape == shape else b
        return [x if x.shape == shape else self._repeat(x, shape, like.channels_last) for x in (a, b)]

    def _repeat(self, x, shape, channels_last):
        whole, y = x.unfilled(), self.new(shape, x.qparams, channels_last)
        return self._place(x, whole, np.broadcast_to(whole, shape), y, y.unfilled())

    def _combine(self, kind, a, b, out_qparams, activation):
        if a.shape != b.shape:
            raise ValueError(f"{kind}: expected operands of one shape, got {a.shape} and {b.shape}")
        if a.channels_last != b.channels_last:
            a, b = self.channels_last(a), self.channels_last(b)
        y = self.new(a.shape, out_qparams, a.channels_last)
        return self.append(kind, [a, b], y, a.qparams, b.qparams, out_qparams, activation_number(activation))

    def lookup(self, x, table, out_qparams):
        """Replace codes by entries of a table, the lowest code first."""
        y = self.new(x.shape, out_qparams, x.channels_last)
        return self.append("lookup", [x], y, table, x.qparams.spec.signed)

    def requantize(self, x, out_qparams):
        """Turn codes into codes of another grid, rounded from float32."""
        if x.qparams == out_qparams:
            return x
        return self.lookup(x, requantization_table(x.qparams, out_qparams), out_qparams)

    def matmul(self, a, b, out_qparams=None, factor=1.0):
        """Multiply matrices of codes, of the same leading axes; without `out_qparams` the result is float32."""
        a, b = self.channels_first(a), self.channels_first(b)
        sizes = prod(a.shape[:-2]), a.shape[-2], b.shape[-1], a.shape[-1]
        y = self.new((*a.shape[:-1], b.shape[-1]), out_qparams)
        return self.append("matmul", [a, b], y, *sizes, a.qparams, b.qparams, factor, out_qparams)

    # ---- rows of codes, along the last axis

    def softmax(self, x, out_qparams, table=None, mask=None):
        """Softmax of each row; `table` is what `exp_table` gives for the `QParams` of `x`."""
        x = self.channels_first(x)
        table = exp_table(x.qparams) if table is None else table
        mask = None if mask is None else mask_rows(mask, x.shape)
        self._note(mask is None or prod(x.shape[1:-1]) % max(1, len(mask)) == 0)  # the same rows for each example
        how = table, out_qparams, mask
        return self.append("softmax", [x], self.new(x.shape, out_qparams), x.shape[-1], x.qparams.spec.signed, *how)

    def layer_norm(self, x, out_qparams, weight, bias, eps=1e-5):
        """Normalize each row; `weight` and `bias` may be None."""
        x = self.channels_first(x)
        weight = np.ones(x.shape[-1], np.float32) if weight is None else weight
        bias = np.zeros(x.shape[-1], np.float32) if bias is None else bias
        how = weight, bias, eps / float(x.qparams.scale) ** 2, out_qparams
        return self.append("layer_norm", [x], self.new(x.shape, out_qparams), x.shape[-1], x.qparams.spec.signed, *how)

    # ---- floats, in float32

    def linear_rows(self, x, weight, activation=None):
        """Fully connected layer each row of whose input is quantized by its own range."""
        outputs, features = weight.shape
        x, rows = self.floats(x), prod(x.shape[:-1])
        if x.number not in self._quantized_rows:  # several layers may read them
            memory = Value(len(self.values), (_bytes_of_rows(rows, features),), np.dtype(np.uint8))
            self.values.append(memory)
            self._quantized_rows[x.number] = self.append("quantize_rows", [x], memory, rows, features)
        y, how = self.new((*x.shape[:-1], outputs)), (weight.packed, activation_number(activation))
        return self.append(weight.step, [self._quantized_rows[x.number]], y, rows, *how)

    def add_floats(self, a, b):
        """Add floats of one shape."""
        a, b = self.floats(a), self.floats(b)
        return self.append("add_f32", [a, b], self.new(a.shape))

    def softmax_floats(self, x):
        """Softmax of each row."""
        x = self.floats(x)
        return self.append("softmax_f32", [x], self.new(x.shape), x.shape[-1])

    def layer_norm_floats(self, x, length, weight, bias, eps):
        """Normalize each `length` neighbours; `weight` and `bias` may be None."""
        x = self.floats(x)
        weight = np.ones(length, np.float32) if weight is None else weight
        bias = np.zeros(length, np.float32) if bias is None else bias
        return self.append("layer_norm_f32", [x], self.new(x.shape), length, weight, bias, eps)

    def gelu(self, x, approximate="none"):
        """GELU of each element."""
        x = self.floats(x)
        return self.append("gelu_f32", [x], self.new(x.shape), approximate == "tanh")

    def attention(self, q, k, v, heads, mask=None):
        """Scaled dot-product attention."""
        q, k, v = (self.floats(x) for x in (q, k, v))
        examples, queries, features = q.shape
        sizes = examples, queries, k.shape[1], heads, features // heads
        return self.append("attention_f32", [q, k, v], self.new(q.shape), *sizes, mask)

    # ---- boxes

    def slice(self, x, index):
        """Return a part; `index` is basic and has the batch axis whole. None if it is of too many axes."""
        return self._part(x, lambda a: a[index])

    def permute(self, x, axes):
        """Return `x` with its axes in another order."""
        return self._part(x, lambda a: a.transpose(axes), keeps_layout=False)

    def _part(self, x, select, keeps_layout=True):
        whole = x.unfilled()
        part = select(whole)
        y = self.new(part.shape, x.qparams, x.channels_last and keeps_layout and part.ndim == 4)
        return self._place(x, whole, part, y, y.unfilled())

    def pad(self, x, width):
        """Surround codes with that of 0; `width` is (before, after) of each axis."""
        shape = tuple(before + n + after for (before, after), n in zip(width, x.shape, strict=True))
        y = self.new(shape, x.qparams, x.channels_last)
        inside = tuple(slice(before, before + n) for (before, _), n in zip(width, x.shape, strict=True))
        return self._into(x, y, inside, int(x.qparams.zero_point) & 0xFF)

    def concatenate(self, parts, out_qparams, axis):
        """Join codes, each of its own `QParams`, along an axis."""
        lengths = [x.shape[axis] for x in parts]
        shape = (*parts[0].shape[:axis], sum(lengths), *parts[0].shape[axis + 1 :])
        y, start = self.new(shape, out_qparams, all(x.channels_last for x in parts)), 0
        for x, length in zip(parts, lengths, strict=True):
            if (
                self._into(self.requantize(x, out_qparams), y, (slice(None),) * axis + (slice(start, start + length),))
                is None
            ):
                return None
            start += length
        return y

    def _into(self, x, y, inside, fill=-1):
        whole_in, whole_out = x.unfilled(), y.unfilled()
        return self._place(x, whole_in, whole_in, y, whole_out[inside], whole_out, fill)

    def _place(self, x, whole_in, part_in, y, part_out, whole_out=None, fill=-1):
        """Copy a part of `x` to a part of `y`; None if that takes too many axes.

        The arrays only say where the parts lie.
        """
        whole_out = part_out if whole_out is None else whole_out
        size = x.dtype.itemsize
        axes = _merged([*zip(part_in.shape, part_in.strides, part_out.strides, strict=True), (size, 1, 1)])
        if len(axes) > 4:
            return None
        lengths, in_strides, out_strides = zip(*[(1, 0, 0)] * (4 - len(axes)), *axes, strict=True)
        self._note(_within_rows(part_in, whole_in) and _within_rows(part_out, whole_out))
        offsets = (a.ctypes.data - b.ctypes.data for a, b in ((part_in, whole_in), (part_out, whole_out)))
        return self.append("place", [x], y, lengths, next(offsets), in_strides, next(offsets), out_strides, fill)

    # ---- images

    def max_pool2d(self, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
        """Largest code of each window; codes keep their `QParams`."""
        kernel, taps = pair(kernel_size, "kernel_size"), pair(dilation, "dilation")
        axes = self._axes(x, kernel, stride, padding)
        windows = [pool_windows(*axis, step, ceil_mode) for axis, step in zip(axes, taps, strict=True)]
        return self._pool(x, windows, taps, None)

    def avg_pool2d(self, x, out_qparams, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
        """Mean of each window."""
        axes = self._axes(x, pair(kernel_size, "kernel_size"), stride, padding)
        windows = [pool_windows(*axis, 1, ceil_mode, count_include_pad) for axis in axes]
        return self._pool(x, windows, (1, 1), out_qparams)

    def adaptive_avg_pool2d(self, x, out_qparams, output_size=1):
        """Mean of windows that divide each axis evenly; 1 for the whole image, None for the axis as it is."""
        sizes = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
        windows = [even_windows(n, n if m is None else m) for n, m in zip(x.shape[2:], sizes, strict=True)]
        return self._pool(x, windows, (1, 1), out_qparams)

    def resize_nearest(self, x, size):
        """Resize images to (rows, columns) by repeating or leaving out pixels; codes keep their `QParams`."""
        y = self.new((*x.shape[:2], *pair(size, "size")), x.qparams, True)
        return self.append("resize", [x], y, x.shape, x.channels_last, True, *nearest_pixels(x.shape[2:], y.shape[2:]))

    @staticmethod
    def _axes(x, kernel, stride, padding):
        strides = pair(kernel if stride is None else stride, "stride")
        return list(zip(x.shape[2:], kernel, strides, pair(padding, "padding"), strict=True))

    def _pool(self, x, windows, taps, out_qparams):
        images, channels, *_ = x.shape
        shape = (images, channels, *(w.shape[1] for w in windows))
        y = self.new(shape, out_qparams or x.qparams, True)
        how = taps, x.qparams.spec.signed, x.qparams, out_qparams
        return self.append("pool", [x], y, x.shape, x.channels_last, True, *windows, *how)


def for_examples(step, count, of):
    """Return a step for `count` of the `of` examples that `Steps.examples` has found."""
    kind, inputs, output, *constants = step
    if count == of or kind not in _COUNTED:
        return step
    first, *others = constants
    if not isinstance(first, tuple):
        return kind, inputs, output, first * count // of, *others
    axis = next(axis for axis, length in enumerate(first) if length > 1)
    return kind, inputs, output, (*first[:axis], first[axis] * count // of, *first[axis + 1 :]), *others


def _within_rows(part, whole):
    """Whether a view has as many rows as the array, each of them within that of the array."""
    if not part.size or part.shape[:1] != whole.shape[:1] or part.strides[0] != whole.strides[0]:
        return False
    (low, high), (first, last) = byte_bounds(part[0]), byte_bounds(whole[0])
    return first <= low and high <= last


def _bytes_of_rows(rows, features):
    """Return how much memory quantized rows take: scales and zero points, each from a cache line on, and codes."""
    return 2 * (-(-4 * rows // 64) * 64) + rows * features


def _merged(axes):
    """Order (length, stride in, stride out) by the stride out, and join axes that lie without gaps in both arrays."""
    merged = []
    for length, stride_in, stride_out in sorted(axes, key=lambda axis: -axis[2]):
        if length == 1:
            continue
        if merged and merged[-1][1:] == (length * stride_in, length * stride_out):
            length *= merged.pop()[0]
        merged.append((length, stride_in, stride_out))
    return merged
