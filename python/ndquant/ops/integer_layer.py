"""What a layer with weights is in an integer graph."""

from __future__ import annotations

import numpy as np

from ..functional import PackedWeight
from .record import StoredIntegers


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
