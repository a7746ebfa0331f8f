"""Write sequences.npz: what PyTorch 2.13 (CPU, x86) computes in float64 for the layers of sequence_cases.py.

Only somebody who regenerates the file runs this, in an environment with PyTorch and NumPy:

    python tests/golden/make_golden_sequences.py

Of case i: "i/in/<k>" and "i/dx/<k>" of each input of floats and its gradient, "i/out/<k>" and "i/dy/<k>" of each output
and the gradient that was given to it, "i/state/<name>" and "i/grad/<name>" of the parameters.
"""

from pathlib import Path

import numpy as np
import torch
from sequence_cases import CASES
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

FOLDER = Path(__file__).parent
SEED = 20261126


def as_tuples(arguments):
    """Return arguments with pairs as tuples, as PyTorch takes them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}


def run_recurrent(layer, inputs, given):
    """Outputs and last states."""
    x, states = inputs[0], tuple(inputs[1:])
    hx = None if not states else states if len(states) > 1 else states[0]
    if "lengths" not in given:
        y, last = layer(x, hx)
    else:
        packed = pack_padded_sequence(x, torch.tensor(given["lengths"]), layer.batch_first, enforce_sorted=False)
        y, last = layer(packed, hx)
        y, _ = pad_packed_sequence(y, layer.batch_first, total_length=x.shape[1])
    return [y, *(last if isinstance(last, tuple) else (last,))]


def run_attention(layer, inputs, given):
    """Output and weights."""
    query, key, value = inputs if len(inputs) == 3 else (inputs[0], inputs[-1], inputs[-1])
    masks = {}
    if "padding" in given:
        masks["key_padding_mask"] = torch.arange(key.shape[1])[None] >= torch.tensor(given["padding"])[:, None]
    if "mask" in given:
        masks["attn_mask"] = torch.tensor(given["mask"])
    return list(layer(query, key, value, **masks))


def inputs_of(kind, arguments, shape, given, rng):
    """Arrays of floats that the layer reads, or integers for a table."""
    if kind == "Embedding":
        return [rng.integers(0, arguments["num_embeddings"], shape)]
    shapes = [shape, *(given[name] for name in ("keys", "values") if name in given)]
    if given.get("state"):
        count = arguments.get("num_layers", 1) * (1 + arguments.get("bidirectional", False))
        batch = shape[0 if arguments.get("batch_first") else 1]
        shapes += [(count, batch, arguments["hidden_size"])] * (2 if kind == "LSTM" else 1)
    return [rng.standard_normal(s).astype(np.float32) for s in shapes]


def run(kind, layer, inputs, given):
    """Outputs of a layer."""
    if kind in ("LSTM", "GRU"):
        return run_recurrent(layer, inputs, given)
    return run_attention(layer, inputs, given) if kind == "MultiheadAttention" else [layer(*inputs)]


def arrays_of(kind, arguments, shape, given, rng):
    """Yield (name, array) of one case."""
    layer = getattr(torch.nn, kind)(**as_tuples(arguments))
    for parameter in layer.parameters():
        parameter.data = torch.from_numpy(rng.uniform(-0.5, 0.5, parameter.shape).astype(np.float32))
    for name, value in layer.state_dict().items():
        yield f"state/{name}", value.numpy().copy()
    layer, arrays = layer.double(), inputs_of(kind, arguments, shape, given, rng)
    tensors = [torch.from_numpy(a) for a in arrays]
    tensors = [t.double().requires_grad_() if t.is_floating_point() else t for t in tensors]
    outputs = run(kind, layer, tensors, given)
    differentiated = outputs[:1] if kind == "MultiheadAttention" else outputs
    d = [rng.standard_normal(y.shape).astype(np.float32) for y in differentiated]
    torch.autograd.backward(differentiated, [torch.from_numpy(a).double() for a in d])
    for i, (array, tensor) in enumerate(zip(arrays, tensors, strict=True)):
        yield f"in/{i}", array
        if tensor.requires_grad:
            yield f"dx/{i}", tensor.grad.numpy()
    yield from ((f"out/{i}", y.detach().numpy()) for i, y in enumerate(outputs))
    yield from ((f"dy/{i}", a) for i, a in enumerate(d))
    yield from ((f"grad/{name}", parameter.grad.numpy()) for name, parameter in layer.named_parameters())


def main():
    """Write the file."""
    rng, arrays = np.random.default_rng(SEED), {}
    for number, case in enumerate(CASES):
        for name, array in arrays_of(*case, rng):
            arrays[f"{number}/{name}"] = array.astype(np.float32) if array.dtype.kind == "f" else array
    np.savez_compressed(FOLDER / "sequences.npz", **arrays)
    print(f"sequences.npz: {(FOLDER / 'sequences.npz').stat().st_size} bytes")


if __name__ == "__main__":
    main()
