"""Memory and references: 500 calls of everything, good and bad, leave as much behind as none.

Blocks are counted by Python, array data by tracemalloc; references to the arguments stay as they were.
"""

import sys
import tracemalloc

import numpy as np
import pytest

import ndquant as nq
from ndquant import _core, functional

X = np.linspace(-20, 20, 300, dtype=np.float32).reshape(3, 100)
WIDE = X.astype(np.float64)
HALF = X.astype(np.float16)
QP = nq.QParams(np.float32(0.1), 3, nq.QuantSpec(8, symmetric=False))
QP3 = nq.QParams(np.full(3, 0.1, np.float32), 3, nq.QuantSpec(8, symmetric=False, axis=0))
TEXTBOOK = nq.QParams(np.float32(0.1), 3, nq.QuantSpec(8, symmetric=False), profile="textbook")
Q = nq.quantize(X, QP)
OUT, CODES = np.empty_like(X), np.empty(X.shape, np.int8)
IMAGES = Q.reshape(1, 3, 10, 10)
WEIGHT = nq.PackedWeight(np.ones((3, 1, 3, 3), np.int8), QP3)
HISTOGRAM = _core.histogram(X, None)
WEIGHTS, RANGES = HISTOGRAM[2].astype(np.float64), np.ones((1, 3))
ARRAYS = (IMAGES, X, WIDE, HALF, Q, OUT, CODES, *HISTOGRAM, WEIGHTS, RANGES)

GOOD = {
    "quantize": lambda: nq.quantize(X, QP),
    "quantize out": lambda: nq.quantize(X, QP3, out=CODES),
    "quantize float16": lambda: nq.quantize(HALF, QP),
    "quantize strided": lambda: nq.quantize(X.T, QP),
    "quantize scalar": lambda: nq.quantize(1.5, QP),
    "dequantize": lambda: nq.dequantize(Q, QP),
    "dequantize dtype": lambda: nq.dequantize(Q, QP3, dtype=np.float16),
    "dequantize wide": lambda: nq.dequantize(Q.astype(np.int64), QP, dtype="f8"),
    "fake_quantize": lambda: nq.fake_quantize(X, QP),
    "fake_quantize float16": lambda: nq.fake_quantize(HALF, TEXTBOOK),
    "backward": lambda: nq.fake_quantize_backward(WIDE, X, QP, out=OUT),
    "with_grad": lambda: nq.fake_quantize_with_grad(X, X, QP),
    "with_grad out": lambda: nq.fake_quantize_with_grad(X, X, QP, out=(OUT, None)),
    "learnable": lambda: nq.fake_quantize_learnable_backward(X, X, QP),
    "learnable per channel": lambda: nq.fake_quantize_learnable_backward(HALF, WIDE, QP3, grad_factor=2),
    "relu_backward": lambda: functional.relu_backward(HALF, WIDE),
    "relu_backward out": lambda: functional.relu_backward(X, X.T.copy().T, out=OUT),
    "sgd_step": lambda: functional.sgd_step(OUT, X, 0.0),
    "sgd_step momentum": lambda: functional.sgd_step(OUT, HALF, 0.0, np.zeros_like(X), 0.9),
    "adam_step": lambda: functional.adam_step(OUT, WIDE, np.zeros_like(X), np.zeros_like(X), 1, lr=0.0),
    "minmax": lambda: _core.minmax(X, None),
    "minmax per channel": lambda: _core.minmax(HALF, 1),
    "histogram": lambda: _core.histogram(X, None),
    "histogram per channel": lambda: _core.histogram(HALF, 1),
    "add_histograms": lambda: _core.add_histograms(*HISTOGRAM, *HISTOGRAM),
    "clip_errors": lambda: _core.clip_errors(HISTOGRAM[0], WEIGHTS, WEIGHTS, RANGES, RANGES, 255, 2),
    "choose_qparams": lambda: nq.choose_qparams(X, nq.QuantSpec(axis=0)),
    "conv2d": lambda: nq.conv2d_requantized(IMAGES, QP, WEIGHT, QP, groups=3),
    "conv2d channels-last": lambda: nq.conv2d_requantized(IMAGES.transpose(0, 3, 1, 2)[:, :1], QP, WEIGHT),
    "conv2d_integer": lambda: nq.conv2d_integer(IMAGES, np.ones((4, 3, 2, 2), np.int8)),
    "conv_transpose2d": lambda: nq.conv_transpose2d_integer(IMAGES, np.ones((3, 2, 2, 2), np.int8), 2),
    "PackedWeight": lambda: nq.PackedWeight(np.ones((3, 1, 3, 3), np.int8), QP3, np.arange(3)),
    "Params": lambda: nq.QParams([0.1, 0.2], 0, nq.QuantSpec(axis=0))._params,
    "backends": lambda: (_core.available_backends(), _core.all_backends(), _core.get_backend()),
    "threads": lambda: nq.set_num_threads(nq.get_num_threads()),
}

BAD = {
    "int x": lambda: nq.quantize(Q, QP),
    "masked x": lambda: nq.quantize(np.ma.array(X), QP),
    "ragged x": lambda: nq.quantize([[1.0], [1.0, 2.0]], QP),
    "no qparams": lambda: nq.quantize(X, None),
    "object qparams": lambda: nq.quantize(X, object()),
    "axis": lambda: nq.quantize(np.ones((), np.float32), QP3),
    "channels": lambda: nq.fake_quantize(X.T, QP3),
    "out dtype": lambda: nq.quantize(X, QP, out=OUT),
    "out shape": lambda: nq.fake_quantize(X, QP, out=OUT[0]),
    "out overlap": lambda: nq.fake_quantize(X[:2], QP, out=X[1:]),
    "out none array": lambda: nq.fake_quantize(X, QP, out=[1]),
    "dy shape": lambda: nq.fake_quantize_backward(X[0], X, QP),
    "dy dtype": lambda: nq.fake_quantize_backward(Q, X, QP),
    "out tuple": lambda: nq.fake_quantize_with_grad(X, X, QP, out=OUT),
    "out second": lambda: nq.fake_quantize_with_grad(X, X, QP, out=(OUT, CODES)),
    "out same": lambda: nq.fake_quantize_with_grad(X, X, QP, out=(OUT, OUT)),
    "grad_factor": lambda: nq.fake_quantize_learnable_backward(X, X, QP, grad_factor="1"),
    "learnable out": lambda: nq.fake_quantize_learnable_backward(X, X, QP, out=CODES),
    "float codes": lambda: nq.dequantize(X, QP),
    "wide codes": lambda: nq.dequantize(np.array([300]), QP),
    "codes axis": lambda: nq.dequantize(Q[:2], QP3),
    "dequantize dtype": lambda: nq.dequantize(Q, QP, dtype=int),
    "dequantize no dtype": lambda: nq.dequantize(Q, QP, dtype="no"),
    "dequantize out": lambda: nq.dequantize(Q, QP, out=CODES),
    "relu_backward y": lambda: functional.relu_backward(X, X[0]),
    "relu_backward out": lambda: functional.relu_backward(X, X, out=HALF),
    "sgd_step w": lambda: functional.sgd_step(HALF, X, 0.1),
    "sgd_step w none array": lambda: functional.sgd_step([1.0], X, 0.1),
    "sgd_step g": lambda: functional.sgd_step(OUT, Q, 0.1),
    "sgd_step overlap": lambda: functional.sgd_step(OUT, OUT, 0.1),
    "sgd_step lr": lambda: functional.sgd_step(OUT, X, "1"),
    "adam_step v": lambda: functional.adam_step(OUT, X, np.zeros_like(X), WIDE, 1),
    "conv2d channels": lambda: nq.conv2d_requantized(IMAGES, QP, WEIGHT, groups=1),
    "conv2d groups": lambda: nq.conv2d_requantized(IMAGES, QP, WEIGHT, groups=2),
    "conv2d window": lambda: nq.conv2d_requantized(IMAGES, QP, WEIGHT, groups=3, dilation=9),
    "conv2d out": lambda: nq.conv2d_requantized(IMAGES, QP, WEIGHT, groups=3, out=OUT),
    "conv2d_integer zero": lambda: nq.conv2d_integer(IMAGES, np.ones((4, 3, 2, 2), np.int8), w_zero_point=[1]),
    "conv2d_integer stride": lambda: nq.conv2d_integer(IMAGES, np.ones((4, 3, 2, 2), np.int8), stride=0),
    "conv_transpose2d size": lambda: nq.conv_transpose2d_integer(IMAGES, np.ones((3, 2, 2, 2), np.int8), padding=9),
    "minmax dtype": lambda: _core.minmax(Q, None),
    "minmax axis": lambda: _core.minmax(X, 5),
    "minmax no axis": lambda: _core.minmax(X, "a"),
    "histogram dtype": lambda: _core.histogram(Q, None),
    "histogram axis": lambda: _core.histogram(X, 5),
    "add_histograms dtype": lambda: _core.add_histograms(*HISTOGRAM, *HISTOGRAM[:2], HISTOGRAM[1]),
    "add_histograms start": lambda: _core.add_histograms(*HISTOGRAM, HISTOGRAM[0][:-1], *HISTOGRAM[1:]),
    "add_histograms channels": lambda: _core.add_histograms(*HISTOGRAM, *_core.histogram(X, 0)),
    "clip_errors shape": lambda: _core.clip_errors(HISTOGRAM[0], WEIGHTS, WEIGHTS, RANGES, RANGES[:, :1], 255, 2),
    "clip_errors channels": lambda: _core.clip_errors(HISTOGRAM[0], WEIGHTS, WEIGHTS, RANGES.T, RANGES.T, 255, 2),
    "clip_errors start": lambda: _core.clip_errors(HISTOGRAM[0], RANGES[0], RANGES[0], RANGES, RANGES, 255, 2),
    "clip_errors p": lambda: _core.clip_errors(HISTOGRAM[0], WEIGHTS, WEIGHTS, RANGES, RANGES, 255, "2"),
    "Params scale": lambda: _core.Params([0.1], 0, 0, 255, None, 0, 0),
    "Params zero point": lambda: _core.Params(0.1, 300, 0, 255, None, 0, 0),
    "Params codes": lambda: _core.Params(0.1, 0, 0, 2**32, None, 0, 0),
    "Params object": lambda: _core.Params(object(), 0, 0, 255, None, 0, 0),
    "backend": lambda: _core.set_backend("none"),
    "threads": lambda: nq.set_num_threads(0),
}


def growth(call):
    """Return how many blocks, traced bytes and references 500 calls leave behind."""
    for _ in range(20):
        call()
    tracemalloc.start()
    try:
        call()
        references = [sys.getrefcount(a) for a in ARRAYS]
        blocks, traced = sys.getallocatedblocks(), tracemalloc.get_traced_memory()[0]
        for _ in range(500):
            call()
        blocks, traced = sys.getallocatedblocks() - blocks, tracemalloc.get_traced_memory()[0] - traced
        return blocks, traced, [sys.getrefcount(a) for a in ARRAYS] == references
    finally:
        tracemalloc.stop()


def check(call):
    for _ in range(3):
        blocks, traced, same = growth(call)
        assert same
        if blocks <= 5 and traced < 1000:
            return
    raise AssertionError(f"500 calls leave {blocks} blocks and {traced} bytes")


@pytest.mark.parametrize("name", GOOD)
def test_good_calls(name):
    check(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_bad_calls(name):
    def call():
        try:
            BAD[name]()
        except (TypeError, ValueError):
            return
        raise AssertionError("no error")

    check(call)


def test_a_leak_would_be_noticed():
    kept = []
    with pytest.raises(AssertionError, match="500 calls leave"):
        check(lambda: kept.append(object()))


def test_out_of_memory_is_an_error():
    """Each allocation of Python that a call makes fails in turn."""
    testcapi = pytest.importorskip("_testcapi")
    for call in (GOOD["quantize"], GOOD["learnable"], GOOD["with_grad"], GOOD["histogram"], GOOD["minmax per channel"]):
        call()
        for n in range(200):
            testcapi.set_nomemory(n, n + 1)
            try:
                call()
            except MemoryError:
                continue
            finally:
                testcapi.remove_mem_hooks()
            break
        else:
            raise AssertionError("never succeeded")
