"""Write layers.npz: what PyTorch 2.13 (CPU, x86) computes in float64 for the layers and expressions of layer_cases.py.

Only somebody who regenerates the file runs this, in an environment with PyTorch and NumPy:

    python tests/golden/make_golden_layers.py

Of case i: "i/x", "i/dy" (inputs and gradients of outputs, float32), "i/y", "i/dx", and for layers with parameters
"i/state/<name>" before the call, "i/after/<name>" for buffers that the call changed, "i/grad/<name>". Of an expression:
"<name>/x0", "<name>/x1" (inputs), "<name>/dy", "<name>/y", "<name>/dx0", "<name>/dx1".
"""

from pathlib import Path

import numpy as np
import torch
from layer_cases import CASES, EXPRESSIONS

FOLDER = Path(__file__).parent
SEED = 20261124

#: Where activations have kinks, and where exponentials overflow.
KINKS = [0.0, -0.0, 3.0, -3.0, 6.0, 1e-30, -1e-30, 100.0, -100.0]


def as_tuples(arguments):
    """Return arguments with pairs as tuples, as PyTorch takes them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}


def values(shape, rng):
    """Normal float32 values; in place of the first, those where formulas have kinks."""
    x = (2 * rng.standard_normal(shape)).astype(np.float32)
    if len(shape) == 2:
        x.flat[: len(KINKS)] = KINKS
    return x


def arrays_of(kind, arguments, shape, rng):
    """Yield (name, array) of one case."""
    layer = getattr(torch.nn, kind)(**as_tuples(arguments))
    for parameter in layer.parameters():
        parameter.data = torch.from_numpy(rng.uniform(-0.5, 0.5, parameter.shape).astype(np.float32))
    for name, value in layer.state_dict().items():
        yield f"state/{name}", value.numpy().copy()
    layer = layer.double()
    x = values(shape, rng)
    tensor = torch.from_numpy(x).double().requires_grad_()
    y = layer(tensor)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    y.backward(torch.from_numpy(dy).double())
    yield from (("x", x), ("dy", dy), ("y", y.detach().numpy()), ("dx", tensor.grad.numpy()))
    for name, parameter in layer.named_parameters():
        yield f"grad/{name}", parameter.grad.numpy()
    for name, value in layer.named_buffers():
        yield f"after/{name}", value.numpy()


class Functions:
    """PyTorch's functions under NumPy's names."""

    matmul, transpose, concatenate = torch.matmul, torch.permute, torch.cat

    @staticmethod
    def pad(x, width):
        """Pad with zeros; PyTorch counts axes from the last one."""
        return torch.nn.functional.pad(x, [n for before_after in width[::-1] for n in before_after])


def arrays_of_expression(expression, shapes, rng):
    """Yield (name, array) of one expression; inputs keep away from 0, by which some divide."""
    xs = [(np.sign(x) * (0.5 + np.abs(x))).astype(np.float32) for x in map(rng.standard_normal, shapes)]
    tensors = [torch.from_numpy(x).double().requires_grad_() for x in xs]
    y = expression(Functions, *tensors)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    y.backward(torch.from_numpy(dy).double())
    yield from (("dy", dy), ("y", y.detach().numpy()))
    for number, (x, tensor) in enumerate(zip(xs, tensors, strict=True)):
        yield from ((f"x{number}", x), (f"dx{number}", tensor.grad.numpy()))


def main():
    """Write the file."""
    rng, arrays = np.random.default_rng(SEED), {}
    for number, (kind, arguments, shape) in enumerate(CASES):
        for name, array in arrays_of(kind, arguments, shape, rng):
            arrays[f"{number}/{name}"] = array.astype(np.float32) if array.dtype.kind == "f" else array
    for title, (expression, shapes) in EXPRESSIONS.items():
        for name, array in arrays_of_expression(expression, shapes, rng):
            arrays[f"{title}/{name}"] = array.astype(np.float32)
    np.savez_compressed(FOLDER / "layers.npz", **arrays)
    print(f"layers.npz: {(FOLDER / 'layers.npz').stat().st_size} bytes")


if __name__ == "__main__":
    main()
