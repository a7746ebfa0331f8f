"""Agreement of ResNet-20 below 8 bits with its float form, after each post-training pass, on CIFAR-10.

Weights per channel, first convolution and last linear layer at 8 bits, quantizers on what convolutions and linear
layers read; ranges by mean squared error. `agree` is the share of images with the answer of the float network, SQNR
that of the logits, both of the converted network. Seeds draw the calibration images.

    python -m tests.bench.low_bits_resnet FOLDER [--images 500] [--seeds 1]

FOLDER holds cifar10.npz and resnet20.npz.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from tests.networks import cifar10, resnet20

import ndquant as nq
from ndquant import nn, passes
from ndquant.tables import text_table

BATCH = 100
ROUNDED = {
    "GPTQ": passes.gptq,
    "AdaRound": passes.adaround,
    "GPTQ, identity Hessian": partial(passes.gptq, damping=1e9),
}


def config(weight_bits, activation_bits):
    def grids(weight_bits, activation_bits):
        activation = nq.QuantSpec(activation_bits, signed=False, symmetric=False)
        return nq.Quantize(nq.QuantSpec(weight_bits, axis=0), "mse"), nq.Quantize(activation, "mse")

    in_float = {np.add: None, nn.adaptive_avg_pool2d: None}
    return nq.QConfig(*grids(weight_bits, activation_bits), overrides=in_float, first_last=nq.QConfig(*grids(8, 8)))


def networks(model, batches, configuration):
    """Yield (name, calibrated graph) for each pass."""
    nearest = nq.calibrate(nq.prepare(model, batches[0], configuration), batches)
    yield "rounded to nearest", nearest
    yield "  bias correction", passes.correct_bias(nearest, batches)
    for name, rounded in ROUNDED.items():
        yield name, rounded(nearest, batches)
    equal = passes.equalize(model, batches[0])
    yield "equalized, to nearest", nq.calibrate(nq.prepare(equal, batches[0], configuration), batches)


def scores(graph, images, labels, logits):
    """Return (agreement in %, SQNR in dB, top-1 in %) of the converted network."""
    integers = nq.convert(graph)
    found = integers.verify(images[:50])
    if not found:
        raise AssertionError(str(found))
    answers = integers(images)
    right = answers.argmax(axis=1)
    agree, top1 = (100 * np.mean(right == other) for other in (logits.argmax(axis=1), labels))
    return agree, nq.sqnr(logits, answers), top1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    model, (train, test, labels) = resnet20(arguments.folder), cifar10(arguments.folder)
    logits, rows, found = model(test), [], {}
    for seed in range(arguments.seeds):
        chosen = train[np.random.default_rng(seed).permutation(len(train))[: arguments.images]]
        batches = [chosen[i : i + BATCH] for i in range(0, len(chosen), BATCH)]
        for bits in ((4, 8), (4, 4)):
            for name, graph in networks(model, batches, config(*bits)):
                found.setdefault((bits, name), []).append(scores(graph, test, labels, logits))
                print(f"seed {seed}: W{bits[0]}A{bits[1]} {name}", flush=True)
    for (bits, name), values in found.items():
        agree, decibels, top1 = np.mean(values, axis=0)
        error = 100 * np.sqrt(top1 / 100 * (1 - top1 / 100) / len(test))
        cells = f"{agree:.1f}", f"{decibels:.1f}", f"{top1:.1f} +- {error:.1f}"
        rows.append((f"W{bits[0]}A{bits[1]}", name, *cells))
    print(text_table(("", "", "agree %", "SQNR dB", "top-1 %"), rows, left=2))


if __name__ == "__main__":
    main()
