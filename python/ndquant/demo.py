"""The main job: one network from float to integers, trained, quantized two ways, run and verified."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import datasets, nn
from .graph.files import load
from .workflows import calibrate, convert, evaluate, prepare, prepare_qat

#: Mean and standard deviation of the MNIST training pixels in [0, 1].
MNIST_MEAN, MNIST_STD = 0.1307, 0.3081
CALIBRATION_IMAGES = 500
BATCH_SIZES = (1, 256)


class Job(NamedTuple):
    """What is trained on what. Images are float32, scaled, still in their own shape."""

    name: str
    train: tuple
    test: tuple
    epochs: int
    hidden: int = 100


def digits_job():
    """Return the job on the digits that ship: a few seconds."""
    data = datasets.digits()
    scaled = [((images - 8.0) / 8.0).astype(np.float32) for images in (data.train_images, data.test_images)]
    return Job("digits (8 x 8)", (scaled[0], data.train_labels), (scaled[1], data.test_labels), epochs=15)


def mnist_job(folder=None):
    """Return the job of the MNIST tutorial: 784-100-100-10, one epoch."""
    data = datasets.mnist(folder)
    scaled = [
        ((images / np.float32(255) - np.float32(MNIST_MEAN)) / np.float32(MNIST_STD)).astype(np.float32)
        for images in (data.train_images, data.test_images)
    ]
    return Job("MNIST", (scaled[0], data.train_labels), (scaled[1], data.test_labels), epochs=1)


def build_network(job, rng):
    """Return the multilayer perceptron of a job."""
    features, classes = int(np.prod(job.train[0].shape[1:])), int(job.train[1].max()) + 1
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(features, job.hidden, rng=rng),
        nn.ReLU(),
        nn.Linear(job.hidden, job.hidden, rng=rng),
        nn.ReLU(),
        nn.Linear(job.hidden, classes, rng=rng),
    )


def train(model, data, epochs, rng, show, label):
    """Train with Adam (lr 1e-3, batch 10) and report progress through `show`."""
    optimizer, count = nn.Adam(model.parameters(), lr=1e-3), -(-len(data[1]) // 10)
    for epoch in range(epochs):
        total, name = 0.0, label if epochs == 1 else f"{label}, epoch {epoch + 1} of {epochs}"
        for i, (x, labels) in enumerate(nn.batches(*data, size=10, rng=rng), 1):
            loss, dlogits = nn.cross_entropy(model(x), labels)
            model.backward(dlogits)
            optimizer.step()
            total += loss
            if i % max(1, count // 10) == 0 or i == count:
                show(f"{name}: {100 * i // count:3d} %, loss {total / i:.4f}", done=i == count)
    return model


class Result(NamedTuple):
    """One row of the table."""

    name: str
    network: object
    accuracy: float
    file_bytes: int


def run(job, seed=0, show=lambda text, done=True: None, folder=None):
    """Do the whole job and return its rows, the float network first.

    Calibration and range search see training images only; accuracy is that on the test images.
    """
    rng = np.random.default_rng(seed)
    network = build_network(job, rng)
    train(network, job.train, job.epochs, rng, show, "float")
    images = job.train[0][rng.permutation(len(job.train[0]))[:CALIBRATION_IMAGES]]
    results = [_result("float", network.eval(), job, folder)]
    for preset in ("int8", "int4"):
        show(f"PTQ {preset}: calibrating with {len(images)} training images")
        quantized = convert(calibrate(prepare(network, images[:1], preset), nn.batches(images, size=100)))
        results.append(_result(f"PTQ {preset}", quantized, job, folder))
    extra_epoch = int(rng.integers(2**31))
    qat = prepare_qat(network, images[:1], "int4")
    longer = network.graph(images[:1]).copy().train()
    train(longer, job.train, 1, extra_epoch, show, "float, one more epoch")
    train(qat, job.train, 1, extra_epoch, show, "QAT int4, the same epoch")
    results.append(_result("float, one more epoch", longer.eval(), job, folder))
    results.append(_result("QAT int4, the same epoch", convert(qat), job, folder))
    return results


def _result(name, network, job, folder):
    accuracy = evaluate(network, nn.batches(*job.test, size=500))
    graph = network.graph(job.test[0][:1]) if isinstance(network, nn.Module) else network
    file_name = name.replace(", ", "-").replace(" ", "-") + ".npz"
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(folder or temporary) / file_name
        graph.save(path)
        return Result(name, graph, accuracy, os.path.getsize(path))


#: Seconds between slices: OpenBLAS's threads go on spinning for tens of milliseconds after a product, and would take
#: the cores of the candidate that comes next.
PAUSE = 0.1


def time_interleaved(calls, slice_seconds=0.02, rounds=7):
    """Return the median seconds of one call of each function, measured in short slices that take turns."""
    repeats = [max(1, int(slice_seconds / min(_seconds(call, 1) for _ in range(4)))) for call in calls]
    samples = [[_slice(call, repeat) for call, repeat in zip(calls, repeats, strict=True)] for _ in range(rounds)]
    return np.median(samples, axis=0).tolist()


def _slice(call, repeat):
    time.sleep(PAUSE)
    call()
    return _seconds(call, repeat)


def _seconds(call, repeat):
    start = time.perf_counter()
    for _ in range(repeat):
        call()
    return (time.perf_counter() - start) / repeat


def numpy_float(graph):
    """Return the network as somebody would write it in NumPy by hand."""
    (w1, b1), (w2, b2), (w3, b3) = [
        (np.ascontiguousarray(node.weight.T), node.bias) for node in graph.nodes if node.op.name == "linear"
    ]
    return lambda x: np.maximum(np.maximum(x @ w1 + b1, 0) @ w2 + b2, 0) @ w3 + b3


def timings(job, results):
    """Return {batch size: [seconds of NumPy float, then of each integer network]}."""
    by_hand, integer = numpy_float(results[0].network), [r.network for r in results if r.network.kind == "integer"]
    return {size: _interleaved(by_hand, integer, job.test[0][:size].copy()) for size in BATCH_SIZES}


def _interleaved(by_hand, networks, x):
    flat = x.reshape(len(x), -1)
    return time_interleaved([lambda: by_hand(flat), *[partial(network, x) for network in networks]])


def table(job, results, times):
    """Return the printed table."""
    integer = [r.name for r in results if r.network.kind == "integer"]
    column = {"float": 0, **{name: i + 1 for i, name in enumerate(integer)}}
    rows = [["", "accuracy", "file", *[f"batch {n}" for n in BATCH_SIZES]]]
    for r in results:
        cells = [r.name, f"{100 * r.accuracy:.2f} %", f"{r.file_bytes / 1000:.1f} KB"]
        timed = r.name in column
        rows.append(cells + [f"{1e6 * times[n][column[r.name]]:.0f} us" if timed else "-" for n in BATCH_SIZES])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [_aligned(row, widths) for row in rows]
    shape = "-".join(str(n) for n in _widths(results[0].network))
    note = "batch N: one call on N images; float is NumPy written by hand, the others are the integer networks"
    return "\n".join([f"{job.name}: {shape}", "", *lines, "", note])


def _aligned(cells, widths):
    return "  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))])


def _widths(graph):
    layers = [node for node in graph.nodes if node.op.name == "linear"]
    return [layers[0].weight.shape[1], *[node.weight.shape[0] for node in layers]]


def check_files(job, results, folder):
    """Load each saved model and return the names of those that give other outputs than the model in memory."""
    x = job.test[0]
    paths = sorted(Path(folder).glob("*.npz"))
    loaded = {path.stem: load(path) for path in paths}
    name = {r.name: r.name.replace(", ", "-").replace(" ", "-") for r in results}
    return [r.name for r in results if not np.array_equal(loaded[name[r.name]](x), r.network(x))]


class Progress:
    """Prints progress: one changing line on a terminal, otherwise a line for each finished step."""

    def __init__(self, stream=None):
        self.stream = stream or sys.stderr

    def __call__(self, text, done=True):
        """Show `text`; `done` if it will not change any more."""
        terminal = self.stream.isatty()
        if done or terminal:
            end = "\n" if done else ""
            self.stream.write((f"\r\x1b[K{text}" if terminal else text) + end)
            self.stream.flush()
