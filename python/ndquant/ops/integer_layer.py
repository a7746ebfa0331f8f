"""What nodes of an integer graph store."""

from __future__ import annotations

import numpy as np

from ..functional import PackedWeight
from ..profiles import PROFILES
from .record import StoredIntegers


class StoredGrid(StoredIntegers):
    """The `QParams` of the codes that a node gives, all that an op without weights stores."""

    def __init__(self, out_qparams):
        self.out_qparams = out_qparams


class StoredTable(StoredGrid):
    """The output codes of a function of one code, the lowest code first, with their `QParams`."""

    def __init__(self, table, out_qparams):
        super().__init__(out_qparams)
        table = np.array(table)
        table.flags.writeable = False
        self.table = table


class StoredNorm(StoredGrid):
    """Gain and offset of a layer normalization, float32 or None, with the `QParams` of the codes that it gives."""

    def __init__(self, weight, bias, out_qparams):
        super().__init__(out_qparams)
        for name, array in (("weight", weight), ("bias", bias)):
            if array is not None:
                array = np.array(array, np.float32)
                array.flags.writeable = False
            setattr(self, name, array)


def zero_is_a_code(qparams):
    """Whether codes of these QParams can stand for 0, which profile `textbook` does not promise."""
    spec, zero_point = qparams.spec, qparams.zero_point
    if not spec.zero_aligned or not PROFILES[qparams.profile].any_zero_point:
        return spec.zero_aligned
    return bool(np.all((spec.qmin <= zero_point) & (zero_point <= spec.qmax)))


def code_of_zero(qparams):
    """Return the code that stands for 0, or the nearest one."""
    return qparams.spec.dtype.type(min(max(int(qparams.zero_point), qparams.spec.qmin), qparams.spec.qmax))


def have_products(*qparams):
    """Whether layers can multiply and sum codes of these QParams as integers."""
    return all(q.spec.is_byte_grid and zero_is_a_code(q) for q in qparams)


def have_integer_form(*qparams):
    """Whether ops without weights have an integer form on codes of these `QParams`; one may be None: floats."""
    return all(
        q is not None and q.spec.is_byte_grid and q.spec.axis is None and PROFILES[q.profile].is_fast for q in qparams
    )


def lower_to(op):
    """Return the function `Op.lower` of an op without weights whose integer form stores its output grid alone."""

    def lower(node, input_qparams, out_qparams):
        return (op, StoredGrid(out_qparams)) if have_integer_form(*input_qparams, out_qparams) else None

    return lower


class IntegerLayer(StoredIntegers):
    """The stored integers of a converted layer with weights. Arrays are read-only.

    Attributes
    ----------
    weight : ndarray of int8 or uint8, shape (O, ...)
    w_qparams : QParams
    bias : ndarray of int32 (float32 in profile `torch`), shape (O,), or None
    out_qparams : QParams or None
        None: the output is float32.
    """

    NAMES = ("weight", "w_qparams", "bias", "out_qparams")

    def __init__(self, weight, w_qparams, bias, out_qparams):
        self.__dict__["_packed"] = None
        for name, value in zip(self.NAMES, (weight, w_qparams, bias, out_qparams), strict=True):
            setattr(self, name, value)

    def __setattr__(self, name, value):
        if name in self.NAMES:
            if isinstance(value, np.ndarray):
                value = value.copy()
                value.flags.writeable = False
            self.__dict__["_packed"] = None
        super().__setattr__(name, value)

    @property
    def packed(self):
        """The weight in the layout of the kernel, made when first used."""
        if self._packed is None:
            self.__dict__["_packed"] = PackedWeight(self.weight, self.w_qparams, self.bias)
        return self._packed

    def __getstate__(self):
        return {**self.__dict__, "_packed": None}

    def __setstate__(self, state):
        self.__dict__.update(state)
