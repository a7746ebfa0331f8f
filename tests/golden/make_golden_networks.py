"""Write networks.npz: what PyTorch 2.13 (CPU, x86) makes of two small networks, in its eager and its graph mode.

Only somebody who regenerates the file runs this, in an environment with PyTorch and NumPy:

    python tests/golden/make_golden_networks.py

"tinynn/...": the network of TinyNeuralNetwork's tutorial, trained for the qnnpack configuration as it is done there by
hand. "fbgemm/..." and "qnnpack/...": a residual network after calibration, run by the library of that name. Of each:
"state/<name>" (before the first batch), "batches", "scale/<edge>", "zero_point/<edge>", "x" and "y" (an input and what
the converted network gives), "codes/<layer>" of weights, and for tinynn "after/<name>" of the statistics.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.ao import quantization
from torch.ao.quantization import quantize_fx
from torch.nn.functional import max_pool2d, relu

SEED = 20261125


class TinyNN(nn.Module):
    """The tutorial's network as it is rewritten there by hand."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()
        self.fake_quant, self.fake_dequant = quantization.QuantStub(), quantization.DeQuantStub()
        self.float_functional = torch.ao.nn.quantized.FloatFunctional()

    def forward(self, x):
        x = self.fake_quant(x)
        y = self.relu(self.bn(self.conv(x)))
        return self.fake_dequant(self.float_functional.add(x, y))


class Residual(nn.Module):
    """Convolutions of several kinds, an addition, a pool and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.conv3, self.linear = nn.Conv2d(8, 6, 3, stride=2), nn.Linear(24, 10)

    def forward(self, x):
        x = relu(self.conv1(x))
        x = relu(x + self.conv2(x))
        x = max_pool2d(relu(self.conv3(x)), 2)
        return self.linear(torch.flatten(x, 1))


def grids(**edges):
    """Yield scale and zero point of each edge."""
    for name, (scale, zero_point) in edges.items():
        yield f"scale/{name}", np.float32(scale)
        yield f"zero_point/{name}", np.int32(zero_point)


def tinynn(rng):
    """Yield the arrays of the tutorial."""
    model = TinyNN().train()
    batches = rng.standard_normal((10, 1, 3, 8, 8)).astype(np.float32)
    for name in ("conv", "bn"):
        for key, value in getattr(model, name).state_dict().items():
            yield f"state/{name}.{key}", value.numpy().copy()
    yield "batches", batches
    # The tutorial's version: the fused quantizers of later ones have another scale for the same range of weights.
    model.qconfig = quantization.get_default_qat_qconfig("qnnpack", version=0)
    quantization.fuse_modules_qat(model, [["conv", "bn", "relu"]], inplace=True)
    quantization.prepare_qat(model, inplace=True)
    for batch in batches:
        model(torch.from_numpy(batch))
    for key in ("running_mean", "running_var"):
        yield f"after/bn.{key}", getattr(model.conv.bn, key).numpy().copy()
    weight = model.conv.weight_fake_quant
    converted = quantization.convert(model.eval())
    conv, add, entry = converted.conv, converted.float_functional, converted.fake_quant
    yield from grids(
        input=(entry.scale.item(), entry.zero_point.item()),
        weight=(weight.scale.item(), weight.zero_point.item()),
        conv=(conv.scale, conv.zero_point),
        add=(add.scale, add.zero_point),
    )
    yield "codes/conv", conv.weight().int_repr().numpy()
    yield from (("x", batches[0]), ("y", converted(torch.from_numpy(batches[0])).numpy()))


def residual(preset, rng):
    """Yield the arrays of a network after calibration."""
    model = Residual().eval()
    for key, value in model.state_dict().items():
        yield f"state/{key}", value.numpy().copy()
    batches = rng.standard_normal((3, 8, 3, 10, 10)).astype(np.float32)
    yield "batches", batches
    mapping = quantization.QConfigMapping().set_global(quantization.get_default_qconfig(preset))
    prepared = quantize_fx.prepare_fx(model, mapping, (torch.from_numpy(batches[0]),))
    for batch in batches:
        prepared(torch.from_numpy(batch))
    converted = quantize_fx.convert_fx(prepared)
    layers = {name: getattr(converted, name) for name in ("conv1", "conv2", "conv3", "linear")}
    add = [node for node in converted.graph.nodes if "add_relu" in str(node.target)][0]
    names = entry_of(converted), add.args[2:]
    entry, add = ([getattr(converted, str(part)).item() for part in pair] for pair in names)
    yield from grids(input=entry, add=add, **{name: (layer.scale, layer.zero_point) for name, layer in layers.items()})
    for name, layer in layers.items():
        yield f"codes/{name}", layer.weight().int_repr().numpy()
    yield from (("x", batches[0]), ("y", converted(torch.from_numpy(batches[0])).numpy()))


def entry_of(converted):
    """Return the names of scale and zero point of the input."""
    node = next(node for node in converted.graph.nodes if node.target is torch.quantize_per_tensor)
    return node.args[1:3]


def main():
    """Write the file."""
    warnings.simplefilter("ignore")
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    arrays = {f"tinynn/{name}": array for name, array in tinynn(rng)}
    for preset in ("fbgemm", "qnnpack"):
        torch.backends.quantized.engine = preset  # with 8-bit activations, FBGEMM's sums saturate without VNNI
        arrays |= {f"{preset}/{name}": array for name, array in residual(preset, rng)}
    path = Path(__file__).parent / "networks.npz"
    np.savez_compressed(path, **arrays)
    print(f"networks.npz: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
