"""Write conv.npz: operands, and the sums that the reference evaluator of the `onnx` package (1.23) computes from them.

Only somebody who regenerates the file runs this, in an environment with onnx: python tests/golden/make_golden_conv.py

Keys are "<case>/<name>": x, w, x_zero_point, w_zero_point, stride, padding, dilation, groups, and y, of ConvInteger.
Cases "requantized/..." also have bias, x_scale, w_scale, y_scale and y_zero_point, of QLinearConv; there w_zero_point
is 0.
"""

from pathlib import Path

import numpy as np
from make_golden_onnx import run
from onnx import helper

#: name: (shape of x, shape of w, stride, padding, dilation, groups)
CASES = {
    "3x3": ((2, 5, 7, 6), (4, 5, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "strided": ((1, 3, 9, 8), (7, 3, 3, 2), (2, 3), (1, 0), (1, 1), 1),
    "dilated": ((1, 4, 9, 11), (3, 4, 3, 3), (1, 2), (2, 1), (2, 3), 1),
    "1x1": ((2, 17, 4, 5), (18, 17, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "grouped": ((1, 6, 5, 5), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), 2),
    "depthwise": ((1, 19, 6, 5), (19, 1, 3, 3), (1, 1), (1, 1), (1, 1), 19),
}


def integer_case(rng, x_type, w_type, case):
    x_shape, w_shape, stride, padding, dilation, groups = case
    x, w = (random_codes(rng, kind, shape) for kind, shape in ((x_type, x_shape), (w_type, w_shape)))
    x_zero, w_zero = (random_codes(rng, kind, ()) for kind in (x_type, w_type))
    node = helper.make_node("ConvInteger", ["x", "w", "xz", "wz"], ["y"], **attributes(case))
    y = run(node, x=x, w=w, xz=x_zero, wz=w_zero)[0]
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return {"x": x, "w": w, "x_zero_point": x_zero, "w_zero_point": w_zero, "y": y.astype(np.int32), **geometry}


def attributes(case):
    _, w_shape, stride, padding, dilation, groups = case
    sizes = {"kernel_shape": w_shape[2:], "strides": stride, "pads": (*padding, *padding), "dilations": dilation}
    return sizes | {"group": groups}


def random_codes(rng, kind, shape):
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max + 1, shape).astype(kind)


def requantized_case(rng, x_type, w_type, case):
    arrays = integer_case(rng, x_type, w_type, case)
    outputs, zero = len(arrays["w"]), np.zeros((), w_type)
    scales = {"xs": np.float32(0.03), "ws": rng.uniform(0.004, 0.02, outputs).astype(np.float32), "ys": np.float32(0.7)}
    bias, y_zero = rng.integers(-9000, 9000, outputs).astype(np.int32), random_codes(rng, x_type, ())
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
    node = helper.make_node("QLinearConv", names, ["y"], **attributes(case))
    inputs = {"x": arrays["x"], "xz": arrays["x_zero_point"], "w": arrays["w"], "yz": y_zero, "b": bias, **scales}
    y = run(node, wz=np.full(outputs, zero), **inputs)[0]
    given = {"bias": bias, "x_scale": scales["xs"], "w_scale": scales["ws"], "y_scale": scales["ys"]}
    return arrays | given | {"y_zero_point": y_zero, "w_zero_point": zero, "y": y}


def main():
    rng, arrays = np.random.default_rng(20261123), {}
    for number, (name, case) in enumerate(CASES.items()):
        signs = ("uint8", "int8") if number % 2 else ("int8", "uint8")
        for kind, make, types in (
            ("integer", integer_case, signs),
            ("requantized", requantized_case, (signs[0], "int8")),
        ):
            arrays |= {f"{kind}/{name}/{key}": value for key, value in make(rng, *types, case).items()}
    np.savez_compressed(Path(__file__).parent / "conv.npz", **arrays)


if __name__ == "__main__":
    main()
