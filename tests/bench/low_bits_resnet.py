"""Agreement of ResNet-20 below 8 bits with its float form, after each post-training pass, on CIFAR-10.

Each pass is shown beside itself without its key step, which for some is rounding to nearest. `agree` is the share of
images with the answer of the float network, SQNR that of the logits, both of the converted network, which verifies.
Seeds draw the calibration images from those of the folder.

    python -m tests.bench.low_bits_resnet FOLDER [--images 200] [--seeds 3] [--rows "W4A8 GPTQ*"] [--results FILE]

FOLDER holds cifar10.npz and resnet20.npz. Figures are kept in FILE, and only those that it lacks are measured; the
tables are printed from it:

1. Weights per channel, first convolution and last linear layer at 8 bits, quantizers on what convolutions and linear
   layers read; ranges by mean squared error.
2. 8 bits with one scale per array, of a network whose channels were made 1/32 to 32 times as large between the
   convolutions of each block, by powers of 2: in float it computes the same.
3. Weights alone in groups of 36 that share a scale and a float offset, without the first and the last layer.
"""

from __future__ import annotations

import argparse
from functools import cache, cached_property, partial
from pathlib import Path

import numpy as np
from tests.networks import cifar10, resnet20

import ndquant as nq
from ndquant import nn, passes
from ndquant.passes.scaling import foldable_graph, move_factors, pairs

from .results import Results, markdown, with_range

BATCH, GROUP = 100, 36
RESULTS = Path(__file__).with_suffix(".json")


def config(weight_bits, activation_bits, axis=0):
    def grids(weight_bits, activation_bits):
        activation = nq.QuantSpec(activation_bits, signed=False, symmetric=False)
        return nq.Quantize(nq.QuantSpec(weight_bits, axis=axis), "mse"), nq.Quantize(activation, "mse")

    overrides = {np.add: None, nn.adaptive_avg_pool2d: None}
    return nq.QConfig(*grids(weight_bits, activation_bits), overrides=overrides, first_last=nq.QConfig(*grids(8, 8)))


class Setting:
    """A network, the images that calibrate it, and its configuration; what several passes begin with is made once."""

    def __init__(self, model, batches, configuration=None):
        self.model, self.batches, self.config = model, batches, configuration

    def calibrated(self, model):
        return nq.calibrate(nq.prepare(model, self.batches[0], self.config), self.batches)

    @cached_property
    def nearest(self):
        return self.calibrated(self.model)


def per_channel(activation_bits, model, batches, seed):
    return Setting(model, batches, config(4, activation_bits))


def unequal(model, batches, seed):
    """Channels between two layers are of very different sizes, and arrays have one scale."""
    graph, rng = foldable_graph(model, batches[0]), np.random.default_rng(seed)
    for layer, readers in pairs(graph):
        move_factors(layer, readers, 2.0 ** rng.integers(-5, 6, len(layer.weight)))
    return Setting(graph, batches, config(8, 8, axis=None))


def in_float(model, batches, seed):
    return Setting(model, batches)


def grouped(bits, choose, setting):
    """Return the float network with weights rounded in groups to the grids of ``choose(weight, spec)``."""
    graph = foldable_graph(setting.model, setting.batches[0])
    spec = nq.QuantSpec(bits, signed=False, symmetric=False, axis=1, group_size=GROUP, zero_aligned=False)
    for node in [node for node in graph.nodes if node.op.parameters][1:-1]:
        rows = node.weight.reshape(len(node.weight), -1)
        node.weight = nq.fake_quantize(rows, choose(rows, spec)).reshape(node.weight.shape)
    return graph


def rounded_by(refine, **options):
    return lambda setting: refine(setting.nearest, setting.batches, **options)


def equalized(setting):
    return setting.calibrated(passes.equalize(setting.model, setting.batches[0]))


def smoothed(setting):
    return setting.calibrated(passes.smooth_quant(setting.model, setting.batches))


NEAREST = {"rounded to nearest": lambda setting: setting.nearest}
SCALED = {"equalized": equalized, "SmoothQuant": smoothed}
PASSES = NEAREST | {
    "bias correction": rounded_by(passes.correct_bias),
    "- of inherited shifts, too": rounded_by(passes.correct_bias, inherited=True),
    **SCALED,
    "AdaRound": rounded_by(passes.adaround),
    "- not learned": rounded_by(passes.adaround, steps=1),
    "GPTQ": rounded_by(passes.gptq),
    "- identity for its Hessian": rounded_by(passes.gptq, damping=1e9),
}


def in_groups(bits):
    return {
        "HQQ": partial(grouped, bits, passes.hqq),
        "- offsets by min-max": partial(grouped, bits, nq.choose_qparams),
    }


#: {column: (function of model, batches and seed that makes a `Setting`, {row: function of it that returns a graph})}.
COLUMNS = {
    "W4A8": (partial(per_channel, 8), PASSES),
    "W4A4": (partial(per_channel, 4), PASSES),
    "W8A8, unequal channels": (unequal, NEAREST | SCALED),
    **{f"W{bits}": (in_float, in_groups(bits)) for bits in (4, 3, 2)},
}
TASKS = [(column, row) for column, (_, rows) in COLUMNS.items() for row in rows]


def outputs(network, images):
    return np.concatenate([network(images[i : i + BATCH]) for i in range(0, len(images), BATCH)])


def scores(graph, images, labels, logits):
    """Return agreement in %, SQNR in dB and top-1 in %; a calibrated graph is converted."""
    if graph.kind == "prepared":
        graph = nq.convert(graph)
        found = graph.verify(images[:50])
        if not found:
            raise AssertionError(str(found))
    answers = outputs(graph, images)
    right = answers.argmax(axis=1)
    agree, top1 = (100 * np.mean(right == other) for other in (logits.argmax(axis=1), labels))
    return round(float(agree), 2), round(float(nq.sqnr(logits, answers)), 2), round(float(top1), 2)


def measure(results, load, seed, images, pattern="*"):
    """Fill in what `results` lacks for one seed; `load` gives model, (calibration, test, labels) and logits."""
    missing = results.missing(TASKS, seed, pattern)
    if missing:
        model, (train, *test), logits = load()
        chosen = train[np.random.default_rng(seed).permutation(len(train))[:images]]
        batches = [chosen[i : i + BATCH] for i in range(0, len(chosen), BATCH)]
        setting = cache(lambda column: COLUMNS[column][0](model, batches, seed))
    for column, row in missing:
        figures = scores(COLUMNS[column][1][row](setting(column)), *test, logits)
        results.add(column, row, seed, figures)
        print(f"seed {seed}: {column} {row} {figures}", flush=True)


def table(results, *columns):
    """Return lines of Markdown: mean and range over the seeds of agreement and SQNR, mean of top-1."""

    def cell(column, row):
        figures = results.of(column, row)
        if not len(figures):
            return "-"
        agree, decibels, top1 = figures.T
        return f"{with_range(agree, 1)}, {with_range(decibels, 1)}, {np.mean(top1):.1f}"

    rows = [(row, *(cell(column, row) for column in columns)) for row in COLUMNS[columns[0]][1]]
    return markdown(("agree %, SQNR dB, top-1 %", *columns), rows)


def tables(results):
    return "\n\n".join(
        table(results, *columns) for columns in (("W4A8", "W4A4"), ("W8A8, unequal channels",), ("W4", "W3", "W2"))
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", default="*", help='a pattern, as "* GPTQ" or "W4A4 *"')
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    @cache
    def load():
        model, data = resnet20(arguments.folder), cifar10(arguments.folder)
        return model, data, outputs(model, data[1])

    results = Results(arguments.results)
    for seed in range(arguments.seeds):
        measure(results, load, seed, arguments.images, arguments.rows)
    print(tables(results))


if __name__ == "__main__":
    main()
