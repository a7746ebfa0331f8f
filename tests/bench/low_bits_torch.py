"""PyTorch's learnable fake-quantization on MNIST, as `low_bits_mnist` trains ours: the same weights and batches."""

from __future__ import annotations

import torch

from ndquant import nn

from .low_bits_mnist import BATCH, LSQ_RATE


class Learnable(torch.nn.Module):
    """A learned scale, begun at 2 mean|x| / sqrt(qmax), with the gradient factor of LSQ."""

    def __init__(self, low, high):
        super().__init__()
        self.bounds, self.begun = (low, high), False
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.zero_point = torch.nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, x):
        low, high = self.bounds
        if not self.begun:
            self.scale.data.fill_(2 * x.detach().abs().mean() / high**0.5)
            self.begun = True
        factor = 1 / (x.numel() * high) ** 0.5
        return torch._fake_quantize_learnable_per_tensor_affine(x, self.scale, self.zero_point, low, high, factor)


class Network(torch.nn.Module):
    """The perceptron with quantizers in front of every layer and on its weight; the input has 8 bits of min-max."""

    def __init__(self, layers, bits):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(*layer.weight.shape[::-1]) for layer in layers)
        for ours, theirs in zip(layers, self.layers, strict=True):
            theirs.weight.data, theirs.bias.data = torch.tensor(ours.weight), torch.tensor(ours.bias)
        self.weights = torch.nn.ModuleList(Learnable(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for _ in layers)
        self.hidden = torch.nn.ModuleList(Learnable(0, 2**bits - 1) for _ in layers[1:])
        self.input = torch.ao.quantization.FakeQuantize.with_args(
            observer=torch.ao.quantization.MovingAverageMinMaxObserver, quant_min=0, quant_max=255
        )()

    def forward(self, x):
        x = self.input(x.flatten(1))
        for i, (layer, quantizer) in enumerate(zip(self.layers, self.weights, strict=True)):
            x = self.hidden[i - 1](torch.relu(x)) if i else x
            x = torch.nn.functional.linear(x, quantizer(layer.weight), layer.bias)
        return x


def learnable(network, job, bits, rng, rate):
    """Return the accuracy in % after an epoch from the weights of `network`."""
    torch.set_num_threads(1)
    model = Network([layer for layer in network if isinstance(layer, nn.Linear)], bits)
    scales = [parameter for name, parameter in model.named_parameters() if name.endswith("scale")]
    opt = torch.optim.Adam([{"params": model.layers.parameters()}, {"params": scales, "lr": LSQ_RATE}], lr=rate)
    for x, labels in nn.batches(*job.train, size=BATCH, rng=rng):
        opt.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.tensor(x)), torch.tensor(labels, dtype=torch.long)).backward()
        opt.step()
    with torch.no_grad():
        answers = model.eval()(torch.tensor(job.test[0])).argmax(1).numpy()
    return 100 * float((answers == job.test[1]).mean())
