"""Layers that quantize their input as it comes, row by row, on weights that are codes."""

from __future__ import annotations

import numpy as np

from . import _core
from .errors import QuantizationError
from .functional import activation_number, quantize
from .observers import choose_qparams
from .qparams import QuantSpec

#: Weights per output, symmetric: numerics of dynamic quantization.
WEIGHT = QuantSpec(bits=8, axis=0)


class RowWeight:
    """A weight as int8 codes per output, with its float bias: packed when first used.

    Parameters
    ----------
    codes : ndarray of int8, shape (N, K)
    qparams : QParams
        Symmetric, per channel on axis 0.
    bias : ndarray of float32, shape (N,), or None

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant.dynamic import RowWeight
    >>> weight = RowWeight.of(np.float32([[1.27, -0.5]]), None)
    >>> weight.codes
    array([[127, -50]], dtype=int8)
    """

    def __init__(self, codes, qparams, bias=None):
        self.codes, self.qparams, self._packed = _own(codes), qparams, None
        self.bias = None if bias is None else _own(np.asarray(bias, np.float32))

    @classmethod
    def of(cls, w, bias):
        """Quantize a float weight by the range of each output."""
        qparams = choose_qparams(w, WEIGHT)
        return cls(quantize(w, qparams), qparams, bias)

    @property
    def packed(self):
        """The weight in the layout of the kernel."""
        if self._packed is None:
            bias = np.zeros(len(self.codes), np.float32) if self.bias is None else self.bias
            try:
                self._packed = _core.pack_matrix(self.codes, self.qparams, bias)
            except OverflowError as error:
                raise QuantizationError(str(error)) from None
        return self._packed

    @property
    def shape(self):
        """Outputs and inputs."""
        return self.codes.shape

    @property
    def nbytes(self):
        """Bytes of codes and scales."""
        return self.codes.nbytes + self.qparams.scale.nbytes

    #: The step of a plan that multiplies by it.
    step = "linear_rows"

    def multiply_rows(self, x, activation, out):
        """Return what `linear_rows` does; `activation` is the core's number."""
        return _core.linear_rows(x, self.packed, activation, out)

    def __getstate__(self):
        return {**self.__dict__, "_packed": None}


def _own(array):
    array = np.array(array)
    array.flags.writeable = False
    return array


def linear_rows(x, weight, activation=None, out=None):
    """Fully connected layer, each row of whose input is quantized to uint8 by its own range.

    What a row gives does not depend on the rows beside it, on the backend or on threads.

    Parameters
    ----------
    x : array_like of float, shape (..., K)
        Computed in float32.
    weight : RowWeight or GroupedWeight
        N outputs by K inputs.
    activation : {None, "relu", "relu6"}
    out : ndarray of float32, shape (..., N), optional

    Returns
    -------
    ndarray of float32, shape (..., N)

    Raises
    ------
    ValueError
        If a row holds NaN or infinity; the message says which.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant.dynamic import RowWeight, linear_rows
    >>> weight = RowWeight.of(np.float32([[1.27, 0.0]]), np.float32([1.0]))
    >>> linear_rows(np.float32([[2.55, 0.0], [0.0, 1.0]]), weight).round(2)
    array([[4.24],
           [1.   ]], dtype=float32)
    """
    return weight.multiply_rows(x, activation_number(activation), out)


def recurrence(gx, weight, states, lengths=None, reverse=False):
    """Run the steps of an LSTM layer, or, with one state, of a GRU layer; gates and states are float32.

    Parameters
    ----------
    gx : array_like of float, shape (T, N, 4 H or 3 H)
        What the inputs give to the gates, with the bias of that product.
    weight : RowWeight
        Of the product with the hidden state, 4 H or 3 H outputs by H inputs.
    states : tuple of ndarray of float32, shape (N, H)
        h, and c of an LSTM, before the first step.
    lengths : ndarray of int, shape (N,), optional
        Steps of each sequence; outputs behind these are 0.
    reverse : bool, default False
        Whether the steps run from the last to the first.

    Returns
    -------
    y : ndarray of float32, shape (T, N, H)
    states : tuple of ndarray
        After the last step.

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant.dynamic import RowWeight, recurrence
    >>> weight = RowWeight.of(np.zeros((3, 1), np.float32), None)
    >>> y, (h,) = recurrence(np.zeros((2, 1, 3)), weight, (np.ones((1, 1), np.float32),))
    >>> y.ravel()
    array([0.5 , 0.25], dtype=float32)
    """
    h, *c = (np.array(state, np.float32, order="C") for state in states)
    y = _core.recurrence(gx, weight.packed, h, c[0] if c else None, lengths, reverse)
    return y, (h, *c)
