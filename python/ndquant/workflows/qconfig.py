"""QConfig: which grid each kind of value gets, and the presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from ..errors import QuantizationError
from ..profiles import PROFILES
from ..qparams import QuantSpec
from ..quantizers import Quantize


@dataclass(frozen=True)
class QConfig:
    """How a network is quantized.

    Parameters
    ----------
    weight, activation : Quantize
        The weights of integer layers, and the values between them.
    input : Quantize, optional
        The input of the network; by default as `activation`.
    output : "float" or Quantize, default "float"
        The output of the last layer.
    profile : {"default", "torch", "onnx", "textbook"}, default "default"
        The rules of arithmetic.
    overrides : dict, default {}
        {node name, pattern, layer class: QConfig or None}; None keeps a layer in float. An exact name beats a
        pattern, a pattern beats a class.

    Examples
    --------
    >>> import ndquant as nq
    >>> weight = nq.Quantize(nq.QuantSpec(bits=4, axis=0))
    >>> activation = nq.Quantize(nq.QuantSpec(bits=8, signed=False, symmetric=False), method="mse")
    >>> nq.QConfig(weight, activation, overrides={"fc1": None}).overrides
    {'fc1': None}
    """

    weight: Quantize
    activation: Quantize
    input: Quantize | None = None
    output: str | Quantize = "float"
    profile: str = "default"
    overrides: Mapping = field(default_factory=dict)

    def __post_init__(self):
        for name, value in (("weight", self.weight), ("activation", self.activation), ("input", self.input)):
            if not isinstance(value, Quantize) and not (name == "input" and value is None):
                raise TypeError(f"{name} must be a Quantize, not {type(value).__name__}")
        if self.output != "float" and not isinstance(self.output, Quantize):
            raise ValueError(f'output must be "float" or a Quantize, not {self.output!r}')
        if self.profile not in PROFILES:
            raise ValueError(f"profile must be one of {', '.join(PROFILES)}, not {self.profile!r}")
        for name, value in (("activation", self.activation), ("input", self.input), ("output", self.output)):
            if isinstance(value, Quantize) and value.spec.axis is not None:
                raise ValueError(f"{name}: integer layers take one scale per array there, so spec.axis must be None")
        self._check_grids()
        if self.weight.spec.axis not in (None, 0):
            raise ValueError(f"weight: spec.axis must be None or 0, the output features, not {self.weight.spec.axis}")
        for key, value in self.overrides.items():
            if not isinstance(key, str | type):
                raise TypeError(f"overrides: a key must be a name, a pattern or a class, not {key!r}")
            if value is not None and not isinstance(value, QConfig):
                raise TypeError(f"overrides[{key!r}] must be a QConfig or None, not {type(value).__name__}")

    def _check_grids(self):
        for name in ("weight", "activation", "input", "output"):
            value = getattr(self, name)
            if isinstance(value, Quantize) and not value.spec.is_byte_grid:
                wanted = "bits up to 8, group_size=None and zero_aligned=True"
                raise ValueError(f"{name}: integer layers take a spec with {wanted}, not {value.spec}")

    def for_role(self, role):
        """Return the `Quantize` of an "input", "activation", "output" or "weight"."""
        if role == "input":
            return self.input or self.activation
        return {"activation": self.activation, "output": self.output, "weight": self.weight}[role]


def resolve_overrides(config, graph):
    """Return {node name: QConfig or None} for the nodes of `graph` that have an integer kernel.

    Raises
    ------
    ValueError
        If a key matches no such node, or two patterns match one.
    """
    nodes = [node for node in graph.nodes if node.op.lower is not None]
    names = {node.name for node in nodes}
    used, result = set(), {}
    for node in nodes:
        patterns = [k for k in config.overrides if isinstance(k, str) and k not in names and fnmatchcase(node.name, k)]
        classes = [k for k in config.overrides if isinstance(k, type) and isinstance(node.module, k)]
        used.update(patterns, classes, {node.name} & config.overrides.keys())
        if node.name in config.overrides:
            result[node.name] = config.overrides[node.name]
        elif len(patterns) > 1 or not patterns and len(classes) > 1:
            raise ValueError(f"overrides: {' and '.join(map(str, patterns or classes))} both match {node.name!r}")
        else:
            result[node.name] = config.overrides[(patterns or classes)[0]] if patterns or classes else config
    unused = [key for key in config.overrides if key not in used]
    if unused:
        raise ValueError(f"overrides: {unused[0]!r} matches no layer; the layers are {', '.join(sorted(names))}")
    return result


_AFFINE_U8 = QuantSpec(8, signed=False, symmetric=False)
_AFFINE_U7 = QuantSpec(7, signed=False, symmetric=False)
_PER_CHANNEL_S8 = QuantSpec(8, axis=0)

#: name: (description, configuration of `prepare`, configuration of `prepare_qat`)
PRESETS = {
    "int8": (
        "weights per-channel symmetric by min-max, activations uint8 affine by mse, output float",
        QConfig(Quantize(_PER_CHANNEL_S8), Quantize(_AFFINE_U8, "mse")),
        QConfig(Quantize(_PER_CHANNEL_S8), Quantize(_AFFINE_U8, "moving_average")),
    ),
    "int8_per_tensor": (
        "as int8, with one scale for each weight array",
        QConfig(Quantize(QuantSpec(8)), Quantize(_AFFINE_U8, "mse")),
        QConfig(Quantize(QuantSpec(8)), Quantize(_AFFINE_U8, "moving_average")),
    ),
    "int4": (
        "input 8 bits, hidden activations unsigned affine 4, weights signed symmetric 4 per channel, output float",
        QConfig(
            Quantize(QuantSpec(4, axis=0)),
            Quantize(QuantSpec(4, signed=False, symmetric=False), "mse"),
            input=Quantize(_AFFINE_U8, "mse"),
        ),
        QConfig(
            Quantize(QuantSpec(4, axis=0)),
            Quantize(QuantSpec(4, signed=False, symmetric=False), "moving_average"),
            input=Quantize(_AFFINE_U8, "moving_average"),
        ),
    ),
    "torch_default": (
        "PyTorch's default_qconfig, in prepare_qat its default_qat_qconfig: weights per tensor, activations 7 bits by "
        "min-max, output quantized, PyTorch's arithmetic",
        QConfig(Quantize(QuantSpec(8)), Quantize(_AFFINE_U7), output=Quantize(_AFFINE_U7), profile="torch"),
        QConfig(
            Quantize(QuantSpec(8), "moving_average"),
            Quantize(_AFFINE_U7, "moving_average"),
            output=Quantize(_AFFINE_U7, "moving_average"),
            profile="torch",
        ),
    ),
}


def find_config(qconfig, training):
    """Return the `QConfig` that `qconfig` is or names, in its form for `prepare` or for `prepare_qat`."""
    if isinstance(qconfig, QConfig):
        return qconfig
    if not isinstance(qconfig, str):
        raise TypeError(f"qconfig must be a QConfig or the name of a preset, not {type(qconfig).__name__}")
    if qconfig not in PRESETS:
        raise ValueError(f"qconfig: unknown preset {qconfig!r}; the presets are {', '.join(PRESETS)}")
    return PRESETS[qconfig][2 if training else 1]


def quantizer_factory(config, graph):
    """Return (config_of, output) for `insert_quantizers`: which node gets which configuration."""
    by_name = resolve_overrides(config, graph)
    if not any(c is not None for c in by_name.values()):
        raise QuantizationError("the graph has no layer that could run on integers")
    return (lambda node: by_name[node.name]), (None if config.output == "float" else config)
