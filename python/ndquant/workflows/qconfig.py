"""QConfig: which grid each kind of value gets, and the presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from ..errors import QuantizationError
from ..graph.insert_quantizers import has_integer_form
from ..graph.module import is_of_class
from ..graph.protocols import FUNCTIONS, UFUNCS
from ..nn import functional
from ..profiles import PROFILES
from ..qparams import QuantSpec
from ..quantizers import Quantize
from ..quantizers.config import WEIGHT_METHODS


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
        {node name, pattern, layer class, function: QConfig or None}; None keeps a node in float, which then reads its
        inputs unquantized: ``{np.add: None}`` keeps a residual stream in float. An exact name beats a pattern, a
        pattern beats a class or function.
    first_last : QConfig, optional
        For the first and the last layers with weights, which usually keep 8 bits; overrides beat it.

    Notes
    -----
    Where a configuration is asked for, the name of a preset serves as well:

    - ``int8``: weights per channel by min-max, activations uint8 affine by mse, output float.
    - ``int8_per_tensor``: as int8, with one scale for each weight array.
    - ``int4``: input 8 bits, hidden activations unsigned affine 4, weights symmetric 4 per channel, output float.
    - ``int4_pact``: as int4, with activations that learn their range by PACT, and weights by SAWB.
    - ``int4_lsq``, ``int2_lsq``: as int4, in 4 or 2 bits; training learns the scales of activations and weights (LSQ).
    - ``torch_default``, ``fbgemm``, ``qnnpack``: PyTorch's configurations of these names, with its arithmetic.

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
    first_last: QConfig | None = None

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
            if not isinstance(key, str | type) and not callable(key):
                raise TypeError(f"overrides: a key must be a name, a pattern, a class or a function, not {key!r}")
            if value is not None and not isinstance(value, QConfig):
                raise TypeError(f"overrides[{key!r}] must be a QConfig or None, not {type(value).__name__}")
        if self.first_last is not None and not isinstance(self.first_last, QConfig):
            raise TypeError(f"first_last must be a QConfig or None, not {type(self.first_last).__name__}")

    def _check_grids(self):
        for name in ("weight", "activation", "input", "output"):
            value = getattr(self, name)
            if isinstance(value, Quantize) and (value.spec.group_size is not None or value.spec.bits > 16):
                raise ValueError(f"{name}: layers take a spec with bits up to 16 and group_size=None, not {value.spec}")
            if isinstance(value, Quantize) and value.method in WEIGHT_METHODS and name != "weight":
                raise ValueError(f"{name}: method {value.method!r} is for weights")

    @property
    def passes_codes(self):
        """Whether ops that move or select values can do so with codes of these grids."""
        return all(self.for_role(role).spec.is_byte_grid for role in ("input", "activation"))

    def for_role(self, role):
        """Return the `Quantize` of an "input", "activation", "output" or "weight"."""
        if role == "input":
            return self.input or self.activation
        return {"activation": self.activation, "output": self.output, "weight": self.weight}[role]


def resolve_overrides(config, graph):
    """Return {node name: QConfig or None} for the nodes of `graph` that have an integer form.

    Raises
    ------
    ValueError
        If a key matches no such node, or two patterns match one.
    """
    nodes = [node for node in graph.nodes if has_integer_form(graph, node)]
    names, ends = {node.name for node in nodes}, _first_last(graph) if config.first_last is not None else ()
    used, result = set(), {}
    for node in nodes:
        matches = _matches(config.overrides, node, names)
        used.update(key for keys in matches for key in keys)
        best = next((keys for keys in matches if keys), ())
        if len(best) > 1:
            raise ValueError(f"overrides: {' and '.join(map(str, best))} both match {node.name!r}")
        default = config.first_last if node.name in ends else config
        result[node.name] = config.overrides[best[0]] if best else default
    unused = [key for key in config.overrides if key not in used]
    if unused:
        raise ValueError(f"overrides: {unused[0]!r} matches no layer; the layers are {', '.join(sorted(names))}")
    return result


def _matches(overrides, node, names):
    """Return the keys that match a node: exact names, patterns, and classes or functions."""
    texts = [key for key in overrides if isinstance(key, str)]
    patterns = [key for key in texts if key not in names and fnmatchcase(node.name, key)]
    classes = [key for key in overrides if isinstance(key, type) and is_of_class(node.module, key)]
    functions = [key for key in overrides if not isinstance(key, str | type) and _op_of(key) == node.op.name]
    return [key for key in texts if key == node.name], patterns, classes + functions


def _op_of(function):
    """Return the name of the op that a function of NumPy or `nn` is, or None."""
    name = getattr(function, "__name__", None)
    is_known = function in FUNCTIONS or name is not None and getattr(functional, name, None) is function
    return UFUNCS.get(function, name if is_known else None)


def _first_last(graph):
    """Return the names of the layers with weights that no other such layer lies before, or behind."""
    first, last, before, behind = set(), set(), set(), {graph.output}
    for node in graph.nodes:
        has_layer_before = any(name in before for name in node.inputs)
        if node.op.lower is not None and node.op.quantizes_weight and not has_layer_before:
            first.add(node.name)
        if has_layer_before or node.name in first:
            before.add(node.name)
    for node in reversed(graph.nodes):
        if node.name in behind and node.op.lower is not None and node.op.quantizes_weight:
            last.add(node.name)
        elif node.name in behind:
            behind.update(node.inputs)
    return first | last


_AFFINE_U8 = QuantSpec(8, signed=False, symmetric=False)
_AFFINE_U7 = QuantSpec(7, signed=False, symmetric=False)
_PER_CHANNEL_S8 = QuantSpec(8, axis=0)
_AFFINE_U4 = QuantSpec(4, signed=False, symmetric=False)
_SAWB_S4 = QuantSpec(4, axis=0, narrow_range=True)


def _learned_scales(bits):
    """Return the configurations of LSQ, for `prepare` and for `prepare_qat`."""
    weight, activation = QuantSpec(bits, axis=0), QuantSpec(bits, signed=False, symmetric=False)
    return tuple(
        QConfig(
            Quantize(weight, "mse", learn="lsq"),
            Quantize(activation, "mse", learn="lsq"),
            input=Quantize(_AFFINE_U8, input_method),
        )
        for input_method in ("mse", "moving_average")
    )



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
            Quantize(_AFFINE_U4, "mse"),
            input=Quantize(_AFFINE_U8, "mse"),
        ),
        QConfig(
            Quantize(QuantSpec(4, axis=0)),
            Quantize(_AFFINE_U4, "moving_average"),
            input=Quantize(_AFFINE_U8, "moving_average"),
        ),
    ),
    "int4_pact": (
        "as int4, with activations that learn their range by PACT, and weights per channel by SAWB",
        QConfig(Quantize(_SAWB_S4, "sawb"), Quantize(_AFFINE_U4, "mse"), input=Quantize(_AFFINE_U8, "mse")),
        QConfig(
            Quantize(_SAWB_S4, "sawb"),
            Quantize(_AFFINE_U4, "mse", learn="pact"),
            input=Quantize(_AFFINE_U8, "moving_average"),
        ),
    ),
    "int4_lsq": ("as int4, training learns the scales of activations and weights by LSQ", *_learned_scales(4)),
    "int2_lsq": ("as int4_lsq with 2 bits", *_learned_scales(2)),
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
    "fbgemm": (
        "PyTorch's qconfig of that name for x86: weights per channel, activations 7 bits by its histogram, output "
        "quantized, PyTorch's arithmetic",
        QConfig(
            Quantize(_PER_CHANNEL_S8), Quantize(_AFFINE_U7, "l2"), output=Quantize(_AFFINE_U7, "l2"), profile="torch"
        ),
        QConfig(
            Quantize(_PER_CHANNEL_S8, "moving_average"),
            Quantize(_AFFINE_U7, "moving_average"),
            output=Quantize(_AFFINE_U7, "moving_average"),
            profile="torch",
        ),
    ),
    "qnnpack": (
        "PyTorch's qconfig of that name for ARM: weights per tensor, activations 8 bits by its histogram, output "
        "quantized, PyTorch's arithmetic",
        QConfig(Quantize(QuantSpec(8)), Quantize(_AFFINE_U8, "l2"), output=Quantize(_AFFINE_U8, "l2"), profile="torch"),
        QConfig(
            Quantize(QuantSpec(8), "moving_average"),
            Quantize(_AFFINE_U8, "moving_average"),
            output=Quantize(_AFFINE_U8, "moving_average"),
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


def quantizer_factory(config, graph, inside, leaving):
    """Return (config_of, outputs) for `insert_quantizers`: which node and which edge get which configuration."""
    by_name = resolve_overrides(config, graph)
    if inside is not None:
        by_name = {name: c if name in inside else None for name, c in by_name.items()}
    if not any(c is not None for c in by_name.values()):
        raise QuantizationError("the graph has no layer that could run on integers")
    return (lambda node: by_name[node.name]), ({} if config.output == "float" else dict.fromkeys(leaving, config))
