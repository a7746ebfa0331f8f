"""The public face: which names there are, and that each explains itself."""

import inspect
import subprocess
import sys

import pytest

import ndquant as nq
from ndquant import nn

NAMES = """
    GroupedWeight HistogramObserver MinMaxObserver MovingAverageMinMaxObserver PackedWeight QConfig QParams
    QuantSpec QuantizationError QuantizationWarning Quantize RowObserver auto_bits backend calibrate choose_qparams
    clip_errors conv2d conv2d_backward conv2d_binary conv2d_integer conv2d_requantized conv_transpose2d_integer
    conv_transpose2d_requantized convert datasets dequantize evaluate fake_quantize fake_quantize_backward
    fake_quantize_learnable_backward fake_quantize_with_grad formats fuse get_num_threads linear linear_backward
    linear_grouped linear_integer load matmul_binary matmul_integer mse nn pack_codes passes prepare prepare_qat
    quantization_error quantize quantize_dynamic quantize_static requantize sensitivity set_num_threads show_config
    sqnr unpack_codes
""".split()

NN_NAMES = """
    Adam AdaptiveAvgPool2d AvgPool2d BatchNorm1d BatchNorm2d Buffer Conv1d Conv2d ConvTranspose2d DeQuantStub Dropout
    Embedding Flatten GELU GRU Hardswish Identity LSTM LayerNorm LeakyReLU Linear MaxPool2d Module MultiheadAttention
    Parameter QuantStub ReLU ReLU6 SGD Sequential Sigmoid Softmax Tanh adaptive_avg_pool2d avg_pool2d batches
    cross_entropy flatten gelu hardswish leaky_relu max_pool2d relu relu6 sigmoid softmax tanh
""".split()

MODULES = {"datasets", "formats", "nn", "passes"}
EXPLAINED = [getattr(nq, n) for n in NAMES if n not in MODULES]
EXPLAINED += [getattr(nn, n) for n in NN_NAMES] + [nq.datasets.digits, nq.datasets.mnist]
EXPLAINED += [getattr(nq.formats, n) for n in nq.formats.__all__ if n not in ("FORMATS", "Explanation")]
EXPLAINED += [getattr(nq.passes, n) for n in nq.passes.__all__]


def test_the_public_names_are_these():
    assert sorted(nq.__all__) == sorted(NAMES)
    assert sorted(nn.__all__) == sorted(NN_NAMES)
    submodules = {name for name, value in vars(nq).items() if inspect.ismodule(value)}
    assert {n for n in dir(nq) if not n.startswith("_")} - submodules == set(NAMES) - MODULES


@pytest.mark.parametrize("thing", EXPLAINED, ids=lambda thing: thing.__name__)
def test_each_has_a_docstring_with_an_example(thing):
    doc = inspect.getdoc(thing)
    assert doc and len(doc.splitlines()[0]) <= 120
    if not (isinstance(thing, type) and issubclass(thing, Exception | Warning)):
        assert ">>> " in doc


@pytest.mark.parametrize("thing", [f for f in EXPLAINED if inspect.isfunction(f)], ids=lambda thing: thing.__name__)
def test_each_function_explains_every_parameter_and_what_it_returns(thing):
    doc = inspect.getdoc(thing)
    for name in inspect.signature(thing).parameters:
        assert f"{name}" in doc.partition("Parameters")[2], name
    assert "Returns\n" in doc or "Yields\n" in doc or thing.__name__ in ("set_num_threads", "show_config", "backend")


def test_importing_is_quick_and_needs_numpy_alone():
    code = "import sys, ndquant; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("scipy", "matplotlib", "tqdm", "pooch", "torch", "onnx", "pandas", "tkinter"):
        assert f"'{heavy}'" not in loaded
