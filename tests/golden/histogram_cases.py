"""Many values with tails, for which PyTorch's search goes many steps: exact arithmetic gives them to both sides."""

import numpy as np


def many_values():
    """Sequences of batches, shape (3, 4, 131072): sums of odd powers of -1 .. 1, whose range grows and shrinks."""
    v = (np.arange(2**17) + 0.5) / 2**16 - 1
    powers = {1: v}
    for n in (3, 9, 27, 81, 243, 729):
        third = powers[n // 3]
        powers[n] = third * third * third
    shapes = (v + 3 * powers[9], v + 10 * powers[27], v + 20 * powers[729])
    growth = np.array([[1.0, 1.0, 1.25, 0.5], [0.75, 1.5, 1.0, 3.0], [1.0, 0.5, 1.0625, 1.0]])
    return (growth[:, :, None] * np.stack(shapes)[:, None]).astype(np.float32)
