"""The layers that golden vectors are made for: (name of the class, its arguments, shape of the input)."""

POINTWISE = [
    ("ReLU", {}, (5, 40)),
    ("ReLU6", {}, (5, 40)),
    ("LeakyReLU", {"negative_slope": 0.2}, (5, 40)),
    ("Sigmoid", {}, (5, 40)),
    ("Tanh", {}, (5, 40)),
    ("Hardswish", {}, (5, 40)),
]

IMAGE = (2, 3, 9, 7)

POOLING = [
    ("MaxPool2d", {"kernel_size": 2}, IMAGE),
    ("MaxPool2d", {"kernel_size": 3, "stride": 2, "padding": 1}, IMAGE),
    ("MaxPool2d", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}, IMAGE),
    ("MaxPool2d", {"kernel_size": [2, 3], "stride": [3, 1], "padding": [0, 1], "dilation": [3, 1]}, IMAGE),
    ("MaxPool2d", {"kernel_size": 2, "stride": 3, "ceil_mode": True}, IMAGE),
    ("AvgPool2d", {"kernel_size": 2}, IMAGE),
    ("AvgPool2d", {"kernel_size": 3, "stride": 2, "padding": 1}, IMAGE),
    ("AvgPool2d", {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}, IMAGE),
    ("AvgPool2d", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}, (2, 3, 8, 6)),
    ("AvgPool2d", {"kernel_size": [4, 2], "stride": 3, "padding": [2, 1], "ceil_mode": True}, IMAGE),
    (
        "AvgPool2d",
        {"kernel_size": [4, 2], "stride": 3, "padding": [2, 1], "ceil_mode": True, "count_include_pad": False},
        IMAGE,
    ),
    ("AdaptiveAvgPool2d", {"output_size": 1}, IMAGE),
    ("AdaptiveAvgPool2d", {"output_size": [4, 3]}, IMAGE),
    ("AdaptiveAvgPool2d", {"output_size": [None, 9]}, IMAGE),
]

CONVOLUTION = [
    ("Conv2d", {"in_channels": 3, "out_channels": 4, "kernel_size": 3, "padding": 1}, IMAGE),
    ("Conv2d", {"in_channels": 3, "out_channels": 4, "kernel_size": 3, "stride": 2, "bias": False}, IMAGE),
    ("Conv2d", {"in_channels": 3, "out_channels": 20, "kernel_size": 1}, IMAGE),
    (
        "Conv2d",
        {
            "in_channels": 6,
            "out_channels": 4,
            "kernel_size": [3, 2],
            "stride": [1, 3],
            "padding": [2, 1],
            "dilation": [2, 1],
            "groups": 2,
        },
        (2, 6, 9, 7),
    ),
    ("Conv2d", {"in_channels": 5, "out_channels": 10, "kernel_size": 3, "padding": 1, "groups": 5}, (2, 5, 8, 8)),
]

NORMALIZATION = [
    ("BatchNorm2d", {"num_features": 3}, IMAGE),
    ("BatchNorm2d", {"num_features": 3, "momentum": None, "eps": 0.1}, IMAGE),
    ("BatchNorm2d", {"num_features": 3, "affine": False, "track_running_stats": False}, IMAGE),
    ("BatchNorm1d", {"num_features": 20, "momentum": 0.3}, (7, 20)),
    ("BatchNorm1d", {"num_features": 4}, (3, 4, 5)),
]

FULLY_CONNECTED = [
    ("Linear", {"in_features": 12, "out_features": 5}, (4, 12)),
    ("Linear", {"in_features": 40, "out_features": 1, "bias": False}, (1, 40)),
]

RESHAPING = [
    ("Flatten", {}, IMAGE),
    ("Flatten", {"start_dim": 2, "end_dim": -1}, IMAGE),
    ("Dropout", {"p": 0.0}, (5, 40)),
]

CASES = POINTWISE + POOLING + CONVOLUTION + NORMALIZATION + FULLY_CONNECTED + RESHAPING

#: What `forward` may do with values: {name: (function of the inputs, their shapes)}. `f` is NumPy, or stands for it.
EXPRESSIONS = {
    "add": (lambda f, a, b: a + b, [(3, 4, 5), (3, 4, 5)]),
    "add, broadcast": (lambda f, a, b: a + b, [(3, 4, 5, 2), (3, 4, 1, 1)]),
    "subtract": (lambda f, a, b: a - b, [(3, 4, 5), (3, 4, 5)]),
    "subtract, broadcast": (lambda f, a, b: a - b, [(3, 1, 5), (3, 4, 5)]),
    "multiply": (lambda f, a, b: a * b, [(3, 4, 5), (3, 4, 5)]),
    "multiply, broadcast": (lambda f, a, b: a * b, [(3, 4, 5, 2), (3, 4, 1, 1)]),
    "divide": (lambda f, a, b: a / b, [(3, 4, 5), (3, 4, 5)]),
    "divide, broadcast": (lambda f, a, b: a / b, [(3, 4, 5), (3, 1, 5)]),
    "numbers": (lambda f, a: 2.5 / (1 - a * 0.5) - 3, [(3, 4)]),
    "matmul": (lambda f, a, b: a @ b, [(3, 4, 5), (3, 5, 2)]),
    "matmul of more axes": (lambda f, a, b: f.matmul(a, b), [(2, 3, 4, 5), (2, 1, 5, 6)]),
    "concatenate": (lambda f, a, b: f.concatenate([a, b, a], 1), [(2, 3, 4, 5), (2, 1, 4, 5)]),
    "concatenate the last axis": (lambda f, a, b: f.concatenate([a, b], -1), [(2, 3, 4), (2, 3, 1)]),
    "slice": (lambda f, a: a[:, 1:3, ::2, -1], [(2, 4, 5, 6)]),
    "pad": (lambda f, a: f.pad(a, ((0, 0), (0, 0), (1, 2), (0, 3))), [(2, 3, 4, 5)]),
    "reshape": (lambda f, a: a.reshape(-1, 6, 10), [(2, 3, 4, 5)]),
    "transpose": (lambda f, a: f.transpose(a, (0, 2, 3, 1)), [(2, 3, 4, 5)]),
    "mean": (lambda f, a: a.mean((2, 3)), [(2, 3, 4, 5)]),
    "mean of one axis": (lambda f, a: a.mean(1, keepdims=True), [(2, 3, 4, 5)]),
}


def name_of(number):
    """Return the name under which a file and the tests know a case."""
    kind, arguments, _ = CASES[number]
    return "-".join([f"{number}-{kind}", *(f"{key}={value}" for key, value in arguments.items())]).replace(" ", "")
