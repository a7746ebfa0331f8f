"""The quantizer on an edge or a weight, with the straight-through gradient (Bengio et al., 2013).

https://arxiv.org/abs/1308.3432; the range by min-max or moving averages is that of Jacob et al., 2018,
https://arxiv.org/abs/1712.05877.
"""

from __future__ import annotations

import numpy as np

from ..errors import QuantizationError
from ..functional import fake_quantize_backward, quantize
from ..layout import in_memory_order
from ..observers import HistogramObserver, MinMaxObserver, MovingAverageMinMaxObserver, RowObserver
from ..profiles import PROFILES
from ..qparams import QParams
from .config import WEIGHT_METHODS

_OBSERVERS = {
    "minmax": MinMaxObserver,
    "moving_average": MovingAverageMinMaxObserver,
    "cross_entropy": RowObserver,
} | dict.fromkeys(("percentile", "mse", "l2", "entropy"), HistogramObserver)
_OBSERVERS |= dict.fromkeys(WEIGHT_METHODS, MinMaxObserver)


class Quantizer:
    """Observing, fake-quantizing and integer conversion are three states of this one object.

    Fake-quantization is ``y = scale * (clamp(rint(x / scale) + zero_point, qmin, qmax) - zero_point)`` on the grid of
    the range that the method finds. The gradient is dy where ``rint(x / scale) + zero_point`` lies in qmin .. qmax, and
    0 elsewhere; scale and zero point have none.

    Parameters
    ----------
    config : Quantize
    profile : str
    state : {"observe", "train", "frozen", "off"}
        "observe" passes values through and records them; "train" records in training mode, and quantizes always;
        "frozen" quantizes with the `qparams` that were found; "off" passes values through.
    name : str
        What errors call it.
    is_weight : bool, default False
        The range of a weight is that of the array itself, whenever it is asked for.
    """

    def __init__(self, config, profile, state, name, is_weight=False):
        self.config, self.profile, self.state, self.name, self.is_weight = config, profile, state, name, is_weight
        self.observer = self._new_observer()
        self._qparams = None if config.range is None else self._of_range(*config.range)
        rules = PROFILES[profile]
        by_extremes = is_weight and config.method == "minmax" and config.range is None
        #: Whether `functional.quantize_weight` does for this weight all that there is to do.
        self.in_one_call = by_extremes and rules.is_fast and rules.bias == "int32" and config.spec.is_byte_grid
        #: Whether no weight lies outside its range: a symmetric range of `default` maps the largest one to a code.
        self.holds_all = self.in_one_call and config.spec.symmetric and profile == "default"

    #: Weight and bias of the float network, on the quantizer of a weight that a pass has changed.
    original = None

    #: Whether `gradient` is other than straight-through within the range of the codes.
    has_own_gradient = False

    def parameters(self):
        """Return {name: `Parameter` or `Buffer`} of what training learns of the quantizer."""
        return {}

    def begin(self, x):
        """Let what is learned begin at the values `x`."""

    def transformed(self, weight):
        """Return the values of a weight that are rounded to the grid."""
        return weight

    def gradient(self, dy, x, qparams):
        """Return the gradient of the values `x` from that of their codes, and {name: gradient} of the parameters."""
        return in_memory_order(lambda d, a: fake_quantize_backward(d, a, qparams), dy, x), {}

    def _of_range(self, low, high):
        return QParams.from_range(np.float32(low), np.float32(high), self.config.spec, profile=self.profile)

    def _new_observer(self):
        return _OBSERVERS[self.config.method](axis=self.config.spec.axis, profile=self.profile)

    @property
    def passes(self):
        """Whether values stay as they are."""
        return self.state in ("observe", "off")

    def quantize(self, x, training):
        """Take in the values of an edge if the state says so; return codes and `QParams`, or None if they pass."""
        if self.state == "train" and training:
            return self._update_quantize(x)
        if self.state == "observe":
            self._update(x)
        return None if self.passes else (quantize(x, self.qparams), self.qparams)

    def _update_quantize(self, x):
        if self.config.method != "moving_average" or self.config.range is not None:
            self._update(x)
            return quantize(x, self.qparams), self.qparams
        try:
            codes, self._qparams = self.observer.update_quantize(x, self.config.spec)
        except ValueError as error:
            raise self._named(error) from None
        return codes, self._qparams

    def _named(self, error):
        """Return the error of an observer with the name of the edge, without the hint at an argument of observers."""
        return QuantizationError(f"{self.name}: {str(error).removeprefix('x: ').split('; nonfinite=')[0]}")

    def _update(self, x):
        if self.config.range is not None:
            return
        try:
            self.observer.update(x)
        except ValueError as error:
            raise self._named(error) from None
        self._qparams = None

    def take_in(self, observer):
        """Take in what another observer of this edge has seen."""
        self.observer.merge(observer)
        self._qparams = None

    def qparams_for(self, weight, training=False):
        """Return the `QParams` of a weight."""
        if self.config.range is not None:
            return self.qparams
        if self.config.method == "moving_average":
            if training or not self.has_seen_data:
                self._update(weight)
            return self.qparams
        self.observer = self._new_observer()
        self._update(weight)
        return self.qparams

    def recorded_range(self, weight=None):
        """Return the range that the `QParams` were chosen for; of a weight by min-max, that of the array."""
        if self.config.range is not None:
            return tuple(np.float32(self.config.range))
        if self.is_weight and self.config.method != "moving_average":
            self.qparams_for(weight)
        return self.observer.range(self.config.spec, **self._method())

    def recorded_grid(self):
        """Return the scale and the zero point that were learned or given; None where a range says what they are."""
        return None

    @property
    def has_seen_data(self):
        """Whether there is a range."""
        return self._qparams is not None or self.observer.count > 0

    @property
    def qparams(self):
        """The `QParams` of the range that was seen so far."""
        if self._qparams is None:
            if not self.has_seen_data:
                raise QuantizationError(f"{self.name} has seen no data: calibrate or train the graph before that")
            self._qparams = self.observer.qparams(self.config.spec, **self._method())
        return self._qparams

    def _method(self):
        return {"method": self.config.method} if isinstance(self.observer, HistogramObserver) else {}

    def freeze(self):
        """Fix the range of an edge."""
        if not self.is_weight:
            self.qparams  # noqa: B018 - found now, kept from here on
        self.state = "frozen"

    def __str__(self):
        spec = self.config.spec
        kind = f"{'s' if spec.signed else 'u'}{spec.bits}"
        how = "given" if self.config.range is not None else self.config.method
        how = how if self.config.learn is None else f"{how} {self.config.learn}"
        where = "" if spec.axis is None else f" axis {spec.axis}"
        seen = "" if self.is_weight or not self.has_seen_data else f" [{self.range_text()}]"
        return f"{kind}{where} {how}{seen}"

    def range_text(self):
        """Return the range that is represented, as text."""
        low, high = self.qparams.range
        return f"{float(low):.4g}, {float(high):.4g}"
