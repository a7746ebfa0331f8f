"""Networks for sequences, dynamically quantized, beside float ones at batch 1; and what part of a calibration scales.

    python tests/bench/sequences.py

Set OPENBLAS_NUM_THREADS and NDQUANT_NUM_THREADS to 1 to compare on one core.
"""

from __future__ import annotations

import importlib
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench import timing
from tests.bench.others import _library

import ndquant as nq
from ndquant import nn

STEPS, FEATURES, HIDDEN = 50, 128, 256
WIDTH, HEADS = 256, 4


class EncoderLayer(nn.Module):
    """A layer of a transformer, normalized behind its parts."""

    def __init__(self, width, heads, rng):
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True, rng=rng)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.linear1, self.linear2 = nn.Linear(width, 4 * width, rng=rng), nn.Linear(4 * width, width, rng=rng)

    def forward(self, x):
        """Record attention and the two layers, each around a shortcut."""
        x = self.norm1(x + self.attention(x, x, x, need_weights=False)[0])
        return self.norm2(x + self.linear2(nn.relu(self.linear1(x))))


def networks():
    """Return {name: (network, input)}."""
    rng = np.random.default_rng(0)
    encoder = nn.Sequential(*(EncoderLayer(WIDTH, HEADS, rng) for _ in range(2))).eval()
    return {
        "lstm": (nn.LSTM(FEATURES, HIDDEN, rng=rng), rng.standard_normal((STEPS, 1, FEATURES)).astype(np.float32)),
        "encoder": (encoder, rng.standard_normal((1, STEPS, WIDTH)).astype(np.float32)),
    }


def torch_network(name, model):
    """Return PyTorch's network with these weights, or None where PyTorch is absent."""
    torch = _library("torch")
    if torch is None:
        return None
    torch.set_num_threads(1)
    weights = {key: torch.from_numpy(value) for key, value in model.state_dict().items()}
    if name == "lstm":
        network = torch.nn.LSTM(FEATURES, HIDDEN)
    else:
        layer = torch.nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True)
        network = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        weights = {f"layers.{key.replace('attention', 'self_attn')}": value for key, value in weights.items()}
    network.load_state_dict(weights)
    return network.eval()


def torch_calls(name, model, x):
    """Return {candidate: call} of PyTorch in float, and dynamically quantized by itself."""
    network, torch = torch_network(name, model), _library("torch")
    if network is None:
        return {}
    kinds, tensor = {torch.nn.LSTM, torch.nn.Linear}, torch.from_numpy(x)

    def call(net):
        def run():
            with torch.inference_mode():
                y = net(tensor)
            return (y[0] if isinstance(y, tuple) else y).numpy()

        return run

    calls = {"PyTorch float": call(network)}
    if name == "lstm":  # PyTorch 2.13 cannot quantize the attention of an encoder in this way
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = torch.nn.Sequential(network)  # it replaces parts of a network only
            calls["PyTorch dynamic"] = call(torch.ao.quantization.quantize_dynamic(whole, kinds, dtype=torch.qint8))
    return calls


def onnx_lstm(model, x):
    """Return an ONNX model of the LSTM, whose gates stand in the order i, o, f, c."""
    onnx = _library("onnx")
    state = model.state_dict()

    def gates(name):
        i, f, g, o = np.split(state[name], 4)
        return np.concatenate([i, o, f, g])

    arrays = {"W": gates("weight_ih_l0")[None], "R": gates("weight_hh_l0")[None]}
    arrays["B"] = np.concatenate([gates("bias_ih_l0"), gates("bias_hh_l0")])[None]
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node("LSTM", ["x", "W", "R", "B"], ["y"], hidden_size=HIDDEN)
    graph = helper.make_graph(
        [node],
        "lstm",
        [helper.make_tensor_value_info("x", floats, x.shape)],
        [helper.make_tensor_value_info("y", floats, [STEPS, 1, 1, HIDDEN])],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def onnx_encoder(model, x):
    """Return an ONNX model of the encoder."""
    onnx = _library("onnx")
    helper, nodes, arrays = onnx.helper, [], {"heads": np.array([1, STEPS, HEADS, WIDTH // HEADS])}
    arrays |= {"flat": np.array([1, STEPS, WIDTH]), "factor": np.float32((WIDTH // HEADS) ** -0.5)}

    def add(op, *inputs, **attributes):
        nodes.append(helper.make_node(op, list(inputs), [f"v{len(nodes)}"], **attributes))
        return f"v{len(nodes) - 1}"

    def linear(value, weight, bias, name):
        arrays[f"{name}.w"], arrays[f"{name}.b"] = np.ascontiguousarray(weight.T), bias
        return add("Add", add("MatMul", value, f"{name}.w"), f"{name}.b")

    def heads(value, perm):
        return add("Transpose", add("Reshape", value, "heads"), perm=perm)

    def norm(value, layer, name):
        arrays[f"{name}.w"], arrays[f"{name}.b"] = layer.weight, layer.bias
        return add("LayerNormalization", value, f"{name}.w", f"{name}.b", epsilon=1e-5)

    value = "x"
    for number, layer in enumerate(model):
        attention = layer.attention
        parts = zip("qkv", np.split(attention.in_proj_weight, 3), np.split(attention.in_proj_bias, 3), strict=True)
        q, k, v = (linear(value, w, b, f"{number}.{letter}") for letter, w, b in parts)
        scores = add("MatMul", add("Mul", heads(q, [0, 2, 1, 3]), "factor"), heads(k, [0, 2, 3, 1]))
        y = add("MatMul", add("Softmax", scores, axis=-1), heads(v, [0, 2, 1, 3]))
        y = add("Reshape", add("Transpose", y, perm=[0, 2, 1, 3]), "flat")
        y = linear(y, attention.out_proj.weight, attention.out_proj.bias, f"{number}.out")
        value = norm(add("Add", value, y), layer.norm1, f"{number}.norm1")
        y = add("Relu", linear(value, layer.linear1.weight, layer.linear1.bias, f"{number}.linear1"))
        y = linear(y, layer.linear2.weight, layer.linear2.bias, f"{number}.linear2")
        value = norm(add("Add", value, y), layer.norm2, f"{number}.norm2")
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("x", floats, x.shape)],
        [helper.make_tensor_value_info(value, floats, x.shape)],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def onnx_calls(name, model, x):
    """Return {candidate: call} of ONNX Runtime on one thread, in float and dynamically quantized by itself."""
    runtime = _library("onnxruntime")
    if runtime is None or _library("onnx") is None:
        return {}
    made = (onnx_lstm if name == "lstm" else onnx_encoder)(model, x)
    calls = {"ONNX Runtime float": onnx_call(runtime, made, x)}
    return calls | {"ONNX Runtime dynamic": onnx_call(runtime, quantized_by_onnx(made), x)}


def onnx_call(runtime, made, x):
    """Return a call of one model."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})[0].reshape(x.shape[:2] + (-1,))


def quantized_by_onnx(made):
    """Return the model with int8 weights per output, its inputs quantized at each call, as ONNX Runtime does it."""
    quantization = importlib.import_module("onnxruntime.quantization")
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("float.onnx", "int8.onnx")]
        _library("onnx").save(made, paths[0])
        quantization.quantize_dynamic(*paths, per_channel=True, weight_type=quantization.QuantType.QInt8)
        return _library("onnx").load(paths[1])


def candidates(name, model, x):
    """Return {candidate: call that returns the outputs}, ours dynamically quantized first."""
    dyn = nq.quantize_dynamic(model).graph(x)
    floats = model.graph(x).eval()

    def outputs(graph):
        return lambda: y[0] if isinstance(y := graph(x), tuple) else y

    calls = {"ndquant dynamic": outputs(dyn), "NumPy float": outputs(floats)}
    if name == "encoder":
        calls["ndquant static"] = outputs(nq.quantize_static(model, [x]))
    return calls | onnx_calls(name, model, x) | torch_calls(name, model, x)


def share_that_scales(batches=8, size=64):
    """Return which part of the time of a calibration is spent in work that an executor can take."""

    class Inline:
        inside = 0.0

        def map(self, function, items):
            start = time.process_time()
            found = list(map(function, items))
            self.inside += time.process_time() - start
            return found

    layers = nn.Conv2d(3, 32, 3, padding=1, rng=0), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1, rng=1)
    model, rng = nn.Sequential(*layers), np.random.default_rng(0)
    data = [rng.standard_normal((size, 3, 32, 32)).astype(np.float32) for _ in range(batches)]
    executor, start = Inline(), time.process_time()
    nq.calibrate(nq.prepare(model, data[0]), data, executor=executor)
    return executor.inside / (time.process_time() - start)


def main():
    """Print a table, of the processor's time on one core."""
    timing.clock = time.process_time
    logging.getLogger().setLevel(logging.ERROR)  # ONNX Runtime recommends a step that changes nothing here
    for name, (model, x) in networks().items():
        calls = candidates(name, model, x)
        times = timing.samples(list(calls.values()), rounds=41, slice_seconds=4e-3)
        truth = calls["NumPy float"]()
        print(f"{name}, batch 1, {STEPS} steps")
        for i, (candidate, call) in enumerate(calls.items()):
            error = np.linalg.norm(call() - truth) / np.linalg.norm(truth)
            ratio = np.median(times[:, i] / times[:, 0])
            print(f"  {candidate:20} {1e6 * np.median(times[:, i]):8.0f} us  {ratio:5.2f}  error {100 * error:.3f} %")
    print(f"of a calibration by batches, {100 * share_that_scales():.1f} % of the time scales")


if __name__ == "__main__":
    main()
