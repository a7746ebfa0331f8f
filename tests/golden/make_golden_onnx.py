"""Write onnx.npz: inputs, and what the reference evaluator of the `onnx` package (1.23) computes from them.

Only somebody who regenerates the file runs this, in an environment with onnx: python tests/golden/make_golden_onnx.py

Keys are "<case>/<name>": x, scale, zero_point, axis and block_size (-1, 0: none), q, y; dynamic/<n>/... of
DynamicQuantizeLinear.
"""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

TYPES = {"uint8": 8, "int8": 8, "uint16": 16, "int16": 16, "uint4": 4, "int4": 4}
LAYOUTS = {"tensor": ((600,), 0, 0, ()), "axis": ((5, 120), 0, 0, (5,)), "block": ((10, 60), 1, 20, (10, 3))}


def run(node, **inputs):
    """Return the outputs of one node."""
    types = {name: (helper.np_dtype_to_tensor_dtype(array.dtype), array.shape) for name, array in inputs.items()}
    values = [helper.make_tensor_value_info(name, *of_array) for name, of_array in types.items()]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([node], "g", values, outputs)
    return ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])).run(None, inputs)


def quantize_case(rng, name, layout):
    shape, axis, block, scales = LAYOUTS[layout]
    dtype = helper.tensor_dtype_to_np_dtype(getattr(TensorProto, name.upper()))
    top = 2 ** TYPES[name]
    low = -top // 2 if name.startswith("int") else 0
    scale = rng.uniform(0.01, 0.1, scales).astype(np.float32)
    zero = rng.integers(low, low + top, scales)
    whole = np.broadcast_to(np.repeat(scale, block, 1) if block else scale.reshape(-1, 1) if scales else scale, shape)
    x = ((rng.integers(-top, top, shape) / 2) * whole).astype(np.float32)
    x = np.where(rng.random(shape) < 0.3, np.nextafter(x, np.float32(np.inf)), x)
    names, inputs = ["x", "s", "z"], {"x": x, "s": scale, "z": zero.astype(dtype)}
    q = run(helper.make_node("QuantizeLinear", names, ["q"], axis=axis, block_size=block), **inputs)[0]
    y = run(helper.make_node("DequantizeLinear", names, ["y"], axis=axis, block_size=block), **(inputs | {"x": q}))[0]
    arrays = {"x": x, "scale": scale, "zero_point": zero, "q": q.astype(np.int32), "y": y}
    return arrays | {"axis": axis if scales else -1, "block_size": block}


def main():
    rng, arrays = np.random.default_rng(20261123), {}
    for name in TYPES:
        for layout in LAYOUTS:
            arrays |= {f"{name}/{layout}/{key}": value for key, value in quantize_case(rng, name, layout).items()}
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero_point"])
    for n, (low, high) in enumerate([(-1, 3), (0.5, 2), (-7, -2), (-1e-3, 5), (-2, 2), (-3, 0.001)]):
        x = rng.uniform(low, high, 300).astype(np.float32)
        arrays |= {f"dynamic/{n}/{key}": a for key, a in zip(("q", "scale", "zero_point"), run(node, x=x), strict=True)}
        arrays[f"dynamic/{n}/x"] = x
    np.savez_compressed(Path(__file__).parent / "onnx.npz", **arrays)


if __name__ == "__main__":
    main()
