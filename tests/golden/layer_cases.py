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

CASES = POINTWISE + POOLING + CONVOLUTION + NORMALIZATION


def name_of(number):
    """Return the name under which a file and the tests know a case."""
    kind, arguments, _ = CASES[number]
    return "-".join([f"{number}-{kind}", *(f"{key}={value}" for key, value in arguments.items())]).replace(" ", "")
