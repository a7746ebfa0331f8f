"""The layers around sequences that golden vectors are made for.

A case is (name of the class, its arguments, shape of the input, what else is given): "lengths" of the sequences,
"state" initial states, "padding" lengths of keys, "mask" which of L x S may not be looked at, "keys" and "values" the
shapes of other ones.
"""

LAYERS = [
    ("Embedding", {"num_embeddings": 7, "embedding_dim": 3, "padding_idx": 2}, (4, 5), {}),
    ("LayerNorm", {"normalized_shape": 12}, (3, 5, 12), {}),
    ("LayerNorm", {"normalized_shape": [5, 12], "eps": 0.1, "bias": False}, (3, 5, 12), {}),
    ("LayerNorm", {"normalized_shape": 12, "elementwise_affine": False}, (3, 12), {}),
    ("GELU", {}, (5, 40), {}),
    ("GELU", {"approximate": "tanh"}, (5, 40), {}),
    ("Softmax", {"dim": -1}, (3, 4, 9), {}),
    ("Softmax", {"dim": 1}, (3, 4, 9), {}),
    ("Linear", {"in_features": 6, "out_features": 4}, (3, 5, 6), {}),
    ("Conv1d", {"in_channels": 3, "out_channels": 4, "kernel_size": 3, "padding": 1}, (2, 3, 11), {}),
    (
        "Conv1d",
        {"in_channels": 6, "out_channels": 4, "kernel_size": 3, "stride": 2, "dilation": 2, "groups": 2, "bias": False},
        (2, 6, 11),
        {},
    ),
    ("ConvTranspose2d", {"in_channels": 3, "out_channels": 4, "kernel_size": 3}, (2, 3, 5, 4), {}),
    (
        "ConvTranspose2d",
        {
            "in_channels": 4,
            "out_channels": 6,
            "kernel_size": [3, 2],
            "stride": [3, 2],
            "padding": [1, 0],
            "output_padding": [2, 1],
            "groups": 2,
            "dilation": [1, 2],
            "bias": False,
        },
        (2, 4, 5, 4),
        {},
    ),
]

_SIZES = {"input_size": 3, "hidden_size": 4}

RECURRENT = [
    (kind, {**_SIZES, **arguments}, shape, given)
    for kind in ("LSTM", "GRU")
    for arguments, shape, given in [
        ({}, (6, 2, 3), {}),
        ({"bias": False, "batch_first": True}, (2, 6, 3), {}),
        ({"num_layers": 2, "bidirectional": True}, (6, 2, 3), {"state": True}),
        ({"num_layers": 2, "bidirectional": True, "batch_first": True}, (4, 6, 3), {"lengths": [6, 1, 4, 6]}),
        ({"batch_first": True}, (3, 6, 3), {"state": True, "lengths": [2, 6, 5]}),
    ]
]

_HEADS = {"embed_dim": 8, "num_heads": 2}
_CAUSAL = [[j > i for j in range(5)] for i in range(5)]

ATTENTION = [
    ("MultiheadAttention", {**_HEADS, "batch_first": True}, (3, 5, 8), {}),
    ("MultiheadAttention", {**_HEADS, "bias": False}, (5, 3, 8), {"mask": _CAUSAL}),
    ("MultiheadAttention", {**_HEADS, "batch_first": True}, (3, 5, 8), {"padding": [5, 2, 1], "mask": _CAUSAL}),
    ("MultiheadAttention", {**_HEADS, "batch_first": True}, (3, 5, 8), {"keys": (3, 7, 8), "padding": [7, 2, 3]}),
    (
        "MultiheadAttention",
        {**_HEADS, "kdim": 6, "vdim": 10, "batch_first": True},
        (3, 5, 8),
        {"keys": (3, 7, 6), "values": (3, 7, 10)},
    ),
]

CASES = LAYERS + RECURRENT + ATTENTION


def name_of(number):
    """Return the name under which the tests know a case."""
    kind, arguments, _, given = CASES[number]
    words = [f"{key}={value}" for key, value in arguments.items() if key not in _SIZES | _HEADS]
    return "-".join([f"{number}-{kind}", *words, *given]).replace(" ", "")
