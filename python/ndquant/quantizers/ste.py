"""The quantizer on an edge or a weight, with the straight-through gradient."""

from __future__ import annotations

from ..errors import QuantizationError
from ..observers import HistogramObserver, MinMaxObserver, MovingAverageMinMaxObserver

_OBSERVERS = {
    "minmax": MinMaxObserver,
    "moving_average": MovingAverageMinMaxObserver,
    "percentile": HistogramObserver,
    "mse": HistogramObserver,
}


class Quantizer:
    """Observing, fake-quantizing and integer conversion are three states of this one object.

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
        self._qparams = None

    def _new_observer(self):
        return _OBSERVERS[self.config.method](axis=self.config.spec.axis, profile=self.profile)

    def observe(self, x, training):
        """Take in `x` if the state says so, and return the `QParams` to quantize it with, or None to let it pass."""
        passes = self.state in ("observe", "off")
        if self.is_weight:
            return None if passes else self.qparams_for(x, training)
        if self.state == "observe" or (self.state == "train" and training):
            self._update(x)
        return None if passes else self.qparams

    def _update(self, x):
        try:
            self.observer.update(x)
        except ValueError as error:
            raise QuantizationError(f"{self.name}: {error}") from None
        self._qparams = None

    def qparams_for(self, weight, training=False):
        """Return the `QParams` of a weight."""
        if self.config.method == "moving_average":
            if training or not self.has_seen_data:
                self._update(weight)
            return self.qparams
        self.observer = self._new_observer()
        self._update(weight)
        return self.qparams

    def recorded_range(self, weight=None):
        """Return the range that the `QParams` were chosen for; of a weight by min-max, that of the array."""
        if self.is_weight and self.config.method != "moving_average":
            self.qparams_for(weight)
        return self.observer.range(self.config.spec, **self._method())

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
        return {"method": self.config.method} if self.config.method in ("percentile", "mse") else {}

    def freeze(self):
        """Fix the range of an edge."""
        if not self.is_weight:
            self.qparams  # noqa: B018 - found now, kept from here on
        self.state = "frozen"

    def __str__(self):
        spec = self.config.spec
        kind = f"{'s' if spec.signed else 'u'}{spec.bits}"
        where = "" if spec.axis is None else f" axis {spec.axis}"
        seen = "" if self.is_weight or not self.has_seen_data else f" [{self.range_text()}]"
        return f"{kind}{where} {self.config.method}{seen}"

    def range_text(self):
        """Return the range that is represented, as text."""
        low, high = self.qparams.range
        return f"{float(low):.4g}, {float(high):.4g}"
