"""Convolutions: one short function per entry point of the C core.

Shape letters: N images, C channels, H x W pixels, O outputs, windows of KH x KW taps. A convolution along one axis is
one of images with a single row.
"""

from __future__ import annotations

import operator

from . import _core
from .errors import QuantizationError
from .functional import (
    ACTIVATIONS,
    REQUANTIZATIONS,
    PackedWeight,
    activation_number,
    check_qparams,
    requantization,
)


def conv2d_integer(x, w, stride=1, padding=0, dilation=1, groups=1, x_zero_point=0, w_zero_point=0, out=None):
    """Exact convolution of 8-bit images: ``x - x_zero_point``, padded with zeros, by ``w - w_zero_point``, in int32.

    Parameters
    ----------
    x : ndarray of int8 or uint8, shape (N, C, H, W)
        In any strides. A channels-last view, ``nhwc.transpose(0, 3, 1, 2)``, is read in place, which is the fastest.
    w : ndarray of int8 or uint8, shape (O, C / groups, KH, KW)
        It is packed at each call; for weights that are used again make a `PackedWeight`.
    stride, padding, dilation : int or tuple of two int
        Along y and x.
    groups : int, default 1
        Output o sees the channels of its group only.
    x_zero_point : int, default 0
        A code of the dtype of `x`; the padding has this code, which stands for 0.
    w_zero_point : int or array of int, shape (O,), default 0
        Codes of the dtype of `w`.
    out : ndarray of int32, shape (N, O, OH, OW), optional
        C-contiguous or channels-last.

    Returns
    -------
    ndarray of int32, shape (N, O, OH, OW)
        Channels-last if `x` is.

    Raises
    ------
    TypeError, ValueError
        If a dtype or a shape does not fit, or a zero point is no code.
    QuantizationError
        If a sum could pass the range of int32; the message names the channel.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> x = np.full((1, 1, 2, 3), 101, np.uint8)
    >>> nq.conv2d_integer(x, np.ones((1, 1, 3, 3), np.int8), padding=1, x_zero_point=100)
    array([[[[4, 6, 4],
             [4, 6, 4]]]], dtype=int32)
    """
    geometry = _geometry(stride, padding, dilation)
    try:
        return _core.conv2d_integer(x, w, x_zero_point, w_zero_point, groups, geometry, out)
    except OverflowError as error:
        raise QuantizationError(str(error)) from None


def conv_transpose2d_integer(
    x, w, stride=1, padding=0, output_padding=0, groups=1, dilation=1, x_zero_point=0, w_zero_point=0, out=None
):
    """Exact transposed convolution of 8-bit images in int32: the gradient of a convolution, as PyTorch defines it.

    Along each axis the output has ``(H - 1) * stride - 2 * padding + dilation * (KH - 1) + output_padding + 1`` pixels.

    Parameters
    ----------
    x : ndarray of int8 or uint8, shape (N, C, H, W)
        In any strides.
    w : ndarray of int8 or uint8, shape (C, O / groups, KH, KW)
    stride, padding, output_padding : int or tuple of two int
        Along y and x.
    groups : int, default 1
    dilation : int or tuple of two int
    x_zero_point : int, default 0
        A code of the dtype of `x`.
    w_zero_point : int or array of int, shape (O,), default 0
        Codes of the dtype of `w`.
    out : ndarray of int32, shape (N, O, OH, OW), optional
        C-contiguous or channels-last.

    Returns
    -------
    ndarray of int32, shape (N, O, OH, OW)
        Channels-last if `x` is.

    Raises
    ------
    TypeError, ValueError
        If a dtype or a shape does not fit, or a zero point is no code.
    QuantizationError
        If a sum could pass the range of int32; the message names the channel.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> nq.conv_transpose2d_integer(np.int8([[[[1, 2]]]]), np.int8([[[[3, 4]]]]), stride=(1, 2))
    array([[[[3, 4, 6, 8]]]], dtype=int32)
    """
    geometry = transposed_geometry(stride, padding, output_padding, dilation)
    try:
        return _core.conv_transpose2d_integer(x, w, x_zero_point, w_zero_point, groups, geometry, out)
    except OverflowError as error:
        raise QuantizationError(str(error)) from None


def conv2d_requantized(
    xq,
    x_qparams,
    weight,
    out_qparams=None,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    activation=None,
    out=None,
):
    """Convolutional layer on codes, in one pass: exact integer sums, bias, activation, requantization.

    Parameters
    ----------
    xq : ndarray of int8 or uint8, shape (N, C, H, W)
        Codes of `x_qparams`, in any strides. A channels-last view, ``nhwc.transpose(0, 3, 1, 2)``, is read in place,
        which is the fastest.
    x_qparams : QParams
        Per tensor.
    weight : PackedWeight
        Of shape (O, C / groups, KH, KW).
    out_qparams : QParams, optional
        Per tensor. Without it the result is float32.
    stride, padding, dilation : int or tuple of two int
        Along y and x. Padding stands for 0 exactly.
    groups : int, default 1
    activation : {"relu", "relu6"}, optional
    out : ndarray, shape (N, O, OH, OW), optional
        Of the dtype of the result, C-contiguous or channels-last.

    Returns
    -------
    ndarray, shape (N, O, OH, OW)
        Codes of `out_qparams`, or float32; channels-last if `xq` is.

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
    >>> x_qp = nq.QParams(0.5, 100, nq.QuantSpec(signed=False, symmetric=False))
    >>> weight = nq.PackedWeight(np.ones((1, 1, 3, 3), np.int8), nq.QParams(0.25, 0, nq.QuantSpec()))
    >>> nq.conv2d_requantized(np.full((1, 1, 2, 3), 102, np.uint8), x_qp, weight, padding=1)
    array([[[[1. , 1.5, 1. ],
             [1. , 1.5, 1. ]]]], dtype=float32)
    """
    try:  # checked only after a failure: the checks take as long as a small layer
        geometry = _geometry(stride, padding, dilation)
        packed = weight._of_conv(groups, geometry[2][1] == 1)
        how = _core.DEQUANTIZE if out_qparams is None else REQUANTIZATIONS[out_qparams.profile]
        return _core.conv2d_requantized(
            xq, x_qparams, packed, out_qparams, geometry, how, ACTIVATIONS[activation], out
        )
    except OverflowError as error:
        raise QuantizationError(str(error)) from None
    except (AttributeError, KeyError, TypeError) as error:
        refused = error
    _check_layer(x_qparams, weight, out_qparams, activation)
    raise refused


def conv_transpose2d_requantized(
    xq,
    x_qparams,
    weight,
    out_qparams=None,
    stride=1,
    padding=0,
    output_padding=0,
    groups=1,
    dilation=1,
    activation=None,
    out=None,
):
    """Transposed convolutional layer on codes: exact integer sums, bias, activation, requantization.

    Parameters
    ----------
    xq : ndarray of int8 or uint8, shape (N, C, H, W)
        Codes of `x_qparams`, in any strides; channels-last is the fastest.
    x_qparams : QParams
        Per tensor.
    weight : PackedWeight
        Of shape (O, C / groups, KH, KW): outputs first, so that scales per output lie on axis 0.
    out_qparams : QParams, optional
        Per tensor. Without it the result is float32.
    stride, padding, output_padding : int or tuple of two int
        Along y and x, as of `conv_transpose2d_integer`.
    groups : int, default 1
    dilation : int or tuple of two int
    activation : {"relu", "relu6"}, optional
    out : ndarray, shape (N, O, OH, OW), optional
        Of the dtype of the result, C-contiguous or channels-last.

    Returns
    -------
    ndarray, shape (N, O, OH, OW)
        Codes of `out_qparams`, or float32; channels-last if `xq` is. An output that no pixel reaches is its bias.

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
    >>> x_qp = nq.QParams(0.5, 100, nq.QuantSpec(signed=False, symmetric=False))
    >>> weight = nq.PackedWeight(np.int8([[[[3, 4]]]]), nq.QParams(0.25, 0, nq.QuantSpec()), np.int32([8]))
    >>> nq.conv_transpose2d_requantized(np.uint8([[[[101, 102]]]]), x_qp, weight, stride=(1, 3))
    array([[[[1.375, 1.5  , 1.   , 1.75 , 2.   ]]]], dtype=float32)
    """
    _check_layer(x_qparams, weight, out_qparams, activation)
    packed = weight._of_conv_transpose(groups, transposed_geometry(stride, padding, output_padding, dilation))
    try:
        how = requantization(out_qparams), activation_number(activation)
        return _core.conv_transpose2d_requantized(xq, x_qparams, packed, out_qparams, *how, out)
    except OverflowError as error:
        raise QuantizationError(str(error)) from None


def conv2d_f32(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """Convolution in float32, in which each sum is a chain of fused multiply-adds in a fixed order.

    Results do not depend on the backend, on threads, or on the other images. `conv2d_f32_input_grad` and
    `conv2d_f32_weight_grad` are its gradients.

    Parameters
    ----------
    x : array_like of float, shape (N, C, H, W)
        In any strides; a channels-last view is the fastest.
    w : array_like of float, shape (O, C / groups, KH, KW)
    b : array_like of float, shape (O,), optional
    stride, padding, dilation : int or tuple of two int
        Along y and x.
    groups : int, default 1

    Returns
    -------
    ndarray of float32, shape (N, O, OH, OW)
        Channels-last in memory.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant.convolution import conv2d_f32
    >>> conv2d_f32(np.ones((1, 1, 2, 3)), np.ones((1, 1, 3, 3)), padding=1)
    array([[[[4., 6., 4.],
             [4., 6., 4.]]]], dtype=float32)
    """
    geometry = _geometry(stride, padding, dilation)
    return _core.conv2d_f32(x, w, b, geometry, groups).transpose(0, 3, 1, 2)


def conv2d_f32_input_grad(dy, w, size, stride=1, padding=0, dilation=1, groups=1):
    """Gradient of `conv2d_f32` to its input, an image of (H, W) `size`.

    Parameters
    ----------
    dy : array_like of float, shape (N, O, OH, OW)
    w : array_like of float, shape (O, C / groups, KH, KW)
    size : tuple of two int
    stride, padding, dilation : int or tuple of two int
    groups : int, default 1

    Returns
    -------
    ndarray of float32, shape (N, C, H, W)
        Channels-last in memory.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant.convolution import conv2d_f32_input_grad
    >>> conv2d_f32_input_grad(np.ones((1, 1, 1, 2)), np.float32([[[[1, 2]]]]), (1, 4), stride=2)
    array([[[[1., 2., 1., 2.]]]], dtype=float32)
    """
    geometry = _geometry(stride, padding, dilation)
    return _core.conv2d_f32_input_grad(dy, w, tuple(size), geometry, groups).transpose(0, 3, 1, 2)


def conv2d_f32_weight_grad(dy, x, size, stride=1, padding=0, dilation=1, groups=1):
    """Gradient of `conv2d_f32` to its weight, windows of (KH, KW) `size`.

    Parameters
    ----------
    dy : array_like of float, shape (N, O, OH, OW)
    x : array_like of float, shape (N, C, H, W)
    size : tuple of two int
    stride, padding, dilation : int or tuple of two int
    groups : int, default 1

    Returns
    -------
    ndarray of float32, shape (O, C / groups, KH, KW)

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant.convolution import conv2d_f32_weight_grad
    >>> conv2d_f32_weight_grad(np.ones((1, 1, 1, 2)), np.float32([[[[1, 2, 3, 4]]]]), (1, 2), stride=2)
    array([[[[4., 6.]]]], dtype=float32)
    """
    return _core.conv2d_f32_weight_grad(dy, x, tuple(size), _geometry(stride, padding, dilation), groups)


def _check_layer(x_qparams, weight, out_qparams, activation):
    """Raise what is wrong with arguments of a layer on codes, if it is with one of these."""
    if not isinstance(weight, PackedWeight):
        raise TypeError(f"weight: expected a PackedWeight, got {type(weight).__name__}")
    check_qparams(x_qparams, "x_qparams")
    requantization(out_qparams), activation_number(activation)


def _geometry(stride, padding, dilation):
    if type(stride) is type(padding) is type(dilation) is int:  # what `pair` does takes as long as a small layer
        return (stride, stride), (padding, padding), (dilation, dilation)
    return pair(stride, "stride"), pair(padding, "padding"), pair(dilation, "dilation")


def transposed_geometry(stride, padding, output_padding, dilation):
    """Return the steps of a transposed convolution as the core takes them."""
    return *_geometry(stride, padding, dilation), pair(output_padding, "output_padding")


def pair(value, name):
    """Return (along y, along x) of one integer for both or of two."""
    try:
        if isinstance(value, tuple | list) and len(value) == 2:
            return operator.index(value[0]), operator.index(value[1])
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an int or two of them, got {value!r}") from None
    return number, number
