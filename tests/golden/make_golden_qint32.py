"""Write qint32.npz: codes of `torch.qint32` up to 2^24 in magnitude, and the floats they stand for (PyTorch 2.13, CPU).

Only somebody who regenerates the file runs this, in an environment with PyTorch and NumPy:

    python tests/golden/make_golden_qint32.py

PyTorch computes codes of 32 bits in float32. So "exact/..." has scales that are powers of two, whose quotients float32
holds, and "rounded/..." others. Arrays of shape (cases, values): x (float32), q (int32), y (float32); scale and
zero_point of each case.
"""

from pathlib import Path

import numpy as np
import torch

SEED = 20261123
LIMIT = 2**24
VALUES = 80


def quotients(zero_point, rng):
    """Integers and halves for which neither they nor their codes pass 2^24, with the ends."""
    low, high = max(-LIMIT, -LIMIT - zero_point), min(LIMIT, LIMIT - zero_point)
    halves = rng.integers(low // 2, high // 2, VALUES) + 0.5
    return np.concatenate([rng.integers(low, high, VALUES), halves, [low, high, 0, 0.5, -0.5, 1.5, high - 1]])


def case(quotient, scale, zero_point):
    x = (quotient * np.float64(scale)).astype(np.float32)
    codes = torch.quantize_per_tensor(torch.tensor(x), float(scale), int(zero_point), torch.qint32)
    return x, codes.int_repr().numpy(), codes.dequantize().numpy()


def main():
    if not torch.__version__.startswith("2.13."):
        raise SystemExit(f"the golden files are those of PyTorch 2.13; this is {torch.__version__}")
    rng, files = np.random.default_rng(SEED), {}
    scales = {"exact": np.float32([1, 0.5, 2.0**-10, 4]), "rounded": np.float32([0.0123, 3.7e-4, 1.9])}
    for name, some in scales.items():
        settings = [(scale, zero_point) for scale in some for zero_point in (0, 1, -7, 1000, 2**20)]
        found = [case(quotients(zero_point, rng), scale, zero_point) for scale, zero_point in settings]
        files |= {f"{name}/{key}": np.stack(a) for key, a in zip("xqy", zip(*found, strict=True), strict=True)}
        files[f"{name}/scale"] = np.float32([scale for scale, _ in settings])
        files[f"{name}/zero_point"] = np.int32([zero_point for _, zero_point in settings])
    path = Path(__file__).parent / "qint32.npz"
    np.savez_compressed(path, **files)
    print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
