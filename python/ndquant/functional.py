"""One short function per entry point of the C core: arrays in, arrays out.

They may be called from several Python threads at once: each call writes its own results and nothing else. Two calls at
once must not write one `out`, nor may any write what another reads: as with NumPy's functions nothing prevents it, and
what the array then holds is a mixture.
"""

from __future__ import annotations

import math

import numpy as np

from . import _core
from .errors import QuantizationError
from .profiles import PROFILES
from .qparams import QParams


def quantize(x, qparams, out=None):
    """Round floats to codes: ``clamp(zero_point + rint(x / scale))``, by the profile of `qparams`.

    Parameters
    ----------
    x : array_like of float
        Any strides and byte order; per channel, `x` has one element per channel along the axis of `qparams`, per group
        ``group_size`` for each scale. NaN becomes the lowest code, infinities the lowest and the highest. A new array
        gets the memory order of `x`. Here and in all functions, bfloat16, float8_e4m3fn and float8_e5m2 of ml_dtypes
        are taken as float32.
    qparams : QParams
    out : ndarray, optional
        Filled and returned: C-contiguous, of the shape of `x` and the dtype of ``qparams.spec``. If several threads
        write one `out` at a time, what it holds is a mixture.

    Returns
    -------
    ndarray of int, shape of `x`
        Of ``qparams.spec.dtype``.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> qp = nq.QParams(0.5, 10, nq.QuantSpec(bits=8, signed=False, symmetric=False))
    >>> nq.quantize(np.array([-9.0, 0.0, 0.25, 0.75, 200.0]), qp)
    array([  0,  10,  10,  12, 255], dtype=uint8)
    """
    return _core.quantize(x, qparams, out)


def dequantize(q, qparams, dtype=None, out=None):
    """Return the values that codes stand for: ``scale * (q - zero_point)``.

    With ``zero_aligned=False`` that is ``scale * q + zero_point``.

    Parameters
    ----------
    q : array_like of int
        Codes; integers of another size than ``qparams.spec.dtype`` are accepted if all values fit that size, signed or
        unsigned.
    qparams : QParams
    dtype : dtype, optional
        A floating-point dtype, in which this is computed; by default that of the scale. Codes of more than 16 bits are
        computed in float64 and then rounded to it.
    out : ndarray, optional
        Filled and returned: C-contiguous, of the shape of `q` and of `dtype`.

    Returns
    -------
    ndarray of float, shape of `q`

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> qp = nq.QParams(0.5, 10, nq.QuantSpec(bits=8, signed=False, symmetric=False))
    >>> nq.dequantize(np.array([0, 10, 11, 255], np.uint8), qp)
    array([ -5. ,   0. ,   0.5, 122.5])
    """
    return _core.dequantize(q, qparams, dtype, out)


def requantize(q, from_qparams, to_qparams, out=None):
    """Turn codes into codes of another grid, in one pass: ``quantize(dequantize(q, from_qparams), to_qparams)``.

    Parameters
    ----------
    q : array_like of int
        Codes of `from_qparams`; see `dequantize`.
    from_qparams, to_qparams : QParams
        Values between the two have the dtype of the scale of `from_qparams`; they are rounded by the profile of
        `to_qparams`.
    out : ndarray, optional
        Filled and returned: C-contiguous, of the shape of `q` and the dtype of ``to_qparams.spec``. It may be `q`
        itself if the itemsizes agree.

    Returns
    -------
    ndarray of int, shape of `q`
        Of ``to_qparams.spec.dtype``.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> eight, four = nq.QParams(0.5, 10, nq.QuantSpec(symmetric=False)), nq.QParams(2.0, 0, nq.QuantSpec(bits=4))
    >>> nq.requantize(np.int8([6, 10, 14, 127]), eight, four)
    array([-1,  0,  1,  7], dtype=int8)
    """
    check_qparams(from_qparams, "from_qparams")
    check_qparams(to_qparams, "to_qparams")
    return _core.requantize(q, from_qparams, to_qparams, out)


def fake_quantize(x, qparams, out=None):
    """Round floats to the values of their codes, in one pass: ``dequantize(quantize(x))`` in the dtype of `x`.

    Parameters
    ----------
    x : array_like of float
    qparams : QParams
    out : ndarray, optional
        Filled and returned: C-contiguous, of the shape and dtype of `x`. It may be `x` itself.

    Returns
    -------
    ndarray, shape and dtype of `x`

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> qp = nq.QParams(0.5, 0, nq.QuantSpec(bits=4))
    >>> nq.fake_quantize(np.array([-9.0, 0.3, 0.7, 200.0]), qp)
    array([-4. ,  0.5,  0.5,  3.5])
    """
    return _core.fake_quantize(x, qparams, out)


def fake_quantize_backward(dy, x, qparams, out=None):
    """Straight-through gradient of `fake_quantize`: `dy` where `x` is in range, 0 where it was clipped.

    Parameters
    ----------
    dy : array_like of float, shape of `x`
        Gradient of the output.
    x : array_like of float
        The input of `fake_quantize`.
    qparams : QParams
    out : ndarray, optional
        Filled and returned: C-contiguous, of the shape and dtype of `x`. It may be `dy` or `x` itself.

    Returns
    -------
    ndarray, shape and dtype of `x`

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> qp = nq.QParams(0.5, 0, nq.QuantSpec(bits=4))
    >>> nq.fake_quantize_backward(np.array([1.0, 2.0, 3.0]), np.array([-9.0, 0.3, 200.0]), qp)
    array([0., 2., 0.])
    """
    return _core.fake_quantize_backward(dy, x, qparams, out)


def fake_quantize_with_grad(x, dy, qparams, out=None):
    """Return `fake_quantize` and `fake_quantize_backward` from one pass over memory.

    Parameters
    ----------
    x, dy : array_like of float
        Of one shape.
    qparams : QParams
    out : tuple of two ndarrays, optional
        Filled and returned: C-contiguous, of the shape and dtype of `x`.

    Returns
    -------
    y, dx : ndarray, shape and dtype of `x`

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> qp = nq.QParams(0.5, 0, nq.QuantSpec(bits=4))
    >>> y, dx = nq.fake_quantize_with_grad(np.array([-9.0, 0.3]), np.array([1.0, 2.0]), qp)
    >>> y, dx
    (array([-4. ,  0.5]), array([0., 2.]))
    """
    return _core.fake_quantize_with_grad(x, dy, qparams, out)


def fake_quantize_learnable_backward(dy, x, qparams, grad_factor=None, out=None):
    """Gradients of `fake_quantize` with respect to `x`, to scale and to zero point (LSQ, LSQ+).

    With y the output: in range ``dscale = dy * (y - x) / scale``, else ``dy`` times the distance of the bound from the
    zero point; outside the range ``dzero_point = -dy * scale``. Both are added up per channel, in float64 and in an
    order that does not depend on the number of threads, and multiplied by `grad_factor`.

    Parameters
    ----------
    dy : array_like of float, shape of `x`
    x : array_like of float
    qparams : QParams
    grad_factor : float, optional
        By default ``1 / sqrt(n * qmax)``, n the number of elements that share a scale.
    out : ndarray, optional
        For `dx`: C-contiguous, of the shape and dtype of `x`. It may be `dy` or `x` itself.

    Returns
    -------
    dx : ndarray, shape and dtype of `x`
        The straight-through gradient.
    dscale, dzero_point : shape and dtype of ``qparams.scale``
        With ``zero_aligned=False`` the second is that of the float offset: `dy` outside the range.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> qp = nq.QParams(0.5, 0, nq.QuantSpec(bits=4))
    >>> dx, dscale, dzero_point = nq.fake_quantize_learnable_backward(
    ...     np.array([1.0, 2.0]), np.array([-9.0, 0.25]), qp, grad_factor=1)
    >>> dx, float(dscale), float(dzero_point)
    (array([0., 2.]), -9.0, -0.5)
    """
    return _core.fake_quantize_learnable_backward(dy, x, qparams, grad_factor, out)


def quantize_bias(bias, x_scale, w_scale):
    """Quantize the bias of an integer layer to int32 at the scale of its sums.

    That scale is the float32 product ``s = x_scale * w_scale``, and a code is ``rint(bias / s)`` in float64. A weight
    scale too small for its bias is raised first: ``max(w_scale, max|bias| / (x_scale * 2^30), 2^-126 / x_scale)``, per
    channel with its own bias. Otherwise a tiny weight under a large bias would lose the bias
    (https://github.com/microsoft/onnxruntime/issues/22020).

    Parameters
    ----------
    bias : ndarray of float, shape (N,), or None
    x_scale : float
    w_scale : ndarray of float32 or float64, shape () or (N,)

    Returns
    -------
    codes : ndarray of int32, shape (N,), or None without a bias
    raised : ndarray like `w_scale`, or None
        None: no scale was too small.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant.functional import quantize_bias
    >>> quantize_bias(np.array([1.0, -0.3]), 0.5, np.array(0.25))
    (array([ 8, -2], dtype=int32), None)
    """
    return _core.quantize_bias(bias, x_scale, w_scale)


def matmul_integer(a, b, a_zero_point=0, b_zero_point=0, out=None):
    """Exact product of 8-bit matrices: ``(a - a_zero_point) @ (b - b_zero_point)`` in int32.

    Parameters
    ----------
    a : ndarray of int8 or uint8, shape (..., K)
    b : ndarray of int8 or uint8, shape (K, N)
        It is packed at each call; for weights that are used again make a `PackedWeight`.
    a_zero_point : int, default 0
        A code of the dtype of `a`.
    b_zero_point : int or array of int, shape (N,), default 0
        Codes of the dtype of `b`.
    out : ndarray of int32, shape (..., N), optional

    Returns
    -------
    ndarray of int32, shape (..., N)

    Raises
    ------
    TypeError, ValueError
        If a dtype or a shape does not fit, or a zero point is no code.
    QuantizationError
        If a sum could pass the range of int32; the message names the column.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> a, b = np.uint8([[200, 100]]), np.int8([[1, -2], [3, 4]])
    >>> nq.matmul_integer(a, b, a_zero_point=100)
    array([[ 100, -200]], dtype=int32)
    """
    try:
        return _core.matmul_integer(a, b, a_zero_point, b_zero_point, out)
    except OverflowError as error:
        raise QuantizationError(str(error)) from None


class PackedWeight:
    """The weight and bias of a layer in the layout of the kernel that multiplies them. Immutable.

    It keeps its kernel: after a change of backend it is still multiplied by the one it was made for.

    Parameters
    ----------
    w : ndarray of int8 or uint8, shape (N, K) or (N, C, KH, KW)
        Codes in any strides: N outputs by K inputs for `linear_integer`, or by C channels of a group and KH x KW taps
        for `conv2d_requantized` and `conv_transpose2d_requantized`.
    w_qparams : QParams
        Per tensor, or per channel on axis 0.
    bias : ndarray, shape (N,), optional
        Integers at the scale of the sums, ``x_scale * w_scale``; in profile `torch` floats.

    Attributes
    ----------
    shape : tuple of int
    w_qparams : QParams
    bias : ndarray of int32 (float32 in profile `torch`) or None
        A copy that nobody can write to.

    Raises
    ------
    TypeError, ValueError
        If a dtype, a shape or the axis does not fit.
    QuantizationError
        If a sum could pass the range of int32; the message names the channel.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> qp = nq.QParams([0.5, 0.25], 0, nq.QuantSpec(axis=0))
    >>> nq.PackedWeight(np.int8([[1, 2, 3], [4, 5, 6]]), qp)
    PackedWeight(2 x 3, QParams(int8, axis=0, 2 channels, scale 0.25..0.5))
    """

    __slots__ = ("_bias", "_codes", "_layouts", "_packed", "_w_qparams")

    def __init__(self, w, w_qparams, bias=None):
        check_qparams(w_qparams, "w_qparams")
        if bias is not None:
            bias = _own_bias(bias, w_qparams)
        self._packed, self._bias, self._w_qparams = None, bias, w_qparams
        if getattr(w, "ndim", None) == 4:
            self._codes, self._layouts = np.array(w), {}
            is_depthwise = w.shape[1] == 1 and w.shape[0] > 0
            self._of_conv(w.shape[0] if is_depthwise else 1, merged=True)
            return
        try:
            self._packed = _core.pack_matrix(w, w_qparams, bias)
        except OverflowError as error:
            raise QuantizationError(str(error)) from None

    @classmethod
    def _of_core(cls, packed, w_qparams, bias):
        """Wrap what a function of the core has packed."""
        weight = cls.__new__(cls)
        weight._packed, weight._bias, weight._w_qparams = packed, bias, w_qparams
        return weight

    def _of_conv(self, groups, merged):
        """Return what `_core.pack_conv` makes of the weights for a layer.

        It depends on how the layer uses them. The constructor expects no groups, or a depthwise layer; the codes are
        kept for any other use.
        """
        if self._packed is not None:
            raise ValueError(f"weight: expected 4 dimensions, got shape {self.shape}")
        merged = merged and groups == 1
        packed = self._layouts.get((groups, merged))
        if packed is None:
            try:
                packed = _core.pack_conv(self._codes, self._w_qparams, self._bias, groups, merged)
            except OverflowError as error:
                raise QuantizationError(str(error)) from None
            self._layouts[groups, merged] = packed
        return packed

    def _of_conv_transpose(self, groups, geometry):
        """Return the same of `_core.pack_conv_transpose`, whose layout depends on all steps too."""
        if self._packed is not None:
            raise ValueError(f"weight: expected 4 dimensions, got shape {self.shape}")
        packed = self._layouts.get((groups, geometry))
        if packed is None:
            try:
                packed = _core.pack_conv_transpose(self._codes, self._w_qparams, self._bias, groups, geometry)
            except OverflowError as error:
                raise QuantizationError(str(error)) from None
            self._layouts[groups, geometry] = packed
        return packed

    @property
    def shape(self):
        """Outputs and inputs, or outputs, channels of a group, rows and columns."""
        return self._codes.shape if self._packed is None else self._packed.shape

    @property
    def bias(self):
        """The bias that integer sums get, or None."""
        return self._bias

    @property
    def w_qparams(self):
        """Scale and zero point of the codes."""
        return self._w_qparams

    def __reduce__(self):
        raise TypeError("PackedWeight belongs to the machine that made it: pickle the codes and pack them again")

    def __repr__(self):
        shape = " x ".join(map(str, self.shape))
        return f"PackedWeight({shape}, {self.w_qparams!r}{'' if self.bias is None else ', bias'})"


def quantize_weight(w, b, x_scale, spec, profile="default"):
    """Quantize and pack a weight by its own extremes, with its bias: what training does at every step, in one call.

    The same bits as ``choose_qparams(w, spec)``, `quantize_bias`, `quantize` and `PackedWeight` one after another.

    Parameters
    ----------
    w : ndarray of float32, shape (N, K)
    b : ndarray of float, shape (N,), or None
    x_scale : float
        Of the input of the layer.
    spec : QuantSpec
        Per tensor, or per channel on axis 0.
    profile : str, default "default"
        One whose bias is int32 and whose rounding multiplies.

    Returns
    -------
    codes : ndarray of int8 or uint8, shape (N, K)
    weight : PackedWeight

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant.functional import quantize_weight
    >>> codes, weight = quantize_weight(np.float32([[1.27, -0.5]]), None, 0.1, nq.QuantSpec())
    >>> codes, weight.w_qparams
    (array([[127, -50]], dtype=int8), QParams(int8, scale=0.01, zero_point=0))
    """
    if not spec.is_byte_grid:
        raise ValueError(f"spec: integer layers take up to 8 bits, zero_aligned=True and no groups, got {spec}")
    rule, per_channel = PROFILES[profile].range_rule, spec.axis is not None
    try:
        codes, scale, zero_point, params, bias, packed = _core.quantize_weight(
            w, b, x_scale, *spec._grid, rule, per_channel
        )
    except OverflowError as error:
        raise QuantizationError(str(error)) from None
    return codes, PackedWeight._of_core(packed, QParams._of_core(scale, zero_point, spec, profile, params), bias)


def check_qparams(qparams, name):
    """Raise a TypeError if `qparams` is no QParams."""
    if not isinstance(qparams, QParams):
        raise TypeError(f"{name}: expected a QParams, got {type(qparams).__name__}")


def _own_bias(bias, w_qparams):
    """Return a read-only copy of a bias, of the kind that the profile of the weight adds."""
    bias = np.array(bias)
    kinds, dtype = ("f", np.float32) if PROFILES[w_qparams.profile].bias == "float" else ("iu", np.int32)
    if bias.dtype.kind not in kinds:
        wanted = "floats" if dtype is np.float32 else "integers at the scale of the sums"
        raise TypeError(f"bias: profile {w_qparams.profile!r} adds {wanted}, got {bias.dtype}")
    if dtype is np.int32 and bias.dtype != np.int32:
        limits = np.iinfo(np.int32)
        bad = (bias < limits.min) | (bias > limits.max)
        if bad.any():
            raise ValueError(f"bias: must be within the range of int32, got {bias[bad][0]}")
    bias = bias.astype(dtype, copy=False)
    bias.flags.writeable = False
    return bias


#: What an integer layer may end in, with the core's number for it.
ACTIVATIONS = {None: _core.NO_ACTIVATION, "relu": _core.RELU, "relu6": _core.RELU6}


def activation_number(activation):
    """Return the core's number for what a layer ends in; a ValueError for what no integer layer ends in."""
    number = ACTIVATIONS.get(activation)
    if number is None:
        raise ValueError(f"activation: must be None, 'relu' or 'relu6', got {activation!r}")
    return number


_NUMBERS = {"dequantize": _core.DEQUANTIZE, "fbgemm": _core.FBGEMM, "onnx": _core.ONNX}
REQUANTIZATIONS = {name: _NUMBERS[profile.requantize] for name, profile in PROFILES.items()}


def requantization(out_qparams):
    """Return the core's number for how a layer requantizes, by the profile of its output, None for floats."""
    if out_qparams is None:
        return _core.DEQUANTIZE
    check_qparams(out_qparams, "out_qparams")
    return REQUANTIZATIONS[out_qparams.profile]


def _check_linear(x_qparams, weight, out_qparams, activation):
    """Raise what is wrong with arguments of `linear_integer`, if it is with one of these."""
    requantization(out_qparams), activation_number(activation)
    if not isinstance(weight, PackedWeight):
        raise TypeError(f"weight: expected a PackedWeight, got {type(weight).__name__}")
    check_qparams(x_qparams, "x_qparams")
    if weight._packed is None:
        raise ValueError(f"weight: expected 2 dimensions, got shape {weight.shape}")


def linear_integer(xq, x_qparams, weight, out_qparams=None, activation=None, out=None):
    """Fully connected layer on codes, in one pass: exact integer sums, bias, activation, requantization.

    Parameters
    ----------
    xq : ndarray of int8 or uint8, shape (..., K)
        Codes of `x_qparams`.
    x_qparams : QParams
        Per tensor.
    weight : PackedWeight
        N outputs by K inputs.
    out_qparams : QParams, optional
        Per tensor. Without it the result is float32.
    activation : {"relu", "relu6"}, optional
    out : ndarray, shape (..., N), optional
        Of the dtype of the result.

    Returns
    -------
    ndarray, shape (..., N)
        Codes of `out_qparams`, or float32.

    Raises
    ------
    TypeError, ValueError
        If a dtype or a shape does not fit.
    QuantizationError
        If a sum could pass the range of int32; the message names the channel.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> x_qp = nq.QParams(0.5, 10, nq.QuantSpec(signed=False, symmetric=False))
    >>> weight = nq.PackedWeight(np.int8([[1, 2], [-3, 4]]), nq.QParams(0.25, 0, nq.QuantSpec()))
    >>> nq.linear_integer(np.uint8([[12, 14]]), x_qp, weight)
    array([[1.25, 1.25]], dtype=float32)
    """
    try:  # checked only after a failure: the checks take longer than a small product
        how = _core.DEQUANTIZE if out_qparams is None else REQUANTIZATIONS[out_qparams.profile]
        return _core.linear_integer(xq, x_qparams, weight._packed, out_qparams, how, ACTIVATIONS[activation], out)
    except OverflowError as error:
        raise QuantizationError(str(error)) from None
    except (AttributeError, KeyError, TypeError) as error:
        refused = error
    _check_linear(x_qparams, weight, out_qparams, activation)
    raise refused


def matmul_f32(a, b, b_qparams=None, out=None):
    """Matrix product in float32, of codes too, in which each sum is a chain of fused multiply-adds over ascending k.

    So results do not depend on the backend, on threads or on neighbours. Codes are dequantized on their way to the
    multiplier: the gradients of a quantized layer need them once.

    Parameters
    ----------
    a : array_like of float, shape (M, K)
        Any strides: a transposed view is not copied.
    b : array_like of float, shape (K, N)
        Or codes of `b_qparams`.
    b_qparams : QParams, optional
        Per tensor, or per channel on axis 0.
    out : ndarray of float32, shape (M, N), optional

    Returns
    -------
    ndarray of float32, shape (M, N)

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> from ndquant.functional import matmul_f32
    >>> a, codes = np.float32([[1, 2]]), np.int8([[10], [20]])
    >>> matmul_f32(a, codes, nq.QParams(0.5, 0, nq.QuantSpec()))
    array([[25.]], dtype=float32)
    """
    return _core.matmul_f32(a, b, b_qparams, out)


def relu_backward(dy, y, out=None):
    """Gradient of ReLU: `dy` where `y` is positive, else 0 (a select: a NaN in `dy` stays out).

    Parameters
    ----------
    dy : array_like of float
    y : array_like of float, shape of `dy`
        Output or input of the ReLU: both are positive in the same places.
    out : ndarray, optional
        Filled and returned: C-contiguous, of the shape and dtype of `dy`. It may be `dy` or `y` itself.

    Returns
    -------
    ndarray, shape and dtype of `dy`

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant.functional import relu_backward
    >>> relu_backward(np.array([1.0, 2.0]), np.array([0.0, 3.0]))
    array([0., 2.])
    """
    return _core.relu_backward(dy, y, out)


def sgd_step(w, g, lr, velocity=None, momentum=0.0):
    """One step of SGD, in place: ``velocity = momentum * velocity + g; w -= lr * velocity``.

    Parameters
    ----------
    w : ndarray of float32 or float64
        Parameters: C-contiguous and writeable, as is `velocity`. Each operation is rounded to this dtype.
    g : array_like of float, shape of `w`
        Gradients, converted to the dtype of `w`.
    lr : float
    velocity : ndarray, shape and dtype of `w`, optional
        None: ``w -= lr * g``.
    momentum : float, default 0
        Not used without `velocity`.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant.functional import sgd_step
    >>> w = np.array([1.0, 2.0])
    >>> sgd_step(w, np.array([2.0, -2.0]), 0.25)
    >>> w
    array([0.5, 2.5])
    """
    _core.sgd_step(w, g, velocity, lr, momentum)


def adam_step(w, g, m, v, step, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
    """One step of Adam, in place, in one pass over memory.

    Parameters
    ----------
    w : ndarray of float32 or float64
        Parameters: C-contiguous and writeable, as are `m` and `v`. Each operation is rounded to this dtype.
    g : array_like of float, shape of `w`
        Gradients, converted to the dtype of `w`.
    m, v : ndarray, shape and dtype of `w`
        First and second moment, zeros before the first step.
    step : int
        Number of the step, from 1.
    lr, eps : float
    betas : tuple of float

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant.functional import adam_step
    >>> w, m, v = np.ones(2), np.zeros(2), np.zeros(2)
    >>> adam_step(w, np.array([1.0, -1.0]), m, v, 1, lr=0.5)
    >>> w.round(4), m.round(4)
    (array([0.5, 1.5]), array([ 0.1, -0.1]))
    """
    beta1, beta2 = betas
    if step < 1:
        raise ValueError(f"step: counts from 1, not {step}")
    rate, correction = lr / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step)
    _core.adam_step(w, g, m, v, rate, beta1, beta2, correction, eps)
