"""Times of ResNet-20: inference at batch 1 and 32, and one training step at batch 64.

Inference is the public call of an integer graph, the plan alone that is behind it, and the float Module. Training steps
are float and quantization-aware, beside those of PyTorch where it is installed. All candidates of a row take turns in
one run; the table gives medians and ratios to the first. OPENBLAS_NUM_THREADS and NDQUANT_NUM_THREADS set the threads.
"""

from __future__ import annotations

import warnings

import numpy as np
from tests.bench.training import module_step
from tests.networks import ResNet

import ndquant as nq
from ndquant import demo

F32 = np.float32


def inference_rows(rng, batches=(1, 32)):
    """Yield (name, candidates) of inference."""
    model = ResNet().eval()
    graph = nq.quantize_static(model, [rng.standard_normal((32, 3, 32, 32), dtype=F32)])
    for batch in batches:
        x = rng.standard_normal((batch, 3, 32, 32), dtype=F32)
        graph(x)
        calls = {"integers": lambda x=x: graph(x), "float Module": lambda x=x: model(x)}
        plan = graph._plan_for((x,))
        calls["integers, plan alone"] = lambda x=x, plan=plan: plan.run((x,))
        yield f"inference, batch {batch}", calls


def training_rows(rng, batch=64):
    """Yield (name, candidates) of training steps."""
    x, labels = rng.standard_normal((batch, 3, 32, 32), dtype=F32), rng.integers(0, 10, batch)
    calls = {
        "QAT int8": module_step(nq.prepare_qat(ResNet(), x, "int8"), x, labels),
        "float Module": module_step(ResNet(), x, labels),
    }
    yield f"training step, batch {batch}", calls | torch_steps(x, labels)


def torch_steps(x, labels):
    """Return PyTorch's training steps, float and quantization-aware, if it is installed."""
    try:
        import torch
        from torch.ao.quantization import get_default_qat_qconfig_mapping
        from torch.ao.quantization.quantize_fx import prepare_qat_fx
    except ImportError:
        return {}
    torch.set_num_threads(nq.get_num_threads())
    x, labels = torch.from_numpy(x), torch.from_numpy(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        qat = prepare_qat_fx(_torch_resnet(torch).train(), get_default_qat_qconfig_mapping("x86"), (x,))

    def step_of(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

        def step():
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), labels).backward()
            optimizer.step()

        return step

    return {"PyTorch QAT": step_of(qat), "PyTorch float": step_of(_torch_resnet(torch).train())}


def _torch_resnet(torch):
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, channels, out_channels, stride=1):
            super().__init__()
            self.conv1 = nn.Conv2d(channels, out_channels, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
            self.bn1, self.bn2 = nn.BatchNorm2d(out_channels), nn.BatchNorm2d(out_channels)
            self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
            self.stride, self.added = stride, (out_channels - channels) // 2

        def forward(self, x):
            y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
            if self.stride > 1:
                x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.added, self.added))
            return self.relu2(x + y)

    blocks = [Block(16, 16), Block(16, 16), Block(16, 16), Block(16, 32, 2), Block(32, 32), Block(32, 32)]
    blocks += [Block(32, 64, 2), Block(64, 64), Block(64, 64)]
    first = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
    return nn.Sequential(*first, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def main():
    """Print all rows."""
    rng = np.random.default_rng(0)
    for name, calls in [*inference_rows(rng), *training_rows(rng)]:
        seconds = demo.time_interleaved(list(calls.values()), rounds=5)
        print(name)
        for candidate, s in zip(calls, seconds, strict=True):
            print(f"  {candidate:22s} {1e3 * s:9.2f} ms   {s / seconds[0]:5.2f} x {next(iter(calls))}")


if __name__ == "__main__":
    main()
