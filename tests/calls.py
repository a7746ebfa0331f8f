"""Calls of every function of the core, good and bad, over which tests of memory run."""

import numpy as np

import ndquant as nq
from ndquant import _core, functional, integer

X = np.linspace(-20, 20, 300, dtype=np.float32).reshape(3, 100)
WIDE = X.astype(np.float64)
HALF = X.astype(np.float16)
QP = nq.QParams(np.float32(0.1), 3, nq.QuantSpec(8, symmetric=False))
QP3 = nq.QParams(np.full(3, 0.1, np.float32), 3, nq.QuantSpec(8, symmetric=False, axis=0))
TEXTBOOK = nq.QParams(np.float32(0.1), 3, nq.QuantSpec(8, symmetric=False), profile="textbook")
GROUPS = nq.QParams(np.full((3, 5), 0.1, np.float32), -1.0, nq.QuantSpec(16, group_size=20, zero_aligned=False))
INNER = nq.QParams(np.full((1, 100), 0.1), 3, nq.QuantSpec(32, symmetric=False, axis=0, group_size=3), profile="onnx")
Q = nq.quantize(X, QP)
OUT, CODES = np.zeros_like(X), np.zeros(X.shape, np.int8)
MOMENTS = np.zeros_like(X), np.zeros_like(X)

IMAGES = Q.reshape(1, 3, 10, 10)
KERNEL = nq.PackedWeight(np.ones((3, 1, 3, 3), np.int8), QP3)
TABLE = integer.unary_table(np.tanh, QP, QP)

HISTOGRAM = _core.histogram(X, None)
WEIGHTS, RANGES = HISTOGRAM[2].astype(np.float64), np.ones((1, 3))

W = nq.quantize(X, nq.QParams(np.float32(0.2), 0, nq.QuantSpec(8)))
W_QP = nq.QParams(np.full(3, 0.1, np.float32), 0, nq.QuantSpec(8, axis=0))
U_QP = nq.QParams(np.float32(0.1), 3, nq.QuantSpec(8, signed=False, symmetric=False))
FAR = nq.QParams(np.float32(0.1), -300, nq.QuantSpec(8, symmetric=False), profile="textbook")
LONG = np.full((1, 140_000), -128, np.int8)
BIAS = np.arange(3, dtype=np.int32)
WEIGHT = nq.PackedWeight(W, W_QP, BIAS)
PACKED = WEIGHT._packed
SUMS, RESULT = np.zeros((3, 3), np.int32), np.zeros((3, 3), np.float32)

#: Sizes and signs as the core takes them: qmin, qmax, bits, symmetric, rule.
GRID = (-128, 127, 8, True, _core.RANGE_DEFAULT)
#: 300 floats to codes, through a layer of 3 outputs, to floats: arrays of a call, the arena, its size, the steps.
PLAN = (
    (X.nbytes, RESULT.nbytes),
    ((0, 300),),
    320,
    (("quantize", (0,), 2, QP), ("linear", (2,), 1, 3, QP, PACKED, None, False, False)),
)
READY = _core.make_plan(*PLAN)
COPIES = (np.empty_like(CODES), np.empty_like(RESULT))

#: Arguments whose references are counted, and the outputs among them.
ARRAYS = (IMAGES, X, WIDE, HALF, Q, OUT, CODES, W, BIAS, SUMS, RESULT, *MOMENTS, *COPIES, *HISTOGRAM, WEIGHTS, RANGES)
OUTPUTS = (OUT, CODES, SUMS, RESULT, *MOMENTS, *COPIES)

GOOD = {
    "quantize": lambda: nq.quantize(X, QP),
    "quantize out": lambda: nq.quantize(X, QP3, out=CODES),
    "quantize float16": lambda: nq.quantize(HALF, QP),
    "quantize strided": lambda: nq.quantize(X.T, QP),
    "quantize scalar": lambda: nq.quantize(1.5, QP),
    "dequantize": lambda: nq.dequantize(Q, QP),
    "dequantize dtype": lambda: nq.dequantize(Q, QP3, dtype=np.float16),
    "dequantize wide": lambda: nq.dequantize(Q.astype(np.int64), QP, dtype="f8"),
    "dequantize groups": lambda: nq.dequantize(Q, GROUPS),
    "requantize": lambda: nq.requantize(Q, QP, QP3),
    "requantize groups": lambda: nq.requantize(Q, INNER, GROUPS),
    "quantize groups": lambda: (nq.quantize(X, GROUPS), nq.quantize(HALF, INNER)),
    "with_grad groups": lambda: nq.fake_quantize_with_grad(X, X, INNER),
    "learnable groups": lambda: nq.fake_quantize_learnable_backward(X, X, INNER),
    "quantization_error": lambda: nq.quantization_error(HALF, GROUPS),
    "square_sums": lambda: _core.square_sums(HALF, X),
    "minmax groups": lambda: (_core.minmax(X, 1, 20), _core.histogram(X, 0, 3)),
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
    "sgd_step momentum": lambda: functional.sgd_step(OUT, HALF, 0.0, MOMENTS[0], 0.9),
    "adam_step": lambda: functional.adam_step(OUT, WIDE, *MOMENTS, 1, lr=0.0),
    "minmax": lambda: _core.minmax(X, None),
    "minmax per channel": lambda: _core.minmax(HALF, 1),
    "histogram": lambda: _core.histogram(X, None),
    "histogram per channel": lambda: _core.histogram(HALF, 1),
    "add_histograms": lambda: _core.add_histograms(*HISTOGRAM, *HISTOGRAM),
    "clip_errors": lambda: _core.clip_errors(HISTOGRAM[0], WEIGHTS, WEIGHTS, RANGES, RANGES, 255, 2),
    "scale_zero_point": lambda: _core.scale_zero_point(X, X, *GRID),
    "quantize_bias": lambda: functional.quantize_bias(WIDE[:, 0], 0.5, WIDE[2, :3].copy()),
    "quantize_bias float32": lambda: functional.quantize_bias(None, 1e-30, np.float32(1e-30)),
    "observe_quantize": lambda: _core.observe_quantize(X, None, None, 0.01, *GRID),
    "observe_quantize average": lambda: _core.observe_quantize(X, -1.0, 2.0, 0.01, *GRID),
    "quantize_weight": lambda: _core.quantize_weight(X, None, 0.1, *GRID, False),
    "quantize_weight per channel": lambda: _core.quantize_weight(X, WIDE[:, 0].copy(), 0.1, *GRID, True),
    "pack_matrix": lambda: _core.pack_matrix(W, W_QP, None),
    "pack_matrix zero points": lambda: _core.pack_matrix(W, QP, np.zeros(3, np.float32)),
    "pack_matrix strided": lambda: _core.pack_matrix(W[:, ::2], W_QP, np.zeros(6, np.int64)[::2]),
    "PackedMatrix": lambda: (PACKED.shape, PACKED.kernel, PACKED.nbytes),
    "linear_integer": lambda: nq.linear_integer(Q, QP, WEIGHT),
    "linear_integer out": lambda: nq.linear_integer(Q, QP, WEIGHT, None, "relu", RESULT),
    "linear_integer codes": lambda: nq.linear_integer(Q[0], QP, WEIGHT, U_QP),
    "matmul_integer": lambda: nq.matmul_integer(Q, W.T),
    "matmul_integer zero points": lambda: nq.matmul_integer(Q[:, ::-1], W.T, 3, np.int64([1, 2, 3]), out=SUMS),
    "matmul_f32": lambda: functional.matmul_f32(X, X.T),
    "matmul_f32 codes": lambda: functional.matmul_f32(X[:, ::2], W.T[::2], QP, out=RESULT),
    "make_plan": lambda: _core.make_plan(*PLAN),
    "Plan": lambda: (READY.run(X, RESULT), READY.trace((X, RESULT), COPIES), READY.nbytes),
    "choose_qparams": lambda: nq.choose_qparams(X, nq.QuantSpec(axis=0)),
    "add": lambda: integer.add(Q, QP, Q, QP, QP, "relu"),
    "add in two layouts": lambda: integer.add(IMAGES, QP, IMAGES.transpose(0, 1, 3, 2), QP, QP),
    "lookup": lambda: integer.lookup(IMAGES, TABLE),
    "max_pool2d": lambda: integer.max_pool2d(IMAGES, 3, 2, 1),
    "avg_pool2d": lambda: integer.avg_pool2d(IMAGES, QP, QP, 3, 2, 1),
    "resize_nearest": lambda: integer.resize_nearest(IMAGES, (7, 20)),
    "softmax": lambda: integer.softmax(Q, QP, QP),
    "layer_norm": lambda: integer.layer_norm(Q, QP, QP, WIDE[0], X[0]),
    "conv2d": lambda: nq.conv2d_requantized(IMAGES, QP, KERNEL, QP, groups=3),
    "conv2d channels-last": lambda: nq.conv2d_requantized(IMAGES.transpose(0, 3, 1, 2)[:, :1], QP, KERNEL),
    "conv2d_integer": lambda: nq.conv2d_integer(IMAGES, np.ones((4, 3, 2, 2), np.int8)),
    "conv_transpose2d": lambda: nq.conv_transpose2d_integer(IMAGES, np.ones((3, 2, 2, 2), np.int8), 2),
    "PackedWeight": lambda: nq.PackedWeight(np.ones((3, 1, 3, 3), np.int8), QP3, BIAS),
    "Params": lambda: nq.QParams([0.1, 0.2], 0, nq.QuantSpec(axis=0))._params,
    "backends": lambda: (_core.available_backends(), _core.all_backends(), _core.get_backend(), _core.cpu_features()),
    "backend": lambda: _core.set_backend(_core.get_backend()),
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
    "group_size": lambda: nq.quantize(X[:, :30], GROUPS),
    "groups shape": lambda: nq.quantize(X[:, :20], GROUPS),
    "requantize dtype": lambda: nq.requantize(X, QP, QP),
    "requantize axis": lambda: nq.requantize(Q[:2], QP, QP3),
    "requantize out": lambda: nq.requantize(Q, QP, INNER, out=CODES),
    "quantization_error dtype": lambda: nq.quantization_error(Q, QP),
    "square_sums shape": lambda: _core.square_sums(X, X[0]),
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
    "add b": lambda: integer.add(Q, QP, Q[:2], QP, QP),
    "add out": lambda: integer.add(Q, QP, Q, QP, QP, out=OUT),
    "add profile": lambda: integer.add(Q, QP, Q, QP, TEXTBOOK),
    "lookup table": lambda: integer.lookup(Q, TABLE[:9]),
    "max_pool2d overlap": lambda: integer.max_pool2d(IMAGES, 1, out=IMAGES),
    "avg_pool2d dtype": lambda: integer.avg_pool2d(IMAGES.view(np.uint8), QP, QP, 3),
    "resize_nearest rows": lambda: _core.resize_codes(IMAGES, np.array([[99]]), np.array([[0]]), None),
    "softmax table": lambda: integer.softmax(Q, QP, QP, TABLE[:3]),
    "layer_norm gain": lambda: integer.layer_norm(Q, QP, QP, WIDE[0, :3], X[0]),
    "conv2d channels": lambda: nq.conv2d_requantized(IMAGES, QP, KERNEL, groups=1),
    "conv2d groups": lambda: nq.conv2d_requantized(IMAGES, QP, KERNEL, groups=2),
    "conv2d window": lambda: nq.conv2d_requantized(IMAGES, QP, KERNEL, groups=3, dilation=9),
    "conv2d out": lambda: nq.conv2d_requantized(IMAGES, QP, KERNEL, groups=3, out=OUT),
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
    "scale_zero_point low": lambda: _core.scale_zero_point(Q, X, *GRID),
    "scale_zero_point high": lambda: _core.scale_zero_point(X, X[0], *GRID),
    "scale_zero_point dtypes": lambda: _core.scale_zero_point(X, WIDE, *GRID),
    "scale_zero_point grid": lambda: _core.scale_zero_point(X, X, 0, 0, 8, True, 0),
    "quantize_bias dtype": lambda: functional.quantize_bias(Q[0], 0.5, WIDE[0]),
    "quantize_bias nan": lambda: functional.quantize_bias(np.full(3, np.nan), 0.5, WIDE[0]),
    "quantize_bias length": lambda: functional.quantize_bias(WIDE[0], 0.5, WIDE[2, :3].copy()),
    "quantize_bias scale": lambda: functional.quantize_bias(WIDE[0], 0.5, WIDE[0]),
    "quantize_bias scale dtype": lambda: functional.quantize_bias(WIDE[0], 0.5, Q[0]),
    "observe_quantize dtype": lambda: _core.observe_quantize(WIDE, None, None, 0.01, *GRID),
    "observe_quantize nan": lambda: _core.observe_quantize(X * np.nan, None, None, 0.01, *GRID),
    "observe_quantize low": lambda: _core.observe_quantize(X, "a", 1.0, 0.01, *GRID),
    "observe_quantize grid": lambda: _core.observe_quantize(X, None, None, 0.01, 0, 300, 8, False, 0),
    "quantize_weight ndim": lambda: _core.quantize_weight(X[0], None, 0.1, *GRID, True),
    "quantize_weight bias": lambda: _core.quantize_weight(X, WIDE[0], 0.1, *GRID, True),
    "quantize_weight bias dtype": lambda: _core.quantize_weight(X, Q[0], 0.1, *GRID, True),
    "quantize_weight x_scale": lambda: _core.quantize_weight(X, None, np.inf, *GRID, True),
    "pack_matrix dtype": lambda: _core.pack_matrix(X, W_QP, None),
    "pack_matrix ndim": lambda: _core.pack_matrix(W[0], W_QP, None),
    "pack_matrix qparams": lambda: _core.pack_matrix(W, None, None),
    "pack_matrix axis": lambda: _core.pack_matrix(W.T, nq.QParams(W_QP.scale, 0, nq.QuantSpec(8, axis=1)), None),
    "pack_matrix zero point": lambda: _core.pack_matrix(W, FAR, None),
    "pack_matrix bias": lambda: _core.pack_matrix(W, W_QP, BIAS[:2]),
    "pack_matrix bias dtype": lambda: _core.pack_matrix(W, W_QP, "abc"),
    "pack_matrix bias range": lambda: _core.pack_matrix(W, W_QP, np.full(3, 2**40)),
    "linear_integer xq": lambda: _core.linear_integer(X, QP, PACKED, None, False, False, None),
    "linear_integer inputs": lambda: _core.linear_integer(Q[:, 1:], QP, PACKED, None, False, False, None),
    "linear_integer per channel": lambda: _core.linear_integer(Q, QP3, PACKED, None, False, False, None),
    "linear_integer packed": lambda: _core.linear_integer(Q, QP, W, None, False, False, None),
    "linear_integer out_qparams": lambda: _core.linear_integer(Q, QP, PACKED, QP3, False, False, None),
    "linear_integer out": lambda: _core.linear_integer(Q, QP, PACKED, U_QP, False, False, RESULT),
    "matmul_integer a": lambda: nq.matmul_integer(X, W.T),
    "matmul_integer b": lambda: nq.matmul_integer(Q, X.T),
    "matmul_integer shape": lambda: nq.matmul_integer(Q, W),
    "matmul_integer a_zero_point": lambda: nq.matmul_integer(Q, W.T, 128),
    "matmul_integer b_zero_point": lambda: nq.matmul_integer(Q, W.T, 0, [1, 2]),
    "matmul_integer b_zero_point dtype": lambda: nq.matmul_integer(Q, W.T, 0, 0.5),
    "matmul_integer b_zero_point range": lambda: nq.matmul_integer(Q, W.T, 0, [1, 2, 300]),
    "matmul_integer out": lambda: nq.matmul_integer(Q, W.T, out=RESULT),
    "matmul_integer overflow": lambda: nq.matmul_integer(LONG, LONG.T),
    "matmul_f32 a": lambda: functional.matmul_f32(Q, X.T),
    "matmul_f32 b": lambda: functional.matmul_f32(X, Q.T),
    "matmul_f32 shape": lambda: functional.matmul_f32(X, X),
    "matmul_f32 qparams": lambda: functional.matmul_f32(X, W.T, 1),
    "matmul_f32 axis": lambda: functional.matmul_f32(X, W.T, W_QP),
    "matmul_f32 out": lambda: functional.matmul_f32(X, X.T, out=OUT),
    "make_plan values": lambda: _core.make_plan(PLAN[0], ((1, 300),), *PLAN[2:]),
    "make_plan arena": lambda: _core.make_plan(PLAN[0], (300,), *PLAN[2:]),
    "make_plan arena bytes": lambda: _core.make_plan(*PLAN[:2], -1, PLAN[3]),
    "make_plan kind": lambda: _core.make_plan(*PLAN[:3], (("none", (0,), 2),)),
    "make_plan step": lambda: _core.make_plan(*PLAN[:3], (1,)),
    "make_plan inputs": lambda: _core.make_plan(*PLAN[:3], (("quantize", (0, 1), 2, QP),)),
    "make_plan qparams": lambda: _core.make_plan(*PLAN[:3], (("quantize", (0,), 2, TEXTBOOK),)),
    "make_plan sizes": lambda: _core.make_plan(*PLAN[:3], (("quantize", (2,), 0, QP),)),
    "make_plan rows": lambda: _core.make_plan(*PLAN[:3], (("linear", (2,), 1, -1, QP, PACKED, None, False, False),)),
    "Plan.run count": lambda: READY.run(X),
    "Plan.run dtype": lambda: READY.run(X, [1]),
    "Plan.run size": lambda: READY.run(X, SUMS[:2]),
    "Plan.trace copies": lambda: READY.trace((X, RESULT), COPIES[:1]),
    "Plan.trace size": lambda: READY.trace((X, RESULT), (CODES, CODES)),
    "backend dtype": lambda: _core.set_backend(3),
    "threads dtype": lambda: _core.set_num_threads("3"),
    "Params count": lambda: _core.Params(0.1),
    "Params axis": lambda: _core.Params([0.1], [0], 0, 255, "a", 0, 0),
    "Params keyword": lambda: _core.Params(0.1, 0, 0, 255, None, 0, rule=0),
    "Params shapes": lambda: _core.Params([0.1, 0.2], [0], 0, 255, 0, 0, 0),
    "Params scale": lambda: _core.Params([0.1], 0, 0, 255, None, 0, 0),
    "Params zero point": lambda: _core.Params(0.1, 300, 0, 255, None, 0, 0),
    "Params codes": lambda: _core.Params(0.1, 0, 0, 2**32, None, 0, 0),
    "Params object": lambda: _core.Params(object(), 0, 0, 255, None, 0, 0),
    "backend": lambda: _core.set_backend("none"),
    "threads": lambda: nq.set_num_threads(0),
}
