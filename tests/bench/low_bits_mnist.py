"""Accuracy of quantization-aware training at 4, 3 and 2 bits on MNIST, each method beside itself without its key step.

784-100-100-10, trained in float for one epoch (Adam 1e-3, batch 10) and then for one epoch by each method, from the
same weights with the same batches: input 8 bits, hidden activations and all weights b bits per tensor, logits float.
Where PyTorch is installed, its `_fake_quantize_learnable_per_tensor_affine` is trained in the same run, as LSQ.

    python -m tests.bench.low_bits_mnist [MNIST folder] [--seeds 3]
"""

from __future__ import annotations

import argparse

import numpy as np

import ndquant as nq
from ndquant import demo, nn
from ndquant.tables import text_table

CALIBRATION, BATCH, RATE, QUANTIZER_RATE = 100, 10, 1e-3, 1e-3

#: Learning rates of methods that need another one: at 1e-3 too many signs flip in every step.
RATES = {"binary weights": 1e-4}
U8 = nq.QuantSpec(8, signed=False, symmetric=False)
TERNARY = nq.QuantSpec(2, narrow_range=True)


def grids(bits):
    return nq.QuantSpec(bits), nq.QuantSpec(bits, signed=False, symmetric=False)


def config(weight, activation):
    return nq.QConfig(weight, activation, input=nq.Quantize(U8, "moving_average"))


def learned(bits, learn):
    weight, activation = grids(bits)
    return config(nq.Quantize(weight, "mse", learn=learn), nq.Quantize(activation, "mse", learn=learn))


def fixed(weight, bits, method):
    return config(nq.Quantize(weight, method), nq.Quantize(grids(bits)[1], "mse", learn="lsq"))


def pact(bits):
    weight, activation = grids(bits)
    return config(nq.Quantize(weight, "sawb+"), nq.Quantize(activation, "mse", learn="pact"))


#: (bits, method, configuration, what is left out, configuration without it); the latter is None where the same
#: parameters are not trained.
METHODS = [
    *((bits, "LSQ", learned(bits, "lsq"), "no gradient to the scales", None) for bits in (4, 3, 2)),
    *((bits, "TQT", learned(bits, "tqt"), "no gradient to the thresholds", None) for bits in (4, 3, 2)),
    *((bits, "PACT, SAWB+", pact(bits), "no gradient to the ends", None) for bits in (4, 2)),
    (4, "DoReFa", fixed(grids(4)[0], 4, "dorefa"), "no tanh", fixed(grids(4)[0], 4, "minmax")),
    (2, "ternary weights", fixed(TERNARY, 2, "ternary"), "threshold and scale by min-max", fixed(TERNARY, 2, "minmax")),
    (2, "binary weights", fixed(TERNARY, 2, "binary"), None, None),
]


def trained(graph, data, parameters, rng, rate=RATE):
    """Train for one epoch and return the graph."""
    opt = nn.Adam(parameters, lr=rate)
    for x, labels in nn.batches(*data, size=BATCH, rng=rng):
        _, dlogits = nn.cross_entropy(graph(x), labels)
        graph.backward(dlogits)
        opt.step()
    return graph


def accuracy(graph, job):
    return 100 * nq.evaluate(graph, nn.batches(*job.test, size=500))


def quantized(network, job, configuration, learn, rng, rate=RATE):
    """Return the accuracy of the integers after an epoch of quantization-aware training."""
    qat = nq.prepare_qat(network, job.train[0][:CALIBRATION], configuration)
    plain, own = qat.parameter_groups(QUANTIZER_RATE)
    graph = nq.convert(trained(qat, job.train, [plain, own] if learn else [plain], rng, rate))
    found = graph.verify(job.test[0][:200])
    if not found:
        raise AssertionError(str(found))
    return accuracy(graph, job)


def run(job, seed, show):
    """Return {(bits, method): accuracy in %} for one seed."""
    network, order = demo.build_network(job, np.random.default_rng(seed)), 100 + seed
    trained(network, job.train, network.parameters(), rng=seed)
    found = {("", "float"): accuracy(network.eval(), job)}
    longer = network.graph(job.train[0][:1]).copy().train()
    found["", "float, one more epoch"] = accuracy(trained(longer, job.train, longer.parameters(), order).eval(), job)
    for bits, method, full, left_out, without in METHODS:
        found[bits, method] = quantized(network, job, full, True, order, RATES.get(method, RATE))
        if left_out is not None:
            found[bits, f"  {left_out}"] = quantized(network, job, without or full, without is not None, order)
        show(f"seed {seed}: W{bits}A{bits} {method} {found[bits, method]:.2f}")
    torch_learnable = find_torch()
    for bits in (4, 3, 2) if torch_learnable is not None else ():
        found[bits, "PyTorch, learnable"] = torch_learnable(network, job, bits, order)
    return found


def find_torch():
    """Return the function that trains PyTorch's learnable fake-quantization, or None without PyTorch."""
    try:
        from .low_bits_torch import learnable
    except ImportError:
        return None
    return learnable


def table(results):
    rows = []
    for bits, method in sorted(results[0], key=lambda key: -(key[0] or 9)):
        values = [result[bits, method] for result in results]
        row = f"W{bits}A{bits}" if bits else "", method, f"{np.mean(values):.2f}"
        rows.append((*row, f"{min(values):.2f}-{max(values):.2f}"))
    return text_table(("", "method", "mean %", "of the seeds"), rows, left=2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    job = demo.mnist_job(arguments.folder)
    print(table([run(job, seed, demo.Progress()) for seed in range(arguments.seeds)]))


if __name__ == "__main__":
    main()
