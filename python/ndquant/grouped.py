"""Weights of 4 bits and fewer with a scale for each group of inputs, two in a byte, and the layer that they make."""

from __future__ import annotations

import numpy as np

from . import _core
from .bits import pack_codes, unpack_codes
from .functional import activation_number, check_qparams, quantize
from .observers import choose_qparams

MOST_BITS = 4


class GroupedWeight:
    """A weight in at most 4 bits with a scale for each group of inputs, and its float bias. Immutable.

    Codes lie packed in memory; in the layout of the kernel, made when first used, two share a byte as well.

    Parameters
    ----------
    codes : ndarray of int8 or uint8, shape (N, K)
        Codes of `qparams`: N outputs by K inputs.
    qparams : QParams
        Of at most 4 bits, per group along the inputs (axis 1), or per output (axis 0), which is one group. With
        ``zero_aligned=False`` weights are ``scale * code + zero_point``, as `passes.hqq` finds them.
    bias : ndarray of float, shape (N,), optional

    Attributes
    ----------
    codes : ndarray of int8 or uint8, shape (N, K)
        A copy.
    qparams : QParams
    bias : ndarray of float32 or None
        Which nobody can write to.

    Raises
    ------
    TypeError, ValueError
        If a dtype, a shape or the axis does not fit, or `group_size` does not divide K.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> w = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)
    >>> weight = nq.GroupedWeight.of(w, nq.QuantSpec(4, group_size=32))
    >>> weight
    GroupedWeight(8 x 64, QParams(int4, 16 groups of 32 on axis -1, scale 0.27..0.557))
    >>> weight.nbytes
    320
    """

    def __init__(self, codes, qparams, bias=None):
        check_qparams(qparams, "qparams")
        if qparams.spec.bits > MOST_BITS:
            raise ValueError(f"qparams: grouped weights have at most {MOST_BITS} bits, got {qparams.spec}")
        self.qparams, self.bias = qparams, None
        if bias is not None:
            self.bias = np.array(bias, np.float32)
            self.bias.flags.writeable = False
        self._packed = _core.pack_groups(codes, qparams, bias)
        self._inputs = self._packed.shape[1]
        self._bits = pack_codes(codes, qparams.spec)

    @classmethod
    def of(cls, w, spec, bias=None, method="minmax"):
        """Quantize a float weight.

        Parameters
        ----------
        w : array_like of float, shape (N, K)
        spec : QuantSpec
        bias : ndarray of float, shape (N,), optional
        method : str, default "minmax"
            As of `choose_qparams`.

        Returns
        -------
        GroupedWeight
        """
        qparams = choose_qparams(w, spec, method=method)
        return cls(quantize(w, qparams), qparams, bias)

    @property
    def shape(self):
        """Outputs and inputs."""
        return self.packed.shape

    @property
    def codes(self):
        """The codes, one in a byte."""
        return unpack_codes(self._bits, self.qparams.spec, self._inputs)

    @property
    def nbytes(self):
        """Bytes of the packed codes and of the scales and zero points, in a file as in memory."""
        zero_points = 0 if self.qparams.spec.symmetric else self.qparams.scale.nbytes
        return self._bits.nbytes + self.qparams.scale.nbytes + zero_points

    @property
    def packed(self):
        """The weight in the layout of the kernel."""
        if self._packed is None:
            codes = unpack_codes(self._bits, self.qparams.spec, self._inputs)
            self._packed = _core.pack_groups(codes, self.qparams, self.bias)
        return self._packed

    #: The step of a plan that multiplies by it.
    step = "linear_groups"

    def multiply_rows(self, x, activation, out):
        """Return `linear_grouped` of floats; `activation` is the core's number."""
        return _core.linear_groups(x, self.packed, activation, out)

    def __getstate__(self):
        return {**self.__dict__, "_packed": None}

    def __repr__(self):
        shape = " x ".join(map(str, self.shape))
        return f"GroupedWeight({shape}, {self.qparams!r}{'' if self.bias is None else ', bias'})"


def linear_grouped(x, weight, x_qparams=None, out=None):
    """Fully connected layer on a `GroupedWeight`: exact integer sums in each group, scaled and added in float32.

    Parameters
    ----------
    x : array_like of float, shape (..., K)
        Each row is quantized to uint8 by its own range, so that what it gives does not depend on the rows beside it.
        With `x_qparams` the codes of these instead, int8 or uint8.
    weight : GroupedWeight
        N outputs by K inputs.
    x_qparams : QParams, optional
        Per tensor.
    out : ndarray of float32, shape (..., N), optional
        C-contiguous. Filled and returned.

    Returns
    -------
    ndarray of float32, shape (..., N)
        The same bits on every backend and number of threads: groups are added in ascending order.

    Raises
    ------
    TypeError, ValueError
        If a dtype or a shape does not fit, or a row holds NaN or infinity; the message says which.

    Examples
    --------
    >>> import numpy as np
    >>> import ndquant as nq
    >>> weight = nq.GroupedWeight(np.int8([[1, 2, 3, -4]]), nq.QParams([[0.5, 10.0]], 0, nq.QuantSpec(4, group_size=2)))
    >>> nq.linear_grouped(np.float32([[255, 1, 0, 1]]), weight)
    array([[88.5]], dtype=float32)
    """
    if not isinstance(weight, GroupedWeight):
        raise TypeError(f"weight: expected a GroupedWeight, got {type(weight).__name__}")
    if x_qparams is None:
        return weight.multiply_rows(x, activation_number(None), out)
    return _core.linear_groups_codes(x, x_qparams, weight.packed, out)
