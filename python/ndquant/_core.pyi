"""The typed face of the C core. Its functions take positional arguments only; `functional` has the public ones."""

from typing import Any, Final, final

from numpy import float32, float64, int32, int64, uint8
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .qparams import QParams

MULTIPLY: Final[int]
DIVIDE: Final[int]
TEXTBOOK: Final[int]
OFFSET: Final[int]
OFFSET_F64: Final[int]
DEQUANTIZE: Final[int]
NO_ACTIVATION: Final[int]
RELU: Final[int]
RELU6: Final[int]
FBGEMM: Final[int]
ONNX: Final[int]
RANGE_DEFAULT: Final[int]
RANGE_TORCH: Final[int]
RANGE_TEXTBOOK: Final[int]
RANGE_ONNX: Final[int]

@final
class Params:
    """Coefficients of one QParams for the kernels."""

    def __new__(
        cls,
        scale: ArrayLike,
        zero_point: ArrayLike,
        qmin: int,
        qmax: int,
        axis: int | None,
        group_size: int,
        rule: int,
        /,
    ) -> Params: ...

@final
class PackedMatrix:
    """Weights in the format of one kernel, with scales and bias; made by pack_matrix."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def kernel(self) -> str: ...
    @property
    def nbytes(self) -> int: ...

@final
class PackedGroups:
    """Weights of 4 bits in the format of one kernel, with scales per group; made by pack_groups."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def kernel(self) -> str: ...
    @property
    def nbytes(self) -> int: ...

@final
class Plan:
    """A lowered model for one shape of input; made by make_plan."""

    @property
    def nbytes(self) -> int: ...
    def run(self, *arrays: NDArray[Any]) -> None: ...
    def trace(self, arrays: tuple[NDArray[Any], ...], copies: tuple[NDArray[Any], ...], /) -> None: ...

def make_plan(
    arrays: tuple[int, ...],
    arena: tuple[tuple[int, int], ...],
    arena_bytes: int,
    steps: tuple[tuple[Any, ...], ...],
    parts: int = 1,
    /,
) -> Plan: ...
@final
class PackedConv:
    """Weights of a convolution in the format of one kernel, with scales and bias; made by pack_conv."""

    @property
    def kernel(self) -> str: ...
    @property
    def nbytes(self) -> int: ...

@final
class PackedTransposed:
    """Weights of a transposed convolution in the format of one kernel; made by pack_conv_transpose."""

def quantize(x: ArrayLike, qparams: QParams | Params, out: NDArray[Any] | None, /) -> Any: ...
def dequantize(
    q: ArrayLike, qparams: QParams | Params, dtype: DTypeLike | None, out: NDArray[Any] | None, /
) -> Any: ...
def requantize(
    q: ArrayLike, from_qparams: QParams | Params, to_qparams: QParams | Params, out: NDArray[Any] | None, /
) -> Any: ...
def quantization_error(x: ArrayLike, qparams: QParams | Params, /) -> tuple[float, float, float, float]: ...
def square_sums(x: ArrayLike, y: ArrayLike, /) -> tuple[float, float]: ...
def fake_quantize(x: ArrayLike, qparams: QParams | Params, out: NDArray[Any] | None, /) -> Any: ...
def fake_quantize_backward(
    dy: ArrayLike, x: ArrayLike, qparams: QParams | Params, out: NDArray[Any] | None, /
) -> Any: ...
def fake_quantize_with_grad(
    x: ArrayLike,
    dy: ArrayLike,
    qparams: QParams | Params,
    out: tuple[NDArray[Any] | None, NDArray[Any] | None] | None,
    /,
) -> tuple[Any, Any]: ...
def fake_quantize_learnable_backward(
    dy: ArrayLike,
    x: ArrayLike,
    qparams: QParams | Params,
    grad_factor: float | None,
    out: NDArray[Any] | None,
    /,
) -> tuple[Any, Any, Any]: ...
def relu_backward(dy: ArrayLike, y: ArrayLike, out: NDArray[Any] | None, /) -> Any: ...
def sgd_step(
    w: NDArray[Any], g: ArrayLike, velocity: NDArray[Any] | None, lr: float, momentum: float, /
) -> None: ...
def adam_step(
    w: NDArray[Any],
    g: ArrayLike,
    m: NDArray[Any],
    v: NDArray[Any],
    rate: float,
    beta1: float,
    beta2: float,
    correction: float,
    eps: float,
    /,
) -> None: ...
def minmax(x: ArrayLike, axis: int | None, group_size: int | None = None, /) -> tuple[Any, Any, int, int]: ...
def histogram(
    x: ArrayLike, axis: int | None, group_size: int | None = None, /
) -> tuple[NDArray[int64], NDArray[int32], NDArray[int64]]: ...
def add_histograms(
    start_a: NDArray[int64],
    bins_a: NDArray[int32],
    counts_a: NDArray[int64],
    start_b: NDArray[int64],
    bins_b: NDArray[int32],
    counts_b: NDArray[int64],
    /,
) -> tuple[NDArray[int64], NDArray[int32], NDArray[int64]]: ...
def clip_errors(
    start: NDArray[int64],
    values: NDArray[float64],
    weights: NDArray[float64],
    base: NDArray[float64],
    scale: NDArray[float64],
    levels: float,
    p: float,
    /,
) -> NDArray[float64]: ...
def cross_entropies(
    x: NDArray[float64],
    p: NDArray[float64],
    largest: NDArray[float64],
    base: NDArray[float64],
    scale: NDArray[float64],
    levels: float,
    /,
) -> NDArray[float64]: ...
def entropies(
    counts: NDArray[float64],
    filled: NDArray[float64],
    first: NDArray[int64],
    end: NDArray[int64],
    levels: int,
    /,
) -> NDArray[float64]: ...
def scale_zero_point(
    low: NDArray[Any], high: NDArray[Any], qmin: int, qmax: int, bits: int, symmetric: bool, rule: int, /
) -> tuple[NDArray[Any], NDArray[int64]]: ...
def observe_quantize(
    x: NDArray[Any], low: float | None, high: float | None, weight: float, qmin: int, qmax: int, bits: int,
    symmetric: bool, rule: int, /
) -> tuple[Any, ...]: ...
def quantize_weight(
    w: NDArray[Any], bias: NDArray[Any] | None, x_scale: float, qmin: int, qmax: int, bits: int, symmetric: bool,
    rule: int, per_channel: bool, /
) -> tuple[Any, ...]: ...
def quantize_bias(
    bias: NDArray[Any] | None, x_scale: float, w_scale: NDArray[Any], /
) -> tuple[NDArray[int32] | None, NDArray[Any] | None]: ...
def pack_matrix(w: NDArray[Any], qparams: QParams, bias: NDArray[Any] | None, /) -> PackedMatrix: ...
def linear_integer(
    xq: NDArray[Any],
    x_qparams: QParams,
    packed: PackedMatrix,
    out_qparams: QParams | None,
    requantization: int,
    activation: int,
    out: NDArray[Any] | None,
    /,
) -> NDArray[Any]: ...
def linear_rows(
    x: ArrayLike, packed: PackedMatrix, activation: int, out: NDArray[Any] | None, /
) -> NDArray[Any]: ...
def softmax_f32(x: ArrayLike, out: NDArray[Any] | None, /) -> NDArray[Any]: ...
def layer_norm_f32(
    x: ArrayLike, gain: ArrayLike, offset: ArrayLike, eps: float, out: NDArray[Any] | None, /
) -> tuple[NDArray[Any], NDArray[Any]]: ...
def gelu_f32(x: ArrayLike, tanh: bool, out: NDArray[Any] | None, /) -> NDArray[Any]: ...
def attention_f32(
    q: ArrayLike, k: ArrayLike, v: ArrayLike, heads: int, mask: ArrayLike | None, out: NDArray[Any] | None, /
) -> tuple[NDArray[Any], NDArray[Any]]: ...
def recurrence(
    gx: ArrayLike,
    packed: PackedMatrix,
    h: NDArray[Any],
    c: NDArray[Any] | None,
    lengths: ArrayLike | None,
    reverse: bool,
    /,
) -> NDArray[Any]: ...
def matmul_integer(
    a: NDArray[Any],
    b: NDArray[Any],
    a_zero_point: int,
    b_zero_point: int | NDArray[Any],
    out: NDArray[Any] | None,
    /,
) -> NDArray[Any]: ...
def matmul_f32(
    a: NDArray[Any], b: NDArray[Any], b_qparams: QParams | Params | None, out: NDArray[Any] | None, /
) -> NDArray[float32]: ...
def pack_conv(
    w: NDArray[Any], qparams: QParams, bias: NDArray[Any] | None, groups: int, merged: bool, /
) -> PackedConv: ...
def conv2d_requantized(
    xq: NDArray[Any],
    x_qparams: QParams,
    packed: PackedConv,
    out_qparams: QParams | None,
    geometry: tuple[tuple[int, int], ...],
    requantization: int,
    activation: int,
    out: NDArray[Any] | None,
    /,
) -> NDArray[Any]: ...
def pack_conv_transpose(
    w: NDArray[Any], qparams: QParams, bias: NDArray[Any] | None, groups: int, geometry: tuple[tuple[int, int], ...], /
) -> PackedTransposed: ...
def conv_transpose2d_requantized(
    xq: NDArray[Any],
    x_qparams: QParams,
    packed: PackedTransposed,
    out_qparams: QParams | None,
    requantization: int,
    activation: int,
    out: NDArray[Any] | None,
    /,
) -> NDArray[Any]: ...
def conv2d_integer(
    x: NDArray[Any],
    w: NDArray[Any],
    x_zero_point: int,
    w_zero_point: int | NDArray[Any],
    groups: int,
    geometry: tuple[tuple[int, int], ...],
    out: NDArray[Any] | None,
    /,
) -> NDArray[Any]: ...
def channel_sums(u: ArrayLike, v: ArrayLike, /) -> NDArray[Any]: ...
def scale_channels(
    x: ArrayLike,
    centre: ArrayLike | None,
    scale: ArrayLike | None,
    slope: ArrayLike | None,
    shift: ArrayLike | None,
    /,
) -> NDArray[Any]: ...
def mix_channels(
    dy: ArrayLike,
    x: ArrayLike,
    centre: ArrayLike | None,
    scale: ArrayLike | None,
    slope: ArrayLike | None,
    shift: ArrayLike | None,
    /,
) -> NDArray[Any]: ...
def conv2d_f32(
    x: ArrayLike, w: ArrayLike, bias: ArrayLike | None, geometry: Any, groups: int, /
) -> NDArray[Any]: ...
def conv2d_f32_input_grad(
    dy: ArrayLike, w: ArrayLike, size: tuple[int, int], geometry: Any, groups: int, /
) -> NDArray[Any]: ...
def conv2d_f32_weight_grad(
    dy: ArrayLike, x: ArrayLike, size: tuple[int, int], geometry: Any, groups: int, /
) -> NDArray[Any]: ...
def conv_transpose2d_integer(
    x: NDArray[Any],
    w: NDArray[Any],
    x_zero_point: int,
    w_zero_point: int | NDArray[Any],
    groups: int,
    geometry: tuple[tuple[int, int], ...],
    out: NDArray[Any] | None,
    /,
) -> NDArray[Any]: ...
def combine_codes(
    a: NDArray[Any],
    a_qparams: QParams,
    b: NDArray[Any],
    b_qparams: QParams,
    out_qparams: QParams,
    multiply: bool,
    activation: int,
    out: NDArray[Any] | None,
    /,
) -> NDArray[Any]: ...
def lookup_codes(q: NDArray[Any], table: NDArray[Any], out: NDArray[Any] | None, /) -> NDArray[Any]: ...
def pool_codes(
    q: NDArray[Any],
    rows: NDArray[int32],
    columns: NDArray[int32],
    steps: tuple[int, int],
    qparams: QParams | None,
    out_qparams: QParams | None,
    out: NDArray[Any] | None,
    /,
) -> NDArray[Any]: ...
def resize_codes(
    q: NDArray[Any], rows: NDArray[int32], columns: NDArray[int32], out: NDArray[Any] | None, /
) -> NDArray[Any]: ...
def softmax_codes(
    q: NDArray[Any],
    exponential: NDArray[Any],
    out_qparams: QParams,
    mask: NDArray[Any] | None,
    out: NDArray[Any] | None,
    /,
) -> NDArray[Any]: ...
def matmul_codes(
    a: NDArray[Any],
    a_qparams: QParams,
    b: NDArray[Any],
    b_qparams: QParams,
    factor: float,
    out_qparams: QParams | None,
    out: NDArray[Any] | None,
    /,
) -> NDArray[Any]: ...
def layer_norm_codes(
    q: NDArray[Any],
    gain: NDArray[Any],
    offset: NDArray[Any],
    eps: float,
    out_qparams: QParams,
    out: NDArray[Any] | None,
    /,
) -> NDArray[Any]: ...
def pack_codes(
    codes: NDArray[Any], bits: int, qmin: int, qmax: int, out: NDArray[uint8] | None, /
) -> NDArray[uint8]: ...
def unpack_codes(
    packed: NDArray[uint8], length: int, bits: int, qmin: int, qmax: int, out: NDArray[Any] | None, /
) -> NDArray[Any]: ...
def pack_groups(w: NDArray[Any], qparams: QParams, bias: NDArray[Any] | None, /) -> PackedGroups: ...
def linear_groups(
    x: ArrayLike, packed: PackedGroups, activation: int, out: NDArray[float32] | None, /
) -> NDArray[float32]: ...
def linear_groups_codes(
    xq: NDArray[Any], x_qparams: QParams, packed: PackedGroups, out: NDArray[float32] | None, /
) -> NDArray[float32]: ...
def matmul_binary(
    a: NDArray[uint8], w: NDArray[uint8], length: int, out: NDArray[int32] | None, /
) -> NDArray[int32]: ...
def conv2d_binary(
    x: NDArray[uint8],
    w: NDArray[uint8],
    channels: int,
    geometry: tuple[tuple[int, int], ...],
    out: NDArray[int32] | None,
    /,
) -> NDArray[int32]: ...
def available_backends() -> list[str]: ...
def all_backends() -> list[str]: ...
def cpu_features() -> dict[str, bool]: ...
def get_backend() -> str: ...
def set_backend(name: str, /) -> None: ...
def get_num_threads() -> int: ...
def set_num_threads(n: int, /) -> None: ...
def get_stream_from() -> int: ...
def set_stream_from(bytes: int, /) -> None: ...
