"""A language model of characters on the licence of Python, before and after quantization, in bits per character.

    python tests/bench/characters.py [--steps 400]

The last fifth of the text is held out. Rows: the float model; dynamically quantized; in 16 bits; and its last layer,
the only one that is fully connected, quantized after training and in training.
"""

from __future__ import annotations

import argparse
import builtins
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "python"))

import ndquant as nq
from ndquant import nn

WINDOW, BATCH = 64, 32


def licence():
    """Return the text that `license()` shows, which comes with Python."""
    printer = builtins.license
    printer._Printer__setup()
    return "\n".join(printer._Printer__lines)


class Characters(nn.Module):
    """Logits of each next character."""

    def __init__(self, letters, hidden=128, rng=0):
        rng = np.random.default_rng(rng)
        self.table = nn.Embedding(letters, 32, rng=rng)
        self.lstm = nn.LSTM(32, hidden, batch_first=True, rng=rng)
        self.head = nn.Linear(hidden, letters, rng=rng)

    def forward(self, x):
        """Record the layers."""
        return self.head(self.lstm(self.table(x))[0])


def encoded(text):
    """Return the text as numbers of its letters, all but the last fifth and the last fifth, and how many there are."""
    letters = sorted(set(text))
    codes = np.array([letters.index(c) for c in text])
    cut = len(codes) * 4 // 5
    return codes[:cut], codes[cut:], len(letters)


def train(model, codes, steps, lr=3e-3, rng=0):
    """Train on random windows of the text."""
    opt, rng = nn.Adam(model.parameters(), lr=lr), np.random.default_rng(rng)
    for step in range(steps):
        if step == steps * 3 // 4:
            opt.lr = lr / 5
        at = rng.integers(0, len(codes) - WINDOW, BATCH)[:, None] + np.arange(WINDOW + 1)
        window = codes[np.minimum(at, len(codes) - 1)]
        logits = model(window[:, :-1])
        _, d = nn.cross_entropy(logits.reshape(-1, logits.shape[-1]), window[:, 1:].ravel())
        model.backward(d.reshape(logits.shape))
        opt.step()
    return model.eval()


def bits_per_character(model, codes):
    """Return the mean of -log2 of the probability of each character, from the start of windows."""
    count = (len(codes) - 1) // WINDOW
    x, y = (codes[i : i + count * WINDOW].reshape(count, WINDOW) for i in (0, 1))
    logits = model(x)
    loss, _ = nn.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.ravel())
    return loss / np.log(2)


def file_size(model, example):
    """Return the bytes of the file of a model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.npz"
        (model.graph(example) if isinstance(model, nn.Module) else model).save(path)
        return path.stat().st_size


def rows(steps, hidden=128, text=None):
    """Train, quantize in each way, and yield (name, bits per character, bytes)."""
    seen, held_out, letters = encoded(text or licence())
    model = train(Characters(letters, hidden), seen, steps)
    example = seen[None, :WINDOW]

    def row(name, network):
        return name, bits_per_character(network, held_out), file_size(network, example)

    yield row("float", model)
    yield row("dynamic int8", nq.quantize_dynamic(model))
    yield row("weights float16", nq.quantize_dynamic(model, dtype="float16"))
    yield row("weights bfloat16", nq.quantize_dynamic(model, dtype="bfloat16"))
    windows = [seen[i : i + WINDOW][None] for i in range(0, 16 * WINDOW, WINDOW)]
    yield row("last layer int4, after training", nq.quantize_static(model, windows, "int4"))
    qat = train(nq.prepare_qat(model.train(), example, "int4"), seen, steps // 4, lr=2e-4)
    yield row("last layer int4, in training", nq.convert(qat))


def main():
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400, help="of training")
    print(f"{'model':34}{'bits per character':>20}{'bytes of its file':>20}")
    for name, bits, size in rows(parser.parse_args().steps):
        print(f"{name:34}{bits:20.4f}{size:20,}", flush=True)


if __name__ == "__main__":
    main()
