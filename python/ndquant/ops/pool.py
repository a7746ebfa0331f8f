"""Pooling: largest and mean values of windows.

Shape letters: N examples, C channels, H and W rows and columns of the input, OH and OW of the output.
"""

from __future__ import annotations

import numpy as np

from .. import integer
from .integer_layer import StoredGrid, have_integer_form, lower_to
from .record import Codes, always, register, whole_number


def pair(value, name, least=0):
    """Return (rows, columns) from one integer or two."""
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise ValueError(f"{name} must be one integer or two, not {value!r}")
        return tuple(whole_number(n, name, least) for n in value)
    return (whole_number(value, name, least),) * 2


def _window_attributes(kernel_size, stride, padding, ceil_mode):
    kernel = pair(kernel_size, "kernel_size", least=1)
    return {
        "kernel_size": kernel,
        "stride": kernel if stride is None else pair(stride, "stride", least=1),
        "padding": pair(padding, "padding"),
        "ceil_mode": bool(ceil_mode),
    }


def max_pool2d_attributes(kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Return the attributes of `max_pool2d`, checked and completed."""
    attributes = _window_attributes(kernel_size, stride, padding, ceil_mode)
    attributes["dilation"] = pair(dilation, "dilation", least=1)
    reach = tuple(d * (k - 1) + 1 for k, d in zip(attributes["kernel_size"], attributes["dilation"], strict=True))
    return _check_padding(attributes, reach)


def avg_pool2d_attributes(kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """Return the attributes of `avg_pool2d`, checked and completed."""
    attributes = _window_attributes(kernel_size, stride, padding, ceil_mode)
    attributes["count_include_pad"] = bool(count_include_pad)
    return _check_padding(attributes, attributes["kernel_size"])


def _check_padding(attributes, windows):
    """Refuse a padding of more than half the window: windows could lie in it whole."""
    for window, padding in zip(windows, attributes["padding"], strict=True):
        if 2 * padding > window:
            raise ValueError(f"padding must be at most half of the window, not {padding} for a window of {window}")
    return attributes


def adaptive_avg_pool2d_attributes(output_size):
    """Return the attributes of `adaptive_avg_pool2d`, checked and completed; None keeps an axis as it is."""
    sizes = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    if len(sizes) != 2:
        raise ValueError(f"output_size must be one integer or two, not {output_size!r}")
    return {"output_size": tuple(None if n is None else whole_number(n, "output_size", least=1) for n in sizes)}


def output_length(length, kernel, stride, padding, dilation=1, ceil_mode=False):
    """Return how many windows there are along an axis; with `ceil_mode` the last may leave the padded input."""
    room = length + 2 * padding - dilation * (kernel - 1) - 1
    if room < 0:
        span = dilation * (kernel - 1) + 1
        raise ValueError(f"a window of {span} does not fit into {length} with a padding of {padding} on both sides")
    if not ceil_mode:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - (stride * (count - 1) >= length + padding)  # a window must not begin behind the input


def transposed_size(lengths, window, stride, padding, dilation, output_padding):
    """Return the lengths of an image after a transposed convolution."""
    axes = zip(lengths, window, stride, padding, dilation, output_padding, strict=True)
    return tuple((n - 1) * step - 2 * pad + apart * (k - 1) + more + 1 for n, k, step, pad, apart, more in axes)


def _output_lengths(shape, kernel_size, stride, padding, dilation=(1, 1), ceil_mode=False):
    axes = zip(shape, kernel_size, stride, padding, dilation, strict=True)
    return tuple(output_length(*axis, ceil_mode) for axis in axes)


def max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode):
    """Largest value of each window; padding never wins, NaN always does.

    Returns
    -------
    y : ndarray, shape (N, C, OH, OW)
    saved : tuple
        For `max_pool2d_backward`: which element of its window each output is.
    """
    lengths = _output_lengths(x.shape[2:], kernel_size, stride, padding, dilation, ceil_mode)
    padded, taps = _taps(x.shape, lengths, kernel_size, stride, padding, dilation)
    values = x
    if padded != x.shape:
        values = np.full_like(x, -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min, shape=padded)
        values[_unpadded(x.shape, padding)] = x
    y = values[taps[0]].copy(order="K")
    winner = np.zeros_like(y, dtype=np.int32)
    for number, tap in enumerate(taps[1:], 1):
        candidate = values[tap]
        wins = (candidate > y) | (candidate != candidate)
        np.copyto(y, candidate, where=wins)
        np.copyto(winner, number, where=wins)
    return y, (winner, x, padded, taps, padding)


def max_pool2d_backward(dy, saved):
    """Gradient of `max_pool2d`: to the first of the largest elements of each window."""
    winner, x, padded, taps, padding = saved
    dx = np.zeros_like(x, dtype=dy.dtype, shape=padded)
    for number, tap in enumerate(taps):
        dx[tap] += np.where(winner == number, dy, dy.dtype.type(0))
    return dx if padded == x.shape else dx[_unpadded(x.shape, padding)].copy(order="K")


def _taps(shape, lengths, kernel_size, stride, padding, dilation):
    """Return the padded shape that all windows lie in, and for each position in a window the index of its elements."""
    reach, starts = [], []
    for n, count, kernel, step, pad, spread in zip(
        shape[2:], lengths, kernel_size, stride, padding, dilation, strict=True
    ):
        span = (count - 1) * step + 1
        starts.append([slice(i * spread, i * spread + span, step) for i in range(kernel)])
        reach.append(max(n + 2 * pad, (kernel - 1) * spread + span))
    taps = [(slice(None), slice(None), rows, columns) for rows in starts[0] for columns in starts[1]]
    return (*shape[:2], *reach), taps


def _unpadded(shape, padding):
    rows, columns = (slice(pad, pad + n) for n, pad in zip(shape[2:], padding, strict=True))
    return (slice(None), slice(None), rows, columns)


def _average(x, windows):
    """Average windows (start, end, divisor) along rows, then along columns."""
    for axis, parts in zip((2, 3), windows, strict=True):
        lengths = list(x.shape)
        lengths[axis] = len(parts)
        y = np.empty_like(x, shape=tuple(lengths))
        for i, (start, end, divisor) in enumerate(parts):
            part = np.add.reduce(x[_along(axis, slice(start, end))], axis=axis)
            np.divide(part, x.dtype.type(divisor), out=y[_along(axis, i)])
        x = y
    return x


def _spread(dy, x, windows):
    """Gradient of `_average` for the input `x`, in its layout."""
    for axis, parts in zip((3, 2), windows[::-1], strict=True):
        lengths = list(dy.shape)
        lengths[axis] = x.shape[axis]
        dx = np.zeros_like(x, shape=tuple(lengths))
        for i, (start, end, divisor) in enumerate(parts):
            dx[_along(axis, slice(start, end))] += dy[_along(axis, slice(i, i + 1))] / dy.dtype.type(divisor)
        dy = dx
    return dy


def _along(axis, part):
    return (slice(None),) * axis + (part,)


def average_windows(shape, kernel_size, stride, padding, ceil_mode, count_include_pad):
    """Return (start, end, divisor) of the windows of `avg_pool2d` along rows and along columns."""
    lengths = _output_lengths(shape[2:], kernel_size, stride, padding, ceil_mode=ceil_mode)
    return [
        [_average_window(i * step - pad, kernel, n, pad, count_include_pad) for i in range(count)]
        for n, count, kernel, step, pad in zip(shape[2:], lengths, kernel_size, stride, padding, strict=True)
    ]


def _average_window(start, kernel, length, padding, count_include_pad):
    padded_end = min(start + kernel, length + padding)  # what lies behind the padding counts never
    inside = max(start, 0), min(padded_end, length)
    return (*inside, padded_end - start if count_include_pad else inside[1] - inside[0])


def adaptive_windows(shape, output_size):
    """Return (start, end, divisor) of the windows of `adaptive_avg_pool2d`: they cover the input evenly."""
    windows = []
    for n, count in zip(shape[2:], output_size, strict=True):
        count = n if count is None else count
        bounds = [(i * n // count, -(-(i + 1) * n // count)) for i in range(count)]
        windows.append([(start, end, end - start) for start, end in bounds])
    return windows


def avg_pool2d(x, kernel_size, stride, padding, ceil_mode, count_include_pad):
    """Mean of each window of an N, C, H, W array."""
    return _average(x, average_windows(x.shape, kernel_size, stride, padding, ceil_mode, count_include_pad))


def adaptive_avg_pool2d(x, output_size):
    """Mean of each of OH by OW windows that cover an N, C, H, W array evenly."""
    return _average(x, adaptive_windows(x.shape, output_size))


def _max_forward(node, inputs, run):
    (x,) = inputs
    if not isinstance(x, Codes):
        return max_pool2d(x, **node.attributes)
    if run.training:
        codes, saved = max_pool2d(x.codes, **node.attributes)
        return x.like(codes), saved
    return x.like(integer.max_pool2d(x.codes, **node.attributes)), None


def _max_step(node, inputs, steps):
    (x,) = inputs
    return None if x.qparams is None else steps.max_pool2d(x, **node.attributes)


def _max_backward(node, dy, saved, need_input):
    return (max_pool2d_backward(dy, saved),), {}


def _register_average(name, windows_of, attributes, on_codes):
    def step(node, inputs, steps):
        return getattr(steps, name)(*inputs, node.out_qparams, **node.attributes)

    def forward(node, inputs, run):
        (x,) = inputs
        windows = windows_of(x.shape, **node.attributes)
        return _average(x, windows), (x, windows)

    def backward(node, dy, saved, need_input):
        return (_spread(dy, *saved),), {}

    def shape(node, shapes):
        channels, *lengths = _image(node, shapes)
        windows = windows_of((1, channels, *lengths), **node.attributes)
        return (channels, *map(len, windows))

    def integer_output(node, inputs, saved, out_qparams):
        (x,) = inputs
        if not isinstance(x, Codes) or not have_integer_form(x.qparams, out_qparams):
            return None
        return on_codes(x.codes, x.qparams, out_qparams, **node.attributes)

    def integer_forward(node, inputs, run):
        (x,), qparams = inputs, node.out_qparams
        return Codes(on_codes(x.codes, x.qparams, qparams, **node.attributes), qparams), None

    register(
        name=name,
        forward=forward,
        backward=backward,
        shape=shape,
        attributes=attributes,
        lower=lower_to(f"{name}_integer"),
        integer_output=integer_output,
    )
    register(
        name=f"{name}_integer",
        forward=integer_forward,
        backward=None,
        stores=StoredGrid,
        shape=shape,
        attributes=attributes,
        takes_codes=True,
        step=step,
    )


def _image(node, shapes):
    """Return the input shape of an op that takes images that are not empty."""
    (shape,) = shapes
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"{node.name}: takes (batch, C, H, W), not (batch, {', '.join(map(str, shape))})")
    return shape


def _max_shape(node, shapes):
    channels, *lengths = _image(node, shapes)
    return (channels, *_output_lengths(lengths, **node.attributes))


register(
    name="max_pool2d",
    forward=_max_forward,
    backward=_max_backward,
    shape=_max_shape,
    attributes=max_pool2d_attributes,
    takes_codes=True,
    keeps_codes=always,
    step=_max_step,
)


def _adaptive_avg_pool_codes(codes, qparams, out_qparams, output_size):
    sizes = tuple(length if n is None else n for length, n in zip(codes.shape[2:], output_size, strict=True))
    return integer.adaptive_avg_pool2d(codes, qparams, out_qparams, sizes)


_register_average("avg_pool2d", average_windows, avg_pool2d_attributes, integer.avg_pool2d)
_register_average(
    "adaptive_avg_pool2d", adaptive_windows, adaptive_avg_pool2d_attributes, _adaptive_avg_pool_codes
)
