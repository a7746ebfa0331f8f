"""Times of the MLP 784-100-100-10: inference at batch 1 and 256, and one training step at batch 64.

All candidates of a row take turns in short slices of one run; the table gives medians and the ratio to NumPy float
written by hand. OPENBLAS_NUM_THREADS and NDQUANT_NUM_THREADS set the threads of both.
"""

from __future__ import annotations

import numpy as np

import ndquant as nq
from ndquant import demo, nn

F32 = np.float32
SIZES = (784, 100, 100, 10)


def network(rng):
    layers = [nn.Linear(k, o, rng=rng) for k, o in zip(SIZES[:-1], SIZES[1:], strict=True)]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def numpy_step(x, labels, rng):
    """One float training step with SGD as somebody would write it in NumPy by hand."""
    shapes = zip(SIZES[:-1], SIZES[1:], strict=True)
    weights = [[rng.standard_normal((k, o), dtype=F32) * F32(0.05), np.zeros(o, F32)] for k, o in shapes]

    def step():
        hidden = [x]
        for i, (w, b) in enumerate(weights):
            h = hidden[-1] @ w + b
            hidden.append(np.maximum(h, 0) if i < 2 else h)
        p = np.exp(hidden[-1] - hidden[-1].max(1, keepdims=True))
        d = p / p.sum(1, keepdims=True)
        d[np.arange(len(labels)), labels] -= 1
        d /= F32(len(labels))
        for i in (2, 1, 0):
            gw, gb = hidden[i].T @ d, d.sum(0)
            d = (d @ weights[i][0].T) * (hidden[i] > 0) if i else None
            weights[i][0] -= F32(1e-3) * gw
            weights[i][1] -= F32(1e-3) * gb

    return step


def module_step(model, x, labels):
    optimizer = nn.SGD(model.parameters(), lr=1e-3)

    def step():
        _, dlogits = nn.cross_entropy(model(x), labels)
        model.backward(dlogits)
        optimizer.step()

    return step


def training_rows(rng):
    x, labels = rng.standard_normal((64, 784), dtype=F32), rng.integers(0, 10, 64)
    steps = {"NumPy float by hand": numpy_step(x, labels, rng), "float Module": module_step(network(rng), x, labels)}
    for preset in ("int8", "int4"):
        steps[f"QAT {preset}"] = module_step(nq.prepare_qat(network(rng), x, preset), x, labels)
    yield "training step, batch 64", steps


def inference_rows(rng):
    model, calibration = network(rng).eval(), rng.standard_normal((500, 784), dtype=F32)
    graphs = {preset: nq.quantize_static(model, [calibration], preset) for preset in ("int8", "int4")}
    by_hand = demo.numpy_float(model.graph(calibration))
    for batch in demo.BATCH_SIZES:
        x = rng.standard_normal((batch, 784), dtype=F32)
        calls = {"NumPy float by hand": lambda x=x: by_hand(x)}
        calls |= {f"integers, {preset}": lambda x=x, g=graph: g(x) for preset, graph in graphs.items()}
        yield f"inference, batch {batch}", calls


def main():
    rng = np.random.default_rng(0)
    for name, calls in [*inference_rows(rng), *training_rows(rng)]:
        seconds = dict(zip(calls, demo.time_interleaved(list(calls.values()), rounds=15), strict=True))
        base = seconds["NumPy float by hand"]
        print(name)
        for candidate, s in seconds.items():
            print(f"  {candidate:22s} {1e6 * s:9.1f} us   {s / base:5.2f} x NumPy float")


if __name__ == "__main__":
    main()
