"""Accuracy of quantization-aware training at 4, 3 and 2 bits on MNIST, each method beside itself without its key step.

784-100-100-10, trained in float for one epoch (Adam 1e-3, batch 10) and then for one epoch by each method, from the
same weights with the same batches: input 8 bits, hidden activations and all weights b bits per tensor, logits float.
Methods for weights have activations by LSQ. Rows at 1e-4 train weights at that rate. Where PyTorch is installed, its
`_fake_quantize_learnable_per_tensor_affine` is trained in the same run, with the rates of LSQ.

    python -m tests.bench.low_bits_mnist [MNIST folder] [--seeds 3] [--rows "W2A2 LSQ*"] [--results FILE] [--held-out]

Figures are kept in FILE, and only those that it lacks are measured; the table is printed from it. Learning rates were
chosen with --held-out: on 10,000 of the training images, with other seeds.
"""

from __future__ import annotations

import argparse
from functools import cache, partial
from pathlib import Path

import numpy as np

import ndquant as nq
from ndquant import demo, nn
from ndquant.quantizers import BinaryQuantizer

from .results import Results, markdown, with_range

CALIBRATION, BATCH, RATE = 100, 10, 1e-3
RESULTS = Path(__file__).with_suffix(".json")

#: Learning rates of what quantizers learn.
LSQ_RATE, RANGE_RATE = 1e-4, 1e-3

#: Learning rate of binary weights, of which at 1e-3 too many change their sign in every step; and of the rows that show
#: how much of what is lost at 2 bits is lost to steps as large as that.
SMALL_RATE = 1e-4

U8 = nq.QuantSpec(8, signed=False, symmetric=False)
TERNARY = nq.QuantSpec(2, narrow_range=True)


def grids(bits):
    return nq.QuantSpec(bits), nq.QuantSpec(bits, signed=False, symmetric=False)


def config(weight, activation):
    return nq.QConfig(weight, activation, input=nq.Quantize(U8, "moving_average"))


def learned(bits, weights, activations=None):
    """Both learned, from the range of least squares on."""
    weight, activation = grids(bits)
    return config(
        nq.Quantize(weight, "mse", learn=weights), nq.Quantize(activation, "mse", learn=activations or weights)
    )


def followed(bits):
    """Weights by min-max, activations by the moving average of their extremes: nothing is learned."""
    weight, activation = grids(bits)
    return config(nq.Quantize(weight), nq.Quantize(activation, "moving_average"))


def pact(bits, weights):
    return config(nq.Quantize(grids(bits)[0], weights), nq.Quantize(grids(bits)[1], "mse", learn="pact"))


def of_weights(bits, method, spec=None):
    return config(nq.Quantize(spec or grids(bits)[0], method), nq.Quantize(grids(bits)[1], "mse", learn="lsq"))


class Unscaled(BinaryQuantizer):
    """Signs alone."""

    def _means(self, weight):
        return np.ones_like(super()._means(weight))


def train(graph, data, parameters, rng, rate=RATE):
    """Train for one epoch and return the graph."""
    opt = nn.Adam(parameters, lr=rate)
    for x, labels in nn.batches(*data, size=BATCH, rng=rng):
        _, dlogits = nn.cross_entropy(graph(x), labels)
        graph.backward(dlogits)
        opt.step()
    return graph


def accuracy(graph, job):
    return 100 * nq.evaluate(graph, nn.batches(*job.test, size=500))


def of_integers(qat, job):
    """Return the accuracy of the integers, which must be what was trained."""
    graph = nq.convert(qat)
    found = graph.verify(job.test[0][:200])
    if not found:
        raise AssertionError(str(found))
    return accuracy(graph, job)


def in_float(network, job, rng):
    return accuracy(network, job)


def longer(network, job):
    """Return the float network, ready for one more epoch."""
    return network.graph(job.train[0][:1]).copy().train()


def one_more_epoch(network, job, rng, rate=RATE):
    graph = longer(network, job)
    return accuracy(train(graph, job.train, graph.parameters(), rng, rate).eval(), job)


def quantized(configuration, network, job, rng, *, quantizer_rate=0.0, rate=RATE, fuse=True):
    """Return the accuracy after an epoch of quantization-aware training; what quantizers learn may have no rate."""
    qat = nq.prepare_qat(network, job.train[0][:CALIBRATION], configuration, fuse=fuse)
    plain, own = qat.parameter_groups(quantizer_rate)
    return of_integers(train(qat, job.train, [plain, own] if quantizer_rate else [plain], rng, rate), job)


def quantized_afterwards(configuration, network, job, rng):
    """Return the accuracy after an epoch in float, of weights that have never met a quantizer."""
    graph = longer(network, job)
    train(graph, job.train, graph.parameters(), rng)
    images = job.train[0][:CALIBRATION]
    return of_integers(nq.calibrate(nq.prepare(graph, images, configuration), [images]), job)


def unscaled(configuration, network, job, rng):
    """Return the accuracy of weights that are signs; of the simulation, as no conversion knows them."""
    qat = nq.prepare_qat(network, job.train[0][:CALIBRATION], configuration)
    for node in qat.nodes:
        if node.weight_quantizer is not None:
            node.weight_quantizer.__class__ = Unscaled
    groups = qat.parameter_groups(LSQ_RATE)
    return accuracy(train(qat, job.train, groups, rng, SMALL_RATE).eval(), job)


def pytorch(bits, network, job, rng, rate=RATE):
    from .low_bits_torch import learnable

    return learnable(network, job, bits, rng, rate)


def with_and_without(name, without, configuration, rate, **options):
    """Yield the row of a method that learns its grid, and that of the same grid as it begins."""
    yield name, partial(quantized, configuration, quantizer_rate=rate, **options)
    yield without, partial(quantized, configuration, **options)


def at_all_bits(bits):
    """Yield (row, how it is measured) of what is shown at every number of bits."""
    yield "min-max, straight-through", partial(quantized, followed(bits))
    yield "- quantized after the epoch", partial(quantized_afterwards, followed(bits))
    yield from with_and_without("LSQ", "- no gradient to scales", learned(bits, "lsq"), LSQ_RATE)
    yield "LSQ+ (offsets learned, too)", partial(quantized, learned(bits, "lsq", "lsq+"), quantizer_rate=LSQ_RATE)
    yield "PyTorch, learnable", partial(pytorch, bits)
    small = partial(quantized, learned(bits, "lsq"), quantizer_rate=LSQ_RATE, rate=SMALL_RATE)
    yield "LSQ, weights at 1e-4", small
    yield "PyTorch, weights at 1e-4", partial(pytorch, bits, rate=SMALL_RATE)


def at_4_and_2_bits(bits):
    """Yield (row, how it is measured) of what is shown at 4 and 2 bits; SAWB exists at 2, 4 and 8."""
    yield from with_and_without("TQT", "- no gradient to thresholds", learned(bits, "tqt"), RANGE_RATE)
    yield from with_and_without("PACT, SAWB+", "- ends of PACT fixed", pact(bits, "sawb+"), RANGE_RATE)
    yield "PACT, SAWB", partial(quantized, pact(bits, "sawb"), quantizer_rate=RANGE_RATE)
    yield "- weights by min-max", partial(quantized, pact(bits, "minmax"), quantizer_rate=RANGE_RATE)
    yield "DoReFa weights", partial(quantized, of_weights(bits, "dorefa"), quantizer_rate=LSQ_RATE)
    yield "- no tanh", partial(quantized, of_weights(bits, "minmax"), quantizer_rate=LSQ_RATE)


def at_4_bits():
    """Yield (row, how it is measured) of PACT where values have two signs."""
    two_sided = "PACT with two ends, before the ReLU; SAWB+", "- both ends fixed"
    yield from with_and_without(*two_sided, pact(4, "sawb+"), RANGE_RATE, fuse=False)


def of_few_codes():
    """Yield (row, how it is measured) of weights with 2 and 3 values."""
    learn = partial(partial, quantized, quantizer_rate=LSQ_RATE)
    binary = of_weights(2, "binary", TERNARY)
    yield "ternary weights", learn(of_weights(2, "ternary", TERNARY))
    yield "- threshold and scale by min-max", learn(of_weights(2, "minmax", TERNARY))
    yield "binary weights (XNOR-Net)", learn(binary, rate=SMALL_RATE)
    yield "- signs without their scale", partial(unscaled, binary)


FLOAT = {
    ("float", "as it is"): in_float,
    ("float", "one more epoch"): one_more_epoch,
    ("float", "one more epoch at 1e-4"): partial(one_more_epoch, rate=SMALL_RATE),
}
COLUMNS = {4: "W4A4", 3: "W3A3", 2: "W2A2"}

ROWS = {
    4: (at_all_bits(4), at_4_and_2_bits(4), at_4_bits()),
    3: (at_all_bits(3),),
    2: (at_all_bits(2), at_4_and_2_bits(2), of_few_codes()),
}

#: {(column, row): function of network, job and rng that returns an accuracy in %}.
TASKS = FLOAT | {
    (column, row): measure for bits, column in COLUMNS.items() for rows in ROWS[bits] for row, measure in rows
}


def measure(results, tasks, job, seed, show, pattern="*"):
    """Fill in what `results` lacks for one seed; `job` is a function that loads the data."""
    missing = results.missing(tasks, seed, pattern)
    if missing:
        network = demo.build_network(job(), np.random.default_rng(seed))
        train(network, job().train, network.parameters(), seed).eval()
    for column, row in missing:
        try:
            figure = tasks[column, row](network, job(), 100 + seed)
        except ImportError as error:
            show(f"{row}: skipped, {error}")
            continue
        results.add(column, row, seed, round(figure, 2))
        show(f"seed {seed}: {column} {row} {figure:.2f}")


def tables(results):
    """Return lines of Markdown: mean and range over the seeds in %."""
    names = dict.fromkeys(row for column, row in TASKS if column != "float")
    cells = [(row, *(with_range(results.of(column, row), 2) for column in COLUMNS.values())) for row in names]
    floats = [f"{row} {with_range(results.of(column, row), 2)}" for column, row in FLOAT]
    return f"Float: {', '.join(floats)}\n\n{markdown(('', *COLUMNS.values()), cells)}"


def held_out(job):
    """Return the job on training images alone: 10,000 of them take the place of the test images."""
    order = np.random.default_rng(123).permutation(len(job.train[1]))
    train, test = (tuple(part[rows] for part in job.train) for rows in (order[:-10000], order[-10000:]))
    return job._replace(train=train, test=test)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", default="*", help='a pattern, as "* PACT*" or "W2A2 *"')
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--held-out", action="store_true")
    arguments = parser.parse_args()
    load = partial(demo.mnist_job, arguments.folder)
    job = cache(lambda: held_out(load()) if arguments.held_out else load())
    results, first = Results(arguments.results), 10 if arguments.held_out else 0
    for seed in range(first, first + arguments.seeds):
        measure(results, TASKS, job, seed, demo.Progress(), arguments.rows)
    print(tables(results))


if __name__ == "__main__":
    main()
